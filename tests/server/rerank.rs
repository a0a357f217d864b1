//! INFER.RERANK.

use std::path::PathBuf;

use redis::Value;

use crate::cross_encoder::CrossEncoder;
use crate::harness::{
    CHAT, Client, EMBED, RANK, SLOW_RANK, Server, array, cmd, eventually, field, float, int, report, text,
};

const QUERY: &str = "what is the capital of france";

const TEXTS: [&str; 6] = [
    "the capital of france is paris",
    "the cat and the dog",
    "redis",
    "memory of the server and the client from this file",
    "how does redis search the index for the query",
    "paris is the city",
];

/// Index and score of each pair, in the order of the reply.
fn pairs(reply: &Value) -> Vec<(usize, f64)> {
    array(reply).iter().map(|pair| (usize::try_from(int(&array(pair)[0])).unwrap(), float(&array(pair)[1]))).collect()
}

fn rerank(client: &mut Client, query: &str, texts: &[&str], options: &[&str]) -> Vec<(usize, f64)> {
    pairs(&client.ok(&cmd!["INFER.RERANK", "rank", query, texts.len(), texts, options]))
}

#[test]
fn scores_are_those_that_the_models_weights_give() {
    let server = Server::with(&[RANK]);
    let reference = CrossEncoder::open(RANK.path());
    for mut client in [server.client(), server.resp3()] {
        let mut largest = 0.0_f64;
        for query in [QUERY, "the dog"] {
            for (index, score) in rerank(&mut client, query, &TEXTS, &[]) {
                largest = largest.max((score - reference.score(query, TEXTS[index], [0, 0])).abs());
            }
        }
        report(&format!("largest difference of a score from the reference: {largest:.1e}"));
        assert!(largest < 2e-3, "{largest}");
    }
}

#[test]
fn the_best_text_comes_first_and_top_keeps_so_many() {
    let server = Server::with(&[RANK]);
    for mut client in [server.client(), server.resp3()] {
        let all = rerank(&mut client, QUERY, &TEXTS, &[]);
        assert!(all.is_sorted_by(|a, b| a.1 >= b.1), "{all:?}");
        assert!(all[0].1 - all[5].1 > 0.1, "scores that hardly differ prove nothing: {all:?}");
        let mut indexes: Vec<usize> = all.iter().map(|pair| pair.0).collect();
        assert_ne!(indexes, [0, 1, 2, 3, 4, 5], "an order that is that of the call proves nothing");
        for (top, kept) in [("2", 2), ("6", 6), ("1024", 6)] {
            assert_eq!(rerank(&mut client, QUERY, &TEXTS, &["TOP", top]), all[..kept]);
        }
        indexes.sort_unstable();
        assert_eq!(indexes, [0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn a_reply_is_pairs_in_both_protocols_and_its_scores_are_doubles_in_resp3() {
    let server = Server::with(&[RANK]);
    let command = cmd!["INFER.RERANK", "rank", QUERY, 1, "paris"];
    let old = server.client().ok(&command);
    let new = server.resp3().ok(&command);
    let [Value::Int(0), Value::Double(score)] = *array(&array(&new)[0]) else { panic!("{new:?}") };
    assert_eq!(pairs(&old), [(0, score)]);
}

#[test]
fn equal_texts_have_equal_scores_and_keep_their_order() {
    let server = Server::with(&[RANK]);
    let found = rerank(&mut server.client(), QUERY, &["redis"; 3], &[]);
    assert_eq!(found.iter().map(|pair| pair.0).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(found.iter().all(|pair| (pair.1 - found[0].1).abs() < 1e-6), "{found:?}");
}

#[test]
fn an_empty_text_has_a_score_and_special_tokens_in_texts_are_text() {
    let server = Server::with(&[RANK]);
    let mut client = server.client();
    let scores = rerank(&mut client, "cat", &["", "[SEP]", "[SEP] [SEP]"], &[]);
    assert!(scores.iter().all(|pair| pair.1.is_finite()));
    assert!((scores[0].1 - scores[1].1).abs() > 1e-6 && (scores[1].1 - scores[2].1).abs() > 1e-6, "{scores:?}");
}

#[test]
fn more_texts_than_fit_into_one_forward_pass_are_all_scored() {
    let server = Server::with(&[RANK]);
    let texts: Vec<String> = (0..1024).map(|i| format!("text number {}", i % 40)).collect();
    let reply = server.client().ok(&cmd!["INFER.RERANK", "rank", QUERY, texts.len(), &texts]);
    let mut found = pairs(&reply);
    found.sort_by_key(|pair| pair.0);
    assert_eq!(found.len(), 1024);
    for (index, score) in &found {
        assert!((score - found[index % 40].1).abs() < 1e-3, "{index}");
    }
}

#[test]
fn a_pair_longer_than_the_model_reads_is_refused_with_its_index_and_both_numbers() {
    let server = Server::with(&[RANK]);
    let mut client = server.client();
    let long = "cat ".repeat(250);
    let command = cmd!["INFER.RERANK", "rank", "the dog", 2, "short", &long];
    client.ok(&command);
    let longer = format!("{long} cat cat");
    let command = cmd!["INFER.RERANK", "rank", "the dog", 2, "short", &longer];
    let refusal = client.refused(&command, "CTXLIMIT", "the query and the text at index 1 have 257 tokens together");
    assert!(refusal.text.contains("reads at most 256 at once"), "{}", refusal.text);
    let query = "cat ".repeat(100_000);
    client.refused(&cmd!["INFER.RERANK", "rank", &query, 1, "a"], "CTXLIMIT", "have 100004 tokens together");
}

#[test]
fn each_command_wants_a_model_for_its_purpose() {
    let server = Server::with(&[CHAT, EMBED, RANK]);
    let mut client = server.client();
    for (command, is, needs) in [
        (cmd!["INFER.RERANK", "embed", "q", 1, "t"], "'embed' is for embedding", "reranking"),
        (cmd!["INFER.RERANK", "chat", "q", 1, "t"], "'chat' is for generation", "reranking"),
        (cmd!["INFER.EMBED", "rank", 1, "t"], "'rank' is for reranking", "embedding"),
        (cmd!["INFER.GENERATE", "rank", 0, "TEXT", "t"], "'rank' is for reranking", "generation"),
        (cmd!["INFER.INDEX", "i", "EMBEDMODEL", "rank", "GENMODEL", "chat"], "'rank' is for reranking", "embedding"),
    ] {
        client.refused(&command, "ERR", &format!("model {is}; this command needs a model for {needs}"));
    }
}

#[test]
fn a_reranker_is_recognised_and_listed_as_one() {
    let server = Server::with(&[RANK]);
    let mut client = server.client();
    let facts = client.ok(&cmd!["INFER.MODEL", "rank"]);
    assert_eq!(text(field(&facts, "type")), "reranking");
    assert_eq!(int(field(&facts, "context")), 256);
    assert!(client.text(&cmd!["INFO", "infer_models"]).contains("type=reranking"));
    client.ok(&cmd!["INFER.LOAD", "same", RANK.path().to_str().unwrap(), "TYPE", "RERANK"]);
    // It has a tokenizer as any model.
    client.ok(&cmd!["INFER.TOKENIZE", "rank", "the cat"]);
}

#[test]
fn a_file_without_a_head_or_with_a_damaged_one_is_refused() {
    let mut server = Server::start();
    let mut client = server.client();
    let load = |path: &str| cmd!["INFER.LOAD", "m", path, "TYPE", "RERANK"];
    let reason = "the tensor cls.output.weight is missing";
    client.refused(&load(EMBED.path().to_str().unwrap()), "LOADFAIL", reason);
    let damaged = with_other_dimensions(&server, "cls.output.weight", [32, 2]);
    client.refused(&load(damaged.to_str().unwrap()), "LOADFAIL", "cls.output.weight");
    let damaged = with_other_dimensions(&server, "cls.weight", [128, 32]);
    client.refused(&load(damaged.to_str().unwrap()), "LOADFAIL", "cls.weight");
    server.assert_alive();
}

/// A copy of the model in which a matrix claims other dimensions, with as many elements in all.
fn with_other_dimensions(server: &Server, tensor: &str, dims: [u64; 2]) -> PathBuf {
    let mut bytes = std::fs::read(RANK.path()).unwrap();
    let name = [&(tensor.len() as u64).to_le_bytes(), tensor.as_bytes()].concat();
    let found = bytes.windows(name.len()).position(|window| window == name).unwrap();
    let start = found + name.len() + size_of::<u32>();
    let new: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    bytes[start..start + new.len()].copy_from_slice(&new);
    let path = server.folder().join("damaged.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn what_was_scored_is_counted() {
    let server = Server::with(&[RANK]);
    let mut client = server.client();
    rerank(&mut client, QUERY, &TEXTS, &["TOP", "1"]);
    client.refused(&cmd!["INFER.RERANK", "rank", "q", 1, "cat ".repeat(300)], "CTXLIMIT", "");
    let info = client.text(&cmd!["INFO", "infer"]);
    for line in ["infer_requests_done:1", "infer_reranked_texts:6", "infer_embedded_texts:0"] {
        assert!(info.contains(&format!("{line}\r")), "no {line} in {info}");
    }
    assert!(info.contains("infer_latency_usec_rerank:p50="), "{info}");
}

/// A request that takes the slow model longer than anybody waits.
fn long() -> redis::Cmd {
    cmd!["INFER.RERANK", "rank", QUERY, 1024, vec!["cat ".repeat(240); 1024]]
}

fn requests(client: &mut Client) -> Vec<Value> {
    array(&client.ok(&cmd!["INFER.PS"])).to_vec()
}

/// Waits until the oldest request runs; its id.
fn until_running(control: &mut Client) -> i64 {
    let running = |list: Vec<Value>| list.first().is_some_and(|r| text(field(r, "state")) == "prefilling");
    eventually("a request runs", || running(requests(control)));
    int(field(&requests(control)[0], "id"))
}

#[test]
fn a_request_is_listed_and_ends_in_every_way_that_others_do() {
    let server = Server::with(&[SLOW_RANK]);
    let mut control = server.client();
    for code in ["CANCELLED", "UNBLOCKED", "(killed)"] {
        let (mut running, mut queued) = (server.client(), server.client());
        let client_id = running.id();
        running.send(&long());
        let id = until_running(&mut control);
        queued.send(&long());
        eventually("both are listed", || requests(&mut control).len() == 2);
        let first = requests(&mut control).remove(0);
        assert_eq!(text(field(&first, "command")), "INFER.RERANK");
        assert!(int(field(&first, "prompt_tokens")) > 240 * 1024);
        let command = match code {
            "CANCELLED" => cmd!["INFER.CANCEL", id],
            "UNBLOCKED" => cmd!["CLIENT", "UNBLOCK", client_id, "ERROR"],
            _ => cmd!["CLIENT", "KILL", "ID", client_id],
        };
        assert_eq!(int(&control.ok(&command)), 1);
        if code != "(killed)" {
            assert_eq!(running.receive().unwrap_err().code, code);
            running.assert_in_step();
        }
        // The other one is untouched until its client goes.
        assert_eq!(requests(&mut control).len(), 1);
        drop(queued);
        eventually("every place is free", || server.requests("rank") == 0);
        assert_eq!(requests(&mut control), []);
    }
    rerank(&mut control, QUERY, &TEXTS, &[]);
}

#[test]
fn a_forced_unload_answers_requests_and_the_name_is_free() {
    let server = Server::with(&[SLOW_RANK]);
    let (mut control, mut client) = (server.client(), server.client());
    client.send(&long());
    until_running(&mut control);
    control.ok(&cmd!["INFER.UNLOAD", "rank", "FORCE"]);
    assert_eq!(client.receive().unwrap_err().code, "CANCELLED");
    client.assert_in_step();
    control.ok(&RANK.load());
}

#[test]
fn the_queue_of_a_reranker_is_bounded() {
    let server = Server::with(&[SLOW_RANK]);
    let mut control = server.client();
    control.ok(&cmd!["CONFIG", "SET", "infer.queue-limit", 1]);
    let (mut running, mut queued) = (server.client(), server.client());
    running.send(&long());
    until_running(&mut control);
    queued.send(&long());
    eventually("both are listed", || requests(&mut control).len() == 2);
    control.refused(
        &cmd!["INFER.RERANK", "rank", "q", 1, "t"],
        "QUEUEFULL",
        "1 requests already wait for model 'rank'",
    );
}

#[test]
fn a_panic_of_the_worker_is_answered_and_the_next_request_works() {
    let server = Server::with(&[RANK]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.DEBUG", "PANIC", "rank"]);
    client.refused(&cmd!["INFER.RERANK", "rank", "q", 1, "t"], "INTERNAL", "");
    rerank(&mut client, QUERY, &TEXTS, &[]);
}

#[test]
fn a_short_request_does_not_wait_for_the_end_of_a_long_one() {
    let server = Server::with(&[SLOW_RANK]);
    let (mut control, mut client) = (server.client(), server.client());
    client.send(&long());
    until_running(&mut control);
    rerank(&mut control, QUERY, &TEXTS, &[]);
    assert_eq!(requests(&mut control).len(), 1, "the long request was over before the short one");
}
