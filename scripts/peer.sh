#!/usr/bin/env bash
# Prints the path of llama-server, which make bench compares with: $LLAMA_SERVER, or one that is built here from the pinned
# source in vendor/manifest, with llama.cpp's own defaults for this CPU. That takes some minutes, once.
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"

if [ -n "${LLAMA_SERVER:-}" ]; then
    [ -x "$LLAMA_SERVER" ] || die "LLAMA_SERVER=$LLAMA_SERVER is no program"
    printf '%s\n' "$LLAMA_SERVER"
    exit 0
fi

archive=$(vendor_path peer)
source=${archive%.tar.gz}
bin=$source/build/bin
if [ ! -x "$bin/llama-server" ] || [ ! -x "$bin/llama-batched-bench" ]; then
    "$REDIS_INFER_ROOT/scripts/fetch.sh" peer
    say "building llama-server to compare with, once"
    rm -rf "$source"
    tar -xzf "$archive" -C "$(dirname "$archive")"
    log=$source/build.log
    {
        cmake -S "$source/vendor/llama.cpp" -B "$source/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
            -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF \
            -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF &&
            cmake --build "$source/build" --parallel --target llama-server llama-batched-bench
    } >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        die "llama-server could not be built: the end of $log is above"
    }
fi
printf '%s\n' "$bin/llama-server"
