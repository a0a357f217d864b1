//! Chooses the next token of one request from its logits.

use std::hash::{BuildHasher, Hasher, RandomState};

use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;

use super::error::EngineError;
use crate::logic::limits;
use crate::logic::options::Sampling;

/// The sampling chain of one request. `TEMP 0` is greedy and needs neither chain nor candidates.
#[derive(Debug)]
pub(super) struct Sampler {
    seed: u32,
    chain: Option<Chain>,
}

#[derive(Debug)]
struct Chain {
    sampler: LlamaSampler,
    /// One entry per id of the vocabulary, refilled for each token.
    candidates: LlamaTokenDataArray,
}

impl Sampler {
    /// The samplers in llama.cpp's order: top-k, top-p, min-p, temperature, then a draw with the seed.
    pub(super) fn new(options: &Sampling) -> Self {
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
            candidates: LlamaTokenDataArray::new(Vec::new(), false),
        });
        Self { seed, chain }
    }

    /// The seed in use, drawn at random when none was given.
    pub(super) fn seed(&self) -> u32 {
        self.seed
    }

    /// # Errors
    /// `INTERNAL` when the logits hold no finite number or the chain selects nothing.
    pub(super) fn choose(&mut self, logits: &[f32]) -> Result<u32, EngineError> {
        let Some(chain) = &mut self.chain else {
            return greedy(logits);
        };
        // Some models forbid a token with minus infinity; anything else that is no number makes llama.cpp draw nonsense.
        if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(EngineError::Internal("the model returned a logit that is no number".to_owned()));
        }
        let candidates = &mut chain.candidates;
        candidates.data.clear();
        candidates
            .data
            .extend((0_i32..).zip(logits).map(|(id, &logit)| LlamaTokenData::new(LlamaToken(id), logit, 0.0)));
        candidates.selected = None;
        candidates.sorted = false;
        chain.sampler.apply(candidates);
        let token = candidates
            .selected_token()
            .ok_or_else(|| EngineError::Internal("the sampling chain selected no token".to_owned()))?;
        chain.sampler.accept(token);
        u32::try_from(token.0)
            .map_err(|_| EngineError::Internal(format!("the sampling chain selected token {}", token.0)))
    }
}

/// The id of the largest logit, the first one on a tie.
fn greedy(logits: &[f32]) -> Result<u32, EngineError> {
    let mut best: Option<(u32, f32)> = None;
    for (id, &logit) in (0_u32..).zip(logits) {
        if logit.is_finite() && best.is_none_or(|(_, top)| logit > top) {
            best = Some((id, logit));
        }
    }
    best.map(|(id, _)| id).ok_or_else(|| EngineError::Internal("the model returned no finite logit".to_owned()))
}

/// The standard library seeds every `RandomState` from the operating system; its first hash is as random as a sampling
/// seed needs to be.
fn random_seed() -> u32 {
    let hash = RandomState::new().build_hasher().finish();
    ((hash ^ (hash >> 32)) as u32).min(limits::SEED_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f32, seed: u32) -> Sampling {
        Sampling { temperature, seed: Some(seed), ..Sampling::default() }
    }

    #[test]
    fn temperature_zero_takes_the_largest_logit_and_skips_nan() {
        let mut sampler = Sampler::new(&sampling(0.0, 1));
        assert_eq!(sampler.choose(&[0.1, f32::NAN, 7.0, 3.0]).unwrap(), 2);
    }

    #[test]
    fn logits_without_a_number_are_an_error() {
        let mut sampler = Sampler::new(&sampling(0.0, 1));
        assert_eq!(sampler.choose(&[f32::NAN, f32::NAN]).unwrap_err().code(), "INTERNAL");
    }

    #[test]
    fn sampling_refuses_a_logit_that_is_no_number_and_takes_a_forbidden_token() {
        let mut sampler = Sampler::new(&sampling(1.0, 1));
        assert_eq!(sampler.choose(&[0.1, f32::NAN]).unwrap_err().code(), "INTERNAL");
        assert_eq!(sampler.choose(&[0.1, f32::INFINITY]).unwrap_err().code(), "INTERNAL");
        assert_eq!(sampler.choose(&[f32::NEG_INFINITY, 0.1]).unwrap(), 1);
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens() {
        let logits: Vec<f32> = (0..100_u8).map(|i| f32::from(i % 7)).collect();
        let draw = |seed| {
            let mut sampler = Sampler::new(&sampling(1.0, seed));
            (0..20).map(|_| sampler.choose(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }

    #[test]
    fn top_k_one_is_greedy_at_any_temperature() {
        let options = Sampling { temperature: 2.0, top_k: 1, seed: Some(3), ..Sampling::default() };
        let mut sampler = Sampler::new(&options);
        assert!((0..10).all(|_| sampler.choose(&[0.0, 1.0, 5.0, 4.9]).unwrap() == 2));
    }
}
