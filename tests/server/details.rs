//! `WITHTOKENS` and `LOGPROBS`.

use crate::harness::{CHAT, Server, array, cmd, field, float, int, text};

#[test]
fn withtokens_tells_the_tokens_of_the_text() {
    let server = Server::with(&[CHAT]);
    for mut client in [server.client(), server.resp3()] {
        let reply =
            client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "GRAMMAR", "root ::= [a-z]{9}", "WITHTOKENS"]);
        let tokens: Vec<u32> =
            array(field(&reply, "tokens")).iter().map(|id| u32::try_from(int(id)).unwrap()).collect();
        assert!(!tokens.is_empty());
        let packed: Vec<u8> = tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
        let bytes = client.ok(&cmd!["INFER.DETOKENIZE", "chat", 0, "BLOB", packed]);
        assert_eq!(text(&bytes), text(field(&reply, "text")));
    }
}

#[test]
fn logprobs_are_of_the_tokens_and_independent_of_the_sampling_options() {
    let server = Server::with(&[CHAT]);
    for mut client in [server.client(), server.resp3()] {
        let ask = |options: &[&str]| {
            cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 3, "LOGPROBS", 4, "WITHTOKENS", options]
        };
        let reply = client.ok(&ask(&["TEMP", "0"]));
        let (tokens, logprobs) = (array(field(&reply, "tokens")), array(field(&reply, "logprobs")));
        assert_eq!((tokens.len(), logprobs.len()), (3, 3));
        for (token, logprob) in tokens.iter().zip(logprobs) {
            let top = array(field(logprob, "top"));
            assert_eq!(top.len(), 4);
            // Greedy takes the likeliest.
            assert_eq!(int(field(logprob, "token")), int(token));
            assert_eq!(int(&array(&top[0])[0]), int(token));
            assert_eq!(float(&array(&top[0])[1]).to_bits(), float(field(logprob, "logprob")).to_bits());
            let values: Vec<f64> = top.iter().map(|pair| float(&array(pair)[1])).collect();
            assert!(values.is_sorted_by(|a, b| a >= b) && values.iter().all(|&value| value < 0.0), "{values:?}");
        }
        let first = |reply: &redis::Value| -> Vec<(i64, f64)> {
            let top = array(field(&array(field(reply, "logprobs"))[0], "top")).iter();
            top.map(|pair| (int(&array(pair)[0]), float(&array(pair)[1]))).collect()
        };
        let hot = client.ok(&ask(&["TEMP", "5", "LOGITBIAS", "1", "97", "50"]));
        for ((token, logprob), (other, of_other)) in first(&reply).into_iter().zip(first(&hot)) {
            // What is read again from the memory of an earlier prompt is rounded in another way.
            assert!(token == other && (logprob - of_other).abs() < 1e-3, "{logprob} and {of_other}");
        }
    }
}

#[test]
fn logprobs_zero_tells_about_the_generated_token_alone() {
    let server = Server::with(&[CHAT]);
    let reply = server.client().ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 1, "LOGPROBS", 0]);
    let logprob = &array(field(&reply, "logprobs"))[0];
    assert!(float(field(logprob, "logprob")) < 0.0);
    assert_eq!(array(field(logprob, "top")), []);
}

#[test]
fn a_reply_that_would_be_too_large_is_refused_before_the_work() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let command = cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 100_000, "LOGPROBS", 20];
    client.refused(&command, "ERR", "LOGPROBS would make a reply of more than 100000 numbers");
}
