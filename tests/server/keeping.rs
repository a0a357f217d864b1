//! More conversations than slots: what one of them has read is kept when another one takes its slot, and comes back.

use redis::{Cmd, Value};

use crate::harness::{ANIMALS, CHAT, Client, EMBED, FRANCE, STEADY, Server, cmd, eventually, field, int, text};

/// A server with the model whose one slot everybody shares.
fn one_slot(options: &[&str]) -> (Server, Client) {
    let server = Server::start();
    let mut client = server.client();
    client.ok(&load(options));
    (server, client)
}

fn load(options: &[&str]) -> Cmd {
    let path = CHAT.path().to_str().unwrap();
    cmd!["INFER.LOAD", "chat", path, "WORKERS", 1, "THREADS", 1, "PARALLEL", 1, "CTX", 2048, options]
}

/// How somebody's conversation begins: some hundred tokens, which nobody else's share.
fn history(person: usize) -> String {
    format!("{person} had a question. ").repeat(12)
}

fn generate(prompt: &str) -> Cmd {
    cmd!["INFER.GENERATE", "chat", 0, "TEXT", prompt, "RAW", "TEMP", 0, "MAXTOKENS", 4, "WITHSTATS"]
}

fn number(reply: &Value, name: &str) -> i64 {
    int(field(reply, name))
}

/// Some people ask in turn, and each goes on twice. Of each answer the text, the length of the prompt and how much was not read.
fn rounds(client: &mut Client, people: usize) -> Vec<(String, i64, i64)> {
    let mut prompts: Vec<String> = (0..people).map(history).collect();
    let mut replies = Vec::new();
    for round in 0..3 {
        for prompt in &mut prompts {
            prompt.push_str(&format!("And {round}? ").repeat(10));
            let reply = client.ok(&generate(prompt));
            let answer = text(field(&reply, "text")).to_owned();
            replies.push((answer, number(&reply, "prompt_tokens"), number(&reply, "cached_tokens")));
        }
    }
    replies
}

#[test]
fn conversations_that_share_one_slot_are_not_read_again_and_answered_as_if_they_were() {
    for options in [&[][..], &["KVTYPE", "Q8_0"]] {
        let (_server, mut client) = one_slot(options);
        let kept = rounds(&mut client, 6);
        for (turn, pair) in kept.chunks(6).collect::<Vec<_>>().windows(2).enumerate() {
            for ((_, before, _), (_, tokens, cached)) in pair[0].iter().zip(pair[1]) {
                assert!(
                    cached >= before && cached < tokens,
                    "turn {}: {cached} of {tokens}, {before} before",
                    turn + 1
                );
            }
        }
        assert!(client.info("infer_kv_sequences") >= 5);
        // All but the first turns, of which nothing was kept.
        assert_eq!(client.info("infer_restored_sequences"), 12);

        client.ok(&cmd!["CONFIG", "SET", "infer.kv-budget", 0]);
        eventually("nothing is kept any more", || client.info("infer_kv_sequence_bytes") == 0);
        let read = rounds(&mut client, 6);
        assert!(read.iter().skip(1).all(|(_, _, cached)| *cached == 0), "{read:?}");
        let texts = |replies: &[(String, i64, i64)]| replies.iter().map(|(text, ..)| text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&kept), texts(&read), "{options:?}");
    }
}

#[test]
fn without_a_budget_nothing_is_kept() {
    let (_server, mut client) = one_slot(&[]);
    client.ok(&cmd!["CONFIG", "SET", "infer.kv-budget", 0]);
    assert!(rounds(&mut client, 2).iter().all(|(_, _, cached)| *cached == 0));
    for name in ["infer_kv_sequences", "infer_kv_sequence_bytes", "infer_saved_sequences", "infer_restored_sequences"] {
        assert_eq!(client.info(name), 0, "{name}");
    }
}

#[test]
fn the_conversation_that_was_not_heard_of_for_longest_goes_first() {
    let (_server, mut client) = one_slot(&[]);
    let mut ask = |person: usize| number(&client.ok(&generate(&history(person))), "cached_tokens");
    // The fourth takes the slot of the third.
    assert_eq!([0, 1, 2, 3].map(&mut ask), [0; 4]);
    let all = client.info("infer_kv_sequence_bytes");
    assert_eq!(client.info("infer_kv_sequences"), 3);
    client.ok(&cmd!["CONFIG", "SET", "infer.kv-budget", all]);
    let mut ask = |person: usize| number(&client.ok(&generate(&history(person))), "cached_tokens");
    // The fourth is kept in the place of the second.
    assert!(ask(0) > 0);
    assert!(ask(2) > 0 && ask(3) > 0);
    assert_eq!(ask(1), 0);
    assert!(client.info("infer_kv_sequence_bytes") <= all);
}

#[test]
fn a_smaller_budget_holds_at_once() {
    let (_server, mut client) = one_slot(&[]);
    for person in 0..4 {
        client.ok(&generate(&history(person)));
    }
    let all = client.info("infer_kv_sequence_bytes");
    client.ok(&cmd!["CONFIG", "SET", "infer.kv-budget", all / 2]);
    eventually("one of three is left", || client.info("infer_kv_sequences") == 1);
    assert!(client.info("infer_kv_sequence_bytes") <= all / 2);
}

#[test]
fn a_sequence_larger_than_the_budget_is_not_kept_and_drives_nothing_out() {
    let (_server, mut client) = one_slot(&[]);
    client.ok(&generate(&history(0)));
    client.ok(&generate(&history(1)));
    let one = client.info("infer_kv_sequence_bytes");
    client.ok(&cmd!["CONFIG", "SET", "infer.kv-budget", one]);
    client.ok(&generate(&history(2).repeat(4)));
    client.ok(&generate(&history(3)));
    assert_eq!(client.info("infer_kv_sequences"), 1);
    assert!(number(&client.ok(&generate(&history(1))), "cached_tokens") > 0);
}

#[test]
fn what_is_kept_goes_with_its_model_and_serves_no_other() {
    let (_server, mut client) = one_slot(&[]);
    client.ok(&generate(&history(0)));
    client.ok(&generate(&history(1)));
    assert_eq!(client.info("infer_kv_sequences"), 1);
    // The same file: what one has read could be used by the other, but their settings may differ.
    client.ok(&CHAT.load_as("other"));
    let asked = cmd!["INFER.GENERATE", "other", 0, "TEXT", history(0), "RAW", "MAXTOKENS", 4, "WITHSTATS"];
    assert_eq!(number(&client.ok(&asked), "cached_tokens"), 0);
    client.ok(&cmd!["INFER.UNLOAD", "chat"]);
    eventually("nothing is kept", || {
        (client.info("infer_kv_sequences"), client.info("infer_kv_sequence_bytes")) == (0, 0)
    });
    client.ok(&load(&[]));
    assert_eq!(number(&client.ok(&generate(&history(0))), "cached_tokens"), 0);
}

#[test]
fn neither_chunks_nor_prompts_put_together_of_them_are_kept_as_sequences() {
    let (_server, mut client) = one_slot(&[]);
    client.ok(&EMBED.load());
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat", "KV", "CHUNK"]);
    for (path, document) in [("animals.txt", ANIMALS), ("france.txt", FRANCE)] {
        client.ok(&cmd!["INFER.INGEST", "docs", path, document.repeat(4)]);
    }
    for question in ["the cat", "paris", "the city"] {
        client.ok(&cmd!["INFER.RAG", "docs", question, "MAXTOKENS", 4]);
        client.ok(&generate("a short one"));
    }
    assert!(client.info("infer_kv_chunks") >= 3);
    assert_eq!(client.info("infer_saved_sequences"), 0);
    // What a question is answered from without them is.
    client.ok(&cmd!["INFER.INDEX", "exact", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    client.ok(&cmd!["INFER.INGEST", "exact", "france.txt", FRANCE.repeat(4)]);
    client.ok(&cmd!["INFER.RAG", "exact", "paris", "MAXTOKENS", 4]);
    client.ok(&generate("a short one"));
    assert_eq!(client.info("infer_saved_sequences"), 1);
}

#[test]
fn requests_that_end_early_leave_what_is_kept_right() {
    let server = Server::with(&[STEADY]);
    let (mut client, mut other) = (server.client(), server.client());
    let ask = |person: usize, tokens: u32| {
        cmd!["INFER.GENERATE", "slow", 0, "TEXT", history(person), "RAW", "TEMP", 0, "MAXTOKENS", tokens, "WITHSTATS"]
    };
    let alone: Vec<Value> = (0..3).map(|person| client.ok(&ask(person, 8))).collect();
    for round in 0..6 {
        let mut endless = ask(round % 3, 10_000);
        if round % 2 == 0 {
            endless.arg("TIMEOUT").arg(100);
            other.refused(&endless, "TIMEOUT", "after 100 ms");
        } else {
            let mut leaves = server.client();
            leaves.send(&endless);
            eventually("it runs", || server.requests("slow") == 1);
        }
        eventually("nothing runs", || server.requests("slow") == 0);
        let person = (round + 1) % 3;
        let again = client.ok(&ask(person, 8));
        assert_eq!(text(field(&again, "text")), text(field(&alone[person], "text")));
        assert_eq!(number(&again, "cached_tokens"), number(&again, "prompt_tokens") - 1);
    }
}
