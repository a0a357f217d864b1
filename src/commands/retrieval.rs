//! What the index commands share: reading an index's settings, finding its models, and searching it with a query
//! vector.

use std::sync::Arc;

use super::runtime::engine;
use crate::engine::{EngineError, Purpose, Served};
use crate::logic::attributes::ChunkAttributes;
use crate::logic::index::IndexSettings;
use crate::logic::keys::{DataKeys, IndexKeys, chunk_id};
use crate::logic::{limits, vector};
use crate::redis_api::keyspace::{Keyspace, Reply};
use crate::redis_api::reply::{Failure, Value, shown};
use crate::redis_api::vset::{self, Hit};

/// A chunk that a query found.
#[derive(Debug)]
pub(super) struct Found {
    /// Path and chunk number, as in the name of the token key.
    pub id: String,
    /// Where the chunk comes from.
    pub attributes: ChunkAttributes,
    /// Similarity, 0 to 1.
    pub score: f64,
    /// Its token ids.
    pub tokens: Vec<u32>,
}

impl Found {
    /// The fields of a hit or source in a reply.
    pub(super) fn fields(&self) -> Vec<(&'static str, Value)> {
        let (first, last) = (self.attributes.first_line, self.attributes.last_line);
        vec![
            ("id", Value::from(self.id.as_str())),
            ("path", Value::from(self.attributes.path.as_str())),
            ("chunk", Value::from(self.attributes.chunk)),
            ("lines", Value::Array(vec![Value::from(first), Value::from(last)])),
            ("score", Value::Double(self.score)),
        ]
    }
}

/// The settings of an index; `None` when there is no such key.
pub(super) fn read_settings(keyspace: &Keyspace<'_>, keys: &IndexKeys) -> Result<Option<IndexSettings>, Failure> {
    let fields = read_hash(keyspace, keys.settings())?;
    if fields.is_empty() {
        return Ok(None);
    }
    let fields = fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    let not_an_index =
        |e| Failure::new("NOINDEX", format!("key {} is a hash but not an index: {e}", shown(keys.settings())));
    IndexSettings::from_fields(fields).map(Some).map_err(not_an_index)
}

/// The settings of an index that must be there.
pub(super) fn require_settings(keyspace: &Keyspace<'_>, keys: &IndexKeys) -> Result<IndexSettings, Failure> {
    read_settings(keyspace, keys)?
        .ok_or_else(|| Failure::new("NOINDEX", format!("no index {}; INFER.INDEX creates one", shown(keys.settings()))))
}

/// Name and value of a hash field.
type HashField = (Vec<u8>, Vec<u8>);

/// Fails when the index was made anew since `settings` were read.
pub(super) fn require_unchanged(
    keyspace: &Keyspace<'_>,
    keys: &IndexKeys,
    settings: &IndexSettings,
) -> Result<(), Failure> {
    if require_settings(keyspace, keys)? == *settings {
        return Ok(());
    }
    Err(Failure::err(format!("index {} was changed while the command ran; send it again", shown(keys.settings()))))
}

/// All fields of a hash; none when there is no such key.
pub(super) fn read_hash(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<Vec<HashField>, Failure> {
    let Reply::Map(fields) = keyspace.read("HGETALL", &[key])? else {
        return Ok(Vec::new());
    };
    let text = |(name, value)| match (name, value) {
        (Reply::Bytes(name), Reply::Bytes(value)) => Some((name, value)),
        _ => None,
    };
    Ok(fields.into_iter().filter_map(text).collect())
}

/// The models of an index.
#[derive(Debug)]
pub(super) struct IndexModels {
    pub embedder: Arc<Served>,
    pub generator: Arc<Served>,
}

/// Finds both models of an index and checks that they are the ones it was made with.
pub(super) fn index_models(settings: &IndexSettings) -> Result<IndexModels, Failure> {
    let engine = engine()?;
    let embedder = engine.find_for(&settings.embed_model, Purpose::Embedding)?;
    let generator = engine.find_for(&settings.gen_model, Purpose::Generation)?;
    let (dim, tokenizer) = (embedder.model.facts.embedding_dim, &generator.model.facts.tokenizer);
    if dim != settings.dim {
        let (name, was) = (&settings.embed_model, settings.dim);
        return Err(mismatch(format!("the index has vectors of {was} numbers, but model '{name}' now makes {dim}")));
    }
    if embedder.embedder_fingerprint() != settings.embedder {
        let name = &settings.embed_model;
        return Err(mismatch(format!("the stored vectors were made by another model than the one loaded as '{name}'")));
    }
    if *tokenizer != settings.tokenizer {
        return Err(mismatch(format!(
            "the stored tokens were made by another tokenizer than that of model '{}'",
            settings.gen_model
        )));
    }
    Ok(IndexModels { embedder, generator })
}

fn mismatch(text: String) -> Failure {
    Failure::new(
        "MISMATCH",
        format!("{text}; load the model the index was made with, or make a new index and ingest again"),
    )
}

/// The one normalised vector of a query.
pub(super) fn query_vector(vectors: Result<Vec<Vec<f32>>, EngineError>) -> Result<Vec<f32>, EngineError> {
    let mut vector = vectors?.pop().ok_or_else(|| EngineError::Internal("the query has no vector".to_owned()))?;
    vector::l2_normalize(&mut vector);
    Ok(vector)
}

/// The `k` chunks nearest to `query` with their tokens, best first: one consistent view, because the caller holds
/// Redis' lock.
///
/// A chunk whose tokens have expired or been deleted is left out; the next ingest of its path brings it back.
///
/// # Errors
/// `ERR` when the index is no longer the one with `settings`, for which the query was embedded.
pub(super) fn find(
    keyspace: &Keyspace<'_>,
    keys: &IndexKeys,
    settings: &IndexSettings,
    query: &[f32],
    k: u32,
) -> Result<Vec<Found>, Failure> {
    require_unchanged(keyspace, keys, settings)?;
    let keys = keys.data(settings.generation);
    let hits = vset::similar(keyspace, &keys.vectors(), query, k)?;
    let mut found = Vec::with_capacity(hits.len());
    for hit in hits {
        let chunk = read_chunk(keyspace, &keys, hit)?;
        // Two versions of a chunk can be there only when somebody deleted the document's hash between two ingests.
        found.extend(chunk.filter(|chunk| found.iter().all(|other: &Found| other.id != chunk.id)));
    }
    Ok(found)
}

fn read_chunk(keyspace: &Keyspace<'_>, keys: &DataKeys, hit: Hit) -> Result<Option<Found>, Failure> {
    // Elements that somebody else put into the vector set have no attributes of ours, and no tokens.
    let Some(attributes) = hit.attributes.and_then(|json| ChunkAttributes::from_json(&json).ok()) else {
        return Ok(None);
    };
    let id = chunk_id(&attributes.path, attributes.chunk);
    let Some(tokens) = keyspace.token_key_if_present(&keys.tokens(&id), limits::KEY_TOKENS_MAX)? else {
        return Ok(None);
    };
    Ok(Some(Found { id, attributes, score: hit.score, tokens }))
}
