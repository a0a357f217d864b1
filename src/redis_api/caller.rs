//! Who sent a command: what later work on the keyspace must run as.

use std::sync::Arc;

use redis_module::{Context, RedisString};

use super::relay::Relay;
use super::slot;

/// The selected database and ACL user of a client, captured while its command is handled.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Number of the selected database.
    pub db: i32,
    /// Name of the ACL user; `None` where there is none (calls from other modules) or where the name is not
    /// UTF-8. Later work for such a caller is refused rather than run with full rights.
    pub user: Option<String>,
    /// The command, for the log.
    pub command: &'static str,
    /// Redis' id of the client, for the log.
    pub client: u64,
    /// Where the client may use keys only because it sent `ASKING` or `READONLY`.
    pub(super) relay: Option<Arc<Relay>>,
}

impl Caller {
    /// The client of `ctx`, the context of a handler or reply callback.
    pub fn of(ctx: &Context, command: &'static str) -> Self {
        let db = api!(RedisModule_GetSelectedDb).map_or(0, |selected| {
            // SAFETY: ctx is the live context of a handler or callback.
            unsafe { selected(ctx.ctx) }
        });
        Self { db, user: user(ctx), command, client: client_id(ctx), relay: None }
    }

    /// The same, for later work on `key` of the command and what belongs to it: in a cluster the client's `ASKING` and `READONLY` count for
    /// it too. In the handler of the command.
    pub fn with_key(self, ctx: &Context, key: &[u8]) -> Self {
        let relay = if slot::needs_flags(ctx, key) { Relay::begin(ctx) } else { None };
        Self { relay, ..self }
    }
}

/// The ACL user of `ctx`, with `None` as in [`Caller::user`].
pub fn user(ctx: &Context) -> Option<String> {
    user_name(ctx).and_then(|name| String::from_utf8(name.as_slice().to_vec()).ok())
}

/// The id that CLIENT LIST shows for the client of `ctx`; 0 where there is none.
pub(super) fn client_id(ctx: &Context) -> u64 {
    api!(RedisModule_GetClientId).map_or(0, |id| {
        // SAFETY: ctx is the live context of a handler or callback.
        unsafe { id(ctx.ctx) }
    })
}

/// The name of the ACL user of `ctx`; `None` for the server itself (a call from a module without a user).
pub(super) fn user_name(ctx: &Context) -> Option<RedisString> {
    let current = api!(RedisModule_GetCurrentUserName)?;
    // SAFETY: ctx is the live context of a handler or callback.
    let name = unsafe { current(ctx.ctx) };
    // The string is ours to free, which RedisString does on drop.
    (!name.is_null()).then(|| RedisString::from_redis_module_string(std::ptr::null_mut(), name))
}
