//! What `LOGITBIAS` and the penalties do to the logits before a token is chosen, in llama.cpp's order: bias, then
//! penalties. Written here and not taken from llama.cpp because its sampler looks every id of the vocabulary up in a
//! hash table for each token, where this looks only at the few ids concerned; a test holds the two to the same numbers.

use std::collections::{HashMap, VecDeque};

/// `REPEATPENALTY`, `REPEATLASTN`, `PRESENCE`, `FREQUENCY`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalties {
    /// Divides a positive logit of a token seen before and multiplies a negative one; 1 is off.
    pub repeat: f32,
    /// Tokens looked back at, of prompt and answer; 0 is off, -1 is all.
    pub last_n: i32,
    /// Subtracted once from the logit of a token seen before; 0 is off.
    pub presence: f32,
    /// Subtracted for each time a token was seen before; 0 is off.
    pub frequency: f32,
}

impl Penalties {
    fn is_off(&self) -> bool {
        self.last_n == 0 || (self.repeat == 1.0 && self.presence == 0.0 && self.frequency == 0.0)
    }

    /// The logit of a token that was seen `count` times.
    fn penalized(&self, logit: f32, count: u32) -> f32 {
        let repeated = if logit <= 0.0 { logit * self.repeat } else { logit / self.repeat };
        repeated - (count as f32 * self.frequency + self.presence)
    }
}

/// The adjustments of one request, with the tokens it has seen.
#[derive(Debug)]
pub struct Adjustments {
    bias: Vec<(u32, f32)>,
    penalties: Option<Seen>,
    /// The adjusted logits, kept for its memory.
    adjusted: Vec<f32>,
}

#[derive(Debug)]
struct Seen {
    rules: Penalties,
    /// The last `last_n` tokens, oldest first.
    window: VecDeque<u32>,
    /// How often each token of the window is in it.
    counts: HashMap<u32, u32>,
}

impl Adjustments {
    /// `bias` holds token ids and what is added to their logits. `None` when there is nothing to adjust.
    pub fn new(bias: &[(u32, f32)], rules: Penalties, prompt: &[u32]) -> Option<Self> {
        let penalties = (!rules.is_off()).then(|| {
            let mut seen = Seen { rules, window: VecDeque::new(), counts: HashMap::new() };
            prompt.iter().for_each(|&token| seen.add(token));
            seen
        });
        if penalties.is_none() && bias.is_empty() {
            return None;
        }
        Some(Self { bias: bias.to_vec(), penalties, adjusted: Vec::new() })
    }

    /// `logits` with bias and penalties.
    pub fn apply(&mut self, logits: &[f32]) -> &[f32] {
        self.adjusted.clear();
        self.adjusted.extend_from_slice(logits);
        for &(token, bias) in &self.bias {
            if let Some(logit) = self.adjusted.get_mut(token as usize) {
                *logit += bias;
            }
        }
        if let Some(seen) = &self.penalties {
            for (&token, &count) in &seen.counts {
                if let Some(logit) = self.adjusted.get_mut(token as usize) {
                    *logit = seen.rules.penalized(*logit, count);
                }
            }
        }
        &self.adjusted
    }

    /// Takes note of a chosen token.
    pub fn chosen(&mut self, token: u32) {
        if let Some(seen) = &mut self.penalties {
            seen.add(token);
        }
    }
}

impl Seen {
    fn add(&mut self, token: u32) {
        // A negative `last_n` keeps everything.
        if usize::try_from(self.rules.last_n).is_ok_and(|last_n| self.window.len() >= last_n) {
            self.forget_oldest();
        }
        self.window.push_back(token);
        *self.counts.entry(token).or_default() += 1;
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.window.pop_front() else { return };
        if let Some(count) = self.counts.get_mut(&oldest) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPEAT: Penalties = Penalties { repeat: 2.0, last_n: 3, presence: 0.0, frequency: 0.0 };

    fn adjusted(penalties: Penalties, logit_bias: Vec<(u32, f32)>, prompt: &[u32]) -> Vec<f32> {
        Adjustments::new(&logit_bias, penalties, prompt).unwrap().apply(&[8.0, -8.0, 1.0, 0.0]).to_vec()
    }

    #[test]
    fn nothing_is_adjusted_when_nothing_is_asked_for() {
        for off in [Penalties { repeat: 1.0, ..REPEAT }, Penalties { last_n: 0, ..REPEAT }] {
            assert!(Adjustments::new(&[], off, &[1, 2]).is_none());
        }
    }

    #[test]
    fn a_repeated_token_is_less_likely_whatever_the_sign_of_its_logit() {
        assert_eq!(adjusted(REPEAT, Vec::new(), &[0, 1]), [4.0, -16.0, 1.0, 0.0]);
    }

    #[test]
    fn presence_counts_once_and_frequency_each_time() {
        let penalties = Penalties { repeat: 1.0, last_n: 64, presence: 0.5, frequency: 0.25 };
        assert_eq!(adjusted(penalties, Vec::new(), &[0, 2, 0]), [7.0, -8.0, 0.25, 0.0]);
    }

    #[test]
    fn only_the_last_tokens_count_and_minus_one_counts_all() {
        assert_eq!(adjusted(REPEAT, Vec::new(), &[0, 3, 3, 3]), [8.0, -8.0, 1.0, 0.0]);
        assert_eq!(adjusted(Penalties { last_n: -1, ..REPEAT }, Vec::new(), &[0, 3, 3, 3]), [4.0, -8.0, 1.0, 0.0]);
    }

    #[test]
    fn bias_comes_before_penalties_adds_up_and_skips_unknown_ids() {
        assert_eq!(adjusted(REPEAT, vec![(0, 1.0), (0, 1.0), (9, 5.0)], &[0, 9]), [5.0, -8.0, 1.0, 0.0]);
    }

    #[test]
    fn generated_tokens_count_like_those_of_the_prompt() {
        let mut adjustments = Adjustments::new(&[], REPEAT, &[]).unwrap();
        adjustments.chosen(0);
        assert_eq!(adjustments.apply(&[8.0]), [4.0]);
    }
}
