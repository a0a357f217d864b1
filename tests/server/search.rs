//! The options of INFER.SEARCH: which chunks come back, and what is told of them.

use std::collections::BTreeSet;

use redis::{Cmd, Value};

use crate::harness::{
    ANIMALS, CHAT, Client, EMBED, FRANCE, Server, array, bytes, cmd, crowd, eventually, field, float, int,
    paragraph_index, text,
};

const QUEUE: &str = "redis server memory and the queue of the worker thread";

/// Two documents of two and one chunks, one of them with attributes of its own.
fn indexed() -> (Server, Client) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.resp3();
    client.ok(&paragraph_index("docs"));
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", format!("{ANIMALS}\n\n{FRANCE}")]);
    let attributes = r#"{"year":1984,"tags":["red","blue"],"draft":true,"lang":"en"}"#;
    client.ok(&cmd!["INFER.INGEST", "docs", "b.md", QUEUE, "ATTRS", attributes]);
    (server, client)
}

fn ids(found: &Value) -> BTreeSet<String> {
    array(found).iter().map(|hit| text(field(hit, "id")).to_owned()).collect()
}

/// The ids of what a search for everything finds with these options.
fn search(client: &mut Client, options: &[&str]) -> BTreeSet<String> {
    ids(&client.ok(&cmd!["INFER.SEARCH", "docs", "the city", "K", 200, options]))
}

const ALL: [&str; 3] = ["a.txt:chunk_0", "a.txt:chunk_1", "b.md:chunk_0"];

#[test]
fn a_filter_sees_the_place_of_a_chunk_and_the_attributes_of_its_document() {
    let (server, mut client) = indexed();
    for client in [&mut client, &mut server.client()] {
        for (filter, expected) in [
            (".path == 'a.txt'", &ALL[..2]),
            (".ext == \"md\"", &ALL[2..]),
            (".ext in ['txt', 'rs']", &ALL[..2]),
            (".chunk == 1", &ALL[1..2]),
            (".first_line > 1", &ALL[1..2]),
            (".last_line <= 1 and .path != 'b.md'", &ALL[..1]),
            (".year >= 1984", &ALL[2..]),
            ("'blue' in .tags", &ALL[2..]),
            (".draft", &ALL[2..]),
            // To Redis an expression that names a member which an element lacks is not true, whatever else it says.
            (".chunk == 0 or .lang == 'en'", &ALL[2..]),
            (".year == 1985", &[]),
            (".nothing > 1", &[]),
        ] {
            assert_eq!(search(client, &["FILTER", filter]), expected.iter().map(|&id| id.into()).collect(), "{filter}");
        }
    }
}

#[test]
fn a_filter_that_does_not_parse_is_told_with_its_place_and_harms_nothing() {
    let (server, mut client) = indexed();
    for client in [&mut client, &mut server.client()] {
        for (filter, near) in [(".chunk == ", "syntax error"), (".chunk ? 1", "near: ? 1"), ("(.chunk", "syntax error")]
        {
            for name in ["INFER.SEARCH", "INFER.RAG"] {
                let refusal = client.refused(&cmd![name, "docs", "the city", "FILTER", filter], "ERR", near);
                assert!(refusal.text.contains("FILTER expression"), "{}", refusal.text);
            }
        }
        client.refused(
            &cmd!["INFER.SEARCH", "docs", "q", "FILTER", "1\0.chunk"],
            "ERR",
            "FILTER must not contain a NUL",
        );
        assert_eq!(search(client, &[]).len(), 3);
        client.assert_in_step();
    }
}

#[test]
fn what_is_hidden_meets_no_filter() {
    let (_server, mut client) = indexed();
    // The old versions stay in the vector set, without attributes.
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", QUEUE]);
    client.ok(&cmd!["INFER.FORGET", "docs", "b.md"]);
    assert!(int(&client.ok(&cmd!["VCARD", "vec:{docs}"])) > 1);
    for filter in ["1", "not .nothing", "!(.chunk > 5)", ".chunk == 0 or not .chunk", "null == .path or .path != null"]
    {
        let found = search(&mut client, &["FILTER", filter]);
        assert!(found.iter().all(|id| id == "a.txt:chunk_0"), "{filter}: {found:?}");
    }
    assert_eq!(search(&mut client, &["FILTER", "1"]).len(), 1);
}

#[test]
fn minscore_leaves_out_what_is_less_similar_and_keeps_what_is_as_similar() {
    let (server, mut client) = indexed();
    for client in [&mut client, &mut server.client()] {
        let all = client.ok(&cmd!["INFER.SEARCH", "docs", "the city"]);
        let scores: Vec<f64> = array(&all).iter().map(|hit| float(field(hit, "score"))).collect();
        assert_eq!(scores.len(), 3);
        for (place, score) in scores.iter().enumerate() {
            let kept = client.ok(&cmd!["INFER.SEARCH", "docs", "the city", "MINSCORE", score.to_string()]);
            assert_eq!(array(&kept).len(), place + 1, "{score} of {scores:?}");
        }
        assert_eq!(client.ok(&cmd!["INFER.SEARCH", "docs", "the city", "MINSCORE", 1]), Value::Array(Vec::new()));
    }
}

#[test]
fn a_wider_search_finds_what_there_is() {
    let (_server, mut client) = indexed();
    for ef in ["1", "3", "1000"] {
        let found = search(&mut client, &["EF", ef]);
        assert_eq!(found, ALL.map(str::to_owned).into(), "{ef}");
    }
    assert_eq!(search(&mut client, &["EF", "1000", "FILTER", ".chunk == 1"]), [ALL[1].to_owned()].into());
}

#[test]
fn withattrs_gives_what_a_filter_sees() {
    let (server, mut client) = indexed();
    for client in [&mut client, &mut server.client()] {
        let found =
            client.ok(&cmd!["INFER.SEARCH", "docs", "the city", "FILTER", ".year == 1984", "WITHATTRS", "WITHTEXT"]);
        let [hit] = array(&found) else { panic!("not one: {found:?}") };
        let attributes: serde_json::Value = serde_json::from_slice(bytes(field(hit, "attrs"))).unwrap();
        let expected = serde_json::json!({
            "path": "b.md", "chunk": 0, "first_line": 1, "last_line": 1, "ext": "md",
            "year": 1984, "tags": ["red", "blue"], "draft": true, "lang": "en",
        });
        assert_eq!(attributes, expected);
        assert_eq!(text(field(hit, "text")), QUEUE);
    }
}

#[test]
fn a_match_that_is_rare_is_found_among_thousands() {
    let (_server, mut client) = indexed();
    let mut random = fastrand::Rng::with_seed(7);
    let mut adds = Vec::new();
    let version = format!("1-1-{}", "0".repeat(32));
    for number in 0..6000 {
        let vector: Vec<u8> = (0..64).flat_map(|_| (random.f32() - 0.5).to_le_bytes()).collect();
        let (path, rare) = (format!("f{number}.txt"), number == 2345);
        let json = serde_json::json!({
            "path": path, "chunk": 0, "first_line": 1, "last_line": 1, "ext": "txt", "rare": rare,
        });
        let element = format!("{path}:chunk_0@{version}");
        adds.push(cmd!["VADD", "vec:{docs}", "FP32", vector, element, "Q8", "SETATTR", json.to_string()]);
    }
    client.send_together(&adds);
    adds.iter().for_each(|_| drop(client.receive().unwrap()));
    client.ok(&cmd!["HSET", "doc:{docs}:f2345.txt", "chunks", 1, "chunk_0", version]);
    client.ok(&cmd!["INFER.TOKENIZESTORE", "tokens:{docs}:f2345.txt:chunk_0", "chat", "needle"]);
    let found = search(&mut client, &["FILTER", ".rare"]);
    assert_eq!(found, ["f2345.txt:chunk_0".to_owned()].into());
    // Near first, then far, and neither with the lock.
    assert_eq!(client.info("infer_searches_apart"), 2);
}

#[test]
fn a_search_in_a_large_index_finds_and_refuses_what_one_in_a_small_index_does() {
    let (server, mut client) = indexed();
    let before: Vec<Value> = questions().iter().map(|question| client.ok(question)).collect();
    crowd(&mut client, "vec:{docs}", 6000);
    let apart = client.info("infer_searches_apart");
    for (question, before) in questions().iter().zip(before) {
        assert_eq!(client.ok(question), before);
    }
    assert!(client.info("infer_searches_apart") >= apart + 5);
    let filter = cmd!["INFER.SEARCH", "docs", "the city", "FILTER", ".chunk == "];
    client.refused(&filter, "ERR", "syntax error in FILTER expression");
    // A user who may not read the vectors, and one who goes while the question is embedded.
    client.ok(&cmd!["ACL", "SETUSER", "bob", "on", ">pw", "+@all", "%R~docs", "%R~tokens:{docs}*"]);
    let mut bob = server.client();
    bob.ok(&cmd!["AUTH", "bob", "pw"]);
    bob.refused(&questions()[0], "NOPERM", "");
    client.ok(&cmd!["DEL", "vec:{docs}"]);
    client.ok(&cmd!["SET", "vec:{docs}", "mine"]);
    client.refused(&questions()[0], "WRONGTYPE", "vec:{docs}");
}

#[test]
fn a_server_that_uses_no_threads_for_vector_sets_searches_a_large_index_once() {
    let (_server, mut client) = indexed();
    crowd(&mut client, "vec:{docs}", 6000);
    let before: Vec<Value> = questions().iter().map(|question| client.ok(question)).collect();
    client.ok(&cmd!["CONFIG", "SET", "vset-force-single-threaded-execution", "yes"]);
    for (question, before) in questions().iter().zip(before) {
        assert_eq!(client.ok(question), before);
    }
    client.ok(&cmd!["CONFIG", "RESETSTAT"]);
    let filter = cmd!["INFER.SEARCH", "docs", "the city", "FILTER", ".chunk == 0", "K", 2];
    assert_eq!(array(&client.ok(&filter)).len(), 2);
    let statistics = client.text(&cmd!["INFO", "commandstats"]);
    assert!(statistics.contains("cmdstat_VSIM:calls=1,"), "{statistics}");
}

fn questions() -> Vec<Cmd> {
    [&[][..], &["EF", "1000"], &["FILTER", ".chunk == 1"], &["K", "1", "MINSCORE", "0.5"], &["K", "200"]]
        .into_iter()
        .map(|options| cmd!["INFER.SEARCH", "docs", "the city", "WITHTEXT", "WITHATTRS", options])
        .collect()
}

#[test]
fn chunks_whose_tokens_are_gone_are_counted() {
    let (_server, mut client) = indexed();
    assert_eq!(client.info("infer_missing_chunks"), 0);
    client.ok(&cmd!["DEL", "tokens:{docs}:a.txt:chunk_1"]);
    client.ok(&cmd!["PEXPIRE", "tokens:{docs}:b.md:chunk_0", 1]);
    eventually("the tokens have expired", || client.ok(&cmd!["EXISTS", "tokens:{docs}:b.md:chunk_0"]) == Value::Int(0));
    assert_eq!(search(&mut client, &[]), [ALL[0].to_owned()].into());
    assert_eq!(client.info("infer_missing_chunks"), 2);
    // What MINSCORE leaves out is not missed.
    search(&mut client, &["MINSCORE", "1"]);
    assert_eq!(client.info("infer_missing_chunks"), 2);
}

#[test]
fn a_query_too_long_for_the_embedding_model_is_told_its_tokens_while_others_are_served() {
    let (server, mut client) = indexed();
    let mut other = server.client();
    for name in ["INFER.SEARCH", "INFER.RAG"] {
        client.send(&cmd![name, "docs", "the cat ".repeat(12_500)]);
        other.assert_in_step();
        let refusal = client.receive().unwrap_err();
        assert_eq!(refusal.code, "CTXLIMIT");
        assert_eq!(refusal.text, "the query has 25002 tokens, but model 'embed' reads at most 256; shorten it");
        let largest = vec![b'x'; (1 << 20) + 1];
        client.refused(&cmd![name, "docs", &largest], "ERR", "query is longer than 1048576 bytes");
        client.refused(&cmd![name, "docs", &largest[1..]], "CTXLIMIT", "");
    }
    assert_eq!(server.requests("embed"), 0);
    assert_eq!(server.requests("chat"), 0);
}
