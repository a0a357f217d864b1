//! What passes between the command layer and the workers: plain owned data, and a sink that is answered exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::constraint::Constraint;
use super::error::EngineError;
use super::queue::Job;
use crate::logic::kv_rows::{KvRows, Piece};
use crate::logic::logprobs::TokenLogprobs;
use crate::logic::options::GenerateOptions;
use crate::logic::sched::Gap;

/// Takes the result of a request. A sink that is dropped unused must answer its client by itself, as
/// `redis_api::pending` does.
pub type Done<T> = Box<dyn FnOnce(Result<T, EngineError>) + Send>;

/// Shared between a request and whoever may end it or asks how far it is.
#[derive(Debug, Clone, Default)]
pub struct Ticket {
    /// Set when nobody waits for the answer any more.
    pub cancelled: Arc<AtomicBool>,
    /// Tokens generated so far.
    pub generated: Arc<AtomicU32>,
    /// Tokens to read before the first one can be generated; 0 until they are counted.
    pub prompt_tokens: Arc<AtomicU32>,
    /// Set when a worker has taken the request.
    pub started: Arc<AtomicBool>,
    /// Set while a preprocess thread works for the request.
    pub preprocessing: Arc<AtomicBool>,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It waits for a preprocess thread or for a worker.
    Queued,
    /// A preprocess thread makes tokens of its text.
    Preprocessing,
    /// A worker reads its tokens.
    Prefilling,
    /// At least one token is generated.
    Decoding,
}

impl Stage {
    /// The word in replies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Preprocessing => "preprocessing",
            Self::Prefilling => "prefilling",
            Self::Decoding => "decoding",
        }
    }
}

impl Ticket {
    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// # Errors
    /// `CANCELLED` when nobody waits for the answer any more.
    pub fn check(&self) -> Result<(), EngineError> {
        if self.is_cancelled() { Err(EngineError::Cancelled("nobody waits for it any more")) } else { Ok(()) }
    }

    pub(super) fn start(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// How far the request is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        if self.generated.load(Ordering::Relaxed) > 0 {
            Stage::Decoding
        } else if self.started.load(Ordering::Relaxed) {
            Stage::Prefilling
        } else if self.preprocessing.load(Ordering::Relaxed) {
            Stage::Preprocessing
        } else {
            Stage::Queued
        }
    }
}

/// A place in a model's queue, given back when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Permit {
    /// Held for its drop.
    _place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    taken: Arc<AtomicUsize>,
}

impl Permit {
    /// Takes one of `limit` places, if one is free.
    pub(super) fn take(taken: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < limit).then_some(n + 1)).ok()?;
        Some(Self { _place: Arc::new(Place { taken: Arc::clone(taken) }) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Tokens of a prompt whose keys and values are there.
#[derive(Debug, Clone)]
pub struct Splice {
    /// The place of the first of them.
    pub at: usize,
    /// Their rows, behind some that are left out.
    pub rows: Arc<KvRows>,
    /// How many are left out.
    pub skip: usize,
    /// Whether reading them would give the same.
    pub exact: bool,
}

impl Splice {
    /// Of a prompt that begins with a part of which `beginning` are the rows, and goes on with `blocks` one behind the other.
    /// Of each but the first `reread` tokens are read, at their place.
    #[must_use]
    pub fn of_blocks(beginning: Option<Arc<KvRows>>, blocks: Vec<Arc<KvRows>>, reread: usize) -> Vec<Self> {
        let mut at = beginning.as_ref().map_or(0, |rows| rows.tokens());
        let mut splices: Vec<Self> =
            beginning.into_iter().map(|rows| Self { at: 0, rows, skip: 0, exact: true }).collect();
        for (place, rows) in blocks.into_iter().enumerate() {
            let tokens = rows.tokens();
            let skip = if place == 0 { 0 } else { reread.min(tokens) };
            if skip < tokens {
                splices.push(Self { at: at + skip, rows, skip, exact: place == 0 });
            }
            at += tokens;
        }
        splices
    }

    /// Whether all are of a prompt of so many tokens, in order, and leave its last token to be read.
    pub(super) fn check(splices: &[Self], prompt: usize) -> Result<(), EngineError> {
        let mut end = 0;
        let in_order =
            splices.iter().map(Self::gap).all(|gap| gap.at >= std::mem::replace(&mut end, gap.to) && gap.at < gap.to);
        if in_order && (splices.is_empty() || end < prompt) {
            return Ok(());
        }
        Err(EngineError::Internal("rows do not fit into their prompt".to_owned()))
    }

    /// The tokens that are not read.
    pub(super) fn gap(&self) -> Gap {
        Gap { at: self.at, to: self.at + self.piece().tokens(), exact: self.exact }
    }

    pub(super) fn piece(&self) -> Piece<'_> {
        Piece { rows: &self.rows, skip: self.skip }
    }
}

/// A block of a prompt that is read behind the beginning of it, and behind nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Block {
    /// The beginning.
    pub before: Arc<[u32]>,
    /// The block.
    pub tokens: Vec<u32>,
}

/// A block whose keys and values are wanted.
pub struct ReadJob {
    /// The block.
    pub block: Block,
    /// Cancellation.
    pub ticket: Ticket,
    /// The place it holds in the queue until it is answered.
    pub permit: Permit,
    /// Takes the rows.
    pub done: Done<Arc<KvRows>>,
}

impl std::fmt::Debug for ReadJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadJob").field("tokens", &self.block.tokens.len()).finish_non_exhaustive()
    }
}

/// A prompt to continue.
pub struct GenerateJob {
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// Sampling and limits.
    pub options: GenerateOptions,
    /// The form that the answer must have.
    pub constraint: Option<Constraint>,
    /// Tokens of the prompt that need not be read, in the order of the prompt.
    pub splices: Vec<Splice>,
    /// Asks for the keys and values of the prompt from this token on, instead of an answer.
    pub cut: Option<usize>,
    /// Cancellation and progress.
    pub ticket: Ticket,
    /// When the command arrived.
    pub arrived: Instant,
    /// When its prompt was ready.
    pub ready: Instant,
    /// The place it holds in the queue until it is answered.
    pub permit: Permit,
    /// Takes the answer.
    pub done: Done<Generation>,
}

impl GenerateJob {
    /// Whether it reads its prompt as any other request would, and leaves it to others.
    pub(super) fn is_exact(&self) -> bool {
        self.splices.is_empty() && self.cut.is_none()
    }

    /// Answers the request. Its place is given back first: a client that has its answer may send the next request at
    /// once.
    pub(super) fn answer(self, result: Result<Generation, EngineError>) {
        drop(self.permit);
        (self.done)(result);
    }
}

impl Job for GenerateJob {
    fn prompt(&self) -> &[u32] {
        &self.prompt
    }
}

impl std::fmt::Debug for GenerateJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the prompt: it is user data.
        f.debug_struct("GenerateJob")
            .field("prompt_tokens", &self.prompt.len())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model produced its end token.
    EndOfSequence,
    /// A stop string appeared.
    Stop,
    /// `MAXTOKENS` were generated.
    Length,
}

impl FinishReason {
    /// The word in replies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOfSequence => "eos",
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// A finished generation.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The answer: valid UTF-8, without the stop string.
    pub text: String,
    /// Every generated token, with those of a stop string and the end token.
    pub tokens: Vec<u32>,
    /// Of each of them, when `LOGPROBS` asks for it.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, the ones that an earlier or concurrent request had brought into the model's memory.
    pub cached_tokens: usize,
    /// Tokens of the prompt whose keys and values were made elsewhere, see [`GenerateJob::splices`].
    pub spliced_tokens: usize,
    /// What [`GenerateJob::cut`] asks for.
    pub rows: Option<Arc<KvRows>>,
    /// Tokens generated, with the end token if there was one.
    pub completion_tokens: usize,
    /// Guesses of tokens that were computed along with others.
    pub drafted_tokens: usize,
    /// Of these, the ones that turned out right.
    pub accepted_tokens: usize,
    /// From the command's arrival until its prompt was ready.
    pub prepared: Duration,
    /// From there to the first decode call of the prompt.
    pub queued: Duration,
    /// From there to the first generated token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
    /// From each token to the next.
    pub gaps: Vec<Duration>,
    /// Seed that was used.
    pub seed: u32,
}

/// Texts to embed in one request.
///
/// The workers of a reranker take its pairs as such texts; the vector of a pair has one number.
pub struct EmbedJob {
    /// Token ids of each text, none longer than the model reads.
    pub texts: Vec<Vec<u32>>,
    /// Cancellation.
    pub ticket: Ticket,
    /// The place it holds in the queue until it is answered.
    pub permit: Permit,
    /// Takes one vector per text, in order, as the model pools them (not normalised).
    pub done: Done<Vec<Vec<f32>>>,
}

impl EmbedJob {
    /// Answers the request. Its place is given back first: a client that has its answer may send the next request at
    /// once.
    pub(super) fn answer(self, result: Result<Vec<Vec<f32>>, EngineError>) {
        drop(self.permit);
        (self.done)(result);
    }
}

impl Job for EmbedJob {
    /// Nothing of a text is kept.
    fn prompt(&self) -> &[u32] {
        &[]
    }
}

impl std::fmt::Debug for EmbedJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbedJob").field("texts", &self.texts.len()).finish_non_exhaustive()
    }
}

/// Pairs of a query and a text to score in one request.
pub struct RerankJob {
    /// Token ids of each pair, as [`super::Served::pairs`] makes them.
    pub pairs: Vec<Vec<u32>>,
    /// Cancellation.
    pub ticket: Ticket,
    /// The place it holds in the queue until it is answered.
    pub permit: Permit,
    /// Takes one score per pair, in order: the number that the model makes, higher for a better fit.
    pub done: Done<Vec<f32>>,
}

impl std::fmt::Debug for RerankJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RerankJob").field("pairs", &self.pairs.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_blocks_but_the_first_some_tokens_are_read_again() {
        let rows = |tokens| Arc::new(KvRows::example(0, tokens));
        let splices = Splice::of_blocks(Some(rows(3)), vec![rows(5), rows(4), rows(2), rows(6)], 2);
        let gaps: Vec<(usize, usize, bool)> = splices.iter().map(|s| (s.at, s.gap().to, s.exact)).collect();
        assert_eq!(gaps, [(0, 3, true), (3, 8, true), (10, 12, false), (16, 20, false)]);
        assert_eq!(Splice::of_blocks(None, vec![rows(2)], 9).iter().map(Splice::gap).map(|gap| gap.to).max(), Some(2));
    }

    #[test]
    fn rows_out_of_order_or_up_to_the_end_of_a_prompt_are_refused() {
        let rows = |tokens| Arc::new(KvRows::example(0, tokens));
        let mut splices = Splice::of_blocks(Some(rows(3)), vec![rows(5)], 0);
        assert!(Splice::check(&splices, 9).is_ok());
        assert!(Splice::check(&splices, 8).is_err());
        splices.reverse();
        assert!(Splice::check(&splices, 9).is_err());
    }

    #[test]
    fn a_permit_is_refused_at_the_limit_and_comes_back_when_dropped() {
        let taken = Arc::new(AtomicUsize::new(0));
        let first = Permit::take(&taken, 2).unwrap();
        let _second = Permit::take(&taken, 2).unwrap();
        assert!(Permit::take(&taken, 2).is_none());
        drop(first);
        assert!(Permit::take(&taken, 2).is_some());
    }
}
