//! `INFER.CACHEDEL`: the entries of a cache, or of one scope in it.
//!
//! A whole cache goes first by its settings and vectors, so that nobody finds it half gone; what is left is removed in slices,
//! so that no lock scope is long. The list of its ids is renamed to `drop-answers:{faq}`, which goes with the last of them: entries
//! that are set meanwhile are not touched, and whatever interrupts the removal, the same command again finishes it. A client
//! that leaves does not end it.

use std::ops::ControlFlow;

use redis_module::Context;

use super::cache_entry::{check_tidying, forget, read_settings, scan_ids, strings};
use super::waiting::block;
use crate::logic::cache::{CacheKeys, Entry, ids_of_scope};
use crate::logic::options::CacheDel;
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::{Keyspace, Reply};
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::{Failure, Value};
use crate::redis_api::vset;

const COMMAND: &str = "INFER.CACHEDEL";

/// Entries that one step removes, less one.
const STEP: &[u8] = b"15";

/// The whole of a cache that is being removed.
pub(super) struct Whole {
    keys: CacheKeys,
    /// Whether its ids are those in the renamed list; before, there may be those of an earlier attempt.
    renamed: bool,
    /// Whether something else stands in the place of a list of ids: it stays.
    has_foreign: bool,
    removed: i64,
}

/// A scope that is being removed.
struct Part {
    keys: CacheKeys,
    scope: Vec<u8>,
    /// How far the list of ids was read; `None` at the beginning.
    cursor: Option<Vec<u8>>,
    /// Ids that the last look at the list has found.
    found: Vec<Vec<u8>>,
    removed: i64,
}

/* INFER.CACHEDEL cache [SCOPE s] */
/// Removes all entries; how many of them had not expired. Needs no model.
pub fn cache_del(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = CacheDel::parse(args)?;
    refuse_blocking(ctx, COMMAND)?;
    vset::require(ctx)?;
    keyspace_thread::start(ctx)?;
    let (keyspace, keys) = (Keyspace::of(ctx).above_maxmemory(), CacheKeys::new(request.cache));
    // Nothing of something else is removed.
    read_settings(&keyspace, &keys)?;
    let caller = Caller::of(ctx, COMMAND).with_key(ctx, keys.settings());
    if let Some(scope) = request.scope {
        keyspace.check_write("UNLINK", &[&keys.answer(b"x")])?;
        check_tidying(&keyspace, &keys)?;
        let part = Part { keys, scope: scope.to_owned(), cursor: None, found: Vec::new(), removed: 0 };
        let pending = block(ctx, COMMAND)?;
        let step = |part: &mut Part, keyspace: &Keyspace<'_>| part.step(&keyspace.above_maxmemory());
        keyspace_thread::run_in_slices(caller, part, step, |part, ended| {
            pending.finish(ended.map(|()| Value::Int(part.removed)));
        });
        return Ok(Outcome::Pending);
    }
    check_removing(&keyspace, &keys)?;
    check_lists(&keyspace, &keys)?;
    let whole = Whole::begin(&keyspace, keys)?;
    let pending = block(ctx, COMMAND)?;
    whole.remove(caller, |removed| pending.finish(removed.map(Value::Int)));
    Ok(Outcome::Pending)
}

/// Whether the caller may remove the whole cache, and there is nothing in the way; changes nothing.
pub(super) fn check_removing(keyspace: &Keyspace<'_>, keys: &CacheKeys) -> Result<(), Failure> {
    keyspace.check_write("UNLINK", &[keys.settings(), &keys.vectors(), &keys.new_vectors(), &keys.answer(b"x")])?;
    keyspace.check_read("EXISTS", &[&keys.ids()])?;
    keyspace.check_read("ZRANGE", &[&keys.dropped_ids(), b"0", b"0"])?;
    keyspace.check_write("RENAME", &[&keys.ids(), &keys.dropped_ids()])?;
    keyspace.check_write("ZREM", &[&keys.dropped_ids(), b"x"])
}

/// Fails where something else stands in the place of a list of ids.
fn check_lists(keyspace: &Keyspace<'_>, keys: &CacheKeys) -> Result<(), Failure> {
    keyspace.read("ZCARD", &[&keys.ids()])?;
    keyspace.read("ZCARD", &[&keys.dropped_ids()]).map(drop)
}

impl Whole {
    /// Removes what leads to the entries, so that none is found from here on.
    pub(super) fn begin(keyspace: &Keyspace<'_>, keys: CacheKeys) -> Result<Self, Failure> {
        keyspace.write("UNLINK", &[keys.settings()])?;
        vset::remove(keyspace, &keys.vectors())?;
        vset::remove(keyspace, &keys.new_vectors())?;
        let has_foreign = match check_lists(keyspace, &keys) {
            Err(failure) if failure.code == "WRONGTYPE" => true,
            lists => lists.map(|()| false)?,
        };
        Ok(Self { keys, renamed: false, has_foreign, removed: 0 })
    }

    /// Removes the entries. `done` gets the number of those that had not expired, with the lock held.
    pub(super) fn remove(self, caller: Caller, done: impl FnOnce(Result<i64, Failure>) + Send + 'static) {
        let step = |whole: &mut Self, keyspace: &Keyspace<'_>| whole.step(&keyspace.above_maxmemory());
        keyspace_thread::run_in_slices(caller, self, step, |whole, ended| done(ended.map(|()| whole.removed)));
    }

    fn step(&mut self, keyspace: &Keyspace<'_>) -> Result<ControlFlow<()>, Failure> {
        if self.has_foreign {
            return Ok(ControlFlow::Break(()));
        }
        let dropped = self.keys.dropped_ids();
        let ids = strings(keyspace.read("ZRANGE", &[&dropped, b"0", STEP])?);
        if !ids.is_empty() {
            for id in ids {
                self.removed += unlink(keyspace, &self.keys, &id)?;
                keyspace.write("ZREM", &[&dropped, &id])?;
            }
            return Ok(ControlFlow::Continue(()));
        }
        if self.renamed || matches!(keyspace.read("EXISTS", &[&self.keys.ids()])?, Reply::Int(0)) {
            return Ok(ControlFlow::Break(()));
        }
        keyspace.write("RENAME", &[&self.keys.ids(), &dropped])?;
        self.renamed = true;
        Ok(ControlFlow::Continue(()))
    }
}

impl Part {
    fn step(&mut self, keyspace: &Keyspace<'_>) -> Result<ControlFlow<()>, Failure> {
        if let Some(id) = self.found.pop() {
            // Other scopes may have the same hash.
            let field = Entry::FIELDS[1].as_bytes();
            let scope = keyspace.read("HGET", &[&self.keys.answer(&id), field])?;
            if scope == Reply::Bytes(self.scope.clone()) {
                self.removed += unlink(keyspace, &self.keys, &id)?;
                forget(keyspace, &self.keys, &id)?;
            }
            return Ok(ControlFlow::Continue(()));
        }
        if self.cursor.as_deref() == Some(b"0") {
            return Ok(ControlFlow::Break(()));
        }
        let (cursor, found) = scan_ids(
            keyspace,
            &self.keys,
            self.cursor.as_deref().unwrap_or(b"0"),
            ids_of_scope(&self.scope).as_bytes(),
        )?;
        (self.cursor, self.found) = (Some(cursor), found);
        Ok(ControlFlow::Continue(()))
    }
}

/// Removes the hash of an entry; 1 if there was one.
fn unlink(keyspace: &Keyspace<'_>, keys: &CacheKeys, id: &[u8]) -> Result<i64, Failure> {
    match keyspace.write("UNLINK", &[&keys.answer(id)])? {
        Reply::Int(removed) => Ok(removed),
        _ => Err(Failure::internal("UNLINK answered with something that is not a number")),
    }
}
