//! INFER.INDEX, INFER.INGEST, INFER.SEARCH.

use std::collections::BTreeSet;

use redis::Value;

use crate::harness::{
    ANIMALS, BASE, CHAT, Client, EMBED, FRANCE, Server, array, cmd, field, float, int, paragraph_index, text,
};

/// Three paragraphs, each about as long as a chunk of 16 tokens may be.
const QUEUE: &str = "redis server memory and the queue of the worker thread";

fn document() -> String {
    format!("{ANIMALS}\n\n{FRANCE}\n\n{QUEUE}\n")
}

/// A server with an empty index `docs` whose chunks are one paragraph each.
fn indexed() -> (Server, Client) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.resp3();
    client.ok(&paragraph_index("docs"));
    (server, client)
}

/// Added, kept and removed chunks.
#[track_caller]
fn ingest(client: &mut Client, path: &str, text: &str) -> [i64; 3] {
    let reply = client.ok(&cmd!["INFER.INGEST", "docs", path, text]);
    ["added", "kept", "removed"].map(|name| int(field(&reply, name)))
}

fn keys(client: &mut Client) -> BTreeSet<String> {
    array(&client.ok(&cmd!["KEYS", "*"])).iter().map(|key| text(key).to_owned()).collect()
}

#[test]
fn an_index_is_a_hash_of_its_settings() {
    let (_server, mut client) = indexed();
    let settings = client.ok(&cmd!["HGETALL", "docs"]);
    for (name, value) in [
        ("embed_model", "embed"),
        ("gen_model", "chat"),
        ("dim", "64"),
        ("max_tokens", "16"),
        ("overlap", "0"),
        ("quant", "Q8"),
    ] {
        assert_eq!(text(field(&settings, name)), value);
    }
    assert_eq!(keys(&mut client).len(), 1);
}

#[test]
fn the_same_settings_again_change_nothing_and_other_settings_are_refused() {
    let (_server, mut client) = indexed();
    let index = |client: &mut Client, max: u32, quant: &str| {
        client.call(&cmd![
            "INFER.INDEX",
            "docs",
            "EMBEDMODEL",
            "embed",
            "GENMODEL",
            "chat",
            "MAXTOKENS",
            max,
            "OVERLAP",
            0,
            "QUANT",
            quant
        ])
    };
    let before = client.ok(&cmd!["DUMP", "docs"]);
    index(&mut client, 16, "Q8").unwrap();
    let refusal = index(&mut client, 32, "BIN").unwrap_err();
    assert_eq!(refusal.code, "ERR");
    let expected = "exists with other settings (max_tokens is 16, not 32, quant is Q8, not BIN)";
    assert!(refusal.text.contains(expected), "{}", refusal.text);
    assert_eq!(client.ok(&cmd!["DUMP", "docs"]), before);
}

#[test]
fn a_model_without_a_chat_template_cannot_answer_for_an_index() {
    let server = Server::with(&[BASE, EMBED]);
    let command = cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "base"];
    server.client().refused(&command, "ERR", "has no usable chat template, which INFER.RAG needs");
    assert!(keys(&mut server.client()).is_empty());
}

#[test]
fn chunks_larger_than_the_embedding_model_reads_are_refused() {
    let server = Server::with(&[CHAT, EMBED]);
    let command = cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat", "MAXTOKENS", 300];
    server.client().refused(&command, "CTXLIMIT", "MAXTOKENS 300 is more than the 256 tokens");
}

/// The element of a chunk, from the document's hash.
fn element(client: &mut Client, path: &str, chunk: u32) -> String {
    let version = client.text(&cmd!["HGET", format!("doc:{{docs}}:{path}"), format!("chunk_{chunk}")]);
    format!("{path}:chunk_{chunk}@{version}")
}

/// How many elements a search can find.
fn visible(client: &mut Client) -> i64 {
    int(field(&client.ok(&cmd!["VINFO", "vec:{docs}"]), "attributes-count"))
}

#[test]
fn a_document_becomes_a_key_per_chunk_one_hash_and_elements_of_the_vector_set() {
    let (_server, mut client) = indexed();
    assert_eq!(ingest(&mut client, "src/a b.txt", &document()), [3, 0, 0]);
    let expected = [
        "doc:{docs}:src/a b.txt",
        "docs",
        "paths:{docs}",
        "stats:{docs}",
        "tokens:{docs}:src/a b.txt:chunk_0",
        "tokens:{docs}:src/a b.txt:chunk_1",
        "tokens:{docs}:src/a b.txt:chunk_2",
        "vec:{docs}",
    ];
    assert_eq!(keys(&mut client), expected.map(str::to_owned).into());
    assert_eq!(int(&client.ok(&cmd!["VCARD", "vec:{docs}"])), 3);
    assert_eq!(client.text(&cmd!["HGET", "doc:{docs}:src/a b.txt", "chunks"]), "3");
    let element = element(&mut client, "src/a b.txt", 1);
    let attributes = client.text(&cmd!["VGETATTR", "vec:{docs}", element]);
    let attributes: serde_json::Value = serde_json::from_str(&attributes).unwrap();
    let expected =
        serde_json::json!({ "path": "src/a b.txt", "chunk": 1, "first_line": 3, "last_line": 3, "ext": "txt" });
    assert_eq!(attributes, expected);
    let stored = client.text(&cmd!["INFER.DETOKENIZE", "chat", 1, "tokens:{docs}:src/a b.txt:chunk_1"]);
    assert_eq!(stored, FRANCE);
}

#[test]
fn a_document_sent_again_is_kept() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", &document());
    assert_eq!(ingest(&mut client, "a.txt", &document()), [0, 3, 0]);
}

#[test]
fn only_the_chunk_that_changed_is_written() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", &document());
    let kept = client.ok(&cmd!["DUMP", "tokens:{docs}:a.txt:chunk_0"]);
    let changed = document().replace("capital", "file");
    assert_eq!(ingest(&mut client, "a.txt", &changed), [1, 2, 0]);
    assert_eq!(client.ok(&cmd!["DUMP", "tokens:{docs}:a.txt:chunk_0"]), kept);
    let stored = client.text(&cmd!["INFER.DETOKENIZE", "chat", 1, "tokens:{docs}:a.txt:chunk_1"]);
    assert_eq!(stored, FRANCE.replace("capital", "file"));
    assert_eq!(visible(&mut client), 3);
}

#[test]
fn chunks_that_a_shorter_document_lacks_are_removed() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", &document());
    assert_eq!(ingest(&mut client, "a.txt", ANIMALS), [0, 1, 2]);
    let expected =
        ["doc:{docs}:a.txt", "docs", "paths:{docs}", "stats:{docs}", "tokens:{docs}:a.txt:chunk_0", "vec:{docs}"];
    assert_eq!(keys(&mut client), expected.map(str::to_owned).into());
    assert_eq!(visible(&mut client), 1);
    let versions = array(&client.ok(&cmd!["HKEYS", "doc:{docs}:a.txt"]))
        .iter()
        .filter(|name| text(name).starts_with("chunk_"))
        .count();
    assert_eq!(versions, 1);
}

#[test]
fn an_empty_document_leaves_only_counters() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", &document());
    assert_eq!(ingest(&mut client, "a.txt", " \n\n"), [0, 0, 3]);
    assert_eq!(keys(&mut client), ["docs".to_owned(), "stats:{docs}".to_owned()].into());
}

#[test]
fn two_documents_do_not_touch_each_other() {
    let (_server, mut client) = indexed();
    // One path begins like an element of the other.
    ingest(&mut client, "a", &document());
    ingest(&mut client, "a:chunk_0", &document());
    ingest(&mut client, "a", "");
    assert_eq!(ingest(&mut client, "a:chunk_0", &document()), [0, 3, 0]);
    assert_eq!(visible(&mut client), 3);
}

#[test]
fn overlap_repeats_a_paragraph_and_lines_say_so() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat", "MAXTOKENS", 32]);
    ingest(&mut client, "a.txt", &document());
    let found = client.ok(&cmd!["INFER.SEARCH", "docs", "the cat", "K", 10]);
    let mut lines: Vec<Vec<i64>> =
        array(&found).iter().map(|hit| array(field(hit, "lines")).iter().map(int).collect()).collect();
    lines.sort();
    assert_eq!(lines, [[1, 3], [3, 5]]);
}

#[test]
fn a_search_finds_the_chunk_that_is_about_the_query() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "docs/a.txt", &document());
    for (query, chunk, line) in
        [("a dog or a cat", 0, 1), ("the capital of france", 1, 3), ("memory of the server", 2, 5)]
    {
        let found = client.ok(&cmd!["INFER.SEARCH", "docs", query, "K", 1]);
        let [hit] = array(&found) else { panic!("not one hit: {found:?}") };
        assert_eq!(text(field(hit, "id")), format!("docs/a.txt:chunk_{chunk}"));
        assert_eq!(text(field(hit, "path")), "docs/a.txt");
        assert_eq!(int(field(hit, "chunk")), chunk);
        assert_eq!(field(hit, "lines"), &Value::Array(vec![Value::Int(line), Value::Int(line)]));
        assert!((0.5..=1.0).contains(&float(field(hit, "score"))));
    }
}

#[test]
fn hits_come_best_first_and_at_most_k() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", &document());
    ingest(&mut client, "b.txt", &document());
    for (k, expected) in [("1", 1), ("4", 4), ("200", 6)] {
        let found = client.ok(&cmd!["INFER.SEARCH", "docs", "the cat", "K", k]);
        let scores: Vec<f64> = array(&found).iter().map(|hit| float(field(hit, "score"))).collect();
        assert_eq!(scores.len(), expected);
        assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    }
}

#[test]
fn withtext_gives_the_text_of_each_chunk() {
    let (server, mut client) = indexed();
    ingest(&mut client, "a.txt", &document());
    for client in [&mut client, &mut server.client()] {
        let found = client.ok(&cmd!["INFER.SEARCH", "docs", "paris in france", "WITHTEXT", "K", 1]);
        assert_eq!(text(field(&array(&found)[0], "text")), FRANCE);
    }
}

#[test]
fn an_empty_index_has_no_hits() {
    let (_server, mut client) = indexed();
    assert_eq!(client.ok(&cmd!["INFER.SEARCH", "docs", "the cat"]), Value::Array(Vec::new()));
}

#[test]
fn an_index_that_does_not_exist_is_noindex() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    for command in [
        cmd!["INFER.INGEST", "docs", "a.txt", "text"],
        cmd!["INFER.SEARCH", "docs", "query"],
        cmd!["INFER.RAG", "docs", "query"],
    ] {
        client.refused(&command, "NOINDEX", "no index 'docs'; INFER.INDEX creates one");
    }
    assert_eq!(keys(&mut client).len(), 0);
}

#[test]
fn a_key_that_is_no_index_is_left_alone() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&cmd!["HSET", "hash", "f", "v"]);
    client.ok(&cmd!["SET", "string", "v"]);
    for (key, code) in [("hash", "NOINDEX"), ("string", "WRONGTYPE")] {
        client.refused(&cmd!["INFER.INDEX", key, "EMBEDMODEL", "embed", "GENMODEL", "chat"], code, "");
        client.refused(&cmd!["INFER.INGEST", key, "a.txt", "text"], code, "");
        client.refused(&cmd!["INFER.SEARCH", key, "query"], code, "");
    }
    assert_eq!(client.text(&cmd!["HGET", "hash", "f"]), "v");
    assert_eq!(client.text(&cmd!["GET", "string"]), "v");
}

#[test]
fn a_model_that_makes_other_vectors_or_tokens_under_the_same_name_is_a_mismatch() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", &document());
    client.ok(&cmd!["HSET", "docs", "dim", 32]);
    client.refused(&cmd!["INFER.SEARCH", "docs", "q"], "MISMATCH", "the index has vectors of 32 numbers");
    client.ok(&cmd!["HSET", "docs", "dim", 64, "tokenizer", "another"]);
    client.refused(&cmd!["INFER.RAG", "docs", "q"], "MISMATCH", "another tokenizer");
    // The same file, but pooled in another way: other vectors of the same length.
    client.ok(&cmd!["INFER.UNLOAD", "embed"]);
    client.ok(&cmd!["INFER.LOAD", "embed", EMBED.path().to_str().unwrap(), "POOLING", "CLS"]);
    client.refused(&cmd!["INFER.SEARCH", "docs", "q"], "MISMATCH", "made by another model");
}

#[test]
fn a_chunk_whose_tokens_were_deleted_is_left_out() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", &document());
    client.ok(&cmd!["DEL", "tokens:{docs}:a.txt:chunk_1"]);
    let found = client.ok(&cmd!["INFER.SEARCH", "docs", "the capital of france"]);
    let chunks: BTreeSet<i64> = array(&found).iter().map(|hit| int(field(hit, "chunk"))).collect();
    assert_eq!(chunks, [0, 2].into());
}

#[test]
fn a_document_of_too_many_chunks_is_refused_and_changes_nothing() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", &document());
    let before = keys(&mut client);
    let text = format!("{ANIMALS}\n\n").repeat(1025);
    client.refused(&cmd!["INFER.INGEST", "docs", "a.txt", text], "ERR", "the document has 1025 chunks");
    assert_eq!(keys(&mut client), before);
}

#[test]
fn a_chunk_count_that_somebody_wrote_is_not_believed() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", &document());
    client.ok(&cmd!["HSET", "doc:{docs}:a.txt", "chunks", u32::MAX]);
    assert_eq!(ingest(&mut client, "a.txt", &document()), [0, 3, 1021]);
    assert_eq!(ingest(&mut client, "a.txt", &document()), [0, 3, 0]);
}

#[test]
fn attributes_that_others_added_survive_an_ingest() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", ANIMALS);
    let element = element(&mut client, "a.txt", 0);
    let attributes = client.text(&cmd!["VGETATTR", "vec:{docs}", &element]);
    let more = attributes.replace('{', r#"{"year":1984,"#);
    client.ok(&cmd!["VSETATTR", "vec:{docs}", &element, &more]);
    assert_eq!(ingest(&mut client, "a.txt", ANIMALS), [0, 1, 0]);
    assert_eq!(client.text(&cmd!["VGETATTR", "vec:{docs}", &element]), more);
}

#[test]
fn chunks_whose_keys_are_gone_come_back_with_the_next_ingest() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", &document());
    client.ok(&cmd!["DEL", "tokens:{docs}:a.txt:chunk_1"]);
    assert_eq!(ingest(&mut client, "a.txt", &document()), [1, 2, 0]);
    let element = element(&mut client, "a.txt", 0);
    client.ok(&cmd!["VREM", "vec:{docs}", element]);
    assert_eq!(ingest(&mut client, "a.txt", &document()), [1, 2, 0]);
    client.ok(&cmd!["DEL", "vec:{docs}"]);
    assert_eq!(ingest(&mut client, "a.txt", &document()), [3, 0, 0]);
    assert_eq!(array(&client.ok(&cmd!["INFER.SEARCH", "docs", "the cat"])).len(), 3);
}

#[test]
fn an_index_over_the_keys_of_an_earlier_one_is_refused() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", &document());
    client.ok(&cmd!["DEL", "docs"]);
    client.ok(&CHAT.load_as("other"));
    let command =
        cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "other", "MAXTOKENS", 16, "OVERLAP", 0];
    client.refused(&command, "ERR", "there are keys of an earlier index 'docs'");
    client.ok(&cmd!["DEL", "vec:{docs}", "stats:{docs}", "paths:{docs}"]);
    client.ok(&command);
    assert_eq!(ingest(&mut client, "a.txt", &document()), [3, 0, 0]);
}

#[test]
fn a_document_that_failed_halfway_is_made_whole_by_the_next_ingest() {
    let (server, mut client) = indexed();
    ingest(&mut client, "a.txt", &document());
    // Bob may write the first chunk and not the second, so his document stops in between.
    let rules = ["on", ">pw", "+@all", "~docs", "~?*:{docs}", "~doc:{docs}:*", "~tokens:{docs}:a.txt:chunk_0"];
    client.ok(&cmd!["ACL", "SETUSER", "bob", &rules]);
    let mut bob = server.client();
    bob.ok(&cmd!["AUTH", "bob", "pw"]);
    bob.refused(&cmd!["INFER.INGEST", "docs", "a.txt", document().replace("the", "this")], "NOPERM", "");
    ingest(&mut client, "a.txt", &document());
    for (chunk, expected) in [ANIMALS, FRANCE, QUEUE].iter().enumerate() {
        let key = format!("tokens:{{docs}}:a.txt:chunk_{chunk}");
        assert_eq!(client.text(&cmd!["INFER.DETOKENIZE", "chat", 1, key]), *expected);
    }
}

#[test]
fn a_text_that_comes_back_is_shown_again() {
    let (_server, mut client) = indexed();
    ingest(&mut client, "a.txt", ANIMALS);
    ingest(&mut client, "a.txt", FRANCE);
    assert_eq!(ingest(&mut client, "a.txt", ANIMALS), [1, 0, 0]);
    assert_eq!(int(&client.ok(&cmd!["VCARD", "vec:{docs}"])), 2);
    assert_eq!(visible(&mut client), 1);
    let found = client.ok(&cmd!["INFER.SEARCH", "docs", ANIMALS, "WITHTEXT"]);
    assert_eq!(array(&found).len(), 1);
    assert_eq!(text(field(&array(&found)[0], "text")), ANIMALS);
}

#[test]
fn versions_that_are_gone_do_not_crowd_out_what_is_there() {
    let (_server, mut client) = indexed();
    for word in ["cat", "dog", "line", "file", "city", "key"] {
        ingest(&mut client, "a.txt", &format!("the {word} and the cat"));
    }
    ingest(&mut client, "a.txt", QUEUE);
    ingest(&mut client, "b.txt", FRANCE);
    let found = client.ok(&cmd!["INFER.SEARCH", "docs", "the cat and the cat", "K", 2]);
    let paths: BTreeSet<&str> = array(&found).iter().map(|hit| text(field(hit, "path"))).collect();
    assert_eq!(paths, ["a.txt", "b.txt"].into());
}

#[test]
fn equal_chunks_that_come_and_go_do_not_crash_redis() {
    // Redis' own removal of elements crashed in one of ten such rounds.
    let (mut server, mut client) = indexed();
    let boilerplate = format!("{ANIMALS}\n\n").repeat(90);
    client.ok(&cmd!["INFER.INDEX", "same", "EMBEDMODEL", "embed", "GENMODEL", "chat", "MAXTOKENS", 16, "OVERLAP", 0]);
    for round in 0..40 {
        let text = boilerplate.replace("cat", if round % 2 == 0 { "cat" } else { "dog" });
        client.ok(&cmd!["INFER.INGEST", "same", "a.txt", &text]);
        client.ok(&cmd!["INFER.INGEST", "same", "a.txt", QUEUE]);
    }
    assert_eq!(array(&client.ok(&cmd!["INFER.SEARCH", "same", "the cat", "K", 100])).len(), 1);
    server.assert_alive();
}

#[test]
fn every_quantization_is_searched() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    for quant in ["NOQUANT", "Q8", "BIN"] {
        client.ok(&cmd!["INFER.INDEX", quant, "EMBEDMODEL", "embed", "GENMODEL", "chat", "QUANT", quant]);
        client.ok(&cmd!["INFER.INGEST", quant, "a.txt", ANIMALS]);
        assert_eq!(array(&client.ok(&cmd!["INFER.SEARCH", quant, "the cat"])).len(), 1);
        let info = client.ok(&cmd!["VINFO", format!("vec:{{{quant}}}")]);
        let stored = if quant == "NOQUANT" { "f32" } else { &quant.to_lowercase() };
        assert!(text(field(&info, "quant-type")).contains(stored.trim_start_matches('q')), "{info:?}");
    }
}
