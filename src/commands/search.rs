//! `INFER.SEARCH`: the chunks of an index that are nearest to a query.

use redis_module::Context;

use super::retrieval::{Found, find, index_models, query_vector, require_settings};
use super::runtime::{engine, queue_limit};
use super::waiting::{Embedding, block_for_model};
use crate::engine::Served;
use crate::logic::keys::IndexKeys;
use crate::logic::options::Search;
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::keyspace_thread;
use crate::redis_api::pending::PendingReply;
use crate::redis_api::reply::{Answer, Failure, Value};
use crate::redis_api::vset;

/* INFER.SEARCH index query [K n] [WITHTEXT] */
/// The K nearest chunks, best first.
pub fn search(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = Search::parse(args)?;
    refuse_blocking(ctx, "INFER.SEARCH")?;
    vset::require(ctx)?;
    keyspace_thread::start()?;
    let keys = IndexKeys::new(request.index);
    let settings = require_settings(&Keyspace::of(ctx), &keys)?;
    let models = index_models(&settings)?;
    let permit = models.embedder.permit(queue_limit())?;
    let (pending, ticket) = block_for_model(ctx, "INFER.SEARCH", &models.embedder)?;
    let embedding = Embedding { served: models.embedder, permit, ticket };
    let (caller, query, k) = (Caller::of(ctx, "INFER.SEARCH"), request.query.to_owned(), request.k);
    let generator = request.with_text.then_some(models.generator);
    engine()?.run(move || {
        embedding.run(&[&query], move |vectors| match query_vector(vectors) {
            Ok(vector) => {
                keyspace_thread::run(caller, move |keyspace| {
                    let found = keyspace.and_then(|keyspace| find(keyspace, &keys, &settings, &vector, k));
                    answer(pending, found, generator);
                });
            }
            Err(error) => pending.finish(Err(error.into())),
        });
    })?;
    Ok(Outcome::Pending)
}

/// Turning tokens back into text is left to a desk thread: this one holds Redis' lock.
fn answer(pending: PendingReply, found: Result<Vec<Found>, Failure>, generator: Option<std::sync::Arc<Served>>) {
    let (found, generator) = match (found, generator) {
        (Ok(found), Some(generator)) => (found, generator),
        (found, _) => {
            return pending
                .finish(found.map(|found| Value::Array(found.iter().map(|hit| Value::Map(hit.fields())).collect())));
        }
    };
    if let Ok(engine) = engine() {
        let task = move || pending.finish(with_text(&found, &generator));
        if let Err(error) = engine.run(task) {
            log::warn!("INFER.SEARCH: {error}");
        }
    }
}

fn with_text(found: &[Found], generator: &Served) -> Answer {
    let mut hits = Vec::with_capacity(found.len());
    for hit in found {
        let mut fields = hit.fields();
        fields.push(("text", Value::from(generator.model.detokenize(&hit.tokens)?)));
        hits.push(Value::Map(fields));
    }
    Ok(Value::Array(hits))
}
