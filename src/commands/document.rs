//! A document in the keyspace: its chunks in the vector set and in token keys, its own hash, its place in the index's set
//! of paths and counters, and what changes them.
//!
//! An element of the vector set is one version of a chunk: its vector never changes, and it is hidden when another version
//! takes its place (see `redis_api::vset` for why it is not removed). The document's hash says which version of each chunk
//! is stored.

use std::collections::HashMap;

use super::retrieval::read_hash;
use crate::logic::attributes::{ChunkAttributes, UserAttributes};
use crate::logic::keys::{DataKeys, chunk_id, element};
use crate::logic::versions::Versions;
use crate::logic::{limits, token_blob};
use crate::redis_api::keyspace::{Keyspace, Reply};
use crate::redis_api::reply::{Failure, Value};
use crate::redis_api::vset::{self, Element};

/// Field of a document's hash, and of the counters, that holds the number of its chunks.
const CHUNKS: &str = "chunks";
/// The same for its tokens, those of the answering model.
const TOKENS: &str = "tokens";
/// Field of a document's hash with its `ATTRS`.
const ATTRS: &str = "attrs";
/// Counter that grows with every change of a document.
const EPOCH: &str = "epoch";

/// One chunk, ready to be written.
#[derive(Debug)]
pub(super) struct Prepared {
    pub attributes: ChunkAttributes,
    /// Its version: a hash over its text and lines.
    pub hash: String,
    pub tokens: Vec<u32>,
    pub vector: Vec<f32>,
}

/// A chunk that changes or goes.
#[derive(Debug)]
struct Touched<'a> {
    number: u32,
    /// What the document's hash says of it.
    before: Versions,
    /// What it becomes; nothing when it goes.
    new: Option<&'a Prepared>,
}

/// Chunks of a document by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub added: usize,
    pub kept: usize,
    pub removed: u32,
}

impl Counts {
    /// The reply of `INFER.INGEST`.
    pub(super) fn reply(self) -> Value {
        let Self { added, kept, removed } = self;
        Value::Map(vec![("added", added.into()), ("kept", kept.into()), ("removed", removed.into())])
    }
}

/// The counters of an index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stats {
    pub chunks: u64,
    pub tokens: u64,
    pub epoch: u64,
}

impl Stats {
    pub(super) fn read(keyspace: &Keyspace<'_>, keys: &DataKeys) -> Result<Self, Failure> {
        let fields = Fields::read(keyspace, &keys.stats())?;
        Ok(Self { chunks: fields.number(CHUNKS), tokens: fields.number(TOKENS), epoch: fields.number(EPOCH) })
    }

    fn write(self, keyspace: &Keyspace<'_>, keys: &DataKeys) -> Result<(), Failure> {
        let [chunks, tokens, epoch] = [self.chunks, self.tokens, self.epoch].map(|number| number.to_string());
        let fields = [(CHUNKS, chunks), (TOKENS, tokens), (EPOCH, epoch)];
        let key = keys.stats();
        let mut args = vec![key.as_slice()];
        args.extend(fields.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]));
        keyspace.write("HSET", &args).map(drop)
    }

    /// After a document of `before` became one of `after`, both as chunks and tokens.
    fn changed(self, before: (u64, u64), after: (u64, u64)) -> Self {
        let count = |all: u64, before: u64, after: u64| all.saturating_sub(before).saturating_add(after);
        Self {
            chunks: count(self.chunks, before.0, after.0),
            tokens: count(self.tokens, before.1, after.1),
            epoch: self.epoch.saturating_add(1),
        }
    }
}

/// How many documents an index has.
pub(super) fn documents(keyspace: &Keyspace<'_>, keys: &DataKeys) -> Result<i64, Failure> {
    match keyspace.read("SCARD", &[&keys.paths()])? {
        Reply::Int(count) => Ok(count),
        _ => Err(Failure::internal("SCARD answered with something that is not a number")),
    }
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

    /// 0 when it is not there or no number.
    fn number(&self, name: &str) -> u64 {
        std::str::from_utf8(self.get(name)).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    fn versions(&self, chunk: u32) -> Versions {
        Versions::parse(self.get(&field(chunk)))
    }

    /// The number of chunks of a document. Anybody can write the hash: it may not make us count to four billion.
    fn chunks(&self) -> u32 {
        let most = u32::try_from(limits::DOCUMENT_CHUNKS_MAX).unwrap_or(u32::MAX);
        u32::try_from(self.number(CHUNKS)).unwrap_or(most).min(most)
    }
}

/// Brings the chunks of a document into the keyspace, as the caller and in one scope.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    pub keys: &'a DataKeys,
    pub path: &'a str,
    /// As it is given to `VADD`.
    pub quant: &'static str,
}

impl Writer<'_> {
    /// Writes the difference between what is stored and `chunks`.
    pub(super) fn write(
        &self,
        keyspace: &Keyspace<'_>,
        chunks: &[Prepared],
        more: &UserAttributes,
    ) -> Result<Counts, Failure> {
        let document_key = self.keys.document(self.path);
        let stored = Fields::read(keyspace, &document_key)?;
        let stats = Stats::read(keyspace, self.keys)?;
        let attributes = more.to_json();
        let has_other_attributes = !chunks.is_empty() && stored.get(ATTRS) != attributes.as_bytes();
        let is_kept = |chunk: &&Prepared| {
            stored.versions(chunk.attributes.chunk).settled() == Some(chunk.hash.as_str())
                && self.is_stored(keyspace, chunk, has_other_attributes)
        };
        let (kept, changed): (Vec<&Prepared>, Vec<&Prepared>) = chunks.iter().partition(is_kept);
        let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let touched: Vec<Touched<'_>> = changed
            .iter()
            .map(|chunk| (chunk.attributes.chunk, Some(*chunk)))
            .chain((count..stored.chunks()).map(|number| (number, None)))
            .map(|(number, new)| Touched { number, before: stored.versions(number), new })
            .collect();
        let counts = Counts { added: changed.len(), kept: kept.len(), removed: stored.chunks().saturating_sub(count) };
        if touched.is_empty() && !has_other_attributes {
            return Ok(counts);
        }
        self.check_rights(keyspace, &touched)?;
        self.announce(keyspace, &document_key, &touched, count.max(stored.chunks()))?;
        for chunk in &touched {
            self.write_chunk(keyspace, chunk)?;
        }
        if has_other_attributes {
            for chunk in &kept {
                let name = element(self.path, chunk.attributes.chunk, &chunk.hash);
                vset::show(keyspace, &self.keys.vectors(), name.as_bytes(), &chunk.attributes.to_json())?;
            }
        }
        let tokens = chunks.iter().map(|chunk| chunk.tokens.len() as u64).sum();
        self.write_document(keyspace, &document_key, chunks, tokens, &attributes, &touched)?;
        let before = (stored.chunks().into(), stored.number(TOKENS));
        stats.changed(before, (count.into(), tokens)).write(keyspace, self.keys)?;
        Ok(counts)
    }

    /// Removes the document; the number of its chunks.
    pub(super) fn forget(&self, keyspace: &Keyspace<'_>) -> Result<u32, Failure> {
        let removed = self.write(keyspace, &[], &UserAttributes::default())?.removed;
        Ok(removed)
    }

    /// Whether the keys of an unchanged chunk are still there: anybody can delete them or let them expire. Others may have
    /// added members to its attributes. With `other_attributes` these are going to be written anyway.
    fn is_stored(&self, keyspace: &Keyspace<'_>, chunk: &Prepared, other_attributes: bool) -> bool {
        let number = chunk.attributes.chunk;
        let tokens_key = self.keys.tokens(&chunk_id(self.path, number));
        let element = element(self.path, number, &chunk.hash);
        // A key that cannot be read is written again, and says why if it cannot.
        let tokens = keyspace.token_key_if_present(&tokens_key, chunk.tokens.len()).ok().flatten();
        let attributes = vset::attributes(keyspace, &self.keys.vectors(), element.as_bytes()).ok().flatten();
        tokens.is_some_and(|tokens| tokens == chunk.tokens)
            && attributes.is_some_and(|json| {
                let stored = ChunkAttributes::from_json(&json);
                other_attributes || stored.is_ok_and(|stored| chunk.attributes.are_in(&stored))
            })
    }

    /// Whether the caller may write all the keys of the chunks, before any is written.
    fn check_rights(&self, keyspace: &Keyspace<'_>, touched: &[Touched<'_>]) -> Result<(), Failure> {
        vset::check_rights(keyspace, &self.keys.vectors())?;
        for key in [self.keys.document(self.path), self.keys.stats()] {
            keyspace.check_write("HSET", &[&key, b"", b""])?;
        }
        keyspace.check_write("SADD", &[&self.keys.paths(), b""])?;
        for chunk in touched {
            let key = self.keys.tokens(&chunk_id(self.path, chunk.number));
            keyspace.check_write("SET", &[&key, b""])?;
            keyspace.check_write("UNLINK", &[&key])?;
        }
        Ok(())
    }

    /// Makes the document's hash name all versions of the chunks that are about to change or go, and count all chunks
    /// that may be there. A later write can fail (memory, rights), and then the next ingest must neither take a chunk
    /// of this one for its own nor leave one behind.
    fn announce(
        &self,
        keyspace: &Keyspace<'_>,
        key: &[u8],
        touched: &[Touched<'_>],
        count: u32,
    ) -> Result<(), Failure> {
        let fields: Vec<(String, String)> = touched
            .iter()
            .map(|chunk| (field(chunk.number), chunk.before.unsettled(chunk.new.map(|new| new.hash.as_str()))))
            .collect();
        let count = count.to_string();
        let mut args: Vec<&[u8]> = vec![key, CHUNKS.as_bytes(), count.as_bytes()];
        args.extend(fields.iter().flat_map(|(name, versions)| [name.as_bytes(), versions.as_bytes()]));
        keyspace.write("HSET", &args)?;
        keyspace.write("SADD", &[&self.keys.paths(), self.path.as_bytes()]).map(drop)
    }

    /// Writes the new version of a chunk, if there is one, and hides all others.
    fn write_chunk(&self, keyspace: &Keyspace<'_>, chunk: &Touched<'_>) -> Result<(), Failure> {
        let vectors = self.keys.vectors();
        let tokens = self.keys.tokens(&chunk_id(self.path, chunk.number));
        if let Some(new) = chunk.new {
            let name = element(self.path, chunk.number, &new.hash);
            let element = Element {
                key: &vectors,
                element: name.as_bytes(),
                vector: &new.vector,
                quant: self.quant,
                attributes: &new.attributes.to_json(),
            };
            vset::put(keyspace, &element)?;
            keyspace.write("SET", &[&tokens, &token_blob::encode(&new.tokens)])?;
        } else {
            keyspace.write("UNLINK", &[&tokens])?;
        }
        let old = chunk.before.all().filter(|version| chunk.new.is_none_or(|new| new.hash != *version));
        for version in old {
            vset::hide(keyspace, &vectors, element(self.path, chunk.number, version).as_bytes())?;
        }
        Ok(())
    }

    /// The document's hash: its counts, its attributes, and the version of each chunk.
    fn write_document(
        &self,
        keyspace: &Keyspace<'_>,
        key: &[u8],
        chunks: &[Prepared],
        tokens: u64,
        attributes: &str,
        touched: &[Touched<'_>],
    ) -> Result<(), Failure> {
        if chunks.is_empty() {
            keyspace.write("UNLINK", &[key])?;
            keyspace.write("SREM", &[&self.keys.paths(), self.path.as_bytes()])?;
            return vset::remove_if_all_hidden(keyspace, &self.keys.vectors());
        }
        let gone: Vec<String> =
            touched.iter().filter(|chunk| chunk.new.is_none()).map(|chunk| field(chunk.number)).collect();
        if !gone.is_empty() {
            let mut args: Vec<&[u8]> = vec![key];
            args.extend(gone.iter().map(String::as_bytes));
            keyspace.write("HDEL", &args)?;
        }
        let (count, tokens) = (chunks.len().to_string(), tokens.to_string());
        let names: Vec<String> = chunks.iter().map(|chunk| field(chunk.attributes.chunk)).collect();
        let mut args: Vec<&[u8]> = vec![key];
        for (name, value) in [(CHUNKS, count.as_str()), (TOKENS, tokens.as_str()), (ATTRS, attributes)] {
            args.extend([name.as_bytes(), value.as_bytes()]);
        }
        for (name, chunk) in names.iter().zip(chunks) {
            args.extend([name.as_bytes(), chunk.hash.as_bytes()]);
        }
        keyspace.write("HSET", &args)?;
        Ok(())
    }
}

/// Name of the field with the version of a chunk.
fn field(chunk: u32) -> String {
    format!("chunk_{chunk}")
}
