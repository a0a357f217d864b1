//! What is stored of a document beside its chunks, and the counters of an index.

use std::collections::HashMap;

use super::retrieval::read_hash;
use super::runtime::since_1970;
use crate::logic::keys::DataKeys;
use crate::logic::limits;
use crate::logic::version::Version;
use crate::redis_api::keyspace::{Keyspace, Reply};
use crate::redis_api::reply::Failure;

/// Field of a document's hash, and of the counters, that holds the number of its chunks.
const CHUNKS: &str = "chunks";
/// The same for its tokens, those of the answering model.
const TOKENS: &str = "tokens";
/// Field of a document's hash with a hash over its text.
const HASH: &str = "hash";
/// Field of a document's hash with its `ATTRS`.
const ATTRS: &str = "attrs";
/// Counter that grows with every change of a document.
const EPOCH: &str = "epoch";
/// When that was, in nanoseconds since 1970.
const CHANGED: &str = "changed";

/// The hash of a document, `doc:{docs}:PATH`. All is empty when there is no such key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Document {
    /// Tokens of all chunks.
    pub tokens: u64,
    /// Hash over the whole text.
    pub hash: String,
    /// `ATTRS` as JSON.
    pub attributes: String,
    /// The version of each chunk; `None` where somebody else changed it.
    pub versions: Vec<Option<Version>>,
}

impl Document {
    /// Reads the hash at `key`.
    pub(super) fn read(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<Self, Failure> {
        let fields = Fields::read(keyspace, key)?;
        // Anybody can write the hash: it may not make us count to four billion.
        let chunks = fields.number(CHUNKS).min(limits::DOCUMENT_CHUNKS_MAX as u64);
        Ok(Self {
            tokens: fields.number(TOKENS),
            hash: fields.text(HASH),
            attributes: fields.text(ATTRS),
            versions: (0..chunks).map(|chunk| Version::parse(fields.get(&field(chunk)))).collect(),
        })
    }

    /// Makes the hash at `key`, which held `before`, hold this.
    pub(super) fn write(&self, keyspace: &Keyspace<'_>, key: &[u8], before: &Self) -> Result<(), Failure> {
        let gone: Vec<String> = (self.versions.len()..before.versions.len()).map(field).collect();
        if !gone.is_empty() {
            let args: Vec<&[u8]> = std::iter::once(key).chain(gone.iter().map(String::as_bytes)).collect();
            keyspace.write("HDEL", &args)?;
        }
        let named = [
            (CHUNKS, self.versions.len().to_string()),
            (TOKENS, self.tokens.to_string()),
            (HASH, self.hash.clone()),
            (ATTRS, self.attributes.clone()),
        ];
        let mut fields: Vec<(String, String)> =
            named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        for (chunk, version) in self.versions.iter().enumerate() {
            let is_new = before.versions.get(chunk) != Some(version);
            fields.extend(version.filter(|_| is_new).map(|version| (field(chunk), version.to_string())));
        }
        set(keyspace, key, &fields)
    }

    /// How much the document is of an index.
    fn size(&self) -> (u64, u64) {
        (self.versions.len() as u64, self.tokens)
    }
}

/// Name of the field with the version of a chunk.
fn field(chunk: impl std::fmt::Display) -> String {
    format!("chunk_{chunk}")
}

/// The counters of an index, `stats:{docs}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stats {
    pub chunks: u64,
    pub tokens: u64,
    pub epoch: u64,
    /// 0 where there is none: nothing was ever written, or not by this version, or the counters were evicted.
    pub changed: u64,
}

impl Stats {
    pub(super) fn read(keyspace: &Keyspace<'_>, keys: &DataKeys) -> Result<Self, Failure> {
        let fields = Fields::read(keyspace, &keys.stats())?;
        Ok(Self {
            chunks: fields.number(CHUNKS),
            tokens: fields.number(TOKENS),
            epoch: fields.number(EPOCH),
            changed: fields.number(CHANGED),
        })
    }

    pub(super) fn write(self, keyspace: &Keyspace<'_>, keys: &DataKeys) -> Result<(), Failure> {
        let now = u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX);
        // Later than the last one, whatever the clock says.
        let changed = now.max(self.changed.saturating_add(1));
        let fields = [(CHUNKS, self.chunks), (TOKENS, self.tokens), (EPOCH, self.epoch), (CHANGED, changed)];
        set(keyspace, &keys.stats(), &fields.map(|(name, number)| (name.to_owned(), number.to_string())))
    }

    /// After one document became another.
    pub(super) fn changed(self, before: &Document, after: &Document) -> Self {
        let count = |all: u64, before: u64, after: u64| all.saturating_sub(before).saturating_add(after);
        let ((chunks_before, tokens_before), (chunks, tokens)) = (before.size(), after.size());
        Self {
            chunks: count(self.chunks, chunks_before, chunks),
            tokens: count(self.tokens, tokens_before, tokens),
            epoch: self.epoch.saturating_add(1),
            changed: self.changed,
        }
    }

    /// Another one with each change of a document, also where counters that were lost count anew; without a space. `None` where
    /// that cannot be told.
    pub(super) fn version(&self) -> Option<String> {
        (self.changed > 0).then(|| format!("{}.{}", self.epoch, self.changed))
    }
}

/// How many documents an index has.
pub(super) fn documents(keyspace: &Keyspace<'_>, keys: &DataKeys) -> Result<i64, Failure> {
    match keyspace.read("SCARD", &[&keys.paths()])? {
        Reply::Int(count) => Ok(count),
        _ => Err(Failure::internal("SCARD answered with something that is not a number")),
    }
}

fn set(keyspace: &Keyspace<'_>, key: &[u8], fields: &[(String, String)]) -> Result<(), Failure> {
    let pairs = fields.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    let args: Vec<&[u8]> = std::iter::once(key).chain(pairs).collect();
    keyspace.write("HSET", &args).map(drop)
}

/// A hash that this module writes and others may have changed.
struct Fields(HashMap<Vec<u8>, Vec<u8>>);

impl Fields {
    fn read(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<Self, Failure> {
        read_hash(keyspace, key).map(|fields| Self(fields.into_iter().collect()))
    }

    fn get(&self, name: &str) -> &[u8] {
        self.0.get(name.as_bytes()).map(Vec::as_slice).unwrap_or_default()
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.get(name)).into_owned()
    }

    /// 0 when it is not there or no number.
    fn number(&self, name: &str) -> u64 {
        std::str::from_utf8(self.get(name)).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}
