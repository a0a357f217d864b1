//! Replicas while documents come and go, and what a server that starts again still knows.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use redis::Value;

use crate::harness::{
    CHAT, Client, EMBED, Server, SetOnDrop, array, cmd, contents, documents, eventually, field, int, pairs,
    paragraph_index, report_locks, text,
};

fn replica_of(master: &Server, models: &[crate::harness::Model]) -> Server {
    let replica = Server::configured(models, &["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let mut client = replica.client();
    eventually("the replica is connected", || {
        client.text(&cmd!["INFO", "replication"]).contains("master_link_status:up")
    });
    replica
}

fn index(client: &mut Client) {
    client.ok(&paragraph_index("docs"));
}

/// The text of `path` in one of its versions: two to five chunks, some of which stay from version to version.
fn version(path: usize, number: usize) -> Vec<String> {
    (0..2 + (path + number) % 4)
        .map(|chunk| format!("the cat {path} in the city {chunk} {}", number / (1 + chunk % 2)))
        .collect()
}

/// Documents that come, change and go, by three clients, until `go_on` says no.
fn storm(server: &Server, go_on: impl Fn() -> bool + Sync) {
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (server, go_on) = (&server, &go_on);
            scope.spawn(move || {
                let mut client = server.client();
                let mut number = 0;
                while go_on() {
                    number += 1;
                    let path = (number * 7 + writer) % 10;
                    let command = if (number + writer) % 4 == 0 {
                        cmd!["INFER.FORGET", "docs", format!("{path}.txt")]
                    } else {
                        let text = version(path, number).join("\n\n");
                        let attributes = format!(r#"{{"number":{number}}}"#);
                        cmd!["INFER.INGEST", "docs", format!("{path}.txt"), text, "ATTRS", attributes]
                    };
                    // A server that becomes a master or ends refuses some.
                    if client.call(&command).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// As [`storm`], with so many commands in all.
fn storm_of(server: &Server, commands: usize) {
    let left = AtomicUsize::new(commands);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    storm(server, || take().is_ok());
}

#[test]
fn after_a_storm_a_replica_without_models_has_the_same_keys_to_the_byte() {
    let master = Server::with(&[CHAT, EMBED]);
    let mut writer = master.client();
    index(&mut writer);
    storm_of(&master, 30);
    // One that gets a copy of everything, and one that gets every write.
    let early = replica_of(&master, &[]);
    storm_of(&master, 120);
    let late = replica_of(&master, &[]);
    assert_eq!(writer.ok(&cmd!["WAIT", 2, 20_000]), Value::Int(2));
    let expected = contents(&mut writer);
    assert!(expected.len() > 40, "{}", expected.len());
    report_locks(&mut writer, "after a storm of 150 ingests and removals");
    for replica in [early, late] {
        let mut reader = replica.client();
        assert_eq!(contents(&mut reader), expected);
        assert_eq!(array(&reader.ok(&cmd!["INFER.MODELS"])).len(), 0);
    }
}

#[test]
fn a_replica_with_models_answers_questions_and_sees_changes_without_a_mix() {
    let master = Server::with(&[CHAT, EMBED]);
    index(&mut master.client());
    let replica = replica_of(&master, &[CHAT, EMBED]);
    let texts =
        ["cat", "dog"].map(|animal| (0..6).map(|n| format!("the {animal} in the city {n}")).collect::<Vec<_>>());
    let seen = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut client = master.client();
            for (round, text) in texts.iter().cycle().take(3000).enumerate() {
                if round >= 60 && seen.load(Ordering::Relaxed) > 0 {
                    break;
                }
                client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", text.join("\n\n")]);
            }
        });
        let mut reader = replica.client();
        while !writer.is_finished() {
            let found = reader.call(&cmd!["INFER.SEARCH", "docs", "the city", "K", 20, "WITHTEXT"]);
            // Before the first write reaches it, it has no index.
            let Ok(found) = found else { continue };
            let mut found: Vec<&str> = array(&found).iter().map(|hit| text(field(hit, "text"))).collect();
            found.sort_unstable();
            assert!(found.is_empty() || texts.iter().any(|text| *text == found), "a mix: {found:?}");
            seen.fetch_add(usize::from(!found.is_empty()), Ordering::Relaxed);
        }
        assert!(seen.load(Ordering::Relaxed) > 0, "nothing was seen");
        reader.ok(&cmd!["INFER.RAG", "docs", "the cat", "MAXTOKENS", 2]);
        reader.refused(&cmd!["INFER.FORGET", "docs", "a.txt"], "READONLY", "");
    });
}

#[test]
fn a_replica_that_is_promoted_while_documents_are_written_has_only_whole_documents() {
    let master = Server::with(&[CHAT, EMBED]);
    index(&mut master.client());
    for _ in 0..3 {
        let replica = replica_of(&master, &[CHAT, EMBED]);
        let mut client = replica.client();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _over = SetOnDrop(&over);
            scope.spawn(|| storm(&master, || !over.load(Ordering::Relaxed)));
            let offset = |client: &mut Client| int(field(&client.ok(&cmd!["INFER.INDEXINFO", "docs"]), "epoch"));
            eventually("documents arrive", || offset(&mut client) > 5);
            client.ok(&cmd!["REPLICAOF", "NO", "ONE"]);
        });
        for (path, chunks) in documents(&mut client, "docs") {
            let path: usize = path.trim_end_matches(".txt").parse().unwrap();
            assert!((0..10_000).any(|number| version(path, number) == chunks), "{chunks:?}");
        }
        storm_of(&replica, 20);
        documents(&mut client, "docs");
    }
}

/// What a client sees of the index.
fn answers(client: &mut Client) -> Vec<Value> {
    let mut answers = Vec::new();
    for query in ["the cat 3", "the city", "paris"] {
        answers.push(client.ok(&cmd!["INFER.SEARCH", "docs", query, "K", 50, "WITHTEXT"]));
        answers.push(client.ok(&cmd!["INFER.RAG", "docs", query, "TEMP", 0, "MAXTOKENS", 8, "WITHSOURCES"]));
    }
    let info = client.ok(&cmd!["INFER.INDEXINFO", "docs"]);
    // Redis estimates the memory of a vector set from some of its elements, others each time.
    let numbers = pairs(&info).into_iter().filter(|(name, _)| text(name) != "vector_bytes");
    answers.extend(numbers.map(|(_, value)| value.clone()));
    answers
}

#[test]
fn a_server_that_starts_again_gives_the_same_information_and_answers() {
    for options in
        [&["--appendonly", "yes"][..], &["--save", "3600 1"], &["--appendonly", "yes", "--aof-use-rdb-preamble", "no"]]
    {
        let mut server = Server::configured(&[CHAT, EMBED], options);
        let mut client = server.client();
        index(&mut client);
        storm_of(&server, 60);
        if options.contains(&"no") {
            // The set of commands from which the keys are made is another one then.
            client.ok(&cmd!["BGREWRITEAOF"]);
            eventually("the log is rewritten", || {
                client.text(&cmd!["INFO", "persistence"]).contains("aof_rewrite_in_progress:0")
            });
        }
        let before = (contents(&mut client), answers(&mut client));
        client.send(&cmd!["SHUTDOWN"]);
        assert!(server.wait_for_exit(), "redis-server ended with an error");
        server.start_again();
        let mut client = server.client();
        client.ok(&CHAT.load());
        client.ok(&EMBED.load());
        documents(&mut client, "docs");
        let after = (contents(&mut client), answers(&mut client));
        assert_eq!(after.0, before.0, "{options:?}");
        assert_eq!(after.1, before.1, "{options:?}");
    }
}
