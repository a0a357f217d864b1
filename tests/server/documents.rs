//! Documents of an index: their attributes, INFER.FORGET, and what INFER.INDEXINFO says of them.

use std::collections::BTreeSet;

use redis::Value;

use crate::harness::{
    ANIMALS, CHAT, Client, EMBED, FRANCE, Server, array, cmd, eventually, field, int, paragraph_index, text,
};

/// A server with an empty index `docs` whose chunks are one paragraph each.
fn indexed() -> (Server, Client) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.resp3();
    client.ok(&paragraph_index("docs"));
    (server, client)
}

/// Added, kept and removed chunks.
#[track_caller]
fn ingest(client: &mut Client, path: &str, text: &str, attrs: &str) -> [i64; 3] {
    let reply = client.ok(&cmd!["INFER.INGEST", "docs", path, text, "ATTRS", attrs]);
    ["added", "kept", "removed"].map(|name| int(field(&reply, name)))
}

/// Names of the elements that a filter finds.
fn filtered(client: &mut Client, filter: &str) -> BTreeSet<String> {
    let found = client.ok(&cmd!["VSIM", "vec:{docs}", "VALUES", 64, vec![1; 64], "FILTER", filter]);
    array(&found).iter().map(|name| text(name).split('@').next().unwrap_or_default().to_owned()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn info(client: &mut Client, name: &str) -> i64 {
    int(field(&client.ok(&cmd!["INFER.INDEXINFO", "docs"]), name))
}

/// Texts embedded since the server started.
fn embedded(client: &mut Client) -> String {
    let info = client.text(&cmd!["INFO", "infer"]);
    info.lines().find(|line| line.starts_with("infer_embedded_texts:")).unwrap().to_owned()
}

#[test]
fn attributes_of_a_document_can_be_filtered_by() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", &format!("{ANIMALS}\n\n{FRANCE}"), r#"{"year":1984,"tags":["x","y"],"open":true}"#);
    ingest(&mut client, "b.md", ANIMALS, r#"{"year":2001,"name":"b"}"#);
    for (filter, found) in [
        (".year < 2000", &["a.txt:chunk_0", "a.txt:chunk_1"][..]),
        (".year > 2000 and .name == 'b'", &["b.md:chunk_0"]),
        ("'y' in .tags", &["a.txt:chunk_0", "a.txt:chunk_1"]),
        (".open", &["a.txt:chunk_0", "a.txt:chunk_1"]),
        (".ext == 'md'", &["b.md:chunk_0"]),
        (".path == 'a.txt' and .first_line >= 3 and .last_line == 3 and .chunk == 1", &["a.txt:chunk_1"]),
        (".tags == 1", &[]),
    ] {
        assert_eq!(filtered(&mut client, filter), set(found), "{filter}");
    }
}

#[test]
fn other_attributes_alone_are_written_without_embedding_anything() {
    let (_server, mut client) = indexed();
    let document = format!("{ANIMALS}\n\n{FRANCE}");
    ingest(&mut client, "a.txt", &document, r#"{"year":1984,"old":1}"#);
    let before = (embedded(&mut client), client.ok(&cmd!["VCARD", "vec:{docs}"]));
    assert_eq!(ingest(&mut client, "a.txt", &document, r#"{"year":2001}"#), [0, 2, 0]);
    assert_eq!(filtered(&mut client, ".year == 2001"), set(&["a.txt:chunk_0", "a.txt:chunk_1"]));
    assert_eq!(filtered(&mut client, ".old"), set(&[]));
    assert_eq!(client.text(&cmd!["HGET", "doc:{docs}:a.txt", "attrs"]), r#"{"year":2001}"#);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", &document]);
    assert_eq!(filtered(&mut client, ".year"), set(&[]));
    assert_eq!((embedded(&mut client), client.ok(&cmd!["VCARD", "vec:{docs}"])), before);
}

#[test]
fn attributes_that_cannot_be_used_are_refused_and_change_nothing() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", ANIMALS, "{}");
    for (attrs, problem) in [
        ("{", "EOF while parsing"),
        ("[1]", "expected a JSON object"),
        (r#"{"a":{"b":1}}"#, "the member 'a' is no string"),
        (r#"{"first_line":1}"#, "the member first_line is one that INFER.INGEST writes itself"),
        (&format!(r#"{{"a":"{}"}}"#, "x".repeat(4096)), "longer than 4096 bytes"),
    ] {
        let command = cmd!["INFER.INGEST", "docs", "a.txt", FRANCE, "ATTRS", attrs];
        client.refused(&command, "ERR", problem);
    }
    let stored = client.text(&cmd!["INFER.DETOKENIZE", "chat", 1, "tokens:{docs}:a.txt:chunk_0"]);
    assert_eq!(stored, ANIMALS);
}

#[test]
fn a_forgotten_document_is_gone_and_the_others_stay() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", &format!("{ANIMALS}\n\n{FRANCE}"), "{}");
    ingest(&mut client, "b.txt", ANIMALS, "{}");
    assert_eq!(client.ok(&cmd!["INFER.FORGET", "docs", "a.txt"]), Value::Int(2));
    assert_eq!(client.ok(&cmd!["INFER.FORGET", "docs", "a.txt"]), Value::Int(0));
    assert_eq!(client.ok(&cmd!["KEYS", "*a.txt*"]), Value::Array(Vec::new()));
    assert_eq!(client.ok(&cmd!["SMEMBERS", "paths:{docs}"]), Value::Set(vec![Value::BulkString("b.txt".into())]));
    let found = client.ok(&cmd!["INFER.SEARCH", "docs", "the cat"]);
    let [hit] = array(&found) else { panic!("not one hit: {found:?}") };
    assert_eq!(text(field(hit, "path")), "b.txt");
    client.ok(&cmd!["INFER.UNLOAD", "chat"]);
    client.ok(&cmd!["INFER.UNLOAD", "embed"]);
    assert_eq!(client.ok(&cmd!["INFER.FORGET", "docs", "b.txt"]), Value::Int(1));
    assert_eq!(client.ok(&cmd!["EXISTS", "vec:{docs}", "paths:{docs}"]), Value::Int(0));
}

#[test]
fn documents_are_forgotten_above_maxmemory_and_in_transactions() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", ANIMALS, "{}");
    ingest(&mut client, "b.txt", ANIMALS, "{}");
    client.ok(&cmd!["CONFIG", "SET", "maxmemory", 1]);
    client.refused(&cmd!["INFER.INGEST", "docs", "a.txt", FRANCE], "OOM", "");
    client.ok(&cmd!["MULTI"]);
    client.ok(&cmd!["INFER.FORGET", "docs", "a.txt"]);
    assert_eq!(client.ok(&cmd!["EXEC"]), Value::Array(vec![Value::Int(1)]));
    assert_eq!(info(&mut client, "documents"), 1);
}

#[test]
fn indexinfo_counts_what_the_index_holds() {
    let (server, mut client) = indexed();
    assert_eq!(["documents", "chunks", "tokens", "vectors", "epoch"].map(|name| info(&mut client, name)), [0; 5]);
    ingest(&mut client, "a.txt", &format!("{ANIMALS}\n\n{FRANCE}"), "{}");
    ingest(&mut client, "b.txt", ANIMALS, "{}");
    ingest(&mut client, "a.txt", FRANCE, "{}");
    // Nothing changes, so nothing is counted.
    ingest(&mut client, "b.txt", ANIMALS, "{}");
    let mut stored = 0;
    for path in ["a.txt", "b.txt"] {
        stored += int(&client.ok(&cmd!["STRLEN", format!("tokens:{{docs}}:{path}:chunk_0")]));
    }
    let bytes = int(&client.ok(&cmd!["MEMORY", "USAGE", "vec:{docs}"]));
    for mut client in [server.client(), server.resp3()] {
        let reply = client.ok(&cmd!["INFER.INDEXINFO", "docs"]);
        for (name, value) in [
            ("documents", 2),
            ("chunks", 2),
            ("tokens", stored / 4),
            ("vectors", 2),
            ("hidden", 2),
            ("vector_bytes", bytes),
            ("token_bytes", stored),
            ("dim", 64),
            ("max_tokens", 16),
            ("overlap", 0),
            ("generation", 1),
            ("epoch", 3),
            ("pending", 0),
        ] {
            assert_eq!(int(field(&reply, name)), value, "{name}");
        }
        for (name, value) in [("embed_model", "embed"), ("gen_model", "chat"), ("quant", "Q8")] {
            assert_eq!(text(field(&reply, name)), value);
        }
        assert_eq!(field(&reply, "reindex"), &Value::Nil);
    }
    client.refused(&cmd!["INFER.INDEXINFO", "other"], "NOINDEX", "no index 'other'");
}

#[test]
fn indexinfo_counts_the_documents_on_their_way() {
    let (server, mut client) = indexed();
    let mut writer = server.client();
    writer.send(&cmd!["INFER.INGEST", "docs", "a.txt", format!("{ANIMALS}\n\n").repeat(1000)]);
    eventually("the document is on its way", || info(&mut client, "pending") == 1);
    drop(writer);
    eventually("nothing is on its way", || info(&mut client, "pending") == 0);
}

#[test]
fn what_has_not_changed_is_not_embedded_again() {
    let (_server, mut client) = indexed();
    let document = format!("{ANIMALS}\n\n{FRANCE}");
    ingest(&mut client, "a.txt", &document, "{}");
    let before = embedded(&mut client);
    assert_eq!(ingest(&mut client, "a.txt", &document, "{}"), [0, 2, 0]);
    // Only blank lines differ: the chunks are the same.
    assert_eq!(ingest(&mut client, "a.txt", &format!("{document}\n\n"), "{}"), [0, 2, 0]);
    // Tokens alone are made anew where the vector is there.
    client.ok(&cmd!["DEL", "tokens:{docs}:a.txt:chunk_1"]);
    assert_eq!(ingest(&mut client, "a.txt", &document, "{}"), [1, 1, 0]);
    ingest(&mut client, "a.txt", ANIMALS, "{}");
    assert_eq!(ingest(&mut client, "a.txt", &document, "{}"), [1, 1, 0]);
    assert_eq!(embedded(&mut client), before);
    assert_eq!(ingest(&mut client, "a.txt", &document.replace("paris", "cat"), "{}"), [1, 1, 0]);
    assert_ne!(embedded(&mut client), before);
}

#[test]
fn an_unchanged_document_is_answered_much_faster_than_a_new_one() {
    let (_server, mut client) = indexed();
    let document = format!("{ANIMALS}\n\n{FRANCE}\n\n").repeat(250);
    let mut time = || {
        let since = std::time::Instant::now();
        ingest(&mut client, "a.txt", &document, "{}");
        since.elapsed().as_secs_f64()
    };
    let new = time();
    // The machine may be busy with something else during one or two of them.
    let ratio = (0..3).map(|_| new / time()).fold(0.0, f64::max);
    crate::harness::report(&format!("an unchanged document is ingested {ratio:.0} times faster than a new one"));
    assert!(ratio > 2.0);
}
