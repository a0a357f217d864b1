//! Calls into llama.cpp that can throw, made through the C++ try/catch of `trampoline.cpp`. Its failed assertions, which
//! would end the process, are exceptions as well there: damaged files are the usual reason. Not covered are assertions on
//! threads of llama.cpp's own (`THREADS` above 1) and whatever reads memory that is not there.

use std::ffi::{CStr, c_char, c_int};
use std::mem::{offset_of, size_of};

use llama_cpp_sys_2::{llama_batch, llama_context, llama_vocab};

use super::error::EngineError;

// trampoline.cpp has its own copy of this struct.
const _: () = {
    assert!(size_of::<llama_batch>() == 56);
    assert!(offset_of!(llama_batch, token) == 8);
    assert!(offset_of!(llama_batch, embd) == 16);
    assert!(offset_of!(llama_batch, pos) == 24);
    assert!(offset_of!(llama_batch, n_seq_id) == 32);
    assert!(offset_of!(llama_batch, seq_id) == 40);
    assert!(offset_of!(llama_batch, logits) == 48);
};

unsafe extern "C" {
    fn infer_catch_aborts();
    fn infer_begin_catching();
    fn infer_end_catching() -> bool;
    fn infer_try_decode(
        ctx: *mut llama_context,
        batch: *const llama_batch,
        threw: *mut u8,
        error: *mut c_char,
        capacity: usize,
    ) -> i32;
    fn infer_try_tokenize(
        vocab: *const llama_vocab,
        text: *const c_char,
        text_len: c_int,
        tokens: *mut i32,
        n_tokens_max: c_int,
        add_special: bool,
        parse_special: bool,
        threw: *mut u8,
        error: *mut c_char,
        capacity: usize,
    ) -> i32;
    fn infer_try_token_to_piece(
        vocab: *const llama_vocab,
        token: i32,
        buffer: *mut c_char,
        length: c_int,
        special: bool,
        threw: *mut u8,
        error: *mut c_char,
        capacity: usize,
    ) -> i32;
}

/// Receives what a throwing call reports.
struct Report {
    /// 0 for nothing, 1 for an exception, 2 for a failed assertion.
    threw: u8,
    text: [c_char; 256],
}

impl Report {
    fn new() -> Self {
        Self { threw: 0, text: [0; 256] }
    }

    fn check(&self, call: &str, value: i32) -> Result<i32, EngineError> {
        if self.threw == 0 {
            return Ok(value);
        }
        // SAFETY: snprintf in trampoline.cpp always writes a terminating NUL inside the 256 bytes.
        let text = unsafe { CStr::from_ptr(self.text.as_ptr()) };
        let text = format!("{call} failed: {}", text.to_string_lossy());
        Err(if self.threw == 2 { EngineError::Assertion(text) } else { EngineError::Internal(text) })
    }
}

/// From now on, in the whole process, a failed assertion of llama.cpp ends a call made through this file or inside
/// [`catching`], and the process only elsewhere.
pub(super) fn catch_aborts() {
    // SAFETY: sets a plain function that needs no data.
    unsafe { infer_catch_aborts() };
}

/// Runs `call`, a function of llama.cpp that itself catches exceptions and returns an error, or one that calls it; also
/// tells whether an assertion failed in it.
pub(super) fn catching<R>(call: impl FnOnce() -> R) -> (R, bool) {
    // SAFETY: sets a variable of this thread.
    unsafe { infer_begin_catching() };
    let result = call();
    // SAFETY: as above.
    (result, unsafe { infer_end_catching() })
}

/// `llama_decode`: 0 = done, 1 = no free cells, 2 = aborted by the callback, negative = refused.
///
/// # Safety
/// `ctx` is a live context that no other thread uses; every pointer in `batch` covers `n_tokens` items.
pub(super) unsafe fn decode(ctx: *mut llama_context, batch: &llama_batch) -> Result<i32, EngineError> {
    let mut report = Report::new();
    // SAFETY: the caller's promise; `report` outlives the call.
    let status =
        unsafe { infer_try_decode(ctx, batch, &raw mut report.threw, report.text.as_mut_ptr(), report.text.len()) };
    report.check("llama_decode", status)
}

/// `llama_tokenize` into `tokens`: the count, or minus the count needed.
///
/// # Safety
/// `vocab` is the vocabulary of a live model.
pub(super) unsafe fn tokenize(
    vocab: *const llama_vocab,
    text: &[u8],
    tokens: &mut [i32],
    add_special: bool,
    parse_special: bool,
) -> Result<i32, EngineError> {
    let mut report = Report::new();
    let (Ok(text_len), Ok(capacity)) = (c_int::try_from(text.len()), c_int::try_from(tokens.len())) else {
        return Err(EngineError::Internal("a text of more than 2 GiB reached the tokenizer".to_owned()));
    };
    // SAFETY: `text` and `tokens` are valid for the lengths given; `vocab` by the caller's promise.
    let count = unsafe {
        infer_try_tokenize(
            vocab,
            text.as_ptr().cast(),
            text_len,
            tokens.as_mut_ptr(),
            capacity,
            add_special,
            parse_special,
            &raw mut report.threw,
            report.text.as_mut_ptr(),
            report.text.len(),
        )
    };
    report.check("llama_tokenize", count)
}

/// `llama_token_to_piece` into `buffer`: the bytes written, or minus the bytes needed.
///
/// # Safety
/// `vocab` is the vocabulary of a live model.
pub(super) unsafe fn token_to_piece(
    vocab: *const llama_vocab,
    token: i32,
    buffer: &mut [u8],
    special: bool,
) -> Result<i32, EngineError> {
    let mut report = Report::new();
    let length = c_int::try_from(buffer.len()).unwrap_or(c_int::MAX);
    // SAFETY: `buffer` is valid for `length` bytes; `vocab` by the caller's promise; an unknown id throws and is
    // caught.
    let written = unsafe {
        infer_try_token_to_piece(
            vocab,
            token,
            buffer.as_mut_ptr().cast(),
            length,
            special,
            &raw mut report.threw,
            report.text.as_mut_ptr(),
            report.text.len(),
        )
    };
    report.check("llama_token_to_piece", written)
}
