//! An index that is made anew or dropped while documents come and go, memory ends, or the server does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::Value;

use crate::harness::{
    CHAT, Client, Documents, EMBED, NOT_NICED, Server, SetOnDrop, cmd, contents, documents, eventually, field, int,
    keys_of, once_in_three, text,
};

fn index(client: &mut Client) {
    let settings = ["EMBEDMODEL", "embed", "GENMODEL", "chat", "MAXTOKENS", "16", "OVERLAP", "0"];
    // Until what a drop has left is gone.
    eventually("the index is made", || client.call(&cmd!["INFER.INDEX", "docs", &settings]).is_ok());
}

/// The chunks of a document.
fn chunks(name: &str, number: usize) -> Vec<String> {
    (0..1 + number % 5).map(|chunk| format!("the cat {name} in the city {chunk} {number}")).collect()
}

fn ingest(client: &mut Client, path: &str, chunks: &[String]) {
    client.ok(&cmd!["INFER.INGEST", "docs", path, chunks.join("\n\n")]);
}

/// An index with so many documents.
fn filled(server: &Server, count: usize) -> Documents {
    let mut client = server.client();
    index(&mut client);
    for number in 0..count {
        ingest(&mut client, &number.to_string(), &chunks("x", number));
    }
    documents(&mut client, "docs")
}

/// State of the last re-index, and how many documents it has made.
fn progress(client: &mut Client) -> (String, i64) {
    match field(&client.ok(&cmd!["INFER.INDEXINFO", "docs"]), "reindex") {
        Value::Nil => (String::new(), 0),
        progress => (text(field(progress, "state")).to_owned(), int(field(progress, "done"))),
    }
}

/// Waits for the end of the re-index; its state.
fn ended(client: &mut Client) -> String {
    eventually("the re-index has ended", || ["done", "failed"].contains(&progress(client).0.as_str()));
    progress(client).0
}

/// Fails unless all keys are of the generation in use.
#[track_caller]
fn assert_one_generation(client: &mut Client) {
    let generation = client.text(&cmd!["HGET", "docs", "generation"]);
    let own = if generation == "1" { "{docs}".to_owned() } else { format!("{{docs}}@{generation}") };
    for key in keys_of(client, "docs") {
        let rest = key.split_once(&own).unwrap_or_else(|| panic!("{key} is not of generation {generation}")).1;
        assert!(rest.is_empty() || rest.starts_with(':'), "{key} is not of generation {generation}");
    }
}

/// Fails unless the index has these documents, also after a re-index.
#[track_caller]
fn assert_whole_and_made_anew(client: &mut Client, expected: &Documents) {
    assert_eq!(documents(client, "docs"), *expected);
    client.ok(&cmd!["INFER.REINDEX", "docs"]);
    assert_eq!(ended(client), "done");
    assert_eq!(documents(client, "docs"), *expected);
    assert_one_generation(client);
}

/// Documents of its own, below `folder`, that each of three writers replaces and removes until `stop`; what they are in
/// the end.
fn write_until(server: &Server, folder: usize, stop: &AtomicBool) -> Documents {
    let write = |writer: usize| {
        let mut client = server.client();
        let mut own = BTreeMap::new();
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let path = format!("{folder}/{writer}/{}", number % 4);
            if number % 5 == 0 {
                client.ok(&cmd!["INFER.FORGET", "docs", &path]);
                own.remove(&path);
            } else {
                ingest(&mut client, &path, &chunks(&path, number));
                own.insert(path.clone(), chunks(&path, number));
            }
        }
        own
    };
    std::thread::scope(|scope| {
        let writers = [0, 1, 2].map(|writer| scope.spawn(move || write(writer)));
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    })
}

#[test]
fn no_document_is_lost_or_mixed_when_the_index_is_made_anew_again_and_again() {
    let server = Server::with(&[CHAT, EMBED]);
    let replica = Server::configured(&[], &["--replicaof", &format!("127.0.0.1 {}", server.port)]);
    let mut client = server.client();
    let mut expected = filled(&server, 10);
    for round in 0..3 {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let ending = SetOnDrop(&stop);
            let writing = scope.spawn(|| write_until(&server, round, &stop));
            client.ok(&cmd!["INFER.REINDEX", "docs"]);
            // Though documents change all the time.
            eventually("it has ended", || progress(&mut client).0 == "done");
            drop(ending);
            expected.extend(writing.join().unwrap());
        });
        assert_eq!(ended(&mut client), "done");
    }
    assert_eq!(documents(&mut client, "docs"), expected);
    assert_one_generation(&mut client);
    let mut reader = replica.client();
    eventually("the replica has everything", || {
        client.ok(&cmd!["WAIT", 1, 1000]) == Value::Int(1) && contents(&mut reader) == contents(&mut client)
    });
}

#[test]
fn a_crash_while_the_index_is_made_anew_loses_nothing_and_the_next_attempt_clears_up() {
    let mut server = Server::configured(&[CHAT, EMBED], &["--appendonly", "yes"]);
    let expected = filled(&server, 40);
    for done in [0, 5, 20, 39, 40] {
        let mut client = server.client();
        client.ok(&cmd!["INFER.REINDEX", "docs"]);
        eventually("some documents are made anew", || {
            let (state, number) = progress(&mut client);
            number >= done || state == "done"
        });
        server.kill();
        server.start_again();
        let mut client = server.client();
        client.ok(&CHAT.load());
        client.ok(&EMBED.load());
        assert_eq!(documents(&mut client, "docs"), expected, "after {done} documents");
    }
    let mut client = server.client();
    client.ok(&cmd!["INFER.REINDEX", "docs"]);
    assert_eq!(ended(&mut client), "done");
    assert_eq!(documents(&mut client, "docs"), expected);
    assert_one_generation(&mut client);
}

#[test]
fn a_crash_while_the_index_is_dropped_leaves_what_a_second_drop_removes() {
    for wait in [0, 1, 5, 20] {
        let mut server = Server::configured(&[CHAT, EMBED], &["--appendonly", "yes", "--appendfsync", "always"]);
        filled(&server, 40);
        let mut client = server.client();
        client.send(&cmd!["INFER.DROPINDEX", "docs"]);
        let mut control = server.client();
        eventually("the index is gone", || control.ok(&cmd!["EXISTS", "docs"]) == Value::Int(0));
        std::thread::sleep(Duration::from_millis(wait));
        server.kill();
        server.start_again();
        let mut client = server.client();
        client.refused(&cmd!["INFER.INDEXINFO", "docs"], "NOINDEX", "");
        if let Err(refusal) = client.call(&cmd!["INFER.DROPINDEX", "docs"]) {
            assert_eq!(refusal.code, "NOINDEX");
        }
        assert_eq!(client.ok(&cmd!["KEYS", "*"]), Value::Array(vec![]));
        client.ok(&CHAT.load());
        client.ok(&EMBED.load());
        filled(&server, 3);
    }
}

#[test]
fn an_index_that_is_dropped_and_made_again_while_documents_come_is_whole() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    index(&mut client);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ending = SetOnDrop(&stop);
        for writer in 0..3 {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let mut client = server.client();
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let path = format!("{}", (number + writer) % 5);
                    let ingested =
                        client.call(&cmd!["INFER.INGEST", "docs", &path, chunks(&path, number).join("\n\n")]);
                    if let Err(refusal) = ingested {
                        let anew = refusal.code == "ERR" && refusal.text.contains("while the command ran");
                        assert!(refusal.code == "NOINDEX" || anew, "{refusal:?}");
                    }
                }
            });
        }
        for _ in 0..10 {
            client.ok(&cmd!["INFER.DROPINDEX", "docs"]);
            index(&mut client);
        }
    });
    for (path, stored) in documents(&mut client, "docs") {
        assert!((0..10_000).any(|number| chunks(&path, number) == stored), "{path}: {stored:?}");
    }
    client.ok(&cmd!["INFER.DROPINDEX", "docs"]);
    assert_eq!(client.ok(&cmd!["KEYS", "*"]), Value::Array(vec![]));
}

#[test]
fn memory_that_ends_while_the_index_is_made_anew_leaves_the_old_one() {
    let server = Server::with(&[CHAT, EMBED]);
    let expected = filled(&server, 30);
    let mut client = server.client();
    let used = client.text(&cmd!["INFO", "memory"]);
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().parse::<u64>().unwrap();
    client.ok(&cmd!["CONFIG", "SET", "maxmemory", used + 20_000]);
    if client.call(&cmd!["INFER.REINDEX", "docs"]).is_ok() {
        assert_eq!(ended(&mut client), "failed");
    }
    client.ok(&cmd!["CONFIG", "SET", "maxmemory", 0]);
    assert_whole_and_made_anew(&mut client, &expected);
}

#[test]
fn a_model_that_is_unloaded_while_the_index_is_made_anew_leaves_the_old_one() {
    let server = Server::with(&[CHAT, EMBED]);
    let expected = filled(&server, 60);
    let mut client = server.client();
    client.ok(&cmd!["INFER.REINDEX", "docs"]);
    client.ok(&cmd!["INFER.UNLOAD", "embed", "FORCE"]);
    // It may have been faster.
    ended(&mut client);
    client.ok(&EMBED.load());
    assert_whole_and_made_anew(&mut client, &expected);
}

#[test]
fn a_server_that_becomes_a_replica_stops_making_an_index_anew() {
    let master = Server::with(&[]);
    let server = Server::with(&[CHAT, EMBED]);
    filled(&server, 60);
    let mut client = server.client();
    client.ok(&cmd!["INFER.REINDEX", "docs"]);
    client.ok(&cmd!["REPLICAOF", "127.0.0.1", master.port]);
    let mut client = server.client();
    eventually("the replica is in step", || {
        client.text(&cmd!["INFO", "replication"]).contains("master_link_status:up")
    });
    eventually("nothing runs any more", || server.requests("embed") == 0);
    assert_eq!(client.ok(&cmd!["KEYS", "*"]), Value::Array(vec![]));
}

#[test]
fn shutdown_while_an_index_is_made_anew_or_dropped_takes_less_than_two_seconds() {
    for command in ["INFER.REINDEX", "INFER.DROPINDEX"] {
        once_in_three(command, || {
            let mut server = Server::configured(&[CHAT, EMBED], &NOT_NICED);
            filled(&server, 60);
            let (mut client, mut control) = (server.client(), server.client());
            client.send(&cmd![command, "docs"]);
            let begun = Instant::now();
            control.send(&cmd!["SHUTDOWN", "NOSAVE"]);
            server.ends_at_once(begun)
        });
    }
}
