//! A model's queue and its worker threads.
//!
//! The queue itself is unbounded: what bounds it is that each job carries a [`Permit`], taken before the client is
//! blocked, so a full queue is an answer and never a wait on Redis' main thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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
    /// Name of the model.
    name: String,
    stop: Stop,
    taken: Arc<AtomicUsize>,
    panic_next: AtomicBool,
    stall_next: AtomicBool,
    /// The test hook: assertions that are to fail in a worker.
    fail_next: AtomicU32,
    /// Contexts that workers have made anew.
    renewed: AtomicU64,
    /// Set once, when a worker could not.
    failure: OnceLock<EngineError>,
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

    /// Makes anew what a worker has lost to `error`, which `renew` does; whether it can go on. If not, the model has failed: the pool
    /// is closed, and what is queued must be refused with [`Inbox::failure`].
    pub(super) fn mend(&self, error: &EngineError, renew: impl FnOnce() -> Result<(), EngineError>) -> bool {
        // Nothing is to be left to this worker until it can do it.
        self.leave();
        let (name, begun) = (&self.shared.name, Instant::now());
        let reason = match catch_unwind(AssertUnwindSafe(renew)) {
            Ok(Ok(())) => {
                self.shared.renewed.fetch_add(1, Ordering::Relaxed);
                let took = begun.elapsed().as_millis();
                log::warn!(
                    "a worker of model '{name}' has made its context anew in {took} ms, because of this: {error}"
                );
                return true;
            }
            Ok(Err(EngineError::ContextLost(again))) => {
                format!("a worker's context was made anew after a failure, and failed again at once: {again}")
            }
            Ok(Err(again)) => format!("a worker's context could not be made anew after a failure: {again}"),
            Err(_) => "a worker's context could not be made anew after a failure; the server log says why".to_owned(),
        };
        log::error!("model '{name}' has failed: {reason}");
        let failure = EngineError::ModelFailed { name: name.clone(), reason };
        // Another worker may have been first.
        let _ = self.shared.failure.set(failure);
        self.queue.close();
        false
    }

    /// Why the model has failed, if it has.
    pub(super) fn failure(&self) -> Option<&EngineError> {
        self.shared.failure.get()
    }

    /// The test hook: how many assertions are to fail after [`Pool::fail_next`].
    pub(super) fn forced_failures(&self) -> Option<u32> {
        let asked = self.shared.fail_next.load(Ordering::Relaxed) > 0;
        asked.then(|| self.shared.fail_next.swap(0, Ordering::AcqRel)).filter(|&times| times > 0)
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
        let shared = Arc::new(Shared { name: spec.model, stop: spec.stop, ..Shared::default() });
        let pool = Self {
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
    /// `QUEUEFULL`, or `NOMODEL` when the model has failed.
    pub(super) fn permit(&self, queue_limit: usize) -> Result<Permit, EngineError> {
        if let Some(failure) = self.failure() {
            return Err(failure.clone());
        }
        Permit::take(&self.shared.taken, self.running + queue_limit)
            .ok_or_else(|| EngineError::QueueFull { name: self.shared.name.clone(), waiting: queue_limit })
    }

    /// Why the model has failed, if it has.
    pub(super) fn failure(&self) -> Option<&EngineError> {
        self.shared.failure.get()
    }

    /// Contexts that workers have made anew after failures.
    pub(super) fn renewed(&self) -> u64 {
        self.shared.renewed.load(Ordering::Relaxed)
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

    /// What a job is told that [`Pool::submit`] gave back.
    pub(super) fn closed(&self) -> EngineError {
        self.failure().cloned().unwrap_or(EngineError::Cancelled("the model was unloaded"))
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

    /// The test hook: assertions fail in the next step of a worker, and in the first ones of its next context; `times` in all.
    pub(super) fn fail_next(&self, times: u32) {
        self.shared.fail_next.store(times, Ordering::Release);
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
