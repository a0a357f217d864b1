//! llama.cpp's log, passed on to the `log` crate line by line.
//!
//! llama.cpp logs from any thread, and continues a line with level CONT, so each thread gathers its own line. What
//! llama.cpp calls information (hundreds of lines per load) is debug here. The first error of a thread is kept: it is
//! the reason that a failed load gives no other way, and later lines only say that it failed. A decode call that is
//! aborted on request ends with several errors; these are debug too.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use llama_cpp_sys_2::{GGML_LOG_LEVEL_CONT, GGML_LOG_LEVEL_ERROR, GGML_LOG_LEVEL_WARN, ggml_log_level};

thread_local! {
    static LINE: RefCell<(log::Level, String)> = const { RefCell::new((log::Level::Debug, String::new())) };
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static SIZES: Cell<Sizes> = const { Cell::new(Sizes { kv: 0, compute: 0 }) };
    static FIRST_ERROR: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Bytes of buffers. llama.cpp tells them in its log and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sizes {
    /// Keys and values, and recurrent state.
    pub kv: u64,
    /// What a step computes in, and its outputs.
    pub compute: u64,
}

/// What llama.cpp has told of buffers on this thread since the last call.
pub(super) fn take_sizes() -> Sizes {
    SIZES.take()
}

/// Adds up lines such as `llama_kv_cache:        CPU KV buffer size =    12.00 MiB`.
fn note_size(line: &str) {
    let Some((what, size)) = line.split_once("buffer size =") else { return };
    let Some(mib) = size.trim().strip_suffix("MiB").and_then(|mib| mib.trim().parse::<f64>().ok()) else { return };
    // A float becomes the nearest number that the integer can have.
    let bytes = (mib * f64::from(1 << 20)) as u64;
    let mut sizes = SIZES.get();
    match what.split_whitespace().last() {
        Some("KV" | "RS") => sizes.kv = sizes.kv.saturating_add(bytes),
        Some("compute" | "output") => sizes.compute = sizes.compute.saturating_add(bytes),
        _ => {}
    }
    SIZES.set(sizes);
}

/// Directs llama.cpp's and ggml's log here, for the whole process.
pub(super) fn install() {
    // SAFETY: `on_log` is a plain function that needs no user data and never unwinds.
    unsafe { llama_cpp_sys_2::llama_log_set(Some(on_log), std::ptr::null_mut()) };
}

/// The first error that llama.cpp logged on this thread since the last call.
pub(super) fn take_error() -> Option<String> {
    FIRST_ERROR.with_borrow_mut(Option::take)
}

/// From now on, errors of this thread are expected (`true`) or for whoever runs the server (`false`).
pub(super) fn set_quiet(quiet: bool) {
    QUIET.set(quiet);
}

extern "C" fn on_log(level: ggml_log_level, text: *const c_char, _user_data: *mut c_void) {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        if text.is_null() {
            return;
        }
        // SAFETY: llama.cpp passes a NUL-terminated string that lives during the call.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        append(level, &text);
    }));
}

fn append(level: ggml_log_level, text: &str) {
    LINE.with_borrow_mut(|(line_level, line)| {
        if level != GGML_LOG_LEVEL_CONT {
            *line_level = match level {
                _ if QUIET.get() => log::Level::Debug,
                GGML_LOG_LEVEL_ERROR => log::Level::Error,
                GGML_LOG_LEVEL_WARN => log::Level::Warn,
                _ => log::Level::Debug,
            };
        }
        line.push_str(text);
        if line.ends_with('\n') {
            let message = line.trim_end();
            if *line_level == log::Level::Error {
                FIRST_ERROR.with_borrow_mut(|first| _ = first.get_or_insert_with(|| message.to_owned()));
            }
            note_size(message);
            if !message.is_empty() {
                log::log!(*line_level, "llama.cpp: {message}");
            }
            line.clear();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_continued_in_pieces_is_one_error() {
        append(GGML_LOG_LEVEL_ERROR, "cannot ");
        append(GGML_LOG_LEVEL_CONT, "read it\n");
        assert_eq!(take_error().as_deref(), Some("cannot read it"));
        assert_eq!(take_error(), None);
    }

    #[test]
    fn an_expected_error_is_no_reason() {
        set_quiet(true);
        append(GGML_LOG_LEVEL_ERROR, "failed to decode\n");
        set_quiet(false);
        assert_eq!(take_error(), None);
        append(GGML_LOG_LEVEL_ERROR, "no memory\n");
        assert_eq!(take_error().as_deref(), Some("no memory"));
    }

    #[test]
    fn sizes_of_buffers_add_up_by_what_they_are_for() {
        take_sizes();
        for line in [
            "llama_kv_cache:        CPU KV buffer size =     1.50 MiB\n",
            "llama_kv_cache:        CPU KV buffer size =     0.50 MiB\n",
            "llama_context:        CPU  output buffer size =     1.00 MiB\n",
            "sched_reserve:        CPU compute buffer size =     2.00 MiB\n",
            "load_tensors:   CPU_Mapped model buffer size =    77.00 MiB\n",
            "llama_kv_cache:        CPU KV buffer size =     many MiB\n",
        ] {
            append(llama_cpp_sys_2::GGML_LOG_LEVEL_INFO, line);
        }
        assert_eq!(take_sizes(), Sizes { kv: 2 << 20, compute: 3 << 20 });
        assert_eq!(take_sizes(), Sizes::default());
    }

    #[test]
    fn the_first_of_several_errors_is_the_reason() {
        append(GGML_LOG_LEVEL_ERROR, "error loading model: no such tensor\n");
        append(GGML_LOG_LEVEL_ERROR, "failed to load model\n");
        assert_eq!(take_error().as_deref(), Some("error loading model: no such tensor"));
    }
}
