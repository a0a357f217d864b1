//! The semantic cache under wrong input, missing rights, keys of other types, and changes while a prompt is embedded.

use redis::Value;

use crate::harness::{CHAT, Client, EMBED, SLOW_EMBED, Server, array, cmd, eventually, text};

const CAT: &str = "the cat and the dog in the city";
const DOG: &str = "the dog and the cat in the city";

fn server() -> (Server, Client) {
    let server = Server::with(&[EMBED]);
    let client = server.client();
    (server, client)
}

fn answer(text: &str) -> Value {
    Value::BulkString(text.into())
}

#[test]
fn wrong_arguments_are_refused_and_write_nothing() {
    let (_server, mut client) = server();
    for (command, part) in [
        (cmd!["INFER.CACHEGET", "faq", ""], "prompt must not be empty"),
        (cmd!["INFER.CACHESET", "faq", "", "x"], "prompt must not be empty"),
        (cmd!["INFER.CACHEGET", "faq", CAT, "THRESHOLD", "NaN"], "THRESHOLD is not a number"),
        (cmd!["INFER.CACHEGET", "faq", CAT, "THRESHOLD", 2], "THRESHOLD must be from 0 to 1"),
        (cmd!["INFER.CACHEGET", "faq", CAT, "THRESHOLD", -1], "THRESHOLD must be from 0 to 1"),
        (cmd!["INFER.CACHESET", "faq", CAT, "x", "TTL", 0], "TTL must be from 1 to"),
        (cmd!["INFER.CACHESET", "faq", CAT, "x", "TTL", -1], "TTL must be from 1 to"),
        (cmd!["INFER.CACHESET", "faq", CAT, "x", "TTL", u64::MAX], "TTL must be from 1 to"),
        (cmd!["INFER.CACHESET", "faq", CAT, "x", "SCOPE", "s".repeat(1025)], "SCOPE is longer than 1024 bytes"),
        (cmd!["INFER.CACHESET", "faq", CAT, vec![b'x'; (8 << 20) + 1]], "answer is longer than 8388608 bytes"),
        (cmd!["INFER.CACHESET", "faq", b"\xff", "x"], "prompt is not valid UTF-8 at byte 0"),
        (cmd!["INFER.CACHESET", "a{faq}", CAT, "x"], "cache name must not contain"),
        (cmd!["INFER.CACHEGET", "a}faq", CAT], "cache name must not contain"),
        (cmd!["INFER.CACHEDEL", "*"], "cache name must not contain"),
        (cmd!["INFER.CACHEDEL", "faq", "all"], "unknown option 'ALL'"),
    ] {
        client.refused(&command, "ERR", part);
    }
    client.assert_in_step();
    assert_eq!(client.ok(&cmd!["DBSIZE"]), Value::Int(0));
}

#[test]
fn a_prompt_too_long_for_the_model_is_told_its_tokens_and_the_very_prompt_is_still_found() {
    let (server, mut client) = server();
    let long = "the cat ".repeat(12_500);
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    for command in [cmd!["INFER.CACHEGET", "faq", &long], cmd!["INFER.CACHESET", "faq", &long, "x"]] {
        let refusal = client.refused(&command, "CTXLIMIT", "");
        assert_eq!(refusal.text, "the prompt has 25002 tokens, but model 'embed' reads at most 256; shorten it");
    }
    assert_eq!(server.requests("embed"), 0);
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", &long, "THRESHOLD", 1]), Value::Nil);
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", CAT]), answer("meow"));
    assert_eq!(client.ok(&cmd!["INFER.CACHEDEL", "faq"]), Value::Int(1));
}

#[test]
fn keys_of_another_type_in_the_way_are_named_and_stay_as_they_are() {
    let (_server, mut client) = server();
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    let entry = text(&array(&client.ok(&cmd!["KEYS", "answer:*"]))[0]).to_owned();
    let set = cmd!["INFER.CACHESET", "faq", CAT, "x"];
    for key in ["faq", "cache:{faq}", "answers:{faq}", &entry] {
        client.ok(&cmd!["FLUSHDB"]);
        client.ok(&cmd!["SET", key, "mine"]);
        client.refused(&set, "WRONGTYPE", key);
        assert_eq!(client.ok(&cmd!["DBSIZE"]), Value::Int(1), "{key}");
        assert_eq!(client.ok(&cmd!["GET", key]), answer("mine"));
        client.assert_in_step();
    }
    for (key, command) in [
        ("faq", cmd!["INFER.CACHEGET", "faq", CAT]),
        ("faq", cmd!["INFER.CACHEINFO", "faq"]),
        ("faq", cmd!["INFER.CACHEDEL", "faq"]),
        ("answers:{faq}", cmd!["INFER.CACHEDEL", "faq"]),
        ("drop-answers:{faq}", cmd!["INFER.CACHEDEL", "faq"]),
        ("answers:{faq}", cmd!["INFER.CACHEDEL", "faq", "SCOPE", "x"]),
        (&entry, cmd!["INFER.CACHEGET", "faq", CAT]),
    ] {
        client.ok(&cmd!["FLUSHDB"]);
        client.ok(&cmd!["SET", key, "mine"]);
        client.refused(&command, "WRONGTYPE", key);
        assert_eq!(client.ok(&cmd!["GET", key]), answer("mine"));
    }
}

#[test]
fn an_index_is_no_cache_and_a_cache_no_index() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", CAT]);
    for command in [
        cmd!["INFER.CACHEGET", "docs", CAT],
        cmd!["INFER.CACHESET", "docs", CAT, "x"],
        cmd!["INFER.CACHEDEL", "docs"],
        cmd!["INFER.CACHEDEL", "docs", "SCOPE", ""],
        cmd!["INFER.CACHEINFO", "docs"],
    ] {
        client.refused(&command, "NOCACHE", "key 'docs' is a hash but not a cache");
    }
    assert_eq!(array(&client.ok(&cmd!["INFER.SEARCH", "docs", CAT])).len(), 1);
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    for name in ["INFER.INDEXINFO", "INFER.DROPINDEX"] {
        client.refused(&cmd![name, "faq"], "NOINDEX", "key 'faq' is a hash but not an index");
    }
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", CAT]), answer("meow"));
}

#[test]
fn nothing_of_an_earlier_cache_whose_settings_are_gone_is_mixed_with_a_new_one() {
    let (_server, mut client) = server();
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    client.ok(&cmd!["DEL", "faq"]);
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", CAT]), Value::Nil);
    client.ok(&cmd!["INFER.CACHESET", "faq", DOG, "woof"]);
    assert_eq!(client.ok(&cmd!["VCARD", "cache:{faq}"]), Value::Int(1));
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", CAT, "THRESHOLD", 1]), Value::Nil);
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", CAT, "THRESHOLD", 0]), answer("woof"));
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "again"]);
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", CAT]), answer("again"));
    // One that no cache has made stays.
    client.ok(&cmd!["VADD", "cache:{other}", "VALUES", 2, 1, 1, "mine"]);
    client.refused(&cmd!["INFER.CACHESET", "other", DOG, "x"], "ERR", "key 'cache:{other}' is not of a cache");
    assert_eq!(client.ok(&cmd!["VCARD", "cache:{other}"]), Value::Int(1));
    assert_eq!(client.ok(&cmd!["EXISTS", "other", "answers:{other}"]), Value::Int(0));
}

#[test]
fn transactions_and_scripts_are_refused_whether_the_answer_is_there_or_not() {
    let (_server, mut client) = server();
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    for command in [
        cmd!["INFER.CACHEGET", "faq", CAT],
        cmd!["INFER.CACHEGET", "faq", "the dog", "THRESHOLD", 1],
        cmd!["INFER.CACHESET", "faq", CAT, "x"],
        cmd!["INFER.CACHEDEL", "faq"],
    ] {
        client.ok(&cmd!["MULTI"]);
        client.ok(&command);
        let replies = client.call(&cmd!["EXEC"]);
        let shown = format!("{replies:?}");
        assert!(shown.contains("cannot run inside MULTI"), "{shown}");
        client.assert_in_step();
    }
    let script = "return redis.call('INFER.CACHEGET', KEYS[1], ARGV[1])";
    client.refused(&cmd!["EVAL", script, 1, "faq", CAT], "ERR", "");
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", CAT]), answer("meow"));
}

/// A connection of a new user with these rules.
fn user(server: &Server, rules: &[&str]) -> Client {
    server.client().ok(&cmd!["ACL", "SETUSER", "bob", "reset", "on", ">pw", rules]);
    let mut client = server.client();
    client.ok(&cmd!["AUTH", "bob", "pw"]);
    client
}

#[test]
fn who_may_not_read_or_write_the_keys_of_a_cache_is_refused_alike_whatever_it_holds() {
    let (server, mut admin) = server();
    admin.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    let before = admin.ok(&cmd!["DBSIZE"]);
    for rules in [
        ["+@all", "~faq", "~cache:{faq}*", "~*answers:{faq}"],
        ["+@all", "~faq", "~*answers:{faq}", "~answer:{faq}:*"],
        ["+@all", "~cache:{faq}*", "~*answers:{faq}", "~answer:{faq}:*"],
    ] {
        let mut bob = user(&server, &rules);
        let refusals = [CAT, DOG].map(|prompt| bob.call(&cmd!["INFER.CACHEGET", "faq", prompt]).unwrap_err());
        assert_eq!(refusals[0].code, "NOPERM", "{rules:?}");
        assert_eq!(refusals[0], refusals[1]);
        for command in [
            cmd!["INFER.CACHEGET", "faq", DOG, "THRESHOLD", 1],
            cmd!["INFER.CACHESET", "faq", DOG, "x"],
            cmd!["INFER.CACHEDEL", "faq"],
            cmd!["INFER.CACHEINFO", "faq"],
        ] {
            bob.refused(&command, "NOPERM", "");
        }
        bob.assert_in_step();
    }
    // Reading is not writing.
    let mut bob = user(&server, &["+@all", "%R~faq", "~cache:{faq}*", "~*answers:{faq}", "%R~answer:{faq}:*"]);
    assert_eq!(bob.ok(&cmd!["INFER.CACHEGET", "faq", CAT]), answer("meow"));
    for command in [
        cmd!["INFER.CACHESET", "faq", DOG, "x"],
        cmd!["INFER.CACHEDEL", "faq"],
        cmd!["INFER.CACHEDEL", "faq", "SCOPE", ""],
    ] {
        bob.refused(&command, "NOPERM", "");
    }
    assert_eq!(admin.ok(&cmd!["DBSIZE"]), before);
    assert_eq!(admin.ok(&cmd!["VCARD", "cache:{faq}"]), Value::Int(1));
}

#[test]
fn the_users_in_the_document_may_do_what_it_says_and_no_more() {
    let (server, mut admin) = server();
    admin.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    let reading = ["+infer.cacheget", "+hmget", "+vsim", "%R~faq", "%R~answer:{faq}:*", "~cache:{faq}*"];
    let mut bob = user(&server, &reading);
    assert_eq!(bob.ok(&cmd!["INFER.CACHEGET", "faq", CAT]), answer("meow"));
    assert_eq!(bob.ok(&cmd!["INFER.CACHEGET", "faq", DOG, "THRESHOLD", 0]), answer("meow"));
    bob.refused(&cmd!["INFER.CACHESET", "faq", CAT, "x"], "NOPERM", "'infer.cacheset' command");
    let writing = [
        "+infer.cacheset",
        "+infer.cachedel",
        "+infer.cacheinfo",
        "+hset",
        "+hget",
        "+pexpireat",
        "+persist",
        "+pexpiretime",
        "+exists",
        "+unlink",
        "+rename",
        "+memory|usage",
        "+zadd",
        "+zrem",
        "+zrange",
        "+zscore",
        "+zscan",
        "+zcard",
        "+zcount",
        "+zrandmember",
        "+vadd",
        "+vsetattr",
        "+vgetattr",
        "+vlinks",
        "+vinfo",
        "+vemb",
        "+vrandmember",
        "~faq",
        "~answer:{faq}:*",
        "~answers:{faq}",
        "~drop-answers:{faq}",
    ];
    admin.ok(&cmd!["ACL", "SETUSER", "bob", &writing]);
    bob.ok(&cmd!["INFER.CACHESET", "faq", CAT, "x", "TTL", 100]);
    bob.ok(&cmd!["INFER.CACHESET", "faq", DOG, "y", "SCOPE", "a"]);
    bob.ok(&cmd!["INFER.CACHEINFO", "faq"]);
    assert_eq!(bob.ok(&cmd!["INFER.CACHEDEL", "faq", "SCOPE", "a"]), Value::Int(1));
    assert_eq!(bob.ok(&cmd!["INFER.CACHEDEL", "faq"]), Value::Int(1));
    assert_eq!(admin.ok(&cmd!["DBSIZE"]), Value::Int(0));
}

#[test]
fn above_maxmemory_nothing_is_set_and_everything_can_be_read_and_removed() {
    let (_server, mut client) = server();
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    let before = client.ok(&cmd!["DBSIZE"]);
    client.ok(&cmd!["CONFIG", "SET", "maxmemory", 1]);
    client.refused(&cmd!["INFER.CACHESET", "faq", DOG, "x"], "OOM", "");
    assert_eq!(client.ok(&cmd!["DBSIZE"]), before);
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", CAT]), answer("meow"));
    assert_eq!(client.ok(&cmd!["INFER.CACHEDEL", "faq"]), Value::Int(1));
    assert_eq!(client.ok(&cmd!["DBSIZE"]), Value::Int(0));
}

#[test]
fn eight_clients_that_set_the_same_prompt_at_once_make_one_entry() {
    let (server, mut client) = server();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for round in 0..10 {
                    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, format!("{number} {round}")]);
                    let found = client.ok(&cmd!["INFER.CACHEGET", "faq", CAT]);
                    assert!(text(&found).split(' ').count() == 2, "{found:?}");
                }
            });
        }
    });
    assert_eq!(client.ok(&cmd!["DBSIZE"]), Value::Int(4));
    assert_eq!(client.ok(&cmd!["VCARD", "cache:{faq}"]), Value::Int(1));
    assert_eq!(client.ok(&cmd!["ZCARD", "answers:{faq}"]), Value::Int(1));
}

/// Sends `command` and does `meanwhile` while its prompt is embedded, for some tenths of a second; then its reply.
fn meanwhile(
    server: &Server,
    command: &redis::Cmd,
    meanwhile: impl FnOnce(&mut Client),
) -> Result<Value, crate::harness::Refusal> {
    let mut client = server.client();
    client.send(command);
    eventually("the prompt is being embedded", || server.requests("slow-embed") == 1);
    meanwhile(&mut server.client());
    client.receive()
}

/// As long as the slow model reads.
fn long_prompt() -> String {
    "the cat and the dog ".repeat(390)
}

#[test]
fn a_cache_that_is_flushed_while_a_prompt_is_embedded_is_made_anew_or_empty() {
    let server = Server::with(&[SLOW_EMBED]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    let flush = |client: &mut Client| drop(client.ok(&cmd!["FLUSHALL"]));
    let set = cmd!["INFER.CACHESET", "faq", long_prompt(), "long"];
    assert_eq!(text(&meanwhile(&server, &set, flush).unwrap()), "OK");
    assert_eq!(client.ok(&cmd!["DBSIZE"]), Value::Int(4));
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", long_prompt()]), answer("long"));
    assert_eq!(client.ok(&cmd!["INFER.CACHEGET", "faq", CAT, "THRESHOLD", 1]), Value::Nil);
    let get = cmd!["INFER.CACHEGET", "faq", long_prompt() + "paris", "THRESHOLD", 0];
    assert_eq!(meanwhile(&server, &get, flush).unwrap(), Value::Nil);
}

#[test]
fn a_cache_that_gets_another_model_while_a_prompt_is_embedded_gets_no_vector_of_the_old_one() {
    let server = Server::with(&[SLOW_EMBED, EMBED]);
    let mut client = server.client();
    let fill = |client: &mut Client, model: &str| {
        client.ok(&cmd!["INFER.CACHEDEL", "faq"]);
        client.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow", "EMBEDMODEL", model]);
    };
    fill(&mut client, "slow-embed");
    let set = cmd!["INFER.CACHESET", "faq", long_prompt(), "long"];
    let refusal = meanwhile(&server, &set, |client| fill(client, "embed")).unwrap_err();
    assert_eq!((refusal.code.as_str(), refusal.text.contains("send it again")), ("ERR", true), "{refusal:?}");
    assert_eq!(client.ok(&cmd!["VCARD", "cache:{faq}"]), Value::Int(1));
    fill(&mut client, "slow-embed");
    let get = cmd!["INFER.CACHEGET", "faq", long_prompt(), "THRESHOLD", 0];
    assert_eq!(meanwhile(&server, &get, |client| fill(client, "embed")).unwrap(), Value::Nil);
}

#[test]
fn rights_that_are_taken_away_while_a_prompt_is_embedded_are_gone() {
    let server = Server::with(&[SLOW_EMBED]);
    let mut admin = server.client();
    admin.ok(&cmd!["INFER.CACHESET", "faq", CAT, "meow"]);
    for command in [
        cmd!["INFER.CACHEGET", "faq", long_prompt(), "THRESHOLD", 0],
        cmd!["INFER.CACHESET", "faq", long_prompt(), "long"],
    ] {
        let mut bob = user(&server, &["+@all", "~*"]);
        bob.send(&command);
        eventually("the prompt is being embedded", || server.requests("slow-embed") == 1);
        admin.ok(&cmd!["ACL", "SETUSER", "bob", "resetkeys", "~faq"]);
        assert_eq!(bob.receive().unwrap_err().code, "NOPERM");
    }
    assert_eq!(admin.ok(&cmd!["DBSIZE"]), Value::Int(4));
}

#[test]
fn a_client_that_waits_for_an_embedding_is_listed_and_can_be_cancelled() {
    let server = Server::with(&[SLOW_EMBED]);
    let set = cmd!["INFER.CACHESET", "faq", long_prompt(), "long"];
    let refusal = meanwhile(&server, &set, |client| {
        let listed = client.ok(&cmd!["INFER.PS"]);
        let request = &array(&listed)[0];
        assert_eq!(text(crate::harness::field(request, "command")), "INFER.CACHESET");
        let id = crate::harness::int(crate::harness::field(request, "id"));
        assert_eq!(client.ok(&cmd!["INFER.CANCEL", id]), Value::Int(1));
    });
    assert_eq!(refusal.unwrap_err().code, "CANCELLED");
    eventually("the place is free", || server.requests("slow-embed") == 0);
    assert_eq!(server.client().ok(&cmd!["DBSIZE"]), Value::Int(0));
}
