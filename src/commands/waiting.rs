//! A blocked client that waits for a model: its place in the queue, its cancel flag, its reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use redis_module::Context;

use super::chunk_prompt::Blocks;
use super::runtime::{engine, kv_budget, queue_limit};
use super::{chunk_rows, live};
use crate::engine::{
    EmbedJob, EngineError, Errand, GenerateJob, Generation, Permit, RerankJob, Served, Splice, Ticket,
};
use crate::logic::options::{GenerateOptions, OutputForm};
use crate::logic::prompt::Segment;
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::pending::{BlockOptions, PendingReply};
use crate::redis_api::reply::{Answer, Failure, Value};

/// Blocks the client of a command that has no time limit of its own.
pub(super) fn block(ctx: &Context, command: &'static str) -> Result<PendingReply, Failure> {
    let options =
        BlockOptions { command, timeout: None, on_timeout: Box::new(|| "the command took too long".to_owned()) };
    PendingReply::block(ctx, options)
}

/// Blocks the client of a command that waits for a model or its tokenizer, and lists it in INFER.PS.
pub(super) fn block_for_model(
    ctx: &Context,
    command: &'static str,
    served: &Served,
) -> Result<(PendingReply, Ticket), Failure> {
    let mut pending = block(ctx, command)?;
    let ticket = Ticket { cancelled: pending.cancel_flag(), ..Ticket::default() };
    live::register(ctx, &mut pending, command, &served.model.name, &ticket);
    Ok((pending, ticket))
}

/// Runs `work` over so many bytes off the main thread and answers `pending` with its result.
pub(super) fn answer_from_desk(
    (pending, ticket): (PendingReply, Ticket),
    bytes: usize,
    work: impl FnOnce(&Ticket) -> Answer + Send + 'static,
) -> Result<(), EngineError> {
    let errand = Errand::of(pending.client_id(), &ticket, bytes);
    engine()?.run(errand, move || pending.finish(work(&ticket)))
}

/// What follows a generation: the reply, or a step before it.
pub(super) trait Ending: Send + 'static {
    /// Sees to it that the client is answered. On a worker thread.
    fn end(self, pending: PendingReply);
}

impl Ending for Value {
    fn end(self, pending: PendingReply) {
        pending.finish(Ok(self));
    }
}

/// A client that waits for generated text.
#[derive(Debug)]
pub(super) struct WaitingForText {
    pub served: Arc<Served>,
    pub pending: PendingReply,
    pub ticket: Ticket,
    options: GenerateOptions,
    /// When the command arrived.
    pub arrived: Instant,
    permit: Permit,
}

impl WaitingForText {
    /// Takes a place in the queue of `served`, then blocks the client.
    pub(super) fn begin(
        ctx: &Context,
        command: &'static str,
        served: Arc<Served>,
        options: GenerateOptions,
    ) -> Result<Self, Failure> {
        refuse_blocking(ctx, command)?;
        options.check()?;
        check_logit_bias(&served, &options)?;
        let permit = served.permit(queue_limit())?;
        let generated = Arc::new(AtomicU32::new(0));
        let (progress, timeout, max_tokens) = (Arc::clone(&generated), options.timeout, options.max_tokens);
        let metrics = Arc::clone(&engine()?.metrics);
        let on_timeout = move || {
            metrics.timeouts.increment();
            let (waited, done) = (timeout.unwrap_or_default().as_millis(), progress.load(Ordering::Relaxed));
            format!(
                "after {waited} ms with {done} of at most {max_tokens} tokens generated; raise TIMEOUT or lower MAXTOKENS"
            )
        };
        let mut pending =
            PendingReply::block(ctx, BlockOptions { command, timeout, on_timeout: Box::new(on_timeout) })?;
        let ticket = Ticket { cancelled: pending.cancel_flag(), generated, ..Ticket::default() };
        live::register(ctx, &mut pending, command, &served.model.name, &ticket);
        Ok(Self { served, pending, ticket, options, arrived: Instant::now(), permit })
    }

    /// What its preprocessing is, over so many bytes.
    pub(super) fn errand(&self, bytes: usize) -> Errand {
        Errand::of(self.pending.client_id(), &self.ticket, bytes)
    }

    /// Ends the request without text. Its place is given back first, as in [`GenerateJob`].
    pub(super) fn fail(self, failure: Failure) {
        drop(self.permit);
        self.pending.finish(Err(failure));
    }

    /// Ends the request with an answer that needs no model.
    pub(super) fn answer(self, value: Value) {
        drop(self.permit);
        self.pending.finish(Ok(value));
    }

    /// Tokenizes the prompt and queues it; `shape` turns the result into the reply. Not on the main thread.
    pub(super) fn encode_and_generate(
        self,
        prompt: Result<Vec<Segment>, EngineError>,
        shape: impl FnOnce(Generation, &Served) -> Value + Send + 'static,
    ) {
        let encode = |segments: Vec<Segment>| {
            self.served.check_length(&segments)?;
            self.served.model.encode(&segments)
        };
        match prompt.and_then(encode) {
            Ok(tokens) => self.generate(tokens, shape),
            Err(error) => self.fail(error.into()),
        }
    }

    /// Queues a prompt; `shape` turns the result into the reply. Not on the main thread.
    pub(super) fn generate<E: Ending>(
        self,
        prompt: Vec<u32>,
        shape: impl FnOnce(Generation, &Served) -> E + Send + 'static,
    ) {
        self.generate_from(prompt, Vec::new(), shape);
    }

    /// As [`WaitingForText::generate`], for a prompt with blocks that were or are read by themselves; `shape` also gets how
    /// many are read now, and how long getting them took.
    pub(super) fn generate_from_blocks<E: Ending>(
        self,
        prompt: Vec<u32>,
        blocks: Blocks,
        shape: impl FnOnce(Generation, &Served, usize, Duration) -> E + Send + 'static,
    ) {
        if kv_budget() == 0 || self.served.check_splicing().is_err() {
            return self.generate(prompt, |generation, served| shape(generation, served, 0, Duration::ZERO));
        }
        self.ticket.prompt_tokens.store(count(prompt.len()), Ordering::Relaxed);
        let since = Instant::now();
        let (served, permit) = (Arc::clone(&self.served), self.permit.clone());
        let cancelled = Arc::clone(&self.ticket.cancelled);
        chunk_rows::gather(&served, blocks.all(), &cancelled, &permit, move |gathered| match gathered {
            Ok((mut rows, read)) => {
                let beginning = (!blocks.beginning.is_empty()).then(|| rows.remove(0));
                let splices = Splice::of_blocks(beginning, rows, blocks.reread);
                let took = since.elapsed();
                self.generate_from(prompt, splices, move |generation, served| shape(generation, served, read, took));
            }
            Err(error) => self.fail(error.into()),
        });
    }

    /// As [`WaitingForText::generate`]; what `splices` are of need not be read.
    pub(super) fn generate_from<E: Ending>(
        self,
        prompt: Vec<u32>,
        splices: Vec<Splice>,
        shape: impl FnOnce(Generation, &Served) -> E + Send + 'static,
    ) {
        // What is wrong with a form is said before the request waits; it waits as text.
        let has_form = match self.options.form.as_ref().map(OutputForm::plain).transpose() {
            Ok(plain) => plain.is_some(),
            Err(error) => return self.fail(EngineError::from(error).into()),
        };
        let Self { served, pending, ticket, options, arrived, permit } = self;
        ticket.prompt_tokens.store(count(prompt.len()), Ordering::Relaxed);
        let model = Arc::clone(&served);
        let done = Box::new(move |result: Result<Generation, EngineError>| match result {
            Ok(generation) => shape(generation, &model).end(pending),
            Err(error) => pending.finish(Err(error.into())),
        });
        let ready = Instant::now();
        let job =
            GenerateJob { prompt, options, constraint: None, splices, cut: None, ticket, arrived, ready, permit, done };
        if has_form { served.generate_in_form(job) } else { served.generate(job) }
    }
}

fn check_logit_bias(served: &Served, options: &GenerateOptions) -> Result<(), Failure> {
    let ids: Vec<u32> = options.sampling.logit_bias.iter().map(|&(id, _)| id).collect();
    served.model.check_tokens(&ids).map_err(|error| Failure::new(error.code(), format!("LOGITBIAS: {error}")))
}

/// Embeds texts for a step that goes on with the vectors. Not on the main thread. Clones share one place in the queue.
#[derive(Clone)]
pub(super) struct Embedding {
    pub served: Arc<Served>,
    pub permit: Permit,
    pub ticket: Ticket,
}

impl Embedding {
    /// Tokenizes `texts`, each with the model's own begin and end tokens, and queues them as one job. The first that is too long
    /// ends it, and so does a client that leaves.
    pub(super) fn run(self, texts: &[&str], done: impl FnOnce(Result<Vec<Vec<f32>>, EngineError>) + Send + 'static) {
        match self.served.texts(texts, &self.ticket) {
            Ok(texts) => {
                self.ticket.prompt_tokens.fetch_add(count(texts.iter().map(Vec::len).sum()), Ordering::Relaxed);
                self.served.embed(EmbedJob { texts, ticket: self.ticket, permit: self.permit, done: Box::new(done) })
            }
            Err(error) => {
                drop(self.permit);
                done(Err(error));
            }
        }
    }
}

/// Scores texts for a query, for a step that goes on with the scores. Not on the main thread.
pub(super) struct Reranking {
    pub served: Arc<Served>,
    pub permit: Permit,
    pub ticket: Ticket,
}

impl Reranking {
    /// Tokenizes `query` and `texts` and queues the pairs as one job.
    pub(super) fn run(
        self,
        query: &str,
        texts: &[&str],
        done: impl FnOnce(Result<Vec<f32>, EngineError>) + Send + 'static,
    ) {
        let Self { served, permit, ticket } = self;
        match served.pairs(query, texts, &ticket) {
            Ok(pairs) => {
                ticket.prompt_tokens.fetch_add(count(pairs.iter().map(Vec::len).sum()), Ordering::Relaxed);
                served.rerank(RerankJob { pairs, ticket, permit, done: Box::new(done) });
            }
            Err(error) => {
                drop(permit);
                done(Err(error));
            }
        }
    }
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
