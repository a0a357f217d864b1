//! `INFER.RAG … CACHE`: an answer that was given before, to the very question or to one that is nearly the same.
//!
//! The cache of an index `docs` is one as `INFER.CACHESET` makes them, with settings of its own (`cache-settings:{docs}`). The scope of
//! an entry holds all that an answer depends on besides its question, and the version of the documents: what was answered
//! in other circumstances, or from documents as they were, is not found any more, and goes when it expires.

use std::sync::Arc;

use super::cache_entry::new_epoch;
use super::cache_lookup::{self, Finding, How};
use super::cache_set::{self, Others, Setting};
use super::document::{Document, Stats};
use super::rag_reply::CacheCourse;
use super::retrieval::{IndexModels, read_settings, require_same_models};
use super::runtime::engine;
use crate::engine::{Purpose, Served, Ticket};
use crate::logic::cache::{CacheKeys, CacheSettings, entry_id};
use crate::logic::index::IndexSettings;
use crate::logic::kept_answer::{Circumstances, KeptAnswer, Source, scope};
use crate::logic::keys::{DataKeys, IndexKeys, chunk_id};
use crate::logic::limits;
use crate::logic::options::{Caching, Rag};
use crate::logic::prompt::DEFAULT_RAG_SYSTEM;
use crate::redis_api::caller::Caller;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::Failure;
use crate::redis_api::vset;

/// The cache of an index, for one question.
#[derive(Debug)]
pub(super) struct AnswerCache {
    caller: Caller,
    index: IndexKeys,
    settings: IndexSettings,
    keys: CacheKeys,
    question: Arc<str>,
    /// The lowest score of a similar question; `None` where only the very question will do.
    threshold: Option<f64>,
    ttl: u32,
    circumstances: Vec<u8>,
    /// That of the documents, before they were searched; `None` where it cannot be told: then nothing is found, and nothing stored.
    version: Option<String>,
    /// What was found.
    pub course: CacheCourse,
}

impl AnswerCache {
    /// The cache for this request.
    pub(super) fn new(
        caller: Caller,
        index: &IndexKeys,
        settings: &IndexSettings,
        models: &IndexModels,
        request: &Rag<'_>,
        caching: &Caching<'_>,
        question: Arc<str>,
    ) -> Result<Self, Failure> {
        let rerank = request.selection.rerank.as_ref();
        let reranker = rerank.map(|name| engine()?.find_for(name, Purpose::Reranking)).transpose()?;
        let circumstances = Circumstances {
            generator: identity(&models.generator),
            reranker: reranker.as_deref().map(identity),
            selection: &request.selection,
            budget: request.budget,
            kv: settings.kv,
            options: &request.options,
            system: request.system.unwrap_or(DEFAULT_RAG_SYSTEM),
            scope: caching.scope,
        };
        Ok(Self {
            caller,
            index: index.clone(),
            settings: settings.clone(),
            keys: CacheKeys::of_index(index.name()),
            question,
            threshold: caching.wants_similar().then_some(caching.threshold),
            ttl: caching.ttl,
            circumstances: circumstances.to_bytes(),
            version: None,
            course: CacheCourse { how: How::Not, nearest: None, stored: false },
        })
    }

    /// Whether a similar question would do.
    pub(super) fn wants_similar(&self) -> bool {
        self.threshold.is_some()
    }

    /// The answer to this very question. Refuses who may not use the cache, whatever is in it.
    pub(super) fn exact(&mut self, keyspace: &Keyspace<'_>) -> Result<Option<KeptAnswer>, Failure> {
        self.check_storing(keyspace)?;
        let data = self.index.data(self.settings.generation);
        self.version = Stats::read(keyspace, &data)?.version();
        let (_, entry) = cache_lookup::exact(keyspace, &self.keys, &self.scope(), &self.question)?;
        let kept = entry.and_then(|entry| self.take(keyspace, &data, Finding::exact(entry)));
        if kept.is_some() || !self.wants_similar() {
            self.course.how.count(&engine()?.metrics);
        }
        Ok(kept)
    }

    /// The answer to the nearest question, if that is near enough.
    pub(super) fn similar(&mut self, keyspace: &Keyspace<'_>, vector: &[f32]) -> Result<Option<KeptAnswer>, Failure> {
        let Some(threshold) = self.threshold else { return Ok(None) };
        let data = require_same_models(keyspace, &self.index, &self.settings)?;
        self.version = Stats::read(keyspace, &data)?.version();
        let settings = self.cache_settings();
        let finding = cache_lookup::similar(keyspace, &self.keys, &settings, &self.scope(), vector, threshold)?;
        let kept = self.take(keyspace, &data, finding);
        self.course.how.count(&engine()?.metrics);
        Ok(kept)
    }

    /// Keeps `answer`, then calls `done` with what became of that, with the lock held. An answer that cannot be kept is an answer
    /// all the same.
    pub(super) fn store(
        self,
        ticket: Ticket,
        vector: Vec<f32>,
        answer: &KeptAnswer,
        done: impl FnOnce(CacheCourse) + Send + 'static,
    ) {
        let course = self.course.clone();
        let Some(version) = self.version.clone().filter(|_| !ticket.is_cancelled()) else { return done(course) };
        let setting = Setting {
            caller: self.caller.clone(),
            ticket,
            keys: self.keys.clone(),
            settings: self.cache_settings(),
            scope: self.scope(),
            prompt: self.question.as_ref().to_owned(),
            answer: answer.to_json(),
            ttl: Some(self.ttl),
            others: Others::Replace,
        };
        let index = self.index;
        keyspace_thread::run(self.caller, move |keyspace| {
            let stored = keyspace.and_then(|keyspace| {
                // Made from documents that are not the present ones, it would never be found.
                let is_current = version_now(keyspace, &index)? == Some(version);
                if is_current {
                    setting.write(keyspace, &vector)?;
                }
                Ok(is_current)
            });
            match &stored {
                // That of a replica, which has what its master stores.
                Err(failure) if failure.code == "READONLY" => {}
                Err(failure) => log::warn!("an answer of INFER.RAG is not kept: {failure}"),
                Ok(_) => {}
            }
            done(CacheCourse { stored: stored == Ok(true), ..course });
        });
    }

    /// Whether the caller has the rights to store an answer. Anything else that is in the way costs no answer.
    fn check_storing(&self, keyspace: &Keyspace<'_>) -> Result<(), Failure> {
        let id = entry_id(&self.scope(), &self.question);
        match cache_set::check_rights(keyspace, &self.keys, id.as_bytes()) {
            Err(failure) if failure.code == "NOPERM" => Err(failure),
            _ => Ok(()),
        }
    }

    /// Notes what was found, and gives the answer that may be given for it.
    fn take(&mut self, keyspace: &Keyspace<'_>, data: &DataKeys, finding: Finding) -> Option<KeptAnswer> {
        let entry = finding.entry.filter(|_| self.version.is_some())?;
        // What others have written into the entry may be anything.
        let kept = KeptAnswer::from_json(&entry.answer).filter(|kept| may_read(keyspace, data, kept))?;
        // Deleted or evicted, a document does not raise the version.
        if !is_whole(keyspace, data, &kept) {
            return None;
        }
        self.course.nearest = finding.score.map(|score| (score, entry.prompt));
        self.course.how = finding.how;
        (finding.how != How::Not).then_some(kept)
    }

    fn scope(&self) -> Vec<u8> {
        scope(self.version.as_deref().unwrap_or_default(), &self.circumstances)
    }

    fn cache_settings(&self) -> CacheSettings {
        let IndexSettings { embed_model, embedder, dim, .. } = self.settings.clone();
        CacheSettings { embed_model, embedder, dim, epoch: new_epoch() }
    }
}

/// Whether the caller may read all that an answer was made from. Who may not is refused it where it is searched for, as without a cache.
fn may_read(keyspace: &Keyspace<'_>, data: &DataKeys, kept: &KeptAnswer) -> bool {
    let chunks = |source: &Source| {
        let key = |&chunk: &u32| data.tokens(&chunk_id(&source.path, chunk));
        source.chunks.iter().map(key).all(|key| keyspace.check_read("GET", &[&key]).is_ok())
    };
    vset::check_searching(keyspace, &data.vectors()).is_ok() && kept.sources.iter().all(chunks)
}

/// Whether all that an answer was made from is still there. That it is as it was tells the version of the documents.
fn is_whole(keyspace: &Keyspace<'_>, data: &DataKeys, kept: &KeptAnswer) -> bool {
    let chunks = kept.sources.iter().flat_map(|source| source.chunks.iter().map(|&chunk| (&source.path, chunk)));
    // Others may have written into the entry: no more than a search can find.
    chunks.clone().count() <= limits::K_MAX as usize
        && chunks.into_iter().all(|(path, chunk)| {
            keyspace.is_present(&data.tokens(&chunk_id(path, chunk)))
                && matches!(Document::version_of(keyspace, &data.document(path), chunk), Ok(Some(_)))
        })
}

/// The version of the documents; `None` where there is no index any more.
fn version_now(keyspace: &Keyspace<'_>, index: &IndexKeys) -> Result<Option<String>, Failure> {
    let Some(settings) = read_settings(keyspace, index)? else { return Ok(None) };
    Ok(Stats::read(keyspace, &index.data(settings.generation))?.version())
}

/// Tells a model as it was loaded from every other.
fn identity(served: &Served) -> String {
    let (model, options) = (&served.model, &served.options);
    let (fingerprint, scale) = (&model.facts.fingerprint, options.lora.as_ref().map(|lora| lora.scale));
    format!("{fingerprint} {:016x} {:?} {scale:?} {}", model.sample, options.kv_type, served.context)
}
