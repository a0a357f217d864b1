#!/usr/bin/env bash
# Brings a machine to the point where redis-infer builds, runs and is tested. Does nothing when all is there.
#   scripts/setup.sh build    what compiling needs
#   scripts/setup.sh run      that, a redis-server >= 8 and the two models (demo, serve, bench)
#   scripts/setup.sh [test]   that, and the servers without Vector Sets that the tests run against
# As root on a system with apt it installs system packages; otherwise it names them and stops.
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"

purpose=${1:-test}
case $purpose in
    build | run | test) ;;
    *) die "scripts/setup.sh knows build, run and test, not \"$purpose\"" ;;
esac

# The files to fetch for this purpose.
files=()
if [ "$purpose" != build ]; then
    if [ -z "${REDIS_INFER_REDIS_SERVER:-}" ] && [ -z "$(path_redis8)" ]; then files+=(redis-8); fi
    files+=(smollm2 minilm)
fi
if [ "$purpose" = test ] && [ "$(uname -sm)" = "Linux x86_64" ]; then
    files+=(redis-7.4 valkey-9)
fi

have_libclang() {
    local library
    if [ -n "${LIBCLANG_PATH:-}" ]; then return 0; fi
    # The bare .so comes with the development package, which also has the headers that bindgen needs.
    for library in /usr/lib/llvm-*/lib/libclang.so /usr/lib/libclang.so /usr/lib64/libclang.so /usr/lib64/llvm*/lib64/libclang.so \
        /Library/Developer/CommandLineTools/usr/lib/libclang.dylib /opt/homebrew/opt/llvm/lib/libclang.dylib \
        /usr/local/opt/llvm/lib/libclang.dylib; do
        if [ -e "$library" ]; then return 0; fi
    done
    return 1
}

# redis-cli prints JSON, which the scripts read, since version 7.
have_redis_cli() {
    local major
    major=$(major_version redis-cli)
    [ "${major:-0}" -ge 7 ] && command -v redis-benchmark >/dev/null
}

have_pip() { python3 -m pip --version >/dev/null 2>&1; }

apt=()
brew=()
missing() { # apt-name brew-name; "-" where the system has it already
    if [ "$1" != - ]; then apt+=("$1"); fi
    if [ "$2" != - ]; then brew+=("$2"); fi
}

find_missing() {
    apt=()
    brew=()
    command -v c++ >/dev/null || missing g++ -
    command -v make >/dev/null || missing make -
    command -v git >/dev/null || missing git git
    command -v pkg-config >/dev/null || missing pkg-config pkg-config
    command -v cmake >/dev/null || missing cmake cmake
    command -v ninja >/dev/null || missing ninja-build ninja
    command -v ccache >/dev/null || missing ccache ccache
    have_libclang || missing libclang-dev llvm
    if [ "$purpose" != build ]; then
        have_redis_cli || missing redis-tools redis
    fi
    # Python only downloads; when nothing has to be fetched, nobody needs it.
    if [ ${#files[@]} -gt 0 ] && ! "$REDIS_INFER_ROOT/scripts/fetch.sh" --check "${files[@]}"; then
        have_pip || missing python3-pip python
    fi
    # Continuous integration checks the shell scripts too; for others `make lint` does so when it finds shellcheck.
    if [ "${CI:-}" = true ]; then
        command -v shellcheck >/dev/null || missing shellcheck shellcheck
    fi
}

name_packages() {
    say "these are missing and have to be installed first:"
    if [ "$(uname -s)" = Darwin ]; then
        if ! command -v c++ >/dev/null; then say "  xcode-select --install"; fi
        if [ ${#brew[@]} -gt 0 ]; then say "  brew install ${brew[*]}"; fi
    else
        say "  sudo apt-get install -y ${apt[*]}"
        command -v apt-get >/dev/null || say "  (names of Debian 12; your system has packages for the same)"
    fi
    die "then run the same command again"
}

install_missing() {
    find_missing
    if [ ${#apt[@]} -eq 0 ] && [ ${#brew[@]} -eq 0 ]; then return 0; fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then name_packages; fi
    say "installing with apt: ${apt[*]}"
    apt-get update -q >&2 || die "apt-get update failed: see its message above"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${apt[@]}" >&2 ||
        die "apt-get install failed: see its message above"
    find_missing
    # An old distribution can have a package of that name that is too old.
    if [ ${#apt[@]} -gt 0 ]; then die "still missing or too old after apt-get install: ${apt[*]}"; fi
}

install_missing

command -v cargo >/dev/null ||
    die "Rust is missing: install it with rustup (stable toolchain), open a new shell and run the same command again"

if [ "$purpose" != build ] && [ "$(uname -sm)" != "Linux x86_64" ] && [ ! -x "$(redis8_path)" ]; then
    die "no redis-server >= 8 on PATH, and none is packaged for $(uname -sm): install Redis 8 (macOS: brew install redis) and run again"
fi

if [ ${#files[@]} -gt 0 ]; then
    "$REDIS_INFER_ROOT/scripts/fetch.sh" "${files[@]}"
fi

# Cargo notices a change of the variables in cpu.sh, but not of those that were not set when it compiled llama.cpp, as in a
# build by hand without env.sh.
for output in "$(target_dir)"/release/build/llama-cpp-sys-2-*/output; do
    if [ -e "$output" ] && [ -n "${!GGML_*}" ] && ! grep -q '=GGML_' "$output"; then
        say "llama.cpp was compiled for another CPU: compiling it again"
        cargo clean --quiet --release -p llama-cpp-sys-2
        break
    fi
done
