#!/usr/bin/env bash
# make serve: a redis-server with the module, both models and an index of this project's src/, in the foreground until
# Ctrl-C. Its data stay in data/. PORT sets the port (6379).
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"
# shellcheck source=server.sh
. "$REDIS_INFER_ROOT/scripts/server.sh"

require_build "make serve"
port=${PORT:-6379}
if in_use "$port"; then die "port $port is taken: stop what listens there, or choose another: make serve PORT=6380"; fi

dir=$REDIS_INFER_ROOT/data
mkdir -p "$dir"
# TERM makes redis-server save the data before it stops.
trap 'stop_server TERM' EXIT
trap 'say "stopping"; exit 0' INT TERM

start_server "$dir"
# Chunks that are in the index already are kept, so only changed files cost time.
load_models_and_index

cat <<END

redis-server with redis-infer runs on $host, port $port. Data: data/   Log: data/redis.log
Ask in another terminal, for example:

  redis-cli -p $port INFER.RAG code "What is the default of MAXTOKENS for a chunk, in tokens of the embedding model?" K 3 TEMP 0 MAXTOKENS 64
  redis-cli -p $port INFER.GENERATE chat 0 TEXT "Name the capital of France." MAXTOKENS 16 TEMP 0

Ctrl-C stops it.
END
wait "$server_pid" || die_with_log "redis-server stopped by itself"
