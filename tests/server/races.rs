//! Several clients at one index, and what can happen to its keys while a document is on its way into it.

use redis::{Cmd, Value};

use crate::harness::{
    CHAT, Client, EMBED, SLOW_EMBED, Server, array, cmd, documents, eventually, field, int, keys_of, report_locks, text,
};

fn index(embedder: &str, max_tokens: u32) -> Cmd {
    let settings = ["MAXTOKENS", &max_tokens.to_string(), "OVERLAP", "0"].map(str::to_owned);
    cmd!["INFER.INDEX", "docs", "EMBEDMODEL", embedder, "GENMODEL", "chat", &settings]
}

/// Paragraphs that are a chunk each.
fn paragraphs(about: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("the {about} in the city {number}")).collect()
}

#[test]
fn one_path_from_eight_clients_ends_as_exactly_one_of_their_texts() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut control = server.client();
    control.ok(&index("embed", 16));
    for round in 0..5 {
        let texts: Vec<Vec<String>> =
            (0..8).map(|client| paragraphs(&format!("cat {round} of {client}"), 1 + (client + round) % 8)).collect();
        std::thread::scope(|scope| {
            for text in &texts {
                scope.spawn(|| {
                    let mut client = server.client();
                    for _ in 0..3 {
                        client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", text.join("\n\n")]);
                    }
                });
            }
        });
        let stored = documents(&mut control, "docs");
        assert!(texts.contains(&stored["a.txt"]), "{stored:?}");
        let found = control.ok(&cmd!["INFER.SEARCH", "docs", "the cat", "K", 200, "WITHTEXT"]);
        let mut found: Vec<&str> = array(&found).iter().map(|hit| text(field(hit, "text"))).collect();
        found.sort_unstable();
        assert_eq!(found, stored["a.txt"]);
    }
}

#[test]
fn ingests_and_removals_of_the_same_paths_leave_whole_documents() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut control = server.client();
    control.ok(&index("embed", 16));
    let text = |client: usize| paragraphs(&format!("dog of {client}"), 1 + client);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for round in 0..30 {
                    let path = format!("{}.txt", (round + number) % 5);
                    if round % 3 == number % 3 {
                        client.ok(&cmd!["INFER.FORGET", "docs", path]);
                    } else {
                        client.ok(&cmd!["INFER.INGEST", "docs", path, text(number).join("\n\n")]);
                    }
                }
            });
        }
    });
    let stored = documents(&mut control, "docs");
    assert!(stored.values().all(|chunks| (0..4).any(|client| *chunks == text(client))), "{stored:?}");
    for path in stored.keys() {
        control.ok(&cmd!["INFER.FORGET", "docs", path]);
    }
    assert_eq!(documents(&mut control, "docs").len(), 0);
}

/// A client whose document is being embedded, which takes seconds.
fn embedding(server: &Server) -> Client {
    let mut client = server.client();
    client.send(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat and the dog ".repeat(390)]);
    let mut control = server.client();
    eventually("the document is being embedded", || {
        array(&control.ok(&cmd!["INFER.PS"])).iter().any(|request| text(field(request, "state")) == "prefilling")
    });
    client
}

#[test]
fn an_index_that_vanishes_while_a_document_is_embedded_is_not_brought_back() {
    let server = Server::with(&[CHAT, SLOW_EMBED]);
    let mut control = server.client();
    for vanish in [cmd!["FLUSHDB"], cmd!["FLUSHALL", "ASYNC"], cmd!["DEL", "docs"], cmd!["RENAME", "docs", "other"]] {
        control.ok(&index("slow-embed", 2000));
        let mut client = embedding(&server);
        control.ok(&vanish);
        assert_eq!(client.receive().unwrap_err().code, "NOINDEX", "{vanish:?}");
        client.assert_in_step();
        assert_eq!(keys_of(&mut control, "docs"), [] as [String; 0]);
    }
}

#[test]
fn a_document_goes_into_an_index_that_was_made_anew_with_the_settings_of_that() {
    let server = Server::with(&[CHAT, SLOW_EMBED]);
    let mut control = server.client();
    for max_tokens in [2000, 1900] {
        control.ok(&index("slow-embed", 2000));
        let mut client = embedding(&server);
        control.ok(&cmd!["FLUSHDB"]);
        control.ok(&index("slow-embed", max_tokens));
        client.receive().unwrap();
        assert_eq!(documents(&mut control, "docs").len(), 1);
        let info = control.ok(&cmd!["INFER.INDEXINFO", "docs"]);
        assert_eq!(int(field(&info, "max_tokens")), i64::from(max_tokens));
        control.ok(&cmd!["FLUSHDB"]);
    }
}

#[test]
fn keys_of_an_index_replaced_by_others_are_told_and_left_alone() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    for key in ["docs", "doc:{docs}:a.txt", "stats:{docs}", "paths:{docs}"] {
        client.ok(&cmd!["FLUSHDB"]);
        client.ok(&index("embed", 16));
        client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat"]);
        client.ok(&cmd!["SET", key, "mine"]);
        let before = keys_of(&mut client, "docs");
        for command in [cmd!["INFER.INGEST", "docs", "a.txt", "the dog"], cmd!["INFER.FORGET", "docs", "a.txt"]] {
            let refusal = client.call(&command).unwrap_err();
            assert!(refusal.code == "WRONGTYPE" && refusal.text.contains(key), "{key}: {refusal:?}");
            client.assert_in_step();
            assert_eq!(client.text(&cmd!["GET", key]), "mine");
            assert_eq!(keys_of(&mut client, "docs"), before);
        }
        if matches!(key, "docs" | "vec:{docs}") {
            for command in ["INFER.SEARCH", "INFER.RAG"] {
                assert_eq!(client.call(&cmd![command, "docs", "the cat"]).unwrap_err().code, "WRONGTYPE", "{key}");
            }
        }
    }
}

#[test]
fn a_chunk_whose_tokens_are_another_key_is_told_and_comes_back() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&index("embed", 16));
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat"]);
    client.ok(&cmd!["DEL", "tokens:{docs}:a.txt:chunk_0"]);
    client.ok(&cmd!["LPUSH", "tokens:{docs}:a.txt:chunk_0", "x"]);
    client.refused(&cmd!["INFER.SEARCH", "docs", "the cat"], "WRONGTYPE", "tokens:{docs}:a.txt:chunk_0");
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", "the cat"]);
    assert_eq!(documents(&mut client, "docs")["a.txt"], ["the cat"]);
}

#[test]
fn memory_that_ends_in_the_middle_of_an_ingest_leaves_the_old_document_whole() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    client.ok(&index("embed", 16));
    let texts = ["cat", "dog"].map(|animal| paragraphs(animal, 120));
    client.ok(&cmd!["INFER.INGEST", "docs", "b.txt", "the city"]);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", texts[0].join("\n\n")]);
    let mut current = 0;
    let mut refused = 0;
    for room in (0..100).map(|step| step * 4096) {
        let used = client.text(&cmd!["INFO", "memory"]);
        let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().parse::<u64>().unwrap();
        client.ok(&cmd!["CONFIG", "SET", "maxmemory", used + room]);
        let other = 1 - current;
        let replaced = client.call(&cmd!["INFER.INGEST", "docs", "a.txt", texts[other].join("\n\n")]);
        client.ok(&cmd!["CONFIG", "SET", "maxmemory", 0]);
        match replaced {
            Ok(_) => current = other,
            Err(refusal) => {
                assert_eq!(refusal.code, "OOM", "{refusal:?}");
                refused += 1;
            }
        }
        let stored = documents(&mut client, "docs");
        assert_eq!(stored["a.txt"], texts[current], "after an ingest with room for {room} bytes");
        assert_eq!(stored["b.txt"], ["the city"]);
        // What an ingest left behind for a later one is used up.
        if room % (5 * 4096) == 0 {
            client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", texts[current].join("\n\n")]);
            assert_eq!(documents(&mut client, "docs")["a.txt"], texts[current]);
        }
    }
    assert!((1..100).contains(&refused), "{refused} of 100 ingests found too little memory");
    assert!(int(field(&client.ok(&cmd!["INFER.INDEXINFO", "docs"]), "chunks")) == 121);
    assert_eq!(array(&client.ok(&cmd!["INFER.PS"])), &[] as &[Value]);
    report_locks(&mut client, "after 100 ingests of 120 chunks with too little memory");
}
