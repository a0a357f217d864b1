//! The clients of `make soak`: random lines at one server for a given time, then what came of it.
//!
//! Memory is compared between two moments of rest, at a fifth of the time (at most two minutes) and at the end: no
//! request runs then, only the two models that stay are loaded, and nothing is kept for later prompts. Another process sends
//! one PING after the other. The exit status is 1 when memory grew by more than 5 %, when a client hung, or when the server
//! died.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use redis::{Connection, ErrorKind, RedisError, Value};
use redis_infer_stress::pulse::{Gaps, Pulse};
use redis_infer_stress::{Line, Lines, Models, hostile, shown};

const CLIENTS: u64 = 6;
/// A reply that takes longer is none: the longest line here runs some seconds. With the variable `HUNG`, in seconds, it is
/// another time: a niced engine beside busy programs gets next to no CPU.
const HUNG: Duration = Duration::from_secs(60);
/// Fields of a hash that is no index; see `hostile`. Redis itself frees it in a moment.
const FIELDS: usize = 20_000;
/// Share of lines that are wrong on purpose.
const HOSTILE: f64 = 0.1;
/// Growth of memory that is an error.
const GROWTH: f64 = 1.05;

/// What the clients found.
#[derive(Default)]
struct Findings {
    /// Replies by command, in microseconds.
    latencies: Mutex<BTreeMap<String, Histogram<u64>>>,
    /// Errors by code.
    errors: Mutex<BTreeMap<String, u64>>,
    dropped: AtomicU64,
    killed: AtomicU64,
    hung: Mutex<Vec<String>>,
}

struct Soak {
    url: String,
    models: Models,
    seed: u64,
    hung: Duration,
    /// What once did harm.
    hostile: Vec<Line>,
    findings: Findings,
    over: AtomicBool,
    /// Clients hold it for reading while they work; a moment of rest is whoever holds it for writing.
    working: RwLock<()>,
    ids: Mutex<Vec<u64>>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [port, pid, seconds, chat, embed] = args.as_slice() else {
        bail!("usage: redis-infer-soak PORT PID SECONDS CHAT_MODEL EMBED_MODEL; scripts/soak.sh calls it");
    };
    let (port, pid): (u16, u32) =
        (port.parse().context("PORT is not a port")?, pid.parse().context("PID is not a number")?);
    let hung = match std::env::var("HUNG").as_deref() {
        Ok("") | Err(_) => HUNG,
        Ok(seconds) => Duration::from_secs(seconds.parse().context("HUNG is not a number of seconds")?),
    };
    let length = Duration::from_secs(seconds.parse().context("SECONDS is not a number")?);
    let seed = match std::env::var("REDIS_INFER_SEED") {
        Ok(seed) => seed.parse().context("REDIS_INFER_SEED is not a number")?,
        Err(_) => fastrand::u64(..1 << 40),
    };
    let soak = Soak {
        url: format!("redis://127.0.0.1:{port}"),
        // There is no third model here: lines that want one that reranks are refused.
        models: Models { chat: chat.clone(), embed: embed.clone(), rank: embed.clone() },
        seed,
        hung,
        hostile: hostile::for_a_soak(),
        findings: Findings::default(),
        over: AtomicBool::new(false),
        working: RwLock::new(()),
        ids: Mutex::new(vec![0; CLIENTS as usize]),
    };
    println!("seed {seed}, {CLIENTS} clients, {} s", length.as_secs());
    soak.provide_a_hash().context("cannot make the hash")?;
    let mut pulse = Pulse::start(&std::env::current_exe()?.with_file_name("redis-infer-pulse"), port, pid)?;
    let memory = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let soak = &soak;
            scope.spawn(move || soak.client(client));
        }
        let memory = soak.watch(length);
        soak.over.store(true, Ordering::Relaxed);
        memory
    });
    let (before, after) = memory.context("the server does not answer any more")?;
    Ok(soak.report(before, after, pulse.take()?))
}

impl Soak {
    fn connect(&self) -> redis::RedisResult<Connection> {
        let connection =
            redis::Client::open(self.url.as_str())?.get_connection_with_timeout(Duration::from_secs(10))?;
        connection.set_read_timeout(Some(self.hung))?;
        Ok(connection)
    }

    fn provide_a_hash(&self) -> redis::RedisResult<()> {
        let pairs: Vec<String> = (0..2 * FIELDS).map(|number| number.to_string()).collect();
        redis::cmd("HSET").arg("users").arg(pairs).query(&mut self.connect()?)
    }

    /// Sends lines until the time is over.
    fn client(&self, number: u64) {
        let mut lines = Lines::new(self.seed.wrapping_mul(CLIENTS).wrapping_add(number), self.models.clone(), HOSTILE);
        while !self.over.load(Ordering::Relaxed) {
            let Ok(mut connection) = self.connect() else { return };
            self.note_id(number, &mut connection);
            loop {
                if self.over.load(Ordering::Relaxed) {
                    return;
                }
                let _working = self.working.read().unwrap_or_else(PoisonError::into_inner);
                match lines.rng().u16(0..1000) {
                    0..2 => {
                        // Gone while its request waits or runs.
                        let _ = connection.send_packed_command(&packed(&lines.next_line()));
                        self.findings.dropped.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    2..4 => self.kill_another(number, &mut connection),
                    _ => {}
                }
                let harmful = lines.rng().u16(0..500) < 1;
                let line = if harmful { lines.rng().choice(&self.hostile).cloned() } else { None };
                let line = line.unwrap_or_else(|| lines.next_line());
                if !self.send(&mut connection, &line) {
                    break;
                }
            }
        }
    }

    /// Whether the connection can be used further.
    fn send(&self, connection: &mut Connection, line: &Line) -> bool {
        let begun = Instant::now();
        let mut command = redis::Cmd::new();
        command.arg(line);
        let reply: Result<Value, RedisError> = command.query(connection);
        let name = line.first().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
        match reply {
            Ok(_) => self.took(name, begun.elapsed()),
            Err(error) if error.is_timeout() => {
                self.findings.hung.lock().unwrap_or_else(PoisonError::into_inner).push(shown(line));
                return false;
            }
            Err(error) if error.is_io_error() || error.kind() == ErrorKind::Parse => {
                // CLIENT KILL of another client; a server that died is noticed by the next connection.
                self.findings.killed.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            Err(error) => {
                let code = error.code().unwrap_or("ERR").to_owned();
                *self.findings.errors.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
                self.took(name, begun.elapsed());
            }
        }
        true
    }

    fn took(&self, name: String, time: Duration) {
        let mut latencies = self.findings.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        // Grows as needed; only a fixed one refuses values.
        let Ok(empty) = Histogram::new(2) else { return };
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let _ = latencies.entry(name).or_insert(empty).record(us);
    }

    fn note_id(&self, number: u64, connection: &mut Connection) {
        if let (Ok(id), Ok(mut ids)) = (redis::cmd("CLIENT").arg("ID").query::<u64>(connection), self.ids.lock())
            && let Some(place) = ids.get_mut(number as usize)
        {
            *place = id;
        }
    }

    fn kill_another(&self, number: u64, connection: &mut Connection) {
        let victim = self.ids.lock().ok().and_then(|ids| ids.get(((number + 1) % CLIENTS) as usize).copied());
        if let Some(id) = victim {
            let _ = redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).query::<Value>(connection);
        }
    }

    /// Memory in bytes at the two moments of rest; nothing when the server died.
    fn watch(&self, length: Duration) -> Option<(u64, u64)> {
        let begun = Instant::now();
        let first = (length / 5).min(Duration::from_secs(120));
        let wait_until = |moment: Duration| {
            while begun.elapsed() < moment {
                std::thread::sleep(Duration::from_millis(200));
                let alive = self.connect().and_then(|mut c| redis::cmd("PING").query::<String>(&mut c));
                if alive.is_err() {
                    return None;
                }
            }
            Some(())
        };
        wait_until(first)?;
        let before = self.memory_at_rest()?;
        wait_until(length)?;
        Some((before, self.memory_at_rest()?))
    }

    fn memory_at_rest(&self) -> Option<u64> {
        let _rest = self.working.write().unwrap_or_else(PoisonError::into_inner);
        let mut connection = self.connect().ok()?;
        self.unload_all_but_two(&mut connection)?;
        redis::cmd("FLUSHALL").query::<Value>(&mut connection).ok()?;
        // What is kept for later prompts grows up to its budget: of it there is to be nothing.
        for budget in ["0", "1gb"] {
            redis::cmd("CONFIG").arg("SET").arg("infer.kv-budget").arg(budget).query::<Value>(&mut connection).ok()?;
            std::thread::sleep(Duration::from_millis(100));
        }
        redis::cmd("MEMORY").arg("PURGE").query::<Value>(&mut connection).ok()?;
        std::thread::sleep(Duration::from_secs(2));
        let info: String = redis::cmd("INFO").arg("memory").query(&mut connection).ok()?;
        info.lines().find_map(|line| line.strip_prefix("used_memory_rss:"))?.trim().parse().ok()
    }

    /// Lines that are wrong on purpose load models under any name, and in the background.
    fn unload_all_but_two(&self, connection: &mut Connection) -> Option<()> {
        let deadline = Instant::now() + self.hung;
        loop {
            let models: Vec<BTreeMap<String, Value>> = redis::cmd("INFER.MODELS").query(connection).ok()?;
            let names = models.into_iter().filter_map(|mut model| match model.remove("name") {
                Some(Value::BulkString(name)) => Some(name),
                _ => None,
            });
            let others: Vec<Vec<u8>> = names.filter(|name| name != b"chat" && name != b"embed").collect();
            if others.is_empty() {
                return Some(());
            }
            for name in others {
                // One that still loads is asked again.
                let _ = redis::cmd("INFER.UNLOAD").arg(name).arg("FORCE").query::<Value>(connection);
            }
            if Instant::now() > deadline {
                let text = "INFER.UNLOAD of a model that stays".to_owned();
                self.findings.hung.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Prints everything; whether all is well.
    fn report(&self, before: u64, after: u64, gaps: Gaps) -> bool {
        let latencies = self.findings.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = self.findings.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let hung = self.findings.hung.lock().unwrap_or_else(PoisonError::into_inner);
        println!("{:<22} {:>8} {:>10} {:>10} {:>10}", "command", "replies", "p50 ms", "p99 ms", "max ms");
        for (name, times) in &*latencies {
            let ms = |us: u64| us as f64 / 1000.0;
            let [p50, p99] = [0.5, 0.99].map(|quantile| ms(times.value_at_quantile(quantile)));
            println!("{name:<22} {:>8} {p50:>10.2} {p99:>10.2} {:>10.2}", times.len(), ms(times.max()));
        }
        let mut codes = String::new();
        for (code, count) in &*errors {
            let _ = write!(codes, " {code} {count}");
        }
        println!("errors:{codes}");
        println!(
            "connections dropped {}, killed {}; hung clients {}; the server lives",
            self.findings.dropped.load(Ordering::Relaxed),
            self.findings.killed.load(Ordering::Relaxed),
            hung.len()
        );
        for line in &*hung {
            println!("  hung: {line}");
        }
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "PING from another process: {}, p99.9 {:.2} ms, longest {:.1} ms, of which {:.1} ms were Redis' own",
            gaps.pings,
            ms(gaps.p999),
            ms(gaps.longest),
            ms(gaps.own)
        );
        let growth = after as f64 / before as f64;
        println!("memory (RSS) {} MiB, at the end {} MiB: {growth:.3} of it", before >> 20, after >> 20);
        hung.is_empty() && growth <= GROWTH
    }
}

fn packed(line: &Line) -> Vec<u8> {
    let mut command = redis::Cmd::new();
    command.arg(line);
    command.get_packed_command()
}
