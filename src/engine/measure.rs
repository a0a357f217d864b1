//! Measures, when a generation model is loaded, what was left to AUTO: how many threads make its answers faster, and whether
//! one worker with all CPUs or two with half of them each make more tokens for as many requests.
//!
//! *Threads*: reading a prompt gains from every CPU; the next token of an answer reads all weights for little work, and from
//! some number of threads on the memory is the limit, or, with small models, the threads wait for each other more than they
//! compute.
//!
//! *Workers*: threads of one context wait for each other after each step, and for their worker while it draws tokens; two
//! contexts read all weights twice. Which costs more depends on model and CPU. So both layouts do the same work in turns: read
//! the prompts of as many requests as they will serve, and answer. How much the requests have read before makes no difference:
//! SmolLM2-135M and the shape of Qwen3-0.6B, with 0 and with 128 tokens before them, gave the same ratio within 3 percent.
//!
//! All of it happens in contexts of its own, which are small, and gone before the workers make theirs. Without a result, because
//! others use the CPUs or the model is too large, threads are all CPUs and workers are one: it reads the weights, which are then
//! what takes the time, once for all requests; and beside a busy process it does better as well.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::budget::{Question, Share};
use super::context::{AbortSwitch, Batch, Context, Decoded};
use super::error::EngineError;
use super::model::Model;
use super::sampler::Sampler;
use super::served::generation_spec;
use super::stop::Stop;
use super::threads::{self, Manners};
use crate::logic::crowd::{candidates, useful_threads};
use crate::logic::layout::{Layout, two_gain};
use crate::logic::options::{LoadOptions, Sampling};

/// Longest time of all measurements of a load.
const PATIENCE: Duration = Duration::from_millis(1800);
/// Passes for each number of threads; the fastest counts.
const ROUNDS: u32 = 3;
/// Turns of each layout; the fastest counts, and of fewer than the least nothing is known.
const TURNS: u32 = 3;
const TURNS_MIN: u32 = 2;
/// Tokens of prompts that a layout reads in a turn, all requests together, and tokens of each answer: prompts are longer than
/// answers, as they are for most who ask about documents or go on with a conversation.
const READ: u32 = 64;
const ANSWER: u32 = 3;
/// Tokens that a sequence has room for; llama.cpp makes none smaller.
const ROOM: u32 = 256;

/// What is measured, and how its workers will be.
pub(super) struct Trial<'a> {
    pub model: &'a Arc<Model>,
    pub options: &'a LoadOptions,
    /// Tokens of one request.
    pub context: u32,
    pub share: &'a Share,
    pub stop: &'a Stop,
    pub manners: Manners,
}

impl Trial<'_> {
    /// Finds what of `layout` was left to AUTO, unless that is known. Threads are noted where the passes of the model look.
    ///
    /// # Errors
    /// `LOADFAIL` when llama.cpp cannot compute the model at all, `OOM` without memory, `CANCELLED` when the load is to end.
    pub(super) fn settle(&self, layout: Layout) -> Result<Layout, EngineError> {
        if !self.share.is_auto() || self.share.budget().cpus() < 2 {
            return Ok(layout);
        }
        let deadline = Instant::now() + PATIENCE;
        if let Some(threads) = self.known_or(Question::Threads, || self.useful_threads(deadline))? {
            self.share.of_model().set_useful(threads);
        }
        if !layout.is_open {
            return Ok(layout);
        }
        let question = Question::Workers { requests: layout.requests() };
        let two = self.known_or(question, || self.better_workers(layout, deadline))? == Some(layout.workers);
        Ok(if two { Layout { is_open: false, ..layout } } else { layout.joined() })
    }

    /// What was measured for the file before, or else what `measure` finds.
    fn known_or(
        &self,
        question: Question,
        measure: impl FnOnce() -> Result<Option<u32>, EngineError>,
    ) -> Result<Option<u32>, EngineError> {
        let (budget, file) = (self.share.budget(), self.model.facts.fingerprint.as_str());
        if let Some(known) = budget.measured(file, question) {
            return Ok(Some(known));
        }
        let found = measure()?;
        if let Some(found) = found {
            budget.remember(file, question, found);
        }
        Ok(found)
    }

    /// Threads beyond which more do not make a pass over one token faster.
    fn useful_threads(&self, deadline: Instant) -> Result<Option<u32>, EngineError> {
        let mut probe = self.probe(1)?;
        if !probe.context.remembers() {
            return Ok(None);
        }
        // The first pass brings the weights into memory.
        if probe.advance(1, 1, 1, deadline)?.is_none() {
            return Ok(None);
        }
        let widths = candidates(self.share.budget().cpus());
        let mut best: Vec<(u32, Duration)> = widths.into_iter().map(|threads| (threads, Duration::MAX)).collect();
        for _ in 0..ROUNDS {
            for (threads, fastest) in &mut best {
                probe.restart();
                let Some(took) = probe.advance(1, 1, *threads, deadline)? else { return Ok(None) };
                *fastest = took.min(*fastest);
            }
        }
        Ok(useful_threads(&best))
    }

    /// The workers, those of `layout` or one, that answer its requests faster.
    fn better_workers(&self, layout: Layout, deadline: Instant) -> Result<Option<u32>, EngineError> {
        let budget = self.share.budget();
        let mut first = self.probe(layout.requests())?;
        if !first.context.remembers() {
            return Ok(None);
        }
        let [alone, beside] = [(layout.requests(), budget.cpus()), (layout.slots, budget.cpus() / layout.workers)]
            .map(|(requests, cpus)| Turn { requests, read: (READ / layout.requests()).max(1), cpus, deadline });
        let second = Second::start(self.probe(layout.requests())?, beside, self.manners)?;
        let [mut one, mut two] = [Duration::MAX; 2];
        let mut turns = 0;
        while turns < TURNS {
            let Some(took) = first.turn(alone)? else { break };
            second.begin();
            let here = first.turn(beside);
            let there = second.wait();
            let (Some(here), Some(there)) = (here?, there?) else { break };
            one = one.min(took);
            two = two.min(here.max(there));
            turns += 1;
        }
        // Passes that had their threads, but not the CPUs for them.
        let disturbed = budget.allowed() < budget.cpus();
        if turns < TURNS_MIN || disturbed {
            return Ok(None);
        }
        Ok(Some(if two_gain(one, two) { layout.workers } else { 1 }))
    }

    fn probe(&self, sequences: u32) -> Result<Probe, EngineError> {
        let abort = Arc::new(AbortSwitch { stop: self.stop.clone(), ..AbortSwitch::default() });
        let spec = generation_spec(self.options, ROOM, sequences);
        let context = Context::new(Arc::clone(self.model), spec, Arc::clone(&abort), self.share.another())?;
        Ok(Probe { context, abort, room: self.context.min(ROOM), vocabulary: self.model.facts.vocabulary, length: 0 })
    }
}

/// What a context does in a turn.
#[derive(Clone, Copy)]
struct Turn {
    requests: u32,
    /// Tokens of each prompt.
    read: u32,
    /// CPUs that it has.
    cpus: u32,
    deadline: Instant,
}

/// A context that is measured.
struct Probe {
    context: Context,
    abort: Arc<AbortSwitch>,
    /// Tokens that a sequence may have.
    room: u32,
    vocabulary: u32,
    /// Tokens that the sequences have.
    length: u32,
}

impl Probe {
    /// Reads prompts and answers them; the time, or `None` when there was no time or there were no CPUs for it.
    fn turn(&mut self, turn: Turn) -> Result<Option<Duration>, EngineError> {
        let Turn { requests, read, cpus, deadline } = turn;
        self.restart();
        let mut all = Duration::ZERO;
        for tokens in std::iter::once(read).chain([1; ANSWER as usize]) {
            let threads = self.context.share().useful((requests * tokens) as usize).min(cpus);
            match self.advance(requests, tokens, threads, deadline)? {
                Some(took) => all += took,
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }

    /// One pass over `tokens` more tokens of each of the first `requests` sequences, which draws the next one of each; the time,
    /// or `None` when there was no time or there were not `threads` CPUs for it.
    fn advance(
        &mut self,
        requests: u32,
        tokens: u32,
        threads: u32,
        deadline: Instant,
    ) -> Result<Option<Duration>, EngineError> {
        let begun = Instant::now();
        let end = self.length + tokens;
        if end > self.room {
            return Ok(None);
        }
        let mut batch = Batch::default();
        for sequence in 0..requests {
            for position in self.length..end {
                // Different tokens, for which a mixture of experts reads different weights.
                let token = sequence.wrapping_mul(7919).wrapping_add(position.wrapping_mul(104_729));
                batch.push(token % self.vocabulary.max(1), position, sequence, position + 1 == end);
            }
        }
        self.length = end;
        let decoded = self.context.decode_until(deadline, threads, &mut batch);
        if let Some(reason) = self.abort.stop.reason() {
            return Err(EngineError::Cancelled(reason));
        }
        match decoded {
            Ok((Decoded::Done(_), given)) if given == threads => {}
            Ok(_) => return Ok(None),
            Err(EngineError::ContextLost(reason) | EngineError::Internal(reason)) => {
                return Err(EngineError::LoadFailed(format!("llama.cpp cannot compute this model: {reason}")));
            }
            Err(error) => return Err(error),
        }
        let mut sampler = Sampler::new(&Sampling::default(), &[], None);
        for output in (1..=requests).map(|request| request * tokens - 1) {
            // It is for the first request to tell when no token can be drawn.
            let _ = self.context.logits(output as usize).map(|logits| sampler.choose(logits));
        }
        Ok(Some(begun.elapsed()))
    }

    /// Forgets all tokens.
    fn restart(&mut self) {
        self.context.clear();
        self.length = 0;
    }
}

/// The second of two contexts, on a thread of its own.
struct Second {
    orders: Option<Sender<()>>,
    times: Receiver<Result<Option<Duration>, EngineError>>,
    thread: Option<JoinHandle<()>>,
}

impl Second {
    fn start(mut probe: Probe, turn: Turn, manners: Manners) -> Result<Self, EngineError> {
        let (orders, begun) = channel();
        let (done, times) = channel();
        let body = move || {
            for () in begun {
                let took = probe.turn(turn);
                probe.context.rest();
                // Nobody listens any more when the first one has failed.
                let _ = done.send(took);
            }
        };
        let thread = threads::spawn("infer-load", manners, body)
            .map_err(|e| EngineError::OutOfMemory(format!("could not start a thread: {e}")))?;
        Ok(Self { orders: Some(orders), times, thread: Some(thread) })
    }

    /// Begins a turn.
    fn begin(&self) {
        // When the thread has ended, waiting for it tells.
        let _ = self.orders.as_ref().map(|orders| orders.send(()));
    }

    /// What the turn took.
    fn wait(&self) -> Result<Option<Duration>, EngineError> {
        let ended = || Err(EngineError::Internal("a thread ended while layouts were compared".to_owned()));
        self.times.recv().unwrap_or_else(|_| ended())
    }
}

impl Drop for Second {
    /// Waits until its memory is free: a turn ends at its deadline.
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
