//! Calls into llama.cpp that can throw, made through the C++ try/catch of `trampoline.cpp`. Its failed assertions, which
//! would end the process, are exceptions as well there, on all threads of a pass (`team.cpp`): damaged files are the usual
//! reason. Not covered is whatever reads memory that is not there.

use std::ffi::{CStr, c_char, c_int};
use std::mem::{offset_of, size_of};
use std::time::Duration;

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
    fn infer_take_lost_ns() -> u64;
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
    fn infer_try_state_size(
        ctx: *mut llama_context,
        sequence: i32,
        done: *mut usize,
        threw: *mut u8,
        error: *mut c_char,
        capacity: usize,
    ) -> i32;
    fn infer_try_state_save(
        ctx: *mut llama_context,
        state: *mut u8,
        size: usize,
        sequence: i32,
        done: *mut usize,
        threw: *mut u8,
        error: *mut c_char,
        capacity: usize,
    ) -> i32;
    fn infer_try_state_restore(
        ctx: *mut llama_context,
        state: *const u8,
        size: usize,
        sequence: i32,
        done: *mut usize,
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
        match self.threw {
            0 => Ok(value),
            2 => Err(EngineError::Assertion(self.text(call))),
            _ => Err(EngineError::Internal(self.text(call))),
        }
    }

    /// As [`Report::check`] for a call that changes a context, or reads what it may have left half-changed.
    fn check_context(&self, call: &str, value: i32) -> Result<i32, EngineError> {
        if self.threw == 0 { Ok(value) } else { Err(EngineError::ContextLost(self.text(call))) }
    }

    fn text(&self, call: &str) -> String {
        // SAFETY: snprintf in trampoline.cpp always writes a terminating NUL inside the 256 bytes.
        let text = unsafe { CStr::from_ptr(self.text.as_ptr()) };
        format!("{call} failed: {}", text.to_string_lossy())
    }
}

/// From now on, in the whole process, a failed assertion of llama.cpp ends a call made through this file or inside
/// [`catching`], and the process only elsewhere.
pub(super) fn catch_aborts() {
    // SAFETY: sets a plain function that needs no data.
    unsafe { infer_catch_aborts() };
}

unsafe extern "C-unwind" {
    fn ggml_abort(file: *const c_char, line: c_int, format: *const c_char, ...) -> !;
}

/// The test hook: an assertion that fails. To be called where ggml is running, in a function without anything to drop.
pub(super) fn fail_assertion() -> ! {
    // SAFETY: constant strings, and a format without arguments; what it throws passes through frames with nothing to drop.
    unsafe { ggml_abort(c"x/llama.cpp/test.c".as_ptr(), 7, c"on purpose".as_ptr()) }
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
    report.check_context("llama_decode", status)
}

/// How long threads of the passes that this thread has run since the last call were ready to run and had no CPU; of each
/// pass the thread that waited longest.
pub(super) fn take_lost_time() -> Duration {
    // SAFETY: reads and resets a variable of this thread.
    Duration::from_nanos(unsafe { infer_take_lost_ns() })
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

/// `llama_state_seq_get_size`: bytes that [`save_state`] needs.
///
/// # Safety
/// `ctx` is a live context that no other thread uses; `sequence` is one of its sequences.
pub(super) unsafe fn state_size(ctx: *mut llama_context, sequence: i32) -> Result<usize, EngineError> {
    let (mut report, mut size) = (Report::new(), 0);
    let (threw, text, capacity) = (&raw mut report.threw, report.text.as_mut_ptr(), report.text.len());
    // SAFETY: the caller's promise; `report` and `size` outlive the call.
    let status = unsafe { infer_try_state_size(ctx, sequence, &raw mut size, threw, text, capacity) };
    report.check_context("llama_state_seq_get_size", status)?;
    Ok(size)
}

/// `llama_state_seq_get_data`: everything that `sequence` holds.
///
/// # Safety
/// `ctx` is a live context that no other thread uses; `sequence` is one of its sequences.
pub(super) unsafe fn save_state(ctx: *mut llama_context, sequence: i32, size: usize) -> Result<Vec<u8>, EngineError> {
    let (mut report, mut saved) = (Report::new(), 0);
    let (threw, capacity) = (&raw mut report.threw, report.text.len());
    let mut state = Vec::new();
    state
        .try_reserve_exact(size)
        .map_err(|_| EngineError::OutOfMemory(format!("no room for {size} bytes of state")))?;
    let text = report.text.as_mut_ptr();
    // SAFETY: the caller's promise; `report` and `saved` outlive the call, and `state` has room for `size` bytes.
    let status =
        unsafe { infer_try_state_save(ctx, state.as_mut_ptr(), size, sequence, &raw mut saved, threw, text, capacity) };
    report.check_context("llama_state_seq_get_data", status)?;
    if saved == 0 || saved != size {
        return Err(EngineError::Internal(format!("llama.cpp saved {saved} of {size} bytes of a sequence")));
    }
    // SAFETY: llama.cpp has written the first `saved` bytes, which are all.
    unsafe { state.set_len(size) };
    Ok(state)
}

/// `llama_state_seq_set_data`: makes `sequence` hold what was saved, and nothing else. After an error nobody knows what it
/// holds.
///
/// # Safety
/// `ctx` is a live context that no other thread uses; `sequence` is one of its sequences.
pub(super) unsafe fn restore_state(ctx: *mut llama_context, sequence: i32, state: &[u8]) -> Result<(), EngineError> {
    let (mut report, mut read) = (Report::new(), 0);
    let (threw, text, capacity) = (&raw mut report.threw, report.text.as_mut_ptr(), report.text.len());
    let (bytes, size) = (state.as_ptr(), state.len());
    // SAFETY: the caller's promise; llama.cpp reads at most `size` bytes of `state`; the rest outlives the call.
    let status = unsafe { infer_try_state_restore(ctx, bytes, size, sequence, &raw mut read, threw, text, capacity) };
    report.check_context("llama_state_seq_set_data", status)?;
    if read == state.len() {
        return Ok(());
    }
    Err(EngineError::Internal(format!("llama.cpp took {read} of {} bytes of a sequence", state.len())))
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    unsafe extern "C-unwind" {
        fn infer_try_run(
            work: extern "C-unwind" fn(*mut c_void),
            data: *mut c_void,
            threw: *mut u8,
            error: *mut c_char,
            capacity: usize,
        ) -> i32;
        fn GOMP_parallel(work: extern "C-unwind" fn(*mut c_void), data: *mut c_void, threads: u32, flags: u32);
        fn GOMP_barrier();
        fn GOMP_single_start() -> bool;
        fn omp_get_thread_num() -> i32;
        fn omp_get_num_threads() -> i32;
    }

    const THREADS: u32 = 4;
    const ROUNDS: u32 = 2000;

    /// What the threads of a pass do in these tests.
    #[derive(Default)]
    struct Pass {
        /// Sums of the rounds, which every thread reads between two barriers.
        sums: [AtomicU32; 2],
        wrong: AtomicU32,
        seen: Mutex<Vec<i32>>,
        first: AtomicU32,
        /// The thread that fails in the middle.
        fails: Option<i32>,
    }

    /// Runs `pass` as ggml would, `work` being what OpenMP makes of a parallel region.
    fn run(pass: &mut Pass) -> Result<i32, EngineError> {
        extern "C-unwind" fn begin(pass: *mut c_void) {
            // SAFETY: `work` takes what it is given here, on several threads, for as long as this call lasts.
            unsafe { GOMP_parallel(work, pass, THREADS, 0) };
        }
        let mut report = Report::new();
        let (threw, text) = (&raw mut report.threw, report.text.as_mut_ptr());
        // SAFETY: `pass` and `report` outlive the call.
        let status = unsafe { infer_try_run(begin, std::ptr::from_mut(pass).cast(), threw, text, report.text.len()) };
        report.check("the pass", status)
    }

    extern "C-unwind" fn work(pass: *mut c_void) {
        // SAFETY: `run` gives a live `Pass`, which is `Sync` and only read.
        let pass = unsafe { &*pass.cast::<Pass>() };
        // SAFETY: no arguments, no effect.
        let thread = unsafe { omp_get_thread_num() };
        // SAFETY: as above.
        let threads = unsafe { omp_get_num_threads() };
        pass.seen.lock().unwrap().push(thread);
        assert_eq!(threads.cast_unsigned(), THREADS);
        // SAFETY: every thread of the pass gets here.
        if unsafe { GOMP_single_start() } {
            pass.first.fetch_add(1, Ordering::Relaxed);
        }
        for round in 0..ROUNDS {
            // SAFETY: every thread of the pass gets here.
            unsafe { GOMP_barrier() };
            let sum = &pass.sums[(round % 2) as usize];
            sum.fetch_add(1, Ordering::Relaxed);
            if pass.fails == Some(thread) && round == ROUNDS / 2 {
                fail_assertion();
            }
            // SAFETY: every thread of the pass gets here.
            unsafe { GOMP_barrier() };
            if sum.load(Ordering::Relaxed) != (round / 2 + 1) * THREADS {
                pass.wrong.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn all_threads_of_a_pass_have_done_a_step_before_the_next_one_begins() {
        for _ in 0..5 {
            let mut pass = Pass::default();
            assert_eq!(run(&mut pass).unwrap(), 0);
            let mut seen = pass.seen.lock().unwrap().clone();
            seen.sort_unstable();
            assert_eq!((seen, pass.wrong.into_inner(), pass.first.into_inner()), (vec![0, 1, 2, 3], 0, 1));
        }
    }

    #[test]
    fn a_failed_assertion_on_any_thread_of_a_pass_ends_the_pass_and_nothing_else() {
        catch_aborts();
        for thread in [0, 1, 3, 2] {
            let error = run(&mut Pass { fails: Some(thread), ..Pass::default() }).unwrap_err();
            assert!(matches!(error, EngineError::Assertion(_)), "{error:?}");
            assert!(error.to_string().contains("on purpose"), "{error}");
            assert_eq!(run(&mut Pass::default()).unwrap(), 0);
        }
    }

    #[test]
    fn threads_of_a_pass_end_with_the_thread_that_began_it() {
        let threads = || {
            std::fs::read_dir("/proc/self/task").map_or(0, |tasks| {
                let of_test = |task: &std::fs::DirEntry| {
                    std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "team-test")
                };
                tasks.flatten().filter(of_test).count()
            })
        };
        let body = move || {
            run(&mut Pass::default()).unwrap();
            threads()
        };
        let thread = std::thread::Builder::new().name("team-test".to_owned()).spawn(body).unwrap();
        if cfg!(target_os = "linux") {
            assert_eq!(thread.join().unwrap(), THREADS as usize);
        }
        // The system lists a thread for some moments after its end.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while threads() > 0 {
            assert!(std::time::Instant::now() < deadline, "{} threads are left", threads());
            std::thread::yield_now();
        }
    }
}
