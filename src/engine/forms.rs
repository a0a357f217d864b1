//! The thread of a model that compiles the forms of answers, shortly before a worker takes the requests.
//!
//! A compiled form takes up to a hundred times the memory of its text, and compiling it up to a second. So a request waits with
//! the text, and no more than the model's slots are compiled ahead of the workers; and a worker does not do it itself, because
//! its other requests would stand still meanwhile. First come, first served among the requests with a form.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded, unbounded};

use super::error::EngineError;
use super::job::GenerateJob;
use super::served::Served;
use super::stop::Stop;
use super::threads::{self, Manners};

/// A request whose form is to be compiled. It is bounded by its place in the model's queue, see `Permit`.
type Waiting = Box<(Arc<Served>, GenerateJob)>;

/// How often a thread that waits for a place looks whether all work must end.
const LOOK: Duration = Duration::from_millis(100);

/// The requests of one model whose forms wait to be compiled; its thread begins with the first.
#[derive(Debug)]
pub(super) struct Forms {
    manners: Manners,
    stop: Stop,
    /// Compiled forms that may wait for a worker.
    ahead: usize,
    waiting: Mutex<Option<Sender<Waiting>>>,
}

impl Forms {
    pub(super) fn new(manners: Manners, stop: Stop, ahead: usize) -> Self {
        Self { manners, stop, ahead: ahead.max(1), waiting: Mutex::default() }
    }

    /// Has the form of `job` compiled, and then `job` queued; or gives it back with the reason why not.
    pub(super) fn push(&self, served: Arc<Served>, job: GenerateJob) -> Result<(), Box<(GenerateJob, EngineError)>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_none() {
            match self.start() {
                Ok(sender) => *waiting = Some(sender),
                Err(error) => return Err(Box::new((job, error))),
            }
        }
        let ended = || EngineError::Internal("the thread that compiles forms has ended".to_owned());
        match waiting.as_ref().map(|waiting| waiting.send(Box::new((served, job)))) {
            Some(Err(refused)) => {
                *waiting = None;
                let (_, job) = *refused.0;
                Err(Box::new((job, ended())))
            }
            Some(Ok(())) | None => Ok(()),
        }
    }

    fn start(&self) -> Result<Sender<Waiting>, EngineError> {
        let (sender, waiting) = unbounded::<Waiting>();
        let (places, stop) = (Places::new(self.ahead), self.stop.clone());
        let body = move || {
            // Ends with the model, which has the sender.
            for request in waiting {
                let (served, job) = *request;
                compile(&served, job, &places, &stop);
            }
        };
        threads::spawn("infer-form", self.manners, body)
            .map_err(|error| EngineError::OutOfMemory(format!("could not start a thread for GRAMMAR: {error}")))?;
        Ok(sender)
    }
}

fn compile(served: &Arc<Served>, mut job: GenerateJob, places: &Places, stop: &Stop) {
    let refusal = |job: &GenerateJob| {
        let cancelled = stop.reason().or_else(|| job.ticket.is_cancelled().then_some("before it began"));
        cancelled.map(EngineError::Cancelled).or_else(|| served.failure().cloned())
    };
    let place = places.take(|| refusal(&job).is_some());
    let compiled = match (refusal(&job), job.options.form.take()) {
        (Some(error), _) => Err(error),
        (None, form) => form.map(|form| served.constraint(&form)).transpose(),
    };
    match compiled {
        Ok(constraint) => {
            job.constraint = constraint.zip(place).map(|(constraint, place)| constraint.waiting_at(place));
            served.submit(job);
        }
        Err(error) => {
            drop(place);
            job.answer(Err(error));
        }
    }
}

/// A number of places; whoever wants one waits until there is one.
#[derive(Debug)]
struct Places {
    take: Sender<()>,
    taken: Receiver<()>,
}

/// One of the places, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place(Receiver<()>);

impl Places {
    fn new(number: usize) -> Self {
        let (take, taken) = bounded(number);
        Self { take, taken }
    }

    /// `None` when it is over before there is one.
    fn take(&self, is_over: impl Fn() -> bool) -> Option<Place> {
        loop {
            match self.take.send_timeout((), LOOK) {
                Ok(()) => return Some(Place(self.taken.clone())),
                Err(SendTimeoutError::Timeout(())) if !is_over() => {}
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn no_more_places_are_taken_than_there_are() {
        let places = Places::new(2);
        let never = || false;
        let (first, _second) = (places.take(never), places.take(never));
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let third = places.take(never);
                tell.send(()).unwrap();
                third
            });
            assert!(places.take.is_full());
            assert!(told.try_recv().is_err());
            drop(first);
            told.recv().unwrap();
        });
        assert_eq!(places.taken.len(), 1);
        let _second = places.take(never);
        assert!(places.take(|| true).is_none());
    }
}
