//! `INFER.INDEXINFO`: what an index holds. Every number of its keys is kept as a counter, so no key is counted here.

use redis_module::Context;

use super::cache_info;
use super::document::{Present, Size, Stats, documents};
use super::index_work;
use super::losses;
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
    let vectors = vset::size(&keyspace, &data.vectors())?;
    let listed = documents(&keyspace, &data)?;
    let present = Present { listed: listed.unsigned_abs(), visible: vectors.visible.unsigned_abs() };
    let stats = Stats::read(&keyspace, &data)?.beside(present);
    // What lost counters have counted since is the number of nothing.
    let chunks = if stats.unsure { present.visible } else { stats.size.chunks };
    let db = Caller::of(ctx, COMMAND).db;
    Ok(Outcome::Reply(Value::Map(vec![
        ("documents", listed.into()),
        ("chunks", chunks.into()),
        ("tokens", stats.size.tokens.into()),
        ("vectors", vectors.visible.into()),
        ("hidden", vectors.hidden.into()),
        ("vector_bytes", vectors.bytes.into()),
        ("token_bytes", stats.size.tokens.saturating_mul(TOKEN_BYTES).into()),
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
        ("lost", lost(&stats, present, losses::count(db, request.index))),
        ("reindex", index_work::reindex(db, request.index).map_or(Value::Null, reindex)),
    ])))
}

/// What is known to be lost of an index; null when nothing is. `missed` chunks were by searches.
fn lost(stats: &Stats, present: Present, missed: usize) -> Value {
    let Size { documents, chunks, .. } = stats.size;
    let Present { listed, visible } = present;
    // Counters that are themselves not right tell nothing of others.
    let more = |one: u64, other: u64| if stats.unsure { 0 } else { one.saturating_sub(other) };
    let lost = [
        ("documents", more(listed, documents)),
        ("paths", more(documents, listed)),
        ("vectors", more(chunks, visible)),
        ("leftover_vectors", more(visible, chunks)),
        ("chunks", missed as u64),
        ("counters", u64::from(stats.unsure)),
    ];
    if lost.iter().all(|(_, number)| *number == 0) {
        return Value::Null;
    }
    Value::Map(lost.into_iter().map(|(name, number)| (name, number.into())).collect())
}

fn reindex(progress: index_work::Progress) -> Value {
    Value::Map(vec![
        ("state", progress.state.name().into()),
        ("done", progress.done.into()),
        ("documents", progress.documents.into()),
        ("error", progress.error.map_or(Value::Null, Value::from)),
    ])
}
