//! The reply of a command that generates text: the text alone, or a map with what the client asked for.

use crate::engine::{Generation, Served};
use crate::logic::logprobs::TokenLogprobs;
use crate::logic::options::GenerateOptions;
use crate::redis_api::reply::Value;

/// What is told besides the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Detail {
    tokens: bool,
    logprobs: bool,
    stats: bool,
}

impl Detail {
    pub(super) fn of(options: &GenerateOptions) -> Self {
        Self { tokens: options.with_tokens, logprobs: options.logprobs.is_some(), stats: options.with_stats }
    }

    /// The reply; `sources` are told after the text.
    pub(super) fn reply(self, generation: Generation, served: &Served, sources: Option<Value>) -> Value {
        if sources.is_none() && !self.tokens && !self.logprobs && !self.stats {
            return Value::from(generation.text);
        }
        let stats = if self.stats { stats(&generation, served) } else { Vec::new() };
        let mut fields = vec![("text", Value::from(generation.text))];
        fields.extend(sources.map(|sources| ("sources", sources)));
        if self.tokens {
            fields.push(("tokens", Value::Array(generation.tokens.into_iter().map(Value::from).collect())));
        }
        if self.logprobs {
            fields.push(("logprobs", Value::Array(generation.logprobs.iter().map(logprobs).collect())));
        }
        fields.extend(stats);
        Value::Map(fields)
    }
}

fn logprobs(of: &TokenLogprobs) -> Value {
    let pair = |&(token, logprob): &(u32, f32)| Value::Array(vec![Value::from(token), Value::Double(logprob.into())]);
    Value::Map(vec![
        ("token", Value::from(of.token)),
        ("logprob", Value::Double(of.logprob.into())),
        ("top", Value::Array(of.top.iter().map(pair).collect())),
    ])
}

/// The fields that `WITHSTATS` adds. Times in microseconds.
fn stats(generation: &Generation, served: &Served) -> Vec<(&'static str, Value)> {
    let us = |duration: std::time::Duration| Value::from(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    vec![
        ("finish_reason", Value::from(generation.finish_reason.name())),
        ("prompt_tokens", Value::from(generation.prompt_tokens)),
        ("cached_tokens", Value::from(generation.cached_tokens)),
        ("completion_tokens", Value::from(generation.completion_tokens)),
        ("queue_us", us(generation.queued)),
        ("prefill_us", us(generation.prefill)),
        ("decode_us", us(generation.decode)),
        ("ttft_us", us(generation.queued + generation.prefill)),
        ("model", Value::from(served.model.name.as_str())),
        ("seed", Value::from(generation.seed)),
    ]
}
