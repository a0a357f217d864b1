//! What the engine has done since it was started: counters, and how long requests took.
//!
//! Written once per request, when it is answered, never per token. Counters are atomics, because they are also read
//! while the server writes a crash report, when any lock may be held for ever. The distributions are behind a lock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::error::EngineError;
use super::job::{Done, Generation};

/// Longest time that is told apart, in microseconds: one day, the longest TIMEOUT.
const LONGEST_US: u64 = 86_400_000_000;
/// Significant decimal digits of a percentile.
const DIGITS: u8 = 2;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters and distributions of one engine.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests answered with a result: generations, embeddings and rerankings.
    pub done: Counter,
    /// Tokens of the prompts of finished generations.
    pub prompt_tokens: Counter,
    /// Those of them that were not computed, because an earlier or running prompt begins with them too.
    pub cached_tokens: Counter,
    /// Tokens generated for them.
    pub generated_tokens: Counter,
    /// Guesses of tokens that were computed along with others for them.
    pub drafted_tokens: Counter,
    /// Those of them that turned out right.
    pub accepted_tokens: Counter,
    /// Texts embedded.
    pub embedded_texts: Counter,
    /// Tokens of these texts.
    pub embedded_tokens: Counter,
    /// Texts scored for a query.
    pub reranked_texts: Counter,
    /// Tokens of these texts, each with its query.
    pub reranked_tokens: Counter,
    /// Requests refused because a queue was full.
    pub rejected: Counter,
    /// Requests that reached their TIMEOUT.
    pub timeouts: Counter,
    /// Requests ended early because nobody waited for the answer any more; those with a timeout are among them.
    pub cancelled: Counter,
    /// Those of them that had no preprocess thread yet.
    pub skipped: Counter,
    /// Requests that failed in any other way.
    pub errors: Counter,
    /// Chunks that were found but not used, because their tokens were gone. Counted by the commands.
    pub missing_chunks: Counter,
    /// Forward passes begun.
    pub passes: Counter,
    /// Those of them with more than one thread.
    pub wide_passes: Counter,
    /// Those of them after which others have fewer threads, because other processes had the CPUs.
    pub crowded_passes: Counter,
    /// Blocks of prompts whose keys and values were kept. Counted by the commands.
    pub kv_hits: Counter,
    /// Those that had to be read. Counted by the commands.
    pub kv_misses: Counter,
    /// Sequences kept when they lost their slots.
    pub saved_sequences: Counter,
    /// Requests that began with one of them.
    pub restored_sequences: Counter,
    /// Prompts whose very text was found in a cache. Counted by the commands.
    pub cache_exact: Counter,
    /// Those for which one like it was found. Counted by the commands.
    pub cache_similar: Counter,
    /// Those for which nothing was found. Counted by the commands.
    pub cache_misses: Counter,
    times: Mutex<Times>,
    /// What [`Metrics::latencies`] last returned.
    seen: Mutex<Latencies>,
}

/// Distributions, in microseconds.
#[derive(Default)]
struct Times {
    queue: Distribution,
    first_token: Distribution,
    decode: Distribution,
    gap: Distribution,
    embed: Distribution,
    rerank: Distribution,
}

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Times").field("queue", &self.queue.now()).field("embed", &self.embed.now()).finish()
    }
}

/// How often which time was taken. Nothing is counted where a histogram cannot be made, which its constant bounds do not let happen.
struct Distribution(Option<Histogram<u64>>);

impl Default for Distribution {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, DIGITS).ok())
    }
}

impl Distribution {
    fn record(&mut self, time: Duration) {
        if let Some(histogram) = &mut self.0 {
            // At least the smallest value of a histogram.
            histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
        }
    }

    fn now(&self) -> Percentiles {
        self.0.as_ref().map(Percentiles::of).unwrap_or_default()
    }
}

/// One distribution at one moment, in microseconds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles {
    /// Number of values.
    pub samples: u64,
    /// Half of them were at most this.
    pub p50: u64,
    /// 99 in 100 were at most this.
    pub p99: u64,
    /// The largest.
    pub max: u64,
}

impl Percentiles {
    fn of(values: &Histogram<u64>) -> Self {
        Self {
            samples: values.len(),
            p50: values.value_at_quantile(0.5),
            p99: values.value_at_quantile(0.99),
            max: values.max(),
        }
    }
}

/// All distributions at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Latencies {
    /// From the command's arrival to the first step of its prompt.
    pub queue: Percentiles,
    /// From the command's arrival to the first token.
    pub first_token: Percentiles,
    /// Of one generated token after the first, averaged over its request.
    pub decode: Percentiles,
    /// From one token of an answer to the next: what a reader of the answer would wait for.
    pub gap: Percentiles,
    /// From the queue to the vectors, for all texts of a request.
    pub embed: Percentiles,
    /// From the queue to the scores, for all texts of a request.
    pub rerank: Percentiles,
}

impl Metrics {
    /// The distributions. Never waits for a worker, which may have been preempted while it holds the lock: then they
    /// are those of the last call.
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        let Some(mut seen) = try_lock(&self.seen) else { return Latencies::default() };
        if let Some(times) = try_lock(&self.times) {
            *seen = Latencies {
                queue: times.queue.now(),
                first_token: times.first_token.now(),
                decode: times.decode.now(),
                gap: times.gap.now(),
                embed: times.embed.now(),
                rerank: times.rerank.now(),
            };
        }
        *seen
    }

    /// `done`, with what it is called with recorded first. One that is dropped uncalled counts as an error.
    pub(super) fn counting_generation(self: &Arc<Self>, done: Done<Generation>) -> Done<Generation> {
        self.counting(done, Metrics::generated)
    }

    /// As [`Metrics::counting_generation`], for texts that have `tokens` together.
    pub(super) fn counting_embedding(
        self: &Arc<Self>,
        tokens: usize,
        done: Done<Vec<Vec<f32>>>,
    ) -> Done<Vec<Vec<f32>>> {
        let queued = Instant::now();
        self.counting(done, move |metrics, vectors| {
            metrics.embedded_texts.add(vectors.len());
            metrics.embedded_tokens.add(tokens);
            metrics.record(|times| times.embed.record(queued.elapsed()));
        })
    }

    /// As [`Metrics::counting_generation`], for pairs that have `tokens` together.
    pub(super) fn counting_reranking(self: &Arc<Self>, tokens: usize, done: Done<Vec<f32>>) -> Done<Vec<f32>> {
        let queued = Instant::now();
        self.counting(done, move |metrics, scores| {
            metrics.reranked_texts.add(scores.len());
            metrics.reranked_tokens.add(tokens);
            metrics.record(|times| times.rerank.record(queued.elapsed()));
        })
    }

    fn counting<T: 'static>(
        self: &Arc<Self>,
        done: Done<T>,
        count: impl FnOnce(&Self, &T) + Send + 'static,
    ) -> Done<T> {
        let request = Request { metrics: Arc::clone(self), ended: false };
        Box::new(move |result| {
            request.end(&result, count);
            done(result);
        })
    }

    /// Counts a request that ends with `error` before it has a job.
    pub(super) fn count_failure(&self, error: &EngineError) {
        let counter = if matches!(error, EngineError::Cancelled(_)) { &self.cancelled } else { &self.errors };
        counter.increment();
    }

    /// Counts `result` if it is a refusal because of a full queue.
    pub(super) fn count_refusal<T>(&self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        if matches!(result, Err(EngineError::QueueFull { .. } | EngineError::PreprocessFull { .. })) {
            self.rejected.increment();
        }
        result
    }

    fn generated(&self, generation: &Generation) {
        self.prompt_tokens.add(generation.prompt_tokens);
        self.cached_tokens.add(generation.cached_tokens);
        self.generated_tokens.add(generation.completion_tokens);
        self.drafted_tokens.add(generation.drafted_tokens);
        self.accepted_tokens.add(generation.accepted_tokens);
        let later_tokens = u32::try_from(generation.completion_tokens).unwrap_or(u32::MAX).saturating_sub(1);
        self.record(|times| {
            let begun = generation.prepared + generation.queued;
            times.queue.record(begun);
            times.first_token.record(begun + generation.prefill);
            if let Some(per_token) = generation.decode.checked_div(later_tokens) {
                times.decode.record(per_token);
            }
            for &gap in &generation.gaps {
                times.gap.record(gap);
            }
        });
    }

    fn record(&self, into: impl FnOnce(&mut Times)) {
        into(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A request that has not ended yet.
struct Request {
    metrics: Arc<Metrics>,
    ended: bool,
}

impl Request {
    fn end<T>(mut self, result: &Result<T, EngineError>, count: impl FnOnce(&Metrics, &T)) {
        self.ended = true;
        match result {
            Ok(value) => {
                self.metrics.done.increment();
                count(&self.metrics, value);
            }
            Err(EngineError::Cancelled(_)) => self.metrics.cancelled.increment(),
            Err(_) => self.metrics.errors.increment(),
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.errors.increment();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::job::FinishReason;

    fn generation(completion_tokens: usize) -> Generation {
        Generation {
            text: String::new(),
            finish_reason: FinishReason::Length,
            prompt_tokens: 7,
            cached_tokens: 5,
            spliced_tokens: 0,
            rows: None,
            completion_tokens,
            drafted_tokens: 6,
            accepted_tokens: 4,
            tokens: Vec::new(),
            logprobs: Vec::new(),
            prepared: Duration::from_micros(400),
            queued: Duration::from_micros(600),
            prefill: Duration::from_millis(2),
            decode: Duration::from_millis(40),
            gaps: [3, 3, 34].map(Duration::from_millis).to_vec(),
            seed: 0,
        }
    }

    fn ignore<T: 'static>() -> Done<T> {
        Box::new(drop)
    }

    /// Within the two digits that are kept.
    fn about(value: u64, expected: u64) -> bool {
        value.abs_diff(expected) * 100 <= expected
    }

    #[test]
    fn a_generation_is_counted_with_its_tokens_and_times() {
        let metrics = Arc::new(Metrics::default());
        metrics.counting_generation(ignore())(Ok(generation(11)));
        assert_eq!([&metrics.done, &metrics.prompt_tokens, &metrics.cached_tokens].map(Counter::get), [1, 7, 5]);
        assert_eq!([&metrics.generated_tokens, &metrics.drafted_tokens].map(Counter::get), [11, 6]);
        assert_eq!(metrics.accepted_tokens.get(), 4);
        let times = metrics.latencies();
        assert!(about(times.queue.p50, 1000) && about(times.first_token.p99, 3000), "{times:?}");
        assert!(about(times.decode.max, 4000), "{times:?}");
        assert!(about(times.gap.p50, 3000) && about(times.gap.p99, 34_000), "{times:?}");
    }

    #[test]
    fn one_token_has_no_time_between_tokens() {
        let metrics = Arc::new(Metrics::default());
        metrics.counting_generation(ignore())(Ok(generation(1)));
        assert_eq!(metrics.latencies().decode.samples, 0);
    }

    #[test]
    fn ends_without_a_result_are_told_apart() {
        let metrics = Arc::new(Metrics::default());
        metrics.counting_generation(ignore())(Err(EngineError::Cancelled("while it ran")));
        metrics.counting_embedding(3, ignore())(Err(EngineError::EmptyPrompt));
        // What a panic of a worker does.
        drop(metrics.counting_generation(ignore()));
        let counters = [&metrics.done, &metrics.cancelled, &metrics.errors, &metrics.embedded_tokens];
        assert_eq!(counters.map(Counter::get), [0, 1, 2, 0]);
    }

    #[test]
    fn a_reader_never_waits_for_a_writer() {
        let metrics = Arc::new(Metrics::default());
        metrics.counting_generation(ignore())(Ok(generation(11)));
        let before = metrics.latencies();
        let _writer = metrics.times.lock().unwrap();
        assert_eq!(metrics.latencies(), before);
        assert_eq!(before.queue.samples, 1);
    }
}
