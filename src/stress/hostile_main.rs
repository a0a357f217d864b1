//! `make hostile`, one row: sends one of the inputs of the module `hostile` to a server and prints what came of it.
//!
//! Beside the reply and its time stand the longest time that Redis answered no PING, and how far the memory of the server
//! rose above what it had before, at its highest and a moment after the reply.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use redis::{Connection, Value};
use redis_infer_stress::pulse::{Gaps, Pulse};
use redis_infer_stress::{Line, hostile};

/// A reply that takes longer is none.
const HUNG: Duration = Duration::from_secs(120);

/// What is tried, in the order in which it was found.
const ROWS: [&str; 10] = [
    "GRAMMAR of 1,800 rules with 28 ? each",
    "GRAMMAR of 65,000 ?, no such model",
    "JSONSCHEMA, 1,400 choices x 1,700 properties",
    "DETOKENIZE of 20 million ids",
    "EMBED of 64 texts of 8 MB",
    "GENERATE behind 60 texts of clients that left",
    "INDEXINFO of a hash with a million fields",
    "CHAT of 300,000 messages",
    "JSONSCHEMA with a pattern that is no text",
    "BGREWRITEAOF, no RDB preamble, an index",
];

struct Server {
    port: u16,
    pid: u32,
    log: String,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostile: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [row, port, pid, log] = args.as_slice() else {
        bail!("usage: redis-infer-hostile ROW PORT PID LOG; scripts/hostile.sh calls it");
    };
    let row: usize = row.parse().context("ROW is not a number")?;
    let name = row.checked_sub(1).and_then(|row| ROWS.get(row)).context("there is no such row")?;
    let server = Server { port: port.parse()?, pid: pid.parse()?, log: log.clone() };
    let program = std::env::current_exe()?.with_file_name("redis-infer-pulse");
    server.prepare(row)?;
    let before = memory(server.pid, "VmRSS:").unwrap_or_default();
    let mut pulse = Pulse::start(&program, server.port, server.pid)?;
    pulse.take()?;
    // What was the highest before does not count.
    let _ = fs::write(format!("/proc/{}/clear_refs", server.pid), "5");
    let begun = Instant::now();
    let reply = server.row(row);
    let took = begun.elapsed();
    let gaps = pulse.take().ok();
    if row == 1 || row == 5 {
        settle(&server);
    }
    let rise = |what| memory(server.pid, what).map(|now| now.saturating_sub(before) >> 10);
    print_row(row, name, &reply, took, gaps, rise("VmHWM:").zip(rise("VmRSS:")));
    Ok(())
}

fn print_row(
    row: usize,
    name: &str,
    reply: &Result<String>,
    took: Duration,
    gaps: Option<Gaps>,
    rise: Option<(u64, u64)>,
) {
    let reply = match reply {
        Ok(text) => text.chars().filter(|c| !c.is_control()).take(90).collect(),
        Err(error) => format!("{error:#}"),
    };
    let gap = gaps.map_or("-".to_owned(), |gaps| format!("{:.1}", gaps.longest.as_secs_f64() * 1e3));
    let (highest, after) = rise.map_or(("-".to_owned(), "server gone".to_owned()), |(highest, after)| {
        (highest.to_string(), after.to_string())
    });
    println!("| {row} | {name} | {:.2} | {gap} | {highest} | {after} | {reply} |", took.as_secs_f64());
}

/// Gives memory that is no longer used a moment to go back.
fn settle(server: &Server) {
    if server.connect().is_ok() {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A line of /proc/PID/status, in KiB.
fn memory(pid: u32, what: &str) -> Option<u64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(what))?.split_whitespace().next()?.parse().ok()
}

impl Server {
    fn connect(&self) -> Result<Connection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let connection = client.get_connection_with_timeout(Duration::from_secs(10))?;
        connection.set_read_timeout(Some(HUNG))?;
        Ok(connection)
    }

    fn call(&self, line: &[&str]) -> Result<Value> {
        Ok(redis::cmd(line.first().context("an empty line")?).arg(line.get(1..)).query(&mut self.connect()?)?)
    }

    /// The reply as text, an error too.
    fn send(&self, line: &Line) -> Result<String> {
        let mut command = redis::Cmd::new();
        command.arg(line);
        match command.query::<Value>(&mut self.connect()?) {
            Ok(Value::Array(values)) => Ok(format!("an array of {}", values.len())),
            Ok(Value::BulkString(bytes)) => Ok(format!("{} bytes: {}", bytes.len(), String::from_utf8_lossy(&bytes))),
            Ok(value) => Ok(format!("{value:?}")),
            Err(error) if error.is_io_error() => bail!("connection lost"),
            Err(error) => Ok(format!("{} {}", error.code().unwrap_or("ERR"), error.detail().unwrap_or_default())),
        }
    }

    /// What has to be there before, and is not measured.
    fn prepare(&self, row: usize) -> Result<()> {
        match row {
            7 => {
                let mut connection = self.connect()?;
                for batch in 0..1000 {
                    let mut command = redis::cmd("HSET");
                    command.arg("users");
                    for field in 0..1000 {
                        command.arg(batch * 1000 + field).arg("some value of a user");
                    }
                    command.query::<Value>(&mut connection)?;
                }
            }
            10 => {
                self.call(&["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"])?;
                self.call(&["INFER.INGEST", "docs", "a.md", "Tomatoes need six hours of sun."])?;
            }
            _ => {}
        }
        Ok(())
    }

    fn row(&self, row: usize) -> Result<String> {
        match row {
            1 => self.send(&hostile::chain_of_rules()),
            2 => self.send(&hostile::signs_without_end()),
            3 => self.send(&hostile::schema_that_multiplies()),
            4 => self.send(&hostile::twenty_million_ids()),
            5 => self.send(&hostile::many_long_texts()),
            6 => self.behind_clients_that_left(),
            7 => self.send(&vec![b"INFER.INDEXINFO".to_vec(), b"users".to_vec()]),
            8 => self.send(&hostile::too_many_messages()),
            9 => self.send(&hostile::pattern_that_is_no_text()),
            _ => self.rewrite_without_preamble(),
        }
    }

    fn behind_clients_that_left(&self) -> Result<String> {
        let mut command = redis::Cmd::new();
        command.arg(hostile::long_text());
        let packed = command.get_packed_command();
        let mut clients = (0..60).map(|_| self.connect()).collect::<Result<Vec<_>>>()?;
        for client in &mut clients {
            client.send_packed_command(&packed)?;
        }
        drop(clients);
        let short = ["INFER.GENERATE", "chat", "0", "TEXT", "hi", "MAXTOKENS", "1", "TEMP", "0"];
        let begun = Instant::now();
        let answer = self.send(&short.map(|word| word.as_bytes().to_vec()).to_vec())?;
        Ok(format!("after {:.2} s: {answer}", begun.elapsed().as_secs_f64()))
    }

    fn rewrite_without_preamble(&self) -> Result<String> {
        self.call(&["CONFIG", "SET", "aof-use-rdb-preamble", "no"])?;
        self.call(&["CONFIG", "SET", "appendonly", "yes"])?;
        let mut state = String::new();
        for _ in 0..100 {
            let info: String = redis::cmd("INFO").arg("persistence").query(&mut self.connect()?)?;
            let field = |name: &str| {
                info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
            };
            state = field("aof_last_bgrewrite_status:");
            if field("aof_rewrite_in_progress:") == "0" && state == "err" {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let warned = log.lines().any(|line| line.contains("aof-use-rdb-preamble") && line.contains("infer"));
        Ok(format!("the rewrite: {state}; warned in the log: {}", if warned { "yes" } else { "no" }))
    }
}
