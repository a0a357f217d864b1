//! `INFER.CACHEGET`: the answer to a prompt that was asked before, or to one that is nearly the same.
//!
//! The very prompt is found by its hash, with one key, on the main thread and without a model. Else the prompt is embedded and
//! the nearest prompts of the scope are looked at.

use std::time::{Duration, Instant};

use redis_module::Context;

use super::cache_entry::embedder_for;
use super::cache_lookup::{self, Finding, How};
use super::find::one_vector;
use super::runtime::{engine, queue_limit};
use super::text_reply::us;
use super::waiting::{Embedding, block_for_model};
use crate::engine::Errand;
use crate::logic::cache::{CacheKeys, CacheSettings};
use crate::logic::options::CacheGet;
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::keyspace_thread;
use crate::redis_api::pending::PendingReply;
use crate::redis_api::reply::{Answer, Failure, Value};
use crate::redis_api::vset;

const COMMAND: &str = "INFER.CACHEGET";

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
    let (settings, entry) = cache_lookup::exact(&keyspace, &keys, request.scope, request.prompt)?;
    let now = |finding| reply(finding, Duration::ZERO, request.with_stats).map(Outcome::Reply);
    if let Some(entry) = entry {
        return now(Finding::exact(entry));
    }
    let Some(settings) = settings.filter(|_| request.wants_similar()) else { return now(Finding::nothing()) };
    let served = embedder_for(Some(&settings), None)?;
    let permit = served.permit(queue_limit())?;
    let (pending, ticket) = block_for_model(ctx, COMMAND, &served)?;
    let embedding = Embedding { served, permit, ticket };
    let question = Question {
        caller: Caller::of(ctx, COMMAND).with_key(ctx, keys.settings()),
        keys,
        settings,
        prompt: request.prompt.to_owned(),
        scope: request.scope.to_owned(),
        threshold: request.threshold,
        with_stats: request.with_stats,
    };
    let errand = Errand::of(pending.client_id(), &embedding.ticket, question.prompt.len());
    engine()?.run(errand, move || question.ask(embedding, pending))?;
    Ok(Outcome::Pending)
}

impl Question {
    fn ask(self, embedding: Embedding, pending: PendingReply) {
        let (prompt, since) = (self.prompt.clone(), Instant::now());
        embedding.run(&[&prompt], move |vectors| match one_vector("prompt", vectors) {
            Ok(vector) => {
                let embedded = since.elapsed();
                keyspace_thread::run(self.caller.clone(), move |keyspace| {
                    let found = keyspace.and_then(|keyspace| {
                        let Self { keys, settings, scope, threshold, .. } = &self;
                        cache_lookup::similar(keyspace, keys, settings, scope, &vector, *threshold)
                    });
                    pending.finish(found.and_then(|finding| reply(finding, embedded, self.with_stats)));
                });
            }
            Err(failure) => pending.finish(Err(failure)),
        });
    }
}

/// Counts what was found and makes the reply. Embedding the prompt took `embedded`.
fn reply(finding: Finding, embedded: Duration, with_stats: bool) -> Answer {
    let Finding { how, entry, score, searched } = finding;
    how.count(&engine()?.metrics);
    let (prompt, answer) = entry.map_or((Value::Null, Value::Null), |entry| {
        let answer = if how == How::Not { Value::Null } else { entry.answer.into() };
        (entry.prompt.into(), answer)
    });
    if !with_stats {
        return Ok(answer);
    }
    Ok(Value::Map(vec![
        ("answer", answer),
        ("hit", how.name().into()),
        ("score", score.map_or(Value::Null, Value::Double)),
        ("prompt", prompt),
        ("embed_us", us(embedded)),
        ("search_us", us(searched)),
    ]))
}
