//! A document in the keyspace: its chunks in the vector set and in token keys, its own hash, and what changes them.
//!
//! An element of the vector set is one version of a chunk: it never changes, and is hidden when another version takes
//! its place (see `redis_api::vset` for why it is not removed). The document's hash says which version of each chunk is
//! stored.

use std::collections::HashMap;

use redis_module::Context;

use super::retrieval::{read_hash, require_unchanged};
use crate::logic::index::{ChunkAttributes, IndexSettings};
use crate::logic::keys::{IndexKeys, chunk_id, element};
use crate::logic::versions::Versions;
use crate::logic::{limits, token_blob};
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::reply::{Answer, Failure, Value};
use crate::redis_api::vset::{self, Element};

/// Field of a document's hash that holds the number of its chunks.
const CHUNKS: &str = "chunks";

/// One chunk, ready to be written.
#[derive(Debug)]
pub(super) struct Prepared {
    pub attributes: ChunkAttributes,
    /// Its version: a hash over text, lines, and the settings of the index, which say how tokens and vector were made.
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

/// Brings the chunks of a document into the keyspace.
#[derive(Debug)]
pub(super) struct Writer {
    pub keys: IndexKeys,
    pub settings: IndexSettings,
    pub path: String,
}

impl Writer {
    /// Writes the difference between what is stored and `chunks`. Runs on the main thread, as the caller.
    pub(super) fn write(&self, ctx: &Context, chunks: &[Prepared]) -> Answer {
        let keyspace = Keyspace::of(ctx);
        require_unchanged(&keyspace, &self.keys, &self.settings)?;
        let document_key = self.keys.document(&self.path);
        let stored: HashMap<Vec<u8>, Vec<u8>> = read_hash(&keyspace, &document_key)?.into_iter().collect();
        let field_of = |name: &str| stored.get(name.as_bytes()).map(Vec::as_slice);
        let versions = |number: u32| Versions::parse(field_of(&field(number)).unwrap_or_default());
        // Anybody can write the hash: it may not make us count to four billion.
        let most = u32::try_from(limits::DOCUMENT_CHUNKS_MAX).unwrap_or(u32::MAX);
        let stored_count = field_of(CHUNKS)
            .and_then(|n| std::str::from_utf8(n).ok()?.parse::<u32>().ok())
            .unwrap_or_default()
            .min(most);

        let is_kept = |chunk: &&Prepared| {
            versions(chunk.attributes.chunk).settled() == Some(chunk.hash.as_str()) && self.is_stored(&keyspace, chunk)
        };
        let (kept, changed): (Vec<&Prepared>, Vec<&Prepared>) = chunks.iter().partition(is_kept);
        let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let touched: Vec<Touched<'_>> = changed
            .iter()
            .map(|chunk| (chunk.attributes.chunk, Some(*chunk)))
            .chain((count..stored_count).map(|number| (number, None)))
            .map(|(number, new)| Touched { number, before: versions(number), new })
            .collect();
        let removed = stored_count.saturating_sub(count);
        let counts = [
            ("added", Value::from(changed.len())),
            ("kept", Value::from(kept.len())),
            ("removed", Value::from(removed)),
        ];
        if touched.is_empty() {
            return Ok(Value::Map(counts.into()));
        }
        self.check_rights(&keyspace, &touched)?;
        self.announce(&keyspace, &document_key, &touched, count.max(stored_count))?;
        for chunk in &touched {
            self.write_chunk(&keyspace, chunk)?;
        }
        self.write_document(&keyspace, &document_key, chunks, &touched)?;
        Ok(Value::Map(counts.into()))
    }

    /// Whether the keys of an unchanged chunk are still there: anybody can delete them or let them expire.
    fn is_stored(&self, keyspace: &Keyspace<'_>, chunk: &Prepared) -> bool {
        let number = chunk.attributes.chunk;
        let tokens_key = self.keys.tokens(&chunk_id(&self.path, number));
        let element = element(&self.path, number, &chunk.hash);
        // A key that cannot be read is written again, and says why if it cannot.
        let tokens = keyspace.token_key_if_present(&tokens_key, chunk.tokens.len()).ok().flatten();
        let attributes = vset::attributes(keyspace, &self.keys.vectors(), element.as_bytes()).ok().flatten();
        tokens.is_some_and(|tokens| tokens == chunk.tokens)
            // Others may have added members of their own with VSETATTR.
            && attributes.is_some_and(|json| ChunkAttributes::from_json(&json).is_ok_and(|a| a == chunk.attributes))
    }

    /// Whether the caller may write all the keys of the chunks, before any is written.
    fn check_rights(&self, keyspace: &Keyspace<'_>, touched: &[Touched<'_>]) -> Result<(), Failure> {
        vset::check_rights(keyspace, &self.keys.vectors())?;
        for chunk in touched {
            let key = self.keys.tokens(&chunk_id(&self.path, chunk.number));
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
        keyspace.write("HSET", &args).map(drop)
    }

    /// Writes the new version of a chunk, if there is one, and hides all others.
    fn write_chunk(&self, keyspace: &Keyspace<'_>, chunk: &Touched<'_>) -> Result<(), Failure> {
        let vectors = self.keys.vectors();
        let tokens = self.keys.tokens(&chunk_id(&self.path, chunk.number));
        if let Some(new) = chunk.new {
            let name = element(&self.path, chunk.number, &new.hash);
            let element = Element {
                key: &vectors,
                element: name.as_bytes(),
                vector: &new.vector,
                quant: self.settings.quant.name(),
                attributes: &new.attributes.to_json(),
            };
            vset::put(keyspace, &element)?;
            keyspace.write("SET", &[&tokens, &token_blob::encode(&new.tokens)])?;
        } else {
            keyspace.write("UNLINK", &[&tokens])?;
        }
        let old = chunk.before.all().filter(|version| chunk.new.is_none_or(|new| new.hash != *version));
        for version in old {
            vset::hide(keyspace, &vectors, element(&self.path, chunk.number, version).as_bytes())?;
        }
        Ok(())
    }

    /// The document's hash: its chunk count, and the version of each chunk.
    fn write_document(
        &self,
        keyspace: &Keyspace<'_>,
        key: &[u8],
        chunks: &[Prepared],
        touched: &[Touched<'_>],
    ) -> Result<(), Failure> {
        if chunks.is_empty() {
            keyspace.write("UNLINK", &[key])?;
            return vset::remove_if_all_hidden(keyspace, &self.keys.vectors());
        }
        let gone: Vec<String> =
            touched.iter().filter(|chunk| chunk.new.is_none()).map(|chunk| field(chunk.number)).collect();
        if !gone.is_empty() {
            let mut args: Vec<&[u8]> = vec![key];
            args.extend(gone.iter().map(String::as_bytes));
            keyspace.write("HDEL", &args)?;
        }
        let count = chunks.len().to_string();
        let names: Vec<String> = chunks.iter().map(|chunk| field(chunk.attributes.chunk)).collect();
        let mut args: Vec<&[u8]> = vec![key, CHUNKS.as_bytes(), count.as_bytes()];
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
