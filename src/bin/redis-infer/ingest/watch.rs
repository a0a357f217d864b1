//! `--watch`: a round after each change.
//!
//! Events of the file system only say that something has changed. What it is, the next walk finds: so renames, whole
//! directories, changed .gitignore files and lost events need no care, and only directories that are not ignored are
//! watched. A walk of some thousand files takes some tens of milliseconds.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{collections::HashSet, iter};

use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher};

use super::interrupt::Interrupt;
use super::plan::Known;
use super::report::Totals;
use super::walk::Walk;
use super::{Ingestion, TICK};
use crate::failure::Failure;
use crate::output;

/// A round begins when nothing has changed for so long, because programs write files in several steps.
const QUIET: Duration = Duration::from_millis(300);
/// Or when this has passed since the first change, because some never stop.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// The first pause before another try when the server or a directory cannot be reached; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Rounds until Ctrl-C. The first one must work, later ones are tried again.
pub fn run(ingestion: &Ingestion<'_>, interrupt: &Interrupt) -> (Totals, Result<(), Failure>) {
    let mut totals = Totals::default();
    let result = watch(ingestion, interrupt, &mut totals);
    (totals, result)
}

fn watch(ingestion: &Ingestion<'_>, interrupt: &Interrupt, totals: &mut Totals) -> Result<(), Failure> {
    let mut known = ingestion.known()?;
    let mut directories = Directories::new()?;
    let mut pause = None;
    for first in iter::once(true).chain(iter::repeat(false)) {
        match round(ingestion, interrupt, &mut directories, &mut known, totals) {
            Ok(()) if interrupt.is_set() => return Ok(()),
            Ok(()) if !totals.needs_another_round() => pause = None,
            Err(Trouble::Lasting(failure)) => return Err(failure),
            Err(Trouble::Passing(failure)) if first => return Err(failure),
            result => {
                if let (Err(Trouble::Passing(failure)), None) = (&result, pause) {
                    eprintln!("{}; trying again until it works", failure.shown(false));
                }
                pause = Some(pause.map_or(FIRST_PAUSE, |pause: Duration| (pause * 2).min(LONGEST_PAUSE)));
            }
        }
        if first && !ingestion.arguments.json {
            output::print("watching; Ctrl-C ends it")?;
        }
        directories.wait(pause, interrupt);
        if interrupt.is_set() {
            return Ok(());
        }
    }
    Ok(())
}

/// Why a round failed.
enum Trouble {
    /// The server went away, or a directory for the time of a `git checkout`: both may come back.
    Passing(Failure),
    Lasting(Failure),
}

/// Walks and brings the index up to date.
fn round(
    ingestion: &Ingestion<'_>,
    interrupt: &Interrupt,
    directories: &mut Directories,
    known: &mut Known,
    totals: &mut Totals,
) -> Result<(), Trouble> {
    let walk = directories.walk(ingestion)?;
    let (done, result) = ingestion.round(known, &walk, interrupt);
    if let Some(line) = done.line().filter(|_| !ingestion.arguments.json) {
        output::print(&line).map_err(Trouble::Lasting)?;
    }
    totals.add(done, &known.refused);
    result
        .map_err(|failure| if failure.is_connection() { Trouble::Passing(failure) } else { Trouble::Lasting(failure) })
}

/// The directories that are watched.
struct Directories {
    watcher: RecommendedWatcher,
    /// Rings when something has changed.
    bell: Receiver<()>,
    watched: HashSet<PathBuf>,
}

impl Directories {
    fn new() -> Result<Self, Failure> {
        let (ring, bell) = mpsc::channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading is an event too, and a walk reads.
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            // The program is ending when nobody listens.
            let _ = ring.send(());
        });
        let watcher = watcher.map_err(|error| unwatchable(&error))?;
        Ok(Self { watcher, bell, watched: HashSet::new() })
    }

    /// What is there now. Everything that happens from then on rings the bell.
    fn walk(&mut self, ingestion: &Ingestion<'_>) -> Result<Walk, Trouble> {
        loop {
            let walk = ingestion.selection.walk().map_err(|error| Trouble::Passing(error.into()))?;
            // What was created in a new directory before it was watched is found by the next walk.
            if !self.watch(&walk).map_err(Trouble::Lasting)? {
                return Ok(walk);
            }
        }
    }

    /// Watches the directories of `walk`; whether any of them is new.
    fn watch(&mut self, walk: &Walk) -> Result<bool, Failure> {
        let files = walk.files.iter().filter_map(|found| found.file.parent());
        let parents = files.map(|parent| if parent.as_os_str().is_empty() { ".".into() } else { parent.to_owned() });
        let wanted: HashSet<PathBuf> = walk.directories.iter().cloned().chain(parents).collect();
        for gone in self.watched.difference(&wanted) {
            // The system has let go of it if it does not exist any more.
            let _ = self.watcher.unwatch(gone);
        }
        let mut new = false;
        for directory in &wanted {
            // Again also for those that are watched: one of that name may have been made anew.
            match self.watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => new |= !self.watched.contains(directory),
                Err(error) if is_gone(&error) => new = true,
                Err(error) => return Err(unwatchable(&error)),
            }
        }
        self.watched = wanted;
        Ok(new)
    }

    /// Waits until something has changed and nothing has for a while; at most `pause`, if there is one.
    fn wait(&self, pause: Option<Duration>, interrupt: &Interrupt) {
        let deadline = pause.map(|pause| Instant::now() + pause);
        let mut changed: Option<(Instant, Instant)> = None; // the first and the last change
        while !interrupt.is_set() && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            let rang = self.bell.recv_timeout(TICK);
            let now = Instant::now();
            match (rang, changed) {
                (Ok(()), None) => changed = Some((now, now)),
                (Ok(()), Some((first, _))) if now - first < LONGEST_WAIT => changed = Some((first, now)),
                (Err(RecvTimeoutError::Timeout), None) => {}
                (Err(RecvTimeoutError::Timeout), Some((_, last))) if now - last < QUIET => {}
                _ => return,
            }
        }
    }
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

fn unwatchable(error: &notify::Error) -> Failure {
    let hint = match error.kind {
        ErrorKind::MaxFilesWatch => "; raise fs.inotify.max_user_watches (sysctl), or --exclude large directories",
        _ => "",
    };
    Failure::new(format!("changes cannot be watched ({error}){hint}"))
}
