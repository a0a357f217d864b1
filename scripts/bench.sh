#!/usr/bin/env bash
# make bench: this module beside llama-server. A full run writes docs/BENCHMARKS.md and its plots in about 25 minutes.
#   QUICK=1             fewer and shorter runs, about five minutes; the report goes to the build folder
#   ROWS=F1,F2          these rows only; the same
#   OUT=folder          puts the report there
#   LLAMA_SERVER=path   compares with this one, instead of building the pinned one (scripts/peer.sh)
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"
# shellcheck source=server.sh
. "$REDIS_INFER_ROOT/scripts/server.sh"

require_build "make bench"
llama_server=$("$REDIS_INFER_ROOT/scripts/peer.sh")
batched_bench=$(dirname "$llama_server")/llama-batched-bench
if [ -n "${OUT:-}" ]; then
    out=$OUT
elif [ -n "${QUICK:-}${ROWS:-}" ]; then
    out=$(target_dir)/bench
else
    out=$REDIS_INFER_ROOT/docs
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/redis-infer-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT

# locked NAME: the version of a crate that the module was built with
locked() { awk -v name="\"$1\"" '$1 == "name" && $3 == name { getline; gsub(/"/, "", $3); print $3 }' "$REDIS_INFER_ROOT/Cargo.lock"; }

commit=$(git -C "$REDIS_INFER_ROOT" rev-parse --short HEAD 2>/dev/null || echo unknown)
# In the background, so that a signal reaches it, which ends every server it has started.
"$(target_dir)/release/redis-infer-bench" compare --redis-server "$(redis8_path)" --module "$(module_path)" \
    --llama-server "$llama_server" ${batched_bench:+--batched-bench "$batched_bench"} \
    --chat-model "$(chat_model_path)" --embed-model "$(embed_model_path)" \
    --shape-model "$REDIS_INFER_CACHE/models/random-0.6b.gguf" --work "$work" --out "$out" \
    ${QUICK:+--quick} ${ROWS:+--rows "$ROWS"} \
    --about "redis-infer: commit $commit, llama.cpp of llama-cpp-sys-2 $(locked llama-cpp-sys-2), compiled $(if [ "$REDIS_INFER_CPU" = native ]; then echo "for this CPU"; else echo portably; fi)" \
    --about "Redis: $("$(redis8_path)" --version | awk '{ print $3 }')" \
    --about "llama-server: $("$llama_server" --version 2>&1 | awk '/version/ { sub(/^version: */, ""); print }'), compiled for this CPU" &
bench=$!
trap 'kill "$bench" 2>/dev/null || true' INT TERM
status=0
wait "$bench" || status=$?
# A wait that a signal ended has not waited.
if kill -0 "$bench" 2>/dev/null; then wait "$bench" || status=$?; fi
exit "$status"
