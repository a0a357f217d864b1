//! `INFER.INGEST`: a document into an index.
//!
//! Chunking, tokenizing, hashing and embedding happen on engine threads. Everything is written in the reply callback,
//! as the caller: one MULTI/EXEC for replicas and the AOF, and a reader sees the old document or the new one. Which
//! chunks are unchanged is decided there too, so two clients that ingest one path at once cannot mix their chunks.

use std::collections::HashMap;

use redis_module::Context;
use xxhash_rust::xxh3::xxh3_128;

use super::retrieval::{IndexModels, index_models, read_hash, require_settings, require_unchanged};
use super::runtime::{engine, queue_limit};
use super::waiting::{Embedding, block};
use crate::engine::{EngineError, Model, Special, Ticket};
use crate::logic::chunk::{Chunk, ChunkOptions, chunk};
use crate::logic::index::{ChunkAttributes, IndexSettings};
use crate::logic::keys::{IndexKeys, element};
use crate::logic::options::Ingest;
use crate::logic::{limits, token_blob, vector};
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::pending::PendingReply;
use crate::redis_api::reply::{Answer, Failure, Value};
use crate::redis_api::vset::{self, Element};

/// Field of a document's hash that holds the number of its chunks.
const CHUNKS: &str = "chunks";

/// A document on its way into an index.
struct Document {
    keys: IndexKeys,
    settings: IndexSettings,
    path: String,
    text: String,
    models: IndexModels,
}

/// One chunk, ready to be written.
struct Prepared {
    attributes: ChunkAttributes,
    /// Over text, lines, and the settings of the index, which say how tokens and vector were made.
    hash: String,
    tokens: Vec<u32>,
    vector: Vec<f32>,
}

/* INFER.INGEST index path text */
/// Replaces the document `path`: unchanged chunks stay, changed and new ones are written, vanished ones removed.
pub fn ingest(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = Ingest::parse(args)?;
    refuse_blocking(ctx, "INFER.INGEST")?;
    vset::require(ctx)?;
    let keys = IndexKeys::new(request.index);
    let settings = require_settings(&Keyspace::of(ctx), &keys)?;
    let models = index_models(&settings)?;
    let permit = models.embedder.permit(queue_limit())?;
    let document = Document { keys, settings, path: request.path.to_owned(), text: request.text.to_owned(), models };
    let pending = block(ctx, "INFER.INGEST")?;
    let ticket = Ticket { cancelled: pending.cancel_flag(), ..Ticket::default() };
    let embedding = Embedding { served: document.models.embedder.clone(), permit, ticket };
    engine()?.run(move || document.embed(embedding, pending))?;
    Ok(Outcome::Pending)
}

impl Document {
    /// Cuts the text, embeds the chunks as one job, and hands them to the reply callback to be written.
    fn embed(self, embedding: Embedding, pending: PendingReply) {
        let chunks = self.chunks();
        if chunks.len() > limits::DOCUMENT_CHUNKS_MAX {
            drop(embedding);
            return pending.finish(Err(too_many_chunks(chunks.len())));
        }
        if chunks.is_empty() {
            let writer = self.writer();
            return pending.finish_with(move |ctx| writer.write(ctx, &[]));
        }
        let texts: Vec<String> = chunks.iter().map(|chunk| self.text_of(chunk).to_owned()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        embedding.run(&texts, move |vectors| {
            let prepared = vectors.and_then(|vectors| self.prepare(&chunks, vectors));
            let writer = self.writer();
            match prepared {
                Ok(prepared) => pending.finish_with(move |ctx| writer.write(ctx, &prepared)),
                Err(error) => pending.finish(Err(error.into())),
            }
        });
    }

    fn chunks(&self) -> Vec<Chunk> {
        let model = &self.models.embedder.model;
        // An uncountable text counts as too large, so it is split until it can be counted.
        let count = |text: &str| model.tokenize(text, Special::Add).map_or(usize::MAX, |tokens| tokens.len());
        let options =
            ChunkOptions { max_tokens: self.settings.max_tokens as usize, overlap: self.settings.overlap as usize };
        chunk(&self.text, &options, &count)
    }

    fn text_of(&self, chunk: &Chunk) -> &str {
        self.text.get(chunk.text_range.clone()).unwrap_or_default()
    }

    fn prepare(&self, chunks: &[Chunk], vectors: Vec<Vec<f32>>) -> Result<Vec<Prepared>, EngineError> {
        let generator: &Model = &self.models.generator.model;
        let made_by = self.settings.to_fields();
        let prepare = |((number, chunk), mut vector): ((u32, &Chunk), Vec<f32>)| {
            let text = self.text_of(chunk);
            vector::l2_normalize(&mut vector);
            let lines = (chunk.first_line, chunk.last_line);
            let hash = xxh3_128(format!("{made_by:?} {}-{}:{text}", lines.0, lines.1).as_bytes());
            Ok(Prepared {
                attributes: ChunkAttributes {
                    path: self.path.clone(),
                    chunk: number,
                    lines,
                    ext: extension(&self.path).to_owned(),
                },
                hash: format!("{hash:032x}"),
                tokens: generator.tokenize(text, Special::None)?,
                vector,
            })
        };
        (0..).zip(chunks).zip(vectors).map(prepare).collect()
    }

    /// What the reply callback needs. The models stay behind: freeing one is not for the main thread.
    fn writer(self) -> Writer {
        Writer { keys: self.keys, settings: self.settings, path: self.path }
    }
}

/// Brings the chunks of a document into the keyspace.
struct Writer {
    keys: IndexKeys,
    settings: IndexSettings,
    path: String,
}

impl Writer {
    /// Writes the difference between what is stored and `chunks`. Runs on the main thread, as the caller.
    fn write(&self, ctx: &Context, chunks: &[Prepared]) -> Answer {
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

fn too_many_chunks(count: usize) -> Failure {
    Failure::err(format!(
        "the document has {count} chunks, more than the {} that are written in one go; split it, or use an index with a larger MAXTOKENS",
        limits::DOCUMENT_CHUNKS_MAX
    ))
}

/// Name of the field with the hash of a chunk.
fn field(chunk: u32) -> String {
    format!("chunk_{chunk}")
}

/// What follows the last dot of the file name; empty when there is none.
fn extension(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.rsplit_once('.').map_or("", |(_, extension)| extension)
}

#[cfg(test)]
mod tests {
    use super::extension;

    #[test]
    fn the_extension_is_that_of_the_file_name_only() {
        assert_eq!(extension("src/lib.rs"), "rs");
        assert_eq!(extension("a.d/Makefile"), "");
        assert_eq!(extension("archive.tar.gz"), "gz");
    }
}
