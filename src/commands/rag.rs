//! `INFER.RAG`: an answer from the chunks of an index.
//!
//! Steps and where they run: parse, settings, copy (main thread) -> tokenize the question (desk) -> embed it (embedding
//! worker) -> VSIM and token copy in one lock scope (keyspace thread) -> with RERANK, texts of the chunks (desk) and their
//! scores (reranking worker) -> choose chunks and assemble the prompt from their tokens (desk) -> generate (generation worker) -> reply (main thread).
//!
//! With CACHE the answer to the very question is looked for on the main thread, before anything else, and that to a similar one with the
//! question's vector, before the chunks; a new answer is stored (keyspace thread) before the reply.

use std::sync::Arc;
use std::time::Instant;

use redis_module::Context;

use super::find::{Embedded, Findings, Question};
use super::rag_cache::AnswerCache;
use super::rag_prompt::{PromptPlan, RagPrompt};
use super::rag_reply::{BlockCourse, Course, Told};
use super::retrieval::{IndexModels, index_models, require_settings};
use super::runtime::{engine, queue_limit};
use super::second_look::SecondLook;
use super::waiting::{Embedding, Ending, WaitingForText};
use crate::engine::{Generation, Served, Ticket};
use crate::logic::kept_answer::KeptAnswer;
use crate::logic::keys::IndexKeys;
use crate::logic::options::Rag;
use crate::logic::prompt::DEFAULT_RAG_SYSTEM;
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::keyspace_thread;
use crate::redis_api::pending::PendingReply;
use crate::redis_api::reply::Failure;
use crate::redis_api::vset;

const COMMAND: &str = "INFER.RAG";

/// A question whose chunks are being looked for.
struct Asked {
    waiting: WaitingForText,
    plan: Arc<PromptPlan>,
    told: Told,
    keeping: Option<Keeping>,
}

/// The cache that has no answer to a question, and what the new one is to be stored with.
struct Keeping {
    cache: AnswerCache,
    ticket: Ticket,
    vector: Vec<f32>,
}

/* INFER.RAG index query [K n] [FILTER expr] [EF n] [MINSCORE f] [RERANK model] [BUDGET n|AUTO] [SYSTEM text]
[CACHE threshold [CACHETTL s] [SCOPE s]] [WITHSOURCES] [WITHPROMPT] [generation options] */
/// Answers a question with the K nearest chunks as context.
pub fn rag(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let arrived = Instant::now();
    let request = Rag::parse(args)?;
    refuse_blocking(ctx, COMMAND)?;
    vset::require(ctx)?;
    keyspace_thread::start(ctx)?;
    let (keyspace, keys) = (Keyspace::of(ctx), IndexKeys::new(request.index));
    let (settings, caller) = (require_settings(&keyspace, &keys)?, Caller::of(ctx, COMMAND));
    let caller = caller.with_key(ctx, keys.settings());
    let models = index_models(&settings)?;
    let told = Told::of(&request, settings.kv);
    let question: Arc<str> = request.query.into();
    let mut cache = None;
    if let Some(caching) = &request.caching {
        let (caller, question) = (caller.clone(), Arc::clone(&question));
        let cache = cache.insert(AnswerCache::new(caller, &keys, &settings, &models, &request, caching, question)?);
        if let Some(kept) = cache.exact(&keyspace)? {
            let course = Course { cache: Some(cache.course.clone()), ..Course::default() };
            return Ok(Outcome::Reply(told.answer_again(kept, &models.generator, course)));
        }
    }
    let IndexModels { embedder, generator } = models;
    let permit = embedder.permit(queue_limit())?;
    let second_look = SecondLook::begin(&request.selection, &generator)?;
    let plan = Arc::new(PromptPlan {
        system: request.system.unwrap_or(DEFAULT_RAG_SYSTEM).to_owned(),
        question,
        budget: request.budget,
        max_tokens: request.options.max_tokens as usize,
        kv: settings.kv,
    });
    let mut waiting = WaitingForText::begin(ctx, COMMAND, generator, request.options)?;
    waiting.arrived = arrived;
    // Only the flag is shared: the request counts as queued until a generation worker takes it.
    let ticket = Ticket { cancelled: Arc::clone(&waiting.ticket.cancelled), ..Ticket::default() };
    let embedding = Embedding { served: embedder, permit, ticket };
    let question = Question {
        text: Arc::clone(&plan.question),
        arrived,
        caller,
        keys,
        settings,
        selection: request.selection,
        second_look,
    };
    let (early, model) = (Arc::clone(&plan), Arc::clone(&waiting.served.model));
    let errand = waiting.errand(plan.system.len() + plan.question.len());
    let asked = Asked { waiting, plan, told, keeping: None };
    engine()?.run(errand, move || {
        match cache {
            None => question.find(embedding, move |findings| asked.hand_on(findings)),
            Some(cache) => asked.look_up(question, embedding, cache),
        }
        // While another thread embeds it.
        early.begin(&model);
    })?;
    Ok(Outcome::Pending)
}

impl Asked {
    /// Looks for the answer to a similar question, then for chunks. The question is embedded once, for both.
    fn look_up(self, question: Question, embedding: Embedding, mut cache: AnswerCache) {
        let ticket = embedding.ticket.clone();
        question.embed(embedding, move |question, embedded| {
            let embedded = match embedded {
                Ok(embedded) => embedded,
                Err(failure) => return self.waiting.fail(failure),
            };
            if !cache.wants_similar() {
                return self.find(question, embedded, ticket, cache);
            }
            keyspace_thread::run(question.caller.clone(), move |keyspace| {
                match keyspace.and_then(|keyspace| cache.similar(keyspace, &embedded.vector)) {
                    Ok(None) => self.find(question, embedded, ticket, cache),
                    Ok(Some(kept)) => {
                        let course =
                            Course { embedded: embedded.after, cache: Some(cache.course), ..Course::default() };
                        let again = self.told.answer_again(kept, &self.waiting.served, course);
                        self.waiting.answer(again);
                    }
                    Err(failure) => self.waiting.fail(failure),
                }
            });
        });
    }

    /// Looks for chunks, whatever the cache has found.
    fn find(mut self, question: Question, embedded: Embedded, ticket: Ticket, cache: AnswerCache) {
        self.keeping = Some(Keeping { cache, ticket: ticket.clone(), vector: embedded.vector.clone() });
        question.find_near(embedded, ticket, move |findings| self.hand_on(findings));
    }

    /// Leaves the lock scope: choosing chunks and tokenizing are not for the thread that holds Redis' lock.
    fn hand_on(self, findings: Result<Findings, Failure>) {
        let findings = match findings {
            Ok(findings) => findings,
            Err(failure) => return self.waiting.fail(failure),
        };
        let handed = engine().and_then(|engine| {
            engine.metrics.missing_chunks.add(findings.missing);
            let bytes = findings.chunks.iter().map(|chunk| size_of_val(chunk.tokens.as_slice())).sum::<usize>();
            engine.go_on(self.waiting.errand(bytes + self.plan.question.len()), move || self.answer(&findings))
        });
        if let Err(error) = handed {
            log::warn!("INFER.RAG: {error}");
        }
    }

    fn answer(self, findings: &Findings) {
        if findings.chunks.is_empty() {
            let course = self.course(findings, None);
            let nothing = self.told.answer(None, &self.waiting.served, course);
            return self.waiting.answer(nothing);
        }
        match self.plan.prompt(&self.waiting.served, &findings.chunks) {
            Ok(prompt) => {
                let course = self.course(findings, Some(&prompt));
                let Self { waiting, told, keeping, .. } = self;
                let served = Arc::clone(&waiting.served);
                let made = move |generation, blocks| Made {
                    told,
                    generation,
                    served,
                    course: Course { blocks, ..course },
                    keeping,
                };
                match prompt.blocks {
                    Some(blocks) => {
                        waiting.generate_from_blocks(prompt.tokens, blocks, |generation, _served, read, took| {
                            let spliced = generation.spliced_tokens;
                            made(generation, BlockCourse { spliced, read, took })
                        });
                    }
                    None => {
                        waiting.generate(prompt.tokens, |generation, _served| made(generation, BlockCourse::default()))
                    }
                }
            }
            Err(failure) => self.waiting.fail(failure),
        }
    }

    /// How it went so far; no prompt when the model is not asked.
    fn course(&self, findings: &Findings, prompt: Option<&RagPrompt>) -> Course {
        let dropped = prompt.map_or(0, |prompt| prompt.left_out.len());
        let text = |prompt: &RagPrompt| self.waiting.served.model.show(&prompt.tokens);
        Course {
            sources: prompt.map_or_else(Vec::new, |prompt| prompt.sources(&findings.chunks)),
            prompt: prompt.filter(|_| self.told.prompt()).map(text),
            embedded: findings.embedded,
            searched: findings.searched,
            copied: findings.copied,
            reranked: findings.reranked.unwrap_or_default(),
            used: findings.chunks.len() - dropped,
            dropped,
            missing: findings.missing,
            blocks: BlockCourse::default(),
            cache: self.keeping.as_ref().map(|keeping| keeping.cache.course.clone()),
        }
    }
}

/// An answer that was made now.
struct Made {
    told: Told,
    generation: Generation,
    served: Arc<Served>,
    course: Course,
    keeping: Option<Keeping>,
}

impl Ending for Made {
    fn end(self, pending: PendingReply) {
        let Self { told, generation, served, course, keeping } = self;
        let Some(Keeping { cache, ticket, vector }) = keeping else {
            return pending.finish(Ok(told.answer(Some(generation), &served, course)));
        };
        let (text, finish_reason) = (generation.text.clone(), generation.finish_reason.name().to_owned());
        let answer = KeptAnswer { text, finish_reason, sources: course.sources.clone() };
        cache.store(ticket, vector, &answer, move |kept| {
            let course = Course { cache: Some(kept), ..course };
            pending.finish(Ok(told.answer(Some(generation), &served, course)));
        });
    }
}
