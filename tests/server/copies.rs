//! The documented keys under DUMP, RESTORE, RENAME, COPY, MOVE and expiry: plain Redis data, and docs/INDEXES.md says what
//! happens.

use redis::Value;

use crate::harness::{
    CHAT, Client, EMBED, Server, array, bytes, cmd, documents, field, keys_of, paragraph_index, text,
};

/// Three chunks.
const ANIMALS: [&str; 3] =
    ["the cat and the dog in the city", "the dog and the file of the cat", "paris and the memory of a server"];

fn indexed() -> (Server, Client) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&paragraph_index("docs"));
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", ANIMALS.join("\n\n"), "ATTRS", r#"{"n":1}"#]);
    client.ok(&cmd!["INFER.INGEST", "docs", "b.txt", "paris in france"]);
    (server, client)
}

/// Ids and texts of what a search finds.
fn found(client: &mut Client, index: &str) -> Vec<(String, String)> {
    let found = client.ok(&cmd!["INFER.SEARCH", index, "the cat", "K", 20, "WITHTEXT"]);
    array(&found).iter().map(|hit| ["id", "text"].map(|name| text(field(hit, name)).to_owned()).into()).collect()
}

#[test]
fn keys_that_are_dumped_and_restored_in_another_server_are_an_index_there() {
    let (_server, mut client) = indexed();
    let other = Server::with(&[CHAT, EMBED]);
    let mut target = other.client();
    for key in keys_of(&mut client, "docs").iter().map(String::as_str).chain(["docs"]) {
        let dump = client.ok(&cmd!["DUMP", key]);
        target.ok(&cmd!["RESTORE", key, 0, bytes(&dump)]);
    }
    assert_eq!(documents(&mut target, "docs"), documents(&mut client, "docs"));
    assert_eq!(found(&mut target, "docs"), found(&mut client, "docs"));
    // Chunks are kept: their versions are known.
    let reply = target.ok(&cmd!["INFER.INGEST", "docs", "b.txt", "paris in france"]);
    assert_eq!(field(&reply, "kept"), &Value::Int(1));
}

#[test]
fn an_index_is_copied_and_renamed_by_doing_so_with_all_its_keys() {
    let (_server, mut client) = indexed();
    let before = (documents(&mut client, "docs"), found(&mut client, "docs"));
    let renamed = |key: &str| key.replacen("{docs}", "{notes}", 1);
    for key in keys_of(&mut client, "docs") {
        // Redis' COPY does not know vector sets.
        let dump = client.ok(&cmd!["DUMP", &key]);
        client.ok(&cmd!["RESTORE", renamed(&key), 0, bytes(&dump)]);
    }
    assert_eq!(client.ok(&cmd!["COPY", "docs", "notes"]), Value::Int(1));
    assert_eq!((documents(&mut client, "notes"), found(&mut client, "notes")), before);
    // They have nothing to do with each other.
    client.ok(&cmd!["INFER.FORGET", "notes", "a.txt"]);
    assert_eq!((documents(&mut client, "docs"), found(&mut client, "docs")), before);
    for key in keys_of(&mut client, "notes") {
        client.ok(&cmd!["DEL", &key]);
    }
    for key in keys_of(&mut client, "docs") {
        client.ok(&cmd!["RENAME", &key, renamed(&key)]);
    }
    client.ok(&cmd!["RENAME", "docs", "notes"]);
    assert_eq!((documents(&mut client, "notes"), found(&mut client, "notes")), before);
    client.refused(&cmd!["INFER.SEARCH", "docs", "the cat"], "NOINDEX", "no index 'docs'");
}

#[test]
fn an_index_works_in_any_database_and_not_in_those_that_lack_a_part() {
    let (_server, mut client) = indexed();
    let before = (documents(&mut client, "docs"), found(&mut client, "docs"));
    for key in keys_of(&mut client, "docs").iter().map(String::as_str).chain(["docs"]) {
        assert_eq!(client.ok(&cmd!["MOVE", key, 5]), Value::Int(1));
    }
    client.refused(&cmd!["INFER.SEARCH", "docs", "the cat"], "NOINDEX", "");
    client.ok(&cmd!["SELECT", 5]);
    assert_eq!((documents(&mut client, "docs"), found(&mut client, "docs")), before);
    client.ok(&cmd!["SWAPDB", 5, 6]);
    client.refused(&cmd!["INFER.SEARCH", "docs", "the cat"], "NOINDEX", "");
    client.ok(&cmd!["SELECT", 6]);
    assert_eq!((documents(&mut client, "docs"), found(&mut client, "docs")), before);
}

#[test]
fn the_settings_under_another_name_are_an_empty_index() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["RENAME", "docs", "notes"]);
    client.refused(&cmd!["INFER.SEARCH", "docs", "the cat"], "NOINDEX", "");
    assert_eq!(found(&mut client, "notes"), []);
    client.ok(&cmd!["INFER.INGEST", "notes", "a.txt", "the cat"]);
    assert_eq!(documents(&mut client, "notes")["a.txt"], ["the cat"]);
    client.ok(&cmd!["COPY", "notes", "docs"]);
    assert_eq!(found(&mut client, "docs").len(), 4);
}

#[test]
fn a_chunk_whose_tokens_have_expired_is_not_found_until_it_is_ingested_again() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["PEXPIRE", "tokens:{docs}:a.txt:chunk_0", 1]);
    client.ok(&cmd!["EXPIREAT", "tokens:{docs}:a.txt:chunk_1", 1]);
    crate::harness::eventually("the tokens are gone", || {
        client.ok(&cmd!["EXISTS", "tokens:{docs}:a.txt:chunk_0", "tokens:{docs}:a.txt:chunk_1"]) == Value::Int(0)
    });
    let ids: Vec<String> = found(&mut client, "docs").into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    assert!(ids.iter().all(|id| id == "a.txt:chunk_2" || id == "b.txt:chunk_0"), "{ids:?}");
    let answer = client.ok(&cmd!["INFER.RAG", "docs", "the cat", "K", 20, "WITHSOURCES", "MAXTOKENS", 2]);
    assert_eq!(array(field(&answer, "sources")).len(), 2);
    let reply = client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", ANIMALS.join("\n\n"), "ATTRS", r#"{"n":1}"#]);
    assert_eq!(field(&reply, "added"), &Value::Int(2));
    assert_eq!(documents(&mut client, "docs")["a.txt"], ANIMALS);
}

#[test]
fn tokens_that_are_evicted_leave_an_index_that_answers_and_can_be_made_whole() {
    let (_server, mut client) = indexed();
    let paragraphs: Vec<String> = (0..200).map(|number| format!("the cat and the dog number {number}")).collect();
    client.ok(&cmd!["INFER.INGEST", "docs", "c.txt", paragraphs.join("\n\n")]);
    // Only keys with an expiry may go, and these are the tokens.
    client.ok(&cmd!["CONFIG", "SET", "maxmemory-policy", "volatile-random"]);
    for key in keys_of(&mut client, "docs").iter().filter(|key| key.starts_with("tokens:")) {
        client.ok(&cmd!["EXPIRE", key, 1_000_000]);
    }
    let used = client.text(&cmd!["INFO", "memory"]);
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().parse::<u64>().unwrap();
    client.ok(&cmd!["CONFIG", "SET", "maxmemory", used - 8_000]);
    crate::harness::eventually("keys are evicted", || {
        client.ok(&cmd!["PING"]);
        !client.text(&cmd!["INFO", "stats"]).contains("\nevicted_keys:0\r")
    });
    client.ok(&cmd!["CONFIG", "SET", "maxmemory", 0]);
    let left = keys_of(&mut client, "docs").iter().filter(|key| key.starts_with("tokens:")).count();
    assert!(left < 204, "{left}");
    let found = client.ok(&cmd!["INFER.SEARCH", "docs", "the cat", "K", 200]);
    assert!(array(&found).len() <= left);
    client.ok(&cmd!["INFER.RAG", "docs", "the cat", "MAXTOKENS", 2]);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", ANIMALS.join("\n\n"), "ATTRS", r#"{"n":1}"#]);
    client.ok(&cmd!["INFER.INGEST", "docs", "b.txt", "paris in france"]);
    client.ok(&cmd!["INFER.INGEST", "docs", "c.txt", paragraphs.join("\n\n")]);
    assert_eq!(documents(&mut client, "docs")["c.txt"], paragraphs);
}
