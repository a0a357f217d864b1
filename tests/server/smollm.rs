//! SmolLM2-135M-Instruct, the model of the demo.

use crate::harness::{Server, cmd, field, required, text};

fn loaded() -> Server {
    let server = Server::start();
    let path = required("REDIS_INFER_CHAT_MODEL");
    server.client().ok(&cmd!["INFER.LOAD", "m", path.to_str().unwrap(), "CTX", 1024]);
    server
}

#[test]
fn a_factual_prompt_is_answered_right() {
    let server = loaded();
    let mut client = server.client();
    // With the system message of its own chat template this model answers the first prompt in bad French.
    for (prompt, form) in [("The capital of France is", &["RAW"][..]), ("Name the capital of France.", &[])] {
        let answer = client.text(&cmd!["INFER.GENERATE", "m", 0, "TEXT", prompt, "TEMP", 0, "MAXTOKENS", 16, form]);
        assert!(answer.contains("Paris"), "{prompt}: {answer}");
    }
}

#[test]
fn a_stored_key_and_the_same_text_give_the_same_answer() {
    let server = loaded();
    let mut client = server.client();
    let prompt = "Why is the sky blue? Answer in one sentence: \"Ünïcödé\" is fine.";
    client.ok(&cmd!["INFER.TOKENIZESTORE", "tokens:q", "m", prompt]);
    let from_key = client.text(&cmd!["INFER.GENERATE", "m", 1, "tokens:q", "MAXTOKENS", 16, "TEMP", 0]);
    let from_text = client.text(&cmd!["INFER.GENERATE", "m", 0, "TEXT", prompt, "MAXTOKENS", 16, "TEMP", 0]);
    assert!(!from_key.trim().is_empty());
    assert_eq!(from_key, from_text);
}

#[test]
fn an_answer_ends_where_the_model_ends_it() {
    let server = loaded();
    let command = cmd!["INFER.GENERATE", "m", 0, "TEXT", "Say hello.", "TEMP", 0, "MAXTOKENS", 200, "WITHSTATS"];
    let reply = server.client().ok(&command);
    assert_eq!(text(field(&reply, "finish_reason")), "eos");
    assert!(!text(field(&reply, "text")).contains("<|im_end|>"));
}
