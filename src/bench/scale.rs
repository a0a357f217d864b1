//! `make scale`: what a search costs, and how long it holds Redis' lock, in an index that grows; then how fast a real
//! tree is ingested, and how fast again when nothing has changed. Prints tables and draws the curve.
//!
//! The chunks of the large index are random: unit vectors and tokens, written as INFER.INGEST would write them, because
//! embedding so many takes an hour.

mod plot;
mod synthetic;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use redis::{Cmd, Connection, Value};

use self::synthetic::Synthetic;
use crate::client::{Document, connect, ingest};

/// Searches for each figure.
const SEARCHES: usize = 100;

/// The index that grows.
const INDEX: &str = "scale";

/// True of one chunk in a hundred: see [`synthetic::Synthetic`].
const FILTER: &str = ".group == 7";

/// How to measure.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The server, with the models `chat` and `embed`.
    #[arg(long)]
    url: String,
    /// Numbers of chunks, in ascending order.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000")]
    sizes: Vec<usize>,
    /// A folder whose Rust files are ingested.
    #[arg(long)]
    tree: PathBuf,
    /// Where the curve is drawn.
    #[arg(long)]
    svg: PathBuf,
}

/// What searches cost in an index of one size.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Chunks in the index.
    pub chunks: usize,
    /// Without a filter, and with one.
    pub plain: Figures,
    pub filtered: Figures,
}

/// What [`SEARCHES`] searches took.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// As a client sees it, embedding of the question included: median and 99th percentile.
    pub median: Duration,
    pub p99: Duration,
    /// Of each under Redis' lock, on average.
    pub lock: Duration,
    /// The longest scope under the lock since the server was started.
    pub longest_lock: Duration,
}

/// Measures, prints, draws.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut connection = connect(&arguments.url)?;
    println!("time of INFER.SEARCH in ms, K 5, {SEARCHES} searches each; FILTER {FILTER:?} is true of 1 chunk in 100");
    println!(
        "lock: time of a search under Redis' lock, on average; longest: the longest scope under it since the server was started"
    );
    println!("embedding a question takes {:.1} ms of each search\n", millis(embedding(&mut connection)?));
    println!("{:>8}   {:^31}   {:^31}", "", "without a filter", "with the filter");
    let columns = format!("{:>7} {:>7} {:>7} {:>7}", "median", "p99", "lock", "longest");
    println!("{:>8}   {columns}   {columns}   {:>8}", "chunks", "VADD/s");
    let mut costs = Vec::new();
    let mut index = Synthetic::new(&mut connection, INDEX)?;
    for &chunks in &arguments.sizes {
        let (start, before) = (Instant::now(), index.chunks());
        index.grow(&mut connection, chunks)?;
        let rate = (index.chunks() - before) as f64 / start.elapsed().as_secs_f64();
        let plain = search(&mut connection, None)?;
        let filtered = search(&mut connection, Some(FILTER))?;
        println!("{chunks:>8}   {}   {}   {rate:>8.0}", plain.columns(), filtered.columns());
        costs.push(Cost { chunks, plain, filtered });
    }
    plot::draw(&arguments.svg, &costs)?;
    ingest_twice(&mut connection, &arguments.url, &arguments.tree)
}

impl Figures {
    fn columns(&self) -> String {
        let [median, p99, lock, longest] = [self.median, self.p99, self.lock, self.longest_lock].map(millis);
        format!("{median:>7.1} {p99:>7.1} {lock:>7.2} {longest:>7.2}")
    }
}

/// A figure in milliseconds.
fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Questions of about the length that people ask; all different, so that nothing is cached.
fn question(number: usize) -> String {
    format!("How does part {number} of the program decide what to do when the connection is lost?")
}

/// The median of embedding one question.
fn embedding(connection: &mut Connection) -> Result<Duration> {
    let embed = |number| redis::cmd("INFER.EMBED").arg("embed").arg(1).arg(question(number)).clone();
    Ok(percentile(&timed(connection, embed)?, 0.5))
}

fn search(connection: &mut Connection, filter: Option<&str>) -> Result<Figures> {
    let before = Locks::read(connection)?;
    let times = timed(connection, |number| {
        let mut search = redis::cmd("INFER.SEARCH");
        search.arg(INDEX).arg(question(number)).arg("K").arg(5);
        if let Some(filter) = filter {
            search.arg("FILTER").arg(filter);
        }
        search
    })?;
    let after = Locks::read(connection)?;
    ensure!(after.count > before.count, "INFO infer_locks counts no lock scopes");
    Ok(Figures {
        median: percentile(&times, 0.5),
        p99: percentile(&times, 0.99),
        lock: (after.sum - before.sum) / SEARCHES as u32,
        longest_lock: after.longest,
    })
}

/// How long each of the commands took, in ascending order.
fn timed(connection: &mut Connection, command: impl Fn(usize) -> Cmd) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(SEARCHES);
    for number in 0..SEARCHES {
        let command = command(number);
        let start = Instant::now();
        let reply: Value = command.query(connection)?;
        times.push(start.elapsed());
        ensure!(!matches!(&reply, Value::Array(hits) if hits.is_empty()), "a search found nothing");
    }
    times.sort();
    Ok(times)
}

/// The value below which a share of the sorted `times` lies.
fn percentile(times: &[Duration], share: f64) -> Duration {
    let at = (times.len() as f64 * share) as usize;
    times.get(at.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Scopes under Redis' lock since the server was started.
struct Locks {
    count: u64,
    sum: Duration,
    longest: Duration,
}

impl Locks {
    fn read(connection: &mut Connection) -> Result<Self> {
        let text: String = redis::cmd("INFO").arg("infer_locks").query(connection)?;
        let fields: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).collect();
        let number = |name| -> Result<u64> {
            let value = fields.get(name).with_context(|| format!("INFO has no {name}"))?;
            value.trim().parse().with_context(|| format!("{name} is no number"))
        };
        Ok(Self {
            count: number("infer_lock_holds")?,
            sum: Duration::from_micros(number("infer_lock_hold_usec")?),
            longest: Duration::from_micros(number("infer_longest_lock_hold_usec")?),
        })
    }
}

/// Ingests a tree of files, then again.
fn ingest_twice(connection: &mut Connection, url: &str, tree: &Path) -> Result<()> {
    let mut documents = Vec::new();
    read_tree(tree, &mut documents)?;
    let bytes: usize = documents.iter().map(|document| document.text.len()).sum();
    let mut index = redis::cmd("INFER.INDEX");
    index.arg("tree").arg("EMBEDMODEL").arg("embed").arg("GENMODEL").arg("chat").exec(connection)?;
    println!("\n{} Rust files, {:.2} MB\n", documents.len(), bytes as f64 / 1e6);
    println!("{:<15} {:>9} {:>9} {:>9} {:>9}", "", "seconds", "chunks", "chunks/s", "MB/s");
    let mut seconds = Vec::new();
    for what in ["first ingest", "again, unchanged"] {
        let ingested = ingest(url, "tree", &documents)?;
        let (chunks, time) = (ingested.added + ingested.kept, ingested.time.as_secs_f64());
        let rates = (chunks as f64 / time, bytes as f64 / 1e6 / time);
        println!("{what:<15} {time:>9.2} {chunks:>9} {:>9.1} {:>9.3}", rates.0, rates.1);
        seconds.push(time);
    }
    if let [first, again] = seconds.as_slice() {
        println!("\nan unchanged tree is {:.0} times as fast", first / again);
    }
    Ok(())
}

/// The Rust files below a folder.
fn read_tree(folder: &Path, documents: &mut Vec<Document>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            read_tree(&path, documents)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            documents.push(Document { path: path.display().to_string(), text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 0.5), Duration::from_millis(51));
        assert_eq!(percentile(&times, 0.99), Duration::from_millis(100));
        assert_eq!(percentile(&times[..1], 0.99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }
}
