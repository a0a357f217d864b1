//! Gives the system back what the C library keeps of freed memory, on a thread of the main thread's priority.
//!
//! While that is done, one part of the heap after the other is locked, and the main thread waits where it allocates just there. On a
//! niced thread that could take seconds; here it takes as long as the work itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};
use redis_infer_sync::{Mailbox, MainLock};

use super::{memory, threads};
use crate::logic::cpu_list::CpuList;

/// The thread, which sleeps most of the time.
#[derive(Debug, Default)]
pub(super) struct Trimmer {
    shared: Arc<Shared>,
    thread: OnceLock<Thread>,
    handle: MainLock<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Who waits for it.
    asked: Mailbox<Sender<()>>,
    closed: AtomicBool,
}

impl Trimmer {
    /// Starts the thread, on a thread whose priority it is to have.
    pub(super) fn start(&self, cpus: Option<CpuList>) {
        if self.thread.get().is_some() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        match threads::spawn_ordinary("infer-trim", cpus, move || shared.serve()) {
            Ok(handle) => {
                let _ = self.thread.set(handle.thread().clone());
                *self.handle.lock() = Some(handle);
            }
            Err(error) => log::warn!("freed memory stays with the process: could not start a thread: {error}"),
        }
    }

    /// Gives freed memory back, and waits until that is done.
    pub(super) fn trim(&self) {
        let Some(thread) = self.thread.get() else { return };
        let (tell, told) = bounded(1);
        self.shared.asked.post(tell);
        if self.shared.closed.load(Ordering::SeqCst) {
            return drop(self.shared.asked.take());
        }
        thread.unpark();
        // Fails when the thread ends.
        let _ = told.recv();
    }

    /// Ends the thread; whether it has ended by `deadline`.
    pub(super) fn stop(&self, deadline: Instant) -> bool {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.thread.get().into_iter().for_each(Thread::unpark);
        let handle = self.handle.lock().take();
        threads::join_until(handle.into_iter().collect(), deadline)
    }
}

impl Shared {
    fn serve(&self) {
        while !self.closed.load(Ordering::SeqCst) {
            let asked = self.asked.take();
            if asked.is_empty() {
                std::thread::park();
                continue;
            }
            memory::trim();
            for tell in asked {
                // Nobody may wait any more.
                let _ = tell.send(());
            }
        }
        drop(self.asked.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn whoever_asks_waits_until_it_is_done_and_for_nobody_when_it_has_ended() {
        let trimmer = Trimmer::default();
        trimmer.start(None);
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| trimmer.trim()))));
        assert!(trimmer.stop(Instant::now() + Duration::from_secs(60)));
        trimmer.trim();
    }
}
