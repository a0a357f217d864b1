//! One connection: sends files as long as its window allows, reads the replies in order, offers refused files
//! again.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use std::vec;

use redis::Connection;

use super::reply::{Counts, Outcome, outcome};
use super::text::{self, Skip};
use super::walk::Found;

/// The first pause after a full queue; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What all senders follow.
#[derive(Debug)]
pub struct Plan {
    /// The index to fill.
    pub index: String,
    /// Commands on their way on one connection.
    pub window: usize,
    /// Largest file in bytes.
    pub max_file_size: u64,
    /// How long one file is offered again.
    pub patience: Duration,
}

/// What happened to a file.
#[derive(Debug)]
pub enum Event {
    /// It is in the index.
    Done { size: u64, counts: Counts },
    /// It was left out.
    Skipped { size: u64, why: Skip },
    /// It failed.
    Failed { size: u64, path: String, why: String },
}

/// A file with its text, on its way or waiting to be offered again.
struct Job {
    found: Found,
    text: String,
    /// When the server first refused it.
    refused: Option<Instant>,
}

/// The owner of one connection.
pub struct Sender<'a> {
    connection: Connection,
    plan: &'a Plan,
    queue: &'a Mutex<vec::IntoIter<Found>>,
    /// Set when every further file would fail.
    stop: &'a AtomicBool,
    events: mpsc::Sender<Event>,
    sent: VecDeque<Job>,
    refused: VecDeque<Job>,
    /// The pause after the next refusal, and the time before which nothing is sent.
    pause: Duration,
    not_before: Instant,
}

impl<'a> Sender<'a> {
    pub fn new(
        connection: Connection,
        plan: &'a Plan,
        queue: &'a Mutex<vec::IntoIter<Found>>,
        stop: &'a AtomicBool,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            connection,
            plan,
            queue,
            stop,
            events,
            sent: VecDeque::new(),
            refused: VecDeque::new(),
            pause: FIRST_PAUSE,
            not_before: Instant::now(),
        }
    }

    /// Works until no file is left, or until every further one would fail.
    pub fn run(mut self) {
        loop {
            while self.sent.len() < self.plan.window && !self.stop.load(Ordering::Relaxed) {
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

    /// The next file with text in it.
    fn next(&self) -> Option<Job> {
        loop {
            // A lock poisoned by a panic elsewhere still guards a sound iterator.
            let found = self.queue.lock().unwrap_or_else(|e| e.into_inner()).next()?;
            match text::read(&found.file, self.plan.max_file_size) {
                Ok(Ok(text)) => {
                    return Some(Job { found, text, refused: None });
                }
                Ok(Err(why)) => self.report(Event::Skipped { size: found.size, why }),
                Err(error) => self.report(Event::Failed {
                    size: found.size,
                    path: found.file.display().to_string(),
                    why: error.to_string(),
                }),
            }
        }
    }

    fn send(&mut self, job: Job) {
        let command =
            redis::cmd("INFER.INGEST").arg(&self.plan.index).arg(&job.found.stored).arg(&job.text).get_packed_command();
        match self.connection.send_packed_command(&command) {
            Ok(()) => self.sent.push_back(job),
            Err(error) => self.give_up(job, &format!("the connection failed: {error}")),
        }
    }

    fn receive(&mut self) {
        let reply = self.connection.recv_response();
        let Some(mut job) = self.sent.pop_front() else {
            return;
        };
        match outcome(reply) {
            Outcome::Done(counts) => {
                self.pause = FIRST_PAUSE;
                self.report(Event::Done { size: job.found.size, counts });
            }
            Outcome::Retry(why) => {
                let since = *job.refused.get_or_insert_with(Instant::now);
                if since.elapsed() > self.plan.patience {
                    self.fail(job, &why);
                    return;
                }
                self.not_before = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                self.refused.push_back(job);
            }
            Outcome::Failed(why) => self.fail(job, &why),
            Outcome::Fatal(why) => self.give_up(job, &why),
        }
    }

    fn fail(&self, job: Job, why: &str) {
        self.report(Event::Failed {
            size: job.found.size,
            path: job.found.file.display().to_string(),
            why: why.to_owned(),
        });
    }

    /// Fails `job` and ends the ingestion. What is on its way is forgotten, because its replies may never come;
    /// the report counts it as not finished.
    fn give_up(&mut self, job: Job, why: &str) {
        self.fail(job, why);
        self.stop.store(true, Ordering::Relaxed);
        self.sent.clear();
    }

    fn report(&self, event: Event) {
        // The receiver outlives the senders.
        let _ = self.events.send(event);
    }
}
