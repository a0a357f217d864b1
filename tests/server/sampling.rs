//! Options that change which token is chosen.

use crate::harness::{CHAT, Client, Server, cmd};

/// The greedy answer of eight tokens to a prompt of the ids of bytes, which this vocabulary has for them.
fn greedy(client: &mut Client, prompt: &str, options: &[&str]) -> String {
    client.text(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", prompt, "RAW", "TEMP", 0, "MAXTOKENS", 8, options])
}

/// LOGITBIAS in favour of a to h, far above everything else.
#[rustfmt::skip] // pairs belong on one line
const EIGHT_LETTERS: &[&str] = &[
    "LOGITBIAS", "8", "97", "50", "98", "50", "99", "50", "100", "50", "101", "50", "102", "50", "103", "50", "104", "50",
];

#[test]
fn a_bias_decides_at_any_temperature() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    assert_eq!(greedy(&mut client, "xyz", &["LOGITBIAS", "1", "97", "100"]), "aaaaaaaa");
    let drawn = cmd!["INFER.GENERATE", "chat", 0, "TEXT", "xyz", "MAXTOKENS", 8, "LOGITBIAS", 2, 97, -5, 97, 100];
    assert_eq!(client.text(&drawn), "aaaaaaaa");
}

#[test]
fn penalties_count_each_generated_token() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    for penalty in ["PRESENCE", "FREQUENCY"] {
        let mut letters: Vec<char> =
            greedy(&mut client, "xyz", &[EIGHT_LETTERS, &[penalty, "40"]].concat()).chars().collect();
        letters.sort_unstable();
        assert_eq!(letters.iter().collect::<String>(), "abcdefgh", "{penalty}");
    }
    // All logits are positive by the bias, so a penalty that divides makes repetition unlikely too.
    let repeat = greedy(&mut client, "xyz", &[EIGHT_LETTERS, &["REPEATPENALTY", "4"]].concat());
    let distinct: std::collections::HashSet<char> = repeat.chars().collect();
    assert_eq!(distinct.len(), 8, "{repeat}");
}

#[test]
fn penalties_count_the_prompt_as_far_as_repeatlastn_reaches() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let mut first = |options: &[&str]| {
        let answer = greedy(&mut client, "bcdefgh.a", &[EIGHT_LETTERS, options].concat());
        answer.chars().next().unwrap()
    };
    assert_eq!(first(&["PRESENCE", "40", "REPEATLASTN", "8"]), 'b', "all but b are among the last 8 tokens");
    assert_eq!(first(&["PRESENCE", "40", "REPEATLASTN", "0"]), first(&[]), "0 looks at none");
    assert_eq!(first(&["PRESENCE", "40", "REPEATLASTN", "-1"]), first(&[]), "the same for each of the eight");
}

#[test]
fn a_bias_outside_the_vocabulary_is_refused_with_the_numbers() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    for mut client in [server.resp3(), server.client()] {
        let command = cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "LOGITBIAS", 2, 97, 1, 1_000_000, 1];
        client.refused(&command, "BADTOKENS", "LOGITBIAS: token 1000000 at position 1 is outside the vocabulary of");
        client.assert_in_step();
    }
    assert_eq!(server.requests("chat"), 0);
    client.refused(
        &cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "LOGITBIAS", 1, 97, "nan"],
        "ERR",
        "LOGITBIAS bias is not a number",
    );
}
