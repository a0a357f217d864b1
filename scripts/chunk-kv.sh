#!/usr/bin/env bash
# make chunk-kv: questions of make quality in an index with KV CHUNK, in a server on a free port: time to the first token and
# answers, against the same prompts read as a whole. EVERY=1 asks all questions, REREAD=0,64 tries other numbers of tokens that
# are read again, LOAD="WORKERS 1" other options for the answering model.
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"
# shellcheck source=server.sh
. "$REDIS_INFER_ROOT/scripts/server.sh"

require_build "make chunk-kv"
start_temporary_server chunk-kv
# shellcheck disable=SC2086 # words
infer INFER.LOAD chat "$(chat_model_path)" ${LOAD:-}
infer INFER.LOAD embed "$(embed_model_path)"
say "ingesting and asking; this takes some minutes"
"$(target_dir)/release/redis-infer-bench" chunk-kv --url "redis://$host:$port" --root "$REDIS_INFER_ROOT" \
    ${EVERY:+--every "$EVERY"} ${REREAD:+--reread "$REREAD"} || die_with_log "the measurement failed: its message is above the log"
