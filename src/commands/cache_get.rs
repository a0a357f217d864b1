//! `INFER.CACHEGET`: the answer to a prompt that was asked before, or to one that is nearly the same.
//!
//! The very prompt is found by its hash, with one key, on the main thread and without a model. Else the prompt is embedded and
//! the nearest prompts of the scope are looked at.

use std::time::{Duration, Instant};

use redis_module::Context;

use super::cache_entry::{embedder_for, read_entry, read_settings};
use super::find::one_vector;
use super::runtime::{engine, queue_limit};
use super::waiting::{Embedding, block_for_model};
use crate::engine::Metrics;
use crate::logic::cache::{CacheKeys, CacheSettings, Entry, entry_id, scope_filter};
use crate::logic::limits;
use crate::logic::options::CacheGet;
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::keyspace_thread;
use crate::redis_api::pending::PendingReply;
use crate::redis_api::reply::{Answer, Failure, Value};
use crate::redis_api::vset::{self, Effort, Wanted};

const COMMAND: &str = "INFER.CACHEGET";

/// How a prompt was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Exact,
    Similar,
    Not,
}

impl How {
    /// The word in the reply.
    fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Similar => "similar",
            Self::Not => "miss",
        }
    }

    fn count(self, metrics: &Metrics) {
        match self {
            Self::Exact => metrics.cache_exact.increment(),
            Self::Similar => metrics.cache_similar.increment(),
            Self::Not => metrics.cache_misses.increment(),
        }
    }
}

/// What a prompt finds.
#[derive(Debug)]
struct Finding {
    how: How,
    /// That of the very prompt, or the nearest one that is still there, even if it is not near enough.
    entry: Option<Entry>,
    score: Option<f64>,
    embedded: Duration,
    searched: Duration,
}

impl Finding {
    fn at_once(how: How, entry: Option<Entry>) -> Self {
        let score = entry.as_ref().map(|_| limits::MINSCORE_MAX);
        Self { how, entry, score, embedded: Duration::ZERO, searched: Duration::ZERO }
    }

    /// Counts it and makes the reply.
    fn reply(self, with_stats: bool) -> Answer {
        self.how.count(&engine()?.metrics);
        let (prompt, answer) = self.entry.map_or((Value::Null, Value::Null), |entry| {
            let answer = if self.how == How::Not { Value::Null } else { entry.answer.into() };
            (entry.prompt.into(), answer)
        });
        if !with_stats {
            return Ok(answer);
        }
        let us = |time: Duration| Value::from(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        Ok(Value::Map(vec![
            ("answer", answer),
            ("hit", self.how.name().into()),
            ("score", self.score.map_or(Value::Null, Value::Double)),
            ("prompt", prompt),
            ("embed_us", us(self.embedded)),
            ("search_us", us(self.searched)),
        ]))
    }
}

/// A prompt that is not in the cache as it is.
struct Question {
    caller: Caller,
    keys: CacheKeys,
    /// Those the prompt is embedded for.
    settings: CacheSettings,
    prompt: String,
    scope: Vec<u8>,
    threshold: f64,
    with_stats: bool,
}

/* INFER.CACHEGET cache prompt [THRESHOLD f] [SCOPE s] [WITHSTATS] */
/// The stored answer, or null.
pub fn cache_get(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = CacheGet::parse(args)?;
    refuse_blocking(ctx, COMMAND)?;
    vset::require(ctx)?;
    keyspace_thread::start(ctx)?;
    let (keyspace, keys) = (Keyspace::of(ctx), CacheKeys::new(request.cache));
    // All that may be needed is asked for, so that what a user is refused does not depend on what is stored.
    vset::check_searching(&keyspace, &keys.vectors())?;
    let entry = read_entry(&keyspace, &keys, entry_id(request.scope, request.prompt).as_bytes())?;
    let settings = read_settings(&keyspace, &keys)?;
    let now = |finding: Finding| finding.reply(request.with_stats).map(Outcome::Reply);
    // Without settings the cache is being removed, whatever is left of it.
    let Some(settings) = settings else { return now(Finding::at_once(How::Not, None)) };
    let is_asked = |entry: &Entry| entry.is_of(request.scope, request.prompt) && entry.is_in(&settings);
    if let Some(entry) = entry.filter(is_asked) {
        return now(Finding::at_once(How::Exact, Some(entry)));
    }
    if !request.wants_similar() {
        return now(Finding::at_once(How::Not, None));
    }
    let served = embedder_for(Some(&settings), None)?;
    let permit = served.permit(queue_limit())?;
    let (pending, ticket) = block_for_model(ctx, COMMAND, &served)?;
    let embedding = Embedding { served, permit, ticket };
    let question = Question {
        caller: Caller::of(ctx, COMMAND),
        keys,
        settings,
        prompt: request.prompt.to_owned(),
        scope: request.scope.to_owned(),
        threshold: request.threshold,
        with_stats: request.with_stats,
    };
    engine()?.run(move || question.ask(embedding, pending))?;
    Ok(Outcome::Pending)
}

impl Question {
    fn ask(self, embedding: Embedding, pending: PendingReply) {
        let (prompt, since) = (self.prompt.clone(), Instant::now());
        embedding.run(&[&prompt], move |vectors| match one_vector("prompt", vectors) {
            Ok(vector) => {
                let embedded = since.elapsed();
                keyspace_thread::run(self.caller.clone(), move |keyspace| {
                    let found = keyspace.and_then(|keyspace| self.look_up(keyspace, &vector));
                    let reply = |finding| Finding { embedded, ..finding }.reply(self.with_stats);
                    pending.finish(found.and_then(reply));
                });
            }
            Err(failure) => pending.finish(Err(failure)),
        });
    }

    fn look_up(&self, keyspace: &Keyspace<'_>, vector: &[f32]) -> Result<Finding, Failure> {
        let miss = Finding::at_once(How::Not, None);
        // Removed meanwhile, and perhaps made anew with another model.
        let settings = read_settings(keyspace, &self.keys)?.filter(|now| now.has_vectors_of(&self.settings));
        let Some(settings) = settings else { return Ok(miss) };
        let (filter, count) = (scope_filter(&self.scope), limits::CACHE_CANDIDATES);
        let wanted = Wanted { vector, count, ef: None, filter: Some(&filter), effort: Effort::Near };
        let since = Instant::now();
        // It gives up wherever the scope has fewer entries than that; what is as near as a threshold asks is found before.
        let hits = vset::similar(keyspace, &self.keys.vectors(), &wanted)?.hits;
        let searched = since.elapsed();
        for hit in hits {
            // Others may have put elements into the set, and other scopes may have the same hash.
            let entry = read_entry(keyspace, &self.keys, &hit.element)?
                .filter(|entry| entry.scope == self.scope && entry.is_in(&settings));
            if entry.is_some() {
                let how = if hit.score >= self.threshold { How::Similar } else { How::Not };
                return Ok(Finding { how, entry, score: Some(hit.score), searched, ..miss });
            }
        }
        Ok(Finding { searched, ..miss })
    }
}
