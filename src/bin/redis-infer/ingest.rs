//! `redis-infer ingest <dir>… --index NAME`: keeps an index in step with the text files below directories.
//!
//! A round walks the directories, plans what to send and what to forget (`plan`), and works that off over several
//! connections (`sender`), because the server blocks a client while it works on its document. The number of commands
//! on their way is bounded, and so is the memory: each holds one file. Without `--watch` there is one round; with it
//! (`watch`) there is another one after each change.

mod interrupt;
mod known;
mod plan;
mod reply;
mod report;
mod sender;
mod text;
mod walk;
mod watch;

#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use clap::Args;
use redis::Connection;
use serde_json::Value as Json;

use crate::connection::{Connector, Server};
use crate::failure::{Ending, Failure};
use crate::output;
use interrupt::Interrupt;
use plan::{Known, Task};
use report::{DryRun, Report, Totals};
use sender::{Offer, Round};
use walk::{Selection, Walk};

/// How long one file is offered to a server whose queue is full.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often somebody who waits looks whether Ctrl-C was pressed.
const TICK: Duration = Duration::from_millis(100);
/// Files above this size are skipped unless told otherwise: the server takes no larger document.
const LARGEST_FILE: u64 = 1 << 20;

/// Arguments of `redis-infer ingest`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Directories (or single files) to ingest. A file is stored under its path from here: `src` as `src/lib.rs`.
    /// Hidden files and what .gitignore names are left out.
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Index to fill; create it with INFER.INDEX first.
    #[arg(long)]
    index: String,
    /// Only files that match one of these patterns, as in .gitignore: '*.md', 'docs/**'.
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Leave out files and directories that match one of these patterns.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Attributes for a FILTER, the same for all files: a JSON object such as '{"year": 2026}'.
    #[arg(long, value_name = "JSON", value_parser = object)]
    attrs: Option<String>,
    /// Forget the documents whose files are gone: those of the index that lie below the given directories.
    #[arg(long)]
    delete: bool,
    /// Go on until Ctrl-C: ingest files that change, forget those that vanish.
    #[arg(long, conflicts_with = "dry_run")]
    watch: bool,
    /// Say what would be ingested and forgotten, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Commands on their way at any time, over all connections.
    #[arg(long, default_value = "16")]
    window: NonZeroUsize,
    /// Connections; each has its share of the window.
    #[arg(long, default_value = "2")]
    connections: NonZeroUsize,
    /// Skip files larger than this many bytes.
    #[arg(long, default_value_t = LARGEST_FILE, value_name = "BYTES")]
    max_file_size: u64,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document at the end.
    #[arg(long)]
    pub json: bool,
}

/// Whether this is a JSON object; the server looks at what is in it.
fn object(text: &str) -> Result<String, String> {
    match serde_json::from_str(text) {
        Ok(Json::Object(_)) => Ok(text.to_owned()),
        Ok(_) => Err("it is no JSON object; give one such as {\"year\": 2026}".into()),
        Err(error) => Err(format!("it is no JSON: {error}")),
    }
}

/// Ingests and prints a summary.
///
/// # Errors
/// When the server cannot be reached, or any file failed; each has been printed with its path by then.
pub fn run(arguments: &Arguments) -> Result<Ending, Failure> {
    let ingestion = Ingestion::new(arguments, PATIENCE)?;
    if arguments.dry_run {
        return ingestion.dry_run();
    }
    let interrupt = Interrupt::handled()?;
    let (totals, result) =
        if arguments.watch { watch::run(&ingestion, &interrupt) } else { ingestion.once(&interrupt) };
    if result.is_ok() || totals.any() {
        output::print(&if arguments.json { totals.json().to_string() } else { totals.table() })?;
    }
    result?;
    match totals.unfinished() {
        _ if interrupt.is_set() && !arguments.watch => Ok(Ending::Interrupted),
        0 => Ok(Ending::Fine),
        count => Err(Failure::new(format!(
            "{count} files are not in the index as they are now; run the same command again, unchanged files are kept"
        ))),
    }
}

/// What does not change from round to round.
struct Ingestion<'a> {
    arguments: &'a Arguments,
    server: Connector,
    selection: Selection,
    offer: Offer,
}

impl<'a> Ingestion<'a> {
    fn new(arguments: &'a Arguments, patience: Duration) -> Result<Self, Failure> {
        Ok(Self {
            arguments,
            server: arguments.server.client()?,
            selection: Selection::new(&arguments.dirs, &arguments.include, &arguments.exclude)?,
            offer: Offer {
                index: arguments.index.clone(),
                attrs: arguments.attrs.clone(),
                window: arguments.window.get().div_ceil(arguments.connections.get()),
                max_file_size: arguments.max_file_size,
                patience,
            },
        })
    }

    /// What is known of the index before the first round: with `--delete` the paths of its documents.
    fn known(&self) -> Result<Known, Failure> {
        if !self.arguments.delete {
            return Ok(Known::default());
        }
        known::read(&mut self.server.connect()?, &self.arguments.index)
    }

    /// The only round. What was done is told also when it failed.
    fn once(&self, interrupt: &Interrupt) -> (Totals, Result<(), Failure>) {
        let prepared = self.known().and_then(|known| Ok((known, self.selection.walk()?)));
        match prepared {
            Ok((mut known, walk)) => self.round(&mut known, &walk, interrupt),
            Err(failure) => (Totals::default(), Err(failure)),
        }
    }

    /// Brings the index up to `walk`; `known` learns what has been done.
    fn round(&self, known: &mut Known, walk: &Walk, interrupt: &Interrupt) -> (Totals, Result<(), Failure>) {
        let tasks = plan::tasks(walk, known, &self.selection);
        let mut report = Report::new(walk, &tasks, self.arguments.json);
        let connections = match self.connections(tasks.len()) {
            Ok(connections) => connections,
            Err(failure) => return (report.finish(), Err(failure)),
        };
        let round = Arc::new(Round::new(self.offer.clone(), tasks));
        let received = round.start(connections);
        let mut record = |event| {
            known.learn(&event, walk);
            report.record(event);
        };
        loop {
            match received.recv_timeout(TICK) {
                Ok(event) => record(event),
                Err(RecvTimeoutError::Timeout) => {}
                // The last sender has ended.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if interrupt.is_set() {
                // Nobody waits for what is on its way: the process ends, and with it the connections. The server then
                // drops those requests; each document is as it was or as it is now. What was answered is counted.
                round.stop();
                received.try_iter().for_each(&mut record);
                break;
            }
        }
        let ended = report.ended();
        (report.finish(), ended.map_or(Ok(()), Err))
    }

    /// More connections than tasks would only idle.
    fn connections(&self, tasks: usize) -> Result<Vec<Connection>, Failure> {
        (0..self.arguments.connections.get().min(tasks)).map(|_| self.server.connect()).collect()
    }

    /// Says what a round would do.
    fn dry_run(&self) -> Result<Ending, Failure> {
        let would = self.planned()?;
        output::print(&if self.arguments.json { would.json().to_string() } else { would.lines() })?;
        match would.failed() {
            0 => Ok(Ending::Fine),
            count => Err(Failure::new(format!("{count} files or directories cannot be read"))),
        }
    }

    fn planned(&self) -> Result<DryRun, Failure> {
        let known = self.known()?;
        let walk = self.selection.walk()?;
        let mut would = DryRun::default();
        for task in plan::tasks(&walk, &known, &self.selection) {
            match task {
                Task::Ingest { found, indexed } => match text::read(&found.file, self.offer.max_file_size) {
                    Ok(Ok(text)) => would.ingest(found.stored, text.len() as u64),
                    Ok(Err(why)) => {
                        if indexed {
                            would.forget(found.stored.clone());
                        }
                        would.skip(found.stored, why.reason());
                    }
                    Err(error) => would.fail(found.stored, error.to_string()),
                },
                Task::Forget(stored) => would.forget(stored),
            }
        }
        walk.skipped.iter().for_each(|(path, why)| would.skip(path.clone(), why.reason()));
        walk.failed.iter().for_each(|(path, why)| would.fail(path.clone(), why.clone()));
        Ok(would)
    }
}
