//! `INFER.RAG`: an answer from the chunks of an index.
//!
//! Steps and where they run: parse, settings, copy (main thread) -> tokenize the question (desk) -> embed it (embedding
//! worker) -> VSIM and token copy in one lock scope (keyspace thread) -> with RERANK, texts of the chunks (desk) and their
//! scores (reranking worker) -> choose chunks and assemble the prompt from their tokens (desk) -> generate (generation worker) -> reply (main thread).

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis_module::Context;

use super::find::{Findings, Question};
use super::rag_prompt::{PromptPlan, RagPrompt};
use super::retrieval::{IndexModels, index_models, require_settings};
use super::runtime::{engine, queue_limit};
use super::second_look::SecondLook;
use super::text_reply::{Detail, Fields, More, us};
use super::waiting::{Embedding, WaitingForText};
use crate::engine::{Generation, Ticket};
use crate::logic::keys::IndexKeys;
use crate::logic::options::{Kv, Rag};
use crate::logic::prompt::DEFAULT_RAG_SYSTEM;
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::{Failure, Value};
use crate::redis_api::vset;

/// A question whose chunks are being looked for.
struct Asked {
    waiting: WaitingForText,
    plan: PromptPlan,
    with_sources: bool,
    with_prompt: bool,
    detail: Detail,
}

/* INFER.RAG index query [K n] [FILTER expr] [EF n] [MINSCORE f] [RERANK model] [BUDGET n|AUTO] [SYSTEM text]
[WITHSOURCES] [WITHPROMPT] [generation options] */
/// Answers a question with the K nearest chunks as context.
pub fn rag(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let arrived = Instant::now();
    let request = Rag::parse(args)?;
    refuse_blocking(ctx, "INFER.RAG")?;
    vset::require(ctx)?;
    keyspace_thread::start(ctx)?;
    let keys = IndexKeys::new(request.index);
    let settings = require_settings(&Keyspace::of(ctx), &keys)?;
    let IndexModels { embedder, generator } = index_models(&settings)?;
    let permit = embedder.permit(queue_limit())?;
    let second_look = SecondLook::begin(&request.selection, &generator)?;
    let detail = Detail::of(&request.options);
    let plan = PromptPlan {
        system: request.system.unwrap_or(DEFAULT_RAG_SYSTEM).to_owned(),
        question: request.query.to_owned(),
        budget: request.budget,
        max_tokens: request.options.max_tokens as usize,
        kv: settings.kv,
    };
    let mut waiting = WaitingForText::begin(ctx, "INFER.RAG", generator, request.options)?;
    waiting.arrived = arrived;
    // Only the flag is shared: the request counts as queued until a generation worker takes it.
    let ticket = Ticket { cancelled: Arc::clone(&waiting.ticket.cancelled), ..Ticket::default() };
    let embedding = Embedding { served: embedder, permit, ticket };
    let question = Question {
        text: request.query.to_owned(),
        arrived,
        caller: Caller::of(ctx, "INFER.RAG"),
        keys,
        settings,
        selection: request.selection,
        second_look,
    };
    let asked = Asked { waiting, plan, with_sources: request.with_sources, with_prompt: request.with_prompt, detail };
    engine()?.run(move || question.find(embedding, move |findings| asked.hand_on(findings)))?;
    Ok(Outcome::Pending)
}

impl Asked {
    /// Leaves the lock scope: choosing chunks and tokenizing are not for the thread that holds Redis' lock.
    fn hand_on(self, findings: Result<Findings, Failure>) {
        let findings = match findings {
            Ok(findings) => findings,
            Err(failure) => return self.waiting.fail(failure),
        };
        let handed = engine().and_then(|engine| {
            engine.metrics.missing_chunks.add(findings.missing);
            engine.go_on(move || self.answer(&findings))
        });
        if let Err(error) = handed {
            log::warn!("INFER.RAG: {error}");
        }
    }

    fn answer(self, findings: &Findings) {
        if findings.chunks.is_empty() {
            let mut more = self.more(findings, None);
            if self.plan.kv != Kv::Exact {
                more.stats.extend(block_stats(0, 0, Duration::ZERO));
            }
            let nothing = self.detail.reply(None, &self.waiting.served, more);
            return self.waiting.answer(nothing);
        }
        match self.plan.prompt(&self.waiting.served, &findings.chunks) {
            Ok(prompt) => {
                let (detail, mut more) = (self.detail, self.more(findings, Some(&prompt)));
                if let Some(blocks) = prompt.blocks {
                    let shape = move |generation: Generation, served: &_, read, took| {
                        more.stats.extend(block_stats(generation.spliced_tokens, read, took));
                        detail.reply(Some(generation), served, more)
                    };
                    return self.waiting.generate_from_blocks(prompt.tokens, blocks, shape);
                }
                let shape = move |generation, served: &_| detail.reply(Some(generation), served, more);
                self.waiting.generate(prompt.tokens, shape);
            }
            Err(failure) => self.waiting.fail(failure),
        }
    }

    /// What the reply tells besides the answer; no prompt when the model is not asked.
    fn more(&self, findings: &Findings, prompt: Option<&RagPrompt>) -> More {
        let mut more = More::default();
        if self.with_sources {
            let sources = prompt.map_or_else(Vec::new, |prompt| prompt.sources(&findings.chunks));
            more.fields.push(("sources", Value::Array(sources)));
        }
        if self.with_prompt {
            let text = prompt.map_or(Value::Null, |prompt| Value::from(self.waiting.served.model.show(&prompt.tokens)));
            more.fields.push(("prompt", text));
        }
        let left_out = prompt.map_or(0, |prompt| prompt.left_out.len());
        more.stats = vec![
            ("embed_us", us(findings.embedded)),
            ("search_us", us(findings.searched)),
            ("copy_us", us(findings.copied)),
        ];
        more.stats.extend(findings.reranked.map(|time| ("rerank_us", us(time))));
        more.stats.extend([
            ("used_chunks", Value::from(findings.chunks.len() - left_out)),
            ("dropped_chunks", Value::from(left_out)),
            ("missing_chunks", Value::from(findings.missing)),
        ]);
        more
    }
}

/// What `WITHSTATS` adds for an index with `KV CHUNK`: tokens that were put together and not read, blocks (the beginning of
/// the prompt is one) that had to be read for that, and how long getting all of them took.
fn block_stats(spliced: usize, read: usize, took: Duration) -> Fields {
    vec![("spliced_tokens", Value::from(spliced)), ("read_blocks", Value::from(read)), ("blocks_us", us(took))]
}
