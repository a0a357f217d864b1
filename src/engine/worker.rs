//! The loop of one generation worker: admit, draft, plan, decode, sample, finish.
//!
//! Every decision about who runs next is in `logic::sched`, about drafts in `logic::payoff`; here is only the doing. A
//! draft never changes what is chosen: the sampler of the request chooses at each position as it would without drafts,
//! and what was read behind a draft that it did not choose is thrown away. A request leaves in one of three
//! ways: finished, cancelled, or failed together with the batch it was in. In each of them its sink is called or
//! dropped once. What a slot has read stays in it; the next request keeps what both prompts share, and nothing else
//! (`sharing`); what it does not keep stays in memory for later ones (`keeping`).

mod keeping;
mod sharing;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::constraint::Constraint;
use super::context::Decoded;
use super::decoder::{Decoder, Vocabulary};
use super::error::EngineError;
use super::job::{FinishReason, GenerateJob, Generation, Splice};
use super::kv_store::ModelStore;
use super::pool::{Ask, Inbox, Loan, Next};
use super::sampler::Sampler;
use crate::logic::draft::Lookup;
use crate::logic::kv_rows::KvRows;
use crate::logic::logprobs::{TokenLogprobs, token_logprobs};
use crate::logic::payoff::Payoff;
use crate::logic::sched::{Plan, PlanEntry, SchedLimits, Scheduler, SlotId};
use crate::logic::stop::{Progress, TextAssembler};

/// How long a step may take while somebody's answer is running: a new prompt is prefilled in pieces of about this
/// length.
const STEP_BUDGET: Duration = Duration::from_millis(100);

/// State of one worker thread.
pub(super) struct Worker<D> {
    decoder: D,
    vocabulary: Arc<dyn Vocabulary>,
    scheduler: Scheduler,
    /// The request in each slot.
    running: Vec<Option<Running>>,
    inbox: Inbox<GenerateJob>,
    closed: bool,
    plan: Plan,
    piece: Vec<u8>,
    /// `None` when nothing is drafted.
    payoff: Option<Payoff>,
    drafts: Vec<u32>,
    /// What other workers have asked for and do not have yet.
    asked: Vec<Ask>,
    /// What slots held before.
    kept: Arc<ModelStore>,
    /// Of each slot, whether all it holds is what reading the tokens one after another gives.
    exact: Vec<bool>,
}

struct Running {
    job: GenerateJob,
    sampler: Sampler,
    text: TextAssembler,
    prompt_tokens: usize,
    /// Of these, the ones that were in the memory of this worker or another one already.
    cached_tokens: usize,
    /// What it waits for before it begins.
    loan: Option<Loan>,
    /// Others that were not read, see [`GenerateJob::splices`].
    spliced_tokens: usize,
    tokens: Vec<u32>,
    logprobs: Vec<TokenLogprobs>,
    /// Where drafts come from, if any are made.
    lookup: Option<Lookup>,
    drafted_tokens: usize,
    accepted_tokens: usize,
    /// What [`GenerateJob::cut`] asks for.
    rows: Option<Arc<KvRows>>,
    started: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    gaps: Vec<Duration>,
}

impl<D: Decoder> Worker<D> {
    /// A worker that serves `slots` requests at once in batches of at most `batch_tokens`, and drafts if it `speculates`:
    /// then the decoder can take back tokens.
    pub(super) fn new(
        decoder: D,
        vocabulary: Arc<dyn Vocabulary>,
        inbox: Inbox<GenerateJob>,
        kept: Arc<ModelStore>,
        slots: usize,
        batch_tokens: usize,
        speculates: bool,
    ) -> Self {
        let can_copy = decoder.can_copy();
        Self {
            decoder,
            vocabulary,
            scheduler: Scheduler::new(SchedLimits { slots, batch_tokens, step_budget: STEP_BUDGET, can_copy }),
            running: (0..slots).map(|_| None).collect(),
            inbox,
            closed: false,
            plan: Plan::default(),
            piece: Vec::new(),
            payoff: speculates.then(Payoff::default),
            drafts: Vec::new(),
            asked: Vec::new(),
            kept,
            exact: vec![false; slots],
        }
    }

    /// Serves until the inbox is closed and all work is done, or the engine stops.
    pub(super) fn run(mut self) {
        loop {
            self.admit();
            if let Some(reason) = self.inbox.stopping() {
                self.stop(reason);
                return;
            }
            if self.is_idle() && self.closed {
                return;
            }
            if catch_unwind(AssertUnwindSafe(|| self.turn())).is_err() {
                // Dropping the sinks answers the clients; the panic hook has logged the place.
                self.forget_all();
            }
            if let Some(error) = self.decoder.lost()
                && !self.mend(&error)
            {
                return;
            }
        }
    }

    /// Answers all requests that have lost what was read of them, and makes the decoder anew before the next one is taken; whether
    /// that works. Saved sequences go as well: one of them may be the reason.
    fn mend(&mut self, error: &EngineError) -> bool {
        for place in &mut self.running {
            if let Some(running) = place.take() {
                running.finish(Err(error.clone()));
            }
        }
        self.forget_all();
        self.kept.forget();
        let Self { inbox, decoder, .. } = self;
        let mended = inbox.mend(error, || decoder.renew());
        if !mended {
            self.refuse_queued();
        }
        mended
    }

    /// Answers what is queued for a model that has failed.
    fn refuse_queued(&self) {
        while let (Next::Job(job), Some(failure)) = (self.inbox.poll(), self.inbox.failure()) {
            fail(job, failure.clone());
        }
    }

    fn is_idle(&self) -> bool {
        self.running.iter().all(Option::is_none)
    }

    /// A step, and then what other workers want: before waiting for a job, and before slots are given away.
    fn turn(&mut self) {
        if !self.is_idle() {
            self.step();
        }
        self.lend();
    }

    /// Takes requests while slots are free. Waits only when there is nothing else to do.
    fn admit(&mut self) {
        while !self.closed && self.scheduler.free_slots() > 0 && self.decoder.lost().is_none() {
            let next = if self.is_idle() {
                self.decoder.rest();
                self.inbox.wait()
            } else {
                self.inbox.poll()
            };
            match (next, self.inbox.stopping()) {
                (Next::Job(job), Some(reason)) => fail(job, EngineError::Cancelled(reason)),
                (Next::Job(job), None) if job.ticket.is_cancelled() => {
                    fail(job, EngineError::Cancelled("before it began"))
                }
                (Next::Job(job), None) => match self.inbox.failure() {
                    Some(failure) => fail(job, failure.clone()),
                    None => self.start(job),
                },
                (Next::Nothing, _) => return,
                (Next::Closed, _) => self.closed = true,
            }
        }
    }

    fn start(&mut self, mut job: GenerateJob) {
        job.ticket.start();
        let prompt = std::mem::take(&mut job.prompt);
        let prompt_tokens = prompt.len();
        let sampler = Sampler::new(&job.options.sampling, &prompt, job.constraint.take().map(Constraint::taken));
        let payoff = self.payoff.as_mut().filter(|_| job.cut.is_none());
        let lookup = payoff.map(|payoff| {
            payoff.begin();
            Lookup::new(&prompt, job.options.max_tokens as usize)
        });
        let admitted = if job.splices.is_empty() {
            self.scheduler.admit(prompt)
        } else {
            self.scheduler.admit_with_gaps(prompt, job.splices.iter().map(Splice::gap))
        };
        let Some(slot) = admitted else {
            fail(job, EngineError::Internal("a request was admitted without a free slot".to_owned()));
            return;
        };
        let kept = self.find_kept(slot, job.is_exact());
        self.keep_leaving(slot);
        let loan = self.borrow(slot, job.is_exact(), kept);
        let running = Running {
            sampler,
            text: TextAssembler::new(job.options.stop.clone()),
            prompt_tokens,
            cached_tokens: 0,
            loan,
            spliced_tokens: 0,
            tokens: Vec::new(),
            logprobs: Vec::new(),
            lookup,
            drafted_tokens: 0,
            accepted_tokens: 0,
            rows: None,
            started: Instant::now(),
            first_token: None,
            last_token: None,
            gaps: Vec::new(),
            job,
        };
        if let Some(place) = self.running.get_mut(slot.index()) {
            *place = Some(running);
        }
        self.begin_admitted();
    }

    fn step(&mut self) {
        self.drop_cancelled();
        self.inbox.panic_if_asked();
        if let Some(times) = self.inbox.forced_failures() {
            self.decoder.fail_next(times);
        }
        self.receive(Duration::ZERO);
        self.begin_admitted();
        self.fill_gaps();
        self.offer_drafts();
        let mut plan = std::mem::take(&mut self.plan);
        self.scheduler.plan_into(&mut plan);
        if plan.entries.is_empty() {
            self.wait_without_work();
        } else {
            self.decode(&plan);
        }
        self.plan = plan;
    }

    /// Has guesses read with the next token of an answer, when it is the only request: others share the batch instead.
    fn offer_drafts(&mut self) {
        let (Some(payoff), Some(slot)) = (&self.payoff, self.scheduler.lone_generating()) else { return };
        let Some(running) = self.running.get(slot.index()).and_then(Option::as_ref) else { return };
        let Some((lookup, matched)) = running.lookup.as_ref().and_then(|lookup| Some((lookup, lookup.matched()?)))
        else {
            return;
        };
        // A pass gives one token more than it has drafts.
        let most = (running.job.options.max_tokens.saturating_sub(running.generated())).saturating_sub(1) as usize;
        lookup.draft_into(payoff.drafts(matched, most), &mut self.drafts);
        self.scheduler.set_drafts(slot, &self.drafts);
    }

    fn drop_cancelled(&mut self) {
        for i in 0..self.running.len() {
            if self.running[i].as_ref().is_some_and(|r| r.job.ticket.is_cancelled()) {
                self.release(SlotId::new(i), Err(EngineError::Cancelled("while it ran")));
            }
        }
    }

    fn decode(&mut self, plan: &Plan) {
        let running = &self.running;
        let mut flags = plan
            .entries
            .iter()
            .filter_map(|e| running.get(e.slot.index())?.as_ref())
            .map(|r| Arc::clone(&r.job.ticket.cancelled));
        match self.decoder.decode(plan, &mut flags) {
            Ok(Decoded::Done(took)) => {
                self.scheduler.complete(plan, took);
                self.sample(plan, took);
            }
            Ok(Decoded::Aborted) => {
                let reason = self.inbox.stopping().unwrap_or("while it ran");
                self.fail_batch(plan, &EngineError::Cancelled(reason));
            }
            Err(error) => {
                log::error!("a batch of {} requests failed: {error}", plan.entries.len());
                self.fail_batch(plan, &error);
            }
        }
    }

    fn sample(&mut self, plan: &Plan, took: Duration) {
        for (index, entry) in plan.entries.iter().enumerate().filter(|(_, e)| e.outputs > 0) {
            let accepted = self.sample_entry(index, entry);
            // The pass of an answer by itself.
            if let (Some(payoff), 1, true) = (&mut self.payoff, plan.entries.len(), entry.tokens.len() == entry.outputs)
            {
                match entry.drafts() {
                    0 => payoff.passed(took),
                    drafts => payoff.passed_with(drafts, accepted + 1, took),
                }
            }
        }
    }

    /// Samples behind the last token of an entry, and behind its drafts for as long as they are what was sampled. How
    /// many were.
    fn sample_entry(&mut self, index: usize, entry: &PlanEntry) -> usize {
        let drafts = entry.tokens.get(entry.tokens.len() - entry.drafts()..).unwrap_or_default();
        let mut accepted = 0;
        loop {
            let Some(running) = self.running.get_mut(entry.slot.index()).and_then(Option::as_mut) else {
                return accepted;
            };
            if let Some(from) = running.job.cut {
                match self.decoder.cut(entry.slot, from) {
                    Ok(rows) => {
                        running.rows = Some(Arc::new(rows));
                        self.release(entry.slot, Ok(FinishReason::Length));
                    }
                    Err(error) => self.fail_slot(entry.slot, error),
                }
                return accepted;
            }
            let chosen = self.decoder.logits(index, accepted).and_then(|logits| running.choose(logits));
            let outcome = chosen
                .and_then(|token| running.take(token, &*self.vocabulary, &mut self.piece).map(|end| (token, end)));
            match outcome {
                Ok((token, None)) => {
                    self.learn(entry.slot, token);
                    if drafts.get(accepted) == Some(&token) {
                        accepted += 1;
                        continue;
                    }
                    self.go_on(entry, accepted, token);
                }
                Ok((_, Some(reason))) => {
                    self.count_drafts(entry, accepted);
                    self.release(entry.slot, Ok(reason));
                }
                Err(error) => self.fail_slot(entry.slot, error),
            }
            return accepted;
        }
    }

    /// Compares a new token of an answer with what was expected.
    fn learn(&mut self, slot: SlotId, token: u32) {
        let running = self.running.get_mut(slot.index()).and_then(Option::as_mut);
        let guess = running.and_then(|running| running.lookup.as_mut()?.push(token));
        if let (Some(payoff), Some(guess)) = (&mut self.payoff, guess) {
            payoff.guessed(guess);
        }
    }

    /// Takes the drafts behind the first `accepted` ones out of the sequence, which goes on with `token`.
    fn go_on(&mut self, entry: &PlanEntry, accepted: usize, token: u32) {
        self.count_drafts(entry, accepted);
        if accepted < entry.drafts() {
            let keep = entry.first_pos as usize + entry.tokens.len() - (entry.drafts() - accepted);
            if self.decoder.reuse(entry.slot, entry.slot, keep) != keep {
                let error = "drafts could not be taken back; load the model with SPECULATION NONE".to_owned();
                return self.fail_slot(entry.slot, EngineError::Internal(error));
            }
        }
        self.scheduler.sampled(entry.slot, accepted, token);
    }

    fn count_drafts(&mut self, entry: &PlanEntry, accepted: usize) {
        if let Some(running) = self.running.get_mut(entry.slot.index()).and_then(Option::as_mut) {
            running.drafted_tokens += entry.drafts();
            running.accepted_tokens += accepted;
        }
    }

    /// Ends the request in `slot` and answers it. What the slot has read stays for later requests.
    fn release(&mut self, slot: SlotId, outcome: Result<FinishReason, EngineError>) {
        self.scheduler.release(slot);
        self.inbox.show(slot.index(), self.scheduler.held(slot));
        if let Some(running) = self.running.get_mut(slot.index()).and_then(Option::take) {
            // Once the inbox is closed nothing is to be left to this worker.
            if self.is_idle() && !self.closed {
                self.inbox.announce();
            }
            running.finish(outcome);
        }
    }

    /// Ends the request in `slot` after a failure that leaves its sequence unknown.
    fn fail_slot(&mut self, slot: SlotId, error: EngineError) {
        self.scheduler.forget(slot);
        self.inbox.show(slot.index(), &[]);
        self.decoder.clear(slot);
        if let Some(running) = self.running.get_mut(slot.index()).and_then(Option::take) {
            running.finish(Err(error));
        }
    }

    fn fail_batch(&mut self, plan: &Plan, error: &EngineError) {
        for entry in &plan.entries {
            self.fail_slot(entry.slot, error.clone());
        }
    }

    fn forget_all(&mut self) {
        for (i, place) in self.running.iter_mut().enumerate() {
            place.take();
            self.scheduler.forget(SlotId::new(i));
            self.inbox.show(i, &[]);
        }
        self.asked.clear();
        self.decoder.clear_all();
    }

    fn stop(mut self, reason: &'static str) {
        for place in &mut self.running {
            if let Some(running) = place.take() {
                running.finish(Err(EngineError::Cancelled(reason)));
            }
        }
        self.inbox.leave();
        while let Next::Job(job) = self.inbox.poll() {
            fail(job, EngineError::Cancelled(reason));
        }
    }
}

impl Running {
    /// Chooses the next token, and notes its probability if that is asked for.
    fn choose(&mut self, logits: &[f32]) -> Result<u32, EngineError> {
        let token = self.sampler.choose(logits)?;
        if let Some(count) = self.job.options.logprobs {
            self.logprobs.push(token_logprobs(logits, token, count as usize));
        }
        Ok(token)
    }

    /// Takes one generated token into the answer; says why the answer ends with it, if it does.
    fn take(
        &mut self,
        token: u32,
        vocabulary: &dyn Vocabulary,
        piece: &mut Vec<u8>,
    ) -> Result<Option<FinishReason>, EngineError> {
        self.note_time();
        self.tokens.push(token);
        self.job.ticket.generated.store(self.generated(), Ordering::Relaxed);
        if vocabulary.is_end(token) {
            return Ok(Some(FinishReason::EndOfSequence));
        }
        piece.clear();
        vocabulary.piece(token, piece)?;
        if self.text.push(piece) == Progress::Stopped {
            return Ok(Some(FinishReason::Stop));
        }
        // Only the end token could follow.
        if self.sampler.is_complete() {
            return Ok(Some(FinishReason::EndOfSequence));
        }
        Ok((self.generated() >= self.job.options.max_tokens).then_some(FinishReason::Length))
    }

    fn note_time(&mut self) {
        let now = Instant::now();
        self.first_token.get_or_insert(now);
        self.gaps.extend(self.last_token.replace(now).map(|last| now.duration_since(last)));
    }

    fn generated(&self) -> u32 {
        u32::try_from(self.tokens.len()).unwrap_or(u32::MAX)
    }

    fn finish(self, outcome: Result<FinishReason, EngineError>) {
        let now = Instant::now();
        let first_token = self.first_token.unwrap_or(now);
        let result = outcome.map(|finish_reason| Generation {
            text: self.text.finish(),
            finish_reason,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            spliced_tokens: self.spliced_tokens,
            rows: self.rows,
            completion_tokens: self.tokens.len(),
            drafted_tokens: self.drafted_tokens,
            accepted_tokens: self.accepted_tokens,
            tokens: self.tokens,
            logprobs: self.logprobs,
            prepared: self.job.ready.duration_since(self.job.arrived),
            queued: self.started.duration_since(self.job.ready),
            prefill: first_token.duration_since(self.started),
            decode: now.duration_since(first_token),
            gaps: self.gaps,
            seed: self.sampler.seed(),
        });
        self.job.answer(result);
    }
}

fn fail(job: GenerateJob, error: EngineError) {
    job.answer(Err(error));
}
