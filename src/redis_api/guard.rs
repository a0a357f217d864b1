//! Keeps panics inside Rust: a panic that unwinds into Redis' C code aborts the whole server.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::log;

/// Longest piece of a panic message that is logged, in bytes. A message may quote the text that was being
/// worked on, so it is kept short.
const MESSAGE_LIMIT: usize = 300;

/// Runs `f`; if it panics, logs `what` was being done and returns `None`.
///
/// Values that `f` was changing may be left half-changed, so `f` should own what it works on.
pub fn guarded<R>(what: &'static str, f: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Some(value),
        Err(payload) => {
            log::line(::log::Level::Error, &format!("internal error (panic) in {what}; the server goes on"));
            if !payload.is::<&'static str>() && !payload.is::<String>() {
                // Dropping something unknown could panic again, here outside any guard.
                std::mem::forget(payload);
            }
            None
        }
    }
}

/// Sends panic messages, with thread and source position, to the Redis log instead of stderr.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let position = info.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        log::line(
            ::log::Level::Error,
            &format!("panic in thread '{}'{position}: {}", thread.name().unwrap_or("unnamed"), message(info.payload())),
        );
    }));
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.as_str()
    } else {
        "no message"
    };
    log::cut(text, MESSAGE_LIMIT)
}
