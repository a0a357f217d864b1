//! What a slot holds is kept when another prompt takes the slot, and comes back for a prompt that begins with it.
//!
//! Saving copies all keys and values of the sequence between two steps. It is done only where much would be lost, and only
//! of what was read: neither of a sequence that was put together (`KV CHUNK`) nor of a block that is kept as rows. It comes back as
//! what another worker lends does (`sharing`).

use std::sync::Arc;

use super::{Decoder, Worker};
use crate::engine::pool::Loan;
use crate::logic::sched::SlotId;

impl<D: Decoder> Worker<D> {
    /// What was kept of the prompt of a request that was just admitted, where that is more than the slots here have. To be called
    /// before something else is kept, which might take its place.
    pub(super) fn find_kept(&self, slot: SlotId, exact: bool) -> Option<Loan> {
        let (prompt, have) = self.scheduler.following(slot).filter(|_| exact && self.decoder.can_copy())?;
        self.kept.sequence(prompt, have).map(|(tokens, state)| Loan::at_hand(tokens, state))
    }

    /// Keeps what `slot` holds before the request that was just admitted takes its place. What waits to be settled is not kept.
    pub(super) fn keep_leaving(&mut self, slot: SlotId) {
        let is_exact = self.exact.get(slot.index()).is_some_and(|exact| *exact);
        if !is_exact || !self.decoder.can_copy() || !self.decoder.is_settled() {
            return;
        }
        let leaving = self.scheduler.leaving(slot);
        let Some((tokens, _)) = leaving.filter(|&(tokens, elsewhere)| self.kept.wants(tokens, elsewhere)) else {
            return;
        };
        let saved = self.decoder.saved_bytes(slot).and_then(|bytes| {
            let has_room = self.kept.make_room(tokens, bytes);
            has_room.then(|| self.decoder.save(slot)).transpose()
        });
        match saved {
            Ok(Some(state)) => self.kept.keep_sequence(tokens, Arc::new(state)),
            Ok(None) => log::debug!("a sequence of {} tokens is more than infer.kv-budget has room for", tokens.len()),
            Err(error) => log::debug!("a sequence of {} tokens is not kept: {error}", tokens.len()),
        }
    }
}
