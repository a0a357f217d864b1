//! `RERANK` of INFER.SEARCH and INFER.RAG.

use std::fmt::Write as _;

use redis::Value;

use crate::harness::{
    CHAT, Client, EMBED, Model, RANK, SLOW_RANK, Server, array, cmd, eventually, field, float, int, text,
};

const QUERY: &str = "what is the capital of france";

/// A server whose index `docs` has 30 documents of one chunk each.
fn indexed() -> Server {
    indexed_with(RANK)
}

/// As [`indexed`], with another reranker.
fn indexed_with(reranker: Model) -> Server {
    let server = Server::with(&[CHAT, EMBED, reranker]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    let words = ["paris", "france", "capital", "city", "cat", "dog", "redis", "memory", "queue", "worker"];
    for number in 0..30 {
        let mut document = format!("the {}", words[number % 10]);
        (0..number / 3).for_each(|word| write!(document, " of {}", words[(word * 7 + number) % 10]).unwrap());
        client.ok(&cmd!["INFER.INGEST", "docs", format!("{number}.txt"), document]);
    }
    server
}

fn search(client: &mut Client, options: &[&str]) -> Vec<Value> {
    array(&client.ok(&cmd!["INFER.SEARCH", "docs", QUERY, "WITHTEXT", options])).to_vec()
}

fn ids(hits: &[Value]) -> Vec<&str> {
    hits.iter().map(|hit| text(field(hit, "id"))).collect()
}

fn fields_of(value: &Value) -> String {
    format!("{value:?}")
}

#[test]
fn the_best_of_twenty_candidates_come_in_the_order_of_the_reranker() {
    let server = indexed();
    for mut client in [server.client(), server.resp3()] {
        let candidates = search(&mut client, &["K", "20"]);
        let texts: Vec<&str> = candidates.iter().map(|hit| text(field(hit, "text"))).collect();
        let ranked = client.ok(&cmd!["INFER.RERANK", "rank", QUERY, texts.len(), &texts, "TOP", 5]);
        let found = search(&mut client, &["K", "5", "RERANK", "rank"]);
        assert_eq!(found.len(), 5);
        for (hit, pair) in found.iter().zip(array(&ranked)) {
            let (place, score) = (usize::try_from(int(&array(pair)[0])).unwrap(), float(&array(pair)[1]));
            assert_eq!(text(field(hit, "id")), ids(&candidates)[place]);
            assert!((float(field(hit, "rerank_score")) - score).abs() < 1e-3, "{hit:?} {score}");
            let similarity = float(field(&candidates[place], "score"));
            assert!((float(field(hit, "score")) - similarity).abs() < 1e-9, "{hit:?}");
        }
        let plain = search(&mut client, &["K", "5"]);
        assert!(!fields_of(&plain[0]).contains("rerank_score"));
        assert!(ids(&found).iter().any(|id| !ids(&plain).contains(id)), "the reranker had nothing to choose from");
    }
}

#[test]
fn an_answer_is_made_from_the_chunks_that_the_reranker_prefers() {
    let server = indexed();
    for mut client in [server.client(), server.resp3()] {
        let best = search(&mut client, &["K", "2", "RERANK", "rank"]);
        let rag = |options: &[&str]| cmd!["INFER.RAG", "docs", QUERY, "K", 2, "MAXTOKENS", 2, "WITHSOURCES", options];
        let reply = client.ok(&rag(&["RERANK", "rank", "WITHSTATS", "WITHPROMPT"]));
        let sources = array(field(&reply, "sources")).to_vec();
        assert_eq!(ids(&sources), ids(&best));
        for (source, hit) in sources.iter().zip(&best) {
            for score in ["score", "rerank_score"] {
                assert!((float(field(source, score)) - float(field(hit, score))).abs() < 1e-3, "{score}: {source:?}");
            }
            assert!(text(field(&reply, "prompt")).contains(text(field(hit, "text"))));
        }
        for time in ["embed_us", "rerank_us"] {
            assert!(int(field(&reply, time)) > 0, "{time}: {reply:?}");
        }
        let plain = client.ok(&rag(&["WITHSTATS"]));
        assert!(!fields_of(&plain).contains("rerank"), "{plain:?}");
    }
}

#[test]
fn where_nothing_is_found_nothing_is_reranked() {
    let server = indexed();
    let mut client = server.client();
    assert_eq!(search(&mut client, &["RERANK", "rank", "FILTER", ".nothing == 1"]), []);
    let reply = client.ok(&cmd!["INFER.RAG", "docs", QUERY, "RERANK", "rank", "FILTER", ".nothing == 1"]);
    assert_eq!(reply, Value::Nil);
    assert!(client.text(&cmd!["INFO", "infer"]).contains("infer_reranked_texts:0\r"));
    assert_eq!(server.requests("rank"), 0);
}

#[test]
fn the_model_must_be_one_that_reranks() {
    let server = indexed();
    let mut client = server.client();
    for command in ["INFER.SEARCH", "INFER.RAG"] {
        let with = |model| cmd![command, "docs", QUERY, "RERANK", model];
        client.refused(&with("embed"), "ERR", "'embed' is for embedding; this command needs a model for reranking");
        client.refused(&with("nobody"), "NOMODEL", "no model 'nobody' is loaded");
        assert_eq!(server.requests("embed"), 0, "a place was not given back");
        client.ok(&with("*"));
    }
}

#[test]
fn a_chunk_too_long_to_be_read_with_the_query_is_named() {
    let server = indexed();
    let mut client = server.client();
    client.ok(&cmd!["INFER.INGEST", "docs", "long.txt", "capital ".repeat(200)]);
    let query = "capital ".repeat(100);
    let refusal = client.refused(
        &cmd!["INFER.SEARCH", "docs", &query, "RERANK", "rank"],
        "CTXLIMIT",
        "the query and chunk 'long.txt:chunk_0' have 303 tokens together",
    );
    assert!(refusal.text.contains("'rank' reads at most 256"), "{}", refusal.text);
    client.refused(&cmd!["INFER.RAG", "docs", &query, "RERANK", "rank"], "CTXLIMIT", "'long.txt:chunk_0'");
    assert_eq!((server.requests("rank"), server.requests("embed"), server.requests("chat")), (0, 0, 0));
}

/// A request that is being reranked, by the slow model for seconds; it is listed with this id.
fn begin(server: &Server, client: &mut Client, command: &str) -> i64 {
    let mut control = server.client();
    for number in 0..100 {
        let document = format!("{number} {}", "capital ".repeat(230));
        control.ok(&cmd!["INFER.INGEST", "docs", format!("long-{number}.txt"), document]);
    }
    client.send(&cmd![command, "docs", "capital", "K", 100, "RERANK", "rank"]);
    eventually("the reranker works", || server.requests("rank") == 1 && server.requests("embed") == 0);
    int(field(&array(&control.ok(&cmd!["INFER.PS"]))[0], "id"))
}

#[test]
fn a_second_look_ends_when_its_request_does() {
    for command in ["INFER.SEARCH", "INFER.RAG"] {
        let server = indexed_with(SLOW_RANK);
        let (mut client, mut control) = (server.client(), server.client());
        let id = begin(&server, &mut client, command);
        assert_eq!(int(&control.ok(&cmd!["INFER.CANCEL", id])), 1);
        assert_eq!(client.receive().unwrap_err().code, "CANCELLED");
        client.assert_in_step();
        for model in ["rank", "embed", "chat"] {
            eventually("every place is free", || server.requests(model) == 0);
        }
        assert_eq!(array(&control.ok(&cmd!["INFER.PS"])), []);
    }
}

#[test]
fn a_reranker_that_fails_or_goes_is_an_error_of_the_question() {
    let server = indexed_with(SLOW_RANK);
    let (mut client, mut control) = (server.client(), server.client());
    for command in ["INFER.SEARCH", "INFER.RAG"] {
        client.ok(&cmd!["INFER.DEBUG", "PANIC", "rank"]);
        client.refused(&cmd![command, "docs", QUERY, "RERANK", "rank"], "INTERNAL", "");
        client.assert_in_step();
    }
    begin(&server, &mut client, "INFER.RAG");
    control.ok(&cmd!["INFER.UNLOAD", "rank", "FORCE"]);
    assert_eq!(client.receive().unwrap_err().code, "CANCELLED");
    for model in ["embed", "chat"] {
        eventually("every place is free", || server.requests(model) == 0);
    }
}
