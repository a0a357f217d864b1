//! UNLOAD answers when the memory is free, and the thread that frees it is never one that others wait for.

use crate::harness::{
    CHAT, Client, EMBED, RANK, SLOW_EMBED, SLOW_RANK, Server, array, cmd, eventually, paragraph_index,
};

/// The thread that has freed the model, by the log.
fn freed_by(server: &Server, model: &str) -> Vec<String> {
    let log = server.log();
    let line = format!("the memory of model '{model}' was freed by thread ");
    log.lines().filter_map(|found| Some(found.split_once(&line)?.1.trim().to_owned())).collect()
}

#[test]
fn unload_answers_when_the_last_command_that_holds_the_model_has_ended() {
    let mut server = Server::with(&[CHAT, EMBED, RANK]);
    let (mut client, mut control) = (server.client(), server.client());
    for (model, force) in [(CHAT, None), (EMBED, Some("FORCE")), (RANK, None)] {
        control.ok(&cmd!["INFER.DEBUG", "KEEP", model.name]);
        let estimated = control.info("infer_estimated_bytes");
        client.send(&cmd!["INFER.UNLOAD", model.name, force]);
        let waits = format!("model '{}' is out of service; its memory is freed when", model.name);
        eventually("the model waits for who holds it", || server.log().contains(&waits));
        assert_eq!(freed_by(&server, model.name), [] as [&str; 0]);
        assert_eq!(control.info("infer_estimated_bytes"), estimated);
        control.refused(&cmd!["INFER.MODEL", model.name], "NOMODEL", "");
        // Dropped by the main thread, which is not to free it.
        control.ok(&cmd!["INFER.DEBUG", "RELEASE"]);
        assert!(client.receive().is_ok());
        assert_eq!(freed_by(&server, model.name), ["infer-load"]);
        assert!(control.info("infer_estimated_bytes") < estimated);
    }
    assert_eq!(array(&control.ok(&cmd!["INFER.MODELS"])), []);
    assert_eq!(control.info("infer_estimated_bytes"), 0);
    server.assert_alive();
}

#[test]
fn the_server_stops_while_an_unload_waits_for_who_holds_the_model() {
    let mut server = Server::with(&[CHAT]);
    let (mut client, mut control) = (server.client(), server.client());
    control.ok(&cmd!["INFER.DEBUG", "KEEP", "chat"]);
    client.send(&cmd!["INFER.UNLOAD", "chat"]);
    eventually("the model waits for who holds it", || server.log().contains("its memory is freed when"));
    control.send(&cmd!["SHUTDOWN", "NOSAVE"]);
    assert!(server.wait_for_exit(), "the server ended with an error");
}

/// Unloads a model while `command` runs in several clients, again and again.
fn unloads_in_use(server: &mut Server, model: &str, load: &redis::Cmd, command: impl Fn(usize) -> redis::Cmd) {
    let mut control = server.client();
    for round in 1..=6 {
        let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(&command(round * 10 + number));
        }
        let force = (round % 2 == 0).then_some("FORCE");
        control.ok(&cmd!["INFER.UNLOAD", model, force]);
        assert_eq!(freed_by(server, model), vec!["infer-load"; round]);
        for client in &mut clients {
            if let Err(refusal) = client.receive() {
                assert!(["NOMODEL", "CANCELLED"].contains(&refusal.code.as_str()), "{refusal:?}");
            }
        }
        control.ok(load);
    }
    server.assert_alive();
}

fn paragraphs(number: usize) -> String {
    (0..60).map(|paragraph| format!("the cat {number} of {paragraph}\n\n")).collect()
}

#[test]
fn searches_under_way_hold_up_the_unload_of_the_model_that_reads_their_tokens_and_do_not_free_it() {
    let mut server = Server::with(&[CHAT, SLOW_EMBED]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "slow-embed", "GENMODEL", "chat"]);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat sat on the mat"]);
    let search =
        |number: usize| cmd!["INFER.SEARCH", "docs", format!("{number} {}", "the cat ".repeat(150)), "WITHTEXT"];
    unloads_in_use(&mut server, "chat", &CHAT.load(), search);
}

#[test]
fn an_ingest_under_way_holds_up_the_unload_of_its_models_and_does_not_free_them() {
    let mut server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&paragraph_index("docs"));
    let ingest = |number: usize| cmd!["INFER.INGEST", "docs", format!("{number}.txt"), paragraphs(number)];
    unloads_in_use(&mut server, "embed", &EMBED.load(), ingest);
    unloads_in_use(&mut server, "chat", &CHAT.load(), ingest);
}

#[test]
fn reranks_under_way_hold_up_the_unload_of_their_model_and_do_not_free_it() {
    let mut server = Server::with(&[SLOW_RANK]);
    let texts: Vec<String> = (0..8).map(|text| format!("{text} {}", "the mat ".repeat(30))).collect();
    let rerank = |number: usize| cmd!["INFER.RERANK", "rank", format!("the cat {number}"), texts.len(), &texts];
    unloads_in_use(&mut server, "rank", &SLOW_RANK.load(), rerank);
}
