//! A PING a moment, from another process: how long Redis' main thread answers nobody.
//!
//! `redis-infer-pulse PORT PID` sends one PING after the other and keeps the longest time that one took. Each line on its
//! standard input makes it print what it has found since the last one, and begin anew; the end of input ends it.
//!
//! Time in which the kernel gave the CPU to somebody else does not count as a gap of the main thread: of each PING is taken
//! off how long the main thread and the process that measures were ready to run and did not (the second number in
//! `/proc/PID/task/TID/schedstat`). What is left is the main thread at work, or waiting for a lock.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use hdrhistogram::Histogram;

/// Between two PINGs.
const PAUSE: Duration = Duration::from_micros(300);
/// A PING that takes longer ends the process with an error.
const PATIENCE: Duration = Duration::from_secs(120);

/// What PINGs found since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gaps {
    /// The longest one as a client sees it.
    pub longest: Duration,
    /// The longest one without the time in which the CPU was somebody else's.
    pub own: Duration,
    /// What 999 of 1000 PINGs took at most, as a client sees it.
    pub p999: Duration,
    /// How many PINGs were answered.
    pub pings: u64,
}

/// A process that sends PINGs to one server.
#[derive(Debug)]
pub struct Pulse {
    child: Child,
    ask: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Pulse {
    /// Starts `program`, which calls [`serve`], for the server with this process id on 127.0.0.1.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, port: u16, pid: u32) -> Result<Self> {
        let mut child = Command::new(program)
            .args([port.to_string(), pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (Some(ask), Some(told)) = (child.stdin.take(), child.stdout.take()) else { bail!("no pipes") };
        let mut pulse = Self { child, ask, told: BufReader::new(told) };
        pulse.take()?;
        Ok(pulse)
    }

    /// What was found since the last call. The PING that is on its way counts: this waits for it.
    ///
    /// # Errors
    /// When the process has ended, because the server did not answer any more.
    pub fn take(&mut self) -> Result<Gaps> {
        writeln!(self.ask)?;
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [longest, own, p999, pings] = numbers.as_slice() else { bail!("the server does not answer PING any more") };
        let [longest, own, p999] = [*longest, *own, *p999].map(Duration::from_micros);
        Ok(Gaps { longest, own, p999, pings: *pings })
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process that [`Pulse::start`] starts, with its arguments `PORT PID`.
///
/// # Errors
/// When the server does not answer.
pub fn serve(args: &[String]) -> Result<()> {
    let [port, pid] = args else { bail!("usage: redis-infer-pulse PORT PID") };
    let mut server = TcpStream::connect(("127.0.0.1", port.parse::<u16>()?))?;
    server.set_nodelay(true)?;
    server.set_read_timeout(Some(PATIENCE))?;
    // Redis' main thread has the id of the process.
    let main = format!("/proc/{pid}/task/{pid}/schedstat");
    let questions = lines_of_input();
    let (mut gaps, mut times) = (Gaps::default(), Histogram::<u64>::new(3).map_err(|error| anyhow!("{error}"))?);
    loop {
        let (begun, waited) = (Instant::now(), held_up(&main) + held_up("/proc/thread-self/schedstat"));
        ping(&mut server)?;
        let took = begun.elapsed();
        let waited = (held_up(&main) + held_up("/proc/thread-self/schedstat")).saturating_sub(waited);
        gaps.longest = gaps.longest.max(took);
        gaps.own = gaps.own.max(took.saturating_sub(waited));
        gaps.pings += 1;
        // It grows as needed: no time is too long for it.
        let _ = times.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        match questions.try_recv() {
            Ok(()) => {
                let p999 = times.value_at_quantile(0.999);
                println!("{} {} {p999} {}", gaps.longest.as_micros(), gaps.own.as_micros(), gaps.pings);
                io::stdout().flush()?;
                gaps = Gaps::default();
                times.reset();
            }
            Err(TryRecvError::Empty) => std::thread::sleep(PAUSE),
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

/// One message for each line of standard input.
fn lines_of_input() -> Receiver<()> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            if line.is_err() || tell.send(()).is_err() {
                return;
            }
        }
    });
    told
}

fn ping(server: &mut TcpStream) -> Result<()> {
    server.write_all(b"PING\r\n")?;
    let mut reply = [0; 7];
    server.read_exact(&mut reply)?;
    if &reply != b"+PONG\r\n" {
        bail!("not an answer to PING: {:?}", String::from_utf8_lossy(&reply));
    }
    Ok(())
}

/// How long a thread was ready to run without a CPU; 0 where the kernel does not tell.
fn held_up(schedstat: &str) -> Duration {
    let text = fs::read_to_string(schedstat).unwrap_or_default();
    let nanoseconds = text.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}
