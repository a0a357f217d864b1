//! Servers without vector sets: everything but the commands of indexes and caches works there.

use crate::harness::{CHAT, EMBED, RANK, Server, array, bytes, cmd, floats, optional, report};

/// The server that the variable names; without one the test says so where nobody can miss it.
pub fn server(variable: &str) -> Option<Server> {
    let Some(program) = optional(variable) else {
        report(&format!("*** SKIPPED: {variable} is not set, so that server was not tested ***"));
        return None;
    };
    Some(Server::of(&program))
}

fn assert_works_without_vector_sets(mut server: Server) {
    for mut client in [server.client(), server.resp3()] {
        client.ok(&CHAT.load());
        client.ok(&EMBED.load());
        client.ok(&RANK.load());
        assert_eq!(array(&client.ok(&cmd!["INFER.MODELS"])).len(), 3);
        client.ok(&cmd!["INFER.TOKENIZESTORE", "k", "chat", "some text"]);
        assert_eq!(bytes(&client.ok(&cmd!["INFER.DETOKENIZE", "chat", 1, "k"])), b"some text");
        let from_key = client.ok(&cmd!["INFER.GENERATE", "chat", 1, "k", "MAXTOKENS", 8, "TEMP", 0]);
        let from_text = client.ok(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", "some text", "MAXTOKENS", 8, "TEMP", 0]);
        assert_eq!(from_key, from_text);
        let vectors = client.ok(&cmd!["INFER.EMBED", "embed", 2, "the cat", "the dog"]);
        assert!(array(&vectors).iter().all(|vector| floats(vector).len() == 64));
        assert_eq!(array(&client.ok(&cmd!["INFER.RERANK", "rank", "the cat", 2, "a", "b"])).len(), 2);
        for command in [
            cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat"],
            cmd!["INFER.INGEST", "docs", "a.txt", "text"],
            cmd!["INFER.SEARCH", "docs", "query"],
            cmd!["INFER.RAG", "docs", "query"],
            cmd!["INFER.CACHEGET", "faq", "prompt"],
            cmd!["INFER.CACHESET", "faq", "prompt", "answer"],
            cmd!["INFER.CACHEDEL", "faq"],
            cmd!["INFER.CACHEINFO", "faq"],
        ] {
            client.refused(&command, "NOVECTORSETS", "run the module in Redis 8.0 or newer");
        }
        client.ok(&cmd!["MULTI"]);
        client.ok(&cmd!["INFER.GENERATE", "chat", 1, "k"]);
        client.send(&cmd!["EXEC"]);
        assert!(client.receive().unwrap_err().text.contains("cannot run inside MULTI"));
        client.ok(&cmd!["INFER.DEBUG", "PANIC", "chat"]);
        client.refused(&cmd!["INFER.GENERATE", "chat", 1, "k"], "INTERNAL", "");
        for model in [CHAT, EMBED, RANK] {
            client.ok(&cmd!["INFER.UNLOAD", model.name]);
        }
    }
    server.client().send(&cmd!["SHUTDOWN", "NOSAVE"]);
    assert!(server.wait_for_exit(), "the server ended with an error");
}

#[test]
fn redis_7_4_has_everything_but_the_index_commands() {
    if let Some(server) = server("REDIS_INFER_REDIS74_SERVER") {
        assert_works_without_vector_sets(server);
    }
}

#[test]
fn valkey_9_has_everything_but_the_index_commands() {
    if let Some(server) = server("REDIS_INFER_VALKEY_SERVER") {
        assert_works_without_vector_sets(server);
    }
}
