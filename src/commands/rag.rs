//! `INFER.RAG`: an answer from the chunks of an index.
//!
//! Steps and where they run: parse, settings, copy (main thread) -> tokenize the question (desk) -> embed it (embedding
//! worker) -> VSIM and token copy in one lock scope (keyspace thread) -> assemble the prompt from stored tokens (desk)
//! -> generate (generation worker) -> reply (main thread).

use std::sync::Arc;

use redis_module::Context;

use super::retrieval::{Found, IndexModels, find, index_models, query_vector, require_settings};
use super::runtime::{engine, queue_limit};
use super::text_reply::Detail;
use super::waiting::{Embedding, WaitingForText};
use crate::engine::{Served, Ticket};
use crate::logic::index::IndexSettings;
use crate::logic::keys::IndexKeys;
use crate::logic::options::Rag;
use crate::logic::prompt::{ContextChunk, DEFAULT_RAG_SYSTEM, rag_messages};
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::{Failure, Value};
use crate::redis_api::vset;

/// A question on its way to its answer.
struct Question {
    waiting: WaitingForText,
    caller: Caller,
    keys: IndexKeys,
    settings: IndexSettings,
    text: String,
    system: String,
    k: u32,
    with_sources: bool,
    detail: Detail,
}

/* INFER.RAG index query [K n] [SYSTEM text] [WITHSOURCES] [generation options] */
/// Answers a question with the K nearest chunks as context.
pub fn rag(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = Rag::parse(args)?;
    refuse_blocking(ctx, "INFER.RAG")?;
    vset::require(ctx)?;
    keyspace_thread::start()?;
    let keys = IndexKeys::new(request.index);
    let settings = require_settings(&Keyspace::of(ctx), &keys)?;
    let IndexModels { embedder, generator } = index_models(&settings)?;
    let permit = embedder.permit(queue_limit())?;
    let detail = Detail::of(&request.options);
    let waiting = WaitingForText::begin(ctx, "INFER.RAG", generator, request.options)?;
    // Only the flag is shared: the request counts as queued until a generation worker takes it.
    let ticket = Ticket { cancelled: Arc::clone(&waiting.ticket.cancelled), ..Ticket::default() };
    let embedding = Embedding { served: embedder, permit, ticket };
    let question = Question {
        waiting,
        caller: Caller::of(ctx, "INFER.RAG"),
        keys,
        settings,
        text: request.query.to_owned(),
        system: request.system.unwrap_or(DEFAULT_RAG_SYSTEM).to_owned(),
        k: request.k,
        with_sources: request.with_sources,
        detail,
    };
    engine()?.run(move || question.embed(embedding))?;
    Ok(Outcome::Pending)
}

impl Question {
    fn embed(self, embedding: Embedding) {
        let text = self.text.clone();
        embedding.run(&[&text], move |vectors| match query_vector(vectors) {
            Ok(vector) => self.retrieve(vector),
            Err(error) => self.waiting.fail(error.into()),
        });
    }

    fn retrieve(self, vector: Vec<f32>) {
        keyspace_thread::run(self.caller.clone(), move |keyspace| {
            match keyspace.and_then(|keyspace| find(keyspace, &self.keys, &self.settings, &vector, self.k)) {
                Ok(found) => self.hand_to_desk(found),
                Err(failure) => self.waiting.fail(failure),
            }
        });
    }

    /// Leaves the lock scope: tokenizing the template is not for the thread that holds Redis' lock.
    fn hand_to_desk(self, found: Vec<Found>) {
        let handed = engine().and_then(|engine| engine.run(move || self.generate(found)));
        if let Err(error) = handed {
            log::warn!("INFER.RAG: {error}");
        }
    }

    fn generate(self, mut found: Vec<Found>) {
        let chunks = found
            .iter_mut()
            .map(|chunk| ContextChunk { label: label(chunk), tokens: std::mem::take(&mut chunk.tokens) })
            .collect();
        let messages = rag_messages(&self.system, &self.text, chunks);
        let served: &Arc<Served> = &self.waiting.served;
        let prompt = served.model.chat_prompt(&messages);
        let (detail, with_sources) = (self.detail, self.with_sources);
        self.waiting.generate(prompt, move |generation, served| {
            detail.reply(generation, served, with_sources.then(|| sources(&found)))
        });
    }
}

/// What the model reads above a chunk.
fn label(chunk: &Found) -> String {
    let (first, last) = (chunk.attributes.first_line, chunk.attributes.last_line);
    format!("{} lines {first}-{last}", chunk.attributes.path)
}

fn sources(found: &[Found]) -> Value {
    Value::Array(found.iter().map(|source| Value::Map(source.fields())).collect())
}
