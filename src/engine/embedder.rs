//! The loop of one embedding or reranking worker: texts of all waiting requests share forward passes, and each request
//! gets its vectors, or scores, as soon as it has all of them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};

use super::context::{AbortSwitch, Batch, Context, Decoded};
use super::error::EngineError;
use super::job::EmbedJob;
use super::pool::{Inbox, Next};
use crate::logic::packing::{Place, next_pass};

/// Texts in one forward pass, at most; each is a sequence of the context.
pub(super) const SEQUENCES: u32 = 64;

/// Requests that share passes, at most; the others wait for a worker that is free.
const REQUESTS: usize = 64;

/// State of one worker thread.
pub(super) struct Embedder {
    context: Context,
    abort: Arc<AbortSwitch>,
    batch: Batch,
    /// Tokens of one forward pass, at most.
    batch_tokens: usize,
    /// Requests that have begun, the one whose turn it is first.
    requests: VecDeque<Request>,
}

/// A request that does not have all its vectors yet.
struct Request {
    job: EmbedJob,
    /// Places of the texts that are to be embedded, the longest first: attention costs the square of a pass, so a short
    /// text is cheaper among short ones.
    left: Vec<usize>,
    vectors: Vec<Vec<f32>>,
}

impl Request {
    fn new(job: EmbedJob) -> Self {
        let mut left: Vec<usize> = (0..job.texts.len()).collect();
        left.sort_by_key(|&text| std::cmp::Reverse(job.texts[text].len()));
        let vectors = vec![Vec::new(); job.texts.len()];
        Self { job, left, vectors }
    }

    fn finish(self) {
        self.job.answer(Ok(self.vectors));
    }

    fn fail(self, error: EngineError) {
        self.job.answer(Err(error));
    }
}

impl Embedder {
    pub(super) fn new(context: Context, abort: Arc<AbortSwitch>, batch_tokens: usize) -> Self {
        Self { context, abort, batch: Batch::default(), batch_tokens, requests: VecDeque::new() }
    }

    /// Serves until the inbox is closed and all requests are answered.
    pub(super) fn run(mut self, inbox: &Inbox<EmbedJob>) {
        loop {
            if self.requests.is_empty() {
                self.context.rest();
                let Next::Job(job) = inbox.wait() else { return };
                self.take(job, inbox);
            }
            while self.requests.len() < REQUESTS
                && let Next::Job(job) = inbox.poll()
            {
                self.take(job, inbox);
            }
            // A panic drops the sinks, which answer their clients; the panic hook has logged the place.
            let stepped = catch_unwind(AssertUnwindSafe(|| {
                inbox.panic_if_asked();
                if let Some(times) = inbox.forced_failures() {
                    self.abort.fail_next(times);
                }
                self.step();
            }));
            if stepped.is_err() {
                self.requests.clear();
            }
            if let Some(error) = self.context.lost().cloned()
                && !inbox.mend(&error, || self.context.renew())
            {
                return self.refuse_all(inbox);
            }
        }
    }

    /// Answers all requests, running and queued, for a model that has failed.
    fn refuse_all(self, inbox: &Inbox<EmbedJob>) {
        let Some(failure) = inbox.failure() else { return };
        self.requests.into_iter().for_each(|request| request.fail(failure.clone()));
        while let Next::Job(job) = inbox.poll() {
            job.answer(Err(failure.clone()));
        }
    }

    fn take(&mut self, job: EmbedJob, inbox: &Inbox<EmbedJob>) {
        if let Some(failure) = inbox.failure() {
            return job.answer(Err(failure.clone()));
        }
        job.ticket.start();
        let request = Request::new(job);
        if request.left.is_empty() {
            return request.finish();
        }
        // `Served` has refused them; here they would never find room.
        if request.job.texts.iter().any(|text| text.len() > self.batch_tokens) {
            return request.fail(EngineError::Internal("a text is longer than a forward pass".to_owned()));
        }
        self.requests.push_back(request);
    }

    /// Runs one pass, and answers the requests that are complete with it.
    fn step(&mut self) {
        self.drop_cancelled();
        if self.requests.is_empty() {
            return;
        }
        let lengths: Vec<Vec<usize>> = self
            .requests
            .iter()
            .map(|request| request.left.iter().map(|&text| request.job.texts[text].len()).collect())
            .collect();
        let pass = next_pass(&lengths, self.batch_tokens, SEQUENCES as usize);
        if let Err(error) = self.forward(&pass).and_then(|()| self.keep_vectors(&pass)) {
            if !matches!(error, EngineError::Cancelled(_)) {
                log::error!("a pass over {} texts failed: {error}", pass.len());
            }
            self.fail(&pass, &error);
            return;
        }
        for (place, request) in self.requests.iter_mut().enumerate() {
            let mut text = 0;
            request.left.retain(|_| {
                text += 1;
                !pass.contains(&(place, text - 1))
            });
        }
        // The next one has its turn, so that no request is always the last to find room.
        self.requests.rotate_left(1.min(self.requests.len()));
        for _ in 0..self.requests.len() {
            match self.requests.pop_front() {
                Some(request) if request.left.is_empty() => request.finish(),
                Some(request) => self.requests.push_back(request),
                None => break,
            }
        }
    }

    fn drop_cancelled(&mut self) {
        for _ in 0..self.requests.len() {
            match self.requests.pop_front() {
                Some(request) if request.job.ticket.is_cancelled() => {
                    request.fail(EngineError::Cancelled("while it ran"));
                }
                Some(request) => self.requests.push_back(request),
                None => break,
            }
        }
    }

    /// Answers the requests of a pass that failed.
    fn fail(&mut self, pass: &[Place], error: &EngineError) {
        for place in 0..self.requests.len() {
            match self.requests.pop_front() {
                Some(request) if pass.iter().any(|&(failed, _)| failed == place) => request.fail(error.clone()),
                Some(request) => self.requests.push_back(request),
                None => break,
            }
        }
    }

    fn forward(&mut self, pass: &[Place]) -> Result<(), EngineError> {
        self.batch.clear();
        let mut flags: Vec<Arc<AtomicBool>> = Vec::new();
        for (sequence, &(place, text)) in (0_u32..).zip(pass) {
            let request = &self.requests[place];
            for (position, &token) in (0_u32..).zip(&request.job.texts[request.left[text]]) {
                self.batch.push(token, position, sequence, true);
            }
            flags.push(Arc::clone(&request.job.ticket.cancelled));
        }
        *self.abort.requests.lock().unwrap_or_else(PoisonError::into_inner) = flags;
        self.context.clear();
        match self.context.decode(&mut self.batch)? {
            Decoded::Done(_) => Ok(()),
            Decoded::Aborted => Err(EngineError::Cancelled(self.abort.stop.reason().unwrap_or("while it ran"))),
        }
    }

    fn keep_vectors(&mut self, pass: &[Place]) -> Result<(), EngineError> {
        for (sequence, &(place, text)) in (0_u32..).zip(pass) {
            let vector = self
                .context
                .pooled(sequence)
                .ok_or_else(|| EngineError::Internal("llama.cpp returned no vector".to_owned()))?;
            let request = &mut self.requests[place];
            request.vectors[request.left[text]] = vector.to_vec();
        }
        Ok(())
    }
}
