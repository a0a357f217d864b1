#!/usr/bin/env bash
# make scale: what INFER.SEARCH costs in an index of 1,000, 10,000 and 100,000 chunks, how long it holds Redis' lock, and how
# fast src/logic is ingested, then again unchanged, in a server on a free port. Draws docs/scale.svg.
# SIZES=1000,10000 tries other sizes, SVG=path draws elsewhere.
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"
# shellcheck source=server.sh
. "$REDIS_INFER_ROOT/scripts/server.sh"

require_build "make scale"
start_temporary_server scale
load_models
"$(target_dir)/release/redis-infer-bench" scale --url "redis://$host:$port" ${SIZES:+--sizes "$SIZES"} \
    --tree "$REDIS_INFER_ROOT/src/logic" --svg "${SVG:-$REDIS_INFER_ROOT/docs/scale.svg}" ||
    die_with_log "the measurement failed: its message is above the log"
