//! Everything that touches Redis: replies, blocked clients, keys, configuration, log, events.
//!
//! This room and `lib.rs`/`commands` are the only places that name `redis_module`, and all `unsafe`
//! code about Redis is here. It knows nothing of llama.cpp. Three rules hold in every file:
//!
//! * No panic leaves a callback: an unwind through C aborts the server, so each one runs in
//!   [`guard::guarded`].
//! * No text goes to Redis as a format string, and no error text carries raw user bytes
//!   ([`log`], [`reply`]).
//! * The module API is used with the lock held (handler, reply callback, [`keyspace_thread`]), except
//!   `UnblockClient` and `Log`, which Redis documents as callable from any thread.

/// Reads one entry of the module API's function table; `None` on a server that lacks the function.
macro_rules! api {
    ($name:ident) => {{
        // SAFETY: Redis fills the table in RedisModule_OnLoad before any code of ours runs, and nothing
        // writes to it afterwards; the pointer is copied out, no reference to the static is made.
        unsafe { redis_module::raw::$name }
    }};
}

pub mod acl;
pub mod blocking;
mod call;
pub mod call_apart;
pub mod caller;
pub mod command_info;
pub mod config;
pub mod delivery;
pub mod entry;
pub mod events;
pub mod guard;
pub mod info;
mod key_positions;
pub mod keyspace;
pub mod keyspace_thread;
pub mod lock_times;
pub mod log;
pub mod pending;
pub mod preflight;
mod relay;
pub mod reply;
pub mod scan;
pub mod set_removal;
mod slot;
pub mod vset;
pub mod warnings;
