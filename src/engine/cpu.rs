//! Which instructions llama.cpp was compiled to use, and which of them this CPU lacks.
//!
//! `scripts/cpu.sh` has it compiled for the CPU of the machine that builds. On another one the first model would end the
//! server with SIGILL, so it is asked before anything else of it is called: what it answers are constants.

use llama_cpp_sys_2 as sys;

/// An instruction set, whether llama.cpp was compiled for it, and whether this CPU has it.
type Instructions = (&'static str, unsafe extern "C" fn() -> i32, bool);

// AMX is not among them: ggml asks the system for it when it runs.
#[cfg(target_arch = "x86_64")]
fn known() -> Vec<Instructions> {
    use std::arch::is_x86_feature_detected as detected;
    let avx512 = detected!("avx512f")
        && detected!("avx512cd")
        && detected!("avx512bw")
        && detected!("avx512dq")
        && detected!("avx512vl");
    vec![
        ("AVX", sys::ggml_cpu_has_avx, detected!("avx")),
        ("AVX2", sys::ggml_cpu_has_avx2, detected!("avx2")),
        ("FMA", sys::ggml_cpu_has_fma, detected!("fma")),
        ("F16C", sys::ggml_cpu_has_f16c, detected!("f16c")),
        ("BMI2", sys::ggml_cpu_has_bmi2, detected!("bmi2")),
        ("AVX-VNNI", sys::ggml_cpu_has_avx_vnni, detected!("avxvnni")),
        ("AVX-512", sys::ggml_cpu_has_avx512, avx512),
        ("AVX512-VBMI", sys::ggml_cpu_has_avx512_vbmi, detected!("avx512vbmi")),
        ("AVX512-VNNI", sys::ggml_cpu_has_avx512_vnni, detected!("avx512vnni")),
        ("AVX512-BF16", sys::ggml_cpu_has_avx512_bf16, detected!("avx512bf16")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn known() -> Vec<Instructions> {
    use std::arch::is_aarch64_feature_detected as detected;
    vec![
        ("DOTPROD", sys::ggml_cpu_has_dotprod, detected!("dotprod")),
        ("FP16", sys::ggml_cpu_has_fp16_va, detected!("fp16")),
        ("I8MM", sys::ggml_cpu_has_matmul_int8, detected!("i8mm")),
        ("SVE", sys::ggml_cpu_has_sve, detected!("sve")),
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn known() -> Vec<Instructions> {
    Vec::new()
}

/// The instruction sets that llama.cpp uses and this CPU lacks: with any of them no model may be loaded.
#[must_use]
pub fn missing_instructions() -> Vec<&'static str> {
    missing(known())
}

fn missing(known: Vec<Instructions>) -> Vec<&'static str> {
    let compiled = |used: unsafe extern "C" fn() -> i32| {
        // SAFETY: takes nothing and returns a constant.
        unsafe { used() != 0 }
    };
    known.into_iter().filter(|&(_, used, present)| !present && compiled(used)).map(|(name, ..)| name).collect()
}

/// The CPU features that llama.cpp was compiled with and finds at run time, as llama.cpp itself prints them.
#[must_use]
pub fn system_info() -> String {
    // SAFETY: returns a pointer to a static buffer; called once, at load, on the main thread.
    let text = unsafe { sys::llama_print_system_info() };
    // SAFETY: the buffer is NUL-terminated.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn yes() -> i32 {
        1
    }

    extern "C" fn no() -> i32 {
        0
    }

    #[test]
    fn only_what_is_compiled_in_can_be_missing() {
        assert_eq!(missing(vec![("A", yes, true), ("B", yes, false), ("C", no, false), ("D", no, true)]), ["B"]);
    }

    #[test]
    fn the_machine_that_builds_lacks_nothing() {
        assert!(missing_instructions().is_empty(), "{}", system_info());
    }
}
