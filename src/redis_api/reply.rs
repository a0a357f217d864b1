//! What a command answers, and the one place where an answer is turned into RESP.
//!
//! The raw reply functions are used because `redis_module`'s mangle non-ASCII error text and let a simple
//! string with a line end forge a second reply. They pick RESP2 or RESP3 by the client, so a map is flat
//! and a double is a string where the client speaks RESP2.

use std::ffi::{CString, c_char, c_long};
use std::fmt;

use redis_module::Context;

use super::log::{cut, one_line};

/// Longest error line in bytes, code included.
const ERROR_LIMIT: usize = 1000;

/// Longest name in bytes that [`shown`] repeats.
const SHOWN_LIMIT: usize = 64;

/// A successful answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// A fixed word such as `OK`.
    Simple(&'static str),
    /// An integer.
    Int(i64),
    /// Bytes of any kind; all text from users and models goes here.
    Bulk(Vec<u8>),
    /// A double; a string in RESP2.
    Double(f64),
    /// An array.
    Array(Vec<Value>),
    /// Fields in this order; an array of names and values in RESP2.
    Map(Vec<(&'static str, Value)>),
}

impl Value {
    /// The answer of a command that has nothing to tell.
    pub const OK: Self = Self::Simple("OK");
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Bulk(text.into_bytes())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Bulk(text.as_bytes().to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bulk(bytes)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(i64::from(number))
    }
}

impl From<u64> for Value {
    /// Numbers above `i64::MAX`, which RESP cannot carry, become `i64::MAX`.
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    /// Numbers above `i64::MAX`, which RESP cannot carry, become `i64::MAX`.
    fn from(number: usize) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}

impl From<Vec<Value>> for Value {
    fn from(values: Vec<Value>) -> Self {
        Self::Array(values)
    }
}

/// A refused or failed command: a stable code that clients may test, and a sentence for people.
///
/// It is deliberately no `std::error::Error`: `redis_module` turns every such error into a `RedisError` on a
/// bare `?`, which would lose the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The first word of the error reply, such as `NOMODEL`.
    pub code: &'static str,
    /// What happened and what to do about it. Must not hold raw user bytes; see [`shown`].
    pub text: String,
}

impl Failure {
    /// A failure with this code and text.
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// A failure with the general code `ERR`.
    pub fn err(text: impl Into<String>) -> Self {
        Self::new("ERR", text)
    }

    /// A fault of this module, not of the caller.
    pub fn internal(text: impl Into<String>) -> Self {
        Self::new("INTERNAL", text)
    }

    /// `CODE text` as it goes over the wire, without the leading `-`.
    fn wire(&self) -> CString {
        let line = one_line(&format!("{} {}", self.code, self.text));
        // one_line leaves no NUL, so the fallback is never taken.
        CString::new(cut(line.trim_end(), ERROR_LIMIT)).unwrap_or_else(|_| c"INTERNAL error".into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

/// What a command ends with.
pub type Answer = Result<Value, Failure>;

/// `bytes` in quotes for an error text: printable ASCII, other bytes as `?`, at most 64 bytes.
pub fn shown(bytes: &[u8]) -> String {
    let mut text: String = bytes
        .iter()
        .take(SHOWN_LIMIT)
        .map(|&byte| if byte == b' ' || byte.is_ascii_graphic() { char::from(byte) } else { '?' })
        .collect();
    if bytes.len() > SHOWN_LIMIT {
        text.push_str("...");
    }
    format!("'{text}'")
}

/// Sends `answer` to the client of `ctx`. Exactly one call per command.
pub fn send(ctx: &Context, answer: &Answer) {
    match answer {
        Ok(value) => send_value(ctx, value),
        Err(failure) => {
            let text = failure.wire();
            let Some(reply) = api!(RedisModule_ReplyWithError) else { return };
            // SAFETY: ctx is the live context of a handler or callback; text is NUL-terminated.
            unsafe { reply(ctx.ctx, text.as_ptr()) };
        }
    }
}

fn send_value(ctx: &Context, value: &Value) {
    match value {
        Value::Null => {
            let Some(reply) = api!(RedisModule_ReplyWithNull) else { return };
            // SAFETY: ctx is the live context of a handler or callback.
            unsafe { reply(ctx.ctx) };
        }
        Value::Simple(word) => {
            let Ok(word) = CString::new(one_line(word)) else { return };
            let Some(reply) = api!(RedisModule_ReplyWithSimpleString) else { return };
            // SAFETY: ctx is the live context of a handler or callback; word is NUL-terminated.
            unsafe { reply(ctx.ctx, word.as_ptr()) };
        }
        Value::Int(number) => {
            let Some(reply) = api!(RedisModule_ReplyWithLongLong) else { return };
            // SAFETY: ctx is the live context of a handler or callback.
            unsafe { reply(ctx.ctx, *number) };
        }
        Value::Bulk(bytes) => send_bytes(ctx, bytes),
        Value::Double(number) => {
            let Some(reply) = api!(RedisModule_ReplyWithDouble) else { return };
            // SAFETY: ctx is the live context of a handler or callback.
            unsafe { reply(ctx.ctx, *number) };
        }
        Value::Array(values) => {
            let Some(reply) = api!(RedisModule_ReplyWithArray) else { return };
            // SAFETY: ctx is the live context of a handler or callback; as many elements follow.
            unsafe { reply(ctx.ctx, length(values.len())) };
            for value in values {
                send_value(ctx, value);
            }
        }
        Value::Map(fields) => {
            let Some(reply) = api!(RedisModule_ReplyWithMap) else { return };
            // SAFETY: ctx is the live context of a handler or callback; as many pairs follow.
            unsafe { reply(ctx.ctx, length(fields.len())) };
            for (name, value) in fields {
                send_bytes(ctx, name.as_bytes());
                send_value(ctx, value);
            }
        }
    }
}

fn send_bytes(ctx: &Context, bytes: &[u8]) {
    let Some(reply) = api!(RedisModule_ReplyWithStringBuffer) else { return };
    // SAFETY: ctx is the live context of a handler or callback; Redis copies the bytes before it returns.
    unsafe { reply(ctx.ctx, bytes.as_ptr().cast::<c_char>(), bytes.len()) };
}

/// A Rust length as the C API wants it; no vector is longer than `isize::MAX`.
fn length(len: usize) -> c_long {
    c_long::try_from(len).unwrap_or(c_long::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Failure, Value, shown};

    #[test]
    fn an_error_is_one_line_and_keeps_its_unicode() {
        let failure = Failure::new("ERR", "a\r\n+OK\0 € 一");
        assert_eq!(failure.wire().to_str(), Ok("ERR a  +OK  € 一"));
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let failure = Failure::err("€".repeat(1000));
        assert_eq!(failure.wire().as_bytes().len(), 1000);
    }

    #[test]
    fn shown_repeats_only_printable_ascii() {
        assert_eq!(shown(b"a\xff\r\nb c"), "'a???b c'");
        assert_eq!(shown(&[b'x'; 70]), format!("'{}...'", "x".repeat(64)));
    }

    #[test]
    fn numbers_beyond_resp_are_clamped() {
        assert_eq!(Value::from(u64::MAX), Value::Int(i64::MAX));
    }
}
