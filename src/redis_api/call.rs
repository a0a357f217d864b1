//! One Redis command run from here (`RM_Call`), with its reply copied out of Redis' memory.
//!
//! The raw call is used because `redis_module`'s wrapper has no dry run and panics on reply types it does not
//! know. The reply is freed before the function returns, so nothing of Redis outlives the lock.

use std::ffi::{CStr, CString, c_char};
use std::slice;

use redis_module::{Context, raw};

use super::reply::Failure;

/// Longest error text in bytes taken over from Redis.
const ERROR_TEXT_LIMIT: usize = 200;

/// Error codes of Redis that keep their meaning when they are passed on to our caller.
const PASSED_ON: [&str; 9] =
    ["WRONGTYPE", "NOPERM", "OOM", "READONLY", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "CROSSSLOT"];

/// A reply of Redis, copied.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// No value.
    Null,
    /// An integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// A boolean.
    Bool(bool),
    /// A string of any kind: simple, bulk or verbatim.
    Bytes(Vec<u8>),
    /// An array or set.
    Array(Vec<Reply>),
    /// A map in the order Redis sent it.
    Map(Vec<(Reply, Reply)>),
}

/// Runs `command` with `flags` (letters of `RM_Call`; must hold `E` and `3`, not `K`) on the database and as
/// the user of `ctx`, whose lock must be held. `Ok(None)` is the answer to a dry run (`D`) that would work.
pub(super) fn call(
    ctx: &Context,
    command: &'static str,
    flags: &CStr,
    args: &[&[u8]],
) -> Result<Option<Reply>, Failure> {
    let Ok(name) = CString::new(command) else {
        return Err(Failure::internal("a command name has a NUL in it"));
    };
    let Some(rm_call) = api!(RedisModule_Call) else {
        return Err(Failure::internal("this server does not let modules call commands"));
    };
    let mut args = Strings::of(args)?;
    // SAFETY: the lock is held (contract of this function); flags starts with `v`, which takes exactly one
    // pointer to an array of strings and its length; the strings live until `args` is dropped.
    let reply = unsafe { rm_call(ctx.ctx, name.as_ptr(), flags.as_ptr(), args.0.as_mut_ptr(), args.0.len()) };
    if reply.is_null() {
        return Ok(None);
    }
    let reply = Owned(reply);
    copy(reply.0).map(Some)
}

/// Arguments as Redis strings, freed on drop.
pub(super) struct Strings(pub(super) Vec<*mut raw::RedisModuleString>);

impl Strings {
    pub(super) fn of(args: &[&[u8]]) -> Result<Self, Failure> {
        let Some(create) = api!(RedisModule_CreateString) else {
            return Err(Failure::internal("this server cannot make strings for modules"));
        };
        let mut strings = Self(Vec::with_capacity(args.len()));
        for arg in args {
            // SAFETY: Redis copies `len` bytes from a valid slice; without a context the string is ours.
            let string = unsafe { create(std::ptr::null_mut(), arg.as_ptr().cast::<c_char>(), arg.len()) };
            strings.0.push(string);
        }
        Ok(strings)
    }
}

impl Drop for Strings {
    fn drop(&mut self) {
        let Some(free) = api!(RedisModule_FreeString) else { return };
        for &string in &self.0 {
            // SAFETY: made by CreateString without a context, freed once, with the lock still held.
            unsafe { free(std::ptr::null_mut(), string) };
        }
    }
}

/// A root reply, freed on drop.
pub(super) struct Owned(pub(super) *mut raw::RedisModuleCallReply);

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(free) = api!(RedisModule_FreeCallReply) {
            // SAFETY: a root reply of RM_Call, freed once, with the lock still held.
            unsafe { free(self.0) };
        }
    }
}

/// Copies a reply and everything in it. An error anywhere makes the whole a failure.
pub(super) fn copy(reply: *mut raw::RedisModuleCallReply) -> Result<Reply, Failure> {
    if reply.is_null() {
        return Ok(Reply::Null);
    }
    let Some(type_of) = api!(RedisModule_CallReplyType) else { return Err(unreadable()) };
    // SAFETY: reply is alive: the root is held by the caller's `Owned`.
    let kind = unsafe { type_of(reply) };
    match isize::try_from(kind).unwrap_or(raw::REDISMODULE_REPLY_UNKNOWN) {
        raw::REDISMODULE_REPLY_NULL => Ok(Reply::Null),
        raw::REDISMODULE_REPLY_STRING => Ok(Reply::Bytes(string(reply)?)),
        raw::REDISMODULE_REPLY_ERROR => Err(failure(&string(reply)?)),
        raw::REDISMODULE_REPLY_INTEGER => {
            let Some(integer) = api!(RedisModule_CallReplyInteger) else { return Err(unreadable()) };
            // SAFETY: reply is alive and an integer.
            Ok(Reply::Int(unsafe { integer(reply) }))
        }
        raw::REDISMODULE_REPLY_DOUBLE => {
            let Some(double) = api!(RedisModule_CallReplyDouble) else { return Err(unreadable()) };
            // SAFETY: reply is alive and a double.
            Ok(Reply::Double(unsafe { double(reply) }))
        }
        raw::REDISMODULE_REPLY_BOOL => {
            let Some(boolean) = api!(RedisModule_CallReplyBool) else { return Err(unreadable()) };
            // SAFETY: reply is alive and a boolean.
            Ok(Reply::Bool(unsafe { boolean(reply) } != 0))
        }
        raw::REDISMODULE_REPLY_ARRAY => {
            let Some(element) = api!(RedisModule_CallReplyArrayElement) else { return Err(unreadable()) };
            (0..length(reply)?)
                // SAFETY: reply is alive and an array; Redis answers NULL beyond its end.
                .map(|index| copy(unsafe { element(reply, index) }))
                .collect::<Result<_, _>>()
                .map(Reply::Array)
        }
        raw::REDISMODULE_REPLY_SET => {
            let Some(element) = api!(RedisModule_CallReplySetElement) else { return Err(unreadable()) };
            (0..length(reply)?)
                // SAFETY: reply is alive and a set; Redis answers NULL beyond its end.
                .map(|index| copy(unsafe { element(reply, index) }))
                .collect::<Result<_, _>>()
                .map(Reply::Array)
        }
        raw::REDISMODULE_REPLY_MAP => {
            (0..length(reply)?).map(|index| pair(reply, index)).collect::<Result<_, _>>().map(Reply::Map)
        }
        raw::REDISMODULE_REPLY_VERBATIM_STRING => Ok(Reply::Bytes(verbatim(reply)?)),
        // Big numbers, attributes, promises: no command that is called here sends them.
        _ => Err(unreadable()),
    }
}

fn pair(map: *mut raw::RedisModuleCallReply, index: usize) -> Result<(Reply, Reply), Failure> {
    let Some(element) = api!(RedisModule_CallReplyMapElement) else { return Err(unreadable()) };
    let mut key = std::ptr::null_mut();
    let mut value = std::ptr::null_mut();
    // SAFETY: map is alive and a map; both results are written, or left NULL beyond its end.
    unsafe { element(map, index, &raw mut key, &raw mut value) };
    Ok((copy(key)?, copy(value)?))
}

fn length(reply: *mut raw::RedisModuleCallReply) -> Result<usize, Failure> {
    let length = api!(RedisModule_CallReplyLength).ok_or_else(unreadable)?;
    // SAFETY: reply is alive and a collection.
    Ok(unsafe { length(reply) })
}

fn string(reply: *mut raw::RedisModuleCallReply) -> Result<Vec<u8>, Failure> {
    let string_ptr = api!(RedisModule_CallReplyStringPtr).ok_or_else(unreadable)?;
    let mut len = 0_usize;
    // SAFETY: reply is alive and a string or error.
    let bytes = unsafe { string_ptr(reply, &raw mut len) };
    bytes_of(bytes, len)
}

/// The text of a verbatim string, without its format.
fn verbatim(reply: *mut raw::RedisModuleCallReply) -> Result<Vec<u8>, Failure> {
    let verbatim = api!(RedisModule_CallReplyVerbatim).ok_or_else(unreadable)?;
    let mut len = 0_usize;
    let mut format = std::ptr::null();
    // SAFETY: reply is alive and a verbatim string; both results are written.
    let bytes = unsafe { verbatim(reply, &raw mut len, &raw mut format) };
    bytes_of(bytes, len)
}

/// Copies `len` bytes of a reply that is alive.
fn bytes_of(bytes: *const c_char, len: usize) -> Result<Vec<u8>, Failure> {
    if bytes.is_null() {
        return Err(unreadable());
    }
    // SAFETY: Redis returned this pointer to `len` bytes that live as long as the reply.
    Ok(unsafe { slice::from_raw_parts(bytes.cast::<u8>(), len) }.to_vec())
}

fn unreadable() -> Failure {
    Failure::internal("the server sent a reply of a kind that this module does not read")
}

/// An error reply of Redis as a failure. Codes that mean the same to our caller are kept; the rest becomes
/// `ERR`. The text is reduced to printable ASCII because Redis repeats user input in some errors.
fn failure(error: &[u8]) -> Failure {
    let text: String = error
        .trim_ascii()
        .iter()
        .take(ERROR_TEXT_LIMIT)
        .map(|&byte| if byte == b' ' || byte.is_ascii_graphic() { char::from(byte) } else { '?' })
        .collect();
    let (word, rest) = text.split_once(' ').unwrap_or((text.as_str(), ""));
    if let Some(code) = PASSED_ON.into_iter().find(|&code| code == word) {
        return Failure::new(code, rest);
    }
    let is_code = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase());
    if is_code && !rest.is_empty() { Failure::err(rest) } else { Failure::err(text) }
}

#[cfg(test)]
mod tests {
    use super::failure;
    use crate::redis_api::reply::Failure;

    #[test]
    fn known_codes_are_passed_on() {
        assert_eq!(
            failure(b"NOPERM No permissions to access a key\r\n"),
            Failure::new("NOPERM", "No permissions to access a key")
        );
    }

    #[test]
    fn other_codes_become_err() {
        assert_eq!(failure(b"ERR key does not exist"), Failure::err("key does not exist"));
        assert_eq!(failure(b"LOADING busy"), Failure::err("busy"));
        assert_eq!(failure(b"cannot run as user"), Failure::err("cannot run as user"));
        assert_eq!(failure(b"OOPS"), Failure::err("OOPS"));
    }

    #[test]
    fn user_bytes_in_an_error_are_not_repeated_raw() {
        assert_eq!(failure(b"ERR unknown \xff\n'x'"), Failure::err("unknown ??'x'"));
    }
}
