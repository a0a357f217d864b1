//! Faults of the module itself cost one answer, never the server.

use crate::harness::{CHAT, Client, EMBED, Model, RANK, SLOW, Server, array, cmd, eventually, field, int, text};

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

fn state(client: &mut Client, model: &str) -> String {
    text(field(&client.ok(&cmd!["INFER.MODEL", model]), "state")).to_owned()
}

/// Has an assertion fail while `command` is computed, again and again.
fn survives_failed_assertions(model: &Model, options: &[&str], command: &redis::Cmd) {
    let mut server = Server::start();
    let mut client = server.client();
    client.ok(cmd!["INFER.LOAD", model.name, model.path().to_str().unwrap()].arg(options));
    let before = client.ok(command);
    for renewed in 1..=3 {
        client.ok(&cmd!["INFER.DEBUG", "ASSERT", model.name]);
        let refusal = client.refused(command, "WORKERFAIL", "send the request again");
        assert!(refusal.text.contains("on purpose"), "{refusal:?}");
        client.assert_in_step();
        assert_eq!(client.ok(command), before);
        let told = client.ok(&cmd!["INFER.MODEL", model.name]);
        assert_eq!((text(field(&told, "state")), int(field(&told, "renewed_contexts"))), ("ready", renewed));
    }
    server.assert_alive();
    assert_eq!(server.log().matches("has made its context anew").count(), 3);
}

#[test]
fn the_next_request_is_answered_normally_after_an_assertion_failed_in_a_generation_worker() {
    let command = cmd!["INFER.GENERATE", "chat", 0, "TEXT", "the cat sat", "MAXTOKENS", 8, "TEMP", 0];
    for threads in ["1", "2"] {
        survives_failed_assertions(&CHAT, &["WORKERS", "1", "THREADS", threads], &command);
    }
}

#[test]
fn the_next_request_is_answered_normally_after_an_assertion_failed_in_an_embedding_worker() {
    let command = cmd!["INFER.EMBED", "embed", 2, "the cat", "sat on the mat"];
    for threads in ["1", "2"] {
        survives_failed_assertions(&EMBED, &["WORKERS", "1", "THREADS", threads], &command);
    }
}

#[test]
fn the_next_request_is_answered_normally_after_an_assertion_failed_in_a_reranking_worker() {
    let command = cmd!["INFER.RERANK", "rank", "a question", 2, "the cat", "sat on the mat"];
    survives_failed_assertions(&RANK, &["WORKERS", "1", "THREADS", "1"], &command);
}

#[test]
fn what_a_worker_had_read_is_gone_after_a_failed_assertion() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let command =
        cmd!["INFER.GENERATE", "chat", 0, "TEXT", "the cat sat on the mat ".repeat(20), "MAXTOKENS", 1, "WITHSTATS"];
    let mut cached = || int(field(&client.ok(&command), "cached_tokens"));
    assert_eq!((cached(), cached() > 0), (0, true));
    let mut other = server.client();
    other.ok(&cmd!["INFER.DEBUG", "ASSERT", "chat"]);
    other.refused(&command, "WORKERFAIL", "");
    assert_eq!((cached(), cached() > 0), (0, true));
}

#[test]
fn a_model_whose_worker_fails_again_at_once_has_failed_and_says_so_until_it_is_loaded_again() {
    let generate = cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 4];
    let embed = cmd!["INFER.EMBED", "embed", 1, "x"];
    let rerank = cmd!["INFER.RERANK", "rank", "x", 1, "x"];
    let mut server = Server::with(&[CHAT, EMBED, RANK]);
    let mut client = server.client();
    for (failed, (model, command)) in [(CHAT, generate), (EMBED, embed), (RANK, rerank)].into_iter().enumerate() {
        client.ok(&cmd!["INFER.DEBUG", "ASSERT", model.name, "TWICE"]);
        client.refused(&command, "WORKERFAIL", "on purpose");
        for _ in 0..3 {
            let refusal = client.refused(&command, "NOMODEL", "has failed (a worker's context was made anew");
            assert!(refusal.text.contains("INFER.UNLOAD it, then INFER.LOAD it again"), "{refusal:?}");
        }
        let told = client.ok(&cmd!["INFER.MODEL", model.name]);
        assert_eq!(text(field(&told, "state")), "failed");
        assert!(text(field(&told, "error")).starts_with("NOMODEL model"), "{told:?}");
        assert_eq!(client.info("infer_models_failed"), 1);
        // The others are as they were.
        assert_eq!(client.info("infer_models_loaded"), 2);
        client.refused(&model.load(), "ERR", "INFER.UNLOAD it first");
        client.ok(&cmd!["INFER.UNLOAD", model.name]);
        client.ok(&model.load());
        client.ok(&command);
        assert_eq!(state(&mut client, model.name), "ready");
        assert_eq!(server.log().matches("has failed: a worker's context").count(), failed + 1);
    }
    server.assert_alive();
}

#[test]
fn everybody_is_answered_when_a_model_fails_under_load() {
    let mut server = Server::start();
    let mut control = server.client();
    for round in 0..4 {
        control.ok(&cmd!["INFER.LOAD", "m", CHAT.path().to_str().unwrap(), "WORKERS", 2, "THREADS", 1, "PARALLEL", 2]);
        let mut clients: Vec<Client> = (0..24).map(|_| server.client()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let prompt = format!("the cat {}", number % 3);
            client.send(&cmd!["INFER.GENERATE", "m", 0, "TEXT", prompt, "MAXTOKENS", 40 + round]);
        }
        control.ok(&cmd!["INFER.DEBUG", "ASSERT", "m", "TWICE"]);
        // Whoever comes first meets it.
        let _ = control.call(&cmd!["INFER.GENERATE", "m", 0, "TEXT", "x", "MAXTOKENS", 4]);
        for client in &mut clients {
            if let Err(refusal) = client.receive() {
                assert!(["WORKERFAIL", "NOMODEL"].contains(&refusal.code.as_str()), "{refusal:?}");
            }
        }
        // The other worker may answer until then.
        eventually("the model has failed", || state(&mut control, "m") == "failed");
        control.refused(&cmd!["INFER.GENERATE", "m", 0, "TEXT", "x"], "NOMODEL", "has failed");
        assert_eq!(server.requests("m"), 0);
        control.ok(&cmd!["INFER.UNLOAD", "m"]);
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
