//! The seam between the batching loop and llama.cpp: what the loop needs of a model, small enough to be faked in tests.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;

use super::context::{AbortSwitch, Batch, Context, Decoded};
use super::error::EngineError;
use super::model::Model;
use crate::logic::kv_rows::{KvRows, Piece};
use crate::logic::sched::{Plan, SlotId};

/// Runs the model over planned tokens. One sequence per scheduler slot.
pub(super) trait Decoder: Send {
    /// Decodes every entry of `plan` in one call. `requests` are the cancel flags of the sequences in it: when all are
    /// set the call may end early.
    fn decode(
        &mut self,
        plan: &Plan,
        requests: &mut dyn Iterator<Item = Arc<AtomicBool>>,
    ) -> Result<Decoded, EngineError>;

    /// Says that there is nothing to decode for now.
    fn rest(&mut self) {}

    /// Logits for output `output` (of [`PlanEntry::outputs`](crate::logic::sched::PlanEntry::outputs)) of entry `entry` of
    /// the last plan.
    fn logits(&mut self, entry: usize, output: usize) -> Result<&[f32], EngineError>;

    /// Makes `slot` hold the first `keep` tokens of `source`, which may be `slot` itself, and nothing else. Returns how
    /// many it holds: `keep`, or 0 when the model's memory cannot be cut there.
    fn reuse(&mut self, slot: SlotId, source: SlotId, keep: usize) -> usize;

    /// Whether [`Decoder::reuse`] can take another slot as the source.
    fn can_copy(&self) -> bool;

    /// Keys and values of what `slot` holds, from its token `from` on.
    fn cut(&mut self, slot: SlotId, from: usize) -> Result<KvRows, EngineError>;

    /// Makes `slot` hold the `keep` tokens that it holds, and `pieces` behind them. After an error it holds nothing.
    fn splice(&mut self, slot: SlotId, keep: usize, pieces: &[Piece<'_>]) -> Result<(), EngineError>;

    /// Bytes that [`Decoder::save`] would give.
    fn saved_bytes(&mut self, slot: SlotId) -> Result<usize, EngineError>;

    /// What `slot` holds, for [`Decoder::restore`] of any worker of the same model.
    fn save(&mut self, slot: SlotId) -> Result<Vec<u8>, EngineError>;

    /// Makes `slot` hold what was saved. After an error it holds nothing.
    fn restore(&mut self, slot: SlotId, state: &[u8]) -> Result<(), EngineError>;

    /// Whether sequences can be saved, restored, cut and spliced before the next [`Decoder::decode`].
    fn is_settled(&self) -> bool;

    /// Forgets what a slot holds.
    fn clear(&mut self, slot: SlotId);

    /// Forgets everything, after a failure that leaves the state unknown.
    fn clear_all(&mut self);

    /// What went wrong, when nothing but [`Decoder::renew`] works any more.
    fn lost(&self) -> Option<EngineError>;

    /// Makes anew what was lost, and tries whether it works. It holds nothing then.
    fn renew(&mut self) -> Result<(), EngineError>;

    /// The test hook: the next `times` calls of [`Decoder::decode`], or inside of [`Decoder::renew`], fail.
    fn fail_next(&mut self, times: u32);
}

/// Text of tokens, as far as the loop needs it.
pub(super) trait Vocabulary: Send + Sync {
    /// Appends the bytes of `token`.
    fn piece(&self, token: u32, text: &mut Vec<u8>) -> Result<(), EngineError>;

    /// Whether generation ends at `token`.
    fn is_end(&self, token: u32) -> bool;
}

impl Vocabulary for Model {
    fn piece(&self, token: u32, text: &mut Vec<u8>) -> Result<(), EngineError> {
        Model::piece(self, token, text)
    }

    fn is_end(&self, token: u32) -> bool {
        Model::is_end(self, token)
    }
}

/// A [`Decoder`] over a `llama_context`.
#[derive(Debug)]
pub(super) struct LlamaDecoder {
    context: Context,
    abort: Arc<AbortSwitch>,
    batch: Batch,
    /// Index in the batch of the first output of each entry, or of its end when it has none.
    outputs: Vec<usize>,
}

impl LlamaDecoder {
    pub(super) fn new(context: Context, abort: Arc<AbortSwitch>) -> Self {
        Self { context, abort, batch: Batch::default(), outputs: Vec::new() }
    }
}

/// The sequence of a slot; one that does not exist is refused by the context.
fn sequence(slot: SlotId) -> u32 {
    u32::try_from(slot.index()).unwrap_or(u32::MAX)
}

impl Decoder for LlamaDecoder {
    fn decode(
        &mut self,
        plan: &Plan,
        requests: &mut dyn Iterator<Item = Arc<AtomicBool>>,
    ) -> Result<Decoded, EngineError> {
        self.batch.clear();
        self.outputs.clear();
        for entry in &plan.entries {
            let sequence = sequence(entry.slot);
            let first_output = entry.tokens.len().saturating_sub(entry.outputs);
            self.outputs.push(self.batch.len() + first_output);
            for (position, (i, &token)) in (entry.first_pos..).zip(entry.tokens.iter().enumerate()) {
                self.batch.push(token, position, sequence, i >= first_output);
            }
        }
        {
            let mut running = self.abort.requests.lock().unwrap_or_else(PoisonError::into_inner);
            running.clear();
            running.extend(requests);
        }
        self.context.decode(&mut self.batch)
    }

    fn rest(&mut self) {
        self.context.rest();
    }

    fn logits(&mut self, entry: usize, output: usize) -> Result<&[f32], EngineError> {
        let first = self.outputs.get(entry).copied();
        first.and_then(|first| self.context.logits(first + output)).ok_or_else(|| {
            EngineError::Internal(format!("no logits for output {output} of entry {entry} of the batch"))
        })
    }

    fn reuse(&mut self, slot: SlotId, source: SlotId, keep: usize) -> usize {
        let copied = keep > 0 && (slot == source || self.context.copy_sequence(sequence(source), sequence(slot)));
        if copied && self.context.truncate_sequence(sequence(slot), keep) {
            return keep;
        }
        self.clear(slot);
        0
    }

    fn can_copy(&self) -> bool {
        self.context.can_copy()
    }

    fn cut(&mut self, slot: SlotId, from: usize) -> Result<KvRows, EngineError> {
        self.context.cut(sequence(slot), from)
    }

    fn splice(&mut self, slot: SlotId, keep: usize, pieces: &[Piece<'_>]) -> Result<(), EngineError> {
        self.context.splice(sequence(slot), keep, pieces)
    }

    fn saved_bytes(&mut self, slot: SlotId) -> Result<usize, EngineError> {
        self.context.saved_bytes(sequence(slot))
    }

    fn save(&mut self, slot: SlotId) -> Result<Vec<u8>, EngineError> {
        self.context.save(sequence(slot))
    }

    fn restore(&mut self, slot: SlotId, state: &[u8]) -> Result<(), EngineError> {
        self.context.restore(sequence(slot), state)
    }

    fn is_settled(&self) -> bool {
        self.context.is_settled()
    }

    fn clear(&mut self, slot: SlotId) {
        self.context.clear_sequence(sequence(slot));
    }

    fn clear_all(&mut self) {
        self.context.clear();
    }

    fn lost(&self) -> Option<EngineError> {
        self.context.lost().cloned()
    }

    fn renew(&mut self) -> Result<(), EngineError> {
        self.context.renew()
    }

    fn fail_next(&mut self, times: u32) {
        self.abort.fail_next(times);
    }
}
