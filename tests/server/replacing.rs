//! A document that is replaced while others read it, write it, or take the index away.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::Value;

use crate::harness::{
    CHAT, Client, EMBED, Server, SetOnDrop, array, cmd, crowd, documents, eventually, field, int, paragraph_index, text,
};

/// A server with an empty index `docs` whose chunks are one paragraph each.
fn indexed() -> (Server, Client) {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.resp3();
    create(&mut client);
    (server, client)
}

fn create(client: &mut Client) {
    client.ok(&paragraph_index("docs"));
}

/// Paragraphs that all have `word` in them, in many variations.
fn document(word: &str, paragraphs: usize) -> String {
    let others = ["cat", "dog", "city", "file", "line", "key", "memory", "queue", "server", "thread"];
    let other = |n: usize| others[n % others.len()];
    let paragraph =
        |n: usize| format!("the {word} and the {} of the {} in the {}", other(n), other(n / 10), other(n / 100));
    (0..paragraphs).map(paragraph).collect::<Vec<_>>().join("\n\n")
}

/// The words among `words` that are in a chunk that a search finds.
fn found(client: &mut Client, words: [&str; 2]) -> BTreeSet<String> {
    let reply = client.ok(&cmd!["INFER.SEARCH", "docs", words.join(" "), "K", 200, "WITHTEXT"]);
    let is_in = |word: &&str, hit: &Value| text(field(hit, "text")).contains(&format!("the {word} and"));
    array(&reply)
        .iter()
        .filter_map(|hit| words.iter().find(|word| is_in(word, hit)))
        .map(|word| (*word).to_owned())
        .collect()
}

#[test]
fn a_reader_sees_the_old_document_or_the_new_one() {
    let (server, mut client) = indexed();
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", document("paris", 150)]);
    assert_never_mixed(&server, &mut client);
}

#[test]
fn a_reader_of_a_large_index_that_searches_without_the_lock_sees_the_old_document_or_the_new_one() {
    let (server, mut client) = indexed();
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", document("paris", 150)]);
    crowd(&mut client, "vec:{docs}", 6000);
    assert_never_mixed(&server, &mut client);
    assert!(client.info("infer_searches_apart") > 0);
}

#[test]
fn a_document_that_is_forgotten_while_a_large_index_is_searched_is_not_found_and_not_missing() {
    let (server, mut client) = indexed();
    client.ok(&cmd!["INFER.INGEST", "docs", "b.txt", "the dog and the city"]);
    crowd(&mut client, "vec:{docs}", 6000);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _done = SetOnDrop(&done);
        for _ in 0..4 {
            scope.spawn(|| {
                let mut reader = server.client();
                while !done.load(Ordering::Relaxed) {
                    reader.ok(&cmd!["INFER.SEARCH", "docs", "the paris", "EF", 1000, "WITHTEXT"]);
                }
            });
        }
        // One of the readers searches nearly all the time; documents wait for that, and FORGET does not.
        for _ in 0..40 {
            client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", document("paris", 4)]);
            assert_eq!(client.ok(&cmd!["INFER.FORGET", "docs", "a.txt"]), Value::Int(4));
        }
    });
    // As the tokens of a chunk would be that was found and forgotten before it was read.
    assert_eq!(client.info("infer_missing_chunks"), 0);
    assert!(client.info("infer_searches_apart") > 40);
}

/// Replaces `a.txt`, which is about Paris, again and again while others read it.
fn assert_never_mixed(server: &Server, client: &mut Client) {
    let texts = ["paris", "france"].map(|word| document(word, 150));
    let done = AtomicBool::new(false);
    let seen = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        let _done = SetOnDrop(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                let mut reader = server.client();
                while !done.load(Ordering::Relaxed) {
                    let words = found(&mut reader, ["paris", "france"]);
                    assert_eq!(words.len(), 1, "a mix");
                    seen.lock().unwrap().extend(words);
                }
            });
        }
        let mut round = 0;
        eventually("the readers have seen both documents", || {
            round += 1;
            client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", &texts[round % 2]]);
            round >= 8 && seen.lock().unwrap().len() == 2
        });
    });
}

#[test]
fn of_many_who_write_one_document_one_wins_whole() {
    let (server, mut client) = indexed();
    let words = ["cat", "dog", "city", "file", "line", "key", "memory", "queue"];
    let mut writers: Vec<Client> = words.iter().map(|_| server.client()).collect();
    for _ in 0..3 {
        for (writer, word) in writers.iter_mut().zip(words) {
            writer.send(&cmd!["INFER.INGEST", "docs", "a.txt", document(&format!("paris {word}"), 20 + word.len())]);
        }
        for writer in &mut writers {
            writer.receive().unwrap();
        }
        let reply = client.ok(&cmd!["INFER.SEARCH", "docs", "the cat", "K", 200, "WITHTEXT"]);
        let winner = |hit: &Value| text(field(hit, "text")).split(' ').nth(2).unwrap_or_default().to_owned();
        let winners: BTreeSet<String> = array(&reply).iter().map(winner).collect();
        let [winner] = &winners.into_iter().collect::<Vec<_>>()[..] else { panic!("a mix: {reply:?}") };
        assert_eq!(array(&reply).len(), 20 + winner.len());
        let info = client.ok(&cmd!["INFER.INDEXINFO", "docs"]);
        documents(&mut client, "docs");
        for name in ["chunks", "vectors"] {
            assert_eq!(int(field(&info, name)), 20 + i64::try_from(winner.len()).unwrap(), "{name}");
        }
    }
}

/// Texts embedded so far.
fn embedded(server: &Server) -> u64 {
    let info = server.client().text(&cmd!["INFO", "infer"]);
    info.lines().find_map(|line| line.strip_prefix("infer_embedded_texts:")?.trim().parse().ok()).unwrap()
}

/// Paragraphs of a document that takes some tenths of a second to embed; hardly more can be in one.
const LONG: i64 = 1000;

/// Sends a document of [`LONG`] paragraphs and waits until it is being embedded.
fn begin(server: &Server) -> Client {
    let (mut writer, before) = (server.client(), embedded(server));
    writer.send(&cmd!["INFER.INGEST", "docs", "a.txt", document("cat", usize::try_from(LONG).unwrap())]);
    eventually("the document is being embedded", || embedded(server) > before);
    writer
}

#[test]
fn a_document_forgotten_while_it_is_replaced_is_written_whole() {
    let (server, mut client) = indexed();
    let mut writer = begin(&server);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", document("dog", 2)]);
    assert_eq!(client.ok(&cmd!["INFER.FORGET", "docs", "a.txt"]), Value::Int(2));
    writer.receive().unwrap();
    let info = client.ok(&cmd!["INFER.INDEXINFO", "docs"]);
    assert_eq!(["documents", "chunks", "vectors"].map(|name| int(field(&info, name))), [1, LONG, LONG]);
}

#[test]
fn an_index_that_goes_while_a_document_comes_is_noindex_and_stays_gone() {
    let (server, mut client) = indexed();
    let mut writer = begin(&server);
    client.ok(&cmd!["FLUSHDB"]);
    assert_eq!(writer.receive().unwrap_err().code, "NOINDEX");
    assert_eq!(client.ok(&cmd!["DBSIZE"]), Value::Int(0));
}

#[test]
fn an_index_made_anew_while_a_document_comes_gets_it() {
    let (server, mut client) = indexed();
    let mut writer = begin(&server);
    client.send_together(&[
        cmd!["FLUSHDB"],
        cmd!["INFER.INDEX", "docs", "EMBEDMODEL", "embed", "GENMODEL", "chat", "MAXTOKENS", 32, "OVERLAP", 0],
    ]);
    client.receive().unwrap();
    client.receive().unwrap();
    writer.receive().unwrap();
    let info = client.ok(&cmd!["INFER.INDEXINFO", "docs"]);
    assert_eq!(["documents", "max_tokens"].map(|name| int(field(&info, name))), [1, 32]);
    assert_eq!(int(field(&info, "vectors")), int(field(&info, "chunks")));
}

#[test]
fn a_vector_set_that_goes_while_a_document_comes_is_filled_again() {
    let (server, mut client) = indexed();
    client.ok(&cmd!["INFER.INGEST", "docs", "b.txt", document("dog", 2)]);
    let mut writer = begin(&server);
    // Some of its vectors are staged by now or in a moment.
    eventually("vectors are staged", || int(&client.ok(&cmd!["VCARD", "vec:{docs}"])) > 2);
    client.ok(&cmd!["DEL", "vec:{docs}"]);
    writer.receive().unwrap();
    let info = client.ok(&cmd!["INFER.INDEXINFO", "docs"]);
    assert_eq!(int(field(&info, "vectors")), LONG);
}

#[test]
fn a_vector_set_that_became_something_else_refuses_a_document_and_keeps_the_old_one() {
    let (_server, mut client) = indexed();
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", document("dog", 2)]);
    client.ok(&cmd!["RENAME", "vec:{docs}", "aside"]);
    client.ok(&cmd!["SET", "vec:{docs}", "something else"]);
    client.refused(&cmd!["INFER.INGEST", "docs", "a.txt", document("cat", 2)], "WRONGTYPE", "");
    client.refused(&cmd!["INFER.FORGET", "docs", "a.txt"], "WRONGTYPE", "");
    client.ok(&cmd!["RENAME", "aside", "vec:{docs}"]);
    for key in ["stats:{docs}", "paths:{docs}"] {
        client.ok(&cmd!["RENAME", key, "aside"]);
        client.ok(&cmd!["SET", key, "something else"]);
        client.refused(&cmd!["INFER.INGEST", "docs", "a.txt", document("cat", 2)], "WRONGTYPE", "");
        client.refused(&cmd!["INFER.FORGET", "docs", "a.txt"], "WRONGTYPE", "");
        client.ok(&cmd!["RENAME", "aside", key]);
    }
    assert_eq!(found(&mut client, ["cat", "dog"]), ["dog".to_owned()].into());
}

#[test]
fn memory_that_ends_while_a_document_comes_leaves_the_old_one_whole() {
    let (server, mut client) = indexed();
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", document("dog", 20)]);
    let mut writer = begin(&server);
    client.ok(&cmd!["CONFIG", "SET", "maxmemory", 1]);
    assert_eq!(writer.receive().unwrap_err().code, "OOM");
    assert_eq!(documents(&mut client, "docs")["a.txt"].len(), 20);
    assert_eq!(found(&mut client, ["cat", "dog"]), ["dog".to_owned()].into());
    client.ok(&cmd!["CONFIG", "SET", "maxmemory", 0]);
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", document("cat", 900)]);
    let info = client.ok(&cmd!["INFER.INDEXINFO", "docs"]);
    assert_eq!(["chunks", "vectors"].map(|name| int(field(&info, name))), [900, 900]);
}

#[test]
fn a_writer_who_leaves_changes_nothing() {
    let (server, mut client) = indexed();
    client.ok(&cmd!["INFER.INGEST", "docs", "a.txt", document("dog", 2)]);
    drop(begin(&server));
    let info = |client: &mut Client, name| int(field(&client.ok(&cmd!["INFER.INDEXINFO", "docs"]), name));
    eventually("nothing is on its way any more", || info(&mut client, "pending") == 0);
    documents(&mut client, "docs");
    assert_eq!(["chunks", "vectors", "epoch"].map(|name| info(&mut client, name)), [2, 2, 1]);
}
