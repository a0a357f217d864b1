#!/usr/bin/env bash
# make hostile: each of the inputs with which one client once ended, stalled or bloated a server, sent to a server of its
# own; prints a table. ROWS=1,4 for some of them. MODULE=path for another build of the module, to compare with.
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"
# shellcheck source=server.sh
. "$REDIS_INFER_ROOT/scripts/server.sh"

require_build "make hostile"
if [ -n "${MODULE:-}" ]; then
    module_path() { printf '%s\n' "$MODULE"; }
fi
rows=${ROWS:-1,2,3,4,5,6,7,8,9,10}

printf 'CPU: %s\n' "$(awk -F ': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)"
printf '| | input | reply after, s | longest PING, ms | memory at its highest, +MiB | after, +MiB | reply |\n'
printf '|---|---|---|---|---|---|---|\n'
for row in ${rows//,/ }; do
    start_temporary_server hostile
    infer INFER.LOAD chat "$(chat_model_path)"
    infer INFER.LOAD embed "$(embed_model_path)"
    "$(target_dir)/release/redis-infer-hostile" "$row" "$port" "$server_pid" "$server_log" || say "row $row could not be tried"
    # A server that died has done what the table shows.
    stop_server TERM 2>/dev/null || true
    rm -rf "$temporary_dir"
done
