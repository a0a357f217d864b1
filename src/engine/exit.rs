//! The end of the process while threads are inside llama.cpp.
//!
//! `exit` runs the destructors of C++ statics. A thread that is still computing would use what they have destroyed, and the server would
//! end with a crash report instead of a status of 0. What ends a process without them is `_exit`, and nothing is lost by it: Redis says
//! that it shuts down when it has saved and flushed everything, and goes on to `exit` by itself.

use std::ffi::c_int;

use super::threads;

/// Has `exit` end the process at once if engine threads are still there by then. For when they were left behind: what was
/// registered last is run first, so it goes before all destructors that exist now.
pub fn end_without_destructors() {
    register_end();
}

/// Has `exit` call `hook` before the destructors of what exists now.
pub fn at_exit(hook: extern "C" fn()) {
    // SAFETY: the library is never unmapped, so the function stays; there is room for it, or it is not called.
    unsafe { libc::atexit(hook) };
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn register_end() {
    use std::ffi::c_void;

    unsafe extern "C" {
        /// As `atexit`, with the status that `exit` was called with.
        fn on_exit(hook: extern "C" fn(c_int, *mut c_void), arg: *mut c_void) -> c_int;
    }

    extern "C" fn end(status: c_int, _arg: *mut c_void) {
        end_now(status);
    }

    // SAFETY: as in `at_exit`.
    unsafe { on_exit(end, std::ptr::null_mut()) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn register_end() {
    extern "C" fn end() {
        // Redis has come to its end; a failure to do so would not have asked the modules to stop.
        end_now(0);
    }
    at_exit(end);
}

fn end_now(status: c_int) {
    if threads::alive() > 0 {
        // SAFETY: ends the process, whatever others do.
        unsafe { libc::_exit(status) };
    }
}
