//! Values of `CONFIG SET infer.*`; `lib.rs` registers them, workers read plain copies.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::logic::limits;

/// `infer.nice`: nice value of worker threads, 0 to 19. Set at start only, because a thread cannot take a
/// higher nice value back.
pub static NICE: AtomicI64 = AtomicI64::new(limits::NICE_DEFAULT);

/// `infer.queue-limit`: requests that may wait for one model.
pub static QUEUE_LIMIT: AtomicI64 = AtomicI64::new(limits::QUEUE_LIMIT_DEFAULT);

/// The configuration at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// See [`NICE`].
    pub nice: i32,
    /// See [`QUEUE_LIMIT`].
    pub queue_limit: usize,
}

/// The configuration now. Any thread.
pub fn snapshot() -> Settings {
    // Redis keeps the values within the bounds they were registered with, so neither fallback is taken.
    Settings {
        nice: i32::try_from(NICE.load(Ordering::Relaxed)).unwrap_or(0),
        queue_limit: usize::try_from(QUEUE_LIMIT.load(Ordering::Relaxed)).unwrap_or(0),
    }
}
