//! The loop of one embedding worker: gather texts of waiting requests, pack them into few forward passes, hand each
//! request its vectors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};

use super::context::{AbortSwitch, Batch, Context, Decoded};
use super::error::EngineError;
use super::job::EmbedJob;
use super::pool::{Inbox, Next};
use crate::logic::packing::pack;

/// Texts in one forward pass, at most; each is a sequence of the context.
pub(super) const SEQUENCES: u32 = 64;

/// State of one embedding worker thread.
pub(super) struct Embedder {
    context: Context,
    abort: Arc<AbortSwitch>,
    batch: Batch,
    /// Tokens of one forward pass, at most.
    batch_tokens: usize,
}

impl Embedder {
    pub(super) fn new(context: Context, abort: Arc<AbortSwitch>, batch_tokens: usize) -> Self {
        Self { context, abort, batch: Batch::default(), batch_tokens }
    }

    /// Serves until the inbox is closed.
    pub(super) fn run(mut self, inbox: &Inbox<EmbedJob>) {
        while let Next::Job(first) = inbox.wait() {
            let jobs = self.gather(first, inbox);
            // A panic drops the sinks, which answer their clients; the panic hook has logged the place.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                inbox.panic_if_asked();
                self.serve(jobs);
            }));
        }
    }

    /// Adds waiting requests until a forward pass is full.
    fn gather(&self, first: EmbedJob, inbox: &Inbox<EmbedJob>) -> Vec<EmbedJob> {
        let mut tokens = tokens_of(&first);
        let mut jobs = vec![first];
        while tokens < self.batch_tokens {
            let Next::Job(job) = inbox.poll() else {
                break;
            };
            tokens += tokens_of(&job);
            jobs.push(job);
        }
        jobs
    }

    fn serve(&mut self, jobs: Vec<EmbedJob>) {
        let (cancelled, jobs): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.ticket.is_cancelled());
        for job in cancelled {
            job.answer(Err(EngineError::Cancelled("before it began")));
        }
        if jobs.is_empty() {
            return;
        }
        jobs.iter().for_each(|job| job.ticket.start());
        let flags: Vec<Arc<AtomicBool>> = jobs.iter().map(|job| Arc::clone(&job.ticket.cancelled)).collect();
        *self.abort.requests.lock().unwrap_or_else(PoisonError::into_inner) = flags;
        let texts: Vec<&[u32]> = jobs.iter().flat_map(|job| job.texts.iter().map(Vec::as_slice)).collect();
        match self.embed(&texts) {
            Ok(vectors) => {
                let mut vectors = vectors.into_iter();
                for job in jobs {
                    let own = vectors.by_ref().take(job.texts.len()).collect();
                    job.answer(Ok(own));
                }
            }
            Err(error) => {
                log::error!("embedding {} texts failed: {error}", texts.len());
                for job in jobs {
                    job.answer(Err(error.clone()));
                }
            }
        }
    }

    /// One vector per text, in order.
    fn embed(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EngineError> {
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let groups =
            pack(&lengths, self.batch_tokens, SEQUENCES as usize).map_err(|e| EngineError::Internal(e.to_string()))?;
        let mut vectors = vec![Vec::new(); texts.len()];
        for group in groups {
            self.forward(texts, &group)?;
            for (sequence, &index) in (0_u32..).zip(&group) {
                let vector = self
                    .context
                    .embedding(sequence)
                    .ok_or_else(|| EngineError::Internal("llama.cpp returned no embedding".to_owned()))?;
                if let Some(place) = vectors.get_mut(index) {
                    *place = vector.to_vec();
                }
            }
        }
        Ok(vectors)
    }

    fn forward(&mut self, texts: &[&[u32]], group: &[usize]) -> Result<(), EngineError> {
        self.batch.clear();
        for (sequence, &index) in (0_u32..).zip(group) {
            for (position, &token) in (0_u32..).zip(texts.get(index).copied().unwrap_or_default()) {
                self.batch.push(token, position, sequence, true);
            }
        }
        self.context.clear();
        match self.context.decode(&mut self.batch)? {
            Decoded::Done(_) => Ok(()),
            Decoded::Aborted => Err(EngineError::Cancelled("while it ran")),
        }
    }
}

fn tokens_of(job: &EmbedJob) -> usize {
    job.texts.iter().map(Vec::len).sum()
}
