//! Reading and writing keys on behalf of a caller.

use std::ffi::CStr;
use std::fmt;

use redis_module::{Context, RedisString, raw};

pub use super::call::Reply;
use super::call::call;
use super::call_apart::{self, Coming};
use super::reply::{Failure, shown};
use super::slot;
use crate::logic::token_blob;

// Letters of RM_Call: v arguments as an array, C check the user's ACL, E errors as replies, 3 RESP3 replies,
// W refuse writes, ! replicate, M refuse when over maxmemory, S refuse what a script may not do (a read-only
// replica, too few replicas, a disk error), D check everything but do not run. K (may block) appears for VSIM only.
const READ: &CStr = c"vCE3W";
const WRITE: &CStr = c"v!CE3MS";
// The same, and it may go on without the lock (K).
const READ_APART: &CStr = c"vCE3WK";
const READ_DRY_RUN: &CStr = c"vCE3WD";
const WRITE_DRY_RUN: &CStr = c"vCE3MSD";
// The same without M.
const WRITE_ABOVE_MAXMEMORY: &CStr = c"v!CE3S";
const WRITE_ABOVE_MAXMEMORY_DRY_RUN: &CStr = c"vCE3SD";
// Without C.
const READ_AS_SERVER: &CStr = c"vE3W";
const READ_APART_AS_SERVER: &CStr = c"vE3WK";
const WRITE_AS_SERVER: &CStr = c"v!E3MS";

/// The keys, seen with the database and the ACL user of a context.
///
/// The context itself is not handed out: on the keyspace thread Redis reports `default` as its current user,
/// although the calls made here run as the caller.
///
/// All writes made within one lock scope (one handler, one reply callback, one piece of work on the keyspace
/// thread) reach the AOF and the replicas as one MULTI/EXEC.
#[derive(Clone, Copy)]
pub struct Keyspace<'a> {
    ctx: &'a Context,
    above_maxmemory: bool,
    alone: bool,
    as_server: bool,
}

impl fmt::Debug for Keyspace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyspace")
    }
}

impl<'a> Keyspace<'a> {
    /// The keyspace of `ctx`, the context of a handler or a reply callback.
    pub fn of(ctx: &'a Context) -> Self {
        Self { ctx, above_maxmemory: false, as_server: false, alone: false }
    }

    /// The same, for keys that stand in the command themselves and to which no others belong: Redis has looked whether they are here.
    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// For the neighbours in this room, who know what they may do with it.
    pub(super) fn context(&self) -> &'a Context {
        self.ctx
    }

    /// The same, but writes are not refused above `maxmemory`: for a removal and the little that is noted about it,
    /// which users need just then.
    pub fn above_maxmemory(self) -> Self {
        Self { above_maxmemory: true, ..self }
    }

    /// The same without regard to the rights of the caller: for what the module has to know, or note, of its own keys, and of which the
    /// caller is told nothing that it may not read. Only for [`Keyspace::read`], [`Keyspace::write`] and what is made of them.
    pub fn as_server(self) -> Self {
        Self { as_server: true, ..self }
    }

    /// Runs a command that reads. It must not be one that can block: `VSIM` needs `NOTHREAD`, or the server
    /// aborts; use [`super::vset`].
    ///
    /// # Errors
    /// The error reply of Redis, with its own code where that means the same to our caller, else as `ERR`.
    pub fn read(&self, command: &'static str, args: &[&[u8]]) -> Result<Reply, Failure> {
        self.call(command, if self.as_server { READ_AS_SERVER } else { READ }, args)
    }

    /// The values of these fields of the hash at `key`, in their order, however many others it has; `None` when there is no such key.
    ///
    /// # Errors
    /// As for [`Keyspace::read`].
    pub fn hash_fields(&self, key: &[u8], fields: &[&[u8]]) -> Result<Option<Vec<Option<Vec<u8>>>>, Failure> {
        let args: Vec<&[u8]> = std::iter::once(key).chain(fields.iter().copied()).collect();
        let Reply::Array(values) = self.read("HMGET", &args)? else {
            return Err(Failure::internal("HMGET answered with something that is not an array"));
        };
        let text = |value| if let Reply::Bytes(value) = value { Some(value) } else { None };
        let values: Vec<Option<Vec<u8>>> = values.into_iter().map(text).collect();
        // A hash of something else has none of the fields, and is there.
        Ok((values.iter().any(Option::is_some) || self.is_present(key)).then_some(values))
    }

    /// Whether there is a key `key`, of any type. Says nothing about the rights of the caller.
    pub fn is_present(&self, key: &[u8]) -> bool {
        self.type_and_length(key).is_some()
    }

    /// Whether there is a hash at `key`. Says nothing about the rights of the caller.
    pub fn is_hash(&self, key: &[u8]) -> bool {
        self.type_and_length(key).is_some_and(|(kind, _)| i32::try_from(raw::REDISMODULE_KEYTYPE_HASH) == Ok(kind))
    }

    /// Whether there is a string at `key`. Says nothing about the rights of the caller.
    pub fn is_string(&self, key: &[u8]) -> bool {
        self.type_and_length(key).is_some_and(|(kind, _)| i32::try_from(raw::REDISMODULE_KEYTYPE_STRING) == Ok(kind))
    }

    /// How many keys the database has; 0 where that cannot be told.
    pub fn size(&self) -> i64 {
        match self.as_server().read("DBSIZE", &[]) {
            Ok(Reply::Int(keys)) => keys,
            _ => 0,
        }
    }

    /// Runs a command that reads and may go on without the lock: `VSIM` without `NOTHREAD`. Only on the keyspace thread, whose
    /// context knows the module. `None` for an error.
    ///
    /// # Errors
    /// `INTERNAL` where the server cannot do that.
    pub(super) fn begin_read(&self, command: &'static str, args: &[&[u8]]) -> Result<Option<Coming>, Failure> {
        call_apart::begin(self.ctx, command, READ_APART, args)
    }

    /// The same without regard to the rights of the caller, see [`Keyspace::as_server`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn begin_read_as_server(
        &self,
        command: &'static str,
        args: &[&[u8]],
    ) -> Result<Option<Coming>, Failure> {
        call_apart::begin(self.ctx, command, READ_APART_AS_SERVER, args)
    }

    /// Runs a command that writes, and replicates it. Vector sets have traps; use
    /// [`super::vset`].
    ///
    /// # Errors
    /// As for [`Keyspace::read`]; also `OOM` above `maxmemory`, `READONLY` on a replica, `MISCONF` and
    /// `NOREPLICAS` where Redis refuses writes, and `ERR` while writes are paused.
    pub fn write(&self, command: &'static str, args: &[&[u8]]) -> Result<Reply, Failure> {
        refuse_while_paused()?;
        let flags = match (self.as_server, self.above_maxmemory) {
            (true, _) => WRITE_AS_SERVER,
            (false, true) => WRITE_ABOVE_MAXMEMORY,
            (false, false) => WRITE,
        };
        self.call(command, flags, args)
    }

    /// Whether [`Keyspace::read`] would be allowed to run this; runs nothing.
    ///
    /// # Errors
    /// As for [`Keyspace::read`].
    pub fn check_read(&self, command: &'static str, args: &[&[u8]]) -> Result<(), Failure> {
        self.dry_run(command, READ_DRY_RUN, args)
    }

    /// Whether [`Keyspace::write`] would be allowed to run this; changes nothing.
    ///
    /// # Errors
    /// As for [`Keyspace::write`].
    pub fn check_write(&self, command: &'static str, args: &[&[u8]]) -> Result<(), Failure> {
        refuse_while_paused()?;
        let flags = if self.above_maxmemory { WRITE_ABOVE_MAXMEMORY_DRY_RUN } else { WRITE_DRY_RUN };
        self.dry_run(command, flags, args)
    }

    /// The token ids stored at `key` (see [`token_blob`]), at most `most` of them.
    ///
    /// # Errors
    /// `ERR` if there is no such key, `WRONGTYPE` if it is no string, `NOPERM` if the caller may not read it,
    /// `BADTOKENS` if its value is not a list of token ids, `CTXLIMIT` if they are too many.
    pub fn token_key(&self, key: &[u8], most: usize) -> Result<Vec<u32>, Failure> {
        self.token_key_if_present(key, most)?.ok_or_else(|| Failure::err(format!("no such key: {}", shown(key))))
    }

    /// Like [`Keyspace::token_key`], with `None` for a key that is not there.
    ///
    /// # Errors
    /// As for [`Keyspace::token_key`].
    pub fn token_key_if_present(&self, key: &[u8], most: usize) -> Result<Option<Vec<u32>>, Failure> {
        // Before it is copied: a value may have hundreds of megabytes, and everybody waits.
        let count = self.string_length(key) / size_of::<u32>();
        if count > most {
            self.dry_run("GET", READ_DRY_RUN, &[key])?;
            let text = format!("key {} holds {count} tokens, but there is room for {most}", shown(key));
            return Err(Failure::new("CTXLIMIT", text));
        }
        match self.read("GET", &[key])? {
            Reply::Null => Ok(None),
            Reply::Bytes(blob) => token_blob::decode(&blob)
                .map(Some)
                .map_err(|error| Failure::new("BADTOKENS", format!("key {}: {error}", shown(key)))),
            _ => Err(Failure::internal("GET answered with something that is not a string")),
        }
    }

    /// Refuses to go on at a replica, which is not told that a slot is on its way, if it has no such key.
    ///
    /// # Errors
    /// `MOVED`.
    pub fn check_here(&self, key: &[u8]) -> Result<(), Failure> {
        slot::check_here(self.ctx, key)
    }

    /// How many token ids are stored at `key`; 0 when there is no such key or it holds something else.
    ///
    /// # Errors
    /// `NOPERM`, or what Redis says.
    pub fn token_count(&self, key: &[u8]) -> Result<u64, Failure> {
        let ids = size_of::<u32>() as u64;
        match self.read("STRLEN", &[key]) {
            Ok(Reply::Int(length)) => {
                let bytes = length.cast_unsigned();
                Ok(if bytes % ids == 0 { bytes / ids } else { 0 })
            }
            Ok(_) => Err(Failure::internal("STRLEN answered with something that is not a number")),
            Err(failure) if failure.code == "WRONGTYPE" => Ok(0),
            Err(failure) => Err(failure),
        }
    }

    /// Bytes of the string at `key`; 0 for anything else. Says nothing about the rights of the caller.
    fn string_length(&self, key: &[u8]) -> usize {
        let is_string = |kind| i32::try_from(raw::REDISMODULE_KEYTYPE_STRING) == Ok(kind);
        self.type_and_length(key).filter(|(kind, _)| is_string(*kind)).map_or(0, |(_, length)| length)
    }

    /// What kind of value is at `key`, and its length; `None` when there is no such key.
    fn type_and_length(&self, key: &[u8]) -> Option<(i32, usize)> {
        let (open, close) = (api!(RedisModule_OpenKey)?, api!(RedisModule_CloseKey)?);
        let (key_type, length) = (api!(RedisModule_KeyType)?, api!(RedisModule_ValueLength)?);
        let name = RedisString::create_from_slice(self.ctx.ctx, key);
        let mode = raw::REDISMODULE_READ | raw::REDISMODULE_OPEN_KEY_NOTOUCH;
        // SAFETY: the lock is held, the context and the name are live.
        let handle = unsafe { open(self.ctx.ctx, name.inner, mode.cast_signed()) };
        if handle.is_null() {
            return None;
        }
        // SAFETY: the handle was just opened and is not null.
        let kind = unsafe { key_type(handle) };
        // SAFETY: as above; 0 for values of modules.
        let length = unsafe { length(handle) };
        // SAFETY: closed once; it is not used afterwards.
        unsafe { close(handle) };
        Some((kind, length))
    }

    fn call(&self, command: &'static str, flags: &CStr, args: &[&[u8]]) -> Result<Reply, Failure> {
        self.check_whole(command, args)?;
        match call(self.ctx, command, flags, args).map_err(|failure| self.translated(command, args, failure)) {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(Failure::internal(format!("the server did not answer {command}"))),
            // One command of ours reads many keys, so Redis' text alone would leave the caller guessing.
            Err(failure) if failure.code == "WRONGTYPE" => {
                let key = shown(args.first().copied().unwrap_or_default());
                Err(Failure::new("WRONGTYPE", format!("{}: {key}", failure.text)))
            }
            Err(failure) => Err(failure),
        }
    }

    fn dry_run(&self, command: &'static str, flags: &CStr, args: &[&[u8]]) -> Result<(), Failure> {
        self.check_whole(command, args)?;
        call(self.ctx, command, flags, args).map(drop).map_err(|failure| self.translated(command, args, failure))
    }

    /// Refuses to go on while the slot of the index of this name is on its way to another node.
    ///
    /// # Errors
    /// `TRYAGAIN`.
    pub fn check_still(&self, name: &[u8]) -> Result<(), Failure> {
        slot::check_still(self.ctx, name)
    }

    fn check_whole(&self, command: &str, args: &[&[u8]]) -> Result<(), Failure> {
        if self.alone { Ok(()) } else { slot::check_whole(self.ctx, command, args) }
    }

    fn translated(&self, command: &str, args: &[&[u8]], failure: Failure) -> Failure {
        match slot::key_of(command, args) {
            Some(key) => slot::translated(self.ctx, key, failure),
            None => failure,
        }
    }
}

/// Refuses writes during CLIENT PAUSE and failover: the replica that is about to take over has to see the
/// last write, and clients' own writes are held back by Redis, but not those of modules.
fn refuse_while_paused() -> Result<(), Failure> {
    let paused = api!(RedisModule_AvoidReplicaTraffic).is_some_and(|avoid| {
        // SAFETY: takes no arguments and only reads server state; the lock is held.
        unsafe { avoid() != 0 }
    });
    if paused {
        return Err(Failure::err(
            "writes are paused (CLIENT PAUSE or a failover); send the command again when they are not",
        ));
    }
    Ok(())
}
