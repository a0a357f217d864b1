//! A model in service: weights, queue, worker threads, and the checks a request passes before it is queued.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::block_reads::BlockReads;
use super::budget::{Budget, PassThreads, Share, Threads};
use super::constraint::{Constraint, Constraints};
use super::context::{AbortSwitch, Context, ContextSpec, Output, UBATCH};
use super::decoder::LlamaDecoder;
use super::embedder::{self, Embedder};
use super::error::EngineError;
use super::forms::Forms;
use super::job::{Block, EmbedJob, GenerateJob, Generation, Permit, ReadJob, RerankJob, Splice, Ticket};
use super::kv_store::{KvStore, ModelStore};
use super::measure::Trial;
use super::memory::{MemoryUse, Reservation};
use super::metrics::Metrics;
use super::model::{Model, Purpose, Special};
use super::pool::{Pool, PoolSpec};
use super::stop::Stop;
use super::threads::Manners;
use super::worker::Worker;
use crate::logic::kv_rows::KvRows;
use crate::logic::layout::Layout;
use crate::logic::limits;
use crate::logic::options::{GenerateOptions, KvType, LoadOptions, OutputForm, Pooling, Speculation};
use crate::logic::prompt::Segment;

/// Tokens of one decode call when nobody else is generating. With AUTO threads a pass takes all CPUs, and whoever comes
/// meanwhile waits for its end.
const PREFILL_BATCH: u32 = UBATCH;
/// Tokens of one forward pass of an embedding or reranking model, when its own limit is larger.
const EMBED_BATCH: u32 = 2048;

/// What has this many times the tokens that there is room for is not tokenized to tell how many it has.
const FAR: usize = 4;

/// How often a model that is unloaded is asked whether it has requests, and whether others hold it.
const DRAIN_CHECK: Duration = Duration::from_millis(5);

/// A loaded model with its running workers.
#[derive(Debug)]
pub struct Served {
    /// The weights.
    pub model: Arc<Model>,
    /// How it was loaded.
    pub options: LoadOptions,
    /// Workers and their requests, and threads as they were asked for.
    pub layout: Layout,
    pass_threads: Arc<PassThreads>,
    budget: Arc<Budget>,
    /// Tokens one request may use: prompt and answer for generation, one text for embedding, one pair for reranking.
    pub context: u32,
    workers: Workers,
    reservation: Reservation,
    constraints: Constraints,
    forms: Forms,
    kept: Arc<ModelStore>,
    reads: Arc<BlockReads>,
    stop: Stop,
    metrics: Arc<Metrics>,
}

/// What a model gets from the engine it runs in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host<'a> {
    /// Nice value and CPUs of its threads.
    pub manners: Manners,
    /// What it shares the CPUs by.
    pub budget: &'a Arc<Budget>,
    /// Set when all work of this model must end.
    pub stop: &'a Stop,
    pub metrics: &'a Arc<Metrics>,
    /// Where it keeps keys and values for later prompts.
    pub kept: &'a Arc<KvStore>,
}

#[derive(Debug)]
enum Workers {
    Generate(Pool<GenerateJob>),
    /// Of a model for embedding or reranking.
    Embed(Pool<EmbedJob>),
}

impl Served {
    /// Makes the contexts and starts the workers of a loaded model.
    ///
    /// # Errors
    /// `OOM` when the contexts do not fit, `LOADFAIL` when the options do not.
    pub(super) fn start(
        model: Model,
        options: LoadOptions,
        layout: Layout,
        reservation: Reservation,
        host: Host<'_>,
    ) -> Result<Self, EngineError> {
        let model = Arc::new(model);
        let trained = model.facts.train_context.max(1);
        if let Some(asked) = options.ctx.filter(|&ctx| ctx > trained) {
            return Err(EngineError::LoadFailed(format!(
                "CTX {asked} is more than the {trained} tokens this model was trained for"
            )));
        }
        let stop = host.stop.clone();
        let spec = |purpose, layout: Layout| PoolSpec {
            model: model.name.clone(),
            thread_prefix: purpose,
            workers: layout.workers,
            per_worker: if model.purpose == Purpose::Generation { layout.slots } else { 1 },
            manners: host.manners,
            stop: stop.clone(),
        };
        let pass_threads = PassThreads::new();
        let threads = layout.threads.map_or(Threads::Auto, Threads::Fixed);
        let share = |urgent| Share::new(host.budget, threads, urgent, &pass_threads);
        let context = context_of(&options, model.purpose, trained);
        let kept = Arc::new(host.kept.for_model(model.longest_cut()));
        let mut layout = layout;
        let workers = match model.purpose {
            Purpose::Generation => {
                check_speculation(&model, &options)?;
                let (share, manners) = (share(false), host.manners);
                let trial = Trial { model: &model, options: &options, context, share: &share, stop: &stop, manners };
                layout = trial.settle(layout)?;
                let contexts = generation_spec(&options, context, layout.slots);
                let guesses = speculates(&model, &options);
                Workers::Generate(generate_pool(spec("infer-gen", layout), &model, contexts, guesses, share, &kept)?)
            }
            // Somebody waits for a search or a question to begin.
            Purpose::Embedding => {
                let output = Output::Vectors(options.pooling);
                Workers::Embed(embed_pool(spec("infer-emb", layout), &model, output, context, share(true))?)
            }
            Purpose::Reranking => {
                Workers::Embed(embed_pool(spec("infer-rank", layout), &model, Output::Scores, context, share(true))?)
            }
        };
        let forms = Forms::new(host.manners, stop.clone(), (layout.workers * layout.slots) as usize);
        Ok(Self {
            model,
            options,
            layout,
            pass_threads,
            budget: Arc::clone(host.budget),
            context,
            workers,
            stop,
            reservation,
            constraints: Constraints::default(),
            forms,
            kept,
            reads: Arc::default(),
            metrics: Arc::clone(host.metrics),
        })
    }

    /// What it was expected to take in memory before it was loaded.
    #[must_use]
    pub fn estimate(&self) -> MemoryUse {
        self.reservation.estimate
    }

    /// What it takes in memory, as llama.cpp tells.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        self.model.memory()
    }

    /// Threads that compute the next token of an answer while nobody else has work: THREADS, or what was measured.
    #[must_use]
    pub fn threads(&self) -> u32 {
        self.layout.threads.unwrap_or_else(|| self.pass_threads.useful(self.budget.cpus()))
    }

    /// Threads of the latest forward pass, 0 before the first.
    #[must_use]
    pub fn latest_threads(&self) -> u32 {
        self.pass_threads.latest()
    }

    /// Compiles the form that an answer must have. Not for the main thread.
    ///
    /// # Errors
    /// `ERR` when it cannot be used.
    pub(super) fn constraint(&self, form: &OutputForm) -> Result<Constraint, EngineError> {
        self.constraints.compile(&self.model, form)
    }

    /// Whether answers are guessed.
    #[must_use]
    pub fn speculates(&self) -> bool {
        speculates(&self.model, &self.options)
    }

    /// Tells whose vectors these are: equal only for the same model with the same pooling.
    #[must_use]
    pub fn embedder_fingerprint(&self) -> String {
        let pooling = self.options.pooling.map_or("own", Pooling::name);
        format!("{}-{}", self.model.facts.fingerprint, pooling.to_lowercase())
    }

    /// Takes a place in the queue for one request.
    ///
    /// # Errors
    /// `QUEUEFULL` when `queue_limit` requests wait already.
    pub fn permit(&self, queue_limit: usize) -> Result<Permit, EngineError> {
        self.metrics.count_refusal(match &self.workers {
            Workers::Generate(pool) => pool.permit(queue_limit),
            Workers::Embed(pool) => pool.permit(queue_limit),
        })
    }

    /// Requests waiting and running.
    #[must_use]
    pub fn requests(&self) -> usize {
        match &self.workers {
            Workers::Generate(pool) => pool.requests(),
            Workers::Embed(pool) => pool.requests(),
        }
    }

    /// Requests whose turn has not come.
    #[must_use]
    pub fn waiting(&self) -> usize {
        match &self.workers {
            Workers::Generate(pool) => pool.waiting(),
            Workers::Embed(pool) => pool.waiting(),
        }
    }

    /// Why its workers have ended, if they have: it is of no use any more and is to be unloaded.
    #[must_use]
    pub fn failure(&self) -> Option<&EngineError> {
        match &self.workers {
            Workers::Generate(pool) => pool.failure(),
            Workers::Embed(pool) => pool.failure(),
        }
    }

    /// Contexts that its workers have made anew after failures.
    #[must_use]
    pub fn renewed(&self) -> u64 {
        match &self.workers {
            Workers::Generate(pool) => pool.renewed(),
            Workers::Embed(pool) => pool.renewed(),
        }
    }

    /// Queues a prompt. Its sink is always answered, also when the model is being unloaded.
    pub fn generate(&self, mut job: GenerateJob) {
        job.done = self.metrics.counting_generation(job.done);
        self.submit(job);
    }

    /// As [`Served::generate`], for an answer of the form in the job's options, which is compiled when its turn is near.
    pub fn generate_in_form(self: &Arc<Self>, mut job: GenerateJob) {
        job.done = self.metrics.counting_generation(job.done);
        if let Err(error) = self.check_prompt(job.prompt.len(), job.options.max_tokens as usize) {
            return job.answer(Err(error));
        }
        if let Err(refused) = self.forms.push(Arc::clone(self), job) {
            let (job, error) = *refused;
            job.answer(Err(error));
        }
    }

    pub(super) fn submit(&self, job: GenerateJob) {
        let checked = self
            .check_prompt(job.prompt.len(), job.options.max_tokens as usize)
            .and_then(|()| Splice::check(&job.splices, job.prompt.len()));
        let refused = match (checked, &self.workers) {
            (Err(error), _) => Err((job, error)),
            (Ok(()), Workers::Generate(pool)) => pool.submit(job).map_err(|job| (job, pool.closed())),
            (Ok(()), Workers::Embed(_)) => Err((job, self.model.wrong_kind(Purpose::Generation))),
        };
        if let Err((job, error)) = refused {
            job.answer(Err(error));
        }
    }

    /// Whether blocks of a prompt can be read one by one and put together.
    ///
    /// # Errors
    /// `ERR` with the reason why not.
    pub fn check_splicing(&self) -> Result<(), EngineError> {
        self.require(Purpose::Generation)?;
        let reason = match self.model.rope() {
            Err(reason) => reason,
            Ok(_) if self.options.cache_type() != KvType::F16 => "it was loaded with another KVTYPE than F16",
            Ok(_) => return Ok(()),
        };
        Err(EngineError::NoSplicing { name: self.model.name.clone(), reason: reason.to_owned() })
    }

    /// The kept rows of `block`.
    #[must_use]
    pub fn kept_rows(&self, block: &Block) -> Option<Arc<KvRows>> {
        self.kept.rows(block)
    }

    /// Queues a block, unless it is being read already; its rows are kept. Its sink is always answered, also when the model
    /// is being unloaded.
    pub fn read_block(self: &Arc<Self>, job: ReadJob) {
        let Some((job, reading)) = self.reads.begin(job) else { return };
        let ReadJob { block, ticket, permit, done } = job;
        let finish = {
            let served = Arc::clone(self);
            move |rows: Result<Arc<KvRows>, EngineError>| {
                for other in reading.end() {
                    match &rows {
                        // Only the one who read it has left.
                        Err(EngineError::Cancelled(_)) => served.read_block(other),
                        rows => (other.done)(rows.clone()),
                    }
                }
                done(rows);
            }
        };
        if let Some(rows) = self.kept_rows(&block) {
            // Read since the caller looked.
            return finish(Ok(rows));
        }
        let (served, before) = (Arc::clone(self), block.before.len());
        let prompt = [&block.before[..], &block.tokens].concat();
        let done = Box::new(move |result: Result<Generation, EngineError>| {
            let none = || EngineError::Internal("a block has no rows".to_owned());
            let rows = result.and_then(|generation| generation.rows.ok_or_else(none));
            if let Ok(rows) = &rows {
                served.kept.keep_rows(&block, rows);
            }
            finish(rows);
        });
        let options = GenerateOptions { max_tokens: 0, ..GenerateOptions::default() };
        let (constraint, splices, cut, arrived) = (None, Vec::new(), Some(before), Instant::now());
        let ready = arrived;
        self.submit(GenerateJob { prompt, options, constraint, splices, cut, ticket, arrived, ready, permit, done });
    }

    /// Whether the text at `index` (from 1) of a call fits into one forward pass. An empty one has the model's own
    /// begin and end tokens, if it has such tokens.
    fn check_text(&self, text: &[u32], index: usize) -> Result<(), EngineError> {
        let (name, context) = (self.model.name.clone(), self.context as usize);
        match text.len() {
            0 => Err(EngineError::EmptyText { name, index }),
            tokens if tokens > context => Err(EngineError::TextTooLong { name, index, tokens, context }),
            _ => Ok(()),
        }
    }

    /// Queues texts. Their sink is always answered, also when the model is being unloaded.
    pub fn embed(&self, mut job: EmbedJob) {
        let tokens = job.texts.iter().map(Vec::len).sum();
        job.done = self.metrics.counting_embedding(tokens, job.done);
        let mut texts = job.texts.iter().zip(1..);
        let checked =
            self.require(Purpose::Embedding).and_then(|()| texts.try_for_each(|(t, i)| self.check_text(t, i)));
        self.read(job, checked);
    }

    /// The tokens of each of `texts`, with the model's own begin and end tokens.
    ///
    /// # Errors
    /// `CTXLIMIT` for the first that is longer than the model reads at once; `CANCELLED`. The texts behind it are not looked at.
    pub fn texts(&self, texts: &[&str], ticket: &Ticket) -> Result<Vec<Vec<u32>>, EngineError> {
        let tokens = |(text, index): (&&str, usize)| {
            ticket.check()?;
            let (at_least, context) = (self.model.least_tokens(text), self.context as usize);
            if at_least / FAR > context {
                return Err(EngineError::TextFarTooLong { name: self.model.name.clone(), index, at_least, context });
            }
            let tokens = self.model.tokenize(text, Special::Add)?;
            self.check_text(&tokens, index)?;
            Ok(tokens)
        };
        texts
            .iter()
            .zip(1..)
            .map(tokens)
            .collect::<Result<_, _>>()
            .inspect_err(|error| self.metrics.count_failure(error))
    }

    /// The sequences in which a reranker reads `query` with each of `texts`. Special tokens written in them stay text.
    ///
    /// # Errors
    /// `CTXLIMIT` for the first that is longer than the model reads at once; `CANCELLED`. The texts behind it are not looked at.
    pub fn pairs(&self, query: &str, texts: &[&str], ticket: &Ticket) -> Result<Vec<Vec<u32>>, EngineError> {
        let layout = self.model.pair_layout()?;
        ticket.check()?;
        let query = self.model.tokenize(query, Special::None)?;
        let pair = |(index, text): (usize, &&str)| {
            ticket.check()?;
            let text = self.model.tokenize(text, Special::None)?;
            let (tokens, context) = (layout.length(query.len(), text.len()), self.context as usize);
            if tokens > context {
                return Err(EngineError::PairTooLong { name: self.model.name.clone(), index, tokens, context });
            }
            Ok(layout.join(&query, &text))
        };
        texts.iter().enumerate().map(pair).collect()
    }

    /// Queues pairs. Their sink is always answered, also when the model is being unloaded.
    pub fn rerank(&self, job: RerankJob) {
        let RerankJob { pairs, ticket, permit, done } = job;
        let done = self.metrics.counting_reranking(pairs.iter().map(Vec::len).sum(), done);
        let done = Box::new(move |rows: Result<Vec<Vec<f32>>, EngineError>| done(rows.and_then(scores)));
        self.read(EmbedJob { texts: pairs, ticket, permit, done }, self.require(Purpose::Reranking));
    }

    /// Queues texts that have passed the checks, or answers them.
    fn read(&self, job: EmbedJob, checked: Result<(), EngineError>) {
        let refused = match (checked, &self.workers) {
            (Err(error), _) => Err((job, error)),
            (Ok(()), Workers::Embed(pool)) => pool.submit(job).map_err(|job| (job, pool.closed())),
            (Ok(()), Workers::Generate(_)) => Err((job, self.model.wrong_kind(Purpose::Embedding))),
        };
        if let Err((job, error)) = refused {
            job.answer(Err(error));
        }
    }

    /// # Errors
    /// When the model was loaded for something else.
    pub fn require(&self, purpose: Purpose) -> Result<(), EngineError> {
        if self.model.purpose == purpose { Ok(()) } else { Err(self.model.wrong_kind(purpose)) }
    }

    /// Whether a prompt may fit at all, before it is tokenized.
    ///
    /// # Errors
    /// `CTXLIMIT` when it is far too long, whatever its tokens are.
    pub fn check_length(&self, prompt: &[Segment]) -> Result<(), EngineError> {
        let tokens = |segment: &Segment| match segment {
            Segment::Text(text) => self.model.least_tokens(text),
            Segment::Tokens(tokens) => tokens.len(),
            Segment::Template(_) | Segment::Common(_) => 0,
        };
        let (at_least, context) = (prompt.iter().map(tokens).sum(), self.context as usize);
        if at_least / FAR > context {
            return Err(EngineError::PromptFarTooLong { name: self.model.name.clone(), at_least, context });
        }
        Ok(())
    }

    /// # Errors
    /// `CTXLIMIT` when prompt and answer do not fit together.
    pub fn check_prompt(&self, prompt: usize, max_tokens: usize) -> Result<(), EngineError> {
        if prompt == 0 {
            return Err(EngineError::EmptyPrompt);
        }
        if prompt + max_tokens > self.context as usize {
            return Err(EngineError::ContextTooSmall {
                name: self.model.name.clone(),
                prompt,
                max_tokens,
                context: self.context as usize,
            });
        }
        Ok(())
    }

    /// Waits until nobody holds a place, for a model that nobody can find any more; not longer than until all work is
    /// to end.
    pub(super) fn drain(&self, deadline: Instant) {
        while self.requests() > 0 && self.stop.reason().is_none() && Instant::now() < deadline {
            std::thread::sleep(DRAIN_CHECK);
        }
    }

    /// Takes no more requests; what is queued is still answered.
    pub(super) fn close(&self) {
        match &self.workers {
            Workers::Generate(pool) => pool.close(),
            Workers::Embed(pool) => pool.close(),
        }
    }

    /// Takes no more requests, and answers those that wait and run with `CANCELLED`.
    pub(super) fn cancel_all(&self) {
        // In this order: a worker that ends drains the queue, and nothing comes into it afterwards.
        self.close();
        self.stop.end_model();
    }

    /// Waits for the workers after [`Served::close`] or [`Served::cancel_all`].
    pub(super) fn join(&self, deadline: Instant) -> bool {
        match &self.workers {
            Workers::Generate(pool) => pool.join(deadline),
            Workers::Embed(pool) => pool.join(deadline),
        }
    }

    /// Waits until nobody else holds a model whose workers have ended, and frees all its memory on this thread; not longer than
    /// until the server stops. Commands that hold it without a place in its queue are those that only read or write tokens.
    pub(super) fn free(self: Arc<Self>) {
        let (stop, name) = (self.stop.clone(), self.model.name.clone());
        if Arc::strong_count(&self) > 1 {
            log::info!(
                "model '{name}' is out of service; its memory is freed when the last command that uses it has ended"
            );
        }
        let Some(served) = alone(self, &stop) else { return };
        let Self { model, workers, kept, reads, reservation, constraints, forms, .. } = served;
        drop((workers, kept, reads, constraints, forms));
        drop(alone(model, &stop));
        // Only now there is room for others.
        drop(reservation);
    }

    /// # Errors
    /// `CANCELLED` when all work with this model is to end.
    pub fn check_in_service(&self) -> Result<(), EngineError> {
        self.stop.reason().map_or(Ok(()), |reason| Err(EngineError::Cancelled(reason)))
    }

    /// The test hook behind `INFER.DEBUG ASSERT`.
    pub fn fail_next(&self, times: u32) {
        match &self.workers {
            Workers::Generate(pool) => pool.fail_next(times),
            Workers::Embed(pool) => pool.fail_next(times),
        }
    }

    /// The test hook behind `INFER.DEBUG PANIC`.
    pub fn panic_next(&self) {
        match &self.workers {
            Workers::Generate(pool) => pool.panic_next(),
            Workers::Embed(pool) => pool.panic_next(),
        }
    }

    /// The test hook behind `INFER.DEBUG STALL`.
    pub fn stall_next(&self) {
        match &self.workers {
            Workers::Generate(pool) => pool.stall_next(),
            Workers::Embed(pool) => pool.stall_next(),
        }
    }
}

/// Waits until nobody else holds it; `None` when the server stops before.
fn alone<T>(mut shared: Arc<T>, stop: &Stop) -> Option<T> {
    loop {
        match Arc::try_unwrap(shared) {
            Ok(alone) => return Some(alone),
            Err(_) if stop.of_all() => return None,
            Err(others) => shared = others,
        }
        std::thread::sleep(DRAIN_CHECK);
    }
}

/// The score of each row of one number.
fn scores(rows: Vec<Vec<f32>>) -> Result<Vec<f32>, EngineError> {
    let score = |row: Vec<f32>| row.first().copied();
    let scores: Option<Vec<f32>> = rows.into_iter().map(score).collect();
    scores.ok_or_else(|| EngineError::Internal("a pair has no score".to_owned()))
}

/// Tokens that one request can have.
pub(super) fn context_of(options: &LoadOptions, purpose: Purpose, trained: u32) -> u32 {
    let default = if purpose == Purpose::Generation { limits::CTX_DEFAULT } else { EMBED_BATCH };
    options.ctx.unwrap_or(default).min(trained)
}

/// Whether answers are guessed: the memory of some models cannot take back a token.
fn speculates(model: &Model, options: &LoadOptions) -> bool {
    options.speculates() && model.can_rewind()
}

fn abort_switch(stop: &Stop) -> Arc<AbortSwitch> {
    Arc::new(AbortSwitch { stop: stop.clone(), ..AbortSwitch::default() })
}

/// A context of a generation model that advances `slots` requests of `context` tokens.
pub(super) fn generation_spec(options: &LoadOptions, context: u32, slots: u32) -> ContextSpec {
    ContextSpec {
        context,
        sequences: slots,
        batch: PREFILL_BATCH.max(slots),
        logits: options.logit_rows(slots),
        kv_type: options.cache_type(),
        output: Output::Logits,
    }
}

fn check_speculation(model: &Model, options: &LoadOptions) -> Result<(), EngineError> {
    if options.speculation == Some(Speculation::Lookup) && !model.can_rewind() {
        return Err(EngineError::LoadFailed(format!(
            "architecture '{}' cannot take back a token, which SPECULATION LOOKUP needs; leave the option out",
            model.facts.architecture
        )));
    }
    Ok(())
}

fn generate_pool(
    spec: PoolSpec,
    model: &Arc<Model>,
    context_spec: ContextSpec,
    speculates: bool,
    share: Share,
    kept: &Arc<ModelStore>,
) -> Result<Pool<GenerateJob>, EngineError> {
    let (model, vocabulary, stop) = (Arc::clone(model), Arc::clone(model), spec.stop.clone());
    let make = move || {
        let abort = abort_switch(&stop);
        let mut made = Context::new(Arc::clone(&model), context_spec, Arc::clone(&abort), share.another())?;
        if !made.remembers() {
            return Err(EngineError::LoadFailed(format!(
                "architecture '{}' does not generate token by token; try TYPE EMBED",
                model.facts.architecture
            )));
        }
        if made.sequence_capacity() < context_spec.context {
            return Err(EngineError::Internal(format!(
                "llama.cpp made sequences of {} tokens instead of {}",
                made.sequence_capacity(),
                context_spec.context
            )));
        }
        Ok(LlamaDecoder::new(made, abort))
    };
    let kept = Arc::clone(kept);
    let serve = move |decoder, inbox| {
        let (vocabulary, kept) = (Arc::clone(&vocabulary), Arc::clone(&kept));
        let (slots, batch) = (context_spec.sequences as usize, context_spec.batch as usize);
        Worker::new(decoder, vocabulary, inbox, kept, slots, batch, speculates).run();
    };
    Pool::start(spec, make, serve)
}

fn embed_pool(
    spec: PoolSpec,
    model: &Arc<Model>,
    output: Output,
    context: u32,
    share: Share,
) -> Result<Pool<EmbedJob>, EngineError> {
    let context_spec = ContextSpec {
        context,
        sequences: embedder::SEQUENCES,
        // llama.cpp plans buffers for whole rounds of sequences and aborts over a batch that is none (MEAN of a
        // decoder).
        batch: context.next_multiple_of(embedder::SEQUENCES),
        logits: 0,
        kv_type: KvType::F16,
        output,
    };
    let (model, stop) = (Arc::clone(model), spec.stop.clone());
    let make = move || {
        let abort = abort_switch(&stop);
        let made = Context::new(Arc::clone(&model), context_spec, Arc::clone(&abort), share.another())?;
        if !made.pools() {
            return Err(EngineError::LoadFailed(format!(
                "model '{}' names no pooling that makes a vector (a reranker makes a score); give POOLING MEAN, CLS or LAST",
                model.name
            )));
        }
        Ok(Embedder::new(made, abort, context_spec.batch as usize))
    };
    Pool::start(spec, make, |embedder, inbox| embedder.run(&inbox))
}
