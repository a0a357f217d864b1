//! Writing one document, for `INFER.INGEST` and `INFER.REINDEX`: the steps from its chunks to the switch, on the threads
//! where they belong.
//!
//! - `survey` (keyspace thread, in slices): which chunks are there already. If all are, that is all.
//! - `embed` (desk and embedding workers, a few chunks at a time): tokens and vectors of those that are not.
//! - `stage` (keyspace thread, in slices): the new vectors, hidden.
//! - `switch` (keyspace thread, one lock scope): everything else. One MULTI/EXEC for replicas and the AOF, and a reader
//!   sees the old document or the new one.
//!
//! The steps on the keyspace thread run as the caller.

use std::ops::ControlFlow;

use super::replace::{Counts, NewChunk, Planned, Replacement, State, Switch};
use super::retrieval::require_settings;
use super::runtime::engine;
use super::waiting::Embedding;
use crate::engine::{EngineError, Errand};
use crate::logic::index::IndexSettings;
use crate::logic::keys::IndexKeys;
use crate::logic::vector;
use crate::redis_api::caller::Caller;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::Failure;

/// Chunks embedded as one job. Other jobs get their turn in between: about a second with a small encoder.
const SLICE: usize = 8;

/// Whom a document is written for, and who knows what it is made with.
pub(super) trait Owner: Sized + Send + 'static {
    /// As whom keys are read and written.
    fn caller(&self) -> &Caller;
    /// The index, and the settings that it must have as long as this goes on.
    fn index(&self) -> (&IndexKeys, &IndexSettings);
    /// The model that makes the vectors, and the place in its queue.
    fn embedding(&self) -> &Embedding;
    /// The tokens of a chunk for the answering model. Not on the main thread.
    fn tokens(&self, chunk: usize, text: &str) -> Result<Vec<u32>, EngineError>;
    /// Goes on when the document is written, or not. Perhaps with the lock held.
    fn ended(self, how: Result<Ended, Failure>);
}

/// How the writing of a document ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// All is as it shall be; with the chunks that were not there before.
    Written(Counts, Vec<NewChunk>),
    /// Somebody else changed the document or the index; it has to begin again.
    Overtaken,
    /// Chunks have to be written and there are no texts.
    NoTexts(Replacement),
}

/// A document on its way.
pub(super) struct Writing<O> {
    owner: O,
    replacement: Replacement,
    /// Those of the chunks; none where they are hoped not to be needed.
    texts: Vec<String>,
}

impl<O: Owner> Writing<O> {
    /// Writes `replacement`, whose chunks have these texts.
    pub(super) fn begin(owner: O, replacement: Replacement, texts: Vec<String>) {
        Self { owner, replacement, texts }.survey();
    }

    fn survey(self) {
        let step = |writing: &mut Self, keyspace: &Keyspace<'_>| {
            writing.check_cancelled()?;
            writing.replacement.survey(keyspace)
        };
        keyspace_thread::run_in_slices(self.owner.caller().clone(), self, step, |writing, ended| match ended {
            Ok(()) => writing.go_on(),
            Err(failure) => writing.owner.ended(Err(failure)),
        });
    }

    fn go_on(self) {
        if self.replacement.is_done() {
            let counts = self.replacement.counts();
            self.owner.ended(Ok(Ended::Written(counts, Vec::new())));
        } else if !self.replacement.needs_text() {
            self.switch();
        } else if self.texts.is_empty() {
            self.owner.ended(Ok(Ended::NoTexts(self.replacement)));
        } else {
            let bytes = self.texts.iter().map(String::len).sum();
            on_desk(&self.owner.caller().clone(), bytes, move || self.tokenize());
        }
    }

    fn tokenize(mut self) {
        let ticket = self.owner.embedding().ticket.clone();
        for (number, (planned, text)) in self.replacement.chunks.iter_mut().zip(&self.texts).enumerate() {
            if let State::New { tokens, .. } = &mut planned.state {
                match ticket.check().and_then(|()| self.owner.tokens(number, text)) {
                    Ok(ids) => *tokens = ids,
                    Err(error) => return self.owner.ended(Err(error.into())),
                }
            }
        }
        self.embed();
    }

    /// Queues the next chunks, or has all of them written.
    fn embed(mut self) {
        let texts: Vec<String> = self.unembedded().take(SLICE).map(|(_, text)| std::mem::take(text)).collect();
        if texts.is_empty() {
            return self.stage();
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.owner.embedding().clone().run(&texts, move |vectors| {
            match vectors.and_then(|vectors| self.take(vectors)) {
                Ok(()) => self.embed(),
                Err(error) => self.owner.ended(Err(error.into())),
            }
        });
    }

    /// Chunks without a vector, here or in the set, and their texts.
    fn unembedded(&mut self) -> impl Iterator<Item = (&mut Vec<f32>, &mut String)> {
        self.replacement.chunks.iter_mut().zip(&mut self.texts).filter_map(|(planned, text)| match planned {
            Planned { state: State::New { staged: false, vector, .. }, .. } if vector.is_empty() => {
                Some((vector, text))
            }
            _ => None,
        })
    }

    /// The vectors of the next chunks.
    fn take(&mut self, vectors: Vec<Vec<f32>>) -> Result<(), EngineError> {
        if vectors.is_empty() || vectors.iter().any(Vec::is_empty) {
            return Err(EngineError::Internal("no vectors came back".to_owned()));
        }
        for ((vector, _), mut made) in self.unembedded().zip(vectors) {
            vector::l2_normalize(&mut made);
            *vector = made;
        }
        Ok(())
    }

    fn stage(self) {
        let step = |writing: &mut Self, keyspace: &Keyspace<'_>| {
            writing.check_cancelled()?;
            if !writing.is_same_index(keyspace)? {
                return Ok(ControlFlow::Break(()));
            }
            writing.replacement.stage(keyspace)
        };
        keyspace_thread::run_in_slices(self.owner.caller().clone(), self, step, |writing, ended| match ended {
            Ok(()) => writing.switch(),
            Err(failure) => writing.owner.ended(Err(failure)),
        });
    }

    fn switch(self) {
        keyspace_thread::run(self.owner.caller().clone(), move |keyspace| {
            let switched = keyspace.and_then(|keyspace| {
                self.check_cancelled()?;
                let same = self.is_same_index(keyspace)?;
                if same { self.replacement.switch(keyspace) } else { Ok(Switch::Overtaken) }
            });
            if let Ok(Switch::Done(_, aftermath)) = switched {
                let (keys, _) = self.owner.index();
                self.replacement.follow_up(aftermath, self.owner.caller(), keys);
            }
            self.owner.ended(switched.map(|switch| match switch {
                Switch::Done(counts, _) => Ended::Written(counts, self.replacement.into_new()),
                Switch::Overtaken => Ended::Overtaken,
            }));
        });
    }

    /// Whether the index is still the one that all this is made for.
    fn is_same_index(&self, keyspace: &Keyspace<'_>) -> Result<bool, Failure> {
        let (keys, settings) = self.owner.index();
        Ok(require_settings(keyspace, keys)? == *settings)
    }

    fn check_cancelled(&self) -> Result<(), Failure> {
        // The client was answered by whoever cancelled it.
        if self.owner.embedding().ticket.is_cancelled() {
            return Err(EngineError::Cancelled("nobody waits for it any more").into());
        }
        Ok(())
    }
}

/// Runs `task` over so many bytes on a preprocess thread. What it holds answers the client if it cannot run. It sees for itself
/// whether anybody waits for it: there may be something to tidy up.
pub(super) fn on_desk(caller: &Caller, bytes: usize, task: impl FnOnce() + Send + 'static) {
    if let Err(error) = engine().and_then(|engine| engine.go_on(Errand::anyway(caller.client, bytes), task)) {
        log::warn!("a document is not written: {error}");
    }
}
