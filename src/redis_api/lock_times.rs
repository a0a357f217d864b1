//! How long this module has kept the server's lock for itself, outside command handlers, which Redis times itself.

use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis_module::raw;

/// Lock scopes of the keyspace thread.
pub static KEYSPACE_THREAD: LockTime = LockTime::new(c"infer-keys");
/// Reply callbacks: rendering an answer.
pub static REPLIES: LockTime = LockTime::new(c"infer-reply");

/// One kind of lock scope.
#[derive(Debug)]
pub struct LockTime {
    event: &'static CStr,
    longest_us: AtomicU64,
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl LockTime {
    const fn new(event: &'static CStr) -> Self {
        Self { event, longest_us: AtomicU64::new(0), count: AtomicU64::new(0), sum_us: AtomicU64::new(0) }
    }

    /// The longest scope since the module was loaded, in microseconds. Any thread.
    pub fn longest_us(&self) -> u64 {
        self.longest_us.load(Ordering::Relaxed)
    }

    /// Number of scopes since the module was loaded. Any thread.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// All scopes together since the module was loaded, in microseconds. Any thread.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Ordering::Relaxed)
    }

    /// Takes note of a scope; Redis adds it to `LATENCY` if it is above `latency-monitor-threshold`. Only while the lock
    /// is held: Redis' table of latencies has no other protection.
    pub(super) fn record(&self, held: Duration) {
        let microseconds = u64::try_from(held.as_micros()).unwrap_or(u64::MAX);
        self.longest_us.fetch_max(microseconds, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(microseconds, Ordering::Relaxed);
        if let Some(add_sample) = api!(RedisModule_LatencyAddSample) {
            let milliseconds = raw::mstime_t::try_from(held.as_millis()).unwrap_or(raw::mstime_t::MAX);
            // SAFETY: the lock is held (contract of this function); the name is NUL-terminated and copied.
            unsafe { add_sample(self.event.as_ptr(), milliseconds) };
        }
    }
}
