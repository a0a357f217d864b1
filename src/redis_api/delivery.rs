//! One thread, `infer-reply`, that makes the calls into Redis for threads that are niced: it has the main thread's priority.
//!
//! Unblocking a client and writing a line into the log take locks inside the server and the C library, which the main thread takes
//! too. A niced thread that loses its CPU in there would hold up all clients until it has one again. It posts the call here instead, without
//! a lock, and goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle, Thread};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use crossbeam_channel::bounded;
use redis_infer_sync::{Mailbox, MainLock, is_niced};

use super::guard::guarded;
use super::keyspace_thread::leave_signals_to_the_main_thread;

/// At most 15 bytes, the longest thread name of the kernel.
const NAME: &str = "infer-reply";

/// How long [`stop`] waits for the thread to end.
const STOP_DEADLINE: Duration = Duration::from_millis(100);

type Call = Box<dyn FnOnce() + Send>;

static RUNNING: ArcSwapOption<Running> = ArcSwapOption::const_empty();
static THREAD: MainLock<Option<JoinHandle<()>>> = MainLock::new(None);

#[derive(Debug)]
struct Running {
    posted: Mailbox<Call>,
    stop: AtomicBool,
    thread: Thread,
}

/// Starts the thread unless it runs: on the main thread, whose nice value it inherits. Without it calls are made by whoever makes them.
pub(super) fn start() {
    if RUNNING.load().is_some() {
        return;
    }
    let (give, given) = bounded::<Arc<Running>>(1);
    let serve = move || {
        leave_signals_to_the_main_thread();
        if let Ok(running) = given.recv() {
            running.serve();
        }
    };
    match Builder::new().name(NAME.to_owned()).spawn(serve) {
        Ok(handle) => {
            let thread = handle.thread().clone();
            let running = Arc::new(Running { posted: Mailbox::new(), stop: AtomicBool::new(false), thread });
            // It waits for this, and there is room for one.
            let _ = give.send(Arc::clone(&running));
            *THREAD.lock() = Some(handle);
            RUNNING.store(Some(running));
        }
        Err(error) => ::log::warn!("answers may hold up clients: could not start the thread {NAME}: {error}"),
    }
}

/// Makes `call`, now or, for a niced thread, on the thread. Calls of one thread are made in their order.
pub(super) fn make(call: impl FnOnce() + Send + 'static) {
    let running = if is_niced() { RUNNING.load_full() } else { None };
    let Some(running) = running else { return call() };
    running.posted.post(Box::new(call));
    if running.stop.load(Ordering::SeqCst) {
        running.make_all();
    }
    running.thread.unpark();
}

/// Ends the thread; what was posted is done. On the main thread.
pub fn stop() {
    let Some(running) = RUNNING.swap(None) else { return };
    running.stop.store(true, Ordering::SeqCst);
    running.thread.unpark();
    let deadline = Instant::now() + STOP_DEADLINE;
    let Some(handle) = THREAD.lock().take() else { return };
    while !handle.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    running.make_all();
}

impl Running {
    fn serve(&self) {
        loop {
            let is_last = self.stop.load(Ordering::SeqCst);
            self.make_all();
            if is_last {
                return;
            }
            if self.posted.is_empty() {
                std::thread::park();
            }
        }
    }

    fn make_all(&self) {
        for call in self.posted.take() {
            guarded("a call for another thread", call);
        }
    }
}
