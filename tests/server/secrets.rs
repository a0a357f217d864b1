//! A user with rights to some keys learns nothing of the others: not what they hold, not whether they exist.

use redis::Cmd;

use crate::harness::{CHAT, Client, EMBED, Refusal, SLOW_EMBED, Server, array, cmd, eventually, text};

/// A user of all commands with rights to the keys below `a:`.
const LEAST: &[&str] = &["+@infer", "+ping", "~a:*"];
/// The same, with the commands that INFER commands run as the caller, so that keys are all that can be refused.
const ALL: &[&str] = &[
    "+@infer",
    "+ping",
    "~a:*",
    "+@read",
    "+hset",
    "+hdel",
    "+sadd",
    "+srem",
    "+vadd",
    "+vsetattr",
    "+set",
    "+unlink",
    "+vsim",
];

/// Keys of every kind at `a:…` and `b:…`; none at `…none`.
fn server() -> Server {
    let server = Server::with(&[CHAT, EMBED]);
    let mut admin = server.client();
    for prefix in ["a:", "b:"] {
        admin.ok(&cmd!["INFER.TOKENIZESTORE", format!("{prefix}tokens"), "chat", format!("text of {prefix}")]);
        admin.ok(&cmd!["SET", format!("{prefix}text"), "abc"]);
        admin.ok(&cmd!["LPUSH", format!("{prefix}list"), "x"]);
        let index = format!("{prefix}docs");
        admin.ok(&cmd!["INFER.INDEX", &index, "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
        admin.ok(&cmd!["INFER.INGEST", &index, "a.txt", "the cat"]);
    }
    server
}

fn alice(server: &Server, rules: &[&str]) -> Client {
    server.client().ok(&cmd!["ACL", "SETUSER", "alice", "reset", "on", ">pw", rules]);
    let mut client = server.client();
    client.ok(&cmd!["AUTH", "alice", "pw"]);
    client
}

/// Every command that takes a key, with `key` in each place where one can stand.
fn commands(key: &str) -> Vec<Cmd> {
    vec![
        cmd!["INFER.TOKENIZESTORE", key, "chat", "text"],
        cmd!["INFER.TOKENIZESTORE", key, "chat", "text", "EX", 10],
        cmd!["INFER.DETOKENIZE", "chat", 1, key],
        cmd!["INFER.DETOKENIZE", "chat", 2, "a:tokens", key],
        cmd!["INFER.GENERATE", "chat", 1, key, "MAXTOKENS", 1],
        cmd!["INFER.GENERATE", "chat", 2, "a:tokens", key, "MAXTOKENS", 1],
        cmd!["INFER.GENERATE", "chat", 2, key, "a:tokens", "TEXT", "x", "MAXTOKENS", 1],
        cmd!["INFER.CHAT", "chat", 1, key, "MESSAGE", "user", "x", "MAXTOKENS", 1],
        cmd!["INFER.CHAT", "chat", 2, "a:tokens", key, "MESSAGE", "user", "x", "MAXTOKENS", 1],
        cmd!["INFER.INDEX", key, "EMBEDMODEL", "embed", "GENMODEL", "chat"],
        cmd!["INFER.INDEX", key, "EMBEDMODEL", "embed", "GENMODEL", "chat", "OVERLAP", 3],
        cmd!["INFER.INGEST", key, "a.txt", "the dog"],
        cmd!["INFER.INGEST", key, "a.txt", "the cat", "ATTRS", "{\"a\":1}"],
        cmd!["INFER.FORGET", key, "a.txt"],
        cmd!["INFER.INDEXINFO", key],
        cmd!["INFER.REINDEX", key],
        cmd!["INFER.DROPINDEX", key],
        cmd!["INFER.SEARCH", key, "the cat"],
        cmd!["INFER.SEARCH", key, "the cat", "WITHTEXT"],
        cmd!["INFER.RAG", key, "the cat", "MAXTOKENS", 1],
        cmd!["INFER.RAG", key, "the cat", "MAXTOKENS", 1, "CACHE", 1],
        cmd!["INFER.CACHEGET", key, "the cat"],
        cmd!["INFER.CACHEGET", key, "the cat", "THRESHOLD", 1],
        cmd!["INFER.CACHESET", key, "the cat", "meow"],
        cmd!["INFER.CACHEDEL", key],
        cmd!["INFER.CACHEDEL", key, "SCOPE", "x"],
        cmd!["INFER.CACHEINFO", key],
    ]
}

/// The state of everything, without what alice does to her own keys.
fn keys_of_others(admin: &mut Client) -> String {
    let reply = admin.ok(&cmd!["KEYS", "*b:*"]);
    let mut keys: Vec<String> = array(&reply).iter().map(|key| format!("{key:?}")).collect();
    keys.sort();
    keys.join(" ")
}

#[test]
fn every_command_with_keys_is_among_those_tested_here() {
    let server = Server::start();
    let mut client = server.client();
    let tested: Vec<String> = commands("k")
        .iter()
        .map(|command| match command.args_iter().next() {
            Some(redis::Arg::Simple(name)) => String::from_utf8_lossy(name).to_lowercase(),
            _ => panic!("a command without a name"),
        })
        .collect();
    for name in array(&client.ok(&cmd!["COMMAND", "LIST", "FILTERBY", "MODULE", "infer"])) {
        let info = client.ok(&cmd!["COMMAND", "INFO", text(name)]);
        let key_specs = array(&array(&array(&info)[0])[8]);
        assert!(key_specs.is_empty() || tested.contains(&text(name).to_owned()), "{} is not tested", text(name));
    }
}

#[test]
fn keys_of_others_are_refused_alike_whether_they_exist_or_not() {
    let server = server();
    let mut admin = server.client();
    let before = keys_of_others(&mut admin);
    // Of the right type, of a wrong one, and not there at all.
    let keys = ["b:tokens", "b:text", "b:list", "b:docs", "vec:{b:docs}", "b:none", "none"];
    for rules in [LEAST, ALL] {
        let mut alice = alice(&server, rules);
        for (number, _) in commands("").iter().enumerate() {
            let answers: Vec<Refusal> = keys
                .iter()
                .map(|key| alice.call(&commands(key)[number]).expect_err("a key of somebody else was used"))
                .collect();
            for (key, answer) in keys.iter().zip(&answers) {
                assert_eq!(answer.code, "NOPERM", "{key}: {answer:?}");
                assert_eq!(answer, &answers[0], "{key} is told apart from {}", keys[0]);
            }
            alice.assert_in_step();
        }
    }
    assert_eq!(keys_of_others(&mut admin), before);
}

#[test]
fn lines_that_redis_finds_no_keys_in_are_no_way_around_the_rights() {
    let server = server();
    let mut alice = alice(&server, ALL);
    // Counts that make Redis itself check no key at all.
    for count in ["zz", "-1", "2", "9", "01", "+1", " 1", "1.0", "1e0", "0x1", "18446744073709551617"] {
        for name in ["INFER.GENERATE", "INFER.DETOKENIZE"] {
            let refusal = alice.call(&cmd![name, "chat", count, "b:tokens"]).expect_err("not refused");
            assert!(["ERR", "NOPERM"].contains(&refusal.code.as_str()), "{name} {count}: {refusal:?}");
            let missing = alice.call(&cmd![name, "chat", count, "b:none"]).expect_err("not refused");
            assert_eq!(refusal, missing, "{name} {count}");
        }
        let chat = |key| cmd!["INFER.CHAT", "chat", count, key, "MESSAGE", "user", "x"];
        let refusal = alice.call(&chat("b:tokens")).expect_err("not refused");
        assert!(["ERR", "NOPERM"].contains(&refusal.code.as_str()), "INFER.CHAT {count}: {refusal:?}");
        assert_eq!(alice.call(&chat("b:none")), Err(refusal), "INFER.CHAT {count}");
    }
    // Words that look like another start of the keys are text.
    alice.ok(&cmd!["INFER.GENERATE", "chat", 1, "a:tokens", "TEXT", "1 b:tokens", "MAXTOKENS", 1]);
    alice.refused(&cmd!["INFER.GENERATE", "chat", 0, "b:tokens", "MAXTOKENS", 1], "ERR", "unknown option");
    alice.refused(&cmd!["INFER.GENERATE", "chat", 1, "a:tokens", "b:tokens"], "ERR", "unknown option");
    alice.assert_in_step();
}

#[test]
fn derived_keys_need_their_own_rights_and_are_refused_alike() {
    let server = server();
    let mut alice = alice(&server, ALL);
    // The settings of the index may be read, its chunks may not: they are not below a:.
    let refused: Vec<Refusal> = [
        cmd!["INFER.SEARCH", "a:docs", "the cat"],
        cmd!["INFER.SEARCH", "a:docs", "nothing like it"],
        cmd!["INFER.RAG", "a:docs", "the cat", "MAXTOKENS", 1],
    ]
    .iter()
    .map(|command| alice.call(command).expect_err("chunks were read"))
    .collect();
    for refusal in &refused {
        assert_eq!((refusal.code.as_str(), refusal), ("NOPERM", &refused[0]));
    }
    for command in [|path| cmd!["INFER.INGEST", "a:docs", path, "the dog"], |path| cmd!["INFER.FORGET", "a:docs", path]]
    {
        let known = alice.call(&command("a.txt")).unwrap_err();
        let unknown = alice.call(&command("no-such.txt")).unwrap_err();
        assert_eq!(known.code, "NOPERM");
        assert_eq!(known, unknown, "which documents an index has can be told");
    }
    for name in ["INFER.INDEXINFO", "INFER.REINDEX", "INFER.DROPINDEX"] {
        alice.refused(&cmd![name, "a:docs"], "NOPERM", "");
    }
}

#[test]
fn a_name_of_an_index_cannot_reach_the_keys_of_another() {
    let server = server();
    let mut admin = server.client();
    let before = keys_of_others(&mut admin);
    let mut alice = alice(&server, ALL);
    for name in ["a:}{b:docs", "a:{b:docs}", "a:x}:b", "a:\0b:docs"] {
        let create = cmd!["INFER.INDEX", name, "EMBEDMODEL", "embed", "GENMODEL", "chat"];
        let refusal = alice.call(&create).expect_err("such a name was accepted");
        assert!(["ERR", "NOPERM"].contains(&refusal.code.as_str()), "{name:?}: {refusal:?}");
    }
    assert_eq!(keys_of_others(&mut admin), before);
}

#[test]
fn no_statistic_or_list_names_keys_of_others() {
    let server = server();
    let mut alice = alice(&server, ALL);
    let models = format!("{:?}", alice.ok(&cmd!["INFER.MODELS"]));
    let model = format!("{:?}", alice.ok(&cmd!["INFER.MODEL", "chat"]));
    assert!(!models.contains("b:") && !model.contains("b:"));
}

#[test]
fn rights_taken_away_while_a_question_waits_are_gone() {
    let server = server();
    let mut admin = server.client();
    admin.ok(&cmd!["ACL", "SETUSER", "alice", "reset", "on", ">pw", "+@all", "~*"]);
    let mut alice = server.client();
    alice.ok(&cmd!["AUTH", "alice", "pw"]);
    admin.ok(&SLOW_EMBED.load());
    admin.ok(&cmd!["INFER.INDEX", "b:slow", "EMBEDMODEL", "slow-embed", "GENMODEL", "chat"]);
    admin.ok(&cmd!["INFER.INGEST", "b:slow", "a.txt", "the cat"]);
    alice.send(&cmd!["INFER.SEARCH", "b:slow", "the cat and the dog ".repeat(390)]);
    eventually("the question is being embedded", || server.requests("slow-embed") == 1);
    admin.ok(&cmd!["ACL", "SETUSER", "alice", "resetkeys", "~a:*"]);
    assert_eq!(alice.receive().unwrap_err().code, "NOPERM");
}
