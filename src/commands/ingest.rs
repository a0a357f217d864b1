//! `INFER.INGEST`: a document into an index.
//!
//! Steps and where they run:
//! - `look` (keyspace thread): what is stored of the document. If its text is the same, its chunks are known without cutting.
//! - `cut` (desk): the text into chunks, their versions.
//! - the rest is in `writing`.
//!
//! If somebody else has changed the document, or a re-index the index, by the time it is written, everything begins again
//! with `look`; vectors that were stored by then are found there.

use std::ops::Range;
use std::sync::Arc;

use redis_module::Context;

use super::chunk_prompt::{Blocks, Frame, block_tokens};
use super::chunk_rows::make_ahead;
use super::document::Document;
use super::index_work::Ingesting;
use super::replace::{NewChunk, Replacement};
use super::retrieval::{IndexModels, index_models, require_settings};
use super::runtime::{engine, kv_budget, queue_limit};
use super::waiting::{Embedding, block_for_model};
use super::writing::{Ended, Owner, Writing, on_desk};
use crate::engine::{EngineError, Errand, Special};
use crate::logic::attributes::UserAttributes;
use crate::logic::chunk::{ChunkOptions, chunk};
use crate::logic::index::IndexSettings;
use crate::logic::keys::{DataKeys, IndexKeys};
use crate::logic::options::Kv;
use crate::logic::prompt::DEFAULT_RAG_SYSTEM;
use crate::logic::version::{Version, document_hash};
use crate::logic::{limits, options};
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::keyspace_thread;
use crate::redis_api::pending::PendingReply;
use crate::redis_api::reply::{Answer, Failure};
use crate::redis_api::vset;

const COMMAND: &str = "INFER.INGEST";

/// How often it begins anew because somebody else was faster. Each time somebody else's document was written.
const ATTEMPTS: u32 = 100;

/// A document on its way into an index.
struct Ingest {
    caller: Caller,
    keys: IndexKeys,
    settings: IndexSettings,
    path: String,
    text: String,
    hash: String,
    more: UserAttributes,
    models: IndexModels,
    embedding: Embedding,
    pending: PendingReply,
    ingesting: Ingesting,
    attempts: u32,
}

/* INFER.INGEST index path text [ATTRS json] */
/// Replaces the document `path`: unchanged chunks stay, changed and new ones are written, vanished ones removed.
pub fn ingest(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = options::Ingest::parse(args)?;
    refuse_blocking(ctx, COMMAND)?;
    vset::require(ctx)?;
    keyspace_thread::start(ctx)?;
    let keys = IndexKeys::new(request.index);
    let settings = require_settings(&Keyspace::of(ctx), &keys)?;
    let models = index_models(&settings)?;
    let permit = models.embedder.permit(queue_limit())?;
    let (pending, ticket) = block_for_model(ctx, COMMAND, &models.embedder)?;
    let caller = Caller::of(ctx, COMMAND).with_key(ctx, keys.settings());
    let ingest = Ingest {
        ingesting: Ingesting::begin(caller.db, request.index),
        caller,
        keys,
        settings,
        path: request.path.to_owned(),
        text: request.text.to_owned(),
        hash: String::new(),
        more: request.attributes,
        embedding: Embedding { served: models.embedder.clone(), permit, ticket },
        models,
        pending,
        attempts: 0,
    };
    let errand = Errand::of(ingest.pending.client_id(), &ingest.embedding.ticket, ingest.text.len());
    engine()?.run(errand, move || Ingest { hash: document_hash(&ingest.text), ..ingest }.begin())?;
    Ok(Outcome::Pending)
}

impl Ingest {
    fn begin(self) {
        let work = self.ingesting.index();
        work.when_there_is_room(move || self.look());
    }

    fn look(mut self) {
        self.attempts += 1;
        keyspace_thread::run(self.caller.clone(), move |keyspace| {
            match keyspace.and_then(|keyspace| self.read(keyspace)) {
                Ok(replacement) => self.compare(replacement),
                Err(failure) => self.finish(Err(failure)),
            }
        });
    }

    fn read(&mut self, keyspace: &Keyspace<'_>) -> Result<Replacement, Failure> {
        let settings = require_settings(keyspace, &self.keys)?;
        if settings != self.settings {
            self.models = index_models(&settings)?;
            self.embedding.permit = self.models.embedder.permit(queue_limit())?;
            self.embedding.served = self.models.embedder.clone();
            self.settings = settings;
        }
        let before = Document::read(keyspace, &self.data().document(&self.path))?;
        Ok(Replacement::by_nothing(self.data(), &self.path, self.settings.quant.name(), before))
    }

    fn data(&self) -> DataKeys {
        self.keys.data(self.settings.generation)
    }

    fn compare(self, replacement: Replacement) {
        let Some(versions) = replacement.stored_versions(&self.hash) else {
            return self.cut(replacement);
        };
        let replacement = replacement.by(self.hash.clone(), &self.more, versions.into_iter());
        Writing::begin(self, replacement, Vec::new());
    }

    /// Leaves the lock scope: counting tokens is not for the thread that holds Redis' lock.
    fn cut(self, replacement: Replacement) {
        on_desk(&self.caller.clone(), self.text.len(), move || {
            let model = &self.models.embedder.model;
            // An uncountable text counts as too large, so it is split until it can be counted. What nobody waits for any more is
            // not counted: no chunk needs to be split then.
            let count = |text: &str| {
                if self.embedding.ticket.is_cancelled() {
                    return 0;
                }
                model.tokenize(text, Special::Add).map_or(usize::MAX, |tokens| tokens.len())
            };
            let options =
                ChunkOptions { max_tokens: self.settings.max_tokens as usize, overlap: self.settings.overlap as usize };
            let chunks = chunk(&self.text, &options, &count);
            if self.embedding.ticket.is_cancelled() {
                return self.finish(Err(EngineError::Cancelled("nobody waits for it any more").into()));
            }
            if chunks.len() > limits::DOCUMENT_CHUNKS_MAX {
                return self.finish(Err(too_many_chunks(chunks.len())));
            }
            let text = |range: Range<usize>| self.text.get(range).unwrap_or_default().to_owned();
            let texts: Vec<String> = chunks.iter().map(|chunk| text(chunk.text_range.clone())).collect();
            let versions =
                chunks.iter().zip(&texts).map(|(chunk, text)| Version::new((chunk.first_line, chunk.last_line), text));
            let replacement = replacement.by(self.hash.clone(), &self.more, versions);
            Writing::begin(self, replacement, texts);
        });
    }

    /// Has new chunks read, if that is done for each by itself; the client does not wait for it.
    fn read_ahead(&self, new: Vec<NewChunk>) {
        if self.settings.kv == Kv::Exact || new.is_empty() || kv_budget() == 0 {
            return;
        }
        let (index, path) = (self.ingesting.index(), self.path.clone());
        let served = Arc::clone(&self.models.generator);
        let bytes = new.iter().map(|chunk| size_of_val(chunk.tokens.as_slice())).sum();
        on_desk(&self.caller, bytes, move || {
            let model = &served.model;
            let blocks = || -> Result<Blocks, EngineError> {
                let beginning = Frame::new(model, DEFAULT_RAG_SYSTEM, "")?.beginning;
                let block = |chunk: &NewChunk| block_tokens(model, &path, chunk.lines, &chunk.tokens);
                Ok(Blocks { beginning, blocks: new.iter().map(block).collect::<Result<_, _>>()?, reread: 0 })
            };
            match blocks() {
                Ok(blocks) => make_ahead(&index, &served, blocks.all()),
                Err(error) => log::warn!("chunks of a document are not read ahead: {error}"),
            }
        });
    }

    fn finish(self, answer: Answer) {
        let Self { caller, pending, ingesting, embedding: Embedding { permit, served, .. }, models, .. } = self;
        drop((ingesting, permit));
        pending.finish(answer);
        // If a model was unloaded meanwhile its memory is freed here, which is not for a thread that holds Redis' lock.
        on_desk(&caller, 0, move || drop((served, models)));
    }
}

impl Owner for Ingest {
    fn caller(&self) -> &Caller {
        &self.caller
    }

    fn index(&self) -> (&IndexKeys, &IndexSettings) {
        (&self.keys, &self.settings)
    }

    fn embedding(&self) -> &Embedding {
        &self.embedding
    }

    fn tokens(&self, _chunk: usize, text: &str) -> Result<Vec<u32>, EngineError> {
        self.models.generator.model.tokenize(text, Special::None)
    }

    fn ended(self, how: Result<Ended, Failure>) {
        match how {
            Ok(Ended::Written(counts, new)) => {
                // Still in the lock scope in which it was written.
                self.ingesting.changed(&self.path);
                self.read_ahead(new);
                self.finish(Ok(counts.reply()));
            }
            // The text is the same, but some of its chunks were deleted.
            Ok(Ended::NoTexts(replacement)) => self.cut(replacement),
            Ok(Ended::Overtaken) if self.attempts < ATTEMPTS => self.begin(),
            Ok(Ended::Overtaken) => {
                self.finish(Err(Failure::err(
                    "others change the document all the time; send it again when they do not",
                )));
            }
            Err(failure) => self.finish(Err(failure)),
        }
    }
}

fn too_many_chunks(count: usize) -> Failure {
    Failure::err(format!(
        "the document has {count} chunks, more than the {} that are written in one go; split it, or use an index with a larger MAXTOKENS",
        limits::DOCUMENT_CHUNKS_MAX
    ))
}
