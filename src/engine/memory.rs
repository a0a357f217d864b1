//! How much memory a model takes: estimated from the header of its file before llama.cpp allocates anything, compared
//! with what it may have, and kept count of until the model is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redis_infer_gguf::{Header, Value};

use super::error::EngineError;
use super::model::Purpose;
use super::served;
use super::source::Checked;
use crate::logic::layout::Layout;
use crate::logic::limits;
use crate::logic::options::{KvType, LoadOptions};

/// llama.cpp makes the cache of a sequence a multiple of this many tokens.
const CACHE_STEP: u64 = 256;

/// Bytes of the parts of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// The model file.
    pub weights: u64,
    /// Keys and values of all workers.
    pub kv: u64,
    /// What all workers compute in.
    pub compute: u64,
}

impl MemoryUse {
    /// All together.
    #[must_use]
    pub fn total(self) -> u64 {
        self.weights.saturating_add(self.kv).saturating_add(self.compute)
    }
}

/// What loading these files with these options will take. The weights and the cache of common architectures are exact;
/// where layers keep less than all tokens (sliding windows, recurrent state) the cache is an upper bound; the compute
/// buffers are the largest tensors of a step, a guess. Where the number of workers will be measured it is that of the layout
/// which takes more, and what the measurement takes before.
pub(super) fn estimate(file: &Checked, options: &LoadOptions, layout: Layout) -> MemoryUse {
    let adapter = file.adapter.as_ref().map_or(0, |adapter| adapter.bytes);
    let model = estimate_model(&file.header, file.purpose, options, layout);
    MemoryUse { weights: model.weights.saturating_add(adapter), ..model }
}

fn estimate_model(header: &Header, purpose: Purpose, options: &LoadOptions, layout: Layout) -> MemoryUse {
    let number = |key| u64::from(header.arch_u32(key).unwrap_or(0));
    let layers = number("block_count").min(512);
    let (width, heads) = (number("embedding_length"), largest(header, "attention.head_count").max(1));
    let trained = header.arch_u32("context_length").unwrap_or(limits::CTX_MAX).max(1);
    let context = u64::from(served::context_of(options, purpose, trained));
    let (sequences, step) = match purpose {
        Purpose::Generation => (u64::from(layout.requests()), u64::from(super::context::UBATCH)),
        Purpose::Embedding | Purpose::Reranking => (1, context.next_multiple_of(u64::from(super::embedder::SEQUENCES))),
    };
    let cells = context.div_ceil(CACHE_STEP).saturating_mul(CACHE_STEP);
    // A measurement has two contexts for all requests.
    let measured = if layout.is_open { CACHE_STEP * 2 } else { 0 };

    let per_head = |key| header.arch_u32(key).map_or(width / heads, u64::from);
    let of_token = kv_heads(header, layers, heads)
        .saturating_mul(per_head("attention.key_length").saturating_add(per_head("attention.value_length")));
    let kv = match (purpose, options.cache_type()) {
        (Purpose::Embedding | Purpose::Reranking, _) => 0,
        (Purpose::Generation, KvType::F16) => of_token.saturating_mul(2),
        (Purpose::Generation, KvType::Q8_0) => of_token.saturating_mul(34) / 32,
    };

    // Which token sees which cell, twice; flash attention keeps no scores of heads, encoders do.
    let tables = if purpose == Purpose::Generation { 2 } else { heads.saturating_mul(2).saturating_add(1) };
    let scores = tables.saturating_mul(step).saturating_mul(cells);
    let states = number("feed_forward_length").saturating_mul(3).saturating_add(width.saturating_mul(6));
    let rows =
        if purpose == Purpose::Generation { u64::from(options.logit_rows(layout.most_slots())) } else { sequences };
    let outputs = vocabulary(header).saturating_add(width).saturating_mul(rows).saturating_mul(2);
    let floats = scores.saturating_add(states.saturating_mul(step)).saturating_add(outputs);

    let workers = u64::from(layout.workers);
    MemoryUse {
        weights: header.file_size,
        kv: kv.saturating_mul(cells.max(measured)).saturating_mul(sequences),
        compute: floats.saturating_mul(4).saturating_mul(workers),
    }
}

fn architecture_value<'a>(header: &'a Header, key: &str) -> Option<&'a Value> {
    header.metadata.get(&format!("{}.{key}", header.architecture()?))
}

/// A number of the architecture, or the largest where it differs by layer.
fn largest(header: &Header, key: &str) -> u64 {
    match architecture_value(header, key) {
        Some(Value::Array(array)) => array.values.iter().filter_map(Value::as_u64).max().unwrap_or(0),
        Some(value) => value.as_u64().unwrap_or(0),
        None => 0,
    }
}

/// Heads of keys and values in all layers.
fn kv_heads(header: &Header, layers: u64, heads: u64) -> u64 {
    match architecture_value(header, "attention.head_count_kv") {
        Some(Value::Array(array)) => array.values.iter().filter_map(Value::as_u64).fold(0, u64::saturating_add),
        Some(value) => value.as_u64().unwrap_or(heads).saturating_mul(layers),
        None => heads.saturating_mul(layers),
    }
}

fn vocabulary(header: &Header) -> u64 {
    match header.metadata.get("tokenizer.ggml.tokens") {
        Some(Value::Array(array)) => array.len,
        _ => 0,
    }
}

/// Bytes that the models of an engine take, by their estimates.
#[derive(Debug, Default)]
pub(super) struct Memory {
    reserved: AtomicU64,
}

/// A model's share of [`Memory`], given back when the model is gone.
#[derive(Debug)]
pub(super) struct Reservation {
    memory: Arc<Memory>,
    pub estimate: MemoryUse,
}

impl Memory {
    /// Reserves what `name` needs, unless that with all other models is more than `limit` (0 for none), or it alone is
    /// more than is `free` for this process, where that is known.
    ///
    /// # Errors
    /// `OOM` with the numbers.
    pub(super) fn reserve(
        self: &Arc<Self>,
        name: &str,
        estimate: MemoryUse,
        limit: u64,
        free: Option<u64>,
    ) -> Result<Reservation, EngineError> {
        let needs = estimate.total();
        let refused = |than: String| {
            let MemoryUse { weights, kv, compute } = estimate;
            EngineError::OutOfMemory(format!(
                "model '{name}' needs about {needs} bytes (weights {weights}, KV cache {kv}, buffers {compute}), {than}"
            ))
        };
        if let Some(free) = free.filter(|&free| needs > free) {
            return Err(refused(format!("but only {free} are free here; use a smaller CTX, PARALLEL or WORKERS")));
        }
        let fitting =
            |reserved: u64| Some(reserved.saturating_add(needs)).filter(|&after| limit == 0 || after <= limit);
        if let Err(reserved) = self.reserved.fetch_update(Ordering::AcqRel, Ordering::Acquire, fitting) {
            return Err(refused(format!(
                "which beside the {reserved} of other models is more than infer.max-memory, {limit}; use a smaller CTX, \
                 PARALLEL or WORKERS, unload a model or raise infer.max-memory"
            )));
        }
        Ok(Reservation { memory: Arc::clone(self), estimate })
    }

    /// Bytes reserved now. Never waits.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Acquire)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let without = |reserved: u64| Some(reserved.saturating_sub(self.estimate.total()));
        let _ = self.memory.reserved.fetch_update(Ordering::AcqRel, Ordering::Acquire, without);
    }
}

/// Gives the system back what the C library keeps of freed memory, which after a model can be hundreds of megabytes.
pub(super) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets threads share what they have freed: the C library would keep it apart for each of them, up to eight times the
/// number of CPUs. Redis itself has another allocator. `MALLOC_ARENA_MAX` in the environment goes before.
pub(super) fn share_freed_memory(cpus: u32) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        let arenas = libc::c_int::try_from(cpus.max(2)).unwrap_or(libc::c_int::MAX);
        // SAFETY: may be called at any time from any thread; arenas that exist stay.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, arenas);
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = cpus;
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: MemoryUse = MemoryUse { weights: 60, kv: 30, compute: 10 };

    #[test]
    fn what_is_reserved_comes_back_and_no_more_than_the_limit_is_given() {
        let memory = Arc::new(Memory::default());
        let first = memory.reserve("a", NEEDS, 150, None).unwrap();
        let refused = memory.reserve("b", NEEDS, 150, None).unwrap_err();
        assert_eq!(refused.code(), "OOM");
        for number in ["100 bytes", "weights 60", "KV cache 30", "buffers 10", "the 100 of other", "max-memory, 150"] {
            assert!(refused.to_string().contains(number), "{refused}");
        }
        let second = memory.reserve("b", NEEDS, 200, None).unwrap();
        assert_eq!(memory.reserved(), 200);
        drop((first, second));
        assert_eq!(memory.reserved(), 0);
        assert!(memory.reserve("a", NEEDS, 0, None).is_ok());
    }

    #[test]
    fn a_model_larger_than_what_is_free_is_refused_with_both_numbers() {
        let memory = Arc::new(Memory::default());
        let refused = memory.reserve("a", NEEDS, 0, Some(99)).unwrap_err().to_string();
        assert!(refused.contains("100 bytes") && refused.contains("only 99 are free"), "{refused}");
        assert!(memory.reserve("a", NEEDS, 0, Some(100)).is_ok());
    }

    #[test]
    fn a_header_with_enormous_numbers_gives_an_enormous_estimate() {
        let mut header = Header { file_size: u64::MAX, ..Header::default() };
        let mut set = |key: &str, value| _ = header.metadata.insert(key.to_owned(), value);
        set("general.architecture", Value::Str("x".to_owned()));
        for key in
            ["block_count", "embedding_length", "attention.head_count", "attention.key_length", "feed_forward_length"]
        {
            set(&format!("x.{key}"), Value::U32(u32::MAX));
        }
        let options = LoadOptions::new("m", "p");
        let layout = Layout::choose(&LoadOptions { workers: Some(256), ..LoadOptions::new("m", "p") }, 256);
        assert_eq!(estimate_model(&header, Purpose::Generation, &options, layout).total(), u64::MAX);
    }
}
