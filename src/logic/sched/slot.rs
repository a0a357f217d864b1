//! A slot of the scheduler: the request in it and the tokens that its sequence holds.

use std::collections::VecDeque;

use super::{Gap, SlotId};
use crate::logic::prefix::{Candidate, common_prefix};

#[derive(Debug)]
pub(super) enum State {
    Free,
    /// Waits until `source` has read the first `keep` tokens of `prompt`, which it shares, and until the first `coming`
    /// tokens have come from another worker, if there are any.
    Following {
        prompt: Vec<u32>,
        source: SlotId,
        keep: usize,
        coming: usize,
    },
    /// The first `done` tokens of `prompt` are in the model.
    Prefilling {
        prompt: Vec<u32>,
        done: usize,
    },
    /// Logits are there; the caller owes the token for `position`, or a later one if some of the `drafts` that were read
    /// from `position` on are right.
    Sampling {
        position: u32,
        drafts: usize,
    },
    Generating {
        position: u32,
        token: u32,
    },
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: State,
    /// Tokens in the plan that is under way; 0 after a release, so that a late completion of the
    /// plan does not touch the next request in the slot.
    pub(super) planned: usize,
    /// Guesses to be read behind the token of a generating slot.
    pub(super) drafts: Vec<u32>,
    /// The tokens that the sequence of the slot holds, also when the slot is free; of those behind a gap that is not exact
    /// none, because to other prompts they are something else.
    pub(super) held: Vec<u32>,
    /// Gaps of the prompt that are not filled yet.
    pub(super) gaps: VecDeque<Gap>,
    /// A gap was filled that is not exact.
    pub(super) is_approximate: bool,
    /// When it was last given away or released.
    pub(super) used: u64,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            state: State::Free,
            planned: 0,
            drafts: Vec::new(),
            held: Vec::new(),
            gaps: VecDeque::new(),
            is_approximate: false,
            used: 0,
        }
    }
}

impl Slot {
    pub(super) fn as_candidate(&self) -> Candidate<'_> {
        let tokens = match &self.state {
            State::Prefilling { prompt, .. } if self.reads_all() => prompt,
            // What it holds is about to go.
            State::Following { prompt, coming, .. } => prompt.get(..*coming).unwrap_or_default(),
            _ => self.held.as_slice(),
        };
        let held = if let State::Following { .. } = self.state { 0 } else { self.held.len().min(tokens.len()) };
        Candidate { is_free: self.is_free(), tokens, held, used: self.used }
    }

    /// Whether the slot is on the way to hold the first `keep` tokens of `prompt`.
    pub(super) fn will_hold(&self, prompt: &[u32], keep: usize) -> bool {
        let comes = |own: &[u32], coming: usize| common_prefix(own, prompt).min(coming) >= keep;
        self.reads(prompt, keep)
            || matches!(&self.state, State::Following { prompt: own, coming, .. } if *coming > 0 && comes(own, *coming))
    }

    /// Whether the slot is reading the first `keep` tokens of `prompt`.
    pub(super) fn reads(&self, prompt: &[u32], keep: usize) -> bool {
        matches!(&self.state, State::Prefilling { prompt: own, .. } if self.reads_all() && common_prefix(own, prompt) >= keep)
    }

    /// Whether it will hold its prompt as any other request with it would.
    pub(super) fn reads_all(&self) -> bool {
        self.gaps.is_empty() && !self.is_approximate
    }

    pub(super) fn is_free(&self) -> bool {
        matches!(self.state, State::Free)
    }

    /// Moves past the planned tokens.
    pub(super) fn advance(&mut self) {
        let planned = std::mem::take(&mut self.planned);
        if planned == 0 {
            return;
        }
        match &mut self.state {
            State::Prefilling { prompt, done } => {
                if !self.is_approximate {
                    self.held.extend(prompt.iter().skip(*done).take(planned));
                }
                *done += planned;
                if *done >= prompt.len() {
                    self.state = State::Sampling { position: position(prompt.len()), drafts: 0 };
                }
            }
            State::Generating { position, token } => {
                if !self.is_approximate {
                    self.held.push(*token);
                    self.held.extend_from_slice(&self.drafts);
                }
                self.state = State::Sampling { position: position.saturating_add(1), drafts: self.drafts.len() };
                self.drafts.clear();
            }
            State::Free | State::Following { .. } | State::Sampling { .. } => {}
        }
    }
}

/// A length as a position; `admit` refuses prompts for which this would not be exact.
pub(super) fn position(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
