//! Models that are unloaded while they load.

use std::time::Instant;

use crate::harness::{CHAT, Client, NOT_NICED, SLOW, Server, array, cmd, eventually, field, once_in_three, text};

/// The large model, which takes some milliseconds.
fn load(name: &str) -> redis::Cmd {
    SLOW.load_as(name)
}

fn assert_nothing_is_left(client: &mut Client) {
    assert_eq!(array(&client.ok(&cmd!["INFER.MODELS"])), []);
    let info = client.text(&cmd!["INFO", "infer_models"]);
    assert!(info.contains("infer_estimated_bytes:0\r") && info.contains("infer_models_loading:0\r"), "{info}");
}

#[test]
fn unloading_ends_a_load_whose_client_gets_cancelled() {
    let server = Server::start();
    let (mut loader, mut other) = (server.client(), server.client());
    for force in [&[][..], &["FORCE"]] {
        // The load may be over before the other client's command arrives, or not begun: then it is tried again.
        eventually("a model is unloaded while it loads", || {
            loader.send(&load("m"));
            eventually("the load has begun", || other.call(&cmd!["INFER.MODEL", "m"]).is_ok());
            other.ok(&cmd!["INFER.UNLOAD", "m", force]);
            assert_nothing_is_left(&mut other);
            match loader.receive() {
                Ok(_) => false,
                Err(refusal) => {
                    assert_eq!(
                        (refusal.code.as_str(), refusal.text.contains("the model was unloaded")),
                        ("CANCELLED", true)
                    );
                    true
                }
            }
        });
    }
    assert!(server.log().contains("loading model 'm' was stopped: the model was unloaded"));
}

#[test]
fn a_load_in_the_background_ends_when_its_model_is_unloaded_and_its_name_is_free() {
    let server = Server::start();
    let mut client = server.client();
    let mut background = load("m");
    background.arg("ASYNC");
    let ready = || server.log().matches("model 'm' is ready").count();
    eventually("a load is stopped before it is done", || {
        let before = ready();
        // Sent together: the load has had no time to end, unless the server was stopped just then.
        client.send_together(&[background.clone(), cmd!["INFER.UNLOAD", "m"], cmd!["INFER.MODELS"]]);
        client.receive().unwrap();
        client.receive().unwrap();
        assert_eq!(client.receive().unwrap(), redis::Value::Array(vec![]));
        assert_nothing_is_left(&mut client);
        ready() == before
    });
    // The name can be used while the other load is still about to end.
    let mut other = server.client();
    client.send_together(&[background, cmd!["INFER.UNLOAD", "m"]]);
    client.receive().unwrap();
    eventually("the name is free", || other.call(&CHAT.load_as("m")).is_ok());
    client.receive().unwrap();
    assert_eq!(text(field(&other.ok(&cmd!["INFER.MODEL", "m"]), "state")), "ready");
    other.ok(&cmd!["INFER.GENERATE", "m", 0, "TEXT", "x", "MAXTOKENS", 2]);
}

/// A value of infer.models that takes a while to load.
fn many_models() -> String {
    let path = SLOW.path().to_str().unwrap();
    let models: Vec<String> = (0..12).map(|i| format!("m{i} {path} CTX 512 WORKERS 1 THREADS 1")).collect();
    models.join(";")
}

fn states(client: &mut Client) -> Vec<String> {
    let models = client.ok(&cmd!["INFER.MODELS"]);
    array(&models).iter().map(|model| text(field(model, "state")).to_owned()).collect()
}

#[test]
fn a_model_of_the_setting_that_waits_for_its_turn_can_be_unloaded() {
    eventually("a model is unloaded before its turn", || {
        let server = Server::configured(&[], &["--infer.models", &many_models()]);
        let mut client = server.client();
        client.ok(&cmd!["INFER.UNLOAD", "m11"]);
        let early = states(&mut client).contains(&"loading".to_owned());
        eventually("the others are loaded", || states(&mut client) == vec!["ready"; 11]);
        early && server.log().contains("loading model 'm11' was stopped")
    });
}

#[test]
fn the_server_stops_at_once_while_the_models_of_the_setting_load() {
    eventually("the server is asked to stop before all are loaded", || {
        let mut early = false;
        once_in_three("a server that loads ends at once", || {
            let mut server = Server::configured(&[], &["--infer.models", &many_models(), "--infer.nice", "0"]);
            let mut client = server.client();
            early = states(&mut client).contains(&"loading".to_owned());
            let begun = Instant::now();
            client.send(&cmd!["SHUTDOWN", "NOSAVE"]);
            server.ends_at_once(begun)
        });
        early
    });
}

#[test]
fn the_server_stops_at_once_while_a_client_waits_for_a_load() {
    once_in_three("a server that loads ends at once", || {
        let mut server = Server::configured(&[], &NOT_NICED);
        let mut loaders: Vec<Client> = (0..6).map(|_| server.client()).collect();
        for (i, loader) in loaders.iter_mut().enumerate() {
            loader.send(&load(&format!("m{i}")));
        }
        let begun = Instant::now();
        server.client().send(&cmd!["SHUTDOWN", "NOSAVE"]);
        server.ends_at_once(begun)
    });
}
