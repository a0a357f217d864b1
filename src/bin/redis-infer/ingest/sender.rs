//! Works off the tasks of a round. Each connection has a thread that sends as long as its window allows, reads the
//! replies in order, and offers again what the server refused because it is busy.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use std::vec;

use redis::Connection;

use super::plan::Task;
use super::reply::{Counts, Outcome, outcome};
use super::text::{self, Skip};
use crate::failure::Failure;

/// The first pause after a full queue; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How documents are offered.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The index to fill.
    pub index: String,
    /// ATTRS of every document.
    pub attrs: Option<String>,
    /// Commands on their way on one connection.
    pub window: usize,
    /// Largest file in bytes.
    pub max_file_size: u64,
    /// How long one command is offered again.
    pub patience: Duration,
}

/// What happened. `stored` is the path in the index, `size` that of the file in bytes.
#[derive(Debug)]
pub enum Event {
    /// The file is in the index.
    Done { stored: String, size: u64, counts: Counts },
    /// The file was left out; `finished` unless its document is to be forgotten.
    Skipped { stored: String, size: u64, why: Skip, finished: bool },
    /// The document, of so many chunks, is not in the index any more.
    Forgotten { stored: String, chunks: u64 },
    /// The file or document failed.
    Failed { stored: String, size: u64, why: String, retry: Retry },
    /// Every further command would fail; those on their way are given up.
    Ended(Failure),
}

/// When to try again what failed, as long as changes are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// After a pause: the server was busy.
    Soon,
    /// With the next changes: the file could not be read.
    NextRound,
    /// When the file is another: the server refused this one.
    WhenChanged,
}

/// The tasks of a round, shared by its senders.
#[derive(Debug)]
pub struct Round {
    offer: Offer,
    tasks: Mutex<vec::IntoIter<Task>>,
    stop: AtomicBool,
}

impl Round {
    pub fn new(offer: Offer, tasks: Vec<Task>) -> Self {
        Self { offer, tasks: Mutex::new(tasks.into_iter()), stop: AtomicBool::new(false) }
    }

    /// Starts a sender for each connection. The receiver ends when the last of them has.
    pub fn start(self: &Arc<Self>, connections: Vec<Connection>) -> Receiver<Event> {
        let (events, received) = mpsc::channel();
        for connection in connections {
            let (round, events) = (self.clone(), events.clone());
            thread::spawn(move || Sender::new(connection, &round, events).run());
        }
        received
    }

    /// Nothing further is sent.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A command on its way or waiting to be offered again.
struct Job {
    stored: String,
    /// The file's content and size; none for a document to forget.
    text: Option<String>,
    size: u64,
    /// When the server first refused it.
    refused: Option<Instant>,
}

impl Job {
    fn ingest(stored: String, text: String, size: u64) -> Self {
        Self { stored, text: Some(text), size, refused: None }
    }

    fn forget(stored: String) -> Self {
        Self { stored, text: None, size: 0, refused: None }
    }

    fn packed(&self, offer: &Offer) -> Vec<u8> {
        let Some(text) = &self.text else {
            return redis::cmd("INFER.FORGET").arg(&offer.index).arg(&self.stored).get_packed_command();
        };
        let mut command = redis::cmd("INFER.INGEST");
        command.arg(&offer.index).arg(&self.stored).arg(text);
        if let Some(attrs) = &offer.attrs {
            command.arg("ATTRS").arg(attrs);
        }
        command.get_packed_command()
    }
}

/// The owner of one connection.
struct Sender<'a> {
    connection: Connection,
    round: &'a Round,
    events: mpsc::Sender<Event>,
    sent: VecDeque<Job>,
    refused: VecDeque<Job>,
    /// The pause after the next refusal, and the time before which nothing is sent.
    pause: Duration,
    not_before: Instant,
}

impl<'a> Sender<'a> {
    fn new(connection: Connection, round: &'a Round, events: mpsc::Sender<Event>) -> Self {
        Self {
            connection,
            round,
            events,
            sent: VecDeque::new(),
            refused: VecDeque::new(),
            pause: FIRST_PAUSE,
            not_before: Instant::now(),
        }
    }

    /// Works until no task is left, or until every further one would fail.
    fn run(mut self) {
        loop {
            while self.sent.len() < self.round.offer.window && !self.round.stop.load(Ordering::Relaxed) {
                // Replies come in while a pause lasts; only with none due is there time to sleep.
                let pause = self.not_before.saturating_duration_since(Instant::now());
                if !pause.is_zero() {
                    if !self.sent.is_empty() {
                        break;
                    }
                    thread::sleep(pause);
                }
                let Some(job) = self.refused.pop_front().or_else(|| self.next()) else {
                    break;
                };
                self.send(job);
            }
            if self.sent.is_empty() {
                break;
            }
            self.receive();
        }
    }

    /// The next command.
    fn next(&self) -> Option<Job> {
        loop {
            // A lock poisoned by a panic elsewhere still guards a sound iterator.
            let task = self.round.tasks.lock().unwrap_or_else(|e| e.into_inner()).next()?;
            let (found, indexed) = match task {
                Task::Ingest { found, indexed } => (found, indexed),
                Task::Forget(stored) => return Some(Job::forget(stored)),
            };
            let size = found.size();
            match text::read(&found.file, self.round.offer.max_file_size) {
                Ok(Ok(text)) => return Some(Job::ingest(found.stored, text, size)),
                Ok(Err(why)) => {
                    let forget = indexed.then(|| Job::forget(found.stored.clone()));
                    self.report(Event::Skipped { stored: found.stored, size, why, finished: forget.is_none() });
                    if forget.is_some() {
                        return forget;
                    }
                }
                Err(error) => {
                    let (stored, why) = (found.stored, error.to_string());
                    self.report(Event::Failed { stored, size, why, retry: Retry::NextRound });
                }
            }
        }
    }

    fn send(&mut self, job: Job) {
        match self.connection.send_packed_command(&job.packed(&self.round.offer)) {
            Ok(()) => self.sent.push_back(job),
            Err(error) => self.give_up(error.into()),
        }
    }

    fn receive(&mut self) {
        let reply = self.connection.recv_response();
        let Some(mut job) = self.sent.pop_front() else {
            return;
        };
        match outcome(reply) {
            Outcome::Ingested(counts) => {
                self.pause = FIRST_PAUSE;
                self.report(Event::Done { stored: job.stored, size: job.size, counts });
            }
            Outcome::Forgotten(chunks) => self.report(Event::Forgotten { stored: job.stored, chunks }),
            Outcome::Retry(why) => {
                let since = *job.refused.get_or_insert_with(Instant::now);
                if since.elapsed() > self.round.offer.patience {
                    return self.fail(job, &why, Retry::Soon);
                }
                self.not_before = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                self.refused.push_back(job);
            }
            Outcome::Failed(why) => self.fail(job, &why, Retry::WhenChanged),
            Outcome::Fatal(why) => self.give_up(why),
        }
    }

    fn fail(&self, job: Job, why: &Failure, retry: Retry) {
        self.report(Event::Failed { stored: job.stored, size: job.size, why: why.to_string(), retry });
    }

    /// Ends the round. What is on its way is forgotten, because its replies may never come; the report counts it as
    /// not finished.
    fn give_up(&mut self, why: Failure) {
        self.round.stop();
        self.sent.clear();
        self.report(Event::Ended(why));
    }

    fn report(&self, event: Event) {
        // Nobody listens any more after Ctrl-C.
        let _ = self.events.send(event);
    }
}
