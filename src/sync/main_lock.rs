//! A lock of the main thread: niced threads may not take it, and nobody may work while he holds it.
//!
//! Both are promises of the code that uses it, which nothing but a look at the running program can check. So each lock
//! looks: what breaks a promise is counted ([`violations`]) and told to whoever has asked ([`on_violation`]). That costs a look
//! at a variable of the thread.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

thread_local! {
    static IS_NICED: Cell<bool> = const { Cell::new(false) };
    /// Main locks that this thread holds.
    static HELD: Cell<u32> = const { Cell::new(0) };
    static IS_TELLING: Cell<bool> = const { Cell::new(false) };
}

static VIOLATIONS: AtomicU64 = AtomicU64::new(0);
static LISTENER: OnceLock<fn(&str)> = OnceLock::new();

/// Says that this thread gives way to others: it may hold nothing that the main thread waits for.
pub fn this_thread_is_niced() {
    IS_NICED.set(true);
}

/// Whether [`this_thread_is_niced`] was said of this thread.
#[must_use]
pub fn is_niced() -> bool {
    IS_NICED.get()
}

/// Has `listener` told of each broken promise, in words. The first listener stays.
pub fn on_violation(listener: fn(&str)) {
    let _ = LISTENER.set(listener);
}

/// How often a promise was broken so far. Any thread.
#[must_use]
pub fn violations() -> u64 {
    VIOLATIONS.load(Ordering::Relaxed)
}

/// Says that `work` begins, which may take long: a line for the log, something that is sent, a system call. Not while a main lock
/// is held.
pub fn begins_work(work: &str) {
    if HELD.get() > 0 {
        violation(&format!("{work} while a lock of the main thread is held"));
    }
}

#[cold]
fn violation(what: &str) {
    VIOLATIONS.fetch_add(1, Ordering::Relaxed);
    // Telling may be work itself.
    if !IS_TELLING.replace(true) {
        if let Some(listener) = LISTENER.get() {
            listener(what);
        }
        IS_TELLING.set(false);
    }
}

/// State that the main thread shares with threads of its own priority.
#[derive(Debug, Default)]
pub struct MainLock<T> {
    state: Mutex<T>,
}

impl<T> MainLock<T> {
    /// A lock around `state`.
    pub const fn new(state: T) -> Self {
        Self { state: Mutex::new(state) }
    }

    /// Takes the lock. Not by a niced thread, and for a few instructions: no work ([`begins_work`]), and nothing large is freed.
    pub fn lock(&self) -> MainGuard<'_, T> {
        if is_niced() {
            violation("a niced thread takes a lock of the main thread");
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        HELD.set(HELD.get() + 1);
        MainGuard { state }
    }
}

/// A [`MainLock`] that is held.
#[derive(Debug)]
pub struct MainGuard<'a, T> {
    state: MutexGuard<'a, T>,
}

impl<T> Deref for MainGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.state
    }
}

impl<T> DerefMut for MainGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.state
    }
}

impl<T> Drop for MainGuard<'_, T> {
    fn drop(&mut self) {
        HELD.set(HELD.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

    /// What is told of `work`, which a thread of its own does. One test at a time: the listener is that of the process.
    fn told_of(work: impl FnOnce() + Send + 'static) -> Vec<String> {
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        on_violation(|what| TOLD.lock().unwrap().push(what.to_owned()));
        let before = violations();
        thread::spawn(work).join().unwrap();
        let told = std::mem::take(&mut *TOLD.lock().unwrap());
        assert_eq!(violations() - before, told.len() as u64);
        told
    }

    #[test]
    fn a_lock_that_is_held_for_a_moment_by_an_ordinary_thread_is_not_told_of() {
        let told = told_of(|| {
            let lock = MainLock::new(1);
            *lock.lock() += 1;
            begins_work("a line for the log");
            assert_eq!(*lock.lock(), 2);
        });
        assert_eq!(told, [""; 0]);
    }

    #[test]
    fn work_under_the_lock_is_told_of() {
        let told = told_of(|| {
            let (outer, inner) = (MainLock::new(1), MainLock::new(2));
            let guard = outer.lock();
            drop(inner.lock());
            begins_work("a line for the log");
            drop(guard);
            begins_work("a second line");
        });
        assert_eq!(told, ["a line for the log while a lock of the main thread is held"]);
    }

    #[test]
    fn a_niced_thread_that_takes_the_lock_is_told_of() {
        let told = told_of(|| {
            this_thread_is_niced();
            drop(MainLock::new(1).lock());
        });
        assert_eq!(told, ["a niced thread takes a lock of the main thread"]);
    }

    #[test]
    fn a_listener_that_works_itself_is_told_once() {
        let told = told_of(|| {
            let lock = MainLock::new(());
            let _guard = lock.lock();
            begins_work("a send");
        });
        assert_eq!(told.len(), 1);
    }
}
