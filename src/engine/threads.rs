//! Threads of the engine: named, niced, deaf to the signals that are the main thread's business, and joined with a
//! deadline.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use crate::logic::cpu_list::CPUS;
use crate::logic::cpu_list::CpuList;

/// Stack of an engine thread. Only what is used takes memory; std::regex, with which llama.cpp splits text for some
/// tokenizers, uses hundreds of bytes per character of a word. See `Model::tokenize`. Grammars and schemas get along with a quarter
/// of it, see `constraint`.
pub(super) const STACK: usize = 64 << 20;

/// How engine threads behave beside others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manners {
    /// Nice value, 0 to 19; 20 is for `SCHED_IDLE`.
    pub nice: i32,
    /// CPUs they keep to; `None` for all of the process.
    pub cpus: Option<CpuList>,
}

/// Starts a thread named `name` (at most 15 bytes are shown by the kernel) with these manners.
///
/// Both belong to the thread on Linux and are inherited by threads created afterwards, so they are set before llama.cpp
/// makes its own. A panic that escapes `body` ends this thread only, and is logged.
///
/// # Errors
/// When the system refuses another thread.
pub(super) fn spawn(name: &str, manners: Manners, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let label = name.to_owned();
    let alive = Alive::new();
    Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
        let _alive = alive;
        block_process_signals();
        redis_infer_sync::this_thread_is_niced();
        set_nice(manners.nice);
        if let Some(cpus) = manners.cpus {
            set_affinity(&cpus);
        }
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            log::error!("thread {label} ended by a panic");
        }
    })
}

/// As [`spawn`], for a thread that has the priority of the one that starts it.
///
/// # Errors
/// As there.
pub(super) fn spawn_ordinary(
    name: &str,
    cpus: Option<CpuList>,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let label = name.to_owned();
    Builder::new().name(name.to_owned()).spawn(move || {
        block_process_signals();
        if let Some(cpus) = cpus {
            set_affinity(&cpus);
        }
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            log::error!("thread {label} ended by a panic");
        }
    })
}

/// Threads of [`spawn`] that have not ended.
pub(super) fn alive() -> usize {
    ALIVE.load(Ordering::SeqCst)
}

static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// Counts a thread, from before it starts to its end.
struct Alive;

impl Alive {
    fn new() -> Self {
        ALIVE.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until all `handles` have ended or `deadline` is over; returns whether all have.
pub(super) fn join_until(handles: Vec<JoinHandle<()>>, deadline: Instant) -> bool {
    let mut all = true;
    for handle in handles {
        while !handle.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if handle.is_finished() {
            let _ = handle.join();
        } else {
            all = false;
        }
    }
    all
}

/// SIGTERM and SIGINT ask Redis to shut down; they must interrupt its main thread, not a worker.
fn block_process_signals() {
    // SAFETY: an all-zero sigset_t is a valid value to initialise.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is ours.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: `set` is initialised and the signal numbers are valid.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: changes the mask of this thread only.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

#[cfg(target_os = "linux")]
fn set_nice(nice: i32) {
    if nice > 19 {
        let none = libc::sched_param { sched_priority: 0 };
        // SAFETY: 0 is the calling thread, and `none` lives through the call; everybody may be as modest.
        if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) } != 0 {
            log::warn!("could not set SCHED_IDLE: {}", io::Error::last_os_error());
        }
        return;
    }
    // SAFETY: PRIO_PROCESS with id 0 is the calling thread on Linux; the call has no other effect.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } != 0 {
        log::warn!("could not set nice {nice}: {}", io::Error::last_os_error());
    }
}

/// The CPUs that this process may use; `None` where the system does not tell.
#[cfg(target_os = "linux")]
pub fn available_cpus() -> Option<CpuList> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is ours and has the size that is passed; 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return None;
    }
    // SAFETY: every number is below CPU_SETSIZE.
    Some(CpuList::of((0..CPUS).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })))
}

/// As on Linux; elsewhere threads cannot be bound.
#[cfg(not(target_os = "linux"))]
pub fn available_cpus() -> Option<CpuList> {
    None
}

#[cfg(target_os = "linux")]
fn set_affinity(cpus: &CpuList) {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus.iter() {
        // SAFETY: every number of a list is below CPU_SETSIZE.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is ours and has the size that is passed; 0 is the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } != 0 {
        log::warn!("could not keep to CPUs {cpus}: {}", io::Error::last_os_error());
    }
}

#[cfg(not(target_os = "linux"))]
fn set_affinity(_cpus: &CpuList) {
    // `available_cpus` has told that there is no such thing, and the setting was refused.
}

#[cfg(not(target_os = "linux"))]
fn set_nice(_nice: i32) {
    // Elsewhere nice belongs to the process, and lowering it would slow Redis itself.
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::sync::{Arc, mpsc};

    #[test]
    fn a_panic_ends_only_its_own_thread() {
        let handle = spawn("test-panic", Manners::default(), || panic!("on purpose")).unwrap();
        assert!(join_until(vec![handle], Instant::now() + Duration::from_secs(5)));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_of_nice_20_and_those_it_starts_run_only_on_idle_cpus() {
        let (tx, rx) = mpsc::channel();
        let handle = spawn("test-idle", Manners { nice: 20, cpus: None }, move || {
            // SAFETY: reads the policy of the calling thread.
            std::thread::spawn(move || tx.send(unsafe { libc::sched_getscheduler(0) }).unwrap()).join().unwrap();
        })
        .unwrap();
        assert_eq!(rx.recv().unwrap(), libc::SCHED_IDLE);
        assert!(join_until(vec![handle], Instant::now() + Duration::from_secs(5)));
    }

    #[test]
    fn a_thread_has_the_nice_value_it_was_given() {
        let (tx, rx) = mpsc::channel();
        let handle = spawn("test-nice", Manners { nice: 7, cpus: None }, move || {
            // SAFETY: reads the priority of the calling thread.
            tx.send(unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }).unwrap();
        })
        .unwrap();
        assert_eq!(rx.recv().unwrap(), 7);
        assert!(join_until(vec![handle], Instant::now() + Duration::from_secs(5)));
    }

    #[test]
    fn a_thread_that_does_not_end_is_given_up_at_the_deadline() {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let handle = spawn("test-deadline", Manners::default(), move || {
            while !seen.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        })
        .unwrap();
        assert!(!join_until(vec![handle], Instant::now() + Duration::from_millis(20)));
        stop.store(true, Ordering::Relaxed);
    }
}
