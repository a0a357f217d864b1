//! Prompts of a wanted length in tokens, the same for both sides and all different.

/// Frequent words, which most tokenizers have as one token.
const WORDS: [&str; 48] = [
    "the", "of", "and", "to", "in", "is", "that", "it", "was", "for", "on", "are", "with", "they", "be", "at", "one",
    "have", "this", "from", "by", "hot", "word", "but", "what", "some", "you", "had", "out", "other", "were", "all",
    "there", "when", "up", "use", "how", "each", "which", "their", "time", "will", "way", "about", "many", "then",
    "them", "water",
];

/// Words of the seed's own, `number` of them. The first says the seed, so that no two begin alike.
pub fn words(seed: u64, number: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut text = format!("{seed}:");
    for _ in 0..number {
        text.push(' ');
        text.push_str(random.choice(WORDS).unwrap_or("the"));
    }
    text
}

/// Makes prompts for one model.
#[derive(Clone, Copy, Debug)]
pub struct Prompts {
    tokens_per_word: f64,
}

impl Prompts {
    /// From the number of tokens that [`Prompts::SAMPLE_WORDS`] words have.
    pub fn new(tokens: usize) -> Self {
        Self { tokens_per_word: tokens as f64 / Self::SAMPLE_WORDS as f64 }
    }

    /// Words in the text that is tokenized to learn how many tokens a word has.
    pub const SAMPLE_WORDS: usize = 1000;

    /// A prompt of about that many tokens.
    pub fn prompt(&self, seed: u64, tokens: usize) -> String {
        words(seed, (tokens as f64 / self.tokens_per_word) as usize)
    }

    /// Prompts of about that many tokens for so many clients; `round` makes them other ones.
    pub fn several(&self, round: u64, clients: usize, tokens: usize) -> Vec<String> {
        (0..clients as u64).map(|client| self.prompt(1000 * (round + 1) + client, tokens)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_repeat_by_seed_and_differ_from_the_first_word_on() {
        let prompts = Prompts::new(1000);
        assert_eq!(prompts.prompt(7, 50), prompts.prompt(7, 50));
        let several = prompts.several(3, 2, 50);
        let first = |text: &str| text.split(' ').next().map(str::to_owned);
        assert_ne!(first(&several[0]), first(&several[1]));
        assert_ne!(first(&several[0]), first(&prompts.several(4, 1, 50)[0]));
    }

    #[test]
    fn a_prompt_has_the_words_that_make_the_wanted_tokens() {
        assert_eq!(Prompts::new(2000).prompt(1, 100).split(' ').count(), 51);
    }
}
