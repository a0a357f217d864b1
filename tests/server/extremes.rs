//! Values at the edges of what is allowed: they are used as they are, and the server lives.

use redis::Value;

use crate::harness::{CHAT, Client, Server, array, cmd, field, int, text};

/// Tokens of the context of [`CHAT`].
const CONTEXT: usize = 2048;

#[track_caller]
fn assert_answers(client: &mut Client, options: &[&str]) {
    let mut command = cmd!["INFER.GENERATE", "chat", 0, "TEXT", "the cat", "WITHSTATS", options];
    if !options.contains(&"MAXTOKENS") {
        command.arg("MAXTOKENS").arg(8);
    }
    let reply = client.ok(&command);
    let (made, reason) = (int(field(&reply, "completion_tokens")), text(field(&reply, "finish_reason")).to_owned());
    assert!(made > 0 || reason == "eos" || reason == "stop", "{options:?}: {reply:?}");
}

#[test]
fn every_option_at_both_ends_of_its_range_gives_an_answer() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let ends = [
        ("MAXTOKENS", ["1", "1900"]),
        ("TEMP", ["1e-45", "100"]),
        ("TOPK", ["0", "1000000"]),
        ("TOPP", ["0", "1"]),
        ("MINP", ["0", "1"]),
        ("REPEATPENALTY", ["0.0625", "16"]),
        ("REPEATLASTN", ["-1", "1048576"]),
        ("PRESENCE", ["-100", "100"]),
        ("FREQUENCY", ["-100", "100"]),
        ("SEED", ["0", "4294967294"]),
        ("TIMEOUT", ["30000", "86400000"]),
        ("LOGPROBS", ["0", "20"]),
    ];
    for (option, values) in ends {
        for value in values {
            assert_answers(&mut client, &[option, value]);
        }
    }
    for end in [0, 1] {
        let all: Vec<&str> = ends.iter().flat_map(|(option, values)| [*option, values[end]]).collect();
        assert_answers(&mut client, &all);
    }
}

#[test]
fn a_thousand_biases_and_as_many_stop_strings_as_allowed_work_together() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    for bias in ["-100", "100"] {
        let mut options = vec!["LOGITBIAS".to_owned(), "1024".to_owned()];
        options.extend((0..1024).flat_map(|pair| [(pair % 256).to_string(), bias.to_owned()]));
        options.extend(["STOP".to_owned(), "64".to_owned()]);
        options.extend((0..64).map(|stop| format!("{stop}").repeat(100)));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        assert_answers(&mut client, &options);
    }
    let thousand: Vec<String> = (0..1000).map(|stop| format!("stop {stop}")).collect();
    let command = cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "STOP", 1000, thousand];
    client.refused(&command, "ERR", "STOP must be from 1 to 64");
}

/// The four bytes of a token id.
fn token(id: u32) -> [u8; 4] {
    id.to_le_bytes()
}

#[test]
fn a_prompt_may_be_one_token_and_as_long_as_the_context_without_the_answer() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    for (length, max_tokens) in [(1, CONTEXT - 1), (CONTEXT - 1, 1), (CONTEXT - 100, 100)] {
        client.ok(&cmd!["SET", "k", token(65).repeat(length)]);
        let command = |max: usize| cmd!["INFER.GENERATE", "chat", 1, "k", "RAW", "MAXTOKENS", max, "WITHSTATS"];
        let reply = client.ok(&command(max_tokens));
        assert_eq!(int(field(&reply, "prompt_tokens")), i64::try_from(length).unwrap());
        let refusal = client.refused(&command(max_tokens + 1), "CTXLIMIT", &format!("the prompt has {length} tokens"));
        assert!(refusal.text.contains(&format!("holds {CONTEXT}")), "{}", refusal.text);
    }
    client.ok(&cmd!["SET", "k", token(65).repeat(CONTEXT)]);
    client.refused(&cmd!["INFER.GENERATE", "chat", 1, "k", "RAW", "MAXTOKENS", 1], "CTXLIMIT", "");
}

#[test]
fn every_token_of_the_vocabulary_is_a_prompt_special_ones_too() {
    let mut server = Server::with(&[CHAT]);
    let mut client = server.client();
    let vocabulary = int(field(&client.ok(&cmd!["INFER.MODEL", "chat"]), "vocabulary"));
    let all: Vec<u32> = (0..u32::try_from(vocabulary).unwrap()).collect();
    for id in &all {
        client.ok(&cmd!["SET", "k", &token(*id)]);
        client.ok(&cmd!["INFER.DETOKENIZE", "chat", 1, "k"]);
        for raw in [&["RAW"][..], &[]] {
            client.ok(&cmd!["INFER.GENERATE", "chat", 1, "k", "MAXTOKENS", 1, raw]);
        }
    }
    let together: Vec<u8> = all.iter().flat_map(|id| token(*id)).take(4 * (CONTEXT - 1)).collect();
    client.ok(&cmd!["SET", "k", together]);
    client.ok(&cmd!["INFER.GENERATE", "chat", 1, "k", "RAW", "MAXTOKENS", 1]);
    client.assert_in_step();
    assert_eq!(array(&client.ok(&cmd!["INFER.PS"])), &[] as &[Value]);
    server.assert_alive();
}
