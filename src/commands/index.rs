//! `INFER.INDEX`: the settings of a retrieval index.

use redis_module::Context;

use super::clearing::is_anything_left;
use super::index_work;
use super::losses;
use super::retrieval::read_settings;
use super::runtime::engine;
use crate::engine::{Purpose, Served};
use crate::logic::index::IndexSettings;
use crate::logic::keys::{FIRST_GENERATION, IndexKeys};
use crate::logic::limits;
use crate::logic::options::{CreateIndex, Kv};
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::reply::{Failure, Value, shown};
use crate::redis_api::vset;

/* INFER.INDEX index EMBEDMODEL m GENMODEL g [MAXTOKENS n] [OVERLAP n] [QUANT NOQUANT|Q8|BIN] [KV EXACT|CHUNK [REREAD n]] */
/// Creates an index. Creating it again with the same settings changes nothing; other settings are refused, because what
/// is stored depends on them.
pub fn index(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = CreateIndex::parse(args)?;
    vset::require(ctx)?;
    let engine = engine()?;
    let embedder = engine.find_for(request.embed_model, Purpose::Embedding)?;
    let generator = engine.find_for(request.gen_model, Purpose::Generation)?;
    check_models(&embedder, &generator, request.max_tokens, request.kv)?;
    let settings = IndexSettings {
        embed_model: embedder.model.name.clone(),
        gen_model: generator.model.name.clone(),
        embedder: embedder.embedder_fingerprint(),
        dim: embedder.model.facts.embedding_dim,
        max_tokens: request.max_tokens,
        overlap: request.overlap,
        quant: request.quant,
        kv: request.kv,
        tokenizer: generator.model.facts.tokenizer.clone(),
        generation: FIRST_GENERATION,
    };
    let keys = IndexKeys::new(request.index);
    let keyspace = Keyspace::of(ctx);
    match read_settings(&keyspace, &keys)? {
        None if is_anything_left(&keyspace, &keys, generations())? => return Err(leftover(&keys)),
        None => {
            write_settings(&keyspace, &keys, &settings)?;
            // Of an index of this name that is gone.
            let db = Caller::of(ctx, "INFER.INDEX").db;
            index_work::forget_reindex(db, request.index);
            losses::forget(db, request.index);
        }
        Some(existing) if existing == (IndexSettings { generation: existing.generation, ..settings.clone() }) => {}
        Some(existing) => return Err(different(&keys, &existing, &settings)),
    }
    Ok(Outcome::Reply(Value::OK))
}

/// Whether an index can have these models, with chunks of up to `max_tokens` tokens that are read like this.
pub(super) fn check_models(embedder: &Served, generator: &Served, max_tokens: u32, kv: Kv) -> Result<(), Failure> {
    if kv != Kv::Exact {
        generator.check_splicing()?;
    }
    if max_tokens > embedder.context {
        let (reads, name) = (embedder.context, &embedder.model.name);
        return Err(Failure::new(
            "CTXLIMIT",
            format!("MAXTOKENS {max_tokens} is more than the {reads} tokens that model '{name}' reads at once"),
        ));
    }
    if !generator.model.has_template() {
        return Err(Failure::err(format!(
            "model '{}' has no usable chat template, which INFER.RAG needs; use an instruct model as GENMODEL",
            generator.model.name
        )));
    }
    Ok(())
}

/// Makes these the settings of an index.
pub(super) fn write_settings(
    keyspace: &Keyspace<'_>,
    keys: &IndexKeys,
    settings: &IndexSettings,
) -> Result<(), Failure> {
    let fields = settings.to_fields();
    let mut args = vec![keys.settings()];
    for (name, value) in &fields {
        args.extend([name.as_bytes(), value.as_bytes()]);
    }
    keyspace.write("HSET", &args)?;
    Ok(())
}

/// The generations of which something of an earlier index may be left.
fn generations() -> impl Iterator<Item = u32> {
    (FIRST_GENERATION..).take(limits::GENERATIONS_ASKED as usize)
}

/// Documents of an index whose settings were deleted, or that is being dropped, would pass for those of the new one.
fn leftover(keys: &IndexKeys) -> Failure {
    let index = shown(keys.settings());
    Failure::err(format!(
        "there are keys of an earlier index {index}; INFER.DROPINDEX removes them, or use another name"
    ))
}

/// Names every setting that differs.
fn different(keys: &IndexKeys, existing: &IndexSettings, asked: &IndexSettings) -> Failure {
    let (existing, asked) = (existing.to_fields(), asked.to_fields());
    let changes: Vec<String> = existing
        .iter()
        .zip(&asked)
        .filter(|((name, old), (_, new))| old != new && *name != "generation")
        .map(|((name, old), (_, new))| format!("{name} is {old}, not {new}"))
        .collect();
    Failure::err(format!(
        "index {} exists with other settings ({}); use another name, or INFER.REINDEX for other models",
        shown(keys.settings()),
        changes.join(", ")
    ))
}
