//! COMMAND INFO, DOCS and GETKEYS: what clients, proxies and ACL rules learn about the commands.

use redis::{Cmd, Value};

use crate::harness::{Client, Server, array, cmd, field, int, text};

/// A command with its words parted by spaces.
fn line(prefix: &str, words: &str) -> Cmd {
    let mut command = Cmd::new();
    command.arg(prefix.split(' ').collect::<Vec<_>>()).arg(words.split(' ').collect::<Vec<_>>());
    command
}

/// Words in order, `key:flag,flag` for the pairs of GETKEYSANDFLAGS.
fn keys_and_flags(client: &mut Client, words: &str) -> String {
    let reply = client.ok(&line("COMMAND GETKEYSANDFLAGS", words));
    let one = |pair: &Value| format!("{}:{}", text(&array(pair)[0]), listed(&array(pair)[1]).join(","));
    array(&reply).iter().map(one).collect::<Vec<_>>().join(" ")
}

/// The texts of an array or set, sorted.
fn listed(value: &Value) -> Vec<&str> {
    let values = match value {
        Value::Set(values) => values,
        other => array(other),
    };
    let mut texts: Vec<&str> = values.iter().map(text).collect();
    texts.sort_unstable();
    texts
}

fn commands(client: &mut Client) -> Vec<String> {
    let reply = client.ok(&cmd!["COMMAND", "LIST", "FILTERBY", "MODULE", "infer"]);
    array(&reply).iter().map(|name| text(name).to_owned()).collect()
}

/// Holds on every server that the module runs in.
fn assert_described(server: &Server) {
    for mut client in [server.client(), server.resp3()] {
        let commands = commands(&mut client);
        assert!(commands.len() >= 20, "{commands:?}");
        for name in &commands {
            let docs = client.ok(&cmd!["COMMAND", "DOCS", name]);
            let docs = field(&docs, name);
            for about in ["summary", "complexity", "since"] {
                assert!(!text(field(docs, about)).is_empty(), "{name} has no {about}");
            }
            let info = client.ok(&cmd!["COMMAND", "INFO", name]);
            let info = array(&array(&info)[0]);
            assert!(listed(&info[6]).contains(&"@infer"), "{name}: {info:?}");
            assert_ne!(int(&info[1]), -1, "{name} takes any number of arguments");
        }
        for (words, keys) in [
            ("INFER.GENERATE chat 2 a b TEXT 2", "a:RO,access b:RO,access"),
            ("INFER.GENERATE chat 0 TEXT a", ""),
            ("INFER.CHAT chat 2 a b MESSAGE user 2", "a:RO,access b:RO,access"),
            ("INFER.CHAT chat 0 MESSAGE user a", ""),
            ("INFER.DETOKENIZE chat 1 a", "a:RO,access"),
            // Redis finds no key here; the handler refuses such a line before it looks at any.
            ("INFER.GENERATE chat many k", ""),
            ("INFER.GENERATE chat 9 k", ""),
            ("INFER.GENERATE chat -1 k", ""),
            ("INFER.TOKENIZESTORE a chat text", "a:OW,update"),
            ("INFER.INDEX docs EMBEDMODEL embed GENMODEL chat", "docs:RW,access,insert"),
            ("INFER.INGEST docs path text", "docs:RO,access"),
            ("INFER.INGEST docs path text ATTRS {}", "docs:RO,access"),
            ("INFER.FORGET docs path", "docs:RO,access"),
            ("INFER.INDEXINFO docs", "docs:RO,access"),
            ("INFER.REINDEX docs GENMODEL chat", "docs:RW,access,update"),
            ("INFER.DROPINDEX docs", "docs:RW,access,delete"),
            ("INFER.SEARCH docs query", "docs:RO,access"),
            ("INFER.RAG docs query WITHSOURCES", "docs:RO,access"),
            ("INFER.CACHEGET faq prompt", "faq:RO,access"),
            ("INFER.CACHESET faq prompt answer", "faq:RW,access,insert"),
            ("INFER.CACHEDEL faq SCOPE x", "faq:RW,access,delete"),
            ("INFER.CACHEINFO faq", "faq:RO,access"),
        ] {
            assert_eq!(keys_and_flags(&mut client, words), keys, "{words}");
        }
        for words in [
            "INFER.MODELS",
            "INFER.PS",
            "INFER.CANCEL 1",
            "INFER.LOAD m /m",
            "INFER.UNLOAD m",
            "INFER.EMBED embed 1 text",
            "INFER.RERANK rank query 1 text",
            "INFER.TOKENIZE chat text",
        ] {
            client.refused(&line("COMMAND GETKEYS", words), "ERR", "no key arguments");
        }
        client.assert_in_step();
    }
}

#[test]
fn every_command_is_described_with_its_keys() {
    assert_described(&Server::start());
}

#[test]
fn every_command_is_described_in_redis_7_4_and_valkey_9() {
    for variable in ["REDIS_INFER_REDIS74_SERVER", "REDIS_INFER_VALKEY_SERVER"] {
        if let Some(server) = crate::servers::server(variable) {
            assert_described(&server);
        }
    }
}

#[test]
fn commands_are_in_the_categories_of_redis_itself() {
    let server = Server::start();
    let mut client = server.client();
    for (name, expected) in [
        ("infer.load", "@admin @blocking @dangerous @infer @slow"),
        ("infer.unload", "@admin @blocking @dangerous @infer @slow"),
        ("infer.debug", "@admin @dangerous @infer @slow"),
        ("infer.models", "@fast @infer"),
        ("infer.model", "@fast @infer"),
        ("infer.tokenize", "@blocking @infer @slow"),
        ("infer.embed", "@blocking @infer @slow"),
        ("infer.rerank", "@blocking @infer @slow"),
        ("infer.tokenizestore", "@blocking @infer @slow @write"),
        ("infer.index", "@infer @slow @write"),
        ("infer.ingest", "@blocking @infer @slow @write"),
        ("infer.detokenize", "@blocking @infer @read @slow"),
        ("infer.generate", "@blocking @infer @read @slow"),
        ("infer.chat", "@blocking @infer @read @slow"),
        ("infer.ps", "@fast @infer"),
        ("infer.cancel", "@fast @infer"),
        ("infer.search", "@blocking @infer @read @slow"),
        ("infer.rag", "@blocking @infer @read @slow"),
        ("infer.cacheget", "@blocking @infer @read @slow"),
        ("infer.cacheset", "@blocking @infer @slow @write"),
        ("infer.cachedel", "@blocking @infer @slow @write"),
        ("infer.cacheinfo", "@infer @read @slow"),
    ] {
        let info = client.ok(&cmd!["COMMAND", "INFO", name]);
        assert_eq!(listed(&array(&array(&info)[0])[6]).join(" "), expected, "{name}");
    }
}

#[test]
fn clients_learn_which_replies_differ_from_call_to_call() {
    let server = Server::start();
    let mut client = server.client();
    for (name, expected) in [("infer.generate", vec!["nondeterministic_output"]), ("infer.tokenize", vec![])] {
        let info = client.ok(&cmd!["COMMAND", "INFO", name]);
        assert_eq!(listed(&array(&array(&info)[0])[7]), expected, "{name}");
    }
}

#[test]
fn too_few_words_are_refused_before_a_transaction_is_queued() {
    let server = Server::start();
    let mut client = server.client();
    client.ok(&cmd!["MULTI"]);
    client.refused(&cmd!["INFER.GENERATE", "chat"], "ERR", "wrong number of arguments for 'infer.generate' command");
    client.refused(&cmd!["EXEC"], "EXECABORT", "");
}

#[test]
fn every_option_in_the_documentation_is_known_to_its_command() {
    let server = Server::start();
    let mut client = server.client();
    // The shortest line of each command that has options.
    for words in [
        "INFER.LOAD m /m",
        "INFER.UNLOAD m",
        "INFER.TOKENIZE m t",
        "INFER.TOKENIZESTORE k m t",
        "INFER.DETOKENIZE m 1 k",
        "INFER.GENERATE m 1 k",
        "INFER.CHAT m 1 k",
        "INFER.EMBED m 1 t",
        "INFER.RERANK m q 1 t",
        "INFER.INDEX i EMBEDMODEL m GENMODEL m",
        "INFER.SEARCH i q",
        "INFER.RAG i q",
        "INFER.CACHEGET c q",
        "INFER.CACHESET c q a",
        "INFER.CACHEDEL c",
    ] {
        let name = words.split(' ').next().unwrap().to_lowercase();
        let docs = client.ok(&cmd!["COMMAND", "DOCS", &name]);
        let arguments = array(field(field(&docs, &name), "arguments")).to_vec();
        let mut options = Vec::new();
        arguments.iter().for_each(|argument| tokens_of(argument, &mut options));
        assert!(!options.is_empty(), "{words}");
        for option in options {
            // ASYNC alone is no error: then the load fails in the background.
            if let Err(refusal) = client.call(&line(words, &option)) {
                assert!(!refusal.text.contains("unknown option"), "{words} {option}: {}", refusal.text);
            }
        }
    }
}

/// The word of an option. Those of a choice without a word of its own are options themselves.
fn tokens_of(argument: &Value, tokens: &mut Vec<String>) {
    let flat = array(argument).as_chunks::<2>().0;
    let get = |name: &str| flat.iter().find(|[key, _]| text(key) == name).map(|[_, value]| value);
    if let Some(token) = get("token") {
        tokens.push(text(token).to_owned());
    } else if let Some(choices) = get("arguments") {
        array(choices).iter().for_each(|choice| tokens_of(choice, tokens));
    }
}
