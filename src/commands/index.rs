//! `INFER.INDEX`: the settings of a retrieval index.

use redis_module::Context;

use super::retrieval::read_settings;
use super::runtime::engine;
use crate::engine::Purpose;
use crate::logic::index::IndexSettings;
use crate::logic::keys::{FIRST_GENERATION, IndexKeys};
use crate::logic::options::CreateIndex;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::reply::{Failure, Value, shown};
use crate::redis_api::vset;

/* INFER.INDEX index EMBEDMODEL m GENMODEL g [MAXTOKENS n] [OVERLAP n] [QUANT NOQUANT|Q8|BIN] */
/// Creates an index. Creating it again with the same settings changes nothing; other settings are refused, because what
/// is stored depends on them.
pub fn index(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = CreateIndex::parse(args)?;
    vset::require(ctx)?;
    let engine = engine()?;
    let embedder = engine.find_for(request.embed_model, Purpose::Embedding)?;
    let generator = engine.find_for(request.gen_model, Purpose::Generation)?;
    if request.max_tokens > embedder.context {
        let (asked, reads) = (request.max_tokens, embedder.context);
        return Err(Failure::new(
            "CTXLIMIT",
            format!(
                "MAXTOKENS {asked} is more than the {reads} tokens that model '{}' reads at once",
                embedder.model.name
            ),
        ));
    }
    if !generator.model.has_template() {
        return Err(Failure::err(format!(
            "model '{}' has no usable chat template, which INFER.RAG needs; use an instruct model as GENMODEL",
            generator.model.name
        )));
    }
    let settings = IndexSettings {
        embed_model: embedder.model.name.clone(),
        gen_model: generator.model.name.clone(),
        embedder: embedder.embedder_fingerprint(),
        dim: embedder.model.facts.embedding_dim,
        max_tokens: request.max_tokens,
        overlap: request.overlap,
        quant: request.quant,
        tokenizer: generator.model.facts.tokenizer.clone(),
        generation: FIRST_GENERATION,
    };
    let keys = IndexKeys::new(request.index);
    let keyspace = Keyspace::of(ctx);
    match read_settings(&keyspace, &keys)? {
        None if vset::exists(&keyspace, &keys.data(FIRST_GENERATION).vectors())? => return Err(leftover(&keys)),
        None => write_settings(&keyspace, &keys, &settings)?,
        Some(existing) if existing == (IndexSettings { generation: existing.generation, ..settings.clone() }) => {}
        Some(existing) => return Err(different(&keys, &existing, &settings)),
    }
    Ok(Outcome::Reply(Value::OK))
}

fn write_settings(keyspace: &Keyspace<'_>, keys: &IndexKeys, settings: &IndexSettings) -> Result<(), Failure> {
    let fields = settings.to_fields();
    let mut args = vec![keys.settings()];
    for (name, value) in &fields {
        args.extend([name.as_bytes(), value.as_bytes()]);
    }
    keyspace.write("HSET", &args)?;
    Ok(())
}

/// Vectors and tokens of an index whose settings were deleted would pass for those of the new one.
fn leftover(keys: &IndexKeys) -> Failure {
    let vectors = shown(&keys.data(FIRST_GENERATION).vectors());
    Failure::err(format!("{vectors} holds the vectors of an earlier index; delete that key first, or use another name"))
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
        "index {} exists with other settings ({}); use another name",
        shown(keys.settings()),
        changes.join(", ")
    ))
}
