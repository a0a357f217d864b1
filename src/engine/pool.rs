//! A model's queue and its worker threads.
//!
//! The queue itself is unbounded: what bounds it is that each job carries a [`Permit`], taken before the client is
//! blocked, so a full queue is an answer and never a wait on Redis' main thread.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::unbounded;

use super::error::EngineError;
use super::job::Permit;
pub(super) use super::queue::{Ask, Loan, Next};
use super::queue::{Job, Queue};
use super::stop::Stop;
use super::threads::{self, Manners};

/// The worker's end of a pool.
#[derive(Debug)]
pub(super) struct Inbox<J> {
    queue: Arc<Queue<J>>,
    worker: usize,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: Stop,
    taken: Arc<AtomicUsize>,
    panic_next: AtomicBool,
    stall_next: AtomicBool,
}

impl<J: Job> Inbox<J> {
    /// Says that the worker is about to wait: before it answers its last request, because the client may send the next one
    /// at once.
    pub(super) fn announce(&self) {
        self.queue.announce(self.worker);
    }

    /// Waits for a job, or until another worker asks for something.
    pub(super) fn wait(&self) -> Next<J> {
        self.queue.wait(self.worker)
    }

    /// Shows to the other workers what a slot holds.
    pub(super) fn show(&self, slot: usize, tokens: &[u32]) {
        self.queue.show(self.worker, slot, tokens);
    }

    /// Asks another worker for the beginning of `prompt`, of which this one has `have` tokens, or shows that the slot is about
    /// to read it where nobody has more.
    pub(super) fn borrow(&self, slot: usize, prompt: &[u32], have: usize) -> Option<Loan> {
        self.queue.borrow(self.worker, slot, prompt, have)
    }

    /// What other workers have asked for since.
    pub(super) fn asked(&self) -> Vec<Ask> {
        self.queue.asked(self.worker)
    }

    /// Says that the worker is not going to wait any more.
    pub(super) fn leave(&self) {
        self.queue.leave(self.worker);
    }

    /// A job if there are more than the idle workers will take, first one of which a slot has read the beginning.
    pub(super) fn poll(&self) -> Next<J> {
        self.queue.poll(self.worker)
    }

    /// Why all work must end now, if it must.
    pub(super) fn stopping(&self) -> Option<&'static str> {
        self.shared.stop.reason()
    }

    /// The test hooks: panics once after [`Pool::panic_next`], and stands still for ever after [`Pool::stall_next`].
    #[expect(clippy::panic, reason = "the hook exists to panic")]
    pub(super) fn panic_if_asked(&self) {
        if self.shared.panic_next.load(Ordering::Relaxed) && self.shared.panic_next.swap(false, Ordering::AcqRel) {
            std::panic::panic_any("forced by INFER.DEBUG PANIC");
        }
        while self.shared.stall_next.load(Ordering::Relaxed) {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

impl<J> Drop for Inbox<J> {
    /// Leaves to others what was meant for this worker.
    fn drop(&mut self) {
        self.queue.end(self.worker);
    }
}

/// Queue and threads of one loaded model.
#[derive(Debug)]
pub(super) struct Pool<J> {
    name: String,
    queue: Arc<Queue<J>>,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Requests that run at once; the queue begins behind them.
    running: usize,
}

/// How to start a pool.
#[derive(Debug)]
pub(super) struct PoolSpec {
    /// Name of the model.
    pub model: String,
    /// First part of the thread names.
    pub thread_prefix: &'static str,
    /// Number of threads.
    pub workers: u32,
    /// Requests that each of them serves at once.
    pub per_worker: u32,
    /// Nice value and CPUs of the threads.
    pub manners: Manners,
    /// Set when all work must end.
    pub stop: Stop,
}

impl<J: Job> Pool<J> {
    /// Starts the threads. `make` builds a worker's state on its own thread (a context belongs to the thread that uses
    /// it); `serve` runs until the inbox closes.
    ///
    /// # Errors
    /// The first error of any `make`; the threads end then, or have ended.
    pub(super) fn start<W: 'static>(
        spec: PoolSpec,
        make: impl Fn() -> Result<W, EngineError> + Send + Sync + 'static,
        serve: impl Fn(W, Inbox<J>) + Send + Sync + 'static,
    ) -> Result<Self, EngineError> {
        let shared = Arc::new(Shared { stop: spec.stop, ..Shared::default() });
        let pool = Self {
            name: spec.model,
            queue: Arc::default(),
            shared,
            threads: Mutex::new(Vec::new()),
            running: (spec.workers * spec.per_worker) as usize,
        };
        let work = Arc::new((make, serve));
        let (ready, started) = unbounded();
        for i in 0..spec.workers {
            let inbox = Inbox { queue: Arc::clone(&pool.queue), worker: i as usize, shared: Arc::clone(&pool.shared) };
            let (work, ready) = (Arc::clone(&work), ready.clone());
            let body = move || {
                let made = work.0();
                // Nobody listens any more when another worker has failed first; the thread then ends with the closed
                // inbox.
                match made {
                    Ok(worker) => {
                        let _ = ready.send(Ok(()));
                        // A worker that panics while it starts sends nothing; only without other senders is that seen.
                        drop(ready);
                        work.1(worker, inbox);
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            };
            let thread = threads::spawn(&format!("{}-{i}", spec.thread_prefix), spec.manners, body)
                .map_err(|e| EngineError::OutOfMemory(format!("could not start a worker thread: {e}")))?;
            pool.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        drop(ready);
        for _ in 0..spec.workers {
            started
                .recv()
                .unwrap_or_else(|_| Err(EngineError::Internal("a worker thread ended while it started".to_owned())))?;
        }
        Ok(pool)
    }

    /// Takes a place in the queue, which may hold `queue_limit` waiting requests.
    ///
    /// # Errors
    /// `QUEUEFULL`.
    pub(super) fn permit(&self, queue_limit: usize) -> Result<Permit, EngineError> {
        Permit::take(&self.shared.taken, self.running + queue_limit)
            .ok_or_else(|| EngineError::QueueFull { name: self.name.clone(), waiting: queue_limit })
    }

    /// Requests that hold a place: waiting and running.
    pub(super) fn requests(&self) -> usize {
        self.shared.taken.load(Ordering::Acquire)
    }

    /// Requests more than run at once.
    pub(super) fn waiting(&self) -> usize {
        self.requests().saturating_sub(self.running)
    }

    /// Queues a job, or gives it back when the pool is closed.
    pub(super) fn submit(&self, job: J) -> Result<(), J> {
        self.queue.push(job)
    }

    /// Takes no more jobs; the workers finish what is queued and end.
    pub(super) fn close(&self) {
        self.queue.close();
    }

    /// Waits for the workers of a closed pool.
    pub(super) fn join(&self, deadline: Instant) -> bool {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        threads::join_until(threads, deadline)
    }

    /// The test hook: the next step of a worker panics.
    pub(super) fn panic_next(&self) {
        self.shared.panic_next.store(true, Ordering::Release);
    }

    /// The test hook: the next step of each worker does not come to its end.
    pub(super) fn stall_next(&self) {
        self.shared.stall_next.store(true, Ordering::Release);
    }
}

impl<J> Drop for Pool<J> {
    /// Ends the workers of a pool that could not be started.
    fn drop(&mut self) {
        self.queue.close();
    }
}
