#!/usr/bin/env bash
# make soak: random commands, right and wrong, from several clients against one server with both models; clients that
# leave and are killed, models that come and go, BGSAVE and CONFIG SET among them, and inputs that once did harm. Prints
# what came of it, and fails when memory grows, a client hangs or the server dies. MINUTES says how long (10).
# NICE=20 runs the engine with that infer.nice, BUSY=1 beside a busy loop on each CPU; HUNG=600 gives it that many seconds.
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"
# shellcheck source=server.sh
. "$REDIS_INFER_ROOT/scripts/server.sh"

minutes=${1:-${MINUTES:-10}}
seconds=$(awk -v minutes="$minutes" 'BEGIN { printf "%d", minutes * 60 }')
[ "$seconds" -ge 10 ] || die "give the minutes as a number of at least 0.2, not \"$minutes\""

busy=()
end() {
    if [ ${#busy[@]} -gt 0 ]; then kill "${busy[@]}" 2>/dev/null || true; fi
    remove_temporary_server
}

require_build "make soak"
start_temporary_server soak --infer.nice "${NICE:-10}"
trap end EXIT
# A small context, so that prompts and answers fill it.
infer INFER.LOAD chat "$(chat_model_path)" CTX 1024
infer INFER.LOAD embed "$(embed_model_path)"
if [ -n "${BUSY:-}" ]; then
    for _ in $(seq "$(nproc)"); do
        (while :; do :; done) &
        busy+=($!)
    done
fi
"$(target_dir)/release/redis-infer-soak" "$port" "$server_pid" "$seconds" "$(chat_model_path)" "$(embed_model_path)" ||
    die_with_log "the soak failed: its report is above the log"
