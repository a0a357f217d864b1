//! Values of `CONFIG SET infer.*`; `lib.rs` registers them, workers read plain copies.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use redis_infer_sync::MainLock;
use redis_module::configuration::{ConfigurationContext, ConfigurationValue};
use redis_module::{RedisError, RedisString};

use crate::logic::cpu_list::CpuList;
use crate::logic::limits;
use crate::logic::options::models_at_start;

/// `infer.nice`: nice value of worker threads, 0 to 19, or 20 for `SCHED_IDLE`. Set at start only, because a thread cannot take a
/// higher nice value back.
pub static NICE: AtomicI64 = AtomicI64::new(limits::NICE_DEFAULT);

/// `infer.queue-limit`: requests that may wait for one model.
pub static QUEUE_LIMIT: AtomicI64 = AtomicI64::new(limits::QUEUE_LIMIT_DEFAULT);

/// `infer.max-memory`: bytes that all models may take together; 0 for any number.
pub static MAX_MEMORY: AtomicI64 = AtomicI64::new(limits::MAX_MEMORY_DEFAULT);

/// `infer.kv-budget`: bytes that keys and values kept for later prompts may take.
pub static KV_BUDGET: AtomicI64 = AtomicI64::new(limits::KV_BUDGET_DEFAULT);

/// `infer.redact`: whether `SLOWLOG` and `MONITOR` show no arguments of `INFER.*` but the first.
pub static REDACT: AtomicBool = AtomicBool::new(false);

/// `infer.cpulist`: the CPUs that engine threads keep to; empty for all of the process.
pub static CPU_LIST: Text =
    Text::new(
        |list| {
            if list.is_empty() { Ok(()) } else { CpuList::parse(list).map(drop).map_err(|error| error.to_string()) }
        },
    );

/// `infer.model-dir`: the only folder whose files may be loaded; empty for all folders.
pub static MODEL_DIR: Text = Text::new(|_| Ok(()));

/// `infer.models`: what is loaded when the server starts, see [`models_at_start`].
pub static MODELS: Text = Text::new(|models| models_at_start(models).map(drop).map_err(|error| error.to_string()));

/// A setting that is a text.
#[derive(Debug)]
pub struct Text {
    value: MainLock<String>,
    /// Says what is wrong with a value.
    check: fn(&str) -> Result<(), String>,
}

impl Text {
    const fn new(check: fn(&str) -> Result<(), String>) -> Self {
        Self { value: MainLock::new(String::new()), check }
    }

    /// The value now.
    pub fn get(&self) -> String {
        self.value.lock().clone()
    }
}

impl ConfigurationValue<RedisString> for Text {
    fn get(&self, _ctx: &ConfigurationContext) -> RedisString {
        RedisString::create_from_slice(std::ptr::null_mut(), self.get().as_bytes())
    }

    fn set(&self, _ctx: &ConfigurationContext, value: RedisString) -> Result<(), RedisError> {
        let value = value.try_as_str()?;
        (self.check)(value).map_err(RedisError::String)?;
        value.clone_into(&mut self.value.lock());
        Ok(())
    }
}

/// The configuration at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// See [`NICE`].
    pub nice: i32,
    /// See [`QUEUE_LIMIT`].
    pub queue_limit: usize,
    /// See [`MAX_MEMORY`].
    pub max_memory: u64,
    /// See [`KV_BUDGET`].
    pub kv_budget: u64,
}

/// The configuration now. Any thread.
pub fn snapshot() -> Settings {
    // Redis keeps the values within the bounds they were registered with, so no fallback is taken.
    Settings {
        nice: i32::try_from(NICE.load(Ordering::Relaxed)).unwrap_or(0),
        max_memory: u64::try_from(MAX_MEMORY.load(Ordering::Relaxed)).unwrap_or(0),
        kv_budget: u64::try_from(KV_BUDGET.load(Ordering::Relaxed)).unwrap_or(0),
        queue_limit: usize::try_from(QUEUE_LIMIT.load(Ordering::Relaxed)).unwrap_or(0),
    }
}
