//! The Redis log as the target of the `log` crate.
//!
//! `redis_module`'s own logging functions hand the text to Redis as a printf *format*, so a model name with
//! a `%s` in it reads random memory. Here the format is always the literal `%s`.

use std::ffi::{CStr, CString};
use std::ptr;

use ::log::{Level, LevelFilter, Log, Metadata, Record};
use redis_infer_sync::{begins_work, on_violation};

use super::delivery;

/// Longest message in bytes. Redis cuts a line at 1024 bytes including its own prefix.
const LINE_LIMIT: usize = 1000;

struct RedisLog;

static REDIS_LOG: RedisLog = RedisLog;

impl Log for RedisLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            line(record.level(), &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Makes the Redis log the target of `log::info!` and friends, up to `level`. May be called again.
pub fn install(level: LevelFilter) {
    on_violation(|what| ::log::error!("{what}: this is a bug, all clients may have waited"));
    // The second call, after MODULE UNLOAD and a new load, finds the same logger already there.
    let _already_set = ::log::set_logger(&REDIS_LOG);
    ::log::set_max_level(level);
}

/// Writes one line to the Redis log, whatever the installed level. Any thread, with or without the lock; for a niced one
/// another thread writes it, unless it is an error, which may be the last thing that is heard of it.
///
/// Control characters become spaces, and the text is cut at 1000 bytes.
pub fn line(level: Level, text: &str) {
    begins_work("a line is logged");
    // Without a context Redis puts <module> before the line, which does not say which one.
    let text = one_line(cut(&format!("infer: {text}"), LINE_LIMIT));
    if level == Level::Error {
        return write(level, text);
    }
    delivery::make(move || write(level, text));
}

fn write(level: Level, text: String) {
    let (Some(redis_log), Ok(text)) = (api!(RedisModule_Log), CString::new(text)) else {
        return;
    };
    // SAFETY: both strings are NUL-terminated and live across the call, the format takes one string, and a
    // NULL context is allowed from any thread.
    unsafe { redis_log(ptr::null_mut(), name(level).as_ptr(), c"%s".as_ptr(), text.as_ptr()) };
}

/// The longest prefix of `text` of at most `limit` bytes that ends between two characters.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// `text` with every control character, NUL and line ends among them, replaced by a space.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn name(level: Level) -> &'static CStr {
    match level {
        Level::Error | Level::Warn => c"warning",
        Level::Info => c"notice",
        Level::Debug => c"verbose",
        Level::Trace => c"debug",
    }
}

#[cfg(test)]
mod tests {
    use super::{cut, one_line};

    #[test]
    fn cut_never_splits_a_character() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("", 5), "");
    }

    #[test]
    fn one_line_has_no_control_characters() {
        assert_eq!(one_line("a\r\nb\0c\td\u{85}é"), "a  b c d é");
    }
}
