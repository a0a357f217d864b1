//! The second look of a search: a reranker reads the question with each chunk that was found, and the best are kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::find::Findings;
use super::runtime::{engine, queue_limit};
use super::waiting::Reranking;
use crate::engine::{EngineError, Errand, Permit, Purpose, Served, Ticket};
use crate::logic::options::Selection;
use crate::logic::passages::Found;
use crate::logic::ranking::best_first;
use crate::redis_api::reply::Failure;

/// A second look that is going to be taken.
#[derive(Debug)]
pub(super) struct SecondLook {
    reranker: Arc<Served>,
    permit: Permit,
    /// Whose tokens the chunks are.
    generator: Arc<Served>,
    /// Chunks that are kept.
    k: usize,
}

impl SecondLook {
    /// Takes a place in the queue of the reranker that `selection` names; `None` when it names none.
    pub(super) fn begin(selection: &Selection, generator: &Arc<Served>) -> Result<Option<Self>, Failure> {
        let Some(name) = &selection.rerank else {
            return Ok(None);
        };
        let reranker = engine()?.find_for(name, Purpose::Reranking)?;
        let permit = reranker.permit(queue_limit())?;
        Ok(Some(Self { reranker, permit, generator: Arc::clone(generator), k: selection.k as usize }))
    }

    /// Leaves the lock scope. `done` is called once, on a worker thread: it may only hand on what is kept.
    pub(super) fn take(
        self,
        question: Arc<str>,
        client: u64,
        ticket: Ticket,
        findings: Findings,
        done: impl FnOnce(Result<Findings, Failure>) + Send + 'static,
    ) {
        if findings.chunks.is_empty() {
            return done(Ok(findings));
        }
        let bytes = findings.chunks.iter().map(|chunk| question.len() + size_of_val(chunk.tokens.as_slice())).sum();
        let errand = Errand { client, bytes, ticket: Some(ticket.clone()) };
        let task = move || self.rerank(&question, ticket, findings, done);
        let handed = engine().and_then(|engine| engine.go_on(errand, task));
        if let Err(error) = handed {
            log::warn!("RERANK: {error}");
        }
    }

    fn rerank(
        self,
        question: &str,
        ticket: Ticket,
        findings: Findings,
        done: impl FnOnce(Result<Findings, Failure>) + Send + 'static,
    ) {
        let Self { reranker, permit, generator, k } = self;
        let texts = match findings.chunks.iter().map(|chunk| text(chunk, &generator)).collect::<Result<Vec<_>, _>>() {
            Ok(texts) => texts,
            Err(error) => return done(Err(error.into())),
        };
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let since = Instant::now();
        Reranking { served: reranker, permit, ticket }.run(question, &texts, move |scores| match scores {
            Ok(scores) => done(Ok(kept(findings, &scores, k, since.elapsed()))),
            Err(error) => done(Err(with_chunk(error, &findings.chunks))),
        });
    }
}

fn text(chunk: &Found, generator: &Served) -> Result<String, EngineError> {
    // What an ingest has written is UTF-8; what somebody else has written there need not be.
    generator.model.detokenize(&chunk.tokens).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn kept(findings: Findings, scores: &[f32], k: usize, reranked: Duration) -> Findings {
    let mut chunks: Vec<Option<Found>> = findings.chunks.into_iter().map(Some).collect();
    let best = best_first(scores, k).into_iter().filter_map(|place| {
        let chunk = chunks.get_mut(place)?.take()?;
        Some(Found { rerank_score: Some(scores[place]), ..chunk })
    });
    Findings { chunks: best.collect(), reranked: Some(reranked), ..findings }
}

/// Names the chunk instead of its place, which nobody knows.
fn with_chunk(error: EngineError, chunks: &[Found]) -> Failure {
    match error {
        EngineError::PairTooLong { name, index, tokens, context } => {
            let id = chunks.get(index).map_or("", |chunk| &chunk.id);
            Failure::new(
                "CTXLIMIT",
                format!(
                    "the query and chunk '{id}' have {tokens} tokens together, but model '{name}' reads at most {context}; \
                     shorten the query, or ask without RERANK"
                ),
            )
        }
        error => error.into(),
    }
}
