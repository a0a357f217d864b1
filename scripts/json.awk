# Flattens one JSON value into lines "path<TAB>value": {"a":[{"b":1}]} gives "a.0.b<TAB>1".
# Strings keep their escapes (so one value is one line). Run it with LC_ALL=C: it reads bytes.
# An array or object also gives "path.length<TAB>n".

{ text = text $0 "\n" }

END {
    rest = text
    value("")
}

function skip() { sub(/^[ \t\r\n]+/, "", rest) }

function string(    found) {
    match(rest, /^"([^"\\]|\\.)*"/)
    found = substr(rest, 2, RLENGTH - 2)
    rest = substr(rest, RLENGTH + 1)
    return found
}

function join(path, name) { return path == "" ? name : path "." name }

function value(path,    kind, name, count) {
    skip()
    kind = substr(rest, 1, 1)
    if (kind == "\"") {
        print path "\t" string()
    } else if (kind == "{" || kind == "[") {
        rest = substr(rest, 2)
        count = 0
        for (skip(); rest !~ /^[]}]/ && rest != ""; skip()) {
            name = count
            if (kind == "{") {
                name = string()
                skip()
                rest = substr(rest, 2)
            }
            value(join(path, name))
            count++
            skip()
            sub(/^,/, "", rest)
        }
        rest = substr(rest, 2)
        print join(path, "length") "\t" count
    } else {
        match(rest, /^[^],} \t\r\n]+/)
        # Nothing to read is the end of a broken text: stop instead of turning in circles.
        if (RLENGTH < 1) { rest = ""; return }
        print path "\t" substr(rest, 1, RLENGTH)
        rest = substr(rest, RLENGTH + 1)
    }
}
