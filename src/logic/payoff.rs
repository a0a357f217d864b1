//! When drafts pay: how many guesses of `draft` a forward pass should check.
//!
//! A pass over one token and its drafts gives one token and as many more as drafts are right, and takes longer than a
//! pass over the token alone: nearly twice for two tokens on one machine with one kind of weights, hardly longer for
//! eight on another. Both sides are learned while answers are generated. How often guesses are right costs nothing to
//! learn, because they are compared with every token that comes, drafted or not. What a pass costs is known only
//! afterwards, so there is an account of what drafts may lose: it begins with a few passes, gets what drafts win and a
//! small share of all work, and no draft risks more than is left. That bounds the loss whatever text and machine do.
//!
//! How long a pass takes also changes with the threads it gets and with what else runs on the machine. So a pass with
//! drafts that took much longer or shorter than expected is followed by one without, which tells what has changed.

use std::time::Duration;

use super::draft::Guess;

/// Numbers of drafts in a pass. With the token before them these are multiples of 4, which the matrix kernels of
/// llama.cpp take at once.
const SIZES: [usize; 3] = [3, 7, 15];

/// The most drafts in a pass.
pub const DRAFTS_MAX: usize = 15;

/// Matches of a length are alike: 3, 4 to 5, 6 to 9, 10 to 17, 18 and more tokens.
const LENGTHS: usize = 5;

/// How often the token after a match of each length is right, before anything is known.
const RIGHT_AT_FIRST: [f64; LENGTHS] = [0.3, 0.5, 0.7, 0.85, 0.9];

/// Weight of one more guess in that share: about the last 10 count.
const GUESS_WEIGHT: f64 = 0.1;

/// Weight of one more pass in the average of passes without drafts.
const PASS_WEIGHT: f64 = 0.2;

/// Weight of one more pass in what drafts cost. One that was disturbed is not to decide.
const COST_WEIGHT: f64 = 0.3;

/// How fast a bad experience with a number of drafts fades with each pass without any: the machine may have been busy.
const FORGIVENESS: f64 = 0.002;

/// What a pass with drafts must promise to be better than one without.
const MARGIN: f64 = 1.05;

/// Passes that drafts may lose when an answer begins.
const LENT_AT_FIRST: f64 = 3.0;
/// Passes that they may lose after they have won many in the same answer.
const LENT_MAX: f64 = 8.0;
/// What each pass without drafts lends: over long answers drafts do not lose more.
const LENT_PER_PASS: f64 = 0.015;

/// A pass that takes so many times what was expected is a surprise, also the other way round.
const SURPRISE: f64 = 1.5;

/// What a worker has learned about drafts. Times are in passes without drafts.
#[derive(Debug, Clone)]
pub struct Payoff {
    /// Seconds of a pass without drafts; 0 while none was seen.
    pass_seconds: f64,
    /// What a pass with each of [`SIZES`] takes; `None` where none was made.
    costs: [Option<f64>; SIZES.len()],
    /// How often the token after a match of each length is right.
    right: [f64; LENGTHS],
    /// Passes that drafts may still lose.
    lent: f64,
    /// The last pass, if it was one with drafts and a surprise.
    surprise: Option<Drafted>,
}

/// A pass with drafts.
#[derive(Debug, Clone, Copy)]
struct Drafted {
    drafts: usize,
    /// How many it gave.
    tokens: usize,
    seconds: f64,
}

impl Default for Payoff {
    fn default() -> Self {
        Self {
            pass_seconds: 0.0,
            costs: [None; SIZES.len()],
            right: RIGHT_AT_FIRST,
            lent: LENT_AT_FIRST,
            surprise: None,
        }
    }
}

/// What is hoped for before anything is known: that a draft takes half as long as a token alone.
fn cost_at_first(drafts: usize) -> f64 {
    1.0 + drafts as f64 / 2.0
}

fn is_far(seconds: f64, expected: f64) -> bool {
    seconds > expected * SURPRISE || seconds * SURPRISE < expected
}

fn length_class(matched: usize) -> usize {
    (matched.saturating_sub(2).max(1).ilog2() as usize).min(LENGTHS - 1)
}

impl Payoff {
    /// Takes note that an answer begins. What was won in others is no reason to risk more in this one.
    pub fn begin(&mut self) {
        self.lent = self.lent.min(LENT_AT_FIRST);
    }

    /// How many drafts, at most `most`, the next pass should have after a match of `matched` tokens; often 0.
    #[must_use]
    pub fn drafts(&self, matched: usize, most: usize) -> usize {
        if self.surprise.is_some() || self.pass_seconds == 0.0 {
            return 0;
        }
        let mut best = (0, MARGIN);
        for size in SIZES {
            let cost = self.cost(size);
            let gain = self.tokens(matched, size) / cost;
            // When all are wrong the pass gives one token all the same.
            let risk = cost - 1.0;
            if size <= most && risk <= self.lent && gain > best.1 {
                best = (size, gain);
            }
        }
        best.0
    }

    /// What a pass with `drafts` takes; as experience with the next smaller or larger number lets expect when there was
    /// none with this one.
    fn cost(&self, drafts: usize) -> f64 {
        let known = || SIZES.into_iter().zip(self.costs).filter_map(|(size, cost)| Some((size, cost?)));
        let smaller = known().rfind(|&(size, _)| size <= drafts);
        let Some((size, cost)) = smaller.or_else(|| known().next()) else { return cost_at_first(drafts) };
        1.0 + (cost - 1.0) * drafts as f64 / size as f64
    }

    /// Tokens that a pass with `drafts` gives on average.
    fn tokens(&self, matched: usize, drafts: usize) -> f64 {
        let (mut tokens, mut all_right) = (1.0, 1.0);
        for further in 0..drafts {
            all_right *= self.right.get(length_class(matched + further)).copied().unwrap_or_default();
            tokens += all_right;
        }
        tokens
    }

    /// Takes note of what became of a guess.
    pub fn guessed(&mut self, guess: Guess) {
        if let Some(right) = self.right.get_mut(length_class(guess.matched)) {
            *right += (f64::from(u8::from(guess.is_right)) - *right) * GUESS_WEIGHT;
        }
    }

    /// Takes note of a pass over one token of one request.
    pub fn passed(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let surprise = self.surprise.take();
        let is_new = surprise.is_some() && is_far(seconds, self.pass_seconds);
        if self.pass_seconds == 0.0 || is_new {
            self.pass_seconds = seconds;
        } else {
            // A pass that was held up is not to make drafts look cheap.
            self.pass_seconds += (seconds.min(self.pass_seconds * 2.0) - self.pass_seconds) * PASS_WEIGHT;
        }
        self.lend(LENT_PER_PASS);
        for (cost, at_first) in self.costs.iter_mut().zip(SIZES.map(cost_at_first)) {
            if let Some(cost) = cost {
                *cost -= (*cost - at_first).max(0.0) * FORGIVENESS;
            }
        }
        if let Some(drafted) = surprise {
            self.settle(drafted);
        }
    }

    /// Takes note of a pass over one token and `drafts` of one request, which gave `tokens`.
    pub fn passed_with(&mut self, drafts: usize, tokens: usize, took: Duration) {
        let drafted = Drafted { drafts, tokens, seconds: took.as_secs_f64() };
        if is_far(drafted.seconds, self.cost(drafts) * self.pass_seconds) {
            self.surprise = Some(drafted);
        } else {
            self.settle(drafted);
        }
    }

    /// Learns from a pass with drafts, now that it is known what one without them takes.
    fn settle(&mut self, Drafted { drafts, tokens, seconds }: Drafted) {
        // Twice as long as one token after the other: the machine was busy with something else.
        let longest = 2.0 * (drafts + 1) as f64;
        let took = (seconds / self.pass_seconds.max(f64::MIN_POSITIVE)).clamp(1.0, longest);
        self.lend(tokens as f64 - took);
        let expected = self.cost(drafts);
        let place = SIZES.iter().position(|&size| size == drafts);
        if let Some(cost) = place.and_then(|place| self.costs.get_mut(place)) {
            *cost = Some(expected + (took - expected) * COST_WEIGHT);
        }
    }

    fn lend(&mut self, passes: f64) {
        self.lent = (self.lent + passes).min(LENT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASS: f64 = 0.01;

    /// A worker that has generated for a while without drafts, and guessed like this.
    fn used_to(right: bool) -> Payoff {
        let mut payoff = Payoff::default();
        for _ in 0..100 {
            payoff.passed(Duration::from_secs_f64(PASS));
            for matched in 3..32 {
                payoff.guessed(Guess { matched, is_right: right });
            }
        }
        payoff
    }

    /// A pass with drafts, and one without if the first was a surprise.
    fn run(payoff: &mut Payoff, drafts: usize, tokens: usize, cost: f64) {
        payoff.passed_with(drafts, tokens, Duration::from_secs_f64(PASS * cost));
        if payoff.surprise.is_some() {
            assert_eq!(payoff.drafts(32, 100), 0);
            payoff.passed(Duration::from_secs_f64(PASS));
        }
    }

    #[test]
    fn sizes_end_with_the_largest() {
        assert_eq!(SIZES.iter().max(), Some(&DRAFTS_MAX));
    }

    #[test]
    fn lengths_of_matches_have_their_classes() {
        let classes: Vec<usize> = [0, 3, 4, 5, 6, 9, 10, 17, 18, 99].map(length_class).to_vec();
        assert_eq!(classes, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn nothing_is_drafted_before_the_cost_of_a_pass_is_known() {
        assert_eq!(Payoff::default().drafts(32, 100), 0);
    }

    #[test]
    fn long_matches_are_tried_and_short_ones_are_not() {
        let mut payoff = Payoff::default();
        payoff.passed(Duration::from_millis(10));
        assert!(payoff.drafts(32, 100) > 0);
        assert_eq!(payoff.drafts(3, 100), 0);
    }

    #[test]
    fn guesses_that_were_wrong_are_not_drafted_and_right_ones_are() {
        assert_eq!(used_to(false).drafts(32, 100), 0);
        assert!(used_to(true).drafts(3, 100) > 0);
    }

    #[test]
    fn there_are_never_more_drafts_than_wanted() {
        let payoff = used_to(true);
        for most in 0..40 {
            let drafts = payoff.drafts(32, most);
            assert!(drafts <= most && (drafts == 0 || SIZES.contains(&drafts)));
        }
    }

    #[test]
    fn where_each_draft_takes_as_long_as_a_token_nothing_is_drafted_after_a_few_tries() {
        let mut payoff = used_to(true);
        let mut tries = 0;
        while let drafts @ 1.. = payoff.drafts(32, 100) {
            run(&mut payoff, drafts, drafts + 1, (drafts + 1) as f64);
            tries += 1;
            assert!(tries < 50);
        }
    }

    #[test]
    fn where_drafts_cost_little_many_are_made() {
        let mut payoff = used_to(true);
        for _ in 0..30 {
            let drafts = payoff.drafts(32, 100);
            run(&mut payoff, drafts, drafts + 1, 1.2);
        }
        assert_eq!(payoff.drafts(32, 100), DRAFTS_MAX);
    }

    #[test]
    fn what_was_too_slow_once_is_tried_again_later() {
        let mut payoff = used_to(true);
        while let drafts @ 1.. = payoff.drafts(32, 100) {
            run(&mut payoff, drafts, drafts + 1, 2.0 * (drafts + 1) as f64);
        }
        let tried_again = (0..2000).any(|_| {
            payoff.passed(Duration::from_secs_f64(PASS));
            payoff.drafts(32, 100) > 0
        });
        assert!(tried_again);
    }

    #[test]
    fn an_answer_risks_no_more_than_the_first_one() {
        let mut payoff = used_to(true);
        for _ in 0..30 {
            run(&mut payoff, 15, 16, 3.5);
            run(&mut payoff, 3, 4, 3.5);
        }
        assert_eq!(payoff.drafts(32, 100), 15);
        payoff.begin();
        assert_eq!(payoff.lent, LENT_AT_FIRST);
        // Three wrong passes in a row.
        let passes = (0..100).take_while(|_| {
            let drafts = payoff.drafts(32, 100);
            run(&mut payoff, drafts, 1, 3.5);
            drafts > 0
        });
        assert!(passes.count() < 3);
    }

    #[test]
    fn a_machine_that_got_slower_is_no_reason_against_drafts() {
        for slower in [0.4, 2.5] {
            let mut payoff = used_to(true);
            for _ in 0..30 {
                run(&mut payoff, 15, 16, 3.0);
            }
            let mut drafted = 0;
            for _ in 0..20 {
                let drafts = payoff.drafts(32, 100);
                if drafts == 0 {
                    payoff.passed(Duration::from_secs_f64(PASS * slower));
                } else {
                    let took = Duration::from_secs_f64(PASS * slower * 3.0);
                    payoff.passed_with(drafts, drafts + 1, took);
                    drafted += 1;
                }
            }
            assert!(drafted > 16, "{drafted} when passes took {slower}");
        }
    }

    proptest! {
        /// Whatever the guesses are worth, whatever passes cost and however both change.
        #[test]
        fn drafts_never_lose_more_than_they_are_lent(
            turns in proptest::collection::vec((0_usize..33, 0.0_f64..1.0, 1.0_f64..6.0), 1..60),
        ) {
            let mut payoff = Payoff::default();
            let (mut plain, mut spent, mut tokens) = (0_usize, 0.0, 0_usize);
            for (matched, right, dearer) in turns {
                // A stretch of text with one habit on a machine in one mood.
                for step in 0..40_usize {
                    let drafts = payoff.drafts(matched, 100);
                    if drafts == 0 {
                        payoff.passed(Duration::from_secs_f64(PASS));
                        (plain, spent, tokens) = (plain + 1, spent + 1.0, tokens + 1);
                        continue;
                    }
                    let cost = 1.0 + drafts as f64 * dearer / 6.0;
                    let accepted = (drafts as f64 * right) as usize * usize::from(step % 3 != 0);
                    payoff.passed_with(drafts, accepted + 1, Duration::from_secs_f64(PASS * cost));
                    payoff.guessed(Guess { matched, is_right: accepted > 0 });
                    (spent, tokens) = (spent + cost, tokens + accepted + 1);
                }
            }
            let worst_pass = 2.0 * (DRAFTS_MAX + 1) as f64;
            let lent = LENT_AT_FIRST + plain as f64 * LENT_PER_PASS + worst_pass;
            prop_assert!(spent <= tokens as f64 + lent, "{spent} passes for {tokens} tokens");
        }
    }
}
