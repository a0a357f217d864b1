//! `INFER.INGEST`: a document into an index.
//!
//! Chunking, tokenizing, hashing and embedding happen on engine threads, a few chunks at a time, so that queries get
//! their turn between them. Everything is written in the reply callback, as the caller: one MULTI/EXEC for replicas and
//! the AOF, and a reader sees the old document or the new one. Which chunks are unchanged is decided there too, so two
//! clients that ingest one path at once cannot mix their chunks.

use redis_module::Context;
use xxhash_rust::xxh3::xxh3_128;

use super::document::{Prepared, Writer};
use super::index_work::Ingesting;
use super::retrieval::{IndexModels, index_models, require_settings, require_unchanged};
use super::runtime::{engine, queue_limit};
use super::waiting::{Embedding, block_for_model};
use crate::engine::{EngineError, Special};
use crate::logic::attributes::{ChunkAttributes, UserAttributes};
use crate::logic::chunk::{Chunk, ChunkOptions, chunk};
use crate::logic::index::IndexSettings;
use crate::logic::keys::IndexKeys;
use crate::logic::options::Ingest;
use crate::logic::{limits, vector};
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::pending::PendingReply;
use crate::redis_api::reply::Failure;
use crate::redis_api::vset;

/// Chunks embedded as one job. Other jobs get their turn in between: about a second with a small encoder.
const SLICE: usize = 8;

/// A document on its way into an index.
struct Document {
    keys: IndexKeys,
    settings: IndexSettings,
    path: String,
    text: String,
    more: UserAttributes,
    models: IndexModels,
    /// Counted until it is written.
    ingesting: Ingesting,
}

/// How far it has come.
struct Progress {
    document: Document,
    chunks: Vec<Chunk>,
    prepared: Vec<Prepared>,
    embedding: Embedding,
    pending: PendingReply,
}

/* INFER.INGEST index path text [ATTRS json] */
/// Replaces the document `path`: unchanged chunks stay, changed and new ones are written, vanished ones removed.
pub fn ingest(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = Ingest::parse(args)?;
    refuse_blocking(ctx, "INFER.INGEST")?;
    vset::require(ctx)?;
    let keys = IndexKeys::new(request.index);
    let settings = require_settings(&Keyspace::of(ctx), &keys)?;
    let models = index_models(&settings)?;
    let permit = models.embedder.permit(queue_limit())?;
    let document = Document {
        keys,
        settings,
        path: request.path.to_owned(),
        text: request.text.to_owned(),
        more: request.attributes,
        models,
        ingesting: Ingesting::begin(Caller::of(ctx, "INFER.INGEST").db, request.index),
    };
    let (pending, ticket) = block_for_model(ctx, "INFER.INGEST", &document.models.embedder)?;
    let embedding = Embedding { served: document.models.embedder.clone(), permit, ticket };
    engine()?.run(move || document.embed(embedding, pending))?;
    Ok(Outcome::Pending)
}

impl Document {
    /// Cuts the text, then has the chunks embedded.
    fn embed(self, embedding: Embedding, pending: PendingReply) {
        let chunks = self.chunks();
        if chunks.len() > limits::DOCUMENT_CHUNKS_MAX {
            drop(embedding);
            return pending.finish(Err(too_many_chunks(chunks.len())));
        }
        Progress { document: self, chunks, prepared: Vec::new(), embedding, pending }.go_on();
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

    /// The chunk `number` with its tokens for the answering model.
    fn prepare(&self, number: u32, chunk: &Chunk, mut vector: Vec<f32>) -> Result<Prepared, EngineError> {
        let text = self.text_of(chunk);
        vector::l2_normalize(&mut vector);
        let lines = (chunk.first_line, chunk.last_line);
        // What else tokens and vector depend on are the settings, which are the same for all keys of a generation.
        let hash = xxh3_128(format!("{}-{}:{text}", lines.0, lines.1).as_bytes());
        let attributes = ChunkAttributes::new(&self.path, number, lines, &self.more);
        let tokens = self.models.generator.model.tokenize(text, Special::None)?;
        Ok(Prepared { attributes, hash: format!("{hash:032x}"), tokens, vector })
    }
}

impl Progress {
    /// Queues the next chunks, or hands all of them to the reply callback to be written.
    fn go_on(self) {
        let rest = self.chunks.get(self.prepared.len()..).unwrap_or_default();
        if rest.is_empty() {
            return self.finish();
        }
        let texts: Vec<String> = rest.iter().take(SLICE).map(|chunk| self.document.text_of(chunk).to_owned()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let embedding = self.embedding.clone();
        let mut progress = self;
        embedding.run(&texts, move |vectors| match vectors.and_then(|vectors| progress.take(vectors)) {
            Ok(()) => progress.go_on(),
            Err(error) => progress.fail(error),
        });
    }

    /// Adds the next chunks, whose vectors these are.
    fn take(&mut self, vectors: Vec<Vec<f32>>) -> Result<(), EngineError> {
        if vectors.is_empty() {
            return Err(EngineError::Internal("no vectors came back".to_owned()));
        }
        for vector in vectors {
            let number = self.prepared.len();
            let Some(chunk) = self.chunks.get(number) else { break };
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            self.prepared.push(self.document.prepare(number, chunk, vector)?);
        }
        Ok(())
    }

    /// The models stay behind: freeing one is not for the main thread.
    fn finish(self) {
        let Self { document, prepared, pending, embedding, .. } = self;
        let Document { keys, settings, path, more, ingesting, .. } = document;
        drop(embedding);
        pending.finish_with(move |ctx| {
            let keyspace = Keyspace::of(ctx);
            require_unchanged(&keyspace, &keys, &settings)?;
            let data = keys.data(settings.generation);
            let writer = Writer { keys: &data, path: &path, quant: settings.quant.name() };
            let counts = writer.write(&keyspace, &prepared, &more)?;
            drop(ingesting);
            Ok(counts.reply())
        });
    }

    fn fail(self, error: EngineError) {
        drop(self.embedding);
        self.pending.finish(Err(error.into()));
    }
}

fn too_many_chunks(count: usize) -> Failure {
    Failure::err(format!(
        "the document has {count} chunks, more than the {} that are written in one go; split it, or use an index with a larger MAXTOKENS",
        limits::DOCUMENT_CHUNKS_MAX
    ))
}
