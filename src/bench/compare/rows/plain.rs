//! F6: what plain commands lose while all workers are busy.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::compare::Bench;
use crate::compare::answers::{Client, Server};
use crate::compare::ours::Ours;
use crate::compare::report::{Goal, Section, Table, Verdict};
use crate::compare::stats::Sample;

/// Clients that generate meanwhile.
const BUSY: u64 = 4;

/// Answers of this length follow each other.
const ANSWER: u64 = 64;

/// What redis-benchmark says: requests per second and the 99th percentile of PING.
#[derive(Debug, Default)]
struct Figures {
    set: Vec<f64>,
    get: Vec<f64>,
    ping_p99_ms: Vec<f64>,
}

pub fn run(bench: &Bench) -> Result<Section> {
    let rounds = bench.pick(5, 2);
    let mut table = Table::new(&["plain commands", "SET/s", "GET/s", "PING p99, ms"]);
    let mut shares = Vec::new();
    // The default, which decides, and the most modest.
    for nice in ["10", "20"] {
        let mut ours = bench.ours(&["--infer.nice", nice])?;
        ours.load_chat(&bench.chat_model(), &[])?;
        let (mut idle, mut busy) = (Figures::default(), Figures::default());
        for round in 0..=rounds {
            let figures = benchmark(bench, &ours)?;
            let beside = while_busy(&ours, round, || benchmark(bench, &ours))?;
            if round > 0 {
                idle.add(figures);
                busy.add(beside);
            }
        }
        let [idle, busy] = [idle, busy].map(Figures::medians);
        for (what, [set, get, ping]) in [("nobody generating", idle), ("4 clients generating", busy)] {
            let name = format!("`infer.nice {nice}`, {what}");
            table.row([name, format!("{set:.0}"), format!("{get:.0}"), format!("{ping:.2}")]);
        }
        shares.push([busy[0] / idle[0], busy[1] / idle[1], busy[2] - idle[2]]);
    }
    let verdict = |what: &str, goal, at: usize| Verdict {
        id: "F6",
        what: what.into(),
        goal,
        value: Some(shares[0][at]),
        cause: format!(
            "redis-server and redis-benchmark together want more CPU time than is left: a thread of nice 10 keeps a share of it, \
             is not stopped at once when one of them wakes up, and is no idle CPU to them, so that at times both are on the same one. \
             With `infer.nice 20` it is all that, and SET keeps {:.2} and GET {:.2}.",
            shares[1][0], shares[1][1]
        ),
    };
    let verdicts = vec![
        verdict("SET/s while all workers are busy, to the idle server", Goal::AtLeast(0.85), 0),
        verdict("GET/s while all workers are busy, to the idle server", Goal::AtLeast(0.85), 1),
        verdict("PING p99 while all workers are busy, ms more than idle", Goal::AtMost(1.0), 2),
    ];
    Ok(Section {
        title: "F6: plain commands while models run",
        text: vec![format!(
            "`redis-benchmark -t set,get -P 16 -c 50` and `-t ping_mbulk -c 1` on a server where nobody generates, then while {BUSY} \
             clients generate without a pause; {rounds} rounds, medians. redis-benchmark needs a CPU itself. 10 is the default of \
             `infer.nice`, 20 is for CPU time that nobody else wants."
        )],
        tables: vec![table],
        verdicts,
        ..Section::default()
    })
}

impl Figures {
    fn add(&mut self, [set, get, ping]: [f64; 3]) {
        self.set.push(set);
        self.get.push(get);
        self.ping_p99_ms.push(ping);
    }

    fn medians(self) -> [f64; 3] {
        [self.set, self.get, self.ping_p99_ms].map(|values| values.into_iter().collect::<Sample>().median())
    }
}

/// Runs `measure` while [`BUSY`] clients generate.
fn while_busy<T>(ours: &Ours, round: u64, measure: impl FnOnce() -> Result<T>) -> Result<T> {
    let prompts = ours.prompts()?.several(round, BUSY as usize, 32);
    let clients = prompts.iter().map(|_| ours.client()).collect::<Result<Vec<_>>>()?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let generate = |(mut client, prompt): (Box<dyn Client>, &String)| {
            let (done, prompt) = (&done, prompt.clone());
            scope.spawn(move || -> Result<()> {
                while !done.load(Ordering::Relaxed) {
                    client.answer(&prompt, ANSWER)?;
                }
                Ok(())
            })
        };
        let running: Vec<_> = clients.into_iter().zip(&prompts).map(generate).collect();
        // Until they have all begun.
        thread::sleep(Duration::from_millis(500));
        let measured = measure();
        done.store(true, Ordering::Relaxed);
        running.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)?;
        measured
    })
}

/// Requests per second of SET and GET, and the 99th percentile of PING in ms.
fn benchmark(bench: &Bench, ours: &Ours) -> Result<[f64; 3]> {
    let requests = bench.pick("500000", "200000");
    let throughput = redis_benchmark(ours, &["-t", "set,get", "-P", "16", "-c", "50", "-n", requests])?;
    let pings = redis_benchmark(ours, &["-t", "ping_mbulk", "-c", "1", "-n", bench.pick("10000", "3000")])?;
    Ok([
        column(&throughput, "SET", "rps")?,
        column(&throughput, "GET", "rps")?,
        column(&pings, "PING_MBULK", "p99_latency_ms")?,
    ])
}

/// What redis-benchmark prints.
fn redis_benchmark(ours: &Ours, options: &[&str]) -> Result<String> {
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", "127.0.0.1", "-p", ours.port(), "--csv"]).args(options);
    let output = command.output().context("cannot start redis-benchmark")?;
    ensure!(output.status.success(), "redis-benchmark failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A figure of a test, by the names in the first line of the CSV.
fn column(csv: &str, test: &str, name: &str) -> Result<f64> {
    let mut lines = csv.lines().map(|line| line.split(',').map(|cell| cell.trim_matches('"')));
    let missing = || format!("redis-benchmark printed no {name} of {test}");
    let at = lines.next().and_then(|mut head| head.position(|cell| cell == name)).with_context(missing)?;
    let mut tests = lines.filter_map(|mut line| (line.next()? == test).then(|| line.nth(at.checked_sub(1)?)).flatten());
    tests.next().with_context(missing)?.parse().with_context(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_found_by_test_and_column() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"p99_latency_ms\"\n\"SET\",\"100.5\",\"1\",\"2\"\n\"GET\",\"200\",\"3\",\"4\"\n";
        assert_eq!(column(csv, "SET", "rps").unwrap(), 100.5);
        assert_eq!(column(csv, "GET", "p99_latency_ms").unwrap(), 4.0);
        assert!(column(csv, "PING", "rps").is_err() && column(csv, "SET", "p50").is_err());
    }
}
