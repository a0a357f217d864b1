# shellcheck shell=bash
# Sourced by the Makefile and by every script: where things are. Changes nothing on the machine.
#
# Settings, all optional:
#   CI=true                     keep downloads and build output in ~/.cache/redis-infer, outside the clone
#   REDIS_INFER_CACHE           folder for downloads and models (default vendor/cache)
#   REDIS_INFER_REDIS_SERVER    the redis-server to use instead of looking for one
#   REDIS_INFER_CPU=portable    compile llama.cpp for any CPU with AVX2 instead of for this one (scripts/cpu.sh)
#   CARGO_TARGET_DIR            as in cargo (default target)

REDIS_INFER_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export REDIS_INFER_ROOT

if [ "${CI:-}" = true ]; then
    # A warm machine must not fetch or compile llama.cpp again for a fresh clone.
    : "${REDIS_INFER_CACHE:=$HOME/.cache/redis-infer}"
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$REDIS_INFER_CACHE/target}"
fi
export REDIS_INFER_CACHE="${REDIS_INFER_CACHE:-$REDIS_INFER_ROOT/vendor/cache}"

# A shell that is not a login shell may lack cargo's folder.
if ! command -v cargo >/dev/null 2>&1 && [ -x "$HOME/.cargo/bin/cargo" ]; then
    export PATH="$HOME/.cargo/bin:$PATH"
fi

if [ -z "${CMAKE_GENERATOR:-}" ] && command -v ninja >/dev/null 2>&1; then
    export CMAKE_GENERATOR=Ninja
fi

say() { printf 'redis-infer: %s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

# shellcheck source=cpu.sh
. "$REDIS_INFER_ROOT/scripts/cpu.sh"

target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$REDIS_INFER_ROOT/target}"; }

module_path() {
    case $(uname -s) in
        Darwin) printf '%s/release/libredis_infer.dylib\n' "$(target_dir)" ;;
        *) printf '%s/release/libredis_infer.so\n' "$(target_dir)" ;;
    esac
}

cli_path() { printf '%s/release/redis-infer\n' "$(target_dir)"; }

# vendor_path NAME: where the manifest puts the first file of NAME
vendor_path() {
    awk -v name="$1" -v cache="$REDIS_INFER_CACHE" '$1 == name { print cache "/" $7; exit }' "$REDIS_INFER_ROOT/vendor/manifest"
}

chat_model_path() { vendor_path smollm2; }
minilm_dir() { dirname "$(vendor_path minilm)"; }
embed_model_path() { printf '%s.gguf\n' "$(minilm_dir)"; }

# major_version PROGRAM: "8" for "Redis server v=8.2.3 …" and for "redis-cli 8.2.3"; nothing when it does not run
major_version() { "$1" --version 2>/dev/null | sed -n -E '1s/^[^0-9]*([0-9]+)\..*/\1/p'; }

# path_redis8: the redis-server on PATH when it is version 8 or newer, otherwise nothing.
path_redis8() {
    local server major
    server=$(command -v redis-server) || return 0
    # Valkey installs a redis-server of its own, with its own version numbers and no Vector Sets.
    "$server" --version 2>/dev/null | grep -q '^Redis server' || return 0
    major=$(major_version "$server")
    [ "${major:-0}" -ge 8 ] && printf '%s\n' "$server"
    return 0
}

# redis8_path: the server that demo, tests, serve and bench run.
redis8_path() {
    local server=${REDIS_INFER_REDIS_SERVER:-}
    [ -n "$server" ] || server=$(path_redis8)
    [ -n "$server" ] || server=$(vendor_path redis-8)
    printf '%s\n' "$server"
}

# export_test_env: what the tests read. A server that is not there stays unset, and its tests say that they were skipped.
export_test_env() {
    local server
    REDIS_INFER_REDIS_SERVER=$(redis8_path)
    REDIS_INFER_MODULE=$(module_path)
    REDIS_INFER_CHAT_MODEL=$(chat_model_path)
    REDIS_INFER_EMBED_MODEL=$(embed_model_path)
    REDIS_INFER_MINILM_DIR=$(minilm_dir)
    export REDIS_INFER_REDIS_SERVER REDIS_INFER_MODULE REDIS_INFER_CHAT_MODEL REDIS_INFER_EMBED_MODEL REDIS_INFER_MINILM_DIR
    server=$(vendor_path redis-7.4)
    if [ -x "$server" ]; then export REDIS_INFER_REDIS74_SERVER="$server"; fi
    server=$(vendor_path valkey-9)
    if [ -x "$server" ]; then export REDIS_INFER_VALKEY_SERVER="$server"; fi
}
