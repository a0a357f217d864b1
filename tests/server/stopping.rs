//! Requests that are ended from outside, and the end of the server and of the module.

use std::time::{Duration, Instant};

use redis::Value;

use crate::harness::{CHAT, Client, EMBED, Refusal, SLOW, Server, cmd, eventually, module};

/// A client whose request runs and would go on for minutes.
fn generating(server: &Server) -> (Client, i64) {
    let mut client = server.client();
    let id = client.id();
    client.send(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "go on", "MAXTOKENS", 16_000]);
    eventually("the request is accepted", || server.requests("slow") > 0);
    (client, id)
}

#[test]
fn client_kill_ends_the_work_of_the_client() {
    let server = Server::with(&[SLOW]);
    let (mut client, id) = generating(&server);
    assert_eq!(server.client().ok(&cmd!["CLIENT", "KILL", "ID", id]), Value::Int(1));
    assert_eq!(client.receive().unwrap_err().code, Refusal::LOST);
    eventually("nothing is left of the request", || server.requests("slow") == 0);
}

#[test]
fn client_unblock_answers_cancelled_and_ends_the_work() {
    let server = Server::with(&[SLOW]);
    for mode in [&[][..], &["TIMEOUT"]] {
        let (mut client, id) = generating(&server);
        assert_eq!(server.client().ok(&cmd!["CLIENT", "UNBLOCK", id, mode]), Value::Int(1));
        let refusal = client.receive().unwrap_err();
        assert_eq!(refusal.code, "CANCELLED");
        assert!(refusal.text.contains("INFER.GENERATE was cancelled by CLIENT UNBLOCK"), "{}", refusal.text);
        client.assert_in_step();
        eventually("nothing is left of the request", || server.requests("slow") == 0);
    }
}

#[test]
fn client_unblock_error_answers_as_redis_does_and_ends_the_work() {
    let server = Server::with(&[SLOW]);
    let (mut client, id) = generating(&server);
    assert_eq!(server.client().ok(&cmd!["CLIENT", "UNBLOCK", id, "ERROR"]), Value::Int(1));
    assert_eq!(client.receive().unwrap_err().code, "UNBLOCKED");
    client.assert_in_step();
    eventually("nothing is left of the request", || server.requests("slow") == 0);
}

#[test]
fn a_request_that_waits_can_be_ended_before_it_begins() {
    let server = Server::with(&[SLOW]);
    let (running, _) = generating(&server);
    let mut waiting = server.client();
    let id = waiting.id();
    waiting.send(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "me too", "MAXTOKENS", 10]);
    eventually("both are accepted", || server.requests("slow") == 2);
    server.client().ok(&cmd!["CLIENT", "UNBLOCK", id]);
    assert_eq!(waiting.receive().unwrap_err().code, "CANCELLED");
    drop(running);
    eventually("both places are free", || server.requests("slow") == 0);
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
    let mut server = Server::with(&[SLOW, CHAT, EMBED]);
    let mut clients: Vec<Client> = (0..6).map(|_| generating(&server).0).collect();
    eventually("six requests are accepted", || server.requests("slow") == 6);
    let mut control = server.client();
    let begun = Instant::now();
    control.send(&cmd!["SHUTDOWN", "NOSAVE"]);
    assert!(server.wait_for_exit(), "redis-server ended with an error");
    let taken = begun.elapsed();
    assert!(taken < Duration::from_secs(2), "it took {taken:?}");
    for client in &mut clients {
        assert!(client.receive().is_err());
    }
    let log = server.log();
    assert!(!log.contains("left behind"), "a thread did not end");
    assert!(!log.contains("BUG REPORT"), "the server crashed");
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

#[test]
fn the_module_is_not_unloaded_under_a_running_request() {
    let server = Server::with(&[SLOW]);
    let (client, _) = generating(&server);
    server.client().refused(&cmd!["MODULE", "UNLOAD", "infer"], "ERR", "");
    assert_eq!(server.requests("slow"), 1);
    drop(client);
}
