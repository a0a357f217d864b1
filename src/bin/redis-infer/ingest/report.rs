//! What came of a round: the progress bar while it runs, the table or JSON document at the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};

use super::plan::Task;
use super::reply::Counts;
use super::sender::{Event, Retry};
use super::text::Skip;
use super::walk::Walk;
use crate::failure::Failure;
use crate::output::{bytes, clean};

/// Everything that is counted.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    ingested: usize,
    forgotten: usize,
    /// Files and documents to which something happened, good or bad.
    handled: usize,
    /// All that there was to do.
    planned: usize,
    skipped: BTreeMap<Skip, usize>,
    chunks: Counts,
    bytes: u64,
    time: Duration,
    /// Why each path failed.
    failures: BTreeMap<String, String>,
    /// Whether the server was too busy for some of them.
    busy_server: bool,
}

impl Totals {
    /// Files and documents that are not in the index as they should be.
    pub fn unfinished(&self) -> usize {
        self.failures.len() + self.not_finished()
    }

    fn not_finished(&self) -> usize {
        self.planned.saturating_sub(self.handled)
    }

    /// Whether another try is worth it though no file has changed.
    pub fn needs_another_round(&self) -> bool {
        self.busy_server || self.not_finished() > 0
    }

    /// Whether anything has happened.
    pub fn any(&self) -> bool {
        self.handled > 0
    }

    /// Adds a later round. It has tried again all that had failed before but what the server has `refused` for good.
    pub fn add(&mut self, round: Self, refused: &BTreeMap<String, String>) {
        self.ingested += round.ingested;
        self.forgotten += round.forgotten;
        self.chunks += round.chunks;
        self.bytes += round.bytes;
        self.time += round.time;
        for (why, count) in round.skipped {
            *self.skipped.entry(why).or_default() += count;
        }
        (self.handled, self.planned, self.busy_server) = (round.handled, round.planned, round.busy_server);
        self.failures = round.failures;
        self.failures.extend(refused.clone());
    }

    /// Files and megabytes per second.
    fn rates(&self) -> (f64, f64) {
        let seconds = self.time.as_secs_f64().max(1e-3);
        (self.ingested as f64 / seconds, self.bytes as f64 / 1e6 / seconds)
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let Counts { added, kept, removed } = self.chunks;
        let (files, megabytes) = self.rates();
        let mut left = Vec::new();
        for (count, what) in [(self.failures.len(), "failed"), (self.not_finished(), "not finished")] {
            if count > 0 {
                left.push(format!(", {count} {what}"));
            }
        }
        let mut skipped: Vec<String> = self.skipped.iter().map(|(why, n)| format!("{n} {}", why.reason())).collect();
        if skipped.is_empty() {
            skipped.push("none".into());
        }
        [
            format!("files    {} ingested, {} forgotten{}", self.ingested, self.forgotten, left.concat()),
            format!("skipped  {}", skipped.join(", ")),
            format!("chunks   {added} added, {kept} kept, {removed} removed"),
            format!(
                "size     {} in {:.1} s: {files:.1} files/s, {megabytes:.3} MB/s",
                bytes(self.bytes),
                self.time.as_secs_f64()
            ),
        ]
        .join("\n")
    }

    /// The same and the failures, for programs.
    pub fn json(&self) -> Json {
        let Counts { added, kept, removed } = self.chunks;
        let (files, megabytes) = self.rates();
        let skipped: Json = self.skipped.iter().map(|(why, n)| (why.reason(), *n)).collect();
        let failures: Vec<Json> =
            self.failures.iter().map(|(path, why)| json!({ "path": path, "error": why })).collect();
        json!({
            "files": { "ingested": self.ingested, "forgotten": self.forgotten, "failed": self.failures.len(),
                       "not_finished": self.not_finished() },
            "skipped": skipped,
            "chunks": { "added": added, "kept": kept, "removed": removed },
            "bytes": self.bytes,
            "seconds": self.time.as_secs_f64(),
            "files_per_second": files,
            "megabytes_per_second": megabytes,
            "failures": failures,
        })
    }

    /// One line about a round that something was done in.
    pub fn line(&self) -> Option<String> {
        let Counts { added, removed, .. } = self.chunks;
        let failed = if self.unfinished() > 0 { format!(", {} failed", self.unfinished()) } else { String::new() };
        let seconds = self.time.as_secs_f64();
        (self.handled > 0).then(|| {
            format!(
                "{} ingested, {} forgotten{failed}; chunks: {added} added, {removed} removed ({seconds:.1} s)",
                self.ingested, self.forgotten
            )
        })
    }
}

/// Counts everything that happens in a round, and shows it.
#[derive(Debug)]
pub struct Report {
    bar: ProgressBar,
    started: Instant,
    quiet: bool,
    totals: Totals,
    ended: Option<Failure>,
}

impl Report {
    /// The start of a round. What the walk could not read is printed, unless `quiet`.
    pub fn new(walk: &Walk, tasks: &[Task], quiet: bool) -> Self {
        let size = |task: &Task| if let Task::Ingest { found, .. } = task { found.size() } else { 0 };
        let hidden = quiet || tasks.is_empty();
        let bar = if hidden { ProgressBar::hidden() } else { ProgressBar::new(tasks.iter().map(size).sum()) };
        let style = "{msg} [{wide_bar}] {percent}% {decimal_bytes_per_sec} ETA {eta}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(500));
        let totals = Totals { planned: tasks.len(), ..Totals::default() };
        let mut report = Self { bar, started: Instant::now(), quiet, totals, ended: None };
        for (path, why) in &walk.failed {
            report.fail(path.clone(), why.clone());
        }
        for (_, why) in &walk.skipped {
            report.skip(*why);
        }
        report
    }

    /// Counts an event.
    pub fn record(&mut self, event: Event) {
        match event {
            Event::Done { size, counts, .. } => {
                self.totals.ingested += 1;
                self.totals.chunks += counts;
                self.totals.bytes += size;
                self.handled(size);
            }
            Event::Skipped { size, why, finished, .. } => {
                self.skip(why);
                self.bar.inc(size);
                if finished {
                    self.handled(0);
                }
            }
            Event::Forgotten { chunks, .. } => {
                // Others may have been faster, or the file was never ingested.
                self.totals.forgotten += usize::from(chunks > 0);
                self.totals.chunks.removed += chunks;
                self.handled(0);
            }
            Event::Failed { stored, size, why, retry } => {
                self.totals.busy_server |= retry == Retry::Soon;
                self.fail(stored, why);
                self.handled(size);
            }
            Event::Ended(why) => {
                self.ended.get_or_insert(why);
            }
        }
    }

    /// Why the round came to an early end, if it did.
    pub fn ended(&self) -> Option<Failure> {
        self.ended.clone()
    }

    /// Takes the bar away.
    pub fn finish(mut self) -> Totals {
        self.bar.finish_and_clear();
        self.totals.time = self.started.elapsed();
        self.totals
    }

    fn handled(&mut self, size: u64) {
        self.totals.handled += 1;
        self.bar.inc(size);
        let rate = self.totals.ingested as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        self.bar.set_message(format!("{}/{} files, {rate:.1}/s", self.totals.handled, self.totals.planned));
    }

    fn skip(&mut self, why: Skip) {
        *self.totals.skipped.entry(why).or_default() += 1;
    }

    fn fail(&mut self, path: String, why: String) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("{}: {why}", clean(&path)));
        }
        self.totals.failures.insert(path, why);
    }
}

/// What a round would do.
#[derive(Debug, Default)]
pub struct DryRun {
    ingest: Vec<String>,
    forget: Vec<String>,
    skip: Vec<(String, &'static str)>,
    failures: Vec<(String, String)>,
    bytes: u64,
}

impl DryRun {
    pub fn ingest(&mut self, path: String, size: u64) {
        self.ingest.push(path);
        self.bytes += size;
    }

    pub fn forget(&mut self, path: String) {
        self.forget.push(path);
    }

    pub fn skip(&mut self, path: String, why: &'static str) {
        self.skip.push((path, why));
    }

    pub fn fail(&mut self, path: String, why: String) {
        self.failures.push((path, why));
    }

    pub fn failed(&self) -> usize {
        self.failures.len()
    }

    /// A line for each file and document, and one for all.
    pub fn lines(&self) -> String {
        let mut lines: Vec<String> = self.ingest.iter().map(|path| format!("ingest {}", clean(path))).collect();
        lines.extend(self.forget.iter().map(|path| format!("forget {}", clean(path))));
        lines.extend(self.skip.iter().map(|(path, why)| format!("skip   {} ({why})", clean(path))));
        lines.extend(self.failures.iter().map(|(path, why)| format!("fail   {} ({why})", clean(path))));
        lines.push(format!(
            "would ingest {} files of {}, forget {}, skip {}; nothing was changed",
            self.ingest.len(),
            bytes(self.bytes),
            self.forget.len(),
            self.skip.len()
        ));
        lines.join("\n")
    }

    /// The same for programs.
    pub fn json(&self) -> Json {
        let skip: Vec<Json> = self.skip.iter().map(|(path, why)| json!({ "path": path, "reason": why })).collect();
        let failures: Vec<Json> =
            self.failures.iter().map(|(path, why)| json!({ "path": path, "error": why })).collect();
        json!({ "dry_run": true, "ingest": self.ingest, "forget": self.forget, "skip": skip, "bytes": self.bytes,
                "failures": failures })
    }
}
