//! INFER.LOAD, INFER.UNLOAD, INFER.MODELS, INFER.MODEL.

use std::path::PathBuf;

use redis::Cmd;

use crate::harness::{CHAT, Client, EMBED, SLOW, Server, array, cmd, eventually, field, int, text};

/// Writes a file into the server's folder.
fn file(server: &Server, name: &str, content: &[u8]) -> PathBuf {
    let path = server.folder().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn load(path: &std::path::Path) -> Cmd {
    cmd!["INFER.LOAD", "m", path.to_str().unwrap()]
}

/// Fails unless loading is refused with this text, the name stays free, and the server lives.
#[track_caller]
fn assert_load_fails(server: &mut Server, command: &Cmd, part: &str) {
    let mut client = server.client();
    client.refused(command, "LOADFAIL", part);
    client.refused(&cmd!["INFER.MODEL", "m"], "NOMODEL", "no model 'm' is loaded");
    client.assert_in_step();
    server.assert_alive();
}

#[test]
fn a_path_where_nothing_is_is_refused() {
    let mut server = Server::start();
    assert_load_fails(
        &mut server,
        &cmd!["INFER.LOAD", "m", "/nowhere/model.gguf"],
        "no such file; check the path (/nowhere/model.gguf)",
    );
}

#[test]
fn a_directory_is_refused() {
    let mut server = Server::start();
    let folder = server.folder().to_owned();
    assert_load_fails(&mut server, &load(&folder), "the path is a directory");
}

#[test]
fn a_text_file_is_refused() {
    let mut server = Server::start();
    let path = file(&server, "readme.gguf", b"# Not a model\n\nJust a text.\n");
    assert_load_fails(&mut server, &load(&path), "it is a text file");
}

#[test]
fn an_empty_file_is_refused() {
    let mut server = Server::start();
    let path = file(&server, "empty.gguf", b"");
    assert_load_fails(&mut server, &load(&path), "it is empty");
}

#[test]
fn a_file_that_ends_too_early_is_refused_wherever_it_ends() {
    let mut server = Server::start();
    let whole = std::fs::read(CHAT.path()).unwrap();
    for kept in [8, 100, whole.len() / 4, whole.len() - 1] {
        let path = file(&server, "cut.gguf", &whole[..kept]);
        assert_load_fails(&mut server, &load(&path), "truncated");
    }
}

#[test]
fn a_safetensors_file_is_refused_and_the_error_names_the_converter() {
    let mut server = Server::start();
    let header = br#"{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut content = (header.len() as u64).to_le_bytes().to_vec();
    content.extend_from_slice(header);
    content.extend_from_slice(&[0; 4]);
    let path = file(&server, "model.safetensors", &content);
    assert_load_fails(&mut server, &load(&path), "redis-infer convert");
}

#[test]
fn a_name_that_is_loaded_already_is_refused_and_its_model_stays() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    client.refused(&EMBED.load_as("chat"), "ERR", "a model named 'chat' is already loaded");
    assert_eq!(text(field(&client.ok(&cmd!["INFER.MODEL", "chat"]), "type")), "generation");
}

#[test]
fn a_path_alone_names_the_model_after_its_file() {
    let server = Server::start();
    let mut client = server.client();
    client.ok(&cmd!["INFER.LOAD", CHAT.path().to_str().unwrap()]);
    let models = client.ok(&cmd!["INFER.MODELS"]);
    assert_eq!(text(field(&array(&models)[0], "name")), "tiny-chat");
}

#[test]
fn an_encoder_is_not_loaded_for_generation() {
    let mut server = Server::start();
    let mut command = load(EMBED.path());
    command.arg(&["TYPE", "GENERATE"]);
    assert_load_fails(&mut server, &command, "an encoder, which cannot generate text");
}

#[test]
fn more_context_than_the_model_was_trained_for_is_refused_with_both_numbers() {
    let mut server = Server::start();
    let mut command = load(CHAT.path());
    command.arg(&["CTX", "4096"]);
    assert_load_fails(&mut server, &command, "CTX 4096 is more than the 2048 tokens");
}

#[test]
fn more_threads_than_the_machine_has_are_refused_with_the_numbers() {
    let mut server = Server::start();
    let mut command = load(CHAT.path());
    command.arg(&["WORKERS", "256", "THREADS", "256"]);
    assert_load_fails(&mut server, &command, "WORKERS 256 x THREADS 256 is more than the");
}

#[test]
fn models_are_listed_with_what_they_are_for() {
    let server = Server::with(&[EMBED, CHAT]);
    let models = server.resp3().ok(&cmd!["INFER.MODELS"]);
    let listed: Vec<[&str; 3]> =
        array(&models).iter().map(|model| ["name", "type", "state"].map(|name| text(field(model, name)))).collect();
    assert_eq!(listed, [["chat", "generation", "ready"], ["embed", "embedding", "ready"]]);
}

#[test]
fn a_model_tells_its_options_and_size() {
    let server = Server::start();
    let mut client = server.client();
    client.ok(&cmd![
        "INFER.LOAD",
        "m",
        CHAT.path().to_str().unwrap(),
        "CTX",
        512,
        "WORKERS",
        1,
        "threads",
        1,
        "PARALLEL",
        3,
        "SPECULATION",
        "none",
        "KVTYPE",
        "Q8_0",
        "NOMMAP"
    ]);
    let facts = client.ok(&cmd!["INFER.MODEL", "m"]);
    assert_eq!(int(field(&facts, "context")), 512);
    assert_eq!(int(field(&facts, "workers")), 1);
    assert_eq!(int(field(&facts, "parallel")), 3);
    assert_eq!(text(field(&facts, "kv_type")), "Q8_0");
    assert_eq!(text(field(&facts, "speculation")), "NONE");
    assert_eq!(text(field(&facts, "architecture")), "llama");
    assert_eq!(text(field(&facts, "path")), CHAT.path().to_str().unwrap());
}

#[test]
fn an_unloaded_model_is_gone_and_its_name_is_free() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.UNLOAD", "chat"]);
    client.refused(&cmd!["INFER.TOKENIZE", "chat", "text"], "NOMODEL", "INFER.LOAD loads one");
    client.ok(&CHAT.load());
    client.ok(&cmd!["INFER.TOKENIZE", "chat", "text"]);
}

#[test]
fn unloading_answers_the_requests_that_wait_and_run_before_it_is_done() {
    let server = Server::with(&[SLOW]);
    let mut waiting: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for client in &mut waiting {
        client.send(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "go on", "MAXTOKENS", 400, "WITHSTATS"]);
    }
    eventually("three requests are accepted", || server.requests("slow") == 3);
    server.client().ok(&cmd!["INFER.UNLOAD", "slow"]);
    for client in &mut waiting {
        assert_eq!(int(field(&client.receive().unwrap(), "completion_tokens")), 400);
    }
}

#[test]
fn a_model_that_is_loading_is_not_used_but_listed_and_others_are_served_meanwhile() {
    let server = Server::start();
    let (mut loader, mut other) = (server.client(), server.client());
    // The load may be over before the other client's commands arrive: then it is tried again.
    eventually("a model is caught while it loads", || {
        loader.send(&SLOW.load());
        let facts = other.call(&cmd!["INFER.MODEL", "slow"]);
        let refused = other.call(&cmd!["INFER.TOKENIZE", "slow", "text"]);
        loader.receive().unwrap();
        loader.ok(&cmd!["INFER.UNLOAD", "slow"]);
        let listed = facts.is_ok_and(|facts| text(field(&facts, "state")) == "loading");
        listed && refused.is_err_and(|refusal| refusal.code == "MODELLOADING")
    });
}
