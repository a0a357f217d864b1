//! The slot of an index in a cluster: never an answer from half of its keys, and errors that clients act on.
//!
//! Redis looks after the key that stands in a command. What belongs to it (`vec:{docs}`, `doc:{docs}:PATH`, …) only
//! this module knows, so it asks for it as Redis does for a command with several keys: while the slot is on its way, each key that
//! is needed must be here together with the one that gives the index its name, else `TRYAGAIN`. Redis itself decides that,
//! in a dry run of `EXISTS` with the two, as the client that sent the command (its `ASKING` and `READONLY` count). A replica is not
//! told that a slot is on its way; there a key that is not here sends the client to the primary, which knows.
//!
//! `RM_Call` answers whatever is refused with one text, `Attempted to access a non local key in a cluster node`, on which no client can
//! act. [`translated`] finds out what Redis would have told the client.

use std::sync::OnceLock;

use redis_module::{Context, raw};

use super::call::{Reply, call};
use super::reply::Failure;
use crate::logic::slots::{Endpoint, Place, place};

const NOT_LOCAL: &str = "Attempted to access a non local key in a cluster node";
const DRY_RUN: &std::ffi::CStr = c"vE3D";

/// Commands whose key is there in every index with documents: a replica that lacks it has half an index, or an empty one.
const OF_WHOLE_INDEX: [&str; 4] = ["GET", "SCARD", "VINFO", "VSIM"];

/// Commands that this module runs and that have no keys among their arguments.
const WITHOUT_KEYS: [&str; 2] = ["DBSIZE", "SCAN"];

/// Whether this server is a node of a cluster, which it is from its start to its end.
pub(super) fn in_cluster() -> bool {
    static IN_CLUSTER: OnceLock<bool> = OnceLock::new();
    *IN_CLUSTER.get_or_init(|| has_flag(raw::REDISMODULE_CTX_FLAGS_CLUSTER))
}

fn has_flag(flag: u32) -> bool {
    api!(RedisModule_GetContextFlags).is_some_and(|flags| {
        // SAFETY: without a context it tells about the server alone.
        let flags = unsafe { flags(std::ptr::null_mut()) };
        flags.cast_unsigned() & flag != 0
    })
}

fn is_replica() -> bool {
    has_flag(raw::REDISMODULE_CTX_FLAGS_SLAVE)
}

/// Refuses a command about a key of an index, or of a cache, that may be in half at another node.
///
/// # Errors
/// `TRYAGAIN`, `ASK`, `MOVED` or `CLUSTERDOWN`, as Redis tells them.
pub(super) fn check_whole(ctx: &Context, command: &str, args: &[&[u8]]) -> Result<(), Failure> {
    if !in_cluster() {
        return Ok(());
    }
    let Some(key) = key_of(command, args) else { return Ok(()) };
    if is_replica() {
        let is_needed = key == name_of(key) || OF_WHOLE_INDEX.contains(&command);
        return if is_needed { check_here(ctx, key) } else { Ok(()) };
    }
    if key == name_of(key) {
        return check_name(ctx, key);
    }
    match call(ctx, "EXISTS", DRY_RUN, &[key, name_of(key)]) {
        Ok(_) => Ok(()),
        Err(failure) => Err(translated(ctx, key, failure)),
    }
}

/// Refuses to tell that there is no index of this name while it may be on its way.
fn check_name(ctx: &Context, name: &[u8]) -> Result<(), Failure> {
    match call(ctx, "EXISTS", c"vE3", &[name]) {
        Ok(Some(Reply::Int(0))) => check_still(ctx, name),
        Ok(_) => Ok(()),
        Err(failure) => Err(translated(ctx, name, failure)),
    }
}

/// Refuses to go on while the slot of the index `name` is on its way: what no key is asked for by its name, such as what SCAN finds,
/// may be half of it.
///
/// # Errors
/// As for [`check_whole`].
pub(super) fn check_still(ctx: &Context, name: &[u8]) -> Result<(), Failure> {
    if !in_cluster() {
        return Ok(());
    }
    // Nobody has this key, so the two are refused in every slot that is on its way.
    let nothing = [b"none:{".as_slice(), name, b"}"].concat();
    call(ctx, "EXISTS", DRY_RUN, &[name, &nothing]).map(drop).map_err(|_| try_again())
}

/// Refuses to go on at a replica that has no such key.
///
/// # Errors
/// As for [`check_whole`].
pub(super) fn check_here(ctx: &Context, key: &[u8]) -> Result<(), Failure> {
    if !in_cluster() || !is_replica() {
        return Ok(());
    }
    match call(ctx, "EXISTS", c"vE3", &[key]) {
        Ok(Some(Reply::Int(0))) => Err(redirection(ctx, key)),
        Ok(_) => Ok(()),
        Err(failure) => Err(translated(ctx, key, failure)),
    }
}

/// The key of a command; all of its keys are in one slot. `None` for a command without keys.
pub(super) fn key_of<'a>(command: &str, args: &[&'a [u8]]) -> Option<&'a [u8]> {
    if WITHOUT_KEYS.contains(&command) {
        return None;
    }
    args.get(usize::from(command == "MEMORY")).copied()
}

/// The name of the index that `key` belongs to, a key itself: what stands in braces, or all of it.
fn name_of(key: &[u8]) -> &[u8] {
    let tag = || {
        let (_, rest) = key.split_at_checked(key.iter().position(|&byte| byte == b'{')? + 1)?;
        let (tag, _) = rest.split_at_checked(rest.iter().position(|&byte| byte == b'}')?)?;
        (!tag.is_empty()).then_some(tag)
    };
    tag().unwrap_or(key)
}

/// A refusal of Redis as it would have told it to the client; all other failures as they are.
pub(super) fn translated(ctx: &Context, key: &[u8], failure: Failure) -> Failure {
    let text = failure.text.as_str();
    match failure.code {
        "ERR" if text == NOT_LOCAL => redirection(ctx, key),
        "ERR" if text.starts_with("Can not execute a ") && text.contains("while the cluster is down") => {
            let text = if text.contains("readonly") { "is down and only accepts read commands" } else { "is down" };
            Failure::new("CLUSTERDOWN", format!("The cluster {text}"))
        }
        // Clients of a cluster follow the other one.
        "READONLY" if in_cluster() => redirection(ctx, key),
        _ => failure,
    }
}

fn try_again() -> Failure {
    Failure::new("TRYAGAIN", "Multiple keys request during rehashing of slot")
}

/// Where to go with a key that may not be used here.
fn redirection(ctx: &Context, key: &[u8]) -> Failure {
    let name = name_of(key);
    if key != name && !is_replica() && call(ctx, "EXISTS", DRY_RUN, &[name]).is_ok() {
        return try_again();
    }
    let Some((slot, place)) = look_up(ctx, key) else { return try_again() };
    match place {
        Place::Here => try_again(),
        Place::Leaving(node) => Failure::new("ASK", format!("{slot} {node}")),
        Place::Elsewhere(node) => Failure::new("MOVED", format!("{slot} {node}")),
        Place::Nowhere => Failure::new("CLUSTERDOWN", "Hash slot not served"),
    }
}

/// The slot of `key`, and where it is. As the server: what the caller may run does not matter for it.
fn look_up(ctx: &Context, key: &[u8]) -> Option<(u16, Place)> {
    let ask = |command, args: &[&[u8]]| call(ctx, command, c"vE3", args).ok().flatten();
    let Some(Reply::Int(slot)) = ask("CLUSTER", &[b"KEYSLOT", key]) else { return None };
    let Some(Reply::Bytes(nodes)) = ask("CLUSTER", &[b"NODES"]) else { return None };
    let endpoint = match ask("CONFIG", &[b"GET", b"cluster-preferred-endpoint-type"]) {
        Some(Reply::Map(settings)) => match settings.first() {
            Some((_, Reply::Bytes(value))) => Endpoint::named(value),
            _ => Endpoint::Ip,
        },
        _ => Endpoint::Ip,
    };
    let slot = u16::try_from(slot).ok()?;
    Some((slot, place(&String::from_utf8_lossy(&nodes), slot, endpoint)))
}

/// Whether a client that has sent neither `ASKING` nor `READONLY` would be refused `key`, which the one of the running command
/// was not: then that one has.
pub(super) fn needs_flags(ctx: &Context, key: &[u8]) -> bool {
    if !in_cluster() {
        return false;
    }
    let (Some(create), Some(free)) = (api!(RedisModule_GetThreadSafeContext), api!(RedisModule_FreeThreadSafeContext))
    else {
        return false;
    };
    // SAFETY: the lock is held; without a blocked client the context has one of its own, without flags.
    let plain = unsafe { create(std::ptr::null_mut()) };
    if plain.is_null() {
        return false;
    }
    let refused = call(&Context::new(plain), "EXISTS", DRY_RUN, &[key]);
    // SAFETY: made above, not used again; the lock is held.
    unsafe { free(plain) };
    let allowed = call(ctx, "EXISTS", DRY_RUN, &[key]);
    refused.is_err() && allowed.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_the_index_in_its_braces() {
        for (key, name) in
            [("docs", "docs"), ("vec:{docs}@2", "docs"), ("doc:{docs}:{a}.md", "docs"), ("{}x", "{}x"), ("{x", "{x")]
        {
            assert_eq!(name_of(key.as_bytes()), name.as_bytes());
        }
        assert_eq!(key_of("MEMORY", &[b"USAGE", b"k"]), Some(b"k".as_slice()));
        assert_eq!(key_of("GET", &[b"k"]), Some(b"k".as_slice()));
        assert_eq!(key_of("GET", &[]), None);
        assert_eq!(key_of("SCAN", &[b"0", b"MATCH", b"doc:*"]), None);
    }
}
