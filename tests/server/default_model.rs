//! The model that answers to `*`.

use crate::harness::{BASE, CHAT, Client, EMBED, RANK, Server, array, cmd, field, int, text};

/// The name of the model that answers to `*` where either kind will do.
fn default_name(client: &mut Client) -> String {
    text(field(&client.ok(&cmd!["INFER.MODEL", "*"]), "name")).to_owned()
}

fn defaults(client: &mut Client) -> Vec<(String, String)> {
    let models = client.ok(&cmd!["INFER.MODELS"]);
    let pair = |model| (text(field(model, "name")).to_owned(), text(field(model, "default")).to_owned());
    array(&models).iter().map(pair).collect()
}

#[test]
fn every_command_that_takes_a_model_takes_a_star() {
    let server = Server::with(&[CHAT, EMBED, RANK]);
    for mut client in [server.client(), server.resp3()] {
        let tokens = client.ok(&cmd!["INFER.TOKENIZE", "*", "some words"]);
        assert_eq!(tokens, client.ok(&cmd!["INFER.TOKENIZE", "chat", "some words"]));
        client.ok(&cmd!["INFER.TOKENIZESTORE", "k", "*", "some words"]);
        assert_eq!(client.text(&cmd!["INFER.DETOKENIZE", "*", 1, "k"]), "some words");
        let answer = client.ok(&cmd!["INFER.GENERATE", "*", 0, "TEXT", "hi", "MAXTOKENS", 3, "TEMP", 0, "WITHSTATS"]);
        assert_eq!(text(field(&answer, "model")), "chat");
        client.ok(&cmd!["INFER.CHAT", "*", 0, "MESSAGE", "user", "hi", "MAXTOKENS", 3]);
        let vectors = client.ok(&cmd!["INFER.EMBED", "*", 1, "some words"]);
        assert_eq!(vectors, client.ok(&cmd!["INFER.EMBED", "embed", 1, "some words"]));
        let ranked = client.ok(&cmd!["INFER.RERANK", "*", "some", 1, "words"]);
        assert_eq!(ranked, client.ok(&cmd!["INFER.RERANK", "rank", "some", 1, "words"]));
    }
}

#[test]
fn an_index_keeps_the_names_behind_the_stars() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "*", "GENMODEL", "*"]);
    let settings = client.ok(&cmd!["HGETALL", "docs"]);
    assert_eq!(text(field(&settings, "embed_model")), "embed");
    assert_eq!(text(field(&settings, "gen_model")), "chat");
    // The same index, whichever way its models are named.
    client.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"]);
}

#[test]
fn the_first_model_is_the_default_until_it_goes_or_another_is_loaded_with_default() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    client.ok(&BASE.load());
    assert_eq!(default_name(&mut client), "chat");
    let mut chosen = CHAT.load_as("chosen");
    chosen.arg("DEFAULT");
    client.ok(&chosen);
    assert_eq!(default_name(&mut client), "chosen");
    assert_eq!(
        defaults(&mut client),
        [("base", "no"), ("chat", "no"), ("chosen", "yes")].map(|(a, b)| (a.to_owned(), b.to_owned()))
    );
    client.ok(&cmd!["INFER.UNLOAD", "*"]);
    assert_eq!(default_name(&mut client), "chat");
    client.ok(&cmd!["INFER.UNLOAD", "chat"]);
    assert_eq!(default_name(&mut client), "base");
}

#[test]
fn each_kind_of_command_has_its_own_default() {
    let server = Server::with(&[EMBED]);
    let mut client = server.client();
    let generate = cmd!["INFER.GENERATE", "*", 0, "TEXT", "hi", "MAXTOKENS", 1];
    client.refused(&generate, "NOMODEL", "no model for generation is loaded that could answer to '*'");
    let rerank = cmd!["INFER.RERANK", "*", "q", 1, "t"];
    client.refused(&rerank, "NOMODEL", "no model for reranking is loaded that could answer to '*'");
    assert_eq!(default_name(&mut client), "embed");
    client.ok(&CHAT.load());
    client.ok(&generate);
    // Where either kind will do it is the one that generates.
    assert_eq!(default_name(&mut client), "chat");
    assert_eq!(int(field(&client.ok(&cmd!["INFER.MODEL", "embed"]), "requests")), 0);
}

#[test]
fn without_a_model_nothing_answers_to_a_star() {
    let server = Server::start();
    let mut client = server.client();
    client.refused(&cmd!["INFER.TOKENIZE", "*", "text"], "NOMODEL", "INFER.LOAD loads one");
    client.refused(&cmd!["INFER.MODEL", "*"], "NOMODEL", "INFER.LOAD loads one");
    client.refused(&cmd!["INFER.LOAD", "*", CHAT.path().to_str().unwrap()], "ERR", "must not be '*'");
}
