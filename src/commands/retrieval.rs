//! What the index commands share: reading an index's settings, and finding its models.

use std::sync::Arc;

use super::runtime::engine;
use crate::engine::{Purpose, Served};
use crate::logic::index::IndexSettings;
use crate::logic::keys::{DataKeys, IndexKeys};
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::reply::{Failure, shown};

/// The settings of an index; `None` when there is no such key.
pub(super) fn read_settings(keyspace: &Keyspace<'_>, keys: &IndexKeys) -> Result<Option<IndexSettings>, Failure> {
    settings_at(keyspace, keys.settings())
}

/// The settings of an index in the hash at `key`; `None` when there is no such key.
pub(super) fn settings_at(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<Option<IndexSettings>, Failure> {
    let Some(fields) = read_hash(keyspace, key, &IndexSettings::FIELDS)? else { return Ok(None) };
    let fields = fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    let not_an_index = |e| Failure::new("NOINDEX", format!("key {} is a hash but not an index: {e}", shown(key)));
    IndexSettings::from_fields(fields).map(Some).map_err(not_an_index)
}

/// The settings of an index that must be there.
pub(super) fn require_settings(keyspace: &Keyspace<'_>, keys: &IndexKeys) -> Result<IndexSettings, Failure> {
    read_settings(keyspace, keys)?.ok_or_else(|| no_index(keys))
}

/// There is no index of this name.
pub(super) fn no_index(keys: &IndexKeys) -> Failure {
    Failure::new("NOINDEX", format!("no index {}; INFER.INDEX creates one", shown(keys.settings())))
}

/// Name and value of a hash field.
type HashField = (Vec<u8>, Vec<u8>);

/// The keys of the present generation. Fails when the index has got other models since `settings` were read.
pub(super) fn require_same_models(
    keyspace: &Keyspace<'_>,
    keys: &IndexKeys,
    settings: &IndexSettings,
) -> Result<DataKeys, Failure> {
    let now = require_settings(keyspace, keys)?;
    if (&now.embedder, now.dim, &now.tokenizer) == (&settings.embedder, settings.dim, &settings.tokenizer) {
        return Ok(keys.data(now.generation));
    }
    Err(Failure::err(format!("index {} was changed while the command ran; send it again", shown(keys.settings()))))
}

/// Those of these fields that the hash at `key` has; `None` when there is no such key. Others are not read: anybody can make a hash of
/// millions of fields.
pub(super) fn read_hash(
    keyspace: &Keyspace<'_>,
    key: &[u8],
    names: &[&str],
) -> Result<Option<Vec<HashField>>, Failure> {
    let fields: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    let values = keyspace.hash_fields(key, &fields)?;
    let named = |values: Vec<Option<Vec<u8>>>| -> Vec<HashField> {
        let pair = |(name, value): (&&[u8], Option<Vec<u8>>)| value.map(|value| (name.to_vec(), value));
        fields.iter().zip(values).filter_map(pair).collect()
    };
    Ok(values.map(named))
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
        format!("{text}; load the model the index was made with, or give it the present one with INFER.REINDEX"),
    )
}
