//! infer.models and infer.model-dir: models that are there after a restart, and which files may be loaded.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use crate::harness::{CHAT, Client, EMBED, Server, array, cmd, eventually, field, text};

/// Names and states of all models.
fn states(client: &mut Client) -> Vec<(String, String)> {
    let models = client.ok(&cmd!["INFER.MODELS"]);
    let pair = |model| (text(field(model, "name")).to_owned(), text(field(model, "state")).to_owned());
    array(&models).iter().map(pair).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|&(name, state)| (name.to_owned(), state.to_owned())).collect()
}

/// A folder with a model, and a secret beside it.
fn folders() -> (TempDir, String) {
    let outer = TempDir::with_prefix("redis-infer-test-").unwrap();
    let folder = outer.path().join("models");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(CHAT.path(), folder.join("chat.gguf")).unwrap();
    std::fs::copy(EMBED.path(), outer.path().join("secret.gguf")).unwrap();
    symlink(outer.path().join("secret.gguf"), folder.join("link.gguf")).unwrap();
    let folder = folder.to_str().unwrap().to_owned();
    (outer, folder)
}

#[test]
fn models_of_the_setting_are_there_after_the_start_and_a_failed_one_is_listed() {
    let (chat, embed) = (CHAT.path().to_str().unwrap(), EMBED.path().to_str().unwrap());
    let models = format!("chat {chat} CTX 512 WORKERS 1; gone /nowhere/x.gguf; e {embed} THREADS 1;");
    let server = Server::configured(&[], &["--infer.models", &models]);
    let mut client = server.client();
    let expected = pairs(&[("chat", "ready"), ("e", "ready"), ("gone", "failed")]);
    eventually("the models are loaded", || states(&mut client) == expected);
    client.ok(&cmd!["INFER.GENERATE", "*", 0, "TEXT", "hi", "MAXTOKENS", 2]);
    client.ok(&cmd!["INFER.EMBED", "*", 1, "hi"]);
    let log = server.log();
    assert!(log.contains("model 'gone' could not be loaded: LOADFAIL there is no such file"), "{log}");
}

#[test]
fn a_value_that_cannot_be_parsed_keeps_the_server_from_starting_and_the_log_says_why() {
    for (models, reason) in [
        ("a x.gguf CTX 1", "model 1 ('a x.gguf CTX 1'): CTX must be from 64 to 1048576"),
        ("a x.gguf; b y.gguf QUICK", "model 2 ('b y.gguf QUICK'): unknown option 'QUICK'"),
        ("a x.gguf; a y.gguf", "two models are named 'a'"),
    ] {
        let log = Server::refuses_to_start(&["--infer.models", models]);
        assert!(log.contains(reason), "{log}");
    }
}

#[test]
fn a_folder_that_is_not_there_keeps_the_server_from_starting() {
    for folder in ["/nowhere/models", CHAT.path().to_str().unwrap()] {
        let log = Server::refuses_to_start(&["--infer.model-dir", folder]);
        assert!(log.contains("infer.model-dir cannot be used"), "{log}");
    }
}

#[test]
fn only_files_inside_the_folder_are_loaded() {
    let (_outer, folder) = folders();
    let server = Server::configured(&[], &["--infer.model-dir", &folder]);
    let mut client = server.client();
    let whole = format!("{folder}/chat.gguf");
    for path in ["chat.gguf", "../models/chat.gguf", &whole] {
        client.ok(&cmd!["INFER.LOAD", "m", path, "CTX", 512]);
        client.ok(&cmd!["INFER.UNLOAD", "m"]);
    }
}

#[test]
fn nothing_is_told_about_files_outside_the_folder() {
    let (_outer, folder) = folders();
    let server = Server::configured(&[], &["--infer.model-dir", &folder]);
    let mut client = server.client();
    let absolute = CHAT.path().to_str().unwrap();
    for path in ["../secret.gguf", "../no.gguf", "link.gguf", absolute, "/etc/passwd", "/etc", "/no", "no.gguf", "."] {
        let refusal = client.refused(&cmd!["INFER.LOAD", "m", path], "LOADFAIL", "");
        let expected = format!(
            "there is no file at this path inside infer.model-dir; CONFIG GET infer.model-dir tells the folder ({path})"
        );
        assert_eq!(refusal.text, expected);
    }
}
