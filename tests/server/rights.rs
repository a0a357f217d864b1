//! The caller's database and rights, also for what happens after the command has waited.

use redis::Value;

use crate::harness::{CHAT, Client, EMBED, Server, array, cmd, eventually, field, text};

/// A server with the index `docs` in database 0, and one document in it.
fn indexed() -> (Server, Client) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    create(&mut client);
    (server, client)
}

fn create(client: &mut Client) {
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat"]);
}

/// A connection of a new user with these rules.
fn user(server: &Server, rules: &[&str]) -> Client {
    server.client().ok(&cmd!["ACL", "SETUSER", "bob", "reset", "on", ">pw", rules]);
    let mut client = server.client();
    client.ok(&cmd!["AUTH", "bob", "pw"]);
    client
}

fn count(client: &mut Client) -> Value {
    client.ok(&cmd!["DBSIZE"])
}

#[test]
fn everything_happens_in_the_database_of_the_client() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&cmd!["SELECT", 5]);
    create(&mut client);
    client.ok(&cmd!["INFER.TOKENIZESTORE", "k", "chat", "text"]);
    assert_eq!(count(&mut client), Value::Int(7));
    assert_eq!(array(&client.ok(&cmd!["INFER.SEARCH", "docs", "the cat"])).len(), 1);
    client.ok(&cmd!["INFER.RAG", "docs", "the cat", "MAXTOKENS", 2]);
    client.ok(&cmd!["INFER.GENERATE", "chat", 1, "k", "MAXTOKENS", 2]);
    let mut other = server.client();
    assert_eq!(count(&mut other), Value::Int(0));
    other.refused(&cmd!["INFER.SEARCH", "docs", "the cat"], "NOINDEX", "");
}

#[test]
fn a_user_without_the_right_to_the_index_is_noperm() {
    let (server, mut admin) = indexed();
    let before = count(&mut admin);
    let mut bob = user(&server, &["+@all", "~other"]);
    for command in [
        cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"],
        cmd!["INFER.INGEST", "docs", "b.txt", "the dog"],
        cmd!["INFER.SEARCH", "docs", "the cat"],
        cmd!["INFER.RAG", "docs", "the cat"],
    ] {
        bob.refused(&command, "NOPERM", "");
    }
    assert_eq!(count(&mut admin), before);
}

#[test]
fn a_document_is_forgotten_whole_or_not_at_all() {
    let (server, mut admin) = indexed();
    let before = admin.ok(&cmd!["INFER.INDEXINFO", "docs"]);
    for missing in ["-vinfo", "-unlink", "-srem", "-vsetattr"] {
        let mut bob = user(&server, &["+@all", "~*", missing]);
        bob.refused(&cmd!["INFER.FORGET", "docs", "a.txt"], "NOPERM", "");
        bob.refused(&cmd!["INFER.INGEST", "docs", "a.txt", ""], "NOPERM", "");
        assert_eq!(admin.ok(&cmd!["INFER.INDEXINFO", "docs"]), before, "{missing}");
    }
}

#[test]
fn the_right_to_the_index_alone_is_not_the_right_to_its_chunks() {
    let (server, mut admin) = indexed();
    let before = count(&mut admin);
    let mut bob = user(&server, &["+@all", "~docs"]);
    for command in [
        cmd!["INFER.INGEST", "docs", "b.txt", "the dog"],
        cmd!["INFER.SEARCH", "docs", "the cat"],
        cmd!["INFER.RAG", "docs", "the cat"],
    ] {
        bob.refused(&command, "NOPERM", "");
        bob.assert_in_step();
    }
    assert_eq!(count(&mut admin), before);
}

#[test]
fn a_user_who_may_not_write_tokens_searches_and_leaves_nothing_of_an_ingest() {
    let (server, mut admin) = indexed();
    // Redis wants the right to write for VSIM too.
    let mut bob = user(&server, &["+@all", "%R~docs", "~vec:{docs}", "%R~*{docs}:*"]);
    assert_eq!(array(&bob.ok(&cmd!["INFER.SEARCH", "docs", "the cat"])).len(), 1);
    bob.ok(&cmd!["INFER.RAG", "docs", "the cat", "MAXTOKENS", 2]);
    bob.refused(&cmd!["INFER.INGEST", "docs", "b.txt", "the dog"], "NOPERM", "");
    assert_eq!(count(&mut admin), Value::Int(6));
    assert_eq!(admin.ok(&cmd!["VCARD", "vec:{docs}"]), Value::Int(1));
}

#[test]
fn the_users_in_the_readme_may_do_what_it_says_and_no_more() {
    let (server, mut admin) = indexed();
    let asking = ["+@infer", "-@admin", "-@write", "+hmget", "+get", "+vsim"];
    let asked_keys = ["%R~docs", "~vec:{docs}*", "%R~tokens:{docs}*"];
    let mut bob = user(&server, &[&asking[..], &asked_keys[..]].concat());
    assert_eq!(array(&bob.ok(&cmd!["INFER.SEARCH", "docs", "the cat"])).len(), 1);
    bob.ok(&cmd!["INFER.RAG", "docs", "the cat", "MAXTOKENS", 2]);
    bob.refused(&cmd!["INFER.INGEST", "docs", "b.txt", "the dog"], "NOPERM", "'infer.ingest' command");
    bob.refused(&cmd!["INFER.TOKENIZESTORE", "docs", "chat", "x"], "NOPERM", "'infer.tokenizestore' command");
    bob.refused(&cmd!["INFER.UNLOAD", "chat"], "NOPERM", "'infer.unload' command");
    let ingest = [
        "+infer.ingest",
        "+infer.forget",
        "+hset",
        "+hdel",
        "+sadd",
        "+scard",
        "+strlen",
        "+srem",
        "+vgetattr",
        "+vlinks",
        "+vinfo",
        "+vadd",
        "+vsetattr",
        "+set",
        "+unlink",
    ];
    let written_keys = ["~tokens:{docs}*", "~doc:{docs}*", "~stats:{docs}*", "~paths:{docs}*"];
    admin.ok(&cmd!["ACL", "SETUSER", "bob", &ingest, &written_keys]);
    bob.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the dog"]);
    bob.ok(&cmd!["INFER.INGEST", "docs", "b.txt", "the cat"]);
    bob.ok(&cmd!["INFER.INGEST", "docs", "b.txt", ""]);
    bob.refused(&cmd!["INFER.INDEXINFO", "docs"], "NOPERM", "");
    admin.ok(&cmd!["ACL", "SETUSER", "bob", "+memory|usage", "+zcount", "%R~answers:{docs}"]);
    bob.ok(&cmd!["INFER.INDEXINFO", "docs"]);
    bob.ok(&cmd!["INFER.FORGET", "docs", "a.txt"]);
    for name in ["INFER.REINDEX", "INFER.DROPINDEX"] {
        bob.refused(&cmd![name, "docs"], "NOPERM", "");
    }
    let all = [
        "+infer.reindex",
        "+infer.dropindex",
        "+sscan",
        "+sismember",
        "+srandmember",
        "+exists",
        "+rename",
        "+zcard",
        "+zrange",
        "+zrem",
        "~docs",
        "~drop:{docs}",
        "~cache-settings:{docs}",
        "~cache:{docs}*",
        "~answer:{docs}:*",
        "~answers:{docs}",
        "~drop-answers:{docs}",
    ];
    admin.ok(&cmd!["ACL", "SETUSER", "bob", &all]);
    bob.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the dog"]);
    bob.ok(&cmd!["INFER.REINDEX", "docs"]);
    eventually("the index is made anew", || {
        let info = bob.ok(&cmd!["INFER.INDEXINFO", "docs"]);
        text(field(field(&info, "reindex"), "state")) == "done"
    });
    assert_eq!(bob.ok(&cmd!["INFER.DROPINDEX", "docs"]), Value::Int(1));
}

#[test]
fn token_keys_are_checked_each_wherever_they_stand() {
    let server = Server::with(&[CHAT]);
    let mut admin = server.client();
    for key in ["mine", "secret"] {
        admin.ok(&cmd!["INFER.TOKENIZESTORE", key, "chat", "text"]);
    }
    let mut bob = user(&server, &["+@all", "~mine"]);
    bob.ok(&cmd!["INFER.DETOKENIZE", "chat", 1, "mine"]);
    bob.refused(&cmd!["INFER.DETOKENIZE", "chat", 2, "mine", "secret"], "NOPERM", "");
    bob.refused(&cmd!["INFER.GENERATE", "chat", 2, "mine", "secret", "MAXTOKENS", 1], "NOPERM", "");
    bob.refused(&cmd!["INFER.TOKENIZESTORE", "secret", "chat", "changed"], "NOPERM", "");
    assert_eq!(admin.text(&cmd!["INFER.DETOKENIZE", "chat", 1, "secret"]), "text");
}

#[test]
fn rights_that_are_taken_away_while_the_command_waits_are_gone() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut admin = server.client();
    create(&mut admin);
    let before = count(&mut admin);
    let mut bob = user(&server, &["+@all", "~*"]);
    // Long enough that the rights are gone before the document is written.
    let document = "the cat and the dog in the city\n\n".repeat(9000);
    bob.send(&cmd!["INFER.INGEST", "docs", "b.txt", document]);
    eventually("the document is being embedded", || server.requests("embed") == 1);
    admin.ok(&cmd!["ACL", "SETUSER", "bob", "resetkeys", "~docs"]);
    assert_eq!(bob.receive().unwrap_err().code, "NOPERM");
    assert_eq!(count(&mut admin), before);
}

#[test]
fn loading_needs_admin_rights_and_generating_does_not() {
    let server = Server::with(&[CHAT]);
    let mut bob = user(&server, &["+@infer", "-@admin", "~*"]);
    bob.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 1]);
    bob.ok(&cmd!["INFER.MODELS"]);
    bob.refused(&EMBED.load(), "NOPERM", "");
    bob.refused(&cmd!["INFER.UNLOAD", "chat"], "NOPERM", "");
    bob.refused(&cmd!["INFER.DEBUG", "PANIC", "chat"], "NOPERM", "");
}
