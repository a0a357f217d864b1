//! Which slot a new prompt gets, and whose tokens it begins with.
//!
//! A slot keeps what it has read when its request ends, so that a prompt which begins like an earlier one, or like one
//! that runs now, is read only from where they part. Else a slot of the least recently used half is given away, the one
//! nearest to a busy slot: llama.cpp computes the sequences of neighbouring slots together, others one after another.

use std::cmp::Reverse;

/// Tokens that a copy from one slot to another must save: less is read faster than copied.
pub const MIN_COPY: usize = 32;

/// What is known of a slot.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Whether a new request can have it.
    pub is_free: bool,
    /// The tokens it has read, and those of its prompt that it is still going to read.
    pub tokens: &'a [u32],
    /// How many of them it has read.
    pub held: usize,
    /// When it was last used; a larger number is later.
    pub used: u64,
}

/// Where a prompt goes. Slots are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The slot that the request gets.
    pub place: usize,
    /// The slot whose tokens it begins with; often `place` itself.
    pub source: usize,
    /// How many tokens those are.
    pub keep: usize,
    /// `source` has not read them all yet.
    pub wait: bool,
}

/// A slot and what it shares with the prompt.
#[derive(Clone, Copy)]
struct Match {
    index: usize,
    /// Tokens shared, read or not.
    common: usize,
    held: usize,
    used: u64,
}

impl Match {
    fn common_now(self) -> usize {
        self.common.min(self.held)
    }

    /// More would be thrown away than kept.
    fn drops_much(self) -> bool {
        self.held > 2 * self.common_now()
    }
}

/// Chooses for `prompt`; none when no slot is free or the prompt is empty. Without `can_copy` the source is the place.
///
/// The last token of a prompt is always read anew: the first word of the answer comes from it.
#[must_use]
pub fn choose<'a>(slots: impl Iterator<Item = Candidate<'a>>, prompt: &[u32], can_copy: bool) -> Option<Choice> {
    let reusable = prompt.len().checked_sub(1)?;
    let (mut free, mut busy, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for (index, slot) in slots.enumerate() {
        let common = common_prefix(slot.tokens, prompt).min(reusable);
        let found = Match { index, common, held: slot.held, used: slot.used };
        all.push(found);
        if slot.is_free {
            free.push(found);
        } else {
            busy.push(index);
        }
    }
    let place = place(&free, &busy)?;
    let here = place.common_now();
    let choice = match all.into_iter().rev().max_by_key(|found| (found.common, found.common_now())) {
        Some(source) if can_copy && source.index != place.index && source.common >= here + MIN_COPY => {
            Choice { place: place.index, source: source.index, keep: source.common, wait: source.common > source.held }
        }
        _ => Choice { place: place.index, source: place.index, keep: here, wait: false },
    };
    Some(choice)
}

/// The free slot that shares most, unless that would drop much of what it holds and another one is free.
fn place(free: &[Match], busy: &[usize]) -> Option<Match> {
    let oldest = |found: &Match| (found.used, found.index);
    let best = *free.iter().max_by_key(|found| (found.common_now(), Reverse(oldest(found))))?;
    if best.common_now() > 0 && !best.drops_much() {
        return Some(best);
    }
    let keeps_best = |found: &&Match| found.index != best.index || best.common_now() == 0;
    let mut others: Vec<Match> = free.iter().filter(keeps_best).copied().collect();
    others.sort_unstable_by_key(oldest);
    others.truncate(others.len().div_ceil(2));
    let distance = |found: &Match| busy.iter().map(|other| other.abs_diff(found.index)).min();
    Some(others.into_iter().min_by_key(|found| (distance(found), oldest(found))).unwrap_or(best))
}

/// How many tokens two sequences have in common at their beginning.
#[must_use]
pub fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(tokens: &[u32], used: u64) -> Candidate<'_> {
        Candidate { is_free: true, tokens, held: tokens.len(), used }
    }

    fn busy(tokens: &[u32], held: usize) -> Candidate<'_> {
        Candidate { is_free: false, tokens, held, used: 9 }
    }

    fn numbers(from: u32, to: u32) -> Vec<u32> {
        (from..to).collect()
    }

    fn own(place: usize, keep: usize) -> Option<Choice> {
        Some(Choice { place, source: place, keep, wait: false })
    }

    #[test]
    fn without_a_match_the_slot_not_used_for_longest_is_taken() {
        let slots = [free(&[7, 8], 5), free(&[9], 3), free(&[6], 4)];
        assert_eq!(choose(slots.into_iter(), &[1, 2], true), own(1, 0));
    }

    #[test]
    fn a_prompt_goes_where_its_beginning_was_read() {
        let slots = [free(&[], 0), free(&[1, 2, 3], 5)];
        assert_eq!(choose(slots.into_iter(), &[1, 2, 3, 4], true), own(1, 3));
    }

    #[test]
    fn the_last_token_is_read_anew() {
        assert_eq!(choose([free(&[1, 2, 3], 1)].into_iter(), &[1, 2, 3], true), own(0, 2));
        assert_eq!(choose([free(&[1], 1)].into_iter(), &[1], true), own(0, 0));
    }

    #[test]
    fn a_slot_that_would_lose_most_of_what_it_holds_is_copied_instead() {
        let long = numbers(0, 200);
        let mut prompt = numbers(0, 50);
        prompt.push(999);
        let slots = [free(&long, 5), free(&[7], 6)];
        let copied = Some(Choice { place: 1, source: 0, keep: 50, wait: false });
        assert_eq!(choose(slots.into_iter(), &prompt, true), copied);
        assert_eq!(choose([free(&long, 5)].into_iter(), &prompt, true), own(0, 50));
    }

    #[test]
    fn a_short_common_beginning_is_not_worth_a_copy_nor_a_long_conversation() {
        let long = numbers(0, 200);
        let slots = [free(&long, 5), free(&[7], 6)];
        assert_eq!(choose(slots.into_iter(), &[0, 1, 2, 999], true), own(1, 0));
    }

    #[test]
    fn what_a_running_request_has_read_is_copied() {
        let long = numbers(0, 100);
        let slots = [busy(&long, 100), free(&[], 0)];
        let copied = Some(Choice { place: 1, source: 0, keep: 99, wait: false });
        assert_eq!(choose(slots.into_iter(), &long, true), copied);
    }

    #[test]
    fn what_a_running_request_is_about_to_read_is_waited_for() {
        let long = numbers(0, 100);
        let slots = [busy(&long, 10), free(&[], 0)];
        let waits = Some(Choice { place: 1, source: 0, keep: 99, wait: true });
        assert_eq!(choose(slots.into_iter(), &long, true), waits);
    }

    #[test]
    fn a_memory_that_cannot_copy_is_not_waited_for_nor_copied() {
        let long = numbers(0, 100);
        for held in [10, 100] {
            let slots = [busy(&long, held), free(&[], 0)];
            assert_eq!(choose(slots.into_iter(), &long, false), own(1, 0));
        }
    }

    #[test]
    fn of_the_half_not_used_for_longest_the_one_beside_a_busy_slot_is_taken() {
        let slots = [free(&[1], 1), free(&[2], 2), free(&[3], 4), busy(&[7], 1), free(&[4], 3), free(&[5], 5)];
        assert_eq!(choose(slots.into_iter(), &[9, 9], true), own(4, 0));
        let slots = [free(&[1], 1), free(&[2], 4), free(&[3], 2), busy(&[7], 1), free(&[4], 3), free(&[5], 5)];
        assert_eq!(choose(slots.into_iter(), &[9, 9], true), own(2, 0));
        let fresh = [free(&[], 0), free(&[], 0), busy(&[7], 1), free(&[], 0)];
        assert_eq!(choose(fresh.into_iter(), &[9, 9], true), own(1, 0));
    }

    #[test]
    fn without_a_free_slot_or_a_prompt_there_is_no_choice() {
        assert_eq!(choose([busy(&[1], 1)].into_iter(), &[1], true), None);
        assert_eq!(choose([free(&[1], 1)].into_iter(), &[], true), None);
    }

    #[test]
    fn common_prefixes_end_at_the_first_difference_or_at_an_end() {
        assert_eq!(common_prefix(&[1, 2, 3], &[1, 2, 4]), 2);
        assert_eq!(common_prefix(&[1, 2], &[1, 2, 3]), 2);
        assert_eq!(common_prefix(&[], &[1]), 0);
    }
}
