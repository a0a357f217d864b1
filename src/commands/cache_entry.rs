//! What the commands of the semantic cache share: its settings, its model, and its entries.
//!
//! An entry is a hash with a time to live of its own (`answer:{faq}:ID`), an id in a sorted set by the time at which it expires,
//! and an element of a vector set, which leads to it. Any of these can go without the others: what leads nowhere is skipped
//! by those who read, and [`tidy`] hides it.

use std::sync::Arc;

use super::retrieval::read_hash;
use super::runtime::{engine, since_1970};
use crate::engine::{Purpose, Served};
use crate::logic::args::DEFAULT_MODEL;
use crate::logic::cache::{CacheKeys, CacheSettings, Entry};
use crate::redis_api::keyspace::{Keyspace, Reply};
use crate::redis_api::reply::{Failure, shown};
use crate::redis_api::vset;

/// Entries that [`tidy`] looks at because they should have expired by now. Each write adds at most one, so they go faster
/// than they come.
const EXPIRED_AT_ONCE: &[u8] = b"16";
/// Those that it takes at random, whose hash may have been deleted or evicted. With two of them for each that is added, even where every new
/// entry evicts another at most about half of the ids lead nowhere.
const RANDOM_AT_ONCE: &[u8] = b"2";

/// The settings of a cache; `None` when there is none.
pub(super) fn read_settings(keyspace: &Keyspace<'_>, keys: &CacheKeys) -> Result<Option<CacheSettings>, Failure> {
    let Some(fields) = read_hash(keyspace, keys.settings(), &CacheSettings::FIELDS)? else { return Ok(None) };
    let not_a_cache = || {
        Failure::new(
            "NOCACHE",
            format!("key {} is a hash but not a cache; rename it, or use another name", shown(keys.settings())),
        )
    };
    CacheSettings::from_fields(&fields).map(Some).ok_or_else(not_a_cache)
}

/// The settings that a cache has with this model.
pub(super) fn settings_with(embedder: &Served) -> CacheSettings {
    CacheSettings {
        embed_model: embedder.model.name.clone(),
        embedder: embedder.embedder_fingerprint(),
        dim: embedder.model.facts.embedding_dim,
        epoch: new_epoch(),
    }
}

/// Another one at each call, in nanoseconds since 1970.
pub(super) fn new_epoch() -> String {
    since_1970().as_nanos().to_string()
}

/// The model that makes vectors for a cache with these settings, or for a new one: the one that was asked for, else the
/// cache's own, else the default.
pub(super) fn embedder_for(settings: Option<&CacheSettings>, asked: Option<&str>) -> Result<Arc<Served>, Failure> {
    let own = settings.map(|settings| settings.embed_model.as_str());
    let name = asked.or(own).unwrap_or(DEFAULT_MODEL);
    let served = engine()?.find_for(name, Purpose::Embedding)?;
    match settings.filter(|settings| !settings.has_vectors_of(&settings_with(&served))) {
        None => Ok(served),
        Some(settings) => Err(Failure::new(
            "MISMATCH",
            format!(
                "the cache has vectors of {} numbers by the model that was loaded as '{}', which is another one than '{}'; \
                 load that one, or remove the cache with INFER.CACHEDEL and fill it anew",
                settings.dim, settings.embed_model, served.model.name
            ),
        )),
    }
}

/// The entry at an id; `None` when there is none, or something else than an entry.
pub(super) fn read_entry(keyspace: &Keyspace<'_>, keys: &CacheKeys, id: &[u8]) -> Result<Option<Entry>, Failure> {
    let key = keys.answer(id);
    let args: Vec<&[u8]> = std::iter::once(key.as_slice()).chain(Entry::FIELDS.map(str::as_bytes)).collect();
    match keyspace.read("HMGET", &args)? {
        Reply::Array(fields) => Ok(match <[Reply; 4]>::try_from(fields) {
            Ok([Reply::Bytes(prompt), Reply::Bytes(scope), Reply::Bytes(answer), Reply::Bytes(epoch)]) => {
                Some(Entry { prompt, scope, answer, epoch })
            }
            _ => None,
        }),
        _ => Err(Failure::internal("HMGET answered with something that is not an array")),
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}

/// Whether the caller may [`tidy`] and [`forget`]; changes nothing.
pub(super) fn check_tidying(keyspace: &Keyspace<'_>, keys: &CacheKeys) -> Result<(), Failure> {
    keyspace.check_read("PEXPIRETIME", &[&keys.answer(b"x")])?;
    keyspace.check_read("ZRANGE", &[&keys.ids(), b"0", b"0"])?;
    keyspace.check_read("ZRANDMEMBER", &[&keys.ids()])?;
    keyspace.check_write("ZADD", &[&keys.ids(), b"1", b"x"])?;
    keyspace.check_write("ZREM", &[&keys.ids(), b"x"])?;
    vset::check_showing(keyspace, &keys.vectors())?;
    vset::check_showing(keyspace, &keys.new_vectors())
}

/// Takes entries that are gone out of the list of ids, and hides their vectors: some that should have expired, and some at
/// random.
pub(super) fn tidy(keyspace: &Keyspace<'_>, keys: &CacheKeys) -> Result<(), Failure> {
    let (ids, now) = (keys.ids(), now_ms().to_string());
    let expired: [&[u8]; 7] = [&ids, b"-inf", now.as_bytes(), b"BYSCORE", b"LIMIT", b"0", EXPIRED_AT_ONCE];
    let expired = strings(keyspace.read("ZRANGE", &expired)?);
    let random = strings(keyspace.read("ZRANDMEMBER", &[&ids, RANDOM_AT_ONCE])?);
    for id in expired.into_iter().chain(random) {
        match keyspace.read("PEXPIRETIME", &[&keys.answer(&id)])? {
            Reply::Int(-2) => forget(keyspace, keys, &id)?,
            // Somebody else may have given it more time, or less.
            Reply::Int(-1) => list(keyspace, keys, &id, None)?,
            Reply::Int(at) => list(keyspace, keys, &id, Some(at.unsigned_abs()))?,
            _ => {}
        }
    }
    Ok(())
}

/// Puts an id into the list, with the time in milliseconds since 1970 at which the entry expires.
pub(super) fn list(keyspace: &Keyspace<'_>, keys: &CacheKeys, id: &[u8], expires: Option<u64>) -> Result<(), Failure> {
    let score = expires.map_or_else(|| "+inf".to_owned(), |at| at.to_string());
    keyspace.write("ZADD", &[&keys.ids(), score.as_bytes(), id]).map(drop)
}

/// Takes an id out of the list and hides its vector.
pub(super) fn forget(keyspace: &Keyspace<'_>, keys: &CacheKeys, id: &[u8]) -> Result<(), Failure> {
    keyspace.write("ZREM", &[&keys.ids(), id])?;
    vset::hide(keyspace, &keys.vectors(), id)?;
    // It is there while the cache is being rebuilt.
    vset::hide(keyspace, &keys.new_vectors(), id)
}

/// The next ids in the list that match a glob pattern, from a cursor on, which is `0` at the beginning, and again at the end.
pub(super) fn scan_ids(
    keyspace: &Keyspace<'_>,
    keys: &CacheKeys,
    cursor: &[u8],
    pattern: &[u8],
) -> Result<(Vec<u8>, Vec<Vec<u8>>), Failure> {
    let unexpected = || Failure::internal("ZSCAN answered in a form that this module does not know");
    let Reply::Array(reply) = keyspace.read("ZSCAN", &[&keys.ids(), cursor, b"MATCH", pattern])? else {
        return Err(unexpected());
    };
    let Ok([Reply::Bytes(cursor), found]) = <[Reply; 2]>::try_from(reply) else { return Err(unexpected()) };
    // Members and scores in turn.
    Ok((cursor, strings(found).into_iter().step_by(2).collect()))
}

/// The strings in an array.
pub(super) fn strings(reply: Reply) -> Vec<Vec<u8>> {
    let Reply::Array(elements) = reply else { return Vec::new() };
    let string = |element| if let Reply::Bytes(bytes) = element { Some(bytes) } else { None };
    elements.into_iter().filter_map(string).collect()
}
