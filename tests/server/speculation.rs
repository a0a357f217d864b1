//! `SPECULATION`: answers with guessed tokens are those without.

use redis::Value;

use crate::harness::{CHAT, Client, EMBED, Server, array, cmd, field, float, int, text};

/// The same model three times: guessing, not guessing, and not said.
fn server() -> (Server, Client) {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    for (name, speculation) in [("lookup", "LOOKUP"), ("none", "NONE")] {
        client.ok(CHAT.load_as(name).arg("SPECULATION").arg(speculation));
    }
    (server, client)
}

/// A prompt that makes the tiny model draw from a few letters, which stood in all orders before.
const PROMPT: &str = "abcabcacbacbabcbacbacabcabcabbacbabcacbacbcabcacbaabcabcacbacbabcbacbacab";
const LETTERS: [&str; 8] = ["LOGITBIAS", "3", "97", "60", "98", "60", "99", "59"];

fn ask(client: &mut Client, model: &str, options: &[&str]) -> Value {
    let details = ["WITHTOKENS", "WITHSTATS", "LOGPROBS", "2"];
    client.ok(&cmd!["INFER.GENERATE", model, 0, "TEXT", PROMPT, "RAW", "MAXTOKENS", 90, &details, options])
}

fn tokens(reply: &Value) -> Vec<i64> {
    array(field(reply, "tokens")).iter().map(int).collect()
}

/// Rounds until guesses of both kinds were seen. How much is guessed follows from measured times, and in a round of few
/// guesses all may be right.
const ROUNDS: usize = 50;

#[test]
fn answers_are_the_same_with_and_without() {
    let (_server, mut client) = server();
    let number = r#"{"type":"array","items":{"enum":["ab","abc"]},"minItems":12,"maxItems":20}"#;
    let cases: [(&str, &[&str]); 7] = [
        ("greedy", &["TEMP", "0"]),
        ("sampled", &[]),
        ("hot", &["TEMP", "3", "TOPK", "0"]),
        ("penalties", &["REPEATPENALTY", "1.3", "PRESENCE", "0.5", "FREQUENCY", "0.1"]),
        ("a grammar", &["GRAMMAR", "root ::= [abc]{40} \"end\""]),
        ("a schema", &["TEMP", "0", "JSONSCHEMA", number]),
        ("a stop string", &["STOP", "1", "cbcbc"]),
    ];
    let (mut drafted, mut accepted) = (0, 0);
    for round in 0..ROUNDS {
        for (name, options) in cases {
            let seed = round.to_string();
            let options = [&LETTERS, options, &["SEED", &seed]].concat();
            let (with, without) = (ask(&mut client, "lookup", &options), ask(&mut client, "none", &options));
            assert_same(&with, &without, &format!("{name}, seed {seed}"));
            drafted += int(field(&with, "drafted_tokens"));
            accepted += int(field(&with, "accepted_tokens"));
            assert_eq!(int(field(&without, "drafted_tokens")), 0);
        }
        if 0 < accepted && accepted < drafted {
            break;
        }
    }
    assert!(0 < accepted && accepted < drafted, "{accepted} of {drafted}");
    let info = client.text(&cmd!["INFO", "infer"]);
    for count in [format!("infer_drafted_tokens:{drafted}\r"), format!("infer_accepted_tokens:{accepted}\r")] {
        assert!(info.contains(&count), "{count} in {info}");
    }
}

fn assert_same(with: &Value, without: &Value, case: &str) {
    assert_eq!(tokens(with), tokens(without), "{case}");
    for same in ["text", "finish_reason", "completion_tokens", "cached_tokens"] {
        assert_eq!(field(with, same), field(without, same), "{case}");
    }
    let (ours, theirs) = (array(field(with, "logprobs")), array(field(without, "logprobs")));
    assert_eq!(ours.len(), tokens(with).len(), "{case}");
    for (our, their) in ours.iter().zip(theirs) {
        assert_eq!(field(our, "token"), field(their, "token"), "{case}");
        // Several tokens at once are rounded in another way.
        let (our, their) = (float(field(our, "logprob")), float(field(their, "logprob")));
        assert!((our - their).abs() < 1e-3, "{case}: {our} and {their}");
    }
}

#[test]
fn a_conversation_goes_on_right_behind_rejected_guesses() {
    let (_server, mut client) = server();
    let begin = client.ok(&cmd!["INFER.TOKENIZE", "lookup", PROMPT, "NOSPECIAL"]);
    let packed =
        |ids: &[i64]| -> Vec<u8> { ids.iter().flat_map(|&id| u32::try_from(id).unwrap().to_le_bytes()).collect() };
    let begin: Vec<i64> = array(&begin).iter().map(int).collect();
    let mut ask = |model: &str, prompt: &[i64], seed: usize| {
        let options = [&LETTERS[..], &["WITHTOKENS", "WITHSTATS"]].concat();
        let prompt = packed(prompt);
        client.ok(&cmd!["INFER.GENERATE", model, 0, "BLOB", prompt, "RAW", "MAXTOKENS", 60, "SEED", seed, options])
    };
    for round in 0..ROUNDS {
        let (mut prompt, mut drafted, mut accepted) = (begin.clone(), 0, 0);
        for turn in 0..6 {
            let seed = round * 6 + turn;
            let (with, without) = (ask("lookup", &prompt, seed), ask("none", &prompt, seed));
            assert_eq!(tokens(&with), tokens(&without), "round {round}, turn {turn}");
            let read = i64::try_from(prompt.len()).unwrap() - 2;
            let cached = int(field(&with, "cached_tokens"));
            assert!(turn == 0 || (read - 1..=read).contains(&cached), "{cached} of {read}");
            prompt.extend(tokens(&with));
            prompt.push(99);
            // Behind the last turn nothing shows whether a rejected guess was taken back.
            if turn < 5 {
                drafted += int(field(&with, "drafted_tokens"));
                accepted += int(field(&with, "accepted_tokens"));
            }
        }
        if accepted < drafted {
            return;
        }
    }
    panic!("no guess was rejected in {ROUNDS} conversations");
}

#[test]
fn models_tell_whether_they_guess_and_those_that_do_not_generate_refuse_it() {
    let (_server, mut client) = server();
    for (model, speculation) in [("chat", "LOOKUP"), ("lookup", "LOOKUP"), ("none", "NONE")] {
        let facts = client.ok(&cmd!["INFER.MODEL", model]);
        assert_eq!(text(field(&facts, "speculation")), speculation, "{model}");
    }
    for speculation in ["LOOKUP", "NONE"] {
        let mut load = EMBED.load();
        load.arg("SPECULATION").arg(speculation);
        client.refused(&load, "LOADFAIL", "SPECULATION and LORA are for generation");
    }
}
