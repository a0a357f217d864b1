//! From a question to the chunks that are nearest to it: what `INFER.SEARCH` and `INFER.RAG` have in common.
//!
//! The question is embedded by a worker; then one lock scope on the keyspace thread searches the vector set and copies
//! the tokens, so that what is found is one consistent view. Where that finds fewer chunks than are wanted, as with a filter
//! that few meet, another scope searches farther. With `RERANK` a second look follows, without the lock.

use std::time::{Duration, Instant};

use super::retrieval::require_same_models;
use super::second_look::SecondLook;
use super::waiting::Embedding;
use crate::engine::EngineError;
use crate::logic::attributes::ChunkAttributes;
use crate::logic::index::IndexSettings;
use crate::logic::keys::{DataKeys, IndexKeys, chunk_id};
use crate::logic::options::Selection;
use crate::logic::passages::Found;
use crate::logic::{limits, vector};
use crate::redis_api::caller::Caller;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::Failure;
use crate::redis_api::vset::{self, Effort, Hit, Similar, Wanted};

/// A question to an index.
#[derive(Debug)]
pub(super) struct Question {
    pub text: String,
    pub caller: Caller,
    pub keys: IndexKeys,
    /// Those the question is embedded for.
    pub settings: IndexSettings,
    pub selection: Selection,
    pub second_look: Option<SecondLook>,
}

/// What a question finds.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Best first.
    pub chunks: Vec<Found>,
    /// Chunks whose tokens have expired or been deleted: left out until the next ingest of their document.
    pub missing: usize,
    /// From the question to its vector.
    pub embedded: Duration,
    /// Of that search; all clients waited.
    pub searched: Duration,
    /// Copying tokens; all clients waited.
    pub copied: Duration,
    /// The second look; `None` without one.
    pub reranked: Option<Duration>,
    /// There may be more, farther away.
    pub gave_up: bool,
}

impl Question {
    /// Embeds the question and searches with its vector. `done` is called once, perhaps with Redis' lock held: it may only
    /// hand on what was found.
    pub(super) fn find(mut self, embedding: Embedding, done: impl FnOnce(Result<Findings, Failure>) + Send + 'static) {
        let (text, question, ticket) = (self.text.clone(), self.text.clone(), embedding.ticket.clone());
        let second_look = self.second_look.take();
        let since = Instant::now();
        embedding.run(&[&text], move |vectors| match one_vector("query", vectors) {
            Ok(vector) => {
                let embedded = since.elapsed();
                self.search(vector, Effort::Near, move |findings| {
                    match (findings.map(|findings| Findings { embedded, ..findings }), second_look) {
                        (Ok(findings), Some(look)) => look.take(question, ticket, findings, done),
                        (findings, _) => done(findings),
                    }
                });
            }
            Err(failure) => done(Err(failure)),
        });
    }

    fn search(self, query: Vec<f32>, effort: Effort, done: impl FnOnce(Result<Findings, Failure>) + Send + 'static) {
        keyspace_thread::run(self.caller.clone(), move |keyspace| {
            match keyspace.and_then(|keyspace| self.look_up(keyspace, &query, effort)) {
                Ok(findings) if findings.gave_up && effort == Effort::Near => self.search(query, Effort::Far, done),
                findings => done(findings),
            }
        });
    }

    fn look_up(&self, keyspace: &Keyspace<'_>, query: &[f32], effort: Effort) -> Result<Findings, Failure> {
        let keys = require_same_models(keyspace, &self.keys, &self.settings)?;
        let Selection { filter, ef, min_score, .. } = &self.selection;
        let count = self.selection.candidates();
        let wanted = Wanted { vector: query, count, ef: *ef, filter: filter.as_deref(), effort };
        let since = Instant::now();
        let Similar { hits, gave_up } = vset::similar(keyspace, &keys.vectors(), &wanted)?;
        let mut findings = Findings { searched: since.elapsed(), gave_up, ..Findings::default() };
        let since = Instant::now();
        for hit in hits.into_iter().filter(|hit| hit.score >= *min_score) {
            take(keyspace, &keys, hit, &mut findings)?;
        }
        findings.copied = since.elapsed();
        Ok(findings)
    }
}

/// Reads the chunk of a hit.
fn take(keyspace: &Keyspace<'_>, keys: &DataKeys, hit: Hit, findings: &mut Findings) -> Result<(), Failure> {
    // Elements that somebody else put into the vector set have no attributes of ours, and no tokens.
    let Some((json, attributes)) =
        hit.attributes.and_then(|json| ChunkAttributes::from_json(&json).ok().map(|attributes| (json, attributes)))
    else {
        return Ok(());
    };
    let id = chunk_id(&attributes.path, attributes.chunk);
    // Two versions of a chunk can be there only when somebody deleted the document's hash between two ingests.
    if findings.chunks.iter().any(|other| other.id == id) {
        return Ok(());
    }
    match keyspace.token_key_if_present(&keys.tokens(&id), limits::KEY_TOKENS_MAX)? {
        Some(tokens) => {
            findings.chunks.push(Found { id, attributes, json, score: hit.score, rerank_score: None, tokens })
        }
        None => findings.missing += 1,
    }
    Ok(())
}

/// The one normalised vector of a text, which errors name as `what`.
pub(super) fn one_vector(what: &'static str, vectors: Result<Vec<Vec<f32>>, EngineError>) -> Result<Vec<f32>, Failure> {
    let vectors = vectors.map_err(|error| match error {
        EngineError::TextTooLong { name, tokens, context, .. } => Failure::new(
            "CTXLIMIT",
            format!("the {what} has {tokens} tokens, but model '{name}' reads at most {context}; shorten it"),
        ),
        error => error.into(),
    });
    let mut vector = vectors?.pop().ok_or_else(|| Failure::internal(format!("the {what} has no vector")))?;
    vector::l2_normalize(&mut vector);
    Ok(vector)
}
