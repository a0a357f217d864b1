//! The threads that make tokens of texts: what waits for them is bounded, wanted, and served fairly.

use redis::{Cmd, Value};

use crate::harness::{CHAT, Client, EMBED, RANK, Server, array, cmd, eventually, field, int, text};

/// Bytes of the largest text.
const LARGEST: usize = 8 << 20;

fn hold(control: &mut Client) {
    control.ok(&cmd!["INFER.DEBUG", "HOLD"]);
}

fn release(control: &mut Client) {
    control.ok(&cmd!["INFER.DEBUG", "RELEASE"]);
}

/// Clients that have each sent one of these, which wait.
fn waiting(server: &Server, control: &mut Client, commands: impl IntoIterator<Item = Cmd>) -> Vec<Client> {
    let before = control.info("infer_preprocess_waiting");
    let clients: Vec<Client> = commands
        .into_iter()
        .map(|command| {
            let mut client = server.client();
            client.send(&command);
            client
        })
        .collect();
    let all = before + i64::try_from(clients.len()).unwrap();
    eventually("all texts wait", || control.info("infer_preprocess_waiting") == all);
    clients
}

#[test]
fn texts_of_clients_that_have_left_are_not_tokenized() {
    let server = Server::with(&[CHAT]);
    let mut control = server.client();
    hold(&mut control);
    let large = "the thing ".repeat(20_000);
    let left = waiting(&server, &mut control, vec![cmd!["INFER.TOKENIZE", "chat", &large]; 20]);
    assert!(control.info("infer_preprocess_bytes") >= 20 * 200_000);
    drop(left);
    eventually("the server knows that they have left", || control.info("blocked_clients") == 0);
    let short = cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 1];
    let mut short = waiting(&server, &mut control, [short]);
    release(&mut control);
    short[0].receive().unwrap();
    eventually("all are gone", || control.info("infer_preprocess_bytes") == 0);
    assert_eq!(control.info("infer_preprocess_skipped"), 20);
    assert_eq!(control.info("infer_cancelled"), 20);
}

#[test]
fn a_text_that_is_cancelled_while_it_waits_is_not_tokenized() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut control = server.client();
    hold(&mut control);
    let commands = [cmd!["INFER.TOKENIZESTORE", "k", "chat", "text"], cmd!["INFER.EMBED", "embed", 1, "text"]];
    let mut clients = waiting(&server, &mut control, commands);
    let listed = control.ok(&cmd!["INFER.PS"]);
    for request in array(&listed) {
        assert_eq!(control.ok(&cmd!["INFER.CANCEL", int(field(request, "id"))]), Value::Int(1));
    }
    for client in &mut clients {
        assert_eq!(client.receive().unwrap_err().code, "CANCELLED");
    }
    release(&mut control);
    eventually("both are skipped", || control.info("infer_preprocess_skipped") == 2);
    assert_eq!(control.ok(&cmd!["EXISTS", "k"]), Value::Int(0));
    clients.iter_mut().for_each(Client::assert_in_step);
}

#[test]
fn a_small_text_does_not_wait_for_the_large_ones_that_came_before() {
    let server = Server::with(&[CHAT]);
    let (mut control, mut events) = (server.client(), server.client());
    control.ok(&cmd!["CONFIG", "SET", "notify-keyspace-events", "E$"]);
    events.ok(&cmd!["SUBSCRIBE", "__keyevent@0__:set"]);
    hold(&mut control);
    const LARGE: usize = 12;
    let words = "the thing ".repeat(50_000);
    let large = (0..LARGE).map(|number| cmd!["INFER.TOKENIZESTORE", format!("large {number}"), "chat", &words]);
    let small = cmd!["INFER.TOKENIZESTORE", "small", "chat", "x"];
    let mut clients = waiting(&server, &mut control, large);
    clients.extend(waiting(&server, &mut control, [small]));
    release(&mut control);
    clients.iter_mut().for_each(|client| drop(client.receive().unwrap()));
    let stored: Vec<String> =
        (0..=LARGE).map(|_| text(array(&events.receive().unwrap()).last().unwrap()).to_owned()).collect();
    // Two large ones are begun at once with it.
    let place = stored.iter().position(|key| key == "small").unwrap();
    assert!(place < LARGE / 2, "{stored:?}");
}

#[test]
fn large_texts_are_refused_when_too_many_bytes_wait_and_small_ones_are_not() {
    let server = Server::with(&[CHAT]);
    let mut control = server.client();
    hold(&mut control);
    let largest = "x".repeat(LARGEST);
    let mut clients = waiting(&server, &mut control, vec![cmd!["INFER.TOKENIZE", "chat", &largest]; 8]);
    let bytes = control.info("infer_preprocess_bytes");
    assert_eq!(bytes, 8 * i64::try_from(LARGEST).unwrap());
    let more = cmd!["INFER.TOKENIZESTORE", "k", "chat", "y".repeat(100_000)];
    control.refused(&more, "QUEUEFULL", "8 texts already wait to be tokenized, of at most 1024 and 67108864 bytes");
    assert_eq!(control.info("infer_rejected_queuefull"), 1);
    clients.extend(waiting(&server, &mut control, [cmd!["INFER.TOKENIZE", "chat", "x"]]));
    let listed = control.ok(&cmd!["INFER.PS"]);
    assert_eq!(array(&listed).len(), 9);
    for request in array(&listed) {
        assert_eq!(
            ["command", "model", "state"].map(|name| text(field(request, name))),
            ["INFER.TOKENIZE", "chat", "queued"]
        );
    }
    let mut small = clients.pop().unwrap();
    drop(clients);
    eventually("the server knows that they have left", || control.info("blocked_clients") == 1);
    release(&mut control);
    small.receive().unwrap();
    eventually("there is room again", || control.call(&more).is_ok());
}

#[test]
fn all_texts_of_a_command_together_are_as_long_as_one_may_be() {
    let server = Server::with(&[EMBED, RANK]);
    let mut client = server.client();
    let half = "x".repeat(LARGEST / 2);
    let texts = [&half, &half, "y"];
    client.refused(&cmd!["INFER.EMBED", "embed", 3, &texts], "ERR", "all texts together is longer than 8388608 bytes");
    client.refused(&cmd!["INFER.RERANK", "rank", "q", 3, &texts], "ERR", "all texts together is longer than 8388608");
    client.refused(&cmd!["INFER.RERANK", "rank", "q", 2, &texts[..2]], "ERR", "query and all texts together is longer");
}

#[test]
fn the_first_text_that_is_too_long_ends_a_command() {
    let server = Server::with(&[EMBED, RANK]);
    let mut client = server.client();
    let long = "the cat ".repeat(3000);
    client.refused(&cmd!["INFER.EMBED", "embed", 3, "a", &long, &long], "CTXLIMIT", "text 2 has ");
    client.refused(&cmd!["INFER.RERANK", "rank", "q", 3, "a", &long, &long], "CTXLIMIT", "the text at index 1 have ");
    assert_eq!(client.info("infer_errors"), 1);
}

#[test]
fn more_tokens_than_a_command_may_have_are_refused_before_they_are_decoded() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let blob = vec![0xff_u8; 4 * ((1 << 20) + 1)];
    let room = "BLOB holds 1048577 tokens, but there is room for";
    client.refused(&cmd!["INFER.DETOKENIZE", "chat", 0, "BLOB", &blob], "CTXLIMIT", &format!("{room} 1048576"));
    client.refused(&cmd!["INFER.GENERATE", "chat", 0, "BLOB", &blob], "CTXLIMIT", &format!("{room} 2048"));
    // As many as may be are decoded, and seen to be none of the model's.
    client.refused(&cmd!["INFER.DETOKENIZE", "chat", 0, "BLOB", &blob[4..]], "BADTOKENS", "at position 0 is outside");
    client.ok(&cmd!["INFER.TOKENIZESTORE", "k", "chat", "one two"]);
    client.refused(&cmd!["INFER.DETOKENIZE", "chat", 1, "k", "BLOB", &blob[4..]], "CTXLIMIT", "BLOB holds 1048576");
}

#[test]
fn a_conversation_of_too_many_messages_is_refused_at_the_first_one_too_many() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let mut chat = cmd!["INFER.CHAT", "chat", 0];
    for _ in 0..1025 {
        chat.arg(&["MESSAGE", "user", "x"]);
    }
    // What stands behind it would be refused too.
    chat.arg(&["MESSAGE", "nobody", "x"]);
    client.refused(&chat, "ERR", "the conversation has more than 1024 messages");
}

#[test]
fn a_prompt_that_is_far_too_long_is_refused_with_an_estimate() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let refusal = client.refused(
        &cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x".repeat(LARGEST)],
        "CTXLIMIT",
        "but the context of model 'chat' holds 2048; shorten the prompt",
    );
    let estimate = refusal.text.split("at least ").nth(1).and_then(|rest| rest.split(' ').next());
    let estimate: usize = estimate.expect(&refusal.text).parse().unwrap();
    // No token has more bytes than the longest word of the vocabulary.
    assert!((4 * 2048..LARGEST).contains(&estimate), "{estimate}");
    // What is a little too long is counted.
    let text = "the cat ".repeat(1500);
    let refusal =
        client.refused(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", text], "CTXLIMIT", "tokens and MAXTOKENS is");
    assert!(!refusal.text.contains("at least"), "{}", refusal.text);
}
