//! INFER.REINDEX.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use redis::Value;

use crate::harness::{
    ANIMALS, CHAT, Client, EMBED, FRANCE, SLOW_EMBED, STRICT, Server, SetOnDrop, array, cmd, documents, eventually,
    field, int, paragraph_index, text,
};

/// A server with an index `docs` of three documents, whose chunks are one paragraph each.
fn indexed() -> (Server, Client) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.resp3();
    client.ok(&paragraph_index("docs"));
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", format!("{ANIMALS}\n\n{FRANCE}"), "ATTRS", "{\"year\":1984}"]);
    client.ok(&cmd!["INFER.INGEST", "docs", "b.txt", FRANCE]);
    client.ok(&cmd!["INFER.INGEST", "docs", "c.txt", ANIMALS]);
    (server, client)
}

/// What INFER.INDEXINFO says, `reindex` apart.
fn info(client: &mut Client, name: &str) -> Value {
    field(&client.ok(&cmd!["INFER.INDEXINFO", "docs"]), name).clone()
}

/// The state of the re-index.
fn state(client: &mut Client) -> String {
    match info(client, "reindex") {
        Value::Nil => "none".to_owned(),
        progress => text(field(&progress, "state")).to_owned(),
    }
}

/// Waits for its end and returns its state.
fn ended(client: &mut Client) -> String {
    eventually("the re-index has ended", || ["done", "failed"].contains(&state(client).as_str()));
    state(client)
}

fn texts(client: &mut Client, query: &str) -> BTreeSet<String> {
    let found = client.ok(&cmd!["INFER.SEARCH", "docs", query, "K", 100, "WITHTEXT"]);
    array(&found).iter().map(|hit| format!("{} {}", text(field(hit, "id")), text(field(hit, "text")))).collect()
}

fn keys(client: &mut Client, pattern: &str) -> usize {
    array(&client.ok(&cmd!["KEYS", pattern])).len()
}

#[test]
fn an_index_made_anew_is_the_same_without_what_was_hidden() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["INFER.INGEST", "docs", "c.txt", "the file and the line"]);
    client.ok(&cmd!["INFER.FORGET", "docs", "b.txt"]);
    assert_eq!(int(&info(&mut client, "hidden")), 2);
    let (found, epoch) = (texts(&mut client, "the cat"), int(&info(&mut client, "epoch")));
    assert_eq!(state(&mut client), "none");
    assert_eq!(client.text(&cmd!["INFER.REINDEX", "docs"]), "OK");
    assert_eq!(ended(&mut client), "done");
    assert_eq!(texts(&mut client, "the cat"), found);
    for (name, expected) in
        [("hidden", 0), ("vectors", 3), ("documents", 2), ("chunks", 3), ("generation", 2), ("epoch", epoch + 1)]
    {
        assert_eq!(int(&info(&mut client, name)), expected, "{name}");
    }
    let progress = info(&mut client, "reindex");
    assert_eq!(["done", "documents"].map(|name| int(field(&progress, name))), [2, 2]);
    assert_eq!(field(&progress, "error"), &Value::Nil);
    assert_eq!(documents(&mut client, "docs")["a.txt"], [ANIMALS, FRANCE]);
    // Only keys of the new generation are there.
    assert_eq!(keys(&mut client, "*{docs}*"), keys(&mut client, "*{docs}@2*"));
    let filtered = cmd!["VSIM", "vec:{docs}@2", "VALUES", 64, vec![1; 64], "FILTER", ".year == 1984"];
    assert_eq!(array(&client.ok(&filtered)).len(), 2);
}

#[test]
fn documents_are_unchanged_after_a_reindex_and_the_third_generation_replaces_the_second() {
    let (_server, mut client) = indexed();
    for generation in [2, 3] {
        client.ok(&cmd!["INFER.REINDEX", "docs"]);
        assert_eq!(ended(&mut client), "done");
        let reply = client.ok(&cmd!["INFER.INGEST", "docs", "b.txt", FRANCE]);
        assert_eq!(["added", "kept"].map(|name| int(field(&reply, name))), [0, 1]);
        assert_eq!(keys(&mut client, "*{docs}*"), keys(&mut client, &format!("*{{docs}}@{generation}*")));
    }
    assert_eq!(client.ok(&cmd!["INFER.DROPINDEX", "docs"]), Value::Int(3));
    assert_eq!(keys(&mut client, "*docs*"), 0);
}

#[test]
fn other_models_take_over() {
    let (_server, mut client) = indexed();
    client.ok(&SLOW_EMBED.load());
    client.ok(&STRICT.load());
    let command = cmd!["INFER.REINDEX", "docs", "EMBEDMODEL", "slow-embed", "GENMODEL", "strict"];
    client.ok(&command);
    assert_eq!(ended(&mut client), "done");
    assert_eq!(text(&info(&mut client, "embed_model")), "slow-embed");
    assert_eq!(text(&info(&mut client, "gen_model")), "strict");
    assert_eq!(int(&info(&mut client, "dim")), 256);
    assert_eq!(int(field(&client.ok(&cmd!["VINFO", "vec:{docs}@2"]), "vector-dim")), 256);
    client.ok(&cmd!["INFER.UNLOAD", "embed"]);
    client.ok(&cmd!["INFER.UNLOAD", "chat"]);
    assert_eq!(texts(&mut client, "the cat").len(), 4);
    client.ok(&cmd!["INFER.INGEST", "docs", "d.txt", "the queue"]);
    client.ok(&CHAT.load());
    documents(&mut client, "docs");
    assert_eq!(texts(&mut client, "the cat").len(), 5);
}

#[test]
fn a_model_loaded_in_another_way_is_a_mismatch_that_a_reindex_mends() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["INFER.UNLOAD", "embed"]);
    client.ok(&cmd!["INFER.LOAD", "embed", EMBED.path().to_str().unwrap(), "POOLING", "CLS"]);
    client.refused(&cmd!["INFER.SEARCH", "docs", "the cat"], "MISMATCH", "INFER.REINDEX");
    client.ok(&cmd!["INFER.REINDEX", "docs"]);
    assert_eq!(ended(&mut client), "done");
    assert_eq!(texts(&mut client, "the cat").len(), 4);
}

#[test]
fn tokens_that_no_loaded_model_can_read_are_a_mismatch() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["HSET", "docs", "tokenizer", "another"]);
    client.refused(&cmd!["INFER.REINDEX", "docs"], "MISMATCH", "no loaded model has the tokenizer");
    client.ok(&cmd!["INFER.UNLOAD", "chat"]);
    client.refused(&cmd!["INFER.REINDEX", "docs"], "NOMODEL", "");
    assert_eq!(state(&mut client), "none");
}

/// Adds documents enough that a re-index takes a while.
fn fill(client: &mut Client, documents: usize) {
    for number in 0..documents {
        client.ok(&cmd![
            "INFER.INGEST",
            "docs",
            format!("{number}.txt"),
            format!("the {number} and the cat of the city in the line")
        ]);
    }
}

/// Begins a re-index with a model that takes its time, and waits until it has made some documents.
fn begin(client: &mut Client) {
    client.ok(&SLOW_EMBED.load());
    client.ok(&cmd!["INFER.REINDEX", "docs", "EMBEDMODEL", "slow-embed"]);
    eventually("some documents are made", || int(field(&info(client, "reindex"), "done")) > 2);
}

#[test]
fn documents_that_change_meanwhile_are_taken_over() {
    let (_server, mut client) = indexed();
    fill(&mut client, 60);
    begin(&mut client);
    client.refused(&cmd!["INFER.REINDEX", "docs"], "ERR", "is being made anew already");
    let mut number = 0;
    while state(&mut client) == "running" {
        client.ok(&cmd!["INFER.INGEST", "docs", format!("{}.txt", number % 60), format!("the {number} and the dog")]);
        client.ok(&cmd!["INFER.INGEST", "docs", format!("new{number}.txt"), "the queue"]);
        client.ok(&cmd!["INFER.FORGET", "docs", format!("new{}.txt", number / 2)]);
        number += 1;
        // What comes after the switch is no test of it.
        if number == 40 {
            break;
        }
    }
    let before = texts(&mut client, "the dog");
    assert_eq!(ended(&mut client), "done");
    assert_eq!(texts(&mut client, "the dog"), before);
    documents(&mut client, "docs");
    let info = client.ok(&cmd!["INFER.INDEXINFO", "docs"]);
    assert_eq!(int(field(&info, "vectors")), int(field(&info, "chunks")));
    assert_eq!(text(field(&info, "embed_model")), "slow-embed");
}

#[test]
fn searches_go_on_during_a_reindex() {
    let (server, mut client) = indexed();
    fill(&mut client, 40);
    let (done, searches) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _done = SetOnDrop(&done);
        scope.spawn(|| {
            let mut reader = server.client();
            while !done.load(Ordering::Relaxed) {
                let found = reader.ok(&cmd!["INFER.SEARCH", "docs", "the cat", "K", 100]);
                assert_eq!(array(&found).len(), 44);
                searches.fetch_add(1, Ordering::Relaxed);
            }
        });
        // The first may be over before the first search is.
        eventually("there was a search", || {
            client.ok(&cmd!["INFER.REINDEX", "docs"]);
            assert_eq!(ended(&mut client), "done");
            searches.load(Ordering::Relaxed) > 0
        });
    });
}

#[test]
fn a_reindex_is_listed_and_can_be_cancelled() {
    let (_server, mut client) = indexed();
    fill(&mut client, 60);
    begin(&mut client);
    let requests = client.ok(&cmd!["INFER.PS"]);
    let listed = array(&requests).iter().find(|request| text(field(request, "command")) == "INFER.REINDEX").unwrap();
    assert_eq!(client.ok(&cmd!["INFER.CANCEL", int(field(listed, "id"))]), Value::Int(1));
    assert_eq!(ended(&mut client), "failed");
    let error = text(field(&info(&mut client, "reindex"), "error")).to_owned();
    assert!(error.starts_with("CANCELLED"), "{error}");
    assert_eq!(array(&client.ok(&cmd!["INFER.PS"])).len(), 0);
    // The old data is there and in use, of the new nothing is left.
    assert_eq!(keys(&mut client, "*{docs}@*"), 0);
    assert_eq!(texts(&mut client, "the cat").len(), 64);
    client.ok(&cmd!["INFER.REINDEX", "docs"]);
    assert_eq!(ended(&mut client), "done");
}

#[test]
fn a_chunk_whose_tokens_are_gone_is_named_and_the_old_data_stays() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["DEL", "tokens:{docs}:a.txt:chunk_1"]);
    client.ok(&cmd!["INFER.REINDEX", "docs"]);
    assert_eq!(ended(&mut client), "failed");
    let error = text(field(&info(&mut client, "reindex"), "error")).to_owned();
    assert!(error.contains("the tokens of chunk 'a.txt:chunk_1' are gone"), "{error}");
    assert_eq!((texts(&mut client, "the cat").len(), keys(&mut client, "*{docs}@*")), (3, 0));
}

#[test]
fn an_index_dropped_or_flushed_during_a_reindex_stays_gone() {
    for end in [cmd!["INFER.DROPINDEX", "docs"], cmd!["FLUSHDB"]] {
        let (_server, mut client) = indexed();
        fill(&mut client, 60);
        begin(&mut client);
        client.ok(&end);
        eventually("the re-index has noticed", || array(&client.ok(&cmd!["INFER.PS"])).is_empty());
        assert_eq!(keys(&mut client, "*docs*"), 0);
    }
}

#[test]
fn what_an_interrupted_reindex_left_behind_is_removed_by_the_next() {
    let (_server, mut client) = indexed();
    // As a crash leaves it.
    client.ok(&cmd!["SADD", "paths:{docs}@2", "a.txt", "gone.txt"]);
    client.ok(&cmd!["HSET", "doc:{docs}@2:gone.txt", "chunks", 1]);
    client.ok(&cmd!["SET", "tokens:{docs}@2:gone.txt:chunk_0", "abcd"]);
    client.ok(&cmd!["VADD", "vec:{docs}@2", "VALUES", 2, 1, 2, "x"]);
    client.ok(&cmd!["INFER.REINDEX", "docs"]);
    assert_eq!(ended(&mut client), "done");
    documents(&mut client, "docs");
    assert_eq!(keys(&mut client, "*gone*"), 0);
    assert_eq!(int(&client.ok(&cmd!["VCARD", "vec:{docs}@2"])), 4);
}

#[test]
fn a_user_without_the_right_to_the_next_generation_is_noperm() {
    let (server, mut client) = indexed();
    client.ok(&cmd!["ACL", "SETUSER", "bob", "on", ">pw", "+@all", "~docs", "~*:{docs}", "~*:{docs}:*"]);
    let mut bob = server.client();
    bob.ok(&cmd!["AUTH", "bob", "pw"]);
    bob.refused(&cmd!["INFER.REINDEX", "docs"], "NOPERM", "");
    assert_eq!(state(&mut client), "none");
    client.ok(&cmd!["ACL", "SETUSER", "bob", "~*:{docs}@*"]);
    bob.ok(&cmd!["INFER.REINDEX", "docs"]);
    assert_eq!(ended(&mut client), "done");
}

#[test]
fn a_reindex_cannot_have_models_that_an_index_could_not_have() {
    let (_server, mut client) = indexed();
    client.refused(
        &cmd!["INFER.REINDEX", "docs", "EMBEDMODEL", "chat"],
        "ERR",
        "this command needs a model for embedding",
    );
    client.refused(&cmd!["INFER.REINDEX", "docs", "GENMODEL", "nobody"], "NOMODEL", "");
    client.ok(&crate::harness::BASE.load());
    client.refused(&cmd!["INFER.REINDEX", "docs", "GENMODEL", "base"], "ERR", "no usable chat template");
    client.refused(&cmd!["INFER.REINDEX", "other"], "NOINDEX", "no index 'other'");
}
