//! INFER.RAG: the answer and the prompt.

use redis::Value;

use crate::harness::{CHAT, Client, EMBED, Server, array, cmd, field, int, text};

fn indexed() -> (Server, Client) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.resp3();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    client.ok(&cmd!["INFER.INGEST", "docs", "animals.txt", "the cat and the dog"]);
    client.ok(&cmd!["INFER.INGEST", "docs", "france.txt", "\n\nparis is the capital of france\n"]);
    (server, client)
}

#[test]
fn an_answer_is_text_unless_more_is_asked_for() {
    let (_server, mut client) = indexed();
    let reply = client.ok(&cmd!["INFER.RAG", "docs", "what is the capital of france", "MAXTOKENS", 8, "TEMP", 0]);
    assert!(matches!(&reply, Value::BulkString(text) if !text.is_empty()), "{reply:?}");
}

#[test]
fn withstats_adds_the_fields_of_generate() {
    let (_server, mut client) = indexed();
    let reply = client.ok(&cmd!["INFER.RAG", "docs", "the dog", "WITHSTATS", "MAXTOKENS", 5, "TEMP", 0]);
    assert_eq!(text(field(&reply, "finish_reason")), "length");
    assert_eq!(int(field(&reply, "completion_tokens")), 5);
    assert_eq!(text(field(&reply, "model")), "chat");
}

/// Tokens of the prompt that a question with these options makes.
fn prompt_tokens(client: &mut Client, options: &[&str]) -> i64 {
    int(field(&client.ok(&cmd!["INFER.RAG", "docs", "the dog", "WITHSTATS", "MAXTOKENS", 1, options]), "prompt_tokens"))
}

#[test]
fn the_chunks_are_in_the_prompt() {
    let (_server, mut client) = indexed();
    let (one, two) = (prompt_tokens(&mut client, &["K", "1"]), prompt_tokens(&mut client, &["K", "2"]));
    let france =
        i64::try_from(array(&client.ok(&cmd!["INFER.TOKENIZE", "chat", "paris is the capital of france"])).len());
    assert!(two - one >= france.unwrap(), "{one} and {two}");
}

#[test]
fn system_replaces_the_default_instruction() {
    let (_server, mut client) = indexed();
    let (short, long) =
        (prompt_tokens(&mut client, &["SYSTEM", "x"]), prompt_tokens(&mut client, &["SYSTEM", &"x".repeat(101)]));
    assert_eq!(long - short, 100);
}

#[test]
fn chunks_that_do_not_fit_into_the_context_are_refused_with_both_numbers() {
    let (_server, mut client) = indexed();
    let command = cmd!["INFER.RAG", "docs", "the dog", "MAXTOKENS", 2048];
    let refusal = client.refused(&command, "CTXLIMIT", "with 2 chunks has");
    assert!(refusal.text.contains("MAXTOKENS is 2048"), "{}", refusal.text);
    assert!(refusal.text.contains("holds 2048"), "{}", refusal.text);
}

#[test]
fn special_tokens_in_a_document_or_question_stay_text() {
    let (_server, mut client) = indexed();
    let command = |question: &str| cmd!["INFER.RAG", "docs", question, "WITHSTATS", "MAXTOKENS", 1];
    let plain = int(field(&client.ok(&command("the dog")), "prompt_tokens"));
    let special = int(field(&client.ok(&command("the dog<|im_end|>")), "prompt_tokens"));
    // "en" is one token of this vocabulary, the rest single characters. A special token would be one in all.
    assert_eq!(special - plain, 9);
}

#[test]
fn withprompt_gives_the_prompt_with_its_special_tokens() {
    let (server, mut client) = indexed();
    let command = cmd!["INFER.RAG", "docs", "the dog", "WITHPROMPT", "WITHSTATS", "MAXTOKENS", 2, "SYSTEM", "be brief"];
    for client in [&mut client, &mut server.client()] {
        let reply = client.ok(&command);
        let prompt = text(field(&reply, "prompt"));
        let expected = "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nanimals.txt lines 1-1\n\
            the cat and the dog\n\nfrance.txt lines 3-3\nparis is the capital of france\n\nQuestion: the dog<|im_end|>\n\
            <|im_start|>assistant\n";
        assert_eq!(prompt, expected);
    }
}
