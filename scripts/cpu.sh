# shellcheck shell=bash
# Sourced by env.sh: has llama.cpp compiled for the CPU of this machine, as llama.cpp's own build does, or with
# REDIS_INFER_CPU=portable for x86 with AVX2 and any 64-bit ARM. The crate that compiles llama.cpp hands GGML_ variables on.
#
# All of them are always set: cargo compiles llama.cpp again only when the value of one that it knows changes.

# cpu_has FLAG…: whether the first CPU has them all, by their names in /proc/cpuinfo
cpu_has() {
    local flag
    for flag in "$@"; do
        case " $cpu_flags " in *" $flag "*) ;; *) return 1 ;; esac
    done
}

# ggml NAME FLAG…: GGML_NAME is ON when the CPU has all flags
ggml() {
    local name=$1
    shift
    if cpu_has "$@"; then export "GGML_$name=ON"; else export "GGML_$name=OFF"; fi
}

case ${REDIS_INFER_CPU:=native} in
    native) cpu_flags=$(awk -F ': ' '/^flags/ { print $2; exit }' /proc/cpuinfo 2>/dev/null || true) ;;
    portable) cpu_flags="sse4_2 avx avx2 fma f16c bmi2" ;;
    *) die "REDIS_INFER_CPU is native or portable, not \"$REDIS_INFER_CPU\"" ;;
esac

case $(uname -sm) in
    Linux\ x86_64)
        ggml SSE42 sse4_2
        ggml AVX avx
        ggml AVX2 avx2
        ggml FMA fma
        ggml F16C f16c
        ggml BMI2 bmi2
        ggml AVX_VNNI avx_vnni
        ggml AVX512 avx512f avx512cd avx512bw avx512dq avx512vl
        ggml AVX512_VBMI avx512vbmi
        ggml AVX512_VNNI avx512_vnni
        ggml AVX512_BF16 avx512_bf16
        ggml AMX_TILE amx_tile
        ggml AMX_INT8 amx_int8
        ggml AMX_BF16 amx_bf16
        ;;
    Linux\ aarch64)
        if [ "$REDIS_INFER_CPU" = native ]; then export GGML_CPU_ARM_ARCH=native; else export GGML_CPU_ARM_ARCH=armv8-a; fi
        ;;
esac
unset cpu_flags
