//! Which of the idle workers gets which request, and which worker lends what it has read.
//!
//! A prompt that begins like an earlier one, such as the next turn of a conversation, goes to the worker that has read that
//! one, if it is idle; all others go to the worker that has been idle for longest, where what is given away will be missed
//! least. A worker that has read less of its prompt than another one borrows from that.

use std::cmp::Reverse;

use super::prefix::{MIN_COPY, common_prefix};

/// A worker that waits for a request.
#[derive(Debug, Clone, Copy)]
pub struct Idle<'a> {
    /// Which one it is.
    pub worker: usize,
    /// Since when; a larger number is later.
    pub since: u64,
    /// What each of its slots holds.
    pub held: &'a [Vec<u32>],
}

impl Idle<'_> {
    fn saves(&self, prompt: &[u32]) -> usize {
        saves(self.held, prompt)
    }
}

/// Tokens of `prompt` that a worker whose slots hold `held` need not read; 0 for few, which are not worth a choice.
fn saves(held: &[Vec<u32>], prompt: &[u32]) -> usize {
    let most = held.iter().map(|held| common_prefix(held, prompt)).max();
    most.filter(|&tokens| tokens >= MIN_COPY).unwrap_or(0)
}

/// Which of `prompts` a worker whose slots hold `held` has read most of; the first of equal ones, 0 where there is none.
#[must_use]
pub fn most_saving<'a>(prompts: impl Iterator<Item = &'a [u32]>, held: &[Vec<u32>]) -> usize {
    let saved = prompts.map(|prompt| saves(held, prompt)).enumerate();
    saved.max_by_key(|&(place, saved)| (saved, Reverse(place))).map_or(0, |(place, _)| place)
}

/// A worker for each of `prompts`, in their order; those beyond the number of workers get none.
#[must_use]
pub fn assign<'a>(prompts: impl Iterator<Item = &'a [u32]>, mut idle: Vec<Idle<'_>>) -> Vec<usize> {
    let choose = |prompt: &[u32]| {
        let best = (0..idle.len()).max_by_key(|&place| (idle[place].saves(prompt), Reverse(idle[place].since)))?;
        Some(idle.swap_remove(best).worker)
    };
    prompts.map_while(choose).collect()
}

/// Tokens that a copy from one worker to another must save: it is made in between the steps of both.
pub const MIN_LOAN: usize = 64;

/// Which of the other workers, given by what their slots hold and whether they are idle, lends the beginning of `prompt` to
/// one that has `have` tokens of it, and how many tokens; none when that would save little.
///
/// The last token of a prompt is always read anew: the first word of the answer comes from it.
#[must_use]
pub fn lender<'a>(
    prompt: &[u32],
    have: usize,
    others: impl Iterator<Item = (usize, &'a [Vec<u32>], bool)>,
) -> Option<(usize, usize)> {
    let reusable = prompt.len().checked_sub(1)?;
    let most = |held: &[Vec<u32>]| held.iter().map(|held| common_prefix(held, prompt)).max().unwrap_or(0).min(reusable);
    let (worker, tokens, _) = others
        .map(|(worker, held, is_idle)| (worker, most(held), is_idle))
        .max_by_key(|&(worker, tokens, is_idle)| (tokens, is_idle, Reverse(worker)))?;
    (tokens >= have + MIN_LOAN).then_some((worker, tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(from: u32, to: u32) -> Vec<u32> {
        (from..to).collect()
    }

    #[test]
    fn a_prompt_goes_to_the_worker_that_has_read_most_of_it() {
        let held = [vec![numbers(7, 90)], vec![numbers(0, 40), numbers(0, 60)], vec![numbers(0, 50)]];
        let idle = |order: [usize; 3]| -> Vec<Idle<'_>> {
            order.iter().zip(1..).map(|(&worker, since)| Idle { worker, since, held: &held[worker] }).collect()
        };
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            assert_eq!(assign([numbers(0, 100).as_slice()].into_iter(), idle(order)), [1]);
        }
        let prompts = [numbers(0, 100), numbers(0, 100), numbers(0, 100), numbers(0, 100)];
        assert_eq!(assign(prompts.iter().map(Vec::as_slice), idle([0, 1, 2])), [1, 2, 0]);
    }

    #[test]
    fn a_worker_knows_the_prompt_that_it_has_read_most_of() {
        let prompts = [numbers(9, 99), numbers(0, 60), numbers(0, 80), numbers(0, 80)];
        let prompts = || prompts.iter().map(Vec::as_slice);
        assert_eq!(most_saving(prompts(), &[numbers(0, 70), numbers(0, 90)]), 2);
        assert_eq!(most_saving(prompts(), &[]), 0);
        assert_eq!(most_saving([].into_iter(), &[]), 0);
    }

    #[test]
    fn a_prompt_that_nobody_has_read_goes_to_the_worker_that_is_idle_for_longest() {
        let held = vec![numbers(0, 100)];
        let idle = |worker, since| Idle { worker, since, held: &held };
        let few_shared = numbers(0, 20);
        for prompt in [&[][..], &[5, 6], &few_shared] {
            assert_eq!(assign([prompt].into_iter(), vec![idle(0, 9), idle(1, 3), idle(2, 5)]), [1]);
        }
        assert!(assign([&[1][..]].into_iter(), Vec::new()).is_empty());
    }

    #[test]
    fn the_worker_that_has_read_most_lends_if_that_saves_much() {
        let held = [vec![numbers(7, 90)], vec![numbers(0, 100), numbers(0, 120)], vec![numbers(0, 110)]];
        let others =
            |idle: usize| held.iter().enumerate().map(move |(worker, held)| (worker, &held[..], worker == idle));
        assert_eq!(lender(&numbers(0, 200), 56, others(0)), Some((1, 120)));
        assert_eq!(lender(&numbers(0, 200), 57, others(0)), None);
        assert_eq!(lender(&numbers(0, 105), 0, others(1)), Some((1, 104)));
        // Both have all of it: the idle one need not end a step first.
        assert_eq!(lender(&numbers(0, 105), 0, others(2)), Some((2, 104)));
        assert_eq!(lender(&[], 0, others(0)), None);
        assert_eq!(lender(&numbers(0, 200), 0, [].into_iter()), None);
    }
}
