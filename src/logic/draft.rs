//! Guesses of the tokens that an answer goes on with, copied from where its last tokens stood before: in the prompt, or
//! earlier in the answer. Answers from documents and answers that change a program copy long passages.
//!
//! Guesses need not be right: each is compared with what the model chooses, see `payoff`.

/// Tokens in a row that must have stood somewhere before. Fewer are found all the time and seldom go on alike.
const GRAM: usize = 3;

/// A match is not counted further than this.
const MATCH_MAX: usize = 32;

/// Multiplier of Fibonacci hashing: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// The tokens of one request, and where the last of them stood before.
#[derive(Debug)]
pub struct Lookup {
    tokens: Vec<u32>,
    /// By the hash of [`GRAM`] tokens the index behind the last place where they stood; 0 where there is none. Of two
    /// with the same hash the later one stays.
    behind: Vec<u32>,
    /// Index of the token that is expected next; 0 when none is.
    source: usize,
    /// How many of the last tokens also stand before `source`.
    matched: usize,
}

/// What became of the token that was expected next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guess {
    /// Tokens before it that were equal, from [`GRAM`] to [`MATCH_MAX`].
    pub matched: usize,
    /// Whether it came.
    pub is_right: bool,
}

impl Lookup {
    /// Begins with `prompt`; the answer will have `answer` tokens at most. Takes 20 to 36 bytes for each of both, so that
    /// few have the same hash.
    #[must_use]
    pub fn new(prompt: &[u32], answer: usize) -> Self {
        let buckets = prompt.len().saturating_add(answer).saturating_mul(4).next_power_of_two();
        let mut lookup =
            Self { tokens: Vec::with_capacity(prompt.len()), behind: vec![0; buckets], source: 0, matched: 0 };
        // What each token of a prompt could be guessed from is of no interest, but for what comes behind the last one.
        let Some((&last, before)) = prompt.split_last() else { return lookup };
        for &token in before {
            lookup.tokens.push(token);
            lookup.note_last();
        }
        lookup.push(last);
        lookup
    }

    /// Takes the next token; tells whether it was expected, if one was.
    pub fn push(&mut self, token: u32) -> Option<Guess> {
        let guess = self.matched().map(|matched| Guess {
            matched,
            is_right: self.tokens.get(self.source).is_some_and(|&next| next == token),
        });
        self.tokens.push(token);
        if guess.is_some_and(|guess| guess.is_right) {
            self.source += 1;
            self.matched = (self.matched + 1).min(MATCH_MAX);
        } else {
            self.search();
        }
        self.note_last();
        guess
    }

    /// How many of the last tokens stood somewhere before; `None` when there is nothing to guess from.
    #[must_use]
    pub fn matched(&self) -> Option<usize> {
        (self.source > 0).then_some(self.matched)
    }

    /// Replaces `drafts` by guesses of the next `count` tokens; by none when nothing matches. Behind the last token it
    /// goes on with the guesses themselves, as in a list that repeats.
    pub fn draft_into(&self, count: usize, drafts: &mut Vec<u32>) {
        drafts.clear();
        if self.matched().is_none() {
            return;
        }
        let known = self.tokens.get(self.source..).unwrap_or_default();
        for index in 0..count {
            let again = || drafts.get(index.checked_sub(known.len())?);
            let Some(&token) = known.get(index).or_else(again) else { return };
            drafts.push(token);
        }
    }

    /// Looks for the last tokens where they stood before.
    fn search(&mut self) {
        self.source = 0;
        let Some(&gram) = self.tokens.last_chunk() else { return };
        let behind = self.behind.get(self.bucket(gram)).map_or(0, |&behind| behind as usize);
        let before = self.tokens.get(..behind).unwrap_or_default();
        let pairs = before.iter().rev().zip(self.tokens.iter().rev());
        let equal = pairs.take(MATCH_MAX).take_while(|(a, b)| a == b).count();
        // Another gram may have the same hash.
        if equal >= GRAM {
            (self.source, self.matched) = (behind, equal);
        }
    }

    /// Lets later tokens find the last ones.
    fn note_last(&mut self) {
        let Some(&gram) = self.tokens.last_chunk() else { return };
        let bucket = self.bucket(gram);
        if let (Some(place), Ok(behind)) = (self.behind.get_mut(bucket), u32::try_from(self.tokens.len())) {
            *place = behind;
        }
    }

    fn bucket(&self, gram: [u32; GRAM]) -> usize {
        let hash =
            gram.iter().fold(0_u64, |hash, &token| (hash ^ u64::from(token)).wrapping_mul(SPREAD).rotate_left(29));
        // The number of buckets is a power of two.
        (hash as usize) & (self.behind.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drafts(lookup: &Lookup, count: usize) -> Vec<u32> {
        let mut drafts = vec![99];
        lookup.draft_into(count, &mut drafts);
        drafts
    }

    #[test]
    fn what_followed_the_last_tokens_before_is_expected_again() {
        let lookup = Lookup::new(&[1, 2, 3, 4, 5, 6, 9, 1, 2, 3], 10);
        assert_eq!(lookup.matched(), Some(3));
        assert_eq!(drafts(&lookup, 2), [4, 5]);
        assert!(drafts(&lookup, 0).is_empty());
    }

    #[test]
    fn fewer_than_three_tokens_match_nothing() {
        for prompt in [&[1, 2, 3, 4, 9, 2, 3][..], &[1, 1], &[]] {
            let lookup = Lookup::new(prompt, 10);
            assert_eq!((lookup.matched(), drafts(&lookup, 3)), (None, Vec::new()));
        }
    }

    #[test]
    fn a_match_grows_while_the_guesses_are_right_and_is_looked_for_again_when_one_is_wrong() {
        let mut lookup = Lookup::new(&[1, 2, 3, 4, 5, 6, 9, 1, 2], 10);
        assert_eq!(lookup.push(3), None);
        assert_eq!(lookup.push(4), Some(Guess { matched: 3, is_right: true }));
        assert_eq!(lookup.push(5), Some(Guess { matched: 4, is_right: true }));
        assert_eq!(lookup.push(7), Some(Guess { matched: 5, is_right: false }));
        assert_eq!(lookup.matched(), None);
        assert_eq!(lookup.push(8), None);
    }

    #[test]
    fn the_last_place_counts_and_equal_tokens_before_it_are_counted() {
        let lookup = Lookup::new(&[0, 1, 2, 3, 4, 7, 0, 1, 2, 3, 5, 8, 0, 1, 2, 3], 10);
        assert_eq!((lookup.matched(), drafts(&lookup, 2)), (Some(4), vec![5, 8]));
    }

    #[test]
    fn a_list_that_repeats_is_expected_to_go_on() {
        assert_eq!(drafts(&Lookup::new(&[1, 2, 1, 2, 1, 2], 10), 5), [1, 2, 1, 2, 1]);
        assert_eq!(drafts(&Lookup::new(&[7, 7, 7, 7], 10), 3), [7, 7, 7]);
    }

    #[test]
    fn copied_text_is_guessed_but_for_its_first_tokens() {
        let passage: Vec<u32> = (100..200).collect();
        let mut lookup = Lookup::new(&passage, 100);
        let guesses: Vec<Guess> = passage.iter().filter_map(|&token| lookup.push(token)).collect();
        // One or two places may be lost to another one with the same hash.
        assert!(guesses.len() >= 95, "{}", guesses.len());
        assert!(guesses.iter().all(|guess| guess.is_right));
        assert_eq!(guesses.last().map(|guess| guess.matched), Some(MATCH_MAX));
    }

    proptest! {
        /// Few different tokens, so that there are many matches, and few buckets, so that hashes collide.
        #[test]
        fn a_match_is_really_there(tokens in proptest::collection::vec(0_u32..3, 0..80), answer in 0_usize..4) {
            let mut lookup = Lookup::new(&[], answer);
            for (index, &token) in tokens.iter().enumerate() {
                let expected = drafts(&lookup, 1).first().copied();
                let guess = lookup.push(token);
                prop_assert_eq!(guess.map(|guess| guess.is_right), expected.map(|expected| expected == token));
                let read = &tokens[..=index];
                if let Some(matched) = lookup.matched() {
                    prop_assert!((GRAM..=MATCH_MAX).contains(&matched));
                    prop_assert!(lookup.source <= index);
                    prop_assert!(read[..lookup.source].ends_with(&read[read.len() - matched..]));
                    prop_assert_eq!(drafts(&lookup, 9).len(), 9);
                }
            }
        }
    }
}
