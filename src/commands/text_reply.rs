//! The reply of a command that generates text: the text alone, or a map with what the client asked for.

use std::time::Duration;

use crate::engine::{Generation, Served};
use crate::logic::logprobs::TokenLogprobs;
use crate::logic::options::GenerateOptions;
use crate::redis_api::reply::Value;

/// The finish reason of an answer that no model gave, because nothing was found to answer from.
const NO_SOURCES: &str = "no_sources";

/// What is told besides the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Detail {
    tokens: bool,
    logprobs: bool,
    stats: bool,
}

/// Fields of a map, in order.
pub(super) type Fields = Vec<(&'static str, Value)>;

/// What a command that does more than generate adds to a map.
#[derive(Debug, Default)]
pub(super) struct More {
    /// After the text; any makes the reply a map.
    pub fields: Fields,
    /// At the end, only with `WITHSTATS`.
    pub stats: Fields,
}

impl Detail {
    pub(super) fn of(options: &GenerateOptions) -> Self {
        Self { tokens: options.with_tokens, logprobs: options.logprobs.is_some(), stats: options.with_stats }
    }

    /// The reply with `generation`, `None` when there was nothing to answer from. Which fields it has depends on the
    /// options alone.
    pub(super) fn reply(self, mut generation: Option<Generation>, served: &Served, more: More) -> Value {
        let finish_reason = generation.as_ref().map_or(NO_SOURCES, |it| it.finish_reason.name());
        let text = generation.as_mut().map_or(Value::Null, |it| Value::from(std::mem::take(&mut it.text)));
        self.map(text, finish_reason, generation.as_ref(), served, more)
    }

    /// The reply with a text that was generated before, with the same fields.
    pub(super) fn reply_again(self, text: String, finish_reason: &str, served: &Served, more: More) -> Value {
        self.map(text.into(), finish_reason, None, served, more)
    }

    fn map(self, text: Value, finish_reason: &str, told: Option<&Generation>, served: &Served, more: More) -> Value {
        if more.fields.is_empty() && !self.tokens && !self.logprobs && !self.stats {
            return text;
        }
        let mut fields = vec![("text", text), ("finish_reason", Value::from(finish_reason))];
        fields.extend(more.fields);
        if self.tokens {
            let tokens = told.map_or_else(Vec::new, |it| it.tokens.iter().copied().map(Value::from).collect());
            fields.push(("tokens", Value::Array(tokens)));
        }
        if self.logprobs {
            let all = told.map_or_else(Vec::new, |it| it.logprobs.iter().map(logprobs).collect());
            fields.push(("logprobs", Value::Array(all)));
        }
        if self.stats {
            fields.extend(stats(told, served));
            fields.extend(more.stats);
        }
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

/// A duration in microseconds.
pub(super) fn us(duration: Duration) -> Value {
    Value::from(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// The fields that `WITHSTATS` adds. Times in microseconds.
fn stats(generation: Option<&Generation>, served: &Served) -> Fields {
    let time = |of: fn(&Generation) -> Duration| us(generation.map_or(Duration::ZERO, of));
    let number = |of: fn(&Generation) -> usize| Value::from(generation.map_or(0, of));
    vec![
        ("prompt_tokens", number(|it| it.prompt_tokens)),
        ("cached_tokens", number(|it| it.cached_tokens)),
        ("completion_tokens", number(|it| it.completion_tokens)),
        ("drafted_tokens", number(|it| it.drafted_tokens)),
        ("accepted_tokens", number(|it| it.accepted_tokens)),
        ("prepare_us", time(|it| it.prepared)),
        ("queue_us", time(|it| it.queued)),
        ("prefill_us", time(|it| it.prefill)),
        ("decode_us", time(|it| it.decode)),
        ("ttft_us", time(|it| it.prepared + it.queued + it.prefill)),
        ("model", Value::from(served.model.name.as_str())),
        ("seed", generation.map_or(Value::Null, |it| Value::from(it.seed))),
    ]
}
