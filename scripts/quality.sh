#!/usr/bin/env bash
# make quality: labelled questions (tests/data/retrieval.json) about some hundred source files of crates that this project
# is built with, asked through INFER.SEARCH in a server on a free port; prints recall and mean reciprocal rank.
# INDEX_OPTIONS="MAXTOKENS 128 OVERLAP 0" tries other settings of the index, EACH=1 prints every question.
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"
# shellcheck source=server.sh
. "$REDIS_INFER_ROOT/scripts/server.sh"

require_build "make quality"
start_temporary_server quality
load_models
say "ingesting and asking; this takes some minutes"
"$(target_dir)/release/redis-infer-bench" quality --url "redis://$host:$port" --root "$REDIS_INFER_ROOT" \
    --index-options "${INDEX_OPTIONS:-}" ${EACH:+--each} || die_with_log "the measurement failed: its message is above the log"
