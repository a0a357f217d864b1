//! What is stored of a document beside its chunks, and the counters of an index.

use std::collections::HashMap;

use super::retrieval::read_hash;
use super::runtime::since_1970;
use crate::logic::keys::DataKeys;
use crate::logic::limits;
use crate::logic::version::Version;
use crate::redis_api::keyspace::{Keyspace, Reply};
use crate::redis_api::reply::Failure;
use crate::redis_api::vset;

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
/// Counter of documents.
const DOCUMENTS: &str = "documents";
/// There, in the counters, when keys of the index were lost that they counted, or they themselves were.
const UNSURE: &str = "unsure";

/// The hash of a document, `doc:{docs}:PATH`, which alone says what the document consists of: vectors and tokens of chunks that it does
/// not name are left over. All is empty when there is no such key.
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
        let fields = Fields::read(keyspace, key, &[CHUNKS, TOKENS, HASH, ATTRS])?;
        // Anybody can write the hash: it may not make us count to four billion.
        let chunks = fields.number(CHUNKS).min(limits::DOCUMENT_CHUNKS_MAX as u64);
        let names: Vec<String> = (0..chunks).map(field).collect();
        let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
        let versions = if names.is_empty() { None } else { keyspace.hash_fields(key, &names)? };
        let version = |value: Option<Vec<u8>>| value.and_then(|value| Version::parse(&value));
        Ok(Self {
            tokens: fields.number(TOKENS),
            hash: fields.text(HASH),
            attributes: fields.text(ATTRS),
            versions: versions.into_iter().flatten().map(version).collect(),
        })
    }

    /// The version of one chunk of the document at `key`; `None` when the document, or that chunk of it, is not there. The caller may read
    /// what the answer is about, but perhaps not the hash.
    pub(super) fn version_of(keyspace: &Keyspace<'_>, key: &[u8], chunk: u32) -> Result<Option<Version>, Failure> {
        match keyspace.as_server().hash_fields(key, &[CHUNKS.as_bytes(), field(chunk).as_bytes()]) {
            // One that was shortened by hand may have the fields of more.
            Ok(Some(values)) => Ok(match values.as_slice() {
                [Some(chunks), Some(version)] if number(chunks) > chunk.into() => Version::parse(version),
                _ => None,
            }),
            Ok(None) => Ok(None),
            // Something else in the place of the document.
            Err(failure) if failure.code == "WRONGTYPE" => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Chunks and tokens of the document at `key`, as [`Document::size`]; `None` where there is none.
    pub(super) fn size_of(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<Option<Size>, Failure> {
        let fields = match Fields::read(keyspace, key, &[CHUNKS, TOKENS]) {
            Err(failure) if failure.code == "WRONGTYPE" => return Ok(None),
            fields => fields?,
        };
        let chunks = fields.number(CHUNKS).min(limits::DOCUMENT_CHUNKS_MAX as u64);
        Ok((chunks > 0).then(|| Size { documents: 1, chunks, tokens: fields.number(TOKENS) }))
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
    pub(super) fn size(&self) -> Size {
        let documents = u64::from(!self.versions.is_empty());
        Size { documents, chunks: self.versions.len() as u64, tokens: self.tokens }
    }
}

/// What counters count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub documents: u64,
    pub chunks: u64,
    pub tokens: u64,
}

impl Size {
    /// After one document became another.
    pub(super) fn changed(self, before: Self, after: Self) -> Self {
        let count = |all: u64, before: u64, after: u64| all.saturating_sub(before).saturating_add(after);
        Self {
            documents: count(self.documents, before.documents, after.documents),
            chunks: count(self.chunks, before.chunks, after.chunks),
            tokens: count(self.tokens, before.tokens, after.tokens),
        }
    }
}

/// Name of the field with the version of a chunk.
fn field(chunk: impl std::fmt::Display) -> String {
    format!("chunk_{chunk}")
}

/// The counters of an index, `stats:{docs}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stats {
    pub size: Size,
    /// Whether documents are counted; earlier versions of this module did not.
    pub has_documents: bool,
    /// Keys that were counted are lost, or the counters were: they have to be made anew by counting, see `recount`.
    pub unsure: bool,
    pub epoch: u64,
    /// 0 where there is none: nothing was ever written, or not by this version, or the counters were evicted.
    pub changed: u64,
}

/// What is there of an index, as far as keys can be asked for their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Present {
    /// Paths in the set.
    pub listed: u64,
    /// Elements of the vector set that a search can find.
    pub visible: u64,
}

impl Present {
    pub(super) fn read(keyspace: &Keyspace<'_>, keys: &DataKeys) -> Result<Self, Failure> {
        let keyspace = &keyspace.as_server();
        let (visible, _) = vset::counts(keyspace, &keys.vectors())?;
        Ok(Self { listed: documents(keyspace, keys)?.unsigned_abs(), visible: visible.unsigned_abs() })
    }
}

impl Stats {
    pub(super) fn read(keyspace: &Keyspace<'_>, keys: &DataKeys) -> Result<Self, Failure> {
        let fields = Fields::read(keyspace, &keys.stats(), &[CHUNKS, TOKENS, DOCUMENTS, UNSURE, EPOCH, CHANGED])?;
        Ok(Self {
            size: Size {
                documents: fields.number(DOCUMENTS),
                chunks: fields.number(CHUNKS),
                tokens: fields.number(TOKENS),
            },
            has_documents: fields.has(DOCUMENTS),
            unsure: fields.has(UNSURE),
            epoch: fields.number(EPOCH),
            changed: fields.number(CHANGED),
        })
    }

    pub(super) fn write(self, keyspace: &Keyspace<'_>, keys: &DataKeys) -> Result<(), Failure> {
        let now = u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX);
        // Later than the last one, whatever the clock says.
        let changed = now.max(self.changed.saturating_add(1));
        self.write_as_of(keyspace, keys, changed)
    }

    fn write_as_of(self, keyspace: &Keyspace<'_>, keys: &DataKeys, changed: u64) -> Result<(), Failure> {
        let Size { documents, chunks, tokens } = self.size;
        let mut fields =
            vec![(CHUNKS, chunks), (TOKENS, tokens), (DOCUMENTS, documents), (EPOCH, self.epoch), (CHANGED, changed)];
        if self.unsure {
            fields.push((UNSURE, 1));
        }
        let fields: Vec<(String, String)> =
            fields.into_iter().map(|(name, number)| (name.to_owned(), number.to_string())).collect();
        set(keyspace, &keys.stats(), &fields)
    }

    /// The same, with what can be told from the keys that there are.
    pub(super) fn beside(self, present: Present) -> Self {
        if self.has_documents {
            // Fewer paths than documents: the set was lost. More of them: hashes of documents were, which is for the next ingest of them.
            return Self { unsure: self.unsure || present.listed < self.size.documents, ..self };
        }
        // Those of an earlier version, or of an index that has just been made, or they were lost.
        let size = Size { documents: present.listed, ..self.size };
        let were_lost = self.changed == 0 && present.listed > 0;
        let unsure = self.unsure || were_lost || self.size.chunks != present.visible;
        Self { size, has_documents: true, unsure, ..self }
    }

    /// Writes what was counted anew. No document has changed, so the version stays as it is.
    pub(super) fn settle(self, keyspace: &Keyspace<'_>, keys: &DataKeys, size: Size) -> Result<(), Failure> {
        keyspace.write("HDEL", &[&keys.stats(), UNSURE.as_bytes()])?;
        let settled = Self { size, has_documents: true, unsure: false, ..self };
        if self.changed == 0 {
            return settled.write(keyspace, keys);
        }
        settled.write_as_of(keyspace, keys, self.changed)
    }

    /// After one document became another.
    pub(super) fn changed(self, before: &Document, after: &Document) -> Self {
        let size = self.size.changed(before.size(), after.size());
        Self { size, epoch: self.epoch.saturating_add(1), ..self }
    }

    /// Another one with each change of a document, also where counters that were lost count anew; without a space. `None` where
    /// that cannot be told.
    pub(super) fn version(&self) -> Option<String> {
        (self.changed > 0).then(|| format!("{}.{}", self.epoch, self.changed))
    }
}

/// Whether a document stands in the set of paths.
pub(super) fn is_listed(keyspace: &Keyspace<'_>, keys: &DataKeys, path: &str) -> Result<bool, Failure> {
    let found = keyspace.as_server().read("SISMEMBER", &[&keys.paths(), path.as_bytes()])?;
    Ok(matches!(found, Reply::Int(1) | Reply::Bool(true)))
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

/// Some fields of a hash that this module writes and others may have changed.
struct Fields(HashMap<Vec<u8>, Vec<u8>>);

impl Fields {
    fn read(keyspace: &Keyspace<'_>, key: &[u8], names: &[&str]) -> Result<Self, Failure> {
        Ok(Self(read_hash(keyspace, key, names)?.unwrap_or_default().into_iter().collect()))
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name.as_bytes())
    }

    fn get(&self, name: &str) -> &[u8] {
        self.0.get(name.as_bytes()).map(Vec::as_slice).unwrap_or_default()
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.get(name)).into_owned()
    }

    fn number(&self, name: &str) -> u64 {
        number(self.get(name))
    }
}

/// 0 for what is no number.
fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}
