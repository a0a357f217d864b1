//! Requests that are ended from outside, and the end of the server and of the module.

use std::time::Instant;

use redis::Value;

use crate::harness::{
    CHAT, Client, EMBED, NOT_NICED, SLOW, Server, array, cmd, eventually, field, module, once_in_three, text,
};

/// A client whose request runs and would go on for minutes.
fn generating(server: &Server) -> (Client, i64) {
    let mut client = server.client();
    let id = client.id();
    client.send(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "go on", "MAXTOKENS", 16_000]);
    eventually("the request is accepted", || server.requests("slow") > 0);
    (client, id)
}

#[test]
fn commands_sent_behind_one_that_is_cancelled_are_answered_in_order() {
    let server = Server::with(&[SLOW]);
    let (mut client, id) = generating(&server);
    client.send(&cmd!["SET", "k", "v"]);
    client.send(&cmd!["GET", "k"]);
    server.client().ok(&cmd!["CLIENT", "UNBLOCK", id]);
    assert_eq!(client.receive().unwrap_err().code, "CANCELLED");
    assert_eq!(client.receive().unwrap(), Value::Okay);
    assert_eq!(client.receive().unwrap(), Value::BulkString(b"v".to_vec()));
}

#[test]
fn shutdown_with_running_and_waiting_requests_takes_less_than_two_seconds() {
    once_in_three("a busy server ends at once", || {
        let mut server = Server::configured(&[SLOW, CHAT, EMBED], &NOT_NICED);
        let mut clients: Vec<Client> = (0..6).map(|_| generating(&server).0).collect();
        eventually("six requests are accepted", || server.requests("slow") == 6);
        let mut control = server.client();
        let begun = Instant::now();
        control.send(&cmd!["SHUTDOWN", "NOSAVE"]);
        let at_once = server.ends_at_once(begun);
        for client in &mut clients {
            assert!(client.receive().is_err());
        }
        at_once
    });
}

/// What the module logs, where tests allow it, when the destructors of the process are run.
const DESTRUCTORS: &str = "the destructors of the process are run";

#[test]
fn a_server_that_ends_while_a_thread_is_at_work_runs_no_destructors_that_it_could_meet() {
    let mut server = Server::with(&[CHAT, EMBED]);
    let mut control = server.client();
    let requests = [
        cmd!["INFER.GENERATE", "chat", 0, "TEXT", "go on", "MAXTOKENS", 4],
        cmd!["INFER.EMBED", "embed", 1, "the cat"],
    ];
    for model in ["chat", "embed"] {
        control.ok(&cmd!["INFER.DEBUG", "STALL", model]);
    }
    let mut clients = [server.client(), server.client()];
    clients.iter_mut().zip(&requests).for_each(|(client, request)| client.send(request));
    eventually("the workers have taken both", || {
        let listed = control.ok(&cmd!["INFER.PS"]);
        let states = array(&listed).iter().map(|request| text(field(request, "state")));
        states.filter(|state| *state == "prefilling").count() == 2
    });
    control.ok(&cmd!["SET", "k", "v"]);
    control.send(&cmd!["SHUTDOWN", "SAVE"]);
    assert!(server.wait_for_exit(), "redis-server ended with an error");
    let log = server.log();
    assert!(log.contains("some threads were still busy"), "{log}");
    assert!(log.contains("DB saved on disk") && log.contains("is now ready to exit"), "{log}");
    for bad in ["BUG REPORT", "crashed", DESTRUCTORS] {
        assert!(!log.contains(bad), "{log}");
    }
}

#[test]
fn a_server_whose_threads_have_ended_ends_as_every_process_does() {
    let mut server = Server::with(&[CHAT]);
    server.client().ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 1]);
    server.client().send(&cmd!["SHUTDOWN", "NOSAVE"]);
    assert!(server.wait_for_exit(), "redis-server ended with an error");
    assert!(server.log().contains(DESTRUCTORS), "{}", server.log());
}

#[test]
fn sigterm_ends_a_busy_server_too() {
    let mut server = Server::with(&[SLOW]);
    let _busy = generating(&server);
    let pid = server.pid();
    // The shell has a kill of its own; the program may be missing.
    let kill = format!("kill {pid}");
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert!(server.wait_for_exit(), "redis-server ended with an error");
}

#[test]
fn the_module_can_be_unloaded_and_loaded_again() {
    let mut server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    let command = cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 4, "TEMP", 0];
    let before = client.ok(&command);
    for _ in 0..3 {
        client.ok(&cmd!["MODULE", "UNLOAD", "infer"]);
        client.refused(&command, "ERR", "unknown command");
        client.ok(&cmd!["MODULE", "LOAD", module().to_str().unwrap()]);
        // Models went with the module.
        client.refused(&command, "NOMODEL", "");
        client.ok(&CHAT.load());
        client.ok(&EMBED.load());
        assert_eq!(client.ok(&command), before);
        client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
        client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat"]);
        client.ok(&cmd!["INFER.SEARCH", "docs", "the cat"]);
    }
    server.assert_alive();
}
