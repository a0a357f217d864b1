//! Redis Cluster: an index lives in one slot, so that any client library finds it and every command of one index works.

use std::collections::BTreeSet;

use redis::{Cmd, Value};

use crate::harness::{
    CHAT, Cluster, EMBED, SLOW, SLOW_EMBED, Server, array, cmd, documents, eventually, field, free_port, int,
    paragraph_index, text,
};

/// Enough names that every node gets some; among them names that look like hash tags to a careless eye.
const INDEXES: [&str; 9] = ["docs", "handbook", "a b", "\u{fc}\u{1f980}", "x:y", "0", "[a]", "docs@2", "notes"];

#[test]
fn an_ordinary_cluster_client_works_with_indexes_on_every_node() {
    let cluster = Cluster::with(&[CHAT, EMBED]);
    let mut client = cluster.client();
    let mut ok = |command: &Cmd| -> Value { command.query(&mut client).unwrap() };
    for name in INDEXES {
        ok(&paragraph_index(name));
        for path in ["a.txt", "{b}/}{.txt"] {
            ok(&cmd![
                "INFER.INGEST",
                name,
                path,
                "the cat and the dog in the city\n\nthe dog in the city of the cat",
                "ATTRS",
                r#"{"n":1}"#
            ]);
        }
        ok(&cmd!["INFER.INGEST", name, "a.txt", "the cat and paris"]);
        let found = ok(&cmd!["INFER.SEARCH", name, "paris", "K", 10, "WITHTEXT"]);
        assert_eq!(array(&found).len(), 3);
        assert_eq!(text(field(&array(&found)[0], "text")), "the cat and paris");
        let answer = ok(&cmd!["INFER.RAG", name, "paris", "K", 1, "WITHSOURCES", "MAXTOKENS", 2]);
        assert_eq!(text(field(&array(field(&answer, "sources"))[0], "path")), "a.txt");
        assert_eq!(int(field(&ok(&cmd!["INFER.INDEXINFO", name]), "documents")), 2);
        assert_eq!(ok(&cmd!["INFER.FORGET", name, "{b}/}{.txt"]), Value::Int(2));
        let cached = cmd!["INFER.RAG", name, "paris", "MAXTOKENS", 2, "WITHSTATS", "CACHE", 1];
        assert_eq!(int(field(&ok(&cached), "cache_stored")), 1);
        assert_eq!(text(field(&ok(&cached), "cache")), "exact");
        // A stored prompt lies elsewhere than the index, and is found by its own name.
        let prompt = format!("prompt of {name}");
        ok(&cmd!["INFER.TOKENIZESTORE", &prompt, "chat", "the cat"]);
        ok(&cmd!["INFER.GENERATE", "chat", 1, &prompt, "MAXTOKENS", 2]);
        assert_eq!(text(&ok(&cmd!["INFER.DETOKENIZE", "chat", 1, &prompt])), "the cat");
    }
    assert!(cluster.keys().iter().all(|keys| !keys.is_empty()), "a node without any index: {:?}", cluster.keys());
    for name in INDEXES {
        let mut node = cluster.nodes[cluster.node_of(name)].client();
        assert_eq!(documents(&mut node, name)["a.txt"], ["the cat and paris"]);
        let own = format!(":{{{name}}}");
        let keys: Vec<String> =
            cluster.keys().into_iter().flatten().filter(|key| key == name || key.contains(&own)).collect();
        assert!(keys.len() >= 6, "{keys:?}");
        let slots: BTreeSet<i64> = keys.iter().map(|key| int(&node.ok(&cmd!["CLUSTER", "KEYSLOT", key]))).collect();
        assert_eq!(slots.len(), 1, "{keys:?}");
    }
}

/// Every command with a key, `docs` or `prompt`.
fn commands() -> Vec<(Cmd, &'static str)> {
    vec![
        (paragraph_index("docs"), "docs"),
        (cmd!["INFER.INGEST", "docs", "a.txt", "the cat"], "docs"),
        (cmd!["INFER.FORGET", "docs", "a.txt"], "docs"),
        (cmd!["INFER.INDEXINFO", "docs"], "docs"),
        (cmd!["INFER.SEARCH", "docs", "the cat"], "docs"),
        (cmd!["INFER.RAG", "docs", "the cat", "MAXTOKENS", 2], "docs"),
        (cmd!["INFER.CACHESET", "faq", "the cat", "meow"], "faq"),
        (cmd!["INFER.CACHEGET", "faq", "the dog"], "faq"),
        (cmd!["INFER.CACHEINFO", "faq"], "faq"),
        (cmd!["INFER.CACHEDEL", "faq"], "faq"),
        (cmd!["INFER.REINDEX", "docs"], "docs"),
        (cmd!["INFER.DROPINDEX", "docs"], "docs"),
        (cmd!["INFER.TOKENIZESTORE", "prompt", "chat", "the cat"], "prompt"),
        (cmd!["INFER.GENERATE", "chat", 1, "prompt", "MAXTOKENS", 2], "prompt"),
        (cmd!["INFER.CHAT", "chat", 1, "prompt", "MESSAGE", "user", "x", "MAXTOKENS", 2], "prompt"),
        (cmd!["INFER.DETOKENIZE", "chat", 1, "prompt"], "prompt"),
    ]
}

#[test]
fn a_node_that_lacks_the_keys_says_where_they_are_and_a_command_over_two_slots_is_refused() {
    let cluster = Cluster::with(&[CHAT, EMBED]);
    for (command, key) in commands() {
        let own = cluster.node_of(key);
        let mut keys = cmd!["COMMAND", "GETKEYS"];
        for word in command.args_iter() {
            let redis::Arg::Simple(word) = word else { panic!("an argument of an unknown kind") };
            keys.arg(word);
        }
        for (number, node) in cluster.nodes.iter().enumerate() {
            let mut client = node.client();
            // Redis itself looks for the keys in the command, so this is what a client asks too.
            assert_eq!(text(&array(&client.ok(&keys))[0]), key);
            if number == own {
                let _ = client.ok(&command);
            } else {
                let refusal = client.call(&command).unwrap_err();
                assert_eq!(refusal.code, "MOVED", "{keys:?}: {refusal:?}");
                assert!(refusal.text.ends_with(&format!(":{}", cluster.nodes[own].port)), "{refusal:?}");
                client.assert_in_step();
            }
        }
    }
    let mut client = cluster.nodes[cluster.node_of("prompt")].client();
    client.refused(&cmd!["INFER.GENERATE", "chat", 2, "prompt", "docs"], "CROSSSLOT", "");
    client.refused(&cmd!["INFER.DETOKENIZE", "chat", 2, "prompt", "docs"], "CROSSSLOT", "");
}

#[test]
fn requests_of_a_node_whose_cluster_goes_down_end() {
    let server = Server::configured(&[], &["--cluster-enabled", "yes", "--cluster-port", &free_port().to_string()]);
    let mut control = server.client();
    control.ok(&cmd!["CLUSTER", "ADDSLOTSRANGE", 0, 16_383]);
    eventually("the cluster is complete", || control.text(&cmd!["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    control.ok(&SLOW.load());
    let mut client = server.client();
    client.send(&cmd!["INFER.GENERATE", "slow", 0, "TEXT", "go on", "MAXTOKENS", 16_000]);
    eventually("the request is accepted", || server.requests("slow") == 1);
    control.ok(&cmd!["CLUSTER", "DELSLOTS", 7]);
    assert_eq!(client.receive().unwrap_err().code, "CLUSTERDOWN");
    client.assert_in_step();
    eventually("the place is free", || server.requests("slow") == 0);
    assert_eq!(array(&control.ok(&cmd!["INFER.PS"])), &[] as &[Value]);
}

#[test]
fn an_index_whose_slot_moves_away_while_a_document_is_embedded_is_not_written_here() {
    let cluster = Cluster::with(&[CHAT, SLOW_EMBED]);
    let own = cluster.node_of("docs");
    let (here, there) = (&cluster.nodes[own], &cluster.nodes[(own + 1) % 3]);
    let mut control = here.client();
    let slot = int(&control.ok(&cmd!["CLUSTER", "KEYSLOT", "docs"]));
    control.ok(&cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "slow-embed", "GENMODEL", "chat", "MAXTOKENS", 2000]);
    let mut client = here.client();
    client.send(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat and the dog ".repeat(390)]);
    eventually("the document is being embedded", || here.requests("slow-embed") == 1);
    let mut target = there.client();
    let [from, to] = [&mut control, &mut target].map(|client| client.text(&cmd!["CLUSTER", "MYID"]));
    target.ok(&cmd!["CLUSTER", "SETSLOT", slot, "IMPORTING", &from]);
    control.ok(&cmd!["CLUSTER", "SETSLOT", slot, "MIGRATING", &to]);
    control.ok(&cmd!["MIGRATE", "127.0.0.1", there.port, "", 0, 10_000, "KEYS", "docs"]);
    target.ok(&cmd!["CLUSTER", "SETSLOT", slot, "NODE", &to]);
    control.ok(&cmd!["CLUSTER", "SETSLOT", slot, "NODE", &to]);
    let refusal = client.receive().unwrap_err();
    // By the time it was embedded the slot had left, or was about to.
    assert!(matches!(refusal.code.as_str(), "MOVED" | "ASK" | "TRYAGAIN"), "{refusal:?}");
    assert!(refusal.code == "TRYAGAIN" || refusal.text.ends_with(&format!(":{}", there.port)), "{refusal:?}");
    eventually("the place is free", || here.requests("slow-embed") == 0);
    assert_eq!(cluster.keys()[own], [] as [String; 0]);
    target.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat"]);
    assert_eq!(documents(&mut target, "docs")["a.txt"], ["the cat"]);
}
