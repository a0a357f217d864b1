//! `INFER.CACHESET`: an answer for whoever asks the same, or nearly the same, again.

use redis_module::Context;

use super::cache_entry::{
    check_tidying, embedder_for, list, new_epoch, now_ms, read_entry, read_settings, settings_with, tidy,
};
use super::cache_rebuild::{self, rebuild_if_crowded};
use super::find::one_vector;
use super::runtime::{engine, queue_limit};
use super::waiting::{Embedding, block_for_model};
use crate::engine::{EngineError, Errand, Ticket};
use crate::logic::cache::{CacheKeys, CacheSettings, Entry, entry_id, is_entry_id, scope_attributes};
use crate::logic::options::{CacheSet, Quant};
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::{Keyspace, Reply};
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::{Failure, Value, shown};
use crate::redis_api::vset;

const COMMAND: &str = "INFER.CACHESET";

/// An answer on its way into a cache.
#[derive(Debug)]
pub(super) struct Setting {
    pub caller: Caller,
    pub ticket: Ticket,
    pub keys: CacheKeys,
    /// Those the prompt is embedded for.
    pub settings: CacheSettings,
    pub prompt: String,
    pub scope: Vec<u8>,
    pub answer: Vec<u8>,
    /// In seconds; `None` for ever.
    pub ttl: Option<u32>,
    /// What to do with a cache that has vectors of another model.
    pub others: Others,
}

/// What to do with a cache that has vectors of another model than the prompt's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// It was made anew while the prompt was embedded: nothing is written.
    Refuse,
    /// None of its entries can be found any more: it is made anew.
    Replace,
}

/* INFER.CACHESET cache prompt answer [EMBEDMODEL m] [TTL s] [SCOPE s] */
/// Stores an answer, in the place of the one that this prompt had in this scope.
pub fn cache_set(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = CacheSet::parse(args)?;
    refuse_blocking(ctx, COMMAND)?;
    vset::require(ctx)?;
    keyspace_thread::start(ctx)?;
    let keys = CacheKeys::new(request.cache);
    let settings = read_settings(&Keyspace::of(ctx), &keys)?;
    let served = embedder_for(settings.as_ref(), request.embed_model)?;
    let permit = served.permit(queue_limit())?;
    let (pending, ticket) = block_for_model(ctx, COMMAND, &served)?;
    let setting = Setting {
        caller: Caller::of(ctx, COMMAND).with_key(ctx, keys.settings()),
        ticket: ticket.clone(),
        keys,
        settings: settings.unwrap_or_else(|| settings_with(&served)),
        prompt: request.prompt.to_owned(),
        scope: request.scope.to_owned(),
        answer: request.answer.to_owned(),
        ttl: request.ttl,
        others: Others::Refuse,
    };
    let embedding = Embedding { served, permit, ticket };
    let errand = Errand::of(pending.client_id(), &embedding.ticket, setting.prompt.len() + setting.answer.len());
    engine()?.run(errand, move || {
        let prompt = setting.prompt.clone();
        embedding.run(&[&prompt], move |vectors| match one_vector("prompt", vectors) {
            Ok(vector) => keyspace_thread::run(setting.caller.clone(), move |keyspace| {
                let written = keyspace.and_then(|keyspace| setting.write(keyspace, &vector));
                pending.finish(written.map(|()| Value::OK));
            }),
            Err(failure) => pending.finish(Err(failure)),
        });
    })?;
    Ok(Outcome::Pending)
}

impl Setting {
    /// Writes all of it in this lock scope. What can be refused is refused before anything is written.
    pub(super) fn write(&self, keyspace: &Keyspace<'_>, vector: &[f32]) -> Result<(), Failure> {
        // The client was answered by whoever cancelled it.
        if self.ticket.is_cancelled() {
            return Err(EngineError::Cancelled("nobody waits for it any more").into());
        }
        let existing = read_settings(keyspace, &self.keys)?;
        let has_others = existing.as_ref().is_some_and(|now| !now.has_vectors_of(&self.settings));
        if has_others && self.others == Others::Refuse {
            return Err(Failure::err(format!(
                "cache {} was changed while the command ran; send it again",
                shown(self.keys.settings())
            )));
        }
        let existing = existing.filter(|_| !has_others);
        let is_new = existing.is_none();
        let settings = existing.unwrap_or_else(|| CacheSettings { epoch: new_epoch(), ..self.settings.clone() });
        let id = entry_id(&self.scope, &self.prompt);
        self.check(keyspace, &id)?;
        if is_new {
            self.remove_old_vectors(keyspace)?;
            vset::remove(keyspace, &self.keys.new_vectors())?;
        }
        let (id, key) = (id.as_bytes(), self.keys.answer(id.as_bytes()));
        let sets = if cache_rebuild::is_running(self.caller.db, &self.keys) {
            vec![self.keys.vectors(), self.keys.new_vectors()]
        } else {
            vec![self.keys.vectors()]
        };
        for set in &sets {
            vset::stage(keyspace, set, id, vector, Quant::Q8.name())?;
        }
        // Memory was asked for above: from here on it may not run out.
        let keyspace = &keyspace.above_maxmemory();
        if is_new {
            let fields = settings.to_fields();
            let fields = fields.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
            let args: Vec<&[u8]> = std::iter::once(self.keys.settings()).chain(fields).collect();
            keyspace.write("HSET", &args)?;
        }
        let now = now_ms();
        let created = (now / 1000).to_string();
        let [prompt, scope, answer, epoch] = Entry::FIELDS.map(str::as_bytes);
        let fields: [&[u8]; 11] = [
            &key,
            prompt,
            self.prompt.as_bytes(),
            scope,
            &self.scope,
            answer,
            &self.answer,
            epoch,
            settings.epoch.as_bytes(),
            Entry::CREATED.as_bytes(),
            created.as_bytes(),
        ];
        keyspace.write("HSET", &fields)?;
        let expires = self.ttl.map(|seconds| now.saturating_add(u64::from(seconds) * 1000));
        match expires {
            Some(at) => keyspace.write("PEXPIREAT", &[&key, at.to_string().as_bytes()])?,
            None => keyspace.write("PERSIST", &[&key])?,
        };
        list(keyspace, &self.keys, id, expires)?;
        for set in &sets {
            vset::show(keyspace, set, id, &scope_attributes(&self.scope))?;
        }
        tidy(keyspace, &self.keys)?;
        rebuild_if_crowded(keyspace, &self.caller, &self.keys)
    }

    /// Whether the caller may write, and there is nothing in the way.
    fn check(&self, keyspace: &Keyspace<'_>, id: &str) -> Result<(), Failure> {
        check_rights(keyspace, &self.keys, id.as_bytes())?;
        // All of the right type?
        keyspace.read("ZSCORE", &[&self.keys.ids(), id.as_bytes()])?;
        vset::attributes(keyspace, &self.keys.vectors(), b"")?;
        let entry = read_entry(keyspace, &self.keys, id.as_bytes())?;
        if entry.is_some_and(|entry| !entry.is_of(&self.scope, &self.prompt)) {
            let key = self.keys.answer(id.as_bytes());
            return Err(Failure::err(format!("key {} holds another prompt; delete it", shown(&key))));
        }
        Ok(())
    }

    /// Removes the vectors of an earlier cache: they are of another model, or nobody knows of which one, because the settings were
    /// evicted or deleted by hand.
    fn remove_old_vectors(&self, keyspace: &Keyspace<'_>) -> Result<(), Failure> {
        let vectors = self.keys.vectors();
        match keyspace.read("VRANDMEMBER", &[&vectors])? {
            Reply::Bytes(element) if is_entry_id(&element) => vset::remove(keyspace, &vectors),
            Reply::Null => Ok(()),
            _ => Err(Failure::err(format!("key {} is not of a cache; rename it, or the cache", shown(&vectors)))),
        }
    }
}

/// Whether the caller may write the entry with this id; changes nothing.
pub(super) fn check_rights(keyspace: &Keyspace<'_>, keys: &CacheKeys, id: &[u8]) -> Result<(), Failure> {
    let key = keys.answer(id);
    keyspace.check_write("HSET", &[keys.settings(), b"", b""])?;
    keyspace.check_write("HSET", &[&key, b"", b""])?;
    keyspace.check_write("PEXPIREAT", &[&key, b"1"])?;
    keyspace.check_write("PERSIST", &[&key])?;
    keyspace.check_read("ZSCORE", &[&keys.ids(), id])?;
    vset::check_staging(keyspace, &keys.vectors())?;
    check_tidying(keyspace, keys)?;
    cache_rebuild::check_rights(keyspace, keys)
}
