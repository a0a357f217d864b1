//! Keys of another kind than a command expects, as large as anybody can make them.

use redis::Cmd;

use super::Watched;
use crate::harness::{Client, cmd, int};

/// Elements of the large values: reading one of them whole takes far longer than the budget.
const ELEMENTS: usize = 300_000;

const VALUES: [&str; 6] = ["large-hash", "large-set", "large-zset", "large-list", "large-string", "large-vectors"];

/// Makes the large value of this name, if it is not there.
fn provide(client: &mut Client, value: &str) {
    if int(&client.ok(&cmd!["EXISTS", value])) == 1 {
        return;
    }
    let per_batch = 1000;
    for batch in 0..ELEMENTS / per_batch {
        let numbers: Vec<String> = (0..per_batch).map(|number| (batch * per_batch + number).to_string()).collect();
        let pairs: Vec<&String> = numbers.iter().flat_map(|number| [number, number]).collect();
        match value {
            "large-hash" => client.ok(&cmd!["HSET", value, &pairs]),
            "large-set" => client.ok(&cmd!["SADD", value, &numbers]),
            "large-zset" => client.ok(&cmd!["ZADD", value, &pairs]),
            "large-list" => client.ok(&cmd!["RPUSH", value, &numbers]),
            "large-string" => client.ok(&cmd!["SETRANGE", value, 64 << 20, "x"]),
            _ => client.ok(&cmd!["VADD", value, "VALUES", 3, batch, 1, 2, format!("element {batch}")]),
        };
    }
}

/// What touches the keys of an index, of a cache, and keys with tokens.
fn lines() -> Vec<Cmd> {
    vec![
        cmd!["INFER.INDEXINFO", "docs"],
        cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat", "MAXTOKENS", 16, "OVERLAP", 0],
        cmd!["INFER.SEARCH", "docs", "cat", "WITHTEXT"],
        cmd!["INFER.RAG", "docs", "cat", "MAXTOKENS", 2],
        cmd!["INFER.RAG", "docs", "cat", "MAXTOKENS", 2, "CACHE", 1],
        cmd!["INFER.INGEST", "docs", "a.md", "the dog"],
        cmd!["INFER.FORGET", "docs", "a.md"],
        cmd!["INFER.CACHEINFO", "faq"],
        cmd!["INFER.CACHEGET", "faq", "the dog"],
        cmd!["INFER.CACHESET", "faq", "the dog", "bone", "EMBEDMODEL", "embed"],
        cmd!["INFER.CACHEDEL", "faq", "SCOPE", "x"],
        cmd!["INFER.GENERATE", "chat", 1, "k0", "MAXTOKENS", 1],
        cmd!["INFER.DETOKENIZE", "chat", 1, "k0"],
        cmd!["INFER.REINDEX", "docs"],
    ]
}

const KEYS: [&str; 16] = [
    "docs",
    "vec:{docs}",
    "stats:{docs}",
    "paths:{docs}",
    "doc:{docs}:a.md",
    "tokens:{docs}:a.md:chunk_0",
    "drop:{docs}",
    "cache-settings:{docs}",
    "cache:{docs}",
    "answers:{docs}",
    "vec:{docs}@2",
    "faq",
    "cache:{faq}",
    "answers:{faq}",
    "drop-answers:{faq}",
    "k0",
];

#[test]
fn a_large_value_of_a_wrong_kind_at_any_key_keeps_nobody_waiting() {
    let mut watched = Watched::start();
    for key in KEYS {
        for value in VALUES {
            provide(&mut watched.client, value);
            watched.prepare();
            watched.client.ok(&cmd!["INFER.INGEST", "docs", "a.md", "the cat"]);
            // RENAME costs nothing; COPY would be as slow as what is looked for.
            let _ = watched.client.call(&cmd!["RENAME", key, "aside"]);
            watched.client.ok(&cmd!["RENAME", value, key]);
            for line in lines() {
                watched.check(&format!("{value} at {key}"), &line);
            }
            // Some commands remove what stands at a key of theirs; then there is nothing to put back.
            let _ = watched.client.call(&cmd!["RENAME", key, value]);
            let _ = watched.client.call(&cmd!["RENAME", "aside", key]);
        }
    }
    assert!(watched.too_long.is_empty(), "{}", watched.too_long.join("\n"));
}
