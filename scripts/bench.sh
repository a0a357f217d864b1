#!/usr/bin/env bash
# make bench: tokens per second of SmolLM2-135M with 1, 2, 4 and 8 clients that generate at once, how long another client
# waits for PING meanwhile, and what plain commands lose. One server, one run each, after a warm-up; numbers of this
# machine, with whatever else it does. NICE sets infer.nice, MAXTOKENS the length of the answers.
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"
# shellcheck source=server.sh
. "$REDIS_INFER_ROOT/scripts/server.sh"

max_tokens=${MAXTOKENS:-256}
prompt="Write a long story about a lighthouse keeper, with many details."

require_build "make bench"
dir=$(mktemp -d "${TMPDIR:-/tmp}/redis-infer-bench.XXXXXX")
clients=()

finish() {
    local client
    for client in ${clients[@]+"${clients[@]}"}; do kill "$client" 2>/dev/null || true; done
    stop_server TERM
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The clock of the server: the one of `date` has no fractions everywhere.
now_us() { cli TIME | paste -s -d ' ' - | awk '{ printf "%.0f\n", $1 * 1e6 + $2 }'; }

# generate FILE SEED: one client; its statistics go to FILE
generate() {
    infer_json INFER.GENERATE chat 0 TEXT "$prompt" MAXTOKENS "$max_tokens" TEMP 0.8 SEED "$2" WITHSTATS >"$1"
}

# One window of a second: redis-cli sends PING every 10 ms and prints "min max avg samples", in milliseconds.
ping_window() { redis-cli -h "$host" -p "$port" --raw --latency -i 1 </dev/null >>"$1"; }

# ping_summary FILE: "average max samples"
ping_summary() {
    awk '{ sum += $3 * $4; n += $4; if ($2 > max) max = $2 } END { if (n) printf "%.2f %d %d", sum / n, max, n; else printf "- - 0" }' "$1"
}

# measure CLIENTS: one line of the table
measure() {
    local n=$1 i start end pings client
    clients=()
    pings=$dir/pings.$n
    : >"$pings"
    start=$(now_us)
    for ((i = 1; i <= n; i++)); do
        generate "$dir/client.$n.$i" "$i" &
        clients+=($!)
    done
    # Windows follow each other while generation runs; the last one may end after it.
    (while [ ! -e "$dir/done.$n" ]; do ping_window "$pings"; done) &
    local watcher=$!
    for client in "${clients[@]}"; do
        wait "$client" || die_with_log "a client failed: its reply is above the log"
    done
    clients=()
    end=$(now_us)
    : >"$dir/done.$n"
    wait "$watcher"
    read -r average max samples <<<"$(ping_summary "$pings")"
    awk -F '\t' -v n="$n" -v wall="$((end - start))" -v average="$average" -v max="$max" -v samples="$samples" '
        $1 == "completion_tokens" { tokens += $2; mine = $2 }
        $1 == "decode_us" { decode = $2; rate += (decode > 0 ? mine * 1e6 / decode : 0) }
        $1 == "ttft_us" { if ($2 > ttft) ttft = $2 }
        END { printf "%7d  %6d  %7.2f  %11.1f  %14.1f  %9.2f  %7s  %7s  %7s\n",
              n, tokens, wall / 1e6, tokens * 1e6 / wall, rate / n, ttft / 1e6, average, max, samples }
    ' "$dir/client.$n."*
}

# plain FIELD redis-benchmark options…: that field of each line of its table, on one line
plain() {
    local field=$1
    shift
    redis-benchmark -h "$host" -p "$port" --csv "$@" |
        awk -F , -v field="$field" 'NR > 1 { gsub(/"/, ""); printf "%s ", $field }'
}

# plain_line LABEL: requests per second of SET and GET, and the 99th percentile of PING in ms
plain_line() {
    local rates
    read -r -a rates <<<"$(plain 2 -t set,get -P 16 -c 50 -n 500000) $(plain 7 -t ping_mbulk -c 1 -n 5000)"
    printf '%-24s %10.0f %10.0f %12.2f\n' "$1" "${rates[@]}"
}

# plain_commands: plain commands on an idle server, then beside four clients that keep all workers busy
plain_commands() {
    local i
    printf '\nplain commands by redis-benchmark: -t set,get -P 16 -c 50, and PING by one client\n\n'
    printf '%-24s %10s %10s %12s\n' '' SET/s GET/s PING_p99_ms
    plain_line 'nobody generating' | tee "$dir/plain"
    clients=()
    for ((i = 1; i <= 4; i++)); do
        infer_json INFER.GENERATE chat 0 TEXT "$prompt" MAXTOKENS 3500 SEED "$i" >/dev/null 2>&1 &
        clients+=($!)
    done
    sleep 1
    plain_line '4 clients generating' | tee -a "$dir/plain"
    awk '{ set[NR] = $(NF - 2); get[NR] = $(NF - 1); ping[NR] = $NF } END {
        printf "%-24s %10.2f %10.2f %+12.2f\n", "ratio, difference", set[2] / set[1], get[2] / get[1], ping[2] - ping[1] }' "$dir/plain"
}

port=$(free_port)
start_server "$dir" ${NICE:+--infer.nice "$NICE"} --save '' --appendonly no
infer INFER.LOAD chat "$(chat_model_path)"
generate "$dir/warm-up" 0 || die_with_log "generating failed: its reply is above the log"
ping_window "$dir/pings.0"
read -r average max samples <<<"$(ping_summary "$dir/pings.0")"

printf '%s, %s CPUs, SmolLM2-135M-Instruct Q4_1, at most %s tokens a client, same prompt, different seeds\n' \
    "$("$(redis8_path)" --version | awk '{ print $1, $2, $3 }')" "$(getconf _NPROCESSORS_ONLN)" "$max_tokens"
printf 'PING from one more client, nobody generating: average %s ms, longest %s ms, %s samples\n\n' "$average" "$max" "$samples"
printf 'total tok/s = all tokens / wall time, prompt included; decode tok/s = mean per client, after its first token\n'
printf 'PING in ms while they generate; redis-cli measures whole milliseconds, so 0 means less than 1\n\n'
printf '%7s  %6s  %7s  %11s  %14s  %9s  %7s  %7s  %7s\n' clients tokens wall_s total_tok/s decode_tok/s max_ttft_s ping_avg ping_max samples
for n in 1 2 4 8; do measure "$n"; done
plain_commands
