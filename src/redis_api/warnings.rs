//! Warnings about the server itself: one line in the log each, for what is no fault of this module but meets who uses it.

use std::ffi::CStr;

use redis_module::Context;

use super::call::{Reply, call};
use super::events::on_config_change;
use super::reply::Failure;
use super::vset;
use crate::logic::server_fixes::{lacks, numbers};

/// The setting without which Redis cannot write vector sets into an append-only file.
const PREAMBLE: &CStr = c"aof-use-rdb-preamble";

/// Looks at the server when the module is loaded, and at its settings whenever they change.
///
/// # Errors
/// `INTERNAL` if Redis refuses to tell of changes.
pub fn begin(ctx: &Context) -> Result<(), Failure> {
    warn_of_missing_fixes(ctx);
    warn_of_preamble(ctx);
    on_config_change(ctx, |ctx, names| {
        if names.contains(&PREAMBLE) {
            warn_of_preamble(ctx);
        }
    })
}

fn warn_of_missing_fixes(ctx: &Context) {
    if let Some(version) = redis_version(ctx)
        && let Some(lacks) = numbers(&version).and_then(lacks)
    {
        log::warn!("this server (Redis {version}) {}", lacks.text());
    }
}

/// The version of a Redis server. Valkey calls itself a Redis of some version too, but has fixes of its own.
fn redis_version(ctx: &Context) -> Option<String> {
    let Ok(Some(Reply::Bytes(info))) = call(ctx, "INFO", c"vE3", &[b"server"]) else { return None };
    let info = String::from_utf8_lossy(&info);
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let is_redis = field("valkey_version").is_none() && field("server_name").is_none_or(|name| name.trim() == "redis");
    field("redis_version").filter(|_| is_redis).map(|version| version.trim().to_owned())
}

/// Redis itself writes vector sets into RDB files only: its type has no function for the commands of an AOF.
fn warn_of_preamble(ctx: &Context) {
    if is_off(ctx) && vset::available(ctx) {
        log::warn!(
            "aof-use-rdb-preamble is off: Redis cannot write vector sets into an append-only file then, so BGREWRITEAOF fails \
             (aof_last_bgrewrite_status:err) as soon as there is an index or a cache; CONFIG SET aof-use-rdb-preamble yes"
        );
    }
}

fn is_off(ctx: &Context) -> bool {
    let Ok(Some(reply)) = call(ctx, "CONFIG", c"vE3", &[b"GET", PREAMBLE.to_bytes()]) else { return false };
    let value = match &reply {
        Reply::Map(pairs) => pairs.first().map(|(_, value)| value),
        Reply::Array(parts) => parts.get(1),
        _ => None,
    };
    matches!(value, Some(Reply::Bytes(value)) if value == b"no")
}
