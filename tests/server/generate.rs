//! INFER.GENERATE.

use redis::Value;

use crate::harness::{BASE, CHAT, Client, EMBED, SLOW, Server, array, cmd, eventually, field, int, text};

#[test]
fn a_stored_key_and_the_same_text_give_the_same_answer() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.TOKENIZESTORE", "q", "chat", "the answer and the question"]);
    for form in [&["TEMP", "0"][..], &["TEMP", "0", "RAW"]] {
        let key = client.ok(&cmd!["INFER.GENERATE", "chat", 1, "q", "MAXTOKENS", 16, form]);
        let direct =
            client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "the answer and the question", "MAXTOKENS", 16, form]);
        assert!(!text(&key).is_empty());
        assert_eq!(key, direct);
    }
}

#[test]
fn keys_then_text_are_one_prompt() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.TOKENIZESTORE", "a", "chat", "xyz"]);
    let joined =
        client.ok(&cmd!["INFER.GENERATE", "chat", 2, "a", "a", "TEXT", "123", "RAW", "TEMP", 0, "MAXTOKENS", 8]);
    let direct = client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "xyzxyz123", "RAW", "TEMP", 0, "MAXTOKENS", 8]);
    assert_eq!(joined, direct);
}

#[test]
fn a_blob_of_tokens_is_a_prompt() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    // The ids of single bytes in this vocabulary are the bytes.
    let blob: Vec<u8> = b"xyz".iter().flat_map(|&byte| u32::from(byte).to_le_bytes()).collect();
    let from_blob = client.ok(&cmd!["INFER.GENERATE", "chat", 0, "BLOB", blob, "TEMP", 0, "MAXTOKENS", 8]);
    let from_text = client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "xyz", "TEMP", 0, "MAXTOKENS", 8]);
    assert_eq!(from_blob, from_text);
}

/// WITHSTATS of a short greedy answer.
fn stats(client: &mut Client, options: &[&str]) -> Value {
    client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "xyz", "TEMP", 0, "MAXTOKENS", 12, "WITHSTATS", options])
}

#[test]
fn raw_sends_the_prompt_without_the_chat_format() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    assert_eq!(int(field(&stats(&mut client, &["RAW"]), "prompt_tokens")), 3);
    assert!(int(field(&stats(&mut client, &[]), "prompt_tokens")) > 3);
}

#[test]
fn an_answer_ends_at_maxtokens_with_reason_length() {
    let server = Server::with(&[CHAT]);
    let stats = stats(&mut server.client(), &[]);
    assert_eq!(text(field(&stats, "finish_reason")), "length");
    assert_eq!(int(field(&stats, "completion_tokens")), 12);
}

#[test]
fn an_answer_ends_before_a_stop_string() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let whole = stats(&mut client, &[]);
    let whole = text(field(&whole, "text"));
    // Bytes that are no character have become U+FFFD in the answer; a stop string is compared before that.
    let stop = whole.chars().skip(2).find(|&c| c != char::REPLACEMENT_CHARACTER).unwrap().to_string();
    let stopped = stats(&mut client, &["STOP", "2", "never generated", &stop]);
    assert_eq!(text(field(&stopped, "finish_reason")), "stop");
    assert_eq!(text(field(&stopped, "text")), &whole[..whole.find(&stop).unwrap()]);
}

#[test]
fn stats_are_a_map_in_resp3() {
    let server = Server::with(&[CHAT]);
    let stats = stats(&mut server.resp3(), &["SEED", "7"]);
    let Value::Map(fields) = &stats else { panic!("not a map: {stats:?}") };
    let names: Vec<&str> = fields.iter().map(|(name, _)| text(name)).collect();
    let expected = [
        "text",
        "finish_reason",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "drafted_tokens",
        "accepted_tokens",
        "prepare_us",
        "queue_us",
        "prefill_us",
        "decode_us",
        "ttft_us",
        "model",
        "seed",
    ];
    assert_eq!(names, expected);
    assert_eq!(text(field(&stats, "model")), "chat");
    assert_eq!(int(field(&stats, "seed")), 7);
    // Each is rounded down by itself.
    let parts: i64 = ["prepare_us", "queue_us", "prefill_us"].map(|part| int(field(&stats, part))).iter().sum();
    assert!((0..=2).contains(&(int(field(&stats, "ttft_us")) - parts)), "{stats:?}");
}

#[test]
fn stats_are_a_flat_array_in_resp2() {
    let server = Server::with(&[CHAT]);
    let stats = stats(&mut server.client(), &[]);
    let Value::Array(flat) = &stats else { panic!("not an array: {stats:?}") };
    assert_eq!(flat.len(), 28);
    assert_eq!(text(&flat[0]), "text");
}

#[test]
fn without_withstats_the_reply_is_the_text_alone() {
    let server = Server::with(&[CHAT]);
    for mut client in [server.client(), server.resp3()] {
        let reply = client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "xyz", "MAXTOKENS", 4]);
        assert!(matches!(reply, Value::BulkString(_)), "{reply:?}");
    }
}

/// An answer drawn at a high temperature, with its seed.
fn drawn(client: &mut Client, seed: &[&str]) -> (String, i64) {
    let command = cmd![
        "INFER.GENERATE",
        "chat",
        0,
        "TEXT",
        "xyz",
        "TEMP",
        5,
        "TOPK",
        0,
        "TOPP",
        1,
        "MINP",
        0,
        "MAXTOKENS",
        24,
        "WITHSTATS",
        seed
    ];
    let reply = client.ok(&command);
    (text(field(&reply, "text")).to_owned(), int(field(&reply, "seed")))
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let first = drawn(&mut client, &["SEED", "42"]);
    assert_eq!(drawn(&mut client, &["SEED", "42"]), first);
    assert_ne!(drawn(&mut client, &["SEED", "43"]).0, first.0);
}

#[test]
fn without_a_seed_answers_differ_and_can_be_repeated_with_the_seed_they_tell() {
    let server = Server::start();
    let mut client = server.client();
    let mut load = CHAT.load();
    client.ok(load.arg(&["SPECULATION", "NONE"]));
    // With the prompt read already, all three compute the same, to the last digit.
    drawn(&mut client, &[]);
    let (first, second) = (drawn(&mut client, &[]), drawn(&mut client, &[]));
    assert_ne!(first, second);
    assert_eq!(drawn(&mut client, &["SEED", &first.1.to_string()]), first);
}

#[test]
fn a_model_without_a_chat_template_takes_prompts_as_they_are_only() {
    let server = Server::with(&[BASE]);
    let mut client = server.client();
    client.refused(&cmd!["INFER.GENERATE", "base", 0, "TEXT", "x"], "ERR", "no usable chat template");
    client.ok(&cmd!["INFER.GENERATE", "base", 0, "TEXT", "x", "RAW", "MAXTOKENS", 2]);
}

#[test]
fn a_prompt_asked_again_is_not_read_again_and_answered_the_same() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let prompt = "one two three four five six seven eight nine ten ".repeat(4);
    let mut ask = || {
        let command = cmd!["INFER.GENERATE", "chat", 0, "TEXT", &prompt, "RAW", "TEMP", 0, "MAXTOKENS", 8, "WITHSTATS"];
        let stats = client.ok(&command);
        let number = |name| int(field(&stats, name));
        (text(field(&stats, "text")).to_owned(), number("prompt_tokens"), number("cached_tokens"))
    };
    let (first, tokens, cached) = ask();
    assert_eq!(cached, 0);
    assert_eq!(ask(), (first, tokens, tokens - 1));
}

#[test]
fn conversations_find_the_workers_that_have_read_them() {
    let server = Server::start();
    let mut client = server.client();
    let path = CHAT.path().to_str().unwrap();
    // One worker where there is one CPU.
    client.ok(&cmd!["INFER.LOAD", "chat", path, "THREADS", 1, "PARALLEL", 1]);
    let workers = int(field(&client.ok(&cmd!["INFER.MODEL", "chat"]), "workers"));
    let mut prompts: Vec<String> = (0..workers).map(|person| format!("{person} ").repeat(40)).collect();
    for turn in 0..6 {
        // Not in the same order each time.
        prompts.rotate_left(usize::from(turn % 3 == 0));
        for prompt in &mut prompts {
            let before = i64::try_from(prompt.len()).unwrap();
            let stats = client.ok(&cmd![
                "INFER.GENERATE",
                "chat",
                0,
                "TEXT",
                &*prompt,
                "RAW",
                "TEMP",
                0,
                "MAXTOKENS",
                4,
                "WITHSTATS"
            ]);
            if turn > 0 {
                let cached = int(field(&stats, "cached_tokens"));
                assert!(cached + 20 > before, "turn {turn}: {cached} of {before}");
            }
            prompt.push_str("and now what?");
        }
    }
}

#[test]
fn what_eight_clients_share_is_read_once_whichever_workers_answer_them() {
    let server = Server::start();
    let mut client = server.client();
    let path = CHAT.path().to_str().unwrap();
    client.ok(&cmd!["INFER.LOAD", "chat", path, "THREADS", 1, "PARALLEL", 4]);
    let shared = "one two three four five six seven eight nine ten ".repeat(10);
    let mut clients: Vec<Client> = (0..8).map(|_| server.client()).collect();
    for (own, client) in clients.iter_mut().enumerate() {
        let prompt = format!("{shared}{own}");
        client.send(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", prompt, "RAW", "TEMP", 0, "MAXTOKENS", 4, "WITHSTATS"]);
    }
    let replies: Vec<Value> = clients.iter_mut().map(|client| client.receive().unwrap()).collect();
    let total = |name| replies.iter().map(|reply| int(field(reply, name))).sum::<i64>();
    let of_all = total("prompt_tokens");
    assert_eq!(total("prompt_tokens") - total("cached_tokens"), of_all / 8 + 7, "{replies:?}");
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_with_both_numbers() {
    let server = Server::with(&[CHAT]);
    let prompt = "x".repeat(2100);
    let command = cmd!["INFER.GENERATE", "chat", 0, "TEXT", &prompt, "RAW", "MAXTOKENS", 1];
    let refusal = server.client().refused(&command, "CTXLIMIT", "the prompt has 2100 tokens");
    assert!(refusal.text.contains("the context of model 'chat' holds 2048"), "{}", refusal.text);
}

#[test]
fn an_answer_that_would_not_fit_behind_the_prompt_is_refused_before_it_begins() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let prompt = "x".repeat(2000);
    let command = |max: u32| cmd!["INFER.GENERATE", "chat", 0, "TEXT", &prompt, "RAW", "MAXTOKENS", max, "TEMP", 0];
    client.refused(&command(49), "CTXLIMIT", "MAXTOKENS is 49");
    client.ok(&command(48));
}

#[test]
fn an_answer_that_takes_too_long_is_a_timeout_that_says_how_far_it_got() {
    let server = Server::with(&[SLOW]);
    let mut client = server.client();
    let mut generated = |timeout: u32| -> u32 {
        let command = cmd!["INFER.GENERATE", "slow", 0, "TEXT", "go on", "MAXTOKENS", 16_000, "TIMEOUT", timeout];
        let refusal = client.refused(&command, "TIMEOUT", &format!("after {timeout} ms with "));
        assert!(refusal.text.contains(" of at most 16000 tokens generated"), "{}", refusal.text);
        let words: Vec<&str> = refusal.text.split(' ').collect();
        words[words.iter().position(|&word| word == "with").unwrap() + 1].parse().unwrap()
    };
    // A busy machine may not come to the first token in the shorter time.
    assert!([500, 5000].into_iter().any(|timeout| generated(timeout) > 0));
    client.assert_in_step();
    eventually("the work ends with its client's wait", || server.requests("slow") == 0);
}

#[test]
fn a_full_queue_refuses_and_loses_nothing() {
    let server = Server::with(&[SLOW]);
    let mut control = server.client();
    control.ok(&cmd!["CONFIG", "SET", "infer.queue-limit", 1]);
    let command = |most: u32| cmd!["INFER.GENERATE", "slow", 0, "TEXT", "go on", "MAXTOKENS", most, "WITHSTATS"];
    let (mut running, mut waiting) = (server.client(), server.client());
    running.send(&command(16_000));
    eventually("one runs", || server.requests("slow") == 1);
    waiting.send(&command(100));
    eventually("one waits", || server.requests("slow") == 2);
    control.refused(&command(100), "QUEUEFULL", "1 requests already wait for model 'slow'");
    let listed = control.ok(&cmd!["INFER.PS"]);
    control.ok(&cmd!["INFER.CANCEL", int(field(&array(&listed)[0], "id"))]);
    assert_eq!(running.receive().unwrap_err().code, "CANCELLED");
    assert!(int(field(&waiting.receive().unwrap(), "completion_tokens")) > 0);
    control.ok(&command(100));
}

#[test]
fn clients_that_wait_for_their_answers_do_not_overfill_the_queue() {
    let server = Server::start();
    let mut control = server.client();
    let mut load = CHAT.load();
    load.arg(&["PARALLEL", "1"]);
    control.ok(&load);
    control.ok(&cmd!["CONFIG", "SET", "infer.queue-limit", 1]);
    // One runs, one waits: two clients that send the next request when they have their answer always have a place.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = server.client();
                for _ in 0..300 {
                    client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "RAW", "MAXTOKENS", 1]);
                }
            });
        }
    });
}

#[test]
fn a_client_that_leaves_stops_its_work() {
    let server = Server::with(&[SLOW]);
    let mut client = server.client();
    client.send(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "go on", "MAXTOKENS", 16_000]);
    eventually("the request is accepted", || server.requests("slow") == 1);
    drop(client);
    eventually("nothing is left of the request", || server.requests("slow") == 0);
}

#[test]
fn a_model_of_the_other_kind_is_refused() {
    let server = Server::with(&[EMBED, CHAT]);
    let mut client = server.client();
    client.refused(
        &cmd!["INFER.GENERATE", "embed", 0, "TEXT", "x"],
        "ERR",
        "model 'embed' is for embedding; this command needs a model for generation",
    );
    client.refused(
        &cmd!["INFER.EMBED", "chat", 1, "x"],
        "ERR",
        "model 'chat' is for generation; this command needs a model for embedding",
    );
}
