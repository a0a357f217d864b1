//! A document in the keyspace: its chunks in the vector set and in token keys, its own hash, and what changes them.

use std::collections::HashMap;

use redis_module::Context;

use super::retrieval::{read_hash, require_unchanged};
use crate::logic::index::{ChunkAttributes, IndexSettings};
use crate::logic::keys::{IndexKeys, element};
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
    /// Over text, lines, and the settings of the index, which say how tokens and vector were made.
    pub hash: String,
    pub tokens: Vec<u32>,
    pub vector: Vec<f32>,
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
        let stored_hash = |name: &str| stored.get(name.as_bytes()).map(Vec::as_slice);
        // Anybody can write the hash: it may not make us count to four billion.
        let most = u32::try_from(limits::DOCUMENT_CHUNKS_MAX).unwrap_or(u32::MAX);
        let stored_count = stored_hash(CHUNKS)
            .and_then(|n| std::str::from_utf8(n).ok()?.parse::<u32>().ok())
            .unwrap_or_default()
            .min(most);

        let is_kept = |chunk: &&Prepared| {
            stored_hash(&field(chunk.attributes.chunk)) == Some(chunk.hash.as_bytes())
                && self.is_stored(&keyspace, chunk)
        };
        let (kept, changed): (Vec<&Prepared>, Vec<&Prepared>) = chunks.iter().partition(is_kept);
        let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let touched: Vec<u32> = changed.iter().map(|chunk| chunk.attributes.chunk).chain(count..stored_count).collect();
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
        for chunk in &changed {
            self.write_chunk(&keyspace, chunk)?;
        }
        for number in count..stored_count {
            self.remove_chunk(&keyspace, number)?;
        }
        self.write_document(&keyspace, &document_key, chunks)?;
        Ok(Value::Map(counts.into()))
    }

    /// Whether the keys of an unchanged chunk are still there: anybody can delete them or let them expire.
    fn is_stored(&self, keyspace: &Keyspace<'_>, chunk: &Prepared) -> bool {
        let element = element(&self.path, chunk.attributes.chunk);
        // A key that cannot be read is written again, and says why if it cannot.
        let tokens = keyspace.token_key_if_present(&self.keys.tokens(&element), chunk.tokens.len()).ok().flatten();
        let attributes = vset::attributes(keyspace, &self.keys.vectors(), element.as_bytes()).ok().flatten();
        tokens.is_some_and(|tokens| tokens == chunk.tokens)
            // Others may have added members of their own with VSETATTR.
            && attributes.is_some_and(|json| ChunkAttributes::from_json(&json).is_ok_and(|a| a == chunk.attributes))
    }

    /// Whether the caller may write all the keys of the chunks, before any is written.
    fn check_rights(&self, keyspace: &Keyspace<'_>, touched: &[u32]) -> Result<(), Failure> {
        for &number in touched {
            let key = self.keys.tokens(&element(&self.path, number));
            keyspace.check_write("SET", &[&key, b""])?;
            keyspace.check_write("UNLINK", &[&key])?;
        }
        Ok(())
    }

    /// Makes the document's hash forget the chunks that are about to change or go, and count all that may be there. A
    /// later write can fail (memory, rights), and then the next ingest must neither take a chunk of this one for its
    /// own nor leave one behind.
    fn announce(&self, keyspace: &Keyspace<'_>, key: &[u8], touched: &[u32], count: u32) -> Result<(), Failure> {
        let names: Vec<String> = touched.iter().copied().map(field).collect();
        let mut args: Vec<&[u8]> = vec![key];
        args.extend(names.iter().map(String::as_bytes));
        keyspace.write("HDEL", &args)?;
        keyspace.write("HSET", &[key, CHUNKS.as_bytes(), count.to_string().as_bytes()])?;
        Ok(())
    }

    fn write_chunk(&self, keyspace: &Keyspace<'_>, chunk: &Prepared) -> Result<(), Failure> {
        let element = element(&self.path, chunk.attributes.chunk);
        let attributes = chunk.attributes.to_json();
        let new = Element {
            key: &self.keys.vectors(),
            element: element.as_bytes(),
            vector: &chunk.vector,
            quant: self.settings.quant.name(),
            attributes: &attributes,
        };
        vset::add(keyspace, &new)?;
        keyspace.write("SET", &[&self.keys.tokens(&element), &token_blob::encode(&chunk.tokens)])?;
        Ok(())
    }

    fn remove_chunk(&self, keyspace: &Keyspace<'_>, number: u32) -> Result<(), Failure> {
        let element = element(&self.path, number);
        vset::remove(keyspace, &self.keys.vectors(), element.as_bytes())?;
        keyspace.write("UNLINK", &[&self.keys.tokens(&element)])?;
        Ok(())
    }

    /// The document's hash: its chunk count, and the hash of each chunk.
    fn write_document(&self, keyspace: &Keyspace<'_>, key: &[u8], chunks: &[Prepared]) -> Result<(), Failure> {
        if chunks.is_empty() {
            keyspace.write("UNLINK", &[key])?;
            return Ok(());
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

/// Name of the field with the hash of a chunk.
fn field(chunk: u32) -> String {
    format!("chunk_{chunk}")
}
