//! Preprocess threads, for the work around a model call: rendering templates, tokenizing, chunking, hashing. None of it may run on
//! Redis' main thread.
//!
//! The main thread posts a task, and wakes the threads; it takes no lock that they take. What is bounded is bounded by counters: the
//! number of commands that wait, and the bytes of all texts. Which task comes next is decided by the threads (`logic::fair`),
//! among what is still wanted: a task whose client has left is dropped unrun. One thread is always left for small
//! texts.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Instant;

use redis_infer_sync::{Mailbox, MainLock, begins_work};

use super::error::EngineError;
use super::job::Ticket;
use super::metrics::Metrics;
use super::threads::{self, Manners};
use crate::logic::fair::{Fair, Size};
use crate::logic::limits;

/// Three, so that one is left for small texts when two large ones are at work.
const THREADS: usize = 3;
/// Large texts at work at once.
const LARGE: usize = THREADS - 1;

type Task = Box<dyn FnOnce() + Send>;

/// Whose a task is, how large, and who may still want it.
#[derive(Debug, Clone)]
pub struct Errand {
    /// Redis' id of the client; 0 for work that no client waits for.
    pub client: u64,
    /// Bytes of the texts that the task holds and works on.
    pub bytes: usize,
    /// Of a request that need not be begun when it is cancelled, and that tells when a preprocess thread is at it.
    pub ticket: Option<Ticket>,
}

impl Errand {
    /// Of the request with this ticket.
    #[must_use]
    pub fn of(client: u64, ticket: &Ticket, bytes: usize) -> Self {
        Self { client, bytes, ticket: Some(ticket.clone()) }
    }

    /// Work that is done whoever may have left.
    #[must_use]
    pub fn anyway(client: u64, bytes: usize) -> Self {
        Self { client, bytes, ticket: None }
    }

    fn is_unwanted(&self) -> bool {
        self.ticket.as_ref().is_some_and(Ticket::is_cancelled)
    }

    fn size(&self) -> Size {
        if self.bytes > limits::PREPROCESS_SMALL_MAX { Size::Large } else { Size::Small }
    }
}

/// How much the preprocess threads have to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Tasks that no thread has begun.
    pub waiting: usize,
    /// Bytes of the texts of all tasks, also of those that are at work.
    pub bytes: usize,
}

/// The threads and what waits for them. They are started with the first task, and for the first time by the main thread.
#[derive(Debug)]
pub(super) struct Desk {
    manners: Manners,
    shared: Arc<Shared>,
    /// Held to start and to join the threads.
    handles: MainLock<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    posted: Mailbox<Queued>,
    threads: OnceLock<Vec<Thread>>,
    /// Of the threads alone: nobody else waits for one that is stopped while it holds this.
    waiting: Mutex<Lanes>,
    closed: AtomicBool,
    held: AtomicBool,
    counts: Arc<Counts>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Lanes {
    fair: Fair<Queued>,
    /// Large tasks at work.
    large: usize,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicUsize,
    bytes: AtomicUsize,
}

/// A task with what it takes of the counts, given back when it is dropped.
struct Queued {
    task: Option<Task>,
    errand: Errand,
    place: Option<Place>,
    /// Held for its drop.
    _bytes: Bytes,
}

/// One of the tasks that wait.
struct Place(Arc<Counts>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Bytes of a task.
struct Bytes(Arc<Counts>, usize);

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.bytes.fetch_sub(self.1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queued").field("errand", &self.errand).finish_non_exhaustive()
    }
}

impl Counts {
    /// Takes the place and the bytes of a task, unless that is more than these limits. The first task may have any size.
    fn take(
        self: &Arc<Self>,
        bytes: usize,
        most_waiting: usize,
        most_bytes: usize,
    ) -> Result<(Place, Bytes), EngineError> {
        let full = || EngineError::PreprocessFull { waiting: self.waiting.load(Ordering::Relaxed) };
        let add = |count: &AtomicUsize, more: usize, most: usize| {
            let sum = |now: usize| now.checked_add(more).filter(|&sum| now == 0 || sum <= most);
            count.fetch_update(Ordering::AcqRel, Ordering::Acquire, sum).map_err(|_| full())
        };
        add(&self.bytes, bytes, most_bytes)?;
        let bytes = Bytes(Arc::clone(self), bytes);
        add(&self.waiting, 1, most_waiting)?;
        Ok((Place(Arc::clone(self)), bytes))
    }
}

impl Desk {
    pub(super) fn new(manners: Manners, metrics: &Arc<Metrics>) -> Self {
        let shared = Shared {
            posted: Mailbox::new(),
            threads: OnceLock::new(),
            waiting: Mutex::default(),
            closed: AtomicBool::new(false),
            held: AtomicBool::new(false),
            counts: Arc::default(),
            metrics: Arc::clone(metrics),
        };
        Self { manners, shared: Arc::new(shared), handles: MainLock::default() }
    }

    /// Queues the first task of a command. A task that is not run is dropped, and what it captured answers its client.
    ///
    /// # Errors
    /// `QUEUEFULL`, or `CANCELLED` after [`Desk::close`].
    pub(super) fn run(&self, errand: Errand, task: Task) -> Result<(), EngineError> {
        // Large texts leave room for small ones, in both respects.
        let (most, most_bytes) = match errand.size() {
            Size::Small => (limits::PREPROCESS_WAITING_MAX, usize::MAX),
            Size::Large => (limits::PREPROCESS_WAITING_MAX / 2, limits::PREPROCESS_BYTES_MAX),
        };
        self.queue(errand, task, most, most_bytes)
    }

    /// Queues a later task of a command, which is not refused for want of room: what was begun is to come to its end.
    ///
    /// # Errors
    /// `CANCELLED` after [`Desk::close`].
    pub(super) fn go_on(&self, errand: Errand, task: Task) -> Result<(), EngineError> {
        self.queue(errand, task, usize::MAX, usize::MAX)
    }

    fn queue(&self, errand: Errand, task: Task, most: usize, most_bytes: usize) -> Result<(), EngineError> {
        begins_work("a task is queued");
        let stopping = || EngineError::Cancelled("the server is stopping");
        let shared = &self.shared;
        if shared.closed.load(Ordering::SeqCst) {
            return Err(stopping());
        }
        let threads = match shared.threads.get() {
            Some(threads) => threads,
            None => self.start()?,
        };
        let (place, bytes) = shared.counts.take(errand.bytes, most, most_bytes)?;
        shared.posted.post(Queued { task: Some(task), errand, place: Some(place), _bytes: bytes });
        if shared.closed.load(Ordering::SeqCst) {
            // The threads may have ended before they could see it.
            drop(shared.posted.take());
            return Err(stopping());
        }
        // All of them: those that have nothing to do go back to sleep, and none can miss it.
        threads.iter().for_each(Thread::unpark);
        Ok(())
    }

    /// What waits and what is at work. Never waits.
    pub(super) fn load(&self) -> Load {
        let counts = &self.shared.counts;
        Load { waiting: counts.waiting.load(Ordering::Acquire), bytes: counts.bytes.load(Ordering::Acquire) }
    }

    /// The test hook: while it holds, no thread begins a task.
    pub(super) fn hold(&self, held: bool) {
        self.shared.held.store(held, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        self.shared.threads.get().into_iter().flatten().for_each(Thread::unpark);
    }

    fn start(&self) -> Result<&Vec<Thread>, EngineError> {
        let mut handles = self.handles.lock();
        if self.shared.threads.get().is_none() {
            for i in 0..THREADS {
                let shared = Arc::clone(&self.shared);
                match threads::spawn(&format!("infer-desk-{i}"), self.manners, move || shared.serve()) {
                    Ok(handle) => handles.push(handle),
                    Err(error) if handles.is_empty() => {
                        let text = format!("could not start a preprocess thread: {error}");
                        return Err(EngineError::OutOfMemory(text));
                    }
                    // One is enough, if slower.
                    Err(_) => break,
                }
            }
        }
        Ok(self.shared.threads.get_or_init(|| handles.iter().map(|handle| handle.thread().clone()).collect()))
    }

    /// Takes no more tasks; the queued ones are still run.
    pub(super) fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.hold(false);
    }

    /// Waits for the threads after [`Desk::close`].
    pub(super) fn join(&self, deadline: Instant) -> bool {
        let handles = std::mem::take(&mut *self.handles.lock());
        threads::join_until(handles, deadline)
    }
}

impl Shared {
    /// A thread's work, until the desk is closed and nothing is left.
    fn serve(&self) {
        loop {
            let is_closed = self.closed.load(Ordering::SeqCst);
            match self.next() {
                Some((size, queued)) => {
                    self.work(queued);
                    if size == Size::Large {
                        self.lanes(|lanes| lanes.large -= 1);
                        // Another large one may begin.
                        self.threads.get().into_iter().flatten().for_each(Thread::unpark);
                    }
                }
                None if is_closed => return,
                None => std::thread::park(),
            }
        }
    }

    fn next(&self) -> Option<(Size, Queued)> {
        if self.held.load(Ordering::SeqCst) {
            return None;
        }
        let (unwanted, next) = self.lanes(|lanes| {
            for queued in self.posted.take() {
                let Errand { client, bytes, .. } = queued.errand;
                lanes.fair.push(client, bytes, queued.errand.size(), queued);
            }
            let unwanted = lanes.fair.take_unwanted(|queued| queued.errand.is_unwanted());
            let next = lanes.fair.pop(lanes.large < LARGE);
            if matches!(next, Some((Size::Large, _))) {
                lanes.large += 1;
            }
            (unwanted, next)
        });
        // Here and not in the lock: what a task has captured may be large, and it answers its client.
        for queued in unwanted {
            self.metrics.skipped.increment();
            self.metrics.cancelled.increment();
            drop(queued);
        }
        next
    }

    fn work(&self, mut queued: Queued) {
        let Some(task) = queued.task.take() else { return };
        drop(queued.place.take());
        let ticket = queued.errand.ticket.take();
        if let Some(ticket) = &ticket {
            ticket.preprocessing.store(true, Ordering::Relaxed);
        }
        // A panic drops what the task captured, which answers the client; the panic hook has logged the place.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(task));
        if let Some(ticket) = &ticket {
            ticket.preprocessing.store(false, Ordering::Relaxed);
        }
    }

    fn lanes<T>(&self, work: impl FnOnce(&mut Lanes) -> T) -> T {
        work(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn desk() -> Desk {
        Desk::new(Manners::default(), &Arc::default())
    }

    fn small(client: u64) -> Errand {
        Errand::anyway(client, 10)
    }

    #[test]
    fn a_task_that_panics_does_not_stop_the_next_one() {
        let desk = desk();
        let (tx, rx) = mpsc::channel();
        for _ in 0..THREADS {
            desk.run(small(1), Box::new(|| panic!("on purpose"))).unwrap();
        }
        desk.run(small(1), Box::new(move || tx.send(42).unwrap())).unwrap();
        assert_eq!(rx.recv_timeout(PATIENCE), Ok(42));
    }

    #[test]
    fn whoever_queues_a_task_waits_for_no_thread_that_holds_the_lock() {
        let desk = Arc::new(desk());
        desk.run(small(1), Box::new(|| ())).unwrap();
        let stopped = desk.shared.waiting.lock().unwrap();
        let (tx, rx) = mpsc::channel();
        let other = Arc::clone(&desk);
        std::thread::spawn(move || {
            other.run(small(2), Box::new(|| ())).unwrap();
            tx.send(other.load().waiting > 0).unwrap();
        });
        assert_eq!(rx.recv_timeout(PATIENCE), Ok(true));
        drop(stopped);
    }

    #[test]
    fn too_many_tasks_are_refused_but_not_what_was_begun() {
        let desk = desk();
        desk.hold(true);
        for _ in 0..limits::PREPROCESS_WAITING_MAX {
            desk.run(small(1), Box::new(|| ())).unwrap();
        }
        assert_eq!(desk.run(small(2), Box::new(|| ())).unwrap_err().code(), "QUEUEFULL");
        let (tx, rx) = mpsc::channel();
        desk.go_on(small(2), Box::new(move || tx.send(42).unwrap())).unwrap();
        desk.hold(false);
        assert_eq!(rx.recv_timeout(PATIENCE), Ok(42));
    }

    #[test]
    fn texts_of_too_many_bytes_are_refused_and_the_bytes_come_back() {
        let desk = desk();
        desk.hold(true);
        let large = Errand::anyway(1, limits::TEXT_MAX);
        let begun = (0..100).take_while(|_| desk.run(large.clone(), Box::new(|| ())).is_ok()).count();
        assert_eq!(begun, limits::PREPROCESS_BYTES_MAX / limits::TEXT_MAX);
        assert_eq!(desk.load(), Load { waiting: begun, bytes: limits::PREPROCESS_BYTES_MAX });
        // A refusal takes no place.
        assert_eq!(desk.run(large.clone(), Box::new(|| ())).unwrap_err().code(), "QUEUEFULL");
        assert_eq!(desk.load().waiting, begun);
        desk.run(small(2), Box::new(|| ())).unwrap();
        desk.hold(false);
        desk.close();
        assert!(desk.join(Instant::now() + PATIENCE));
        assert_eq!(desk.load(), Load { waiting: 0, bytes: 0 });
    }

    #[test]
    fn a_task_whose_client_has_left_is_dropped_unrun() {
        let metrics = Arc::new(Metrics::default());
        let desk = Desk::new(Manners::default(), &metrics);
        desk.hold(true);
        let ticket = Ticket::default();
        let (tx, rx) = mpsc::channel();
        for number in 0..5 {
            let tx = tx.clone();
            let errand = Errand::of(1, &ticket, limits::TEXT_MAX);
            desk.run(errand, Box::new(move || tx.send(number).unwrap())).unwrap();
        }
        ticket.cancelled.store(true, Ordering::Relaxed);
        desk.run(small(2), Box::new(move || tx.send(42).unwrap())).unwrap();
        desk.hold(false);
        assert_eq!(rx.recv_timeout(PATIENCE), Ok(42));
        // Nobody else has a sender when all are dropped.
        assert!(rx.recv().is_err());
        desk.close();
        assert!(desk.join(Instant::now() + PATIENCE));
        assert_eq!(metrics.skipped.get(), 5);
        assert_eq!(desk.load(), Load { waiting: 0, bytes: 0 });
    }

    #[test]
    fn a_small_task_is_run_while_large_ones_are_at_work() {
        let desk = desk();
        let (entered, enter) = mpsc::channel();
        let ends: Vec<_> = (0..THREADS)
            .map(|client| {
                let (end, wait) = mpsc::channel::<()>();
                let entered = entered.clone();
                let until_dropped = move || {
                    entered.send(()).unwrap();
                    wait.iter().for_each(drop);
                };
                desk.run(Errand::anyway(client as u64, 1 << 20), Box::new(until_dropped)).unwrap();
                end
            })
            .collect();
        (0..LARGE).for_each(|_| enter.recv_timeout(PATIENCE).unwrap());
        let (tx, rx) = mpsc::channel();
        desk.run(small(9), Box::new(move || tx.send(42).unwrap())).unwrap();
        assert_eq!(rx.recv_timeout(PATIENCE), Ok(42));
        assert!(enter.try_recv().is_err(), "all threads have large texts");
        drop(ends);
        assert!(enter.recv_timeout(PATIENCE).is_ok());
    }

    #[test]
    fn a_closed_desk_runs_what_is_queued_and_refuses_more() {
        let desk = desk();
        desk.hold(true);
        let (tx, rx) = mpsc::channel();
        desk.run(small(1), Box::new(move || tx.send(42).unwrap())).unwrap();
        desk.close();
        assert_eq!(desk.run(small(1), Box::new(|| ())).unwrap_err().code(), "CANCELLED");
        assert!(desk.join(Instant::now() + PATIENCE));
        assert_eq!(rx.try_recv(), Ok(42));
    }

    #[test]
    fn a_ticket_tells_when_a_thread_is_at_its_task() {
        let desk = desk();
        let ticket = Ticket::default();
        let (seen, (tx, rx)) = (ticket.clone(), mpsc::channel());
        desk.run(Errand::of(1, &ticket, 1), Box::new(move || tx.send(seen.stage()).unwrap())).unwrap();
        assert_eq!(rx.recv_timeout(PATIENCE), Ok(crate::engine::job::Stage::Preprocessing));
        desk.close();
        assert!(desk.join(Instant::now() + PATIENCE));
        assert_eq!(ticket.stage(), crate::engine::job::Stage::Queued);
    }
}
