//! From a question to the chunks that are nearest to it: what `INFER.SEARCH` and `INFER.RAG` have in common.
//!
//! The question is embedded by a worker; then one lock scope on the keyspace thread searches the vector set and copies
//! the tokens, so that what is found is one consistent view. Where that finds fewer chunks than are wanted, as with a filter
//! that few meet, it is searched farther. In a large index the search goes on without the lock, and the scope behind it
//! makes sure that what was found is still there. With `RERANK` a second look follows, without the lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::document::Document;
use super::losses;
use super::retrieval::require_same_models;
use super::second_look::SecondLook;
use super::waiting::Embedding;
use crate::engine::{EngineError, Ticket};
use crate::logic::attributes::ChunkAttributes;
use crate::logic::index::IndexSettings;
use crate::logic::keys::{DataKeys, IndexKeys, chunk_id, element};
use crate::logic::options::Selection;
use crate::logic::passages::Found;
use crate::logic::{limits, vector};
use crate::redis_api::call_apart::Coming;
use crate::redis_api::caller::Caller;
use crate::redis_api::keyspace::{Keyspace, Reply};
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::Failure;
use crate::redis_api::vset::{self, Effort, Hit, Similar, Wanted};

/// A question to an index.
#[derive(Debug)]
pub(super) struct Question {
    pub text: Arc<str>,
    /// When the command arrived.
    pub arrived: Instant,
    pub caller: Caller,
    pub keys: IndexKeys,
    /// Those the question is embedded for.
    pub settings: IndexSettings,
    pub selection: Selection,
    pub second_look: Option<SecondLook>,
}

/// The vector of a question.
#[derive(Debug, Clone)]
pub(super) struct Embedded {
    pub vector: Vec<f32>,
    /// From the command's arrival until it was there.
    pub after: Duration,
}

/// What a question finds.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Best first.
    pub chunks: Vec<Found>,
    /// Chunks whose tokens, or whose document's hash, have expired or been deleted: left out until the next ingest of their document.
    pub missing: usize,
    /// They have taken the places of others, which are farther away.
    pub crowded_out: bool,
    /// From the command's arrival to the vector of the question.
    pub embedded: Duration,
    /// Of that search; all clients waited, unless the index is large.
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
    pub(super) fn find(self, embedding: Embedding, done: impl FnOnce(Result<Findings, Failure>) + Send + 'static) {
        let ticket = embedding.ticket.clone();
        self.embed(embedding, move |question, embedded| match embedded {
            Ok(embedded) => question.find_near(embedded, ticket, done),
            Err(failure) => done(Err(failure)),
        });
    }

    /// Makes the vector of the question. `done` is called once.
    pub(super) fn embed(
        self,
        embedding: Embedding,
        done: impl FnOnce(Self, Result<Embedded, Failure>) + Send + 'static,
    ) {
        let text = Arc::clone(&self.text);
        embedding.run(&[&text], move |vectors| {
            let embedded =
                one_vector("query", vectors).map(|vector| Embedded { vector, after: self.arrived.elapsed() });
            done(self, embedded);
        });
    }

    /// Searches with the vector of the question. `done` as in [`Question::find`].
    pub(super) fn find_near(
        mut self,
        embedded: Embedded,
        ticket: Ticket,
        done: impl FnOnce(Result<Findings, Failure>) + Send + 'static,
    ) {
        let (question, client, second_look) = (Arc::clone(&self.text), self.caller.client, self.second_look.take());
        let Embedded { vector, after } = embedded;
        self.search(vector, Reach { effort: Effort::Near, count: 0 }, move |findings| {
            match (findings.map(|findings| Findings { embedded: after, ..findings }), second_look) {
                (Ok(findings), Some(look)) => look.take(question, client, ticket, findings, done),
                (findings, _) => done(findings),
            }
        });
    }

    fn search(self, query: Vec<f32>, reach: Reach, done: impl FnOnce(Result<Findings, Failure>) + Send + 'static) {
        keyspace_thread::run_around(self.caller.clone(), move |keyspace| {
            let since = Instant::now();
            match keyspace.and_then(|keyspace| self.begin(keyspace, &query, reach)) {
                Ok(Begun::Here(findings)) => self.go_on(query, reach, Ok(findings), done),
                Ok(Begun::Apart(keys, reply)) => {
                    let then = move |keyspace: Result<&Keyspace<'_>, Failure>, reply| {
                        let findings = keyspace.and_then(|keyspace| self.end(keyspace, &query, reach, &keys, reply));
                        let findings = findings.map(|findings| Findings { searched: since.elapsed(), ..findings });
                        self.go_on(query, reach, findings, done);
                    };
                    return Some((reply, then));
                }
                Err(failure) => done(Err(failure)),
            }
            None
        });
    }

    /// Searches farther when too little was found. May be called with the lock held.
    fn go_on(
        self,
        query: Vec<f32>,
        reach: Reach,
        findings: Result<Findings, Failure>,
        done: impl FnOnce(Result<Findings, Failure>) + Send + 'static,
    ) {
        match findings {
            Ok(findings) if findings.crowded_out => {
                let count = reach.count(&self.selection).saturating_mul(FARTHER).min(limits::HITS_MAX);
                self.search(query, Reach { count, ..reach }, done);
            }
            Ok(findings) if findings.gave_up && reach.effort == Effort::Near => {
                self.search(query, Reach { effort: Effort::Far, ..reach }, done);
            }
            findings => done(findings),
        }
    }

    fn wanted<'a>(&'a self, query: &'a [f32], reach: Reach) -> Wanted<'a> {
        let Selection { filter, ef, .. } = &self.selection;
        let count = reach.count(&self.selection);
        Wanted { vector: query, count, ef: *ef, filter: filter.as_deref(), effort: reach.effort }
    }

    /// Searches, or begins to in a large index.
    fn begin(&self, keyspace: &Keyspace<'_>, query: &[f32], reach: Reach) -> Result<Begun, Failure> {
        let keys = require_same_models(keyspace, &self.keys, &self.settings)?;
        match vset::begin_similar(keyspace, &keys.vectors(), &self.wanted(query, reach))? {
            Some(reply) => Ok(Begun::Apart(keys, reply)),
            None => self.look_up(keyspace, &keys, query, reach).map(Begun::Here),
        }
    }

    /// Reads what was found without the lock, if all of it is still there as it was. Else it is searched again with the lock, so that
    /// what is found is one consistent view.
    fn end(
        &self,
        keyspace: &Keyspace<'_>,
        query: &[f32],
        reach: Reach,
        keys: &DataKeys,
        reply: Result<Reply, Failure>,
    ) -> Result<Findings, Failure> {
        let now = require_same_models(keyspace, &self.keys, &self.settings)?;
        if now == *keys
            && let Some(similar) = vset::read_similar(keyspace, &keys.vectors(), &self.wanted(query, reach), reply)?
        {
            return self.read(keyspace, keys, similar, reach);
        }
        self.look_up(keyspace, &now, query, reach)
    }

    fn look_up(
        &self,
        keyspace: &Keyspace<'_>,
        keys: &DataKeys,
        query: &[f32],
        reach: Reach,
    ) -> Result<Findings, Failure> {
        let since = Instant::now();
        let similar = vset::similar(keyspace, &keys.vectors(), &self.wanted(query, reach))?;
        let searched = since.elapsed();
        Ok(Findings { searched, ..self.read(keyspace, keys, similar, reach)? })
    }

    /// Copies the chunks of what was found.
    fn read(
        &self,
        keyspace: &Keyspace<'_>,
        keys: &DataKeys,
        similar: Similar,
        reach: Reach,
    ) -> Result<Findings, Failure> {
        let Similar { hits, gave_up } = similar;
        let (wanted, asked) = (self.selection.candidates() as usize, reach.count(&self.selection));
        let mut findings = Findings { gave_up, ..Findings::default() };
        let since = Instant::now();
        let all = hits.len();
        let hits: Vec<Hit> = hits.into_iter().filter(|hit| hit.score >= self.selection.min_score).collect();
        let may_be_more = hits.len() == all && all >= asked as usize && asked < limits::HITS_MAX;
        let mut missed = Vec::new();
        for hit in hits {
            if findings.chunks.len() < wanted {
                missed.extend(take(keyspace, keys, hit, &mut findings)?);
            }
        }
        for chunk in &findings.chunks {
            losses::found(self.caller.db, self.keys.name(), &chunk.attributes.path, chunk.attributes.chunk);
        }
        findings.missing = missed.len();
        findings.crowded_out = !missed.is_empty() && findings.chunks.len() < wanted && may_be_more;
        losses::missed(self.caller.db, self.keys.name(), missed);
        findings.copied = since.elapsed();
        Ok(findings)
    }
}

/// How far a search goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    effort: Effort,
    /// Hits to look at, if more than are wanted.
    count: u32,
}

impl Reach {
    fn count(self, selection: &Selection) -> u32 {
        self.count.max(selection.candidates())
    }
}

/// How many times more hits are looked at when some of them have led nowhere.
const FARTHER: u32 = 4;

/// How a search has begun.
enum Begun {
    /// It is done.
    Here(Findings),
    /// It goes on without the lock, in the vectors of these keys; what it finds comes here.
    Apart(DataKeys, Coming),
}

/// Reads the chunk of a hit. `Some` is a chunk that is not there as the hit says.
fn take(
    keyspace: &Keyspace<'_>,
    keys: &DataKeys,
    hit: Hit,
    findings: &mut Findings,
) -> Result<Option<(String, u32)>, Failure> {
    // Elements that somebody else put into the vector set have no attributes of ours, and no tokens.
    let Some((json, attributes)) =
        hit.attributes.and_then(|json| ChunkAttributes::from_json(&json).ok().map(|attributes| (json, attributes)))
    else {
        return Ok(None);
    };
    let id = chunk_id(&attributes.path, attributes.chunk);
    if findings.chunks.iter().any(|other| other.id == id) {
        return Ok(None);
    }
    let tokens = keyspace.token_key_if_present(&keys.tokens(&id), limits::KEY_TOKENS_MAX)?;
    // What the hash of the document does not name is left over: of a document that is gone, or of a text that another has replaced.
    let version = Document::version_of(keyspace, &keys.document(&attributes.path), attributes.chunk)?;
    let is_current =
        version.is_some_and(|version| hit.element == element(&attributes.path, attributes.chunk, version).as_bytes());
    match tokens.filter(|_| is_current) {
        Some(tokens) => {
            findings.chunks.push(Found { id, attributes, json, score: hit.score, rerank_score: None, tokens });
            Ok(None)
        }
        None => Ok(Some((attributes.path, attributes.chunk))),
    }
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
