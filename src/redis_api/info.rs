//! The module's sections of `INFO`, which Redis also prints into a crash report.
//!
//! A crash report is written inside a signal handler, on whatever thread crashed: locks may be held for ever, and so may
//! the allocator's. What runs then must neither lock nor allocate; see [`Occasion`]. `redis_module`'s own handler prints
//! a backtrace there, which does both, so this one replaces it.

use std::ffi::{CStr, CString, c_int};
use std::sync::OnceLock;

use redis_module::{Context, raw};

use super::guard::guarded;
use super::reply::Failure;

/// Why the sections are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// `INFO`, on the main thread with the lock held.
    Command,
    /// A crash report: numbers from atomics only.
    Crash,
}

/// Writes all sections.
pub type Sections = fn(&mut Writer, Occasion);

static SECTIONS: OnceLock<Sections> = OnceLock::new();

/// Makes `sections` the module's part of `INFO`. Only while the module is being loaded, with the same function each time.
///
/// # Errors
/// `INTERNAL` if Redis refuses.
pub fn register(ctx: &Context, sections: Sections) -> Result<(), Failure> {
    SECTIONS.get_or_init(|| sections);
    let status = api!(RedisModule_RegisterInfoFunc).map(|register| {
        // SAFETY: ctx is the live context of OnLoad; the callback is a static function.
        unsafe { register(ctx.ctx, Some(on_info)) }
    });
    if status == Some(0) { Ok(()) } else { Err(Failure::internal("the server refused the sections of INFO")) }
}

extern "C" fn on_info(ctx: *mut raw::RedisModuleInfoCtx, for_crash_report: c_int) {
    guarded("INFO", || {
        let occasion = if for_crash_report == 0 { Occasion::Command } else { Occasion::Crash };
        if let Some(sections) = SECTIONS.get() {
            sections(&mut Writer { ctx, wanted: false }, occasion);
        }
    });
}

/// Takes sections and their fields. Redis puts `infer_` before each of their names.
#[derive(Debug)]
pub struct Writer {
    ctx: *mut raw::RedisModuleInfoCtx,
    /// Whether the current section was asked for.
    wanted: bool,
}

impl Writer {
    /// Begins a section; its fields follow. Whether it was asked for; if not, they may be left out.
    pub fn section(&mut self, name: &'static CStr) -> bool {
        self.wanted = api!(RedisModule_InfoAddSection).is_some_and(|add| {
            // SAFETY: ctx is the live context of the callback; the name is NUL-terminated and copied.
            unsafe { add(self.ctx, name.as_ptr()) == 0 }
        });
        self.wanted
    }

    /// `name:value`. Does not allocate.
    pub fn number(&mut self, name: &'static CStr, value: u64) {
        if !self.wanted {
            return;
        }
        if let Some(add) = api!(RedisModule_InfoAddFieldULongLong) {
            // SAFETY: ctx is the live context of the callback; the name is NUL-terminated and copied.
            unsafe { add(self.ctx, name.as_ptr(), value) };
        }
    }

    /// `name:part=value,part=value`, as Redis' own `db0` has it. What would break the form becomes `_`.
    pub fn parts(&mut self, name: &str, parts: &[(&str, String)]) {
        if !self.wanted {
            return;
        }
        let parts: Vec<String> = parts.iter().map(|(part, value)| format!("{part}={}", plain(value))).collect();
        let (Ok(name), Ok(value)) = (CString::new(name), CString::new(parts.join(","))) else { return };
        if let Some(add) = api!(RedisModule_InfoAddFieldCString) {
            // SAFETY: ctx is the live context of the callback; both texts are NUL-terminated and copied.
            unsafe { add(self.ctx, name.as_ptr(), value.as_ptr()) };
        }
    }
}

/// `value` without control characters and the characters that part fields.
fn plain(value: &str) -> String {
    value.chars().map(|c| if c.is_control() || matches!(c, ',' | '=' | ':' | '#') { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_value_cannot_end_its_field_or_line() {
        assert_eq!(plain("a,b=c:d\r\n# x\0é"), "a_b_c_d___ x_é");
    }
}
