//! Faults of the module itself cost one answer, never the server.

use crate::harness::{CHAT, EMBED, SLOW, Server, array, cmd, eventually};

#[test]
fn a_panic_in_a_generation_worker_answers_internal_and_the_next_request_works() {
    let mut server = Server::with(&[CHAT]);
    let mut client = server.client();
    let command = cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 4, "TEMP", 0];
    let before = client.ok(&command);
    for _ in 0..3 {
        client.ok(&cmd!["INFER.DEBUG", "PANIC", "chat"]);
        client.refused(&command, "INTERNAL", "see the server log");
        client.assert_in_step();
        assert_eq!(client.ok(&command), before);
    }
    server.assert_alive();
    let log = server.log();
    assert!(log.contains("infer: panic in thread 'infer-gen-0'"), "the log does not tell of the panic");
}

#[test]
fn a_panic_in_an_embedding_worker_answers_internal_and_the_next_request_works() {
    let mut server = Server::with(&[EMBED]);
    let mut client = server.client();
    let command = cmd!["INFER.EMBED", "embed", 1, "the cat"];
    let before = client.ok(&command);
    for _ in 0..3 {
        client.ok(&cmd!["INFER.DEBUG", "PANIC", "embed"]);
        client.refused(&command, "INTERNAL", "see the server log");
        assert_eq!(client.ok(&command), before);
    }
    server.assert_alive();
}

#[test]
fn a_panic_answers_every_request_that_ran_and_leaves_no_place_taken() {
    let mut server = Server::start();
    let path = SLOW.path().to_str().unwrap();
    server.client().ok(&cmd!["INFER.LOAD", "slow", path, "WORKERS", 1, "PARALLEL", 2, "CTX", 16_384]);
    let mut clients = [server.client(), server.client()];
    for client in &mut clients {
        client.send(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "go on", "MAXTOKENS", 16_000]);
    }
    eventually("both are accepted", || server.requests("slow") == 2);
    // One panic ends what runs at that moment; the second request may not have begun yet.
    eventually("both places are free", || {
        server.client().ok(&cmd!["INFER.DEBUG", "PANIC", "slow"]);
        server.requests("slow") == 0
    });
    for client in &mut clients {
        assert_eq!(client.receive().unwrap_err().code, "INTERNAL");
    }
    server.assert_alive();
}

#[test]
fn a_panic_while_a_document_is_embedded_leaves_the_index_as_it_was() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    let keys = |client: &mut crate::harness::Client| array(&client.ok(&cmd!["KEYS", "*"])).len();
    assert_eq!(keys(&mut client), 1);
    client.ok(&cmd!["INFER.DEBUG", "PANIC", "embed"]);
    client.refused(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat"], "INTERNAL", "");
    assert_eq!(keys(&mut client), 1);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat"]);
}

#[test]
fn faults_on_purpose_need_the_environment_variable() {
    let server = Server::without_debug();
    let mut client = server.client();
    client.ok(&CHAT.load());
    client.refused(&cmd!["INFER.DEBUG", "PANIC", "chat"], "ERR", "start redis-server with REDIS_INFER_DEBUG=1");
    client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 1]);
}
