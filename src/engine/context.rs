//! One `llama_context`: the KV cache and compute buffers of one worker thread. The only place where batches are filled.
//!
//! A context belongs to one thread at a time. The weights it reads outlive it: it holds the model. llama.cpp aborts the
//! process on a batch that is too large, on sequence ids out of range and on missing outputs, so every bound is checked
//! here before the call.

mod sequences;

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use llama_cpp_sys_2 as sys;

use super::budget::Share;
use super::error::EngineError;
use super::model::Model;
use super::stop::Stop;
use super::{llama_log, trampoline};
use crate::logic::options::{KvType, Pooling};

/// Tokens that a context for generation computes at once, at most.
pub(super) const UBATCH: u32 = 128;

/// What a context is made for and how large it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct ContextSpec {
    /// Tokens of one sequence.
    pub context: u32,
    /// Sequences side by side.
    pub sequences: u32,
    /// Tokens of one decode call, at most.
    pub batch: u32,
    /// Rows of logits of one decode call, at most; for other outputs without meaning.
    pub logits: u32,
    /// Type of keys and values in the cache.
    pub kv_type: KvType,
    /// What a decode call gives.
    pub output: Output,
}

/// What a context computes from tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// Logits of the next token, for generation.
    Logits,
    /// One vector for each sequence, with this pooling or the model's own.
    Vectors(Option<Pooling>),
    /// One score for each sequence.
    Scores,
}

/// Result of a decode call that llama.cpp accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoded {
    /// Outputs are ready, after this time of computing.
    Done(Duration),
    /// The abort switch was thrown; the sequences of the batch are in an unknown state.
    Aborted,
}

/// Ends a running decode call: thrown when nobody waits for its result any more.
#[derive(Debug, Default)]
pub(super) struct AbortSwitch {
    /// All work of the model ends.
    pub stop: Stop,
    /// Cancel flags of the requests in the running batch.
    pub requests: Mutex<Vec<Arc<AtomicBool>>>,
    /// When the running batch is to end in any case.
    pub deadline: Mutex<Option<Instant>>,
    /// The test hook: assertions that are still to fail.
    pub failures: AtomicU32,
}

impl AbortSwitch {
    /// The test hook: in each of the next `times` decode calls an assertion fails.
    pub(super) fn fail_next(&self, times: u32) {
        self.failures.store(times, Ordering::Relaxed);
    }

    fn must_fail(&self) -> bool {
        let left = self.failures.load(Ordering::Relaxed);
        self.failures.store(left.saturating_sub(1), Ordering::Relaxed);
        left > 0
    }

    fn set_deadline(&self, deadline: Option<Instant>) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    fn thrown(&self) -> bool {
        if self.stop.reason().is_some() {
            return true;
        }
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return true;
        }
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        !requests.is_empty() && requests.iter().all(|cancelled| cancelled.load(Ordering::Relaxed))
    }
}

/// Tokens to decode, in llama.cpp's structure-of-arrays form. Buffers are kept from step to step.
#[derive(Debug, Default)]
pub(super) struct Batch {
    tokens: Vec<i32>,
    positions: Vec<i32>,
    sequence_counts: Vec<i32>,
    sequences: Vec<i32>,
    outputs: Vec<i8>,
}

impl Batch {
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequence_counts.clear();
        self.sequences.clear();
        self.outputs.clear();
    }

    pub(super) fn push(&mut self, token: u32, position: u32, sequence: u32, output: bool) {
        self.tokens.push(token.cast_signed());
        self.positions.push(position.cast_signed());
        self.sequence_counts.push(1);
        self.sequences.push(sequence.cast_signed());
        self.outputs.push(i8::from(output));
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }
}

/// An owned `llama_context`.
#[derive(Debug)]
pub(super) struct Context {
    /// `None` when it could not be made anew.
    ptr: Option<NonNull<sys::llama_context>>,
    /// Read by llama.cpp's abort callback; boxed behind an `Arc`, so its address stays.
    abort: Arc<AbortSwitch>,
    spec: ContextSpec,
    /// Keeps the weights alive for as long as `ptr`.
    model: Arc<Model>,
    share: Share,
    /// Threads that llama.cpp is set to.
    threads: u32,
    /// What went wrong in the middle of a call, when nobody knows what is left.
    lost: Option<EngineError>,
    /// Where the sequence of each token of a batch stands; kept for its memory, without meaning between calls.
    sequence_ptrs: Vec<*mut i32>,
    /// Sequences are to be copied by the next decode call.
    copies_wait: bool,
    /// Its buffers, as the model counts them.
    sizes: llama_log::Sizes,
}

// SAFETY: llama.cpp ties a context to no thread; it only must not be used by two at once, and all use is through `&mut
// self` or results of it.
unsafe impl Send for Context {}

/// Making a context changes fields of the model without a lock (llama-cpp-2 notes it as unsound), so it is done one at
/// a time.
static CREATION: Mutex<()> = Mutex::new(());

impl Context {
    /// # Errors
    /// `OOM` when llama.cpp cannot make the context; its own reason is in the text.
    pub(super) fn new(
        model: Arc<Model>,
        spec: ContextSpec,
        abort: Arc<AbortSwitch>,
        share: Share,
    ) -> Result<Self, EngineError> {
        let (ptr, sizes) = create(&model, &spec, &abort)?;
        Ok(Self {
            ptr: Some(ptr),
            abort,
            spec,
            model,
            share,
            threads: 1,
            lost: None,
            sequence_ptrs: Vec::new(),
            copies_wait: false,
            sizes,
        })
    }

    /// What went wrong, when nobody knows any more what the context holds: from then on nothing works but
    /// [`Context::renew`].
    pub(super) fn lost(&self) -> Option<&EngineError> {
        self.lost.as_ref()
    }

    /// Makes the context anew and has it compute one token, which shows whether it works. It holds nothing then.
    ///
    /// # Errors
    /// As [`Context::new`] and [`Context::decode`]; the context stays lost.
    pub(super) fn renew(&mut self) -> Result<(), EngineError> {
        let lost = self.lost.take();
        // First: there may be no memory for two.
        self.free();
        let renewed = self.create_again();
        if renewed.is_err() && self.lost.is_none() {
            self.lost = lost.or_else(|| renewed.as_ref().err().cloned());
        }
        renewed
    }

    fn create_again(&mut self) -> Result<(), EngineError> {
        let (ptr, sizes) = create(&self.model, &self.spec, &self.abort)?;
        (self.ptr, self.sizes, self.threads, self.copies_wait) = (Some(ptr), sizes, 1, false);
        self.abort.requests.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut batch = Batch::default();
        batch.push(0, 0, 0, true);
        // When all work is to end it is aborted, and nobody needs to know.
        self.decode(&mut batch)?;
        self.clear();
        Ok(())
    }

    /// The context, unless it is lost.
    fn live(&self) -> Option<*mut sys::llama_context> {
        self.ptr.filter(|_| self.lost.is_none()).map(NonNull::as_ptr)
    }

    /// Notes when `result` leaves nobody knowing what the context holds.
    fn noting_loss<T>(&mut self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        if let Err(error @ EngineError::ContextLost(_)) = &result {
            self.lost = Some(error.clone());
        }
        result
    }

    fn free(&mut self) {
        if let Some(ptr) = self.ptr.take() {
            // SAFETY: made by llama_init_from_model, and forgotten with this.
            unsafe { sys::llama_free(ptr.as_ptr()) };
            self.model.forget_buffers(self.sizes);
        }
    }

    /// Tokens that one sequence can hold; llama.cpp rounds up what was asked for.
    pub(super) fn sequence_capacity(&self) -> u32 {
        // SAFETY: the context is live.
        self.live().map_or(0, |ptr| unsafe { sys::llama_n_ctx_seq(ptr) })
    }

    /// Whether each sequence becomes a vector or a score, whichever the context was made for. llama.cpp keeps one number
    /// of a reranker where it keeps a whole vector of others.
    pub(super) fn pools(&self) -> bool {
        let Some(ptr) = self.live() else { return false };
        // SAFETY: the context is live.
        let pooling = unsafe { sys::llama_pooling_type(ptr) };
        match self.spec.output {
            Output::Logits => false,
            Output::Vectors(_) => {
                [sys::LLAMA_POOLING_TYPE_MEAN, sys::LLAMA_POOLING_TYPE_CLS, sys::LLAMA_POOLING_TYPE_LAST]
                    .contains(&pooling)
            }
            Output::Scores => pooling == sys::LLAMA_POOLING_TYPE_RANK,
        }
    }

    /// Whether tokens of earlier calls are kept. llama.cpp has models that look like generators and keep nothing
    /// (diffusion, some embedding models); decoding with them aborts.
    pub(super) fn remembers(&mut self) -> bool {
        self.memory().is_some()
    }

    /// Runs the model over `batch`, when there are CPUs for it.
    ///
    /// # Errors
    /// `INTERNAL` when the batch breaks a bound or llama.cpp refuses it; `NOMODEL` when the model's file has changed.
    pub(super) fn decode(&mut self, batch: &mut Batch) -> Result<Decoded, EngineError> {
        self.pass(batch, None)
    }

    /// As [`Context::decode`] with `threads` threads, ended early at `deadline`; also tells how many threads it got.
    pub(super) fn decode_until(
        &mut self,
        deadline: Instant,
        threads: u32,
        batch: &mut Batch,
    ) -> Result<(Decoded, u32), EngineError> {
        self.abort.set_deadline(Some(deadline));
        let decoded = self.pass(batch, Some(threads));
        self.abort.set_deadline(None);
        decoded.map(|decoded| (decoded, self.threads))
    }

    pub(super) fn share(&self) -> &Share {
        &self.share
    }

    /// Says that there is nothing to decode for now, so that others may have the CPUs.
    pub(super) fn rest(&mut self) {
        self.share.rest();
    }

    fn pass(&mut self, batch: &mut Batch, most_threads: Option<u32>) -> Result<Decoded, EngineError> {
        let count = batch.len();
        let capacity = self.spec.batch as usize;
        let sequences_ok = batch.sequences.iter().all(|&s| u32::try_from(s).is_ok_and(|s| s < self.spec.sequences));
        if count == 0 || count > capacity || !sequences_ok {
            return Err(EngineError::Internal(format!(
                "a batch of {count} tokens does not fit a context made for {capacity}"
            )));
        }
        self.model.check_tokens(bytemuck::cast_slice(&batch.tokens))?;
        let Some(ptr) = self.live() else {
            let none = || EngineError::Internal("there is no context".to_owned());
            return Err(self.lost.clone().unwrap_or_else(none));
        };
        self.sequence_ptrs.clear();
        self.sequence_ptrs.extend(batch.sequences.iter_mut().map(std::ptr::from_mut));
        let raw = sys::llama_batch {
            n_tokens: i32::try_from(count).unwrap_or(i32::MAX),
            token: batch.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: batch.positions.as_mut_ptr(),
            n_seq_id: batch.sequence_counts.as_mut_ptr(),
            seq_id: self.sequence_ptrs.as_mut_ptr(),
            logits: batch.outputs.as_mut_ptr(),
        };
        let turn = match most_threads {
            None => self.share.take(count),
            Some(most) => self.share.take_at_most(most),
        };
        self.model.check_files()?;
        if self.threads != turn.threads() {
            self.threads = turn.threads();
            let threads = self.threads.cast_signed();
            // SAFETY: the context is live and not in use; the numbers are for the next decode call.
            unsafe { sys::llama_set_n_threads(ptr, threads, threads) };
        }
        let begun = Instant::now();
        // SAFETY: `&mut self` makes this the only use of the context; all arrays hold `count` items and live through
        // the call.
        let status = unsafe { trampoline::decode(ptr, &raw) };
        let (took, lost) = (begun.elapsed(), trampoline::take_lost_time());
        llama_log::set_quiet(false);
        if let Err(error @ EngineError::ContextLost(_)) = &status {
            self.lost = Some(error.clone());
        }
        match status? {
            0 => {
                self.copies_wait = false;
                turn.learn(took, lost);
                Ok(Decoded::Done(took))
            }
            2 => Ok(Decoded::Aborted),
            _ if self.abort.thrown() => Ok(Decoded::Aborted),
            status => Err(EngineError::Internal(format!("llama_decode returned {status} for {count} tokens"))),
        }
    }

    /// Logits of the batch's token `index`, one per id of the vocabulary; `None` when that token was not marked as
    /// output.
    pub(super) fn logits(&mut self, index: usize) -> Option<&[f32]> {
        let (ptr, index) = (self.live()?, i32::try_from(index).ok()?);
        // SAFETY: the context is live; an index without output gives null.
        let logits = unsafe { sys::llama_get_logits_ith(ptr, index) };
        // SAFETY: llama.cpp keeps one row of `vocabulary` floats per output until the next decode, which needs `&mut
        // self`.
        (!logits.is_null()).then(|| unsafe { std::slice::from_raw_parts(logits, self.model.facts.vocabulary as usize) })
    }

    /// What became of a sequence of the last batch: its vector, or its score as the only number.
    pub(super) fn pooled(&mut self, sequence: u32) -> Option<&[f32]> {
        let length = match self.spec.output {
            Output::Logits => return None,
            Output::Vectors(_) => self.model.facts.embedding_dim as usize,
            // A model with another number of labels is not loaded.
            Output::Scores => 1,
        };
        let ptr = self.live()?;
        // SAFETY: the context is live; an unknown sequence gives null.
        let row = unsafe { sys::llama_get_embeddings_seq(ptr, sequence.cast_signed()) };
        // SAFETY: with the poolings that `pools` accepts each sequence has one row of `length` floats until the next
        // decode, which needs `&mut self`.
        (!row.is_null()).then(|| unsafe { std::slice::from_raw_parts(row, length) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.free();
    }
}

/// Has llama.cpp make a context, and counts its buffers.
fn create(
    model: &Model,
    spec: &ContextSpec,
    abort: &Arc<AbortSwitch>,
) -> Result<(NonNull<sys::llama_context>, llama_log::Sizes), EngineError> {
    let params = params(spec, abort);
    llama_log::take_error();
    llama_log::take_sizes();
    let (created, asserted) = {
        let _one_at_a_time = CREATION.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the model is live; `params` points to nothing but `abort`, which the context's owner keeps.
        trampoline::catching(|| unsafe { sys::llama_init_from_model(model.as_ptr(), params) })
    };
    let Some(ptr) = NonNull::new(created) else {
        let reason = llama_log::take_error().unwrap_or_else(|| "llama.cpp gave no reason".to_owned());
        if asserted {
            return Err(EngineError::LoadFailed(format!("llama.cpp cannot compute this model: {reason}")));
        }
        return Err(EngineError::OutOfMemory(format!(
            "could not make a context of {} x {} tokens for model '{}': {reason}; use a smaller CTX or PARALLEL",
            spec.sequences, spec.context, model.name
        )));
    };
    if let Some(adapter) = model.adapter() {
        // SAFETY: the context was made for this model just now.
        unsafe { adapter.apply(ptr) };
    }
    let sizes = llama_log::take_sizes();
    model.note_buffers(sizes);
    Ok((ptr, sizes))
}

/// Called by ggml between the nodes of a graph, on the thread that decodes. A C++ exception may pass through it: it has nothing
/// to drop.
extern "C-unwind" fn on_abort_check(switch: *mut c_void) -> bool {
    // SAFETY: `switch` is the `AbortSwitch` that the context keeps alive.
    let switch = unsafe { &*switch.cast::<AbortSwitch>() };
    if switch.must_fail() {
        trampoline::fail_assertion();
    }
    let thrown = switch.thrown();
    if thrown {
        llama_log::set_quiet(true);
    }
    thrown
}

type AbortCheck = extern "C-unwind" fn(*mut c_void) -> bool;
type CAbortCheck = unsafe extern "C" fn(*mut c_void) -> bool;

fn params(spec: &ContextSpec, abort: &Arc<AbortSwitch>) -> sys::llama_context_params {
    // SAFETY: returns a plain struct.
    let mut params = unsafe { sys::llama_context_default_params() };
    // Set anew for each pass.
    params.n_threads = 1;
    params.n_threads_batch = 1;
    params.n_batch = spec.batch;
    params.n_seq_max = spec.sequences;
    // SAFETY: the same function type but for what may unwind through it; only ggml calls it, whose frames are made for that.
    params.abort_callback = Some(unsafe { std::mem::transmute::<AbortCheck, CAbortCheck>(on_abort_check) });
    params.abort_callback_data = Arc::as_ptr(abort).cast_mut().cast();
    if spec.output != Output::Logits {
        // An encoder sees the whole batch in one pass, so the physical batch is the logical one. A causal embedder
        // keeps its cells in one buffer.
        params.embeddings = true;
        params.n_ctx = spec.batch;
        params.n_ubatch = spec.batch;
        params.kv_unified = true;
        params.pooling_type = pooling_type(spec.output);
    } else {
        params.n_ctx = spec.context.saturating_mul(spec.sequences);
        // Small physical batches cost nothing on CPUs, keep the compute buffer small and let a cancelled prompt end
        // early.
        params.n_ubatch = spec.batch.min(UBATCH);
        // The default reserves a row of logits per token of the batch, hundreds of MB for a large vocabulary.
        params.n_outputs_max = spec.logits;
        // A buffer per sequence, so that each sees its own cells only; flash attention where the model allows it. What that
        // gains on CPUs: docs/BENCHMARKS.md, "Settings of llama.cpp".
        params.kv_unified = false;
        params.flash_attn_type = sys::LLAMA_FLASH_ATTN_TYPE_AUTO;
        if spec.kv_type == KvType::Q8_0 {
            params.type_k = sys::GGML_TYPE_Q8_0;
            params.type_v = sys::GGML_TYPE_Q8_0;
        }
    }
    params
}

fn pooling_type(output: Output) -> sys::llama_pooling_type {
    match output {
        Output::Logits => sys::LLAMA_POOLING_TYPE_NONE,
        Output::Scores => sys::LLAMA_POOLING_TYPE_RANK,
        Output::Vectors(None) => sys::LLAMA_POOLING_TYPE_UNSPECIFIED,
        Output::Vectors(Some(Pooling::Mean)) => sys::LLAMA_POOLING_TYPE_MEAN,
        Output::Vectors(Some(Pooling::Cls)) => sys::LLAMA_POOLING_TYPE_CLS,
        Output::Vectors(Some(Pooling::Last)) => sys::LLAMA_POOLING_TYPE_LAST,
    }
}
