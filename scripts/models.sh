#!/usr/bin/env bash
# Makes the models that demo, tests, serve and bench use: fetches both and converts MiniLM to GGUF with our own
# converter. Needs the built redis-infer program. Converts again only when the source files or the converter changed.
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"

"$REDIS_INFER_ROOT/scripts/fetch.sh" smollm2 minilm

cli=$(cli_path)
[ -x "$cli" ] || die "$cli is missing: run make build"

# Contents, not times: a fresh clone has new times on old sources.
recipe() {
    cd "$REDIS_INFER_ROOT"
    {
        awk '$1 == "minilm"' vendor/manifest
        find src/gguf src/bin/redis-infer -type f -name '*.rs' -not -path '*/tests/*' | LC_ALL=C sort | while read -r file; do cat "$file"; done
    } | cksum
}

source_dir=$(minilm_dir)
gguf=$(embed_model_path)
stamp=$gguf.recipe
now=$(recipe)

if [ -f "$gguf" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$now" ]; then exit 0; fi

work=$(mktemp -d "$REDIS_INFER_CACHE/convert.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "converting all-MiniLM-L6-v2 to GGUF"
"$cli" convert "$source_dir" "$work/${gguf##*/}" >&2 || die "the conversion failed: see the message above"
rm -f "$stamp"
mv -f "$work/${gguf##*/}" "$gguf"
printf '%s\n' "$now" >"$stamp"
