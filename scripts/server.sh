# shellcheck shell=bash
# Sourced after env.sh by every script that needs one redis-server with the module: started, waited for and stopped.
# Uses and sets: host, port, server_pid, server_log, temporary_dir.

host=127.0.0.1
port=
server_pid=
server_log=
temporary_dir=

cli() { redis-cli -h "$host" -p "$port" "$@"; }

# die_with_log MESSAGE: the log may be gone a moment later, so its end is shown.
die_with_log() {
    say "the end of $server_log:"
    tail -n 15 "$server_log" >&2 || true
    die "$@"
}

# infer COMMAND…: one command; an error reply stops the script with its text.
infer() { cli -e "$@" >/dev/null || die_with_log "$1 ${2:-} failed: its reply is above the log"; }

# infer_json COMMAND…: the reply as lines "path<TAB>value", values still escaped as in JSON. See scripts/json.awk.
infer_json() {
    local reply
    # redis-cli prints an error reply to standard error with -e, and leaves with 1.
    reply=$(cli -e --json "$@") || return 1
    printf '%s\n' "$reply" | LC_ALL=C awk -f "$REDIS_INFER_ROOT/scripts/json.awk"
}

# field NAME: the value at path NAME from infer_json's lines on standard input, unescaped.
field() {
    # printf undoes every escape of JSON except \".
    printf '%b' "$(LC_ALL=C awk -F '\t' -v name="$1" '$1 == name { gsub(/\\"/, "\\\\x22", $2); print $2; exit }')"
}

require_build() {
    local file
    for file in "$(module_path)" "$(cli_path)" "$(chat_model_path)" "$(embed_model_path)" "$(redis8_path)"; do
        [ -f "$file" ] || die "$file is missing: run this through make ($1), which makes it"
    done
}

in_use() { (exec 3<>"/dev/tcp/$host/$1") 2>/dev/null; }

# A port that nobody listens on, below the range from which the kernel takes ports of outgoing connections.
free_port() {
    local candidate try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        candidate=$((20000 + (RANDOM + try) % 12000))
        if ! in_use "$candidate"; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    die "found no free port on $host"
}

# start_server DIR [redis-server options…]: on $port; returns when it answers PING.
start_server() {
    local dir=$1 waited=0
    shift
    server_log=$dir/redis.log
    # GGML_NO_BACKTRACE has to be set before the module is mapped: without it an abort in ggml starts a debugger.
    # It stays out of our own environment, where cargo would take it for a build option of llama.cpp.
    GGML_NO_BACKTRACE=1 "$(redis8_path)" --bind "$host" --port "$port" --dir "$dir" --logfile "$server_log" --daemonize no \
        --loadmodule "$(module_path)" "$@" </dev/null &
    server_pid=$!
    # Tenths of a second; a large data set needs time to load.
    until [ "$(cli PING 2>/dev/null)" = PONG ]; do
        if ! kill -0 "$server_pid" 2>/dev/null; then
            server_pid=
            die_with_log "redis-server stopped while starting"
        fi
        waited=$((waited + 1))
        [ "$waited" -lt 600 ] || die_with_log "redis-server does not answer on port $port after a minute"
        sleep 0.1
    done
    cli INFO server | grep -q "^process_id:$server_pid" || die "another server answers on port $port"
}

# stop_server SIGNAL: asks, waits, and insists after ten seconds.
stop_server() {
    local waited=0
    [ -n "$server_pid" ] || return 0
    kill "-$1" "$server_pid" 2>/dev/null || true
    while kill -0 "$server_pid" 2>/dev/null; do
        waited=$((waited + 1))
        if [ "$waited" -ge 100 ]; then
            say "redis-server did not stop within ten seconds and was killed"
            kill -KILL "$server_pid" 2>/dev/null || true
            break
        fi
        sleep 0.1
    done
    wait "$server_pid" 2>/dev/null || true
    server_pid=
}

# start_temporary_server NAME [redis-server options…]: on a free port, with an empty folder. Both are gone when the script ends,
# however it ends.
start_temporary_server() {
    temporary_dir=$(mktemp -d "${TMPDIR:-/tmp}/redis-infer-$1.XXXXXX")
    shift
    trap remove_temporary_server EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    port=$(free_port)
    start_server "$temporary_dir" --save '' --appendonly no "$@"
}

remove_temporary_server() {
    stop_server TERM
    rm -rf "$temporary_dir"
}

load_models() {
    say "loading the models"
    infer INFER.LOAD chat "$(chat_model_path)"
    infer INFER.LOAD embed "$(embed_model_path)"
}

# load_models_and_index: both models, then this project's own source in the index `code`.
load_models_and_index() {
    load_models
    infer INFER.INDEX code EMBEDMODEL embed GENMODEL chat
    say "ingesting src/ into the index \"code\""
    # From the root, so that the paths in the index begin with src/.
    (cd "$REDIS_INFER_ROOT" && "$(cli_path)" ingest src --index code --url "redis://$host:$port") ||
        die_with_log "ingest failed: its message is above the log"
}
