//! Chooses the next token of one request from its logits.

use std::hash::{BuildHasher, Hasher, RandomState};

use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;

use super::constraint::Constraint;
use super::error::EngineError;
use crate::logic::adjust::Adjustments;
use crate::logic::limits;
use crate::logic::options::Sampling;
use crate::logic::top;

/// The likeliest tokens are looked for here when they are fewer than one in so many.
const SELECT_BELOW: usize = 8;

/// Chooses the tokens of one request. `TEMP 0` is greedy and needs neither chain nor candidates.
#[derive(Debug)]
pub(super) struct Sampler {
    seed: u32,
    /// `None` when logits are taken as they are.
    adjustments: Option<Adjustments>,
    /// `None` when any token may come next.
    constraint: Option<Constraint>,
    chain: Option<Chain>,
}

/// Samplers that need more than the likeliest token, with the memory they work in.
#[derive(Debug)]
struct Chain {
    sampler: LlamaSampler,
    /// How many tokens the first sampler leaves; 0 for all.
    top_k: usize,
    likeliest: Vec<(usize, f32)>,
    candidates: LlamaTokenDataArray,
}

impl Sampler {
    /// The samplers in llama.cpp's order: logit bias and penalties, which count the tokens of `prompt` too, then top-k,
    /// top-p, min-p, temperature, then a draw with the seed. As there, a draw that `constraint` does not allow is made
    /// again among the allowed tokens.
    pub(super) fn new(options: &Sampling, prompt: &[u32], constraint: Option<Constraint>) -> Self {
        let seed = options.seed.unwrap_or_else(random_seed);
        // At least one candidate must survive each filter.
        const MIN_KEEP: usize = 1;
        let chain = (options.temperature > 0.0).then(|| Chain {
            sampler: LlamaSampler::chain_simple([
                LlamaSampler::top_k(options.top_k),
                LlamaSampler::top_p(options.top_p, MIN_KEEP),
                LlamaSampler::min_p(options.min_p, MIN_KEEP),
                LlamaSampler::temp(options.temperature),
                LlamaSampler::dist(seed),
            ]),
            top_k: usize::try_from(options.top_k).unwrap_or(0),
            likeliest: Vec::new(),
            candidates: LlamaTokenDataArray::new(Vec::new(), false),
        });
        let adjustments = Adjustments::new(&options.logit_bias, options.penalties, prompt);
        Self { seed, adjustments, constraint, chain }
    }

    /// The seed in use, drawn at random when none was given.
    pub(super) fn seed(&self) -> u32 {
        self.seed
    }

    /// Whether the answer has reached the end of its form.
    pub(super) fn is_complete(&self) -> bool {
        self.constraint.as_ref().is_some_and(Constraint::is_complete)
    }

    /// # Errors
    /// `INTERNAL` when the logits hold no finite number or the chain selects nothing, `ERR` when the form of the answer
    /// takes too much work.
    pub(super) fn choose(&mut self, logits: &[f32]) -> Result<u32, EngineError> {
        let Self { adjustments, constraint, chain, .. } = self;
        let logits = adjustments.as_mut().map_or(logits, |adjustments| adjustments.apply(logits));
        let mut token = draw(chain.as_mut(), logits)?;
        if let Some(constraint) = constraint {
            // Most draws are allowed, and to ask for one token costs far less than to ask for all.
            if !constraint.allows(token)? {
                token = draw(chain.as_mut(), constraint.mask(logits)?)?;
            }
            constraint.accept(token)?;
        }
        if let Some(adjustments) = adjustments {
            adjustments.chosen(token);
        }
        Ok(token)
    }
}

fn draw(chain: Option<&mut Chain>, logits: &[f32]) -> Result<u32, EngineError> {
    chain.map_or_else(|| greedy(logits), |chain| chain.draw(logits))
}

impl Chain {
    fn draw(&mut self, logits: &[f32]) -> Result<u32, EngineError> {
        // Some models forbid a token with minus infinity; anything else that is no number makes llama.cpp draw nonsense.
        if top::any_unusable(logits) {
            return Err(EngineError::Internal("the model returned a logit that is no number".to_owned()));
        }
        self.gather(logits);
        let candidates = &mut self.candidates;
        if candidates.data.is_empty() {
            return Err(EngineError::Internal("every token is forbidden".to_owned()));
        }
        candidates.selected = None;
        candidates.sorted = false;
        self.sampler.apply(candidates);
        let token = candidates
            .selected_token()
            .ok_or_else(|| EngineError::Internal("the sampling chain selected no token".to_owned()))?;
        self.sampler.accept(token);
        u32::try_from(token.0)
            .map_err(|_| EngineError::Internal(format!("the sampling chain selected token {}", token.0)))
    }

    /// The tokens to choose from: those that the first sampler would leave, because llama.cpp sorts what it is given, and
    /// a token takes three times the memory of its logit.
    fn gather(&mut self, logits: &[f32]) {
        let candidate = |(id, logit): (i32, f32)| LlamaTokenData::new(LlamaToken(id), logit, 0.0);
        let data = &mut self.candidates.data;
        data.clear();
        if (1..logits.len() / SELECT_BELOW).contains(&self.top_k) {
            top::largest(logits, self.top_k, &mut self.likeliest);
            let id = |index| i32::try_from(index).unwrap_or(i32::MAX);
            data.extend(self.likeliest.iter().map(|&(index, logit)| candidate((id(index), logit))));
        } else {
            data.extend((0_i32..).zip(logits.iter().copied()).map(candidate));
        }
    }
}

/// The id of the largest logit, the first one on a tie.
fn greedy(logits: &[f32]) -> Result<u32, EngineError> {
    let best = top::argmax(logits).and_then(|index| u32::try_from(index).ok());
    best.ok_or_else(|| EngineError::Internal("the model returned no finite logit".to_owned()))
}

/// The standard library seeds every `RandomState` from the operating system; its first hash is as random as a sampling
/// seed needs to be.
fn random_seed() -> u32 {
    let hash = RandomState::new().build_hasher().finish();
    ((hash ^ (hash >> 32)) as u32).min(limits::SEED_MAX)
}

#[cfg(test)]
mod tests {
    use llama_cpp_2::token::logit_bias::LlamaLogitBias;

    use super::*;
    use crate::logic::adjust::Penalties;

    fn sampling(temperature: f32, seed: u32) -> Sampling {
        Sampling { temperature, seed: Some(seed), ..Sampling::default() }
    }

    #[test]
    fn temperature_zero_takes_the_largest_logit_and_skips_nan() {
        let mut sampler = Sampler::new(&sampling(0.0, 1), &[], None);
        assert_eq!(sampler.choose(&[0.1, f32::NAN, 7.0, 3.0]).unwrap(), 2);
    }

    #[test]
    fn logits_without_a_number_are_an_error() {
        let mut sampler = Sampler::new(&sampling(0.0, 1), &[], None);
        assert_eq!(sampler.choose(&[f32::NAN, f32::NAN]).unwrap_err().code(), "INTERNAL");
    }

    #[test]
    fn sampling_refuses_a_logit_that_is_no_number_and_takes_a_forbidden_token() {
        let mut sampler = Sampler::new(&sampling(1.0, 1), &[], None);
        assert_eq!(sampler.choose(&[0.1, f32::NAN]).unwrap_err().code(), "INTERNAL");
        assert_eq!(sampler.choose(&[0.1, f32::INFINITY]).unwrap_err().code(), "INTERNAL");
        assert_eq!(sampler.choose(&[f32::NEG_INFINITY, 0.1]).unwrap(), 1);
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens() {
        let logits: Vec<f32> = (0..100_u8).map(|i| f32::from(i % 7)).collect();
        let draw = |seed| {
            let mut sampler = Sampler::new(&sampling(1.0, seed), &[], None);
            (0..20).map(|_| sampler.choose(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }

    #[test]
    fn top_k_one_is_greedy_at_any_temperature() {
        let options = Sampling { temperature: 2.0, top_k: 1, seed: Some(3), ..Sampling::default() };
        let mut sampler = Sampler::new(&options, &[], None);
        assert!((0..10).all(|_| sampler.choose(&[0.0, 1.0, 5.0, 4.9]).unwrap() == 2));
    }

    #[test]
    fn the_likeliest_tokens_found_here_are_drawn_as_llama_cpp_draws_from_all() {
        for (top_k, temperature) in [(1, 1.0), (5, 0.7), (40, 0.8), (40, 3.0), (100, 1.5)] {
            let options = Sampling { temperature, top_k, seed: Some(9), ..Sampling::default() };
            let mut ours = Sampler::new(&options, &[], None);
            let mut theirs = Sampler::new(&options, &[], None);
            theirs.chain.as_mut().unwrap().top_k = 0;
            for step in 0..200_u64 {
                // All different, in an order that changes with each step.
                let logits: Vec<f32> =
                    (0..1009_u64).map(|id| ((id * 31 + step * 17) * 263 % 1009) as f32 / 80.0).collect();
                assert_eq!(ours.choose(&logits).unwrap(), theirs.choose(&logits).unwrap(), "TOPK {top_k}, step {step}");
                assert_eq!(theirs.chain.as_ref().unwrap().likeliest.len(), 0);
            }
        }
    }

    #[test]
    fn when_fewer_tokens_than_topk_are_allowed_they_are_drawn() {
        let mut logits = vec![f32::NEG_INFINITY; 1000];
        (logits[7], logits[8]) = (1.0, 1.0);
        let mut sampler = Sampler::new(&sampling(1.0, 1), &[], None);
        assert!((0..20).all(|_| [7, 8].contains(&sampler.choose(&logits).unwrap())));
        logits.fill(f32::NEG_INFINITY);
        assert_eq!(sampler.choose(&logits).unwrap_err().code(), "INTERNAL");
    }

    #[test]
    fn penalties_and_bias_also_turn_the_greedy_choice() {
        let mut options = sampling(0.0, 1);
        options.penalties.presence = 2.0;
        let mut sampler = Sampler::new(&options, &[0], None);
        let logits = [5.0, 4.0, 3.5];
        let chosen: Vec<u32> = (0..3).map(|_| sampler.choose(&logits).unwrap()).collect();
        assert_eq!(chosen, [1, 2, 0], "the prompt has 0, then each choice counts");
        options.logit_bias = vec![(2, 100.0)];
        assert_eq!(Sampler::new(&options, &[], None).choose(&logits).unwrap(), 2);
    }

    #[test]
    fn adjusted_logits_are_those_of_llama_cpp() {
        const VOCABULARY: i32 = 40;
        let mut options = sampling(0.0, 1);
        options.penalties = Penalties { repeat: 1.3, last_n: 7, presence: 0.4, frequency: -0.2 };
        options.logit_bias = vec![(3, -2.0), (11, 4.5)];
        let biases = [LlamaLogitBias::new(LlamaToken(3), -2.0), LlamaLogitBias::new(LlamaToken(11), 4.5)];
        let mut reference = LlamaSampler::chain_simple([
            LlamaSampler::logit_bias(VOCABULARY, &biases),
            LlamaSampler::penalties(VOCABULARY, 7, 1.3, -0.2, 0.4),
        ]);
        let mut adjustments = Adjustments::new(&options.logit_bias, options.penalties, &[]).unwrap();
        for step in 0..30 {
            let logits: Vec<f32> = (0..VOCABULARY).map(|id| ((id * 7 + step * 3) % 23 - 11) as f32 / 2.0).collect();
            let mut expected = LlamaTokenDataArray::from_iter(
                (0..).zip(&logits).map(|(id, &logit)| LlamaTokenData::new(LlamaToken(id), logit, 0.0)),
                false,
            );
            reference.apply(&mut expected);
            let expected: Vec<f32> = expected.data.iter().map(LlamaTokenData::logit).collect();
            for (ours, theirs) in adjustments.apply(&logits).iter().zip(&expected) {
                assert!((ours - theirs).abs() < 1e-5, "{ours} instead of {theirs} in step {step}");
            }
            let token = step * step % 13;
            reference.accept(LlamaToken(token));
            adjustments.chosen(token.unsigned_abs());
        }
    }
}
