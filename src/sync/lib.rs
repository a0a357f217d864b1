//! What the main thread of Redis may share with threads that run at a raised nice value or as `SCHED_IDLE`.
//!
//! A thread of that kind can lose its CPU for seconds in the middle of ten instructions. If it holds a lock there, whoever
//! wants the lock waits as long, and when that is the main thread, so do all clients. So the two meet without locks: in
//! atomics, in snapshots (`arc_swap`), and in a [`Mailbox`]. State that only threads of the main thread's own priority
//! touch is behind a [`MainLock`], which tells when that is not so, and when somebody works while he holds it.
//!
//! Rejected: channels of `crossbeam` and `std` for what the main thread sends, because they have a lock around the
//! threads that wait for a message, and spin while another sender is in the middle of its send; mutexes with priority inheritance, which
//! Linux does not extend to nice values.

#![forbid(unsafe_code)]

mod mailbox;
mod main_lock;

pub use mailbox::Mailbox;
pub use main_lock::{MainGuard, MainLock, begins_work, is_niced, on_violation, this_thread_is_niced, violations};
