//! What a request need not read: tokens that another slot has read, or another worker, and rows that are put into gaps.
//!
//! Between slots llama.cpp copies. Between workers a whole sequence is saved by the one and restored by the other, each
//! between two of its own steps; what is too much of it is cut off. A request that waits for another worker is no work: its
//! worker goes on with others, or gives its CPUs to the one that reads. What cannot be had is read.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;

use super::{Decoder, Worker};
use crate::engine::job::Splice;
use crate::engine::pool::Loan;
use crate::logic::kv_rows::Piece;
use crate::logic::sched::{Admission, SlotId};

/// How long a worker whose requests all wait for other workers sleeps before it looks whether one was cancelled.
const LOAN_PATIENCE: Duration = Duration::from_millis(5);

impl<D: Decoder> Worker<D> {
    /// Has a request that was just admitted wait for another worker that has read more of its prompt, or is reading it, or
    /// else for what was `kept` of it. One that is not `exact` neither borrows nor lends.
    pub(super) fn borrow(&mut self, slot: SlotId, exact: bool, kept: Option<Loan>) -> Option<Loan> {
        let Some((prompt, keep)) = self.scheduler.following(slot).filter(|_| exact && self.decoder.can_copy()) else {
            self.inbox.show(slot.index(), &[]);
            return None;
        };
        let have = kept.as_ref().map_or(keep, |kept| kept.tokens);
        let lent = self.inbox.borrow(slot.index(), prompt, have);
        let loan = lent.or(kept)?;
        self.scheduler.set_coming(slot, loan.tokens);
        Some(loan)
    }

    /// Gives other workers what they have asked for, as far as it is there; what is being read they get later.
    pub(super) fn lend(&mut self) {
        self.asked.extend(self.inbox.asked());
        for ask in std::mem::take(&mut self.asked) {
            match self.scheduler.holder(&ask.tokens) {
                Some((slot, true)) if self.decoder.is_settled() => match self.decoder.save(slot) {
                    // Nobody waits any more if the request was cancelled.
                    Ok(state) => drop(ask.lend.send(Arc::new(state))),
                    Err(error) => log::debug!("another worker reads a prompt that this one has read: {error}"),
                },
                Some(_) if !self.is_idle() => self.asked.push(ask),
                _ => {}
            }
        }
    }

    /// Begins requests with what has come from other workers, for each of which this waits as long as `patience`.
    pub(super) fn receive(&mut self, patience: Duration) {
        for slot in (0..self.running.len()).map(SlotId::new) {
            let loan = self.running.get(slot.index()).and_then(|running| running.as_ref()?.loan.as_ref());
            let Some(loan) = loan.filter(|_| self.decoder.is_settled()) else { continue };
            match loan.lent.recv_timeout(patience) {
                Ok(state) => self.begin_with(slot, loan.tokens, &state, loan.is_kept),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.do_without(slot),
            }
        }
    }

    fn begin_with(&mut self, slot: SlotId, tokens: usize, state: &[u8], is_kept: bool) {
        let restored = self.decoder.restore(slot, state);
        if let Err(error) = &restored {
            log::warn!("what was read before could not be used, so a prompt is read as a whole: {error}");
        }
        let kept = restored.map_or(0, |()| self.decoder.reuse(slot, slot, tokens));
        if is_kept && kept > 0 {
            self.kept.count_restored();
        }
        self.show_prompt(slot);
        self.begin(slot, kept);
    }

    /// Begins a request whose slot holds the first `kept` tokens of its prompt now, and nothing else.
    fn begin(&mut self, slot: SlotId, kept: usize) {
        self.scheduler.start(slot, kept);
        let running = self.running.get_mut(slot.index()).and_then(Option::as_mut);
        if let (Some(running), Some(exact)) = (running, self.exact.get_mut(slot.index())) {
            running.loan = None;
            running.cached_tokens = kept;
            *exact = running.job.is_exact();
        }
    }

    /// Has a request begin with what there is here.
    fn do_without(&mut self, slot: SlotId) {
        self.show_prompt(slot);
        self.scheduler.set_coming(slot, 0);
        if let Some(running) = self.running.get_mut(slot.index()).and_then(Option::as_mut) {
            running.loan = None;
        }
    }

    fn show_prompt(&self, slot: SlotId) {
        if let Some((prompt, _)) = self.scheduler.following(slot) {
            self.inbox.show(slot.index(), prompt);
        }
    }

    /// Called when there is nothing to decode. What waits to be settled would wait for ever; it is read.
    pub(super) fn wait_without_work(&mut self) {
        self.read_gaps();
        if self.decoder.is_settled() {
            self.decoder.rest();
            self.receive(LOAN_PATIENCE);
        } else {
            (0..self.running.len()).map(SlotId::new).for_each(|slot| self.do_without(slot));
        }
    }

    /// Lets requests begin whose shared tokens are there.
    pub(super) fn begin_admitted(&mut self) {
        while let Some(Admission { slot, source, keep }) = self.scheduler.next_start() {
            let kept = self.decoder.reuse(slot, source, keep);
            self.begin(slot, kept);
        }
    }

    /// Puts rows into the places of tokens that need not be read.
    pub(super) fn fill_gaps(&mut self) {
        while self.decoder.is_settled()
            && let Some((slot, gap)) = self.scheduler.next_gap()
        {
            let Some(running) = self.running.get_mut(slot.index()).and_then(Option::as_mut) else { return };
            let splices = running.job.splices.iter().skip_while(|splice| splice.at < gap.at);
            let mut end = gap.at;
            let splices: Vec<&Splice> =
                splices.take_while(|splice| splice.at == std::mem::replace(&mut end, splice.gap().to)).collect();
            let pieces: Vec<Piece<'_>> = splices.iter().map(|splice| splice.piece()).collect();
            match self.decoder.splice(slot, gap.at, &pieces) {
                Ok(()) => {
                    pieces.iter().for_each(|piece| {
                        self.scheduler.fill(slot);
                        running.spliced_tokens += piece.tokens();
                    });
                }
                Err(error) => {
                    log::warn!("kept keys and values could not be used, so a prompt is read as a whole: {error}");
                    running.spliced_tokens = 0;
                    self.decoder.clear(slot);
                    self.scheduler.read_all(slot);
                }
            }
        }
    }

    /// Has the requests that wait at a gap read their whole prompts.
    fn read_gaps(&mut self) {
        while let Some((slot, _)) = self.scheduler.next_gap() {
            self.decoder.clear(slot);
            self.scheduler.read_all(slot);
            if let Some(running) = self.running.get_mut(slot.index()).and_then(Option::as_mut) {
                running.spliced_tokens = 0;
            }
        }
    }
}
