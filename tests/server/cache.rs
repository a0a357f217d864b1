//! The semantic cache: what is found, for whom and for how long, and what is stored of it.

use std::collections::BTreeSet;

use redis::Value;

use crate::harness::{
    CHAT, Client, EMBED, Server, array, bytes, cmd, contents, eventually, field, float, int, pairs, text,
};

/// Prompts in words that the model of the tests knows. The first two are like each other, the third is not like them.
const CAT: &str = "the cat and the dog in the city of the cat";
const DOG: &str = "the dog and the cat in the city of the dog";
const PARIS: &str = "paris is the capital of france";

fn server() -> (Server, Client) {
    let server = Server::with(&[EMBED]);
    let client = server.client();
    (server, client)
}

fn get(client: &mut Client, prompt: &str) -> Value {
    client.ok(&cmd!["INFER.CACHEGET", "faq", prompt])
}

fn answer(text: &str) -> Value {
    Value::BulkString(text.into())
}

/// The key of the only entry, or of the last one.
fn answer_key(client: &mut Client) -> String {
    let keys = client.ok(&cmd!["KEYS", "answer:{faq}:*"]);
    text(array(&keys).last().expect("an entry")).to_owned()
}

/// The number behind `infer_name:` in INFO.
fn counted(client: &mut Client, name: &str) -> i64 {
    let info = client.text(&cmd!["INFO", "infer_throughput"]);
    let line = info.lines().find_map(|line| line.strip_prefix("infer_")?.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("INFO has no {name}")).trim().parse().unwrap()
}

#[test]
fn a_prompt_that_was_asked_before_is_answered_without_a_model() {
    let (server, mut client) = server();
    assert_eq!(get(&mut client, CAT), Value::Nil);
    assert_eq!(text(&client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"])), "OK");
    let embedded = counted(&mut client, "embedded_texts");
    for client in [&mut client, &mut server.resp3()] {
        assert_eq!(get(client, CAT), answer("meow"));
        let found = client.ok(&cmd!["INFER.CACHEGET", "faq", CAT, "WITHSTATS"]);
        assert_eq!((text(field(&found, "answer")), text(field(&found, "hit"))), ("meow", "exact"));
        assert_eq!((text(field(&found, "prompt")), float(field(&found, "score"))), (CAT, 1.0));
    }
    assert_eq!(counted(&mut client, "embedded_texts"), embedded);
    client.ok(&cmd!["INFER.UNLOAD", "embed"]);
    assert_eq!(get(&mut client, CAT), answer("meow"));
    client.refused(&cmd!["INFER.CACHEGET", "faq", DOG], "NOMODEL", "'embed'");
    client.refused(&cmd!["INFER.CACHESET", "faq", DOG, "x"], "NOMODEL", "'embed'");
}

#[test]
fn a_prompt_like_one_before_is_answered_from_the_threshold_on() {
    let (server, mut client) = server();
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    client.ok(&cmd!["INFER.CACHESET", "faq", PARIS, "oui"]);
    for client in [&mut client, &mut server.resp3()] {
        let found = client.ok(&cmd!["INFER.CACHEGET", "faq", DOG, "THRESHOLD", 0, "WITHSTATS"]);
        assert_eq!((text(field(&found, "answer")), text(field(&found, "hit"))), ("meow", "similar"));
        assert_eq!(text(field(&found, "prompt")), CAT);
        assert!(int(field(&found, "embed_us")) > 0 && int(field(&found, "search_us")) > 0);
        let score = float(field(&found, "score"));
        assert!(score > 0.5 && score < 1.0, "{score}");
        let at = |threshold: f64| cmd!["INFER.CACHEGET", "faq", DOG, "THRESHOLD", threshold.to_string()];
        assert_eq!(client.ok(&at(score)), answer("meow"));
        assert_eq!(client.ok(&at(score + 1e-9)), Value::Nil);
        // How near it was, so that a threshold can be chosen.
        let near = cmd!["INFER.CACHEGET", "faq", DOG, "THRESHOLD", (score + 1e-9).to_string(), "WITHSTATS"];
        let missed = client.ok(&near);
        assert_eq!((field(&missed, "answer"), text(field(&missed, "hit"))), (&Value::Nil, "miss"));
        assert_eq!((text(field(&missed, "prompt")), float(field(&missed, "score"))), (CAT, score));
    }
}

#[test]
fn threshold_one_asks_for_the_very_prompt_and_no_model() {
    let (_server, mut client) = server();
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    client.ok(&cmd!["INFER.UNLOAD", "embed"]);
    let exact = |prompt: &str| cmd!["INFER.CACHEGET", "faq", prompt, "THRESHOLD", 1];
    assert_eq!(client.ok(&exact(CAT)), answer("meow"));
    for prompt in [DOG, "the cat", &"x".repeat(100_000)] {
        assert_eq!(client.ok(&exact(prompt)), Value::Nil);
    }
    let missed = client.ok(&cmd!["INFER.CACHEGET", "faq", DOG, "THRESHOLD", 1, "WITHSTATS"]);
    assert_eq!((field(&missed, "score"), field(&missed, "prompt")), (&Value::Nil, &Value::Nil));
}

#[test]
fn every_scope_has_its_own_answers_whatever_its_bytes() {
    let (_server, mut client) = server();
    let scopes: [&[u8]; 9] =
        [b"", b"a", b"A", b"\"", b"\\", b"\" or 1 or \"", b"' or .scope != '", b"*\0[", b"\xff\xfe{faq}\r\n"];
    for (number, scope) in scopes.iter().enumerate() {
        client.ok(&cmd!["INFER.CACHESET", "faq", CAT, format!("answer {number}"), "SCOPE", *scope]);
    }
    for (number, scope) in scopes.iter().enumerate() {
        let own = answer(&format!("answer {number}"));
        assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", CAT, "SCOPE", *scope]), own);
        let similar = cmd!["INFER.CACHEGET", "faq", DOG, "SCOPE", *scope, "THRESHOLD", 0];
        assert_eq!(client.ok(&similar), own, "{}", scope.escape_ascii());
    }
    assert_eq!(get(&mut client, CAT), answer("answer 0"));
    for scope in [&b"b"[..], b"\"\"", b"answer"] {
        for prompt in [CAT, DOG] {
            let asked = cmd!["INFER.CACHEGET", "faq", prompt, "SCOPE", scope, "THRESHOLD", 0];
            assert_eq!(client.ok(&asked), Value::Nil, "{}", scope.escape_ascii());
        }
    }
    client.assert_in_step();
}

#[test]
fn an_entry_that_holds_another_prompt_or_scope_than_its_name_says_is_nobodys_answer() {
    let (_server, mut client) = server();
    for (name, value) in [("prompt", "another"), ("scope", "another")] {
        client.ok(&cmd!["FLUSHDB"]);
        client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "secret"]);
        let key = answer_key(&mut client);
        client.ok(&cmd!["HSET", &key, name, value]);
        let found = client.ok(&cmd!["INFER.CACHEGET", "faq", CAT, "THRESHOLD", 1]);
        assert_eq!(found, Value::Nil, "{name}");
        client.refused(&cmd!["INFER.CACHESET", "faq", CAT, "x"], "ERR", "holds another prompt; delete it");
        assert_eq!(client.text(&cmd!["HGET", &key, "answer"]), "secret");
    }
    // Found by its vector, which is that of this prompt, but of another scope.
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", DOG, "THRESHOLD", 0]), Value::Nil);
}

#[test]
fn answers_and_prompts_are_stored_as_they_are() {
    let (_server, mut client) = server();
    let (binary, long) = (b"\0\xff\r\n+OK".as_slice(), vec![b'x'; 8 << 20]);
    for (prompt, answer) in [("a\0b", binary), ("a", b""), ("\u{1f980}", &long)] {
        client.ok(&cmd!["INFER.CACHESET", "faq", prompt, answer]);
        assert!(bytes(&get(&mut client, prompt)) == answer, "{prompt:?}");
        client.assert_in_step();
    }
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", "a\0", "THRESHOLD", 1]), Value::Nil);
}

#[test]
fn an_answer_that_is_set_again_takes_the_place_of_the_one_before_and_of_its_ttl() {
    let (_server, mut client) = server();
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "one", "TTL", 100]);
    let key = answer_key(&mut client);
    let left = int(&client.ok(&cmd!["PTTL", &key]));
    assert!((1..=100_000).contains(&left), "{left}");
    let score = float(&array(&client.ok(&cmd!["ZRANGE", "answers:{faq}", 0, 0, "WITHSCORES"]))[1]);
    assert_eq!(score, int(&client.ok(&cmd!["PEXPIRETIME", &key])) as f64);
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "two"]);
    assert_eq!(get(&mut client, CAT), answer("two"));
    assert_eq!(client.ok(&cmd!["PTTL", &key]), Value::Int(-1));
    assert_eq!(client.ok(&cmd!["VCARD", "cache:{faq}"]), Value::Int(1));
    assert_eq!(client.ok(&cmd!["ZCARD", "answers:{faq}"]), Value::Int(1));
}

#[test]
fn an_entry_that_has_expired_or_was_deleted_is_passed_over_for_the_next_nearest() {
    let (_server, mut client) = server();
    client.ok(&cmd!["INFER.CACHESET", "faq", PARIS, "oui"]);
    client.ok(&cmd!["INFER.CACHESET", "faq", "the dog and the cat in the city", "far"]);
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "near"]);
    let nearest = cmd!["INFER.CACHEGET", "faq", "the cat and the dog in the city of the dog", "THRESHOLD", 0];
    let before = client.ok(&nearest);
    let other = if before == answer("near") { "far" } else { "near" };
    let keys = client.ok(&cmd!["KEYS", "answer:{faq}:*"]);
    let of_answer = |client: &mut Client, wanted: &Value| {
        let key = array(&keys).iter().find(|key| client.ok(&cmd!["HGET", bytes(key), "answer"]) == *wanted);
        bytes(key.unwrap()).to_vec()
    };
    let key = of_answer(&mut client, &before);
    client.ok(&cmd!["PEXPIRE", &key, 1]);
    eventually("it has expired", || client.ok(&cmd!["EXISTS", &key]) == Value::Int(0));
    assert_eq!(client.ok(&nearest), answer(other));
    let key = of_answer(&mut client, &answer(other));
    client.ok(&cmd!["DEL", key]);
    assert_eq!(client.ok(&nearest), answer("oui"));
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", CAT, "THRESHOLD", 1]), Value::Nil);
}

#[test]
fn a_time_to_live_ends_an_answer() {
    let (_server, mut client) = server();
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow", "TTL", 100]);
    assert_eq!(get(&mut client, CAT), answer("meow"));
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow", "TTL", 1]);
    eventually("it has expired", || client.ok(&cmd!["INFER.CACHEGET", "faq", CAT, "THRESHOLD", 0]) == Value::Nil);
    let info = client.ok(&cmd!["INFER.CACHEINFO", "faq"]);
    assert_eq!(int(field(&info, "entries")), 0);
}

#[test]
fn a_cache_is_removed_with_all_its_keys_and_others_stay() {
    let (_server, mut client) = server();
    for number in 0..100 {
        client.ok(&cmd!["INFER.CACHESET", "faq", format!("the cat {number}"), number, "SCOPE", number % 3]);
    }
    client.ok(&cmd!["INFER.CACHESET", "other", CAT, "meow"]);
    let key = answer_key(&mut client);
    client.ok(&cmd!["DEL", key]);
    assert_eq!(client.ok(&cmd!["INFER.CACHEDEL", "faq"]), Value::Int(99));
    assert_eq!(client.ok(&cmd!["KEYS", "*faq*"]), Value::Array(Vec::new()));
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", "the cat 1", "SCOPE", 1]), Value::Nil);
    assert_eq!(client.ok(&cmd!["INFER.CACHEDEL", "faq"]), Value::Int(0));
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "other", CAT]), answer("meow"));
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "again"]);
    assert_eq!(get(&mut client, CAT), answer("again"));
}

#[test]
fn what_an_interrupted_removal_left_is_removed_by_the_next() {
    let (_server, mut client) = server();
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "old"]);
    // As if the server had ended after the first step.
    client.ok(&cmd!["DEL", "faq", "cache:{faq}"]);
    client.ok(&cmd!["RENAME", "answers:{faq}", "drop-answers:{faq}"]);
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", CAT, "THRESHOLD", 1]), Value::Nil);
    client.ok(&cmd!["INFER.CACHESET", "faq", PARIS, "new"]);
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", CAT, "THRESHOLD", 1]), Value::Nil);
    assert_eq!(client.ok(&cmd!["INFER.CACHEDEL", "faq"]), Value::Int(2));
    assert_eq!(client.ok(&cmd!["DBSIZE"]), Value::Int(0));
}

#[test]
fn a_scope_is_removed_and_the_others_stay() {
    let (_server, mut client) = server();
    // More than one step of the removal.
    for number in 0..300 {
        let scope = if number % 3 == 0 { "a" } else { "" };
        client.ok(&cmd!["INFER.CACHESET", "faq", format!("the cat {number}"), number, "SCOPE", scope]);
    }
    assert_eq!(client.ok(&cmd!["INFER.CACHEDEL", "faq", "SCOPE", "b"]), Value::Int(0));
    assert_eq!(client.ok(&cmd!["INFER.CACHEDEL", "faq", "SCOPE", "a"]), Value::Int(100));
    let info = client.ok(&cmd!["INFER.CACHEINFO", "faq"]);
    let number = |name| int(field(&info, name));
    assert_eq!([number("entries"), number("vectors"), number("hidden")], [200, 200, 100]);
    let asked = cmd!["INFER.CACHEGET", "faq", "the cat 3", "SCOPE", "a", "THRESHOLD", 0];
    assert_eq!(client.ok(&asked), Value::Nil);
    assert_eq!(get(&mut client, "the cat 4"), answer("4"));
    // A hidden vector serves again.
    client.ok(&cmd!["INFER.CACHESET", "faq", "the cat 3", "back", "SCOPE", "a"]);
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", "the cat", "SCOPE", "a", "THRESHOLD", 0]), answer("back"));
    assert_eq!(client.ok(&cmd!["VCARD", "cache:{faq}"]), Value::Int(300));
    assert_eq!(client.ok(&cmd!["INFER.CACHEDEL", "faq", "SCOPE", ""]), Value::Int(200));
}

#[test]
fn cacheinfo_tells_what_a_cache_holds() {
    let (server, mut client) = server();
    client.refused(&cmd!["INFER.CACHEINFO", "faq"], "NOCACHE", "no cache 'faq'; INFER.CACHESET makes one");
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "x".repeat(10_000)]);
    client.ok(&cmd!["INFER.CACHESET", "faq", PARIS, "x".repeat(10_000)]);
    for client in [&mut client, &mut server.resp3()] {
        let info = client.ok(&cmd!["INFER.CACHEINFO", "faq"]);
        let number = |name| int(field(&info, name));
        assert_eq!([number("entries"), number("vectors"), number("hidden"), number("dim")], [2, 2, 0, 64]);
        assert_eq!(text(field(&info, "embed_model")), "embed");
        assert!((20_000..40_000).contains(&number("answer_bytes")), "{info:?}");
        assert!(number("vector_bytes") > 0);
        assert_eq!(pairs(&info).len(), 7);
    }
}

#[test]
fn hits_and_misses_are_counted() {
    let (_server, mut client) = server();
    get(&mut client, CAT);
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    get(&mut client, CAT);
    get(&mut client, CAT);
    client.ok(&cmd!["INFER.CACHEGET", "faq", DOG, "THRESHOLD", 0]);
    client.ok(&cmd!["INFER.CACHEGET", "faq", DOG, "THRESHOLD", 1]);
    let counts = ["cache_hits_exact", "cache_hits_similar", "cache_misses"].map(|name| counted(&mut client, name));
    assert_eq!(counts, [2, 1, 2]);
}

#[test]
fn the_first_entry_fixes_the_model_and_another_one_is_a_mismatch() {
    let (_server, mut client) = server();
    let path = EMBED.path().to_str().unwrap();
    client.ok(&cmd!["INFER.LOAD", "cls", path, "WORKERS", 1, "THREADS", 1, "POOLING", "CLS"]);
    client.ok(&cmd!["INFER.LOAD", "same", path, "WORKERS", 1, "THREADS", 1]);
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow", "EMBEDMODEL", "cls"]);
    assert_eq!(client.text(&cmd!["HGET", "faq", "embed_model"]), "cls");
    client.ok(&cmd!["INFER.CACHESET", "faq", DOG, "woof"]);
    client.refused(&cmd!["INFER.CACHESET", "faq", PARIS, "x", "EMBEDMODEL", "embed"], "MISMATCH", "INFER.CACHEDEL");
    client.refused(&cmd!["INFER.CACHESET", "faq", PARIS, "x", "EMBEDMODEL", "nobody"], "NOMODEL", "'nobody'");
    // Another model by the name of the first.
    client.ok(&cmd!["INFER.UNLOAD", "cls"]);
    client.ok(&cmd!["INFER.LOAD", "cls", path, "WORKERS", 1, "THREADS", 1]);
    client.refused(&cmd!["INFER.CACHEGET", "faq", PARIS], "MISMATCH", "'cls'");
    assert_eq!(get(&mut client, CAT), answer("meow"));
    client.ok(&cmd!["INFER.CACHEDEL", "faq"]);
    // The default model, and the same one by another name.
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    client.ok(&cmd!["INFER.CACHESET", "faq", DOG, "woof", "EMBEDMODEL", "same"]);
    assert_eq!(client.text(&cmd!["HGET", "faq", "embed_model"]), "embed");
}

#[test]
fn everything_happens_in_the_database_of_the_client_and_in_one_transaction() {
    let server = Server::configured(&[EMBED], &["--appendonly", "yes", "--appendfsync", "always"]);
    let mut client = server.client();
    client.ok(&cmd!["SELECT", 5]);
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow", "TTL", 100]);
    assert_eq!(client.ok(&cmd!["DBSIZE"]), Value::Int(4));
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", DOG, "THRESHOLD", 0]), answer("meow"));
    assert_eq!(server.client().ok(&cmd!["DBSIZE"]), Value::Int(0));
    let folder = server.folder().join("appendonlydir");
    let logs = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let log = logs.map(|log| String::from_utf8_lossy(&log).into_owned()).collect::<String>();
    let commands: Vec<&str> = ["MULTI", "VADD", "HSET", "PEXPIREAT", "ZADD", "VSETATTR", "EXEC", "INFER."]
        .into_iter()
        .filter(|name| log.contains(name))
        .collect();
    assert_eq!(commands, ["MULTI", "VADD", "HSET", "PEXPIREAT", "ZADD", "VSETATTR", "EXEC"]);
    assert_eq!(log.matches("MULTI").count(), 1, "{log}");
}

#[test]
fn a_replica_answers_from_the_cache_and_has_the_same_keys() {
    let master = Server::with(&[EMBED]);
    let mut writer = master.client();
    let replica = Server::configured(&[EMBED], &["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let mut reader = replica.client();
    eventually("the replica is connected", || {
        reader.text(&cmd!["INFO", "replication"]).contains("master_link_status:up")
    });
    for number in 0..30 {
        let set = cmd!["INFER.CACHESET", "faq", format!("the cat {number}"), number, "SCOPE", number % 2, "TTL", 1000];
        writer.ok(&set);
    }
    writer.ok(&cmd!["INFER.CACHEDEL", "faq", "SCOPE", 1]);
    assert_eq!(writer.ok(&cmd!["WAIT", 1, 20_000]), Value::Int(1));
    assert_eq!(contents(&mut reader), contents(&mut writer));
    assert_eq!(reader.ok(&cmd!["INFER.CACHEGET", "faq", "the cat 4", "SCOPE", 0]), answer("4"));
    let similar = cmd!["INFER.CACHEGET", "faq", "the dog and the cat", "SCOPE", 0, "THRESHOLD", 0];
    assert_ne!(reader.ok(&similar), Value::Nil);
    reader.refused(&cmd!["INFER.CACHESET", "faq", CAT, "x"], "READONLY", "");
    reader.refused(&cmd!["INFER.CACHEDEL", "faq"], "READONLY", "");
}

#[test]
fn entries_that_are_gone_are_cleared_away_as_others_come() {
    let (_server, mut client) = server();
    for number in 0..40 {
        client.ok(&cmd!["INFER.CACHESET", "faq", format!("the cat {number}"), number, "TTL", 1000]);
    }
    // Some expire sooner than the cache knows, others as it does; the rest lives longer.
    let ids = client.ok(&cmd!["ZRANGE", "answers:{faq}", 0, -1]);
    let ids: Vec<&str> = array(&ids).iter().map(text).collect();
    client.ok(&cmd!["UNLINK", ids[..15].iter().map(|id| format!("answer:{{faq}}:{id}")).collect::<Vec<_>>()]);
    for id in &ids[15..30] {
        client.ok(&cmd!["ZADD", "answers:{faq}", 1000, id]);
        client.ok(&cmd!["UNLINK", format!("answer:{{faq}}:{id}")]);
    }
    // Expired by the list alone.
    for id in &ids[30..35] {
        client.ok(&cmd!["ZADD", "answers:{faq}", 1000, id]);
    }
    eventually("what is gone is hidden", || {
        client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
        client.ok(&cmd!["ZCARD", "answers:{faq}"]) == Value::Int(11)
    });
    let info = client.ok(&cmd!["INFER.CACHEINFO", "faq"]);
    assert_eq!([int(field(&info, "entries")), int(field(&info, "vectors"))], [11, 11]);
    let left: BTreeSet<String> =
        array(&client.ok(&cmd!["ZRANGE", "answers:{faq}", 0, -1])).iter().map(|id| text(id).to_owned()).collect();
    assert!(ids[30..].iter().all(|id| left.contains(*id)), "an entry that lives is not listed any more");
}

/// Fills the vector set of the cache with vectors that lead nowhere.
fn add_hidden(client: &mut Client, number: usize) {
    let mut random = fastrand::Rng::with_seed(3);
    let adds: Vec<redis::Cmd> = (0..number)
        .map(|number| {
            let vector: Vec<u8> = (0..64).flat_map(|_| (random.f32() - 0.5).to_le_bytes()).collect();
            cmd!["VADD", "cache:{faq}", "FP32", vector, format!("gone{number}"), "Q8"]
        })
        .collect();
    client.send_together(&adds);
    adds.iter().for_each(|_| drop(client.receive().unwrap()));
}

#[test]
fn a_vector_set_with_more_hidden_vectors_than_others_is_made_anew_while_entries_come() {
    let (server, mut client) = server();
    for number in 0..200 {
        client.ok(&cmd!["INFER.CACHESET", "faq", format!("the cat {number}"), number, "SCOPE", number % 2]);
    }
    add_hidden(&mut client, 999);
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    assert_eq!(client.ok(&cmd!["VCARD", "cache:{faq}"]), Value::Int(1200));
    // One more begins it; others go on writing, removing and asking meanwhile.
    client.ok(&cmd!["INFER.CACHEDEL", "faq", "SCOPE", 1]);
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for number in 0..60 {
                    let prompt = format!("the dog {writer} {number}");
                    client.ok(&cmd!["INFER.CACHESET", "faq", &prompt, number, "SCOPE", "dog"]);
                    let asked = cmd!["INFER.CACHEGET", "faq", "the cat 7 7", "SCOPE", 0, "THRESHOLD", 0];
                    assert_ne!(client.ok(&asked), Value::Nil, "an answer was not there for a moment");
                }
            });
        }
    });
    eventually("the set is made anew", || client.ok(&cmd!["VCARD", "cache:{faq}"]) == Value::Int(100 + 1 + 180));
    assert_eq!(client.ok(&cmd!["EXISTS", "cache:{faq}@new"]), Value::Int(0));
    let info = client.ok(&cmd!["INFER.CACHEINFO", "faq"]);
    assert_eq!([int(field(&info, "entries")), int(field(&info, "hidden"))], [281, 0]);
    for (prompt, scope) in [("the cat 4 4", "0"), ("the dog 1 7 7", "dog")] {
        let found = client.ok(&cmd!["INFER.CACHEGET", "faq", prompt, "SCOPE", scope, "THRESHOLD", 0.9]);
        assert_ne!(found, Value::Nil, "{prompt}");
    }
}

#[test]
fn generated_answers_come_from_the_cache_the_second_time() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    let mut ask = |prompt: &str| match client.ok(&cmd!["INFER.CACHEGET", "faq", prompt]) {
        Value::Nil => {
            let fresh = client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", prompt, "MAXTOKENS", 8]);
            client.ok(&cmd!["INFER.CACHESET", "faq", prompt, bytes(&fresh)]);
            fresh
        }
        cached => cached,
    };
    // Drawn at random, so two fresh ones would differ.
    let first = ask(CAT);
    assert_eq!(ask(CAT), first);
    assert_eq!(counted(&mut server.client(), "generated_tokens"), 8);
}
