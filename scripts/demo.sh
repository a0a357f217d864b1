#!/usr/bin/env bash
# make demo: a redis-server with the module on a free port, this project's own src/ as an index, three questions about it
# through redis-cli. Leaves nothing behind. Exit status 1 when the right file is not among the sources of an answer.
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"
# shellcheck source=server.sh
. "$REDIS_INFER_ROOT/scripts/server.sh"

# Each question and the file that answers it.
questions=(
    "What is the default of MAXTOKENS for a chunk, in tokens of the embedding model?"
    "Which temperature is greedy?"
    "What is the longest TIMEOUT?"
)
expected=(
    "src/logic/limits.rs"
    "src/logic/options/generate.rs"
    "src/logic/limits.rs"
)

require_build "make demo"
# per_second COUNT MICROSECONDS
per_second() { awk -v n="$1" -v us="$2" 'BEGIN { if (us > 0) printf "%.1f", n * 1e6 / us; else printf "-" }'; }

seconds() { awk -v us="$1" 'BEGIN { printf "%.2f s", us / 1e6 }'; }

indent() { sed 's/^/    /'; }

# ask NUMBER QUESTION FILE: prints everything about one answer; false when FILE is not among its sources
ask() {
    local reply count i path first last found=no
    reply=$(infer_json INFER.RAG code "$2" K 3 TEMP 0 MAXTOKENS 64 STOP 1 $'\n\n' WITHSOURCES WITHSTATS) ||
        die_with_log "INFER.RAG failed: its reply is above the log"
    of() { printf '%s\n' "$reply" | field "$1"; }

    printf '\nQuestion %s: %s\n\n' "$1" "$2"
    of text | fold -s -w 100 | indent
    printf '\n\n  sources:\n'
    count=$(of sources.length)
    for ((i = 0; i < ${count:-0}; i++)); do
        path=$(of "sources.$i.path")
        first=$(of "sources.$i.lines.0")
        last=$(of "sources.$i.lines.1")
        printf '    %s  lines %s-%s  score %.3f\n' "$path" "$first" "$last" "$(of "sources.$i.score")"
        if [ "$path" = "$3" ]; then found=yes; fi
    done
    if [ "$found" = yes ]; then
        printf '  source: right (%s)\n' "$3"
    else
        printf '  source: wrong (%s is not among them)\n' "$3"
    fi
    printf '  time to first token: %s   tokens per second: %s   (%s prompt tokens, %s generated)\n' \
        "$(seconds "$(of ttft_us)")" "$(per_second "$(of completion_tokens)" "$(of decode_us)")" \
        "$(of prompt_tokens)" "$(of completion_tokens)"
    [ "$found" = yes ]
}

start_temporary_server demo
say "$("$(redis8_path)" --version | awk '{ print $1, $2, $3 }') with the module on port $port"
load_models_and_index

wrong=0
for i in 0 1 2; do
    ask "$((i + 1))" "${questions[$i]}" "${expected[$i]}" || wrong=$((wrong + 1))
done

stop_server TERM
cat <<'END'

That was one command per answer, run by SmolLM2-135M inside redis-server: retrieval, prompt and generation.
To keep a server like this running and ask your own questions: make serve
END
if [ "$wrong" -gt 0 ]; then die "the right source is missing for $wrong of 3 questions"; fi
