//! `INFER.CACHEINFO`: what a cache holds.

use redis_module::Context;

use super::cache_entry::{now_ms, read_settings, strings};
use crate::logic::cache::CacheKeys;
use crate::logic::options::CacheInfo;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::{Keyspace, Reply};
use crate::redis_api::reply::{Failure, Value, shown};
use crate::redis_api::vset;

/// Entries whose size is taken for that of all.
const SAMPLE: &[u8] = b"16";

/* INFER.CACHEINFO cache */
/// The settings of a cache and what it holds.
pub fn cache_info(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = CacheInfo::parse(args)?;
    vset::require(ctx)?;
    let (keyspace, keys) = (Keyspace::of(ctx), CacheKeys::new(request.cache));
    let no_cache = || Failure::new("NOCACHE", format!("no cache {}; INFER.CACHESET makes one", shown(keys.settings())));
    let settings = read_settings(&keyspace, &keys)?.ok_or_else(no_cache)?;
    let entries = entries(&keyspace, &keys)?;
    let vectors = vset::size(&keyspace, &keys.vectors())?;
    Ok(Outcome::Reply(Value::Map(vec![
        ("entries", entries.into()),
        ("answer_bytes", answer_bytes(&keyspace, &keys, entries)?.into()),
        ("vectors", vectors.visible.into()),
        ("hidden", vectors.hidden.into()),
        ("vector_bytes", vectors.bytes.into()),
        ("embed_model", settings.embed_model.into()),
        ("dim", settings.dim.into()),
    ])))
}

/// Entries that have not expired.
pub(super) fn entries(keyspace: &Keyspace<'_>, keys: &CacheKeys) -> Result<i64, Failure> {
    let now = format!("({}", now_ms());
    Ok(number(&keyspace.read("ZCOUNT", &[&keys.ids(), now.as_bytes(), b"+inf"])?))
}

/// Memory of all entries, as that of some of them tells.
fn answer_bytes(keyspace: &Keyspace<'_>, keys: &CacheKeys, entries: i64) -> Result<i64, Failure> {
    let (mut bytes, mut count) = (0_i64, 0);
    for id in strings(keyspace.read("ZRANDMEMBER", &[&keys.ids(), SAMPLE])?) {
        if let Reply::Int(size) = keyspace.read("MEMORY", &[b"USAGE", &keys.answer(&id)])? {
            bytes = bytes.saturating_add(size);
            count += 1;
        }
    }
    Ok(bytes.saturating_mul(entries).checked_div(count).unwrap_or_default())
}

fn number(reply: &Reply) -> i64 {
    if let Reply::Int(number) = reply { *number } else { 0 }
}
