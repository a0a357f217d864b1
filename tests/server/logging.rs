//! The server's log: what clients name reaches it as it is, and what they write does not reach it at all.

use crate::harness::{CHAT, EMBED, Server, cmd};

/// Conversions that would read or write memory if the text were taken for a format.
const FORMATS: &str = "%s%s%s%s%n %d %x 100%";

#[test]
fn a_model_name_with_printf_conversions_is_logged_as_it_is() {
    let mut server = Server::start();
    let mut client = server.client();
    client.ok(&CHAT.load_as(FORMATS));
    client.ok(&cmd!["INFER.GENERATE", FORMATS, 0, "TEXT", FORMATS, "MAXTOKENS", 2]);
    client.ok(&cmd!["INFER.UNLOAD", FORMATS]);
    server.assert_alive();
    assert!(server.log().contains(&format!("model '{FORMATS}' is ready for generation")));
}

#[test]
fn a_model_name_in_another_script_is_logged_and_answered_as_it_is() {
    let name = "Ünïcödé-日本語-🦀";
    let mut server = Server::start();
    let mut client = server.client();
    client.ok(&CHAT.load_as(name));
    let facts = client.ok(&cmd!["INFER.MODEL", name]);
    assert_eq!(crate::harness::text(crate::harness::field(&facts, "name")), name);
    server.assert_alive();
    assert!(server.log().contains(&format!("model '{name}' is ready")));
}

#[test]
fn a_path_with_printf_conversions_or_other_scripts_is_loaded() {
    let mut server = Server::start();
    let mut client = server.client();
    for stem in ["%s%n", "日本語 🦀"] {
        let path = server.folder().join(format!("{stem}.gguf"));
        std::fs::copy(EMBED.path(), &path).unwrap();
        client.ok(&cmd!["INFER.LOAD", path.to_str().unwrap()]);
        client.ok(&cmd!["INFER.EMBED", stem, 1, "the cat"]);
        std::fs::write(&path, b"GGUF and nothing more").unwrap();
        client.refused(&cmd!["INFER.LOAD", "m", path.to_str().unwrap()], "LOADFAIL", "");
    }
    server.assert_alive();
}

#[test]
fn a_panic_while_such_a_model_runs_is_logged_safely() {
    let mut server = Server::start();
    let mut client = server.client();
    client.ok(&CHAT.load_as(FORMATS));
    client.ok(&cmd!["INFER.DEBUG", "PANIC", FORMATS]);
    client.refused(&cmd!["INFER.GENERATE", FORMATS, 0, "TEXT", FORMATS, "MAXTOKENS", 2], "INTERNAL", "");
    server.assert_alive();
}

#[test]
fn prompts_documents_and_answers_are_not_in_the_log() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    let secret = "xyzzy-plugh";
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", secret]);
    client.ok(&cmd!["INFER.RAG", "docs", secret, "MAXTOKENS", 2]);
    client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", secret, "MAXTOKENS", 2]);
    client.ok(&cmd!["INFER.DEBUG", "PANIC", "chat"]);
    client.refused(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", secret], "INTERNAL", "");
    let log = server.log();
    assert!(log.contains("panic in thread"));
    assert!(!log.contains(secret), "the log repeats what a client wrote");
}
