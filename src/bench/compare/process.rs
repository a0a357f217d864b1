//! The servers and neighbours that a measurement starts: none of them outlives it, whatever ends it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a server may take to start: to load a model and, of ours, to measure how it runs best.
const START: Duration = Duration::from_secs(120);

static RUNNING: Mutex<BTreeMap<u32, Child>> = Mutex::new(BTreeMap::new());

fn running() -> MutexGuard<'static, BTreeMap<u32, Child>> {
    // A poisoned lock guards a sound map all the same.
    RUNNING.lock().unwrap_or_else(|e| e.into_inner())
}

/// On SIGINT and SIGTERM: kills every process that runs, then leaves.
pub fn kill_all_on_signal() -> Result<()> {
    let end = || {
        let mut running = running();
        running.values_mut().for_each(kill);
        std::process::exit(130);
    };
    ctrlc::set_handler(end).context("cannot handle SIGINT")
}

fn kill(child: &mut Child) {
    // Fails only for one that has ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts a command; what it prints goes to the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        // Held across the start, so that a signal finds every process that was started.
        let mut running = running();
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let pid = child.id();
        running.insert(pid, child);
        Ok(Self { pid, log: log.to_owned() })
    }

    /// Waits until `ready` answers yes.
    pub fn wait_until(&self, ready: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + START;
        while !ready() {
            let ended = running().get_mut(&self.pid).is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                let what = if ended { "ended while it started" } else { "is not ready in time" };
                bail!("a server {what}; the end of its log:\n{}", self.end_of_log());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn end_of_log(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Memory that is resident, in bytes.
    pub fn resident(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).context("cannot read /proc")?;
        resident(&status).context("/proc tells no VmRSS")
    }
}

/// `VmRSS` of a `/proc/PID/status`, in bytes.
fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = running().remove(&self.pid) {
            kill(&mut child);
        }
    }
}

/// A port of the loopback interface on which nobody listens.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// Processes that keep one CPU busy each, until they are dropped.
pub fn neighbours(number: usize, work: &Path) -> Result<Vec<Process>> {
    let program = std::env::current_exe().context("cannot find the own program")?;
    (0..number)
        .map(|number| Process::start(Command::new(&program).arg("burn"), &work.join(format!("burn-{number}.log"))))
        .collect()
}

/// What such a process does.
pub fn burn() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        let status = "Name:\tredis-server\nVmPeak:\t  300 kB\nVmRSS:\t    2048 kB\nRssAnon:\t 1 kB\n";
        assert_eq!(resident(status), Some(2_097_152.0));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn a_process_ends_when_it_is_dropped() {
        let log = std::env::temp_dir().join(format!("redis-infer-bench-{}.log", std::process::id()));
        let process = Process::start(Command::new("sleep").arg("600"), &log).unwrap();
        let proc = PathBuf::from(format!("/proc/{}", process.pid));
        let linux = Path::new("/proc/self").exists();
        assert_eq!(proc.exists(), linux);
        drop(process);
        assert!(!proc.exists() && running().is_empty());
        fs::remove_file(log).unwrap();
    }
}
