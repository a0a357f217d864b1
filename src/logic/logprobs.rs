//! Log probabilities of tokens, from the logits of the model before any sampling option changes them.

/// The probability of a generated token and of the likeliest ones in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The generated token.
    pub token: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens, best first, with the logarithms of their probabilities.
    pub top: Vec<(u32, f32)>,
}

/// Of `chosen` and the `count` likeliest tokens (softmax in f64 over finite logits).
pub fn token_logprobs(logits: &[f32], chosen: u32, count: usize) -> TokenLogprobs {
    let finite = || (0_u32..).zip(logits.iter().copied()).filter(|(_, logit)| logit.is_finite());
    let largest = finite().map(|(_, logit)| logit).fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = finite().map(|(_, logit)| f64::from(logit - largest).exp()).sum();
    let logprob = |logit: f32| (f64::from(logit - largest) - sum.ln()) as f32;
    let mut top: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    for (token, logit) in finite() {
        if top.len() == count && top.last().is_none_or(|(_, least)| logit <= *least) {
            continue;
        }
        let place = top.partition_point(|(_, other)| *other >= logit);
        top.insert(place, (token, logit));
        top.truncate(count);
    }
    TokenLogprobs {
        token: chosen,
        logprob: logits.get(chosen as usize).copied().map_or(f32::NEG_INFINITY, logprob),
        top: top.into_iter().map(|(token, logit)| (token, logprob(logit))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_softmax() {
        let logits = [1.0_f32, 3.0, 2.0];
        let result = token_logprobs(&logits, 0, 2);
        let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
        assert!((result.logprob - (1.0 - sum.ln())).abs() < 1e-6);
        assert_eq!(result.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 2]);
        let all = token_logprobs(&logits, 0, 20);
        assert!((all.top.iter().map(|(_, p)| p.exp()).sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn large_logits_do_not_overflow_and_forbidden_tokens_have_no_part() {
        let result = token_logprobs(&[1e4, f32::NEG_INFINITY, 1e4], 2, 3);
        assert!((result.logprob - 0.5_f32.ln()).abs() < 1e-6);
        assert_eq!(result.top.len(), 2);
        assert_eq!(token_logprobs(&[1.0, 2.0], 1, 0).top, []);
    }

    #[test]
    fn equal_tokens_come_in_order_of_their_ids() {
        let tokens: Vec<u32> = token_logprobs(&[1.0; 5], 4, 3).top.iter().map(|(token, _)| *token).collect();
        assert_eq!(tokens, [0, 1, 2]);
    }
}
