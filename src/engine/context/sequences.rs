//! What the sequences of a context hold: forgotten, copied, cut off, saved, restored and put together.

use llama_cpp_sys_2 as sys;

use super::Context;
use crate::engine::error::EngineError;
use crate::engine::free_memory::free_memory;
use crate::engine::trampoline;
use crate::logic::kv_rows::{KvRows, Piece, join};

impl Context {
    /// Forgets one sequence.
    pub(in crate::engine) fn clear_sequence(&mut self, sequence: u32) {
        if sequence < self.spec.sequences
            && let Some(memory) = self.memory()
        {
            // SAFETY: the sequence id is in range; -1, -1 is the whole sequence, which every kind of memory can remove.
            unsafe { sys::llama_memory_seq_rm(memory, sequence.cast_signed(), -1, -1) };
        }
    }

    /// Whether [`Context::copy_sequence`] works.
    pub(in crate::engine) fn can_copy(&self) -> bool {
        self.model.can_rewind()
    }

    /// Makes sequence `to` a copy of sequence `from`; `false` when the model's memory cannot.
    ///
    /// The next decode copies the whole buffer of the sequence, which is memory bandwidth, not computation.
    pub(in crate::engine) fn copy_sequence(&mut self, from: u32, to: u32) -> bool {
        if from.max(to) >= self.spec.sequences || !self.can_copy() {
            return false;
        }
        let Some(memory) = self.memory() else {
            return false;
        };
        // SAFETY: both ids are in range, and -1, -1 is the whole sequence: llama.cpp aborts on a part of one when
        // sequences have buffers of their own.
        unsafe { sys::llama_memory_seq_cp(memory, from.cast_signed(), to.cast_signed(), -1, -1) };
        self.copies_wait = true;
        true
    }

    /// Whether what sequences hold is what the last calls made of them. If not, the next decode call makes it so, and until
    /// then nothing may be saved or restored.
    pub(in crate::engine) fn is_settled(&self) -> bool {
        !self.copies_wait
    }

    /// Cuts the tokens from position `from` on out of a sequence.
    ///
    /// # Errors
    /// `INTERNAL` when it holds something else than tokens from position 0 on.
    pub(in crate::engine) fn cut(&mut self, sequence: u32, from: usize) -> Result<KvRows, EngineError> {
        Ok(KvRows::cut(&self.save(sequence)?, from)?)
    }

    /// Makes a sequence hold its first `keep` tokens, which are all that it holds now, and `pieces` behind them.
    ///
    /// # Errors
    /// `INTERNAL`; the sequence is empty then.
    pub(in crate::engine) fn splice(
        &mut self,
        sequence: u32,
        keep: usize,
        pieces: &[Piece<'_>],
    ) -> Result<(), EngineError> {
        let spliced = self.joined(sequence, keep, pieces).and_then(|state| self.restore(sequence, &state));
        if spliced.is_err() {
            self.clear_sequence(sequence);
        }
        spliced
    }

    /// What the sequence would be saved as with `pieces` behind its tokens.
    fn joined(&mut self, sequence: u32, keep: usize, pieces: &[Piece<'_>]) -> Result<Vec<u8>, EngineError> {
        let kept = if keep > 0 { Some(self.cut(sequence, 0)?) } else { None };
        if kept.as_ref().is_some_and(|kept| kept.tokens() != keep) {
            return Err(EngineError::Internal("a sequence holds more than it should".to_owned()));
        }
        let rope = self.model.rope().map_err(|reason| EngineError::Internal(reason.to_owned()))?;
        let kept = kept.as_ref().map(|rows| Piece { rows, skip: 0 });
        let all: Vec<Piece<'_>> = kept.into_iter().chain(pieces.iter().copied()).collect();
        let tokens: usize = all.iter().map(Piece::tokens).sum();
        if tokens > self.sequence_capacity() as usize {
            return Err(EngineError::Internal(format!("{tokens} tokens do not fit into a sequence")));
        }
        Ok(join(&all, rope, self.spec.sequences)?)
    }

    /// What a sequence holds.
    ///
    /// # Errors
    /// `INTERNAL` before the next decode call where [`Context::is_settled`] says so; `OOM` when it would take much of the
    /// memory that is left.
    pub(in crate::engine) fn save(&mut self, sequence: u32) -> Result<Vec<u8>, EngineError> {
        let size = self.saved_bytes(sequence)?;
        if free_memory().is_some_and(|free| size as u64 > free / 4) {
            return Err(EngineError::OutOfMemory(format!("no room to save the {size} bytes of a sequence")));
        }
        let ptr = self.settled(sequence)?;
        // SAFETY: `&mut self` makes this the only use of the context, and the sequence was found to exist.
        let saved = unsafe { trampoline::save_state(ptr, sequence.cast_signed(), size) };
        self.noting_loss(saved)
    }

    /// Bytes that [`Context::save`] would give.
    ///
    /// # Errors
    /// `INTERNAL`, as there.
    pub(in crate::engine) fn saved_bytes(&mut self, sequence: u32) -> Result<usize, EngineError> {
        let ptr = self.settled(sequence)?;
        // SAFETY: `&mut self` makes this the only use of the context, and the sequence was just found to exist.
        let size = unsafe { trampoline::state_size(ptr, sequence.cast_signed()) };
        self.noting_loss(size)
    }

    /// Makes a sequence hold what was saved from a context of the same model and settings.
    ///
    /// # Errors
    /// As [`Context::save`]; the sequence is empty then.
    pub(in crate::engine) fn restore(&mut self, sequence: u32, state: &[u8]) -> Result<(), EngineError> {
        let restored = self.settled(sequence).and_then(|ptr| {
            // SAFETY: `&mut self` makes this the only use of the context, and the sequence was just found to exist.
            unsafe { trampoline::restore_state(ptr, sequence.cast_signed(), state) }
        });
        let restored = self.noting_loss(restored);
        if restored.is_err() {
            self.clear_sequence(sequence);
        }
        restored
    }

    /// Forgets the first `positions` tokens of a sequence and moves the others there, as llama.cpp does it.
    #[cfg(test)]
    pub(in crate::engine) fn shift_for_test(&mut self, sequence: u32, positions: i32) {
        let (Some(memory), id) = (self.memory(), sequence.cast_signed()) else { return };
        // SAFETY: a test calls this for a sequence that exists.
        unsafe { sys::llama_memory_seq_rm(memory, id, 0, positions) };
        // SAFETY: as above.
        unsafe { sys::llama_memory_seq_add(memory, id, positions, -1, -positions) };
    }

    /// The context, when `sequence` can be saved or restored.
    fn settled(&self, sequence: u32) -> Result<*mut sys::llama_context, EngineError> {
        let live = self.live().filter(|_| self.is_settled() && sequence < self.spec.sequences);
        live.ok_or_else(|| EngineError::Internal(format!("sequence {sequence} cannot be saved or restored now")))
    }

    /// Cuts a sequence behind its first `length` tokens (at least 1); `false` when the next token could not be
    /// computed from what is left.
    pub(in crate::engine) fn truncate_sequence(&mut self, sequence: u32, length: usize) -> bool {
        let (Some(memory), Ok(length)) = (self.memory(), i32::try_from(length)) else {
            return false;
        };
        if sequence >= self.spec.sequences || !self.model.can_rewind() {
            return false;
        }
        let id = sequence.cast_signed();
        // SAFETY: the sequence id is in range; a memory that cannot remove a part says so.
        let removed = unsafe { sys::llama_memory_seq_rm(memory, id, length, -1) };
        // SAFETY: as above.
        let (first, last) = (unsafe { sys::llama_memory_seq_pos_min(memory, id) }, unsafe {
            sys::llama_memory_seq_pos_max(memory, id)
        });
        // A sliding window keeps no more than its last tokens; after a cut it may lack some that the next token sees.
        let needed_from = match self.model.sliding_window() {
            0 => 0,
            window => (length - window).max(0),
        };
        removed && last == length - 1 && first <= needed_from
    }

    /// Forgets every sequence.
    pub(in crate::engine) fn clear(&mut self) {
        if let Some(memory) = self.memory() {
            // SAFETY: the context is live; `false` keeps the buffers as they are and only frees the cells.
            unsafe { sys::llama_memory_clear(memory, false) };
        }
    }

    /// `None` for encoders, which keep nothing between calls, and when nobody knows what is kept.
    pub(super) fn memory(&mut self) -> Option<sys::llama_memory_t> {
        let ptr = self.live()?;
        // SAFETY: the context is live.
        let memory = unsafe { sys::llama_get_memory(ptr) };
        (!memory.is_null()).then_some(memory)
    }
}
