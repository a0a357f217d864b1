//! `INFER.DROPINDEX`: an index with all its documents.
//!
//! The settings go first, so that nobody finds the index half gone: they are renamed to `drop:{docs}`, which is the note of
//! what is to be removed and goes last. Whatever interrupts the removal, the same command again finishes it. A client that
//! leaves does not end it.

use redis_module::Context;

use super::cache_del::{Whole, check_removing};
use super::clearing::{Extent, check_rights, clear};
use super::document::documents;
use super::index_work;
use super::losses;
use super::retrieval::{no_index, read_settings, settings_at};
use super::waiting::block;
use crate::logic::cache::CacheKeys;
use crate::logic::keys::{FIRST_GENERATION, IndexKeys};
use crate::logic::limits;
use crate::logic::options::IndexName;
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::{Failure, Value};

const COMMAND: &str = "INFER.DROPINDEX";

/* INFER.DROPINDEX index */
/// Removes an index; the number of its documents. Needs no model.
pub fn drop_index(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = IndexName::parse(COMMAND, args)?;
    refuse_blocking(ctx, COMMAND)?;
    keyspace_thread::start(ctx)?;
    let (keyspace, keys) = (Keyspace::of(ctx).above_maxmemory(), IndexKeys::new(request.index));
    let note = keys.dropped();
    let settings = read_settings(&keyspace, &keys)?;
    let generation = match &settings {
        Some(settings) => settings.generation,
        // Of an earlier attempt. What cannot be read is of no use for that, and is removed.
        None => settings_at(&keyspace, &note).ok().flatten().map_or(FIRST_GENERATION, |settings| settings.generation),
    };
    // That before, if the last re-index did not clear it, and that after, if one was interrupted.
    let generations: Vec<_> = [generation.saturating_sub(1), generation, generation.saturating_add(1)]
        .into_iter()
        .filter(|generation| *generation >= FIRST_GENERATION)
        .map(|generation| keys.data(generation))
        .collect();
    for keys in &generations {
        check_rights(&keyspace, keys)?;
    }
    keyspace.check_write("UNLINK", &[&note])?;
    let cache = CacheKeys::of_index(request.index);
    check_removing(&keyspace, &cache)?;
    let caller = Caller::of(ctx, COMMAND).with_key(ctx, keys.settings());
    let mut count = None;
    let is_noted = keyspace.is_present(&note);
    if settings.is_some() {
        // Something else in the place of the set holds nothing up.
        let listed = documents(&keyspace, &keys.data(generation));
        count = Some(match listed {
            Err(failure) if failure.code == "WRONGTYPE" => 0,
            listed => listed?.unsigned_abs(),
        });
        keyspace.write("RENAME", &[keys.settings(), &note])?;
    }
    // Without settings nobody knows which generations there are.
    let sweep = settings.is_none() || keyspace.size() <= limits::SWEEP_KEYS_MAX;
    index_work::forget_reindex(caller.db, request.index);
    losses::forget(caller.db, request.index);
    let cache = Whole::begin(&keyspace, cache)?;
    let pending = block(ctx, COMMAND)?;
    cache.remove(caller.clone(), move |removed| match removed {
        Ok(answers) => clear(caller.clone(), keys.clone(), generations, Extent::Index { sweep }, move |cleared| {
            let documents = match cleared {
                // Of what an earlier attempt left, those that are removed now are told; and those that nothing listed any more.
                Ok(removed) if count.is_some() || is_noted || removed.anything || answers > 0 => {
                    count.unwrap_or_default().max(removed.documents)
                }
                Ok(_) => return pending.finish(Err(no_index(&keys))),
                Err(failure) => return pending.finish(Err(failure)),
            };
            // In a scope of its own: the last one may have removed many vectors at once.
            keyspace_thread::run(caller, move |keyspace| {
                let removed = keyspace.and_then(|keyspace| keyspace.write("UNLINK", &[&note]));
                pending.finish(removed.map(|_| Value::from(documents)));
            });
        }),
        Err(failure) => pending.finish(Err(failure)),
    });
    Ok(Outcome::Pending)
}
