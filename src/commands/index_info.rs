//! `INFER.INDEXINFO`: what an index holds. Every number of its keys is kept as a counter, so no key is counted here.

use redis_module::Context;

use super::cache_info;
use super::document::{Stats, documents};
use super::index_work;
use super::retrieval::require_settings;
use crate::logic::cache::CacheKeys;
use crate::logic::keys::IndexKeys;
use crate::logic::options::IndexName;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::reply::{Failure, Value};
use crate::redis_api::vset;

/// Bytes of a stored token id.
const TOKEN_BYTES: u64 = 4;

/* INFER.INDEXINFO index */
/// The settings of an index, what it holds, and what is being done with it.
pub fn index_info(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    const COMMAND: &str = "INFER.INDEXINFO";
    let request = IndexName::parse(COMMAND, args)?;
    vset::require(ctx)?;
    let (keyspace, keys) = (Keyspace::of(ctx), IndexKeys::new(request.index));
    let settings = require_settings(&keyspace, &keys)?;
    let data = keys.data(settings.generation);
    keyspace.check_here(&data.stats())?;
    let stats = Stats::read(&keyspace, &data)?;
    let vectors = vset::size(&keyspace, &data.vectors())?;
    let db = Caller::of(ctx, COMMAND).db;
    Ok(Outcome::Reply(Value::Map(vec![
        ("documents", documents(&keyspace, &data)?.into()),
        ("chunks", stats.chunks.into()),
        ("tokens", stats.tokens.into()),
        ("vectors", vectors.visible.into()),
        ("hidden", vectors.hidden.into()),
        ("vector_bytes", vectors.bytes.into()),
        ("token_bytes", stats.tokens.saturating_mul(TOKEN_BYTES).into()),
        ("embed_model", settings.embed_model.into()),
        ("gen_model", settings.gen_model.into()),
        ("dim", settings.dim.into()),
        ("quant", settings.quant.name().into()),
        ("max_tokens", settings.max_tokens.into()),
        ("overlap", settings.overlap.into()),
        ("kv", settings.kv.name().into()),
        ("reread", settings.kv.reread().into()),
        ("kv_pending", index_work::ahead(db, request.index).into()),
        ("generation", settings.generation.into()),
        ("epoch", stats.epoch.into()),
        ("answers", cache_info::entries(&keyspace, &CacheKeys::of_index(request.index))?.into()),
        ("pending", index_work::ingests(db, request.index).into()),
        ("reindex", index_work::reindex(db, request.index).map_or(Value::Null, reindex)),
    ])))
}

fn reindex(progress: index_work::Progress) -> Value {
    Value::Map(vec![
        ("state", progress.state.name().into()),
        ("done", progress.done.into()),
        ("documents", progress.documents.into()),
        ("error", progress.error.map_or(Value::Null, Value::from)),
    ])
}
