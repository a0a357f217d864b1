//! Continuous batching of one worker: which slot gets which tokens in the next forward pass.
//!
//! Decisions only: no clock and no model. The caller plans, runs the plan, reports how long it
//! took, and hands in the sampled tokens. Two promises hold in every step: each generating slot
//! advances by its one token, and each prefilling slot advances by at least one token, so nobody
//! starves whoever else arrives. A generating slot may have drafts read with its token: guesses of the tokens that follow,
//! of which the caller keeps those that turn out right.

mod slot;

use std::time::Duration;

use self::slot::{Slot, State, position};
use super::prefix::{self, Candidate, common_prefix};
use super::speed::Speed;

/// Prefill tokens a step takes even if they do not fit the budget, as long as they fit [`LONG_STEP`]: below this the
/// fixed cost of a forward pass outweighs what is gained by making it shorter.
const MIN_PREFILL_TOKENS: usize = 16;

/// The longest step for which a prompt is given [`MIN_PREFILL_TOKENS`], in step budgets. Estimates are wrong by some
/// tens of percent, and no running answer is to wait for more than two budgets.
const LONG_STEP: f64 = 1.5;

/// One place in the batch; the sequence of the same number in the model's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotId(usize);

impl SlotId {
    /// The slot with this index, counted from 0.
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self(index)
    }

    /// The index, counted from 0.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// What bounds a step.
#[derive(Debug, Clone, Copy)]
pub struct SchedLimits {
    /// Requests served at once. At most `batch_tokens` are used, so that each can always advance.
    pub slots: usize,
    /// Tokens in one forward pass, at most.
    pub batch_tokens: usize,
    /// How long a step should take while some slot is generating.
    pub step_budget: Duration,
    /// Whether a sequence can begin as a copy of another; if not, no request waits for what another one reads.
    pub can_copy: bool,
}

/// The tokens of one forward pass. Pass the same value again to reuse its memory.
#[derive(Debug, Default)]
pub struct Plan {
    /// At most one entry per slot, by slot: llama.cpp computes neighbouring sequences together only in this order.
    pub entries: Vec<PlanEntry>,
}

/// The tokens of one slot in a forward pass; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanEntry {
    /// Whose tokens these are.
    pub slot: SlotId,
    /// Position of the first token in its sequence.
    pub first_pos: u32,
    /// Token ids at consecutive positions.
    pub tokens: Vec<u32>,
    /// After how many of the last tokens one is to be sampled: 0 within a prompt, else 1 and the number of drafts.
    pub outputs: usize,
}

impl PlanEntry {
    /// How many of the last tokens are drafts.
    #[must_use]
    pub fn drafts(&self) -> usize {
        self.outputs.saturating_sub(1)
    }
}

/// Where a request was put, and what it need not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// The slot of the request.
    pub slot: SlotId,
    /// The slot whose sequence begins as the prompt does; often `slot` itself.
    pub source: SlotId,
    /// How many tokens of `source` are kept, or copied if it is another slot. The rest of what `slot` holds goes.
    pub keep: usize,
}

/// Tokens of a prompt that are not read: the caller puts what they are to the model into its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first of them.
    pub at: usize,
    /// The one behind the last.
    pub to: usize,
    /// Whether reading them would give the same.
    pub exact: bool,
}

/// Decides the forward passes of one worker.
#[derive(Debug)]
pub struct Scheduler {
    slots: Vec<Slot>,
    batch_tokens: usize,
    step_budget: Duration,
    can_copy: bool,
    speed: Speed,
    planned_decode: usize,
    planned_drafts: usize,
    planned_prefill: usize,
    /// Counts what `Slot::used` is about.
    clock: u64,
    /// Memory of the entries of past plans.
    spare: Vec<Vec<u32>>,
    /// Prefilling slots as (tokens left, index); kept for its memory.
    waiting: Vec<(usize, usize)>,
}

impl Scheduler {
    /// A scheduler without requests. Limits of 0 are taken as 1.
    #[must_use]
    pub fn new(limits: SchedLimits) -> Self {
        let batch_tokens = limits.batch_tokens.max(1);
        let slots = limits.slots.clamp(1, batch_tokens);
        Self {
            slots: (0..slots).map(|_| Slot::default()).collect(),
            batch_tokens,
            step_budget: limits.step_budget,
            can_copy: limits.can_copy,
            speed: Speed::default(),
            planned_decode: 0,
            planned_drafts: 0,
            planned_prefill: 0,
            clock: 0,
            spare: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// How many more requests [`Self::admit`] takes now.
    #[must_use]
    pub fn free_slots(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_free()).count()
    }

    /// The tokens that a slot holds, as any other prompt with them would.
    #[must_use]
    pub fn held(&self, slot: SlotId) -> &[u32] {
        self.slots.get(slot.0).map_or(&[], |slot| &slot.held)
    }

    /// The prompt of an admitted request that has not begun, and how many of its tokens will not be read.
    #[must_use]
    pub fn following(&self, slot: SlotId) -> Option<(&[u32], usize)> {
        match &self.slots.get(slot.0)?.state {
            State::Following { prompt, keep, .. } => Some((prompt, *keep)),
            _ => None,
        }
    }

    /// The tokens that the slot of a request that was admitted and has not begun holds still, and how many of the first of them
    /// some slot here holds once it has begun.
    #[must_use]
    pub fn leaving(&self, slot: SlotId) -> Option<(&[u32], usize)> {
        let leaving = self.slots.get(slot.0)?;
        let State::Following { prompt, .. } = &leaving.state else { return None };
        // With gaps a prompt is something else to other prompts.
        let own = if leaving.gaps.is_empty() { prompt.as_slice() } else { &[] };
        let others = self
            .slots
            .iter()
            .enumerate()
            .filter(|&(index, other)| index != slot.0 && !matches!(other.state, State::Following { .. }));
        let stay = others.map(|(_, other)| other.held.as_slice()).chain([own]);
        Some((&leaving.held, stay.map(|tokens| common_prefix(tokens, &leaving.held)).max().unwrap_or(0)))
    }

    /// Has an admitted request that has not begun wait until the first `coming` tokens of its prompt have come from another
    /// worker: until [`Self::start`], or until this is set to 0.
    pub fn set_coming(&mut self, slot: SlotId, tokens: usize) {
        if let Some(Slot { state: State::Following { coming, .. }, .. }) = self.slots.get_mut(slot.0) {
            *coming = tokens;
        }
    }

    /// A slot that holds all of `tokens`, or else one that will have read them without help of another worker, and whether it
    /// holds them.
    #[must_use]
    pub fn holder(&self, tokens: &[u32]) -> Option<(SlotId, bool)> {
        let has = |slot: &Slot| common_prefix(&slot.held, tokens) == tokens.len();
        let reads = |slot: &Slot| match &slot.state {
            State::Following { prompt, source, coming: 0, .. } => {
                let source = self.slots.get(source.0);
                slot.gaps.is_empty()
                    && common_prefix(prompt, tokens) == tokens.len()
                    && !source.is_some_and(|source| matches!(source.state, State::Following { coming: 1.., .. }))
            }
            _ => slot.reads(tokens, tokens.len()),
        };
        let holder = self.slots.iter().position(has).map(|index| (SlotId(index), true));
        holder.or_else(|| self.slots.iter().position(reads).map(|index| (SlotId(index), false)))
    }

    /// Gives `prompt` a slot; none when all are taken, or for an empty prompt.
    ///
    /// The request begins when [`Self::next_start`] names it, at once or once another one has read what both share.
    pub fn admit(&mut self, prompt: Vec<u32>) -> Option<SlotId> {
        if u32::try_from(prompt.len()).is_err() {
            return None;
        }
        let choice = prefix::choose(self.slots.iter().map(Slot::as_candidate), &prompt, self.can_copy)?;
        let slot = self.slots.get_mut(choice.place)?;
        slot.state = State::Following { prompt, source: SlotId(choice.source), keep: choice.keep, coming: 0 };
        self.clock += 1;
        slot.used = self.clock;
        Some(SlotId(choice.place))
    }

    /// As [`Self::admit`], for a prompt with gaps, in the order of the prompt and not at its end.
    pub fn admit_with_gaps(&mut self, prompt: Vec<u32>, gaps: impl Iterator<Item = Gap>) -> Option<SlotId> {
        let slots = self.slots.iter().map(|slot| Candidate { tokens: &[], held: 0, ..slot.as_candidate() });
        let place = prefix::choose(slots, &prompt, self.can_copy)?.place;
        let slot = self.slots.get_mut(place)?;
        slot.gaps = gaps.collect();
        slot.state = State::Following { prompt, source: SlotId(place), keep: 0, coming: 0 };
        self.clock += 1;
        slot.used = self.clock;
        Some(SlotId(place))
    }

    /// A gap that a request has come to. The caller fills it and calls [`Self::fill`], or else [`Self::read_all`].
    #[must_use]
    pub fn next_gap(&self) -> Option<(SlotId, Gap)> {
        self.slots.iter().enumerate().find_map(|(index, slot)| match &slot.state {
            State::Prefilling { done, .. } => {
                slot.gaps.front().filter(|gap| gap.at == *done).map(|gap| (SlotId(index), *gap))
            }
            _ => None,
        })
    }

    /// Goes on behind the gap that `slot` has come to.
    pub fn fill(&mut self, slot: SlotId) {
        let Some(slot) = self.slots.get_mut(slot.0) else { return };
        if let State::Prefilling { prompt, done } = &mut slot.state
            && let Some(gap) = slot.gaps.front().copied().filter(|gap| gap.at == *done)
        {
            slot.gaps.pop_front();
            slot.is_approximate |= !gap.exact;
            if !slot.is_approximate {
                slot.held.extend_from_slice(prompt.get(gap.at..gap.to).unwrap_or_default());
            }
            *done = gap.to;
        }
    }

    /// Has `slot`, which holds nothing any more, read its whole prompt.
    pub fn read_all(&mut self, slot: SlotId) {
        let Some(slot) = self.slots.get_mut(slot.0) else { return };
        slot.gaps.clear();
        slot.held.clear();
        slot.is_approximate = false;
        if let State::Prefilling { done, .. } = &mut slot.state {
            *done = 0;
        }
    }

    /// The next admitted request that can begin. The caller makes its sequence hold the tokens to keep and nothing
    /// else, and calls [`Self::start`].
    #[must_use]
    pub fn next_start(&self) -> Option<Admission> {
        self.slots.iter().enumerate().find_map(|(index, slot)| {
            let State::Following { prompt, source, keep, coming: 0 } = &slot.state else {
                return None;
            };
            let from = self.slots.get(source.0)?;
            let here = common_prefix(&from.held, prompt).min(*keep);
            let is_coming = from.will_hold(prompt, *keep);
            (here == *keep || !is_coming).then_some(Admission { slot: SlotId(index), source: *source, keep: here })
        })
    }

    /// Begins the request in `slot`, whose sequence holds the first `kept` tokens of its prompt now.
    pub fn start(&mut self, slot: SlotId, kept: usize) {
        let Some(slot) = self.slots.get_mut(slot.0) else {
            return;
        };
        if let State::Following { prompt, .. } = &mut slot.state {
            let prompt = std::mem::take(prompt);
            // The logits after the last token are wanted, so it is never kept.
            let done = kept.min(prompt.len().saturating_sub(1));
            slot.held.clear();
            slot.held.extend_from_slice(prompt.get(..done).unwrap_or_default());
            slot.is_approximate = false;
            slot.state = State::Prefilling { prompt, done };
        }
    }

    /// Writes the next forward pass into `plan`. It stays empty when no slot has work.
    ///
    /// A plan that is never completed (a failed batch) is planned again next time unless its slots
    /// are released.
    pub fn plan_into(&mut self, plan: &mut Plan) {
        for entry in plan.entries.drain(..) {
            let mut tokens = entry.tokens;
            tokens.clear();
            self.spare.push(tokens);
        }
        self.spare.truncate(self.slots.len());
        self.plan_decode(plan);
        self.planned_prefill = self.plan_prefill(plan);
        plan.entries.sort_unstable_by_key(|entry| entry.slot.index());
    }

    /// The only request that has a slot, when it generates: its drafts hold up nobody.
    #[must_use]
    pub fn lone_generating(&self) -> Option<SlotId> {
        let mut busy = self.slots.iter().enumerate().filter(|(_, slot)| !slot.is_free());
        match (busy.next(), busy.next()) {
            (Some((index, slot)), None) => matches!(slot.state, State::Generating { .. }).then_some(SlotId(index)),
            _ => None,
        }
    }

    /// Has `drafts` read behind the token of `slot` in the next plan, as many as fit beside one token of each slot.
    /// Ignored when the slot is not generating.
    pub fn set_drafts(&mut self, slot: SlotId, drafts: &[u32]) {
        if let Some(slot) = self.slots.get_mut(slot.index())
            && let State::Generating { .. } = slot.state
        {
            slot.drafts.clear();
            slot.drafts.extend_from_slice(drafts);
        }
    }

    /// One token for every generating slot, and its drafts.
    fn plan_decode(&mut self, plan: &mut Plan) {
        let mut room = self.batch_tokens - self.slots.len();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.planned = 0;
            if let State::Generating { position, token } = slot.state {
                slot.drafts.truncate(room);
                room -= slot.drafts.len();
                slot.planned = 1 + slot.drafts.len();
                let mut tokens = self.spare.pop().unwrap_or_default();
                tokens.push(token);
                tokens.extend_from_slice(&slot.drafts);
                plan.entries.push(PlanEntry {
                    slot: SlotId(index),
                    first_pos: position,
                    tokens,
                    outputs: slot.planned,
                });
            }
        }
        self.planned_decode = plan.entries.len();
        self.planned_drafts = self.batch_tokens - self.slots.len() - room;
    }

    /// Equal shares of the prefill budget for all prompts; how many tokens that are. What a short
    /// prompt leaves of its share goes to the longer ones.
    fn plan_prefill(&mut self, plan: &mut Plan) -> usize {
        self.waiting.clear();
        for (index, slot) in self.slots.iter().enumerate() {
            if let State::Prefilling { prompt, done } = &slot.state {
                let end = slot.gaps.front().map_or(prompt.len(), |gap| gap.at);
                if end > *done {
                    self.waiting.push((end - done, index));
                }
            }
        }
        self.waiting.sort_unstable();
        let budget = self.prefill_budget(self.waiting.len());
        let mut left = budget;
        for (nth, &(remaining, index)) in self.waiting.iter().enumerate() {
            let share = left / (self.waiting.len() - nth);
            let take = remaining.min(share);
            let Some(slot) = self.slots.get_mut(index) else {
                continue;
            };
            let State::Prefilling { prompt, done } = &slot.state else {
                continue;
            };
            let mut tokens = self.spare.pop().unwrap_or_default();
            tokens.extend(prompt.iter().skip(*done).take(take));
            plan.entries.push(PlanEntry {
                slot: SlotId(index),
                first_pos: position(*done),
                tokens,
                outputs: usize::from(take == remaining && slot.gaps.is_empty()),
            });
            slot.planned = take;
            left -= take;
        }
        budget - left
    }

    /// Prefill tokens of a step: at least one for each of the `prefilling` slots. The batch has room for these, as there
    /// are no more slots than tokens and drafts take only what is left.
    fn prefill_budget(&self, prefilling: usize) -> usize {
        let room = self.batch_tokens.saturating_sub(self.planned_decode + self.planned_drafts);
        if self.planned_decode == 0 {
            return room;
        }
        let budget = self.step_budget.as_secs_f64();
        let decode = self.speed.decode_seconds;
        let affordable = self.speed.prefill_tokens(budget - decode);
        // Where decoding alone takes about a budget or longer, reading may take half as long as decoding.
        let least = self.speed.prefill_tokens((budget * LONG_STEP - decode).max(decode / 2.0));
        affordable.max(least.min(MIN_PREFILL_TOKENS)).max(prefilling).min(room)
    }

    /// Takes note that `plan`, the last one planned, was run in `elapsed`.
    ///
    /// Entries whose slot was released since count for the speed only.
    pub fn complete(&mut self, plan: &Plan, elapsed: Duration) {
        for entry in &plan.entries {
            if let Some(slot) = self.slots.get_mut(entry.slot.index()) {
                slot.advance();
            }
        }
        let decode = std::mem::take(&mut self.planned_decode);
        let prefill = std::mem::take(&mut self.planned_prefill);
        // With drafts a pass is no measure of one without.
        if std::mem::take(&mut self.planned_drafts) == 0 {
            self.speed.learn(decode, prefill, elapsed);
        }
    }

    /// Sets the token that `slot` decodes next, sampled from the logits of the completed plan behind the first `accepted`
    /// drafts. The caller has taken the other drafts out of the sequence.
    /// Ignored when no logits were asked for, as after a release.
    pub fn sampled(&mut self, slot: SlotId, accepted: usize, token: u32) {
        if let Some(slot) = self.slots.get_mut(slot.index())
            && let State::Sampling { position: first, drafts } = slot.state
        {
            let accepted = accepted.min(drafts);
            if !slot.is_approximate {
                slot.held.truncate(slot.held.len() - (drafts - accepted));
            }
            slot.state = State::Generating { position: first.saturating_add(position(accepted)), token };
        }
    }

    /// Frees `slot`, whose sequence stays as it is, with all drafts. Does nothing when it is free already.
    pub fn release(&mut self, slot: SlotId) {
        if let Some(slot) = self.slots.get_mut(slot.index())
            && !slot.is_free()
        {
            slot.state = State::Free;
            slot.gaps.clear();
            slot.planned = 0;
            slot.drafts.clear();
            self.clock += 1;
            slot.used = self.clock;
        }
    }

    /// Frees `slot` and takes its sequence for empty, after a failure that leaves it unknown.
    pub fn forget(&mut self, slot: SlotId) {
        self.release(slot);
        if let Some(slot) = self.slots.get_mut(slot.index()) {
            slot.held.clear();
            slot.used = 0;
        }
    }
}

#[cfg(test)]
mod tests;
