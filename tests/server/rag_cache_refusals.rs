//! INFER.RAG with CACHE under wrong input, missing rights, keys of other types, and changes while an answer is made.

use redis::{Cmd, Value};

use crate::harness::{ANIMALS, CHAT, Client, EMBED, SLOW, Server, array, cmd, eventually, field, int, text};

const CAT: &str = "the cat and the dog in the city of the cat";
const DOG: &str = "the dog and the cat in the city of the dog";

/// With one document in the index `docs`, whose answers come from `model`.
fn server_with(model: crate::harness::Model) -> (Server, Client) {
    let server = Server::with(&[model, EMBED]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", model.name]);
    client.ok(&cmd!["INFER.INGEST", "docs", "animals.txt", ANIMALS]);
    (server, client)
}

fn ask(question: &str, threshold: f64) -> Cmd {
    cmd!["INFER.RAG", "docs", question, "TEMP", 2, "MAXTOKENS", 8, "WITHSTATS", "CACHE", threshold]
}

/// Asks what is not in the cache; it is answered, but not kept.
#[track_caller]
fn answered_and_not_kept(client: &mut Client, command: &Cmd) {
    let reply = client.ok(command);
    assert!(!text(field(&reply, "text")).is_empty());
    assert_eq!((text(field(&reply, "cache")), int(field(&reply, "cache_stored"))), ("miss", 0));
    client.assert_in_step();
}

#[test]
fn wrong_options_are_refused_and_write_nothing() {
    let (_server, mut client) = server_with(CHAT);
    let before = client.ok(&cmd!["DBSIZE"]);
    let long = "s".repeat(1025);
    for (options, part) in [
        (&["CACHE", "nan"][..], "CACHE is not a number"),
        (&["CACHE", "2"], "CACHE must be from 0 to 1"),
        (&["CACHE", "-1"], "CACHE must be from 0 to 1"),
        (&["CACHE"], "option CACHE needs a value"),
        (&["CACHETTL", "5"], "CACHETTL needs CACHE"),
        (&["SCOPE", "a"], "SCOPE needs CACHE"),
        (&["CACHE", "1", "CACHETTL", "0"], "CACHETTL must be from 1 to"),
        (&["CACHE", "1", "CACHETTL", "-5"], "CACHETTL must be from 1 to"),
        (&["CACHE", "1", "SCOPE", &long], "SCOPE is longer than 1024 bytes"),
        (&["CACHE", "1", "LOGPROBS", "0"], "CACHE and LOGPROBS cannot be used together"),
        (&["CACHE", "1", "WITHTOKENS"], "CACHE and WITHTOKENS cannot be used together"),
        (&["WITHPROMPT", "CACHE", "1"], "CACHE and WITHPROMPT cannot be used together"),
    ] {
        client.refused(&cmd!["INFER.RAG", "docs", CAT, options], "ERR", part);
    }
    client.refused(&cmd!["INFER.RAG", "none", CAT, "CACHE", 1], "NOINDEX", "'none'");
    client.assert_in_step();
    assert_eq!(client.ok(&cmd!["DBSIZE"]), before);
}

#[test]
fn transactions_and_scripts_are_refused_whether_the_answer_is_there_or_not() {
    let (_server, mut client) = server_with(CHAT);
    client.ok(&ask(CAT, 1.0));
    for question in [CAT, DOG] {
        client.ok(&cmd!["MULTI"]);
        client.ok(&ask(question, 1.0));
        let replies = format!("{:?}", client.call(&cmd!["EXEC"]));
        assert!(replies.contains("cannot run inside MULTI"), "{replies}");
        let script = "return redis.call('INFER.RAG', KEYS[1], ARGV[1], 'CACHE', '1')";
        client.refused(&cmd!["EVAL", script, 1, "docs", question], "ERR", "");
        client.assert_in_step();
    }
}

#[test]
fn keys_of_another_type_in_the_way_are_named_or_cost_no_answer_and_stay_as_they_are() {
    let (_server, mut client) = server_with(CHAT);
    client.ok(&ask(CAT, 0.0));
    let entry = text(&array(&client.ok(&cmd!["KEYS", "answer:{docs}:*"]))[0]).to_owned();
    for key in ["cache-settings:{docs}", "cache:{docs}", "answers:{docs}", &entry] {
        for other in ["cache-settings:{docs}", "cache:{docs}", "answers:{docs}", &entry] {
            client.ok(&cmd!["DEL", other]);
        }
        // Of the vectors only who looks for similar questions learns.
        if key == "cache:{docs}" {
            client.ok(&ask(CAT, 0.0));
            client.ok(&cmd!["DEL", key, &entry]);
        }
        client.ok(&cmd!["SET", key, "mine"]);
        if key == "answers:{docs}" {
            answered_and_not_kept(&mut client, &ask(CAT, 0.0));
        } else {
            client.refused(&ask(CAT, 0.0), "WRONGTYPE", key);
            client.assert_in_step();
        }
        assert_eq!(client.text(&cmd!["GET", key]), "mine");
    }
    client.ok(&cmd!["FLUSHDB"]);
    client.ok(&cmd!["SET", "answers:{docs}", "mine"]);
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    client.refused(&cmd!["INFER.INDEXINFO", "docs"], "WRONGTYPE", "answers:{docs}");
    // It does not hold up the end of the index.
    assert_eq!(int(&client.ok(&cmd!["INFER.DROPINDEX", "docs"])), 0);
    assert_eq!(client.text(&cmd!["GET", "answers:{docs}"]), "mine");
}

#[test]
fn an_entry_that_others_have_changed_is_passed_over_and_replaced() {
    let (_server, mut client) = server_with(CHAT);
    client.ok(&ask(CAT, 0.0));
    let entry = text(&array(&client.ok(&cmd!["KEYS", "answer:{docs}:*"]))[0]).to_owned();
    for junk in ["", "plain text", "{}", "{\"text\":1}", "[[[["] {
        client.ok(&cmd!["HSET", &entry, "answer", junk]);
        let reply = client.ok(&ask(CAT, 0.0));
        assert_eq!((text(field(&reply, "cache")), int(field(&reply, "cache_stored"))), ("miss", 1), "{junk:?}");
        assert_eq!(text(field(&client.ok(&ask(DOG, 0.0)), "cache")), "similar");
        assert_eq!(text(field(&client.ok(&ask(CAT, 0.0)), "cache")), "exact");
    }
}

#[test]
fn above_maxmemory_questions_are_answered_and_not_kept_and_the_log_says_so() {
    let (server, mut client) = server_with(CHAT);
    let first = client.ok(&ask(CAT, 1.0));
    let before = client.ok(&cmd!["DBSIZE"]);
    client.ok(&cmd!["CONFIG", "SET", "maxmemory", 1]);
    answered_and_not_kept(&mut client, &ask(DOG, 1.0));
    assert!(server.log().contains("an answer of INFER.RAG is not kept: OOM"));
    assert_eq!(field(&client.ok(&ask(CAT, 1.0)), "text"), field(&first, "text"));
    assert_eq!(client.ok(&cmd!["DBSIZE"]), before);
    client.ok(&cmd!["CONFIG", "SET", "maxmemory", 0]);
    assert_eq!(int(field(&client.ok(&ask(DOG, 1.0)), "cache_stored")), 1);
}

#[test]
fn while_writes_are_paused_answers_are_given_and_not_kept() {
    let (server, mut client) = server_with(CHAT);
    client.ok(&ask(CAT, 1.0));
    server.client().ok(&cmd!["CLIENT", "PAUSE", 60_000, "WRITE"]);
    answered_and_not_kept(&mut client, &ask(DOG, 1.0));
    assert_eq!(text(field(&client.ok(&ask(CAT, 1.0)), "cache")), "exact");
    client.ok(&cmd!["CLIENT", "UNPAUSE"]);
}

/// A connection of a new user with these rules.
fn user(server: &Server, rules: &[&str]) -> Client {
    server.client().ok(&cmd!["ACL", "SETUSER", "bob", "reset", "on", ">pw", rules]);
    let mut client = server.client();
    client.ok(&cmd!["AUTH", "bob", "pw"]);
    client
}

/// What docs/OPERATIONS.md gives to a user who may only ask.
const ASKING: [&str; 8] = ["+@infer", "-@admin", "-@write", "+hmget", "+get", "+vsim", "%R~docs", "~vec:{docs}*"];

/// What docs/CACHE.md adds for CACHE.
const CACHING: [&str; 26] = [
    "+hmget",
    "+hset",
    "+pexpireat",
    "+persist",
    "+pexpiretime",
    "+exists",
    "+unlink",
    "+rename",
    "+zadd",
    "+zrem",
    "+zrange",
    "+zscore",
    "+zscan",
    "+zrandmember",
    "+vadd",
    "+vsetattr",
    "+vgetattr",
    "+vlinks",
    "+vinfo",
    "+vemb",
    "+vrandmember",
    "%R~stats:{docs}*",
    "~cache-settings:{docs}",
    "~cache:{docs}*",
    "~answer:{docs}:*",
    "~answers:{docs}",
];

#[test]
fn a_user_may_ask_the_cache_with_the_rights_in_the_document_and_with_none_of_them_missing() {
    let (server, mut admin) = server_with(CHAT);
    admin.ok(&ask(CAT, 0.0));
    let before = admin.ok(&cmd!["DBSIZE"]);
    let asking = [&ASKING[..], &["%R~tokens:{docs}*", "+ping"]].concat();
    let mut bob = user(&server, &asking);
    bob.ok(&cmd!["INFER.RAG", "docs", CAT, "MAXTOKENS", 2]);
    bob.refused(&ask(CAT, 0.0), "NOPERM", "");
    for missing in CACHING {
        let rules: Vec<&str> = asking.iter().chain(&CACHING).copied().filter(|rule| *rule != missing).collect();
        let mut bob = user(&server, &rules);
        // Refused alike, whether there is an answer or not.
        let refusals = [CAT, DOG].map(|question| bob.call(&ask(question, 1.0)).expect_err(missing));
        assert_eq!(refusals[0].code, "NOPERM", "{missing}");
        assert_eq!(refusals[0], refusals[1], "{missing}");
        bob.assert_in_step();
    }
    assert_eq!(admin.ok(&cmd!["DBSIZE"]), before);
    let mut bob = user(&server, &[&asking[..], &CACHING].concat());
    assert_eq!(text(field(&bob.ok(&ask(CAT, 0.0)), "cache")), "exact");
    assert_eq!(int(field(&bob.ok(&ask(DOG, 1.0)), "cache_stored")), 1);
    assert!(!server.log().contains("is not kept"));
}

#[test]
fn an_answer_made_from_what_a_user_may_not_read_is_not_given_to_that_user() {
    let (server, mut admin) = server_with(CHAT);
    admin.ok(&ask(CAT, 0.0));
    let reading = ["~vec:{docs}*", "%R~tokens:{docs}*"];
    let asking: Vec<&str> = ASKING.iter().chain(&CACHING).copied().filter(|rule| !reading.contains(rule)).collect();
    // Some of the vectors and tokens, or none.
    for rights in [&["~vec:{docs}*"][..], &["%R~tokens:{docs}*"], &["~vec:{docs}*", "%R~tokens:{docs}:other*"]] {
        let mut bob = user(&server, &[&asking[..], rights, &["+ping"]].concat());
        for (question, threshold) in [(CAT, 1.0), (DOG, 0.0)] {
            bob.refused(&ask(question, threshold), "NOPERM", "");
        }
        bob.assert_in_step();
    }
    let mut bob = user(&server, &[&asking[..], &reading].concat());
    for (question, how) in [(CAT, "exact"), (DOG, "similar")] {
        assert_eq!(text(field(&bob.ok(&ask(question, 0.0)), "cache")), how);
    }
}

#[test]
fn rights_taken_away_while_an_answer_is_made_keep_it_from_being_stored() {
    let (server, mut admin) = server_with(SLOW);
    let mut bob = user(&server, &["+@all", "~*"]);
    bob.send(&cmd!["INFER.RAG", "docs", CAT, "MAXTOKENS", 300, "WITHSTATS", "CACHE", 1]);
    eventually("the answer is being made", || format!("{:?}", admin.ok(&cmd!["INFER.PS"])).contains("decoding"));
    admin.ok(&cmd!["ACL", "SETUSER", "bob", "resetkeys", "~docs"]);
    let reply = bob.receive().unwrap();
    assert_eq!(int(field(&reply, "cache_stored")), 0);
    assert_eq!(admin.ok(&cmd!["EXISTS", "cache-settings:{docs}"]), Value::Int(0));
}

#[test]
fn what_changes_while_an_answer_is_made_keeps_it_from_being_stored() {
    let (server, mut client) = server_with(SLOW);
    let mut asking = server.client();
    let changes = [
        cmd!["INFER.INGEST", "docs", "new.txt", "the dog"],
        cmd!["DEL", "stats:{docs}"],
        cmd!["INFER.DROPINDEX", "docs"],
    ];
    for change in changes {
        asking.send(&cmd!["INFER.RAG", "docs", CAT, "MAXTOKENS", 300, "WITHSTATS", "CACHE", 1]);
        eventually("the answer is being made", || format!("{:?}", client.ok(&cmd!["INFER.PS"])).contains("decoding"));
        client.ok(&change);
        let reply = asking.receive().unwrap();
        assert_eq!((text(field(&reply, "cache")), int(field(&reply, "cache_stored"))), ("miss", 0));
        assert!(!text(field(&reply, "text")).is_empty());
    }
    assert_eq!(client.ok(&cmd!["DBSIZE"]), Value::Int(0));
}

#[test]
fn the_answer_of_a_request_that_was_ended_is_not_kept() {
    let (server, mut client) = server_with(SLOW);
    let long = |timeout: u64| cmd!["INFER.RAG", "docs", CAT, "MAXTOKENS", 4000, "CACHE", 1, "TIMEOUT", timeout];
    client.refused(&long(200), "TIMEOUT", "");
    let mut gone = server.client();
    let id = gone.id();
    gone.send(&long(60_000));
    eventually("the answer is being made", || format!("{:?}", client.ok(&cmd!["INFER.PS"])).contains("decoding"));
    client.ok(&cmd!["CLIENT", "KILL", "ID", id]);
    eventually("nothing is being made", || server.requests("slow") == 0);
    assert_eq!(client.ok(&cmd!["EXISTS", "cache-settings:{docs}", "answers:{docs}"]), Value::Int(0));
}

#[test]
fn an_answer_that_is_there_is_given_while_the_models_have_no_place_for_another_request() {
    let (server, mut client) = server_with(SLOW);
    let known = ["MAXTOKENS", "2", "WITHSTATS", "CACHE", "1"];
    let stored = client.ok(&cmd!["INFER.RAG", "docs", CAT, &known]);
    client.ok(&cmd!["CONFIG", "SET", "infer.queue-limit", 1]);
    let mut busy: Vec<Client> = (0..2).map(|_| server.client()).collect();
    for other in &mut busy {
        other.send(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "go on", "MAXTOKENS", 16_000]);
    }
    eventually("the queue is full", || {
        client.call(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "x", "MAXTOKENS", 1, "TIMEOUT", 50]).unwrap_err().code
            == "QUEUEFULL"
    });
    let again = client.ok(&cmd!["INFER.RAG", "docs", CAT, &known]);
    assert_eq!((text(field(&again, "cache")), field(&again, "text")), ("exact", field(&stored, "text")));
    client.refused(&cmd!["INFER.RAG", "docs", DOG, &known], "QUEUEFULL", "");
}
