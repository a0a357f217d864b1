//! What came of an ingestion: the progress bar while it runs, the summary at its end.

use std::collections::BTreeMap;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::reply::Counts;
use super::sender::Event;
use super::text::Skip;
use super::walk::Walk;

/// Counts everything that happens, and shows it.
#[derive(Debug)]
pub struct Report {
    bar: ProgressBar,
    started: Instant,
    files: usize,
    done: usize,
    failed: usize,
    /// Paths that the walk could not read.
    unreadable: usize,
    skipped: BTreeMap<Skip, usize>,
    chunks: Counts,
}

impl Report {
    /// The start of an ingestion of these files. What the walk could not read is printed.
    pub fn new(walk: &Walk) -> Self {
        let bar = ProgressBar::new(walk.files.iter().map(|found| found.size).sum());
        let style = ProgressStyle::with_template("{msg} [{wide_bar}] {percent}% ETA {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        let mut report = Self {
            bar,
            started: Instant::now(),
            files: walk.files.len(),
            done: 0,
            failed: 0,
            unreadable: walk.failed.len(),
            skipped: BTreeMap::new(),
            chunks: Counts::default(),
        };
        for (path, why) in &walk.failed {
            report.print(path, why);
        }
        for &why in &walk.skipped {
            report.skip(why);
        }
        report
    }

    /// Counts an event.
    pub fn record(&mut self, event: Event) {
        let size = match event {
            Event::Done { size, counts } => {
                self.done += 1;
                self.chunks.added += counts.added;
                self.chunks.kept += counts.kept;
                self.chunks.removed += counts.removed;
                size
            }
            Event::Skipped { size, why } => {
                self.files -= 1;
                self.skip(why);
                size
            }
            Event::Failed { size, path, why } => {
                self.failed += 1;
                self.print(&path, &why);
                size
            }
        };
        self.bar.inc(size);
        self.bar.set_message(format!("{}/{} files", self.done, self.files));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Files that should be in the index and are not.
    pub fn unfinished(&self) -> usize {
        self.files - self.done + self.unreadable
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let mut skipped: Vec<String> = self.skipped.iter().map(|(why, n)| format!("{n} {}", why.reason())).collect();
        if skipped.is_empty() {
            skipped.push("none".into());
        }
        let Counts { added, kept, removed } = self.chunks;
        let mut line = format!(
            "ingested {} files in {:.1} s (skipped: {}); chunks: {added} added, {kept} kept, {removed} removed",
            self.done,
            self.started.elapsed().as_secs_f64(),
            skipped.join(", "),
        );
        let not_finished = self.files - self.done - self.failed;
        if self.failed + self.unreadable + not_finished > 0 {
            line.push_str(&format!("; {} failed, {not_finished} not finished", self.failed + self.unreadable));
        }
        line
    }

    fn skip(&mut self, why: Skip) {
        *self.skipped.entry(why).or_default() += 1;
    }

    fn print(&self, path: &str, why: &str) {
        self.bar.suspend(|| eprintln!("{path}: {why}"));
    }
}
