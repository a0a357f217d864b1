//! Models that are loaded in the background.

use crate::harness::{CHAT, Client, SLOW, Server, array, cmd, eventually, field, int, text};

/// The state of a model: loading, ready or failed.
fn state(client: &mut Client, model: &str) -> String {
    text(field(&client.ok(&cmd!["INFER.MODEL", model]), "state")).to_owned()
}

#[test]
fn a_load_with_async_answers_at_once_and_the_model_comes_into_service() {
    let server = Server::start();
    for mut client in [server.client(), server.resp3()] {
        let mut load = CHAT.load_as("m");
        load.arg("ASYNC");
        assert_eq!(client.text(&load), "OK");
        eventually("the model is ready", || state(&mut client, "m") == "ready");
        client.ok(&cmd!["INFER.TOKENIZE", "m", "text"]);
        client.ok(&cmd!["INFER.UNLOAD", "m"]);
    }
}

#[test]
fn a_load_in_the_background_shows_its_progress_and_keeps_its_name() {
    let server = Server::start();
    let mut client = server.client();
    let mut load = SLOW.load();
    load.arg("ASYNC");
    // The load may be over before the next command arrives: then it is tried again.
    eventually("a model is caught while it loads", || {
        client.ok(&load);
        let facts = client.ok(&cmd!["INFER.MODEL", "slow"]);
        let again = client.call(&load);
        let info = client.text(&cmd!["INFO", "infer_models"]);
        eventually("the model is ready", || state(&mut client, "slow") == "ready");
        client.ok(&cmd!["INFER.UNLOAD", "slow"]);
        if text(field(&facts, "state")) != "loading" || !info.contains("infer_models_loading:1") {
            return false;
        }
        assert!((0..=100).contains(&int(field(&facts, "progress"))));
        assert!(again.is_err_and(|refusal| refusal.text.contains("already loaded")));
        assert!(info.contains("infer_model0:name=slow,state=loading,progress="), "{info}");
        true
    });
}

#[test]
fn a_load_in_the_background_that_fails_is_listed_with_its_reason_until_it_is_forgotten() {
    let server = Server::start();
    for mut client in [server.client(), server.resp3()] {
        client.ok(&cmd!["INFER.LOAD", "m", "/nowhere/model.gguf", "ASYNC"]);
        eventually("the load has failed", || state(&mut client, "m") == "failed");
        let models = client.ok(&cmd!["INFER.MODELS"]);
        let error = text(field(&array(&models)[0], "error"));
        assert!(error.starts_with("LOADFAIL there is no such file"), "{error}");
        let info = client.text(&cmd!["INFO", "infer_models"]);
        assert!(
            info.contains("infer_models_failed:1") && info.contains("name=m,state=failed,error=LOADFAIL"),
            "{info}"
        );
        client.refused(&cmd!["INFER.TOKENIZE", "m", "text"], "NOMODEL", "could not be loaded: there is no such file");
        assert!(server.log().contains("model 'm' could not be loaded: LOADFAIL there is no such file"));
        client.ok(&cmd!["INFER.UNLOAD", "m"]);
        client.refused(&cmd!["INFER.MODEL", "m"], "NOMODEL", "no model 'm' is loaded");
    }
}

#[test]
fn of_failed_loads_the_last_ones_stay_listed_and_others_are_as_they_were() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    for number in 0..40 {
        let name = format!("m{number}");
        client.ok(&cmd!["INFER.LOAD", &name, "/nowhere/model.gguf", "ASYNC"]);
        eventually("the load has failed", || state(&mut client, &name) == "failed");
    }
    let listed = client.ok(&cmd!["INFER.MODELS"]);
    let mut names: Vec<&str> = array(&listed).iter().map(|model| text(field(model, "name"))).collect();
    let mut expected: Vec<String> = (24..40).map(|number| format!("m{number}")).collect();
    expected.push("chat".to_owned());
    names.sort_unstable();
    expected.sort();
    assert_eq!(names, expected);
    client.refused(&cmd!["INFER.MODEL", "m23"], "NOMODEL", "");
    client.refused(&cmd!["INFER.UNLOAD", "m23"], "NOMODEL", "");
    client.ok(&cmd!["INFER.UNLOAD", "m24"]);
    client.refused(&cmd!["INFER.MODEL", "m24"], "NOMODEL", "");
    client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "x", "MAXTOKENS", 1]);
}

#[test]
fn the_name_of_a_failed_load_can_be_used_again() {
    let server = Server::start();
    let mut client = server.client();
    client.ok(&cmd!["INFER.LOAD", "chat", "/nowhere/model.gguf", "ASYNC"]);
    eventually("the load has failed", || state(&mut client, "chat") == "failed");
    client.ok(&CHAT.load());
    assert_eq!(state(&mut client, "chat"), "ready");
}

#[test]
fn a_load_with_async_works_where_a_client_cannot_wait() {
    let server = Server::start();
    let mut client = server.client();
    client.ok(&cmd!["MULTI"]);
    let mut load = CHAT.load();
    load.arg("ASYNC");
    client.ok(&load);
    client.ok(&cmd!["EXEC"]);
    eventually("the model is ready", || state(&mut client, "chat") == "ready");
}

#[test]
fn the_server_stops_in_time_while_models_load() {
    let mut server = Server::start();
    let mut client = server.client();
    for i in 0..8 {
        let mut load = SLOW.load_as(&format!("m{i}"));
        load.arg("ASYNC");
        client.ok(&load);
    }
    client.send(&cmd!["SHUTDOWN", "NOSAVE"]);
    assert!(server.wait_for_exit());
}
