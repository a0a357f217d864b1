//! Ingestions against a server that answers as it is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use tempfile::TempDir;

use super::interrupt::Interrupt;
use super::report::Totals;
use super::{Arguments, Ingestion, PATIENCE, watch};
use crate::failure::Failure;
use crate::fake_server::{Answer, FakeServer};

/// The subcommand alone.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

/// A directory `docs` with these files.
fn tree(files: &[(&str, &[u8])]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let docs = folder.path().join("docs");
    for (name, content) in files {
        write(&docs.join(name), content);
    }
    (folder, docs)
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// `count` files of one word each.
fn many(count: usize) -> (TempDir, PathBuf) {
    let names: Vec<_> = (0..count).map(|n| format!("{n}.txt")).collect();
    tree(&names.iter().map(|n| (n.as_str(), &b"text"[..])).collect::<Vec<_>>())
}

fn arguments(docs: &Path, url: &str, options: &[&str]) -> Arguments {
    let line = ["ingest", docs.to_str().unwrap(), "--index", "code", "--url", url, "--window", "4"];
    Line::try_parse_from(line.iter().chain(options)).unwrap().arguments
}

fn ingest_for(docs: &Path, server: &FakeServer, options: &[&str], patience: Duration) -> (Totals, Result<(), Failure>) {
    let arguments = arguments(docs, &server.url(), options);
    Ingestion::new(&arguments, patience).unwrap().once(&Interrupt::default())
}

fn ingest(docs: &Path, server: &FakeServer, options: &[&str]) -> (Totals, Result<(), Failure>) {
    ingest_for(docs, server, options, PATIENCE)
}

#[test]
fn every_text_file_is_sent_once_and_the_others_are_counted_by_reason() {
    let many: Vec<_> = (0..30).map(|n| (format!("deep/{n}.txt"), format!("text {n}"))).collect();
    let mut files: Vec<(&str, &[u8])> = many.iter().map(|(n, t)| (n.as_str(), t.as_bytes())).collect();
    let large = [b'x'; 1001];
    files.extend([("binary", &b"a\0b"[..]), ("empty", b" \n"), ("latin1", b"caf\xe9"), ("large", &large)]);
    let (_folder, docs) = tree(&files);
    let server = FakeServer::start(|_| Answer::Counts(2, 1, 0));
    let (totals, result) = ingest(&docs, &server, &["--max-file-size", "1000"]);

    assert_eq!((result, totals.unfinished()), (Ok(()), 0));
    let mut sent = server.ingested();
    sent.sort();
    sent.dedup();
    assert_eq!(sent.len(), 30);
    assert!(sent.iter().any(|s| s.index == "code" && s.path == "docs/deep/7.txt" && s.text == "text 7"), "{sent:?}");
    let table = totals.table();
    assert!(table.starts_with("files    30 ingested, 0 forgotten\n"), "{table}");
    assert!(table.contains("skipped  1 binary, 1 empty, 1 not UTF-8, 1 too large\n"), "{table}");
    assert!(table.contains("chunks   60 added, 30 kept, 0 removed\nsize     200 B in "), "{table}");
    let json = totals.json();
    assert_eq!((&json["files"]["ingested"], &json["skipped"]["binary"]), (&30.into(), &1.into()));
}

#[test]
fn no_more_commands_are_on_their_way_than_the_window_allows() {
    let (_folder, docs) = many(40);
    let server = FakeServer::start(|_| Answer::Counts(1, 0, 0));
    ingest(&docs, &server, &[]).1.unwrap();
    assert_eq!(server.ingested().len(), 40);
    assert!(server.most_waiting() <= 2, "4 over 2 connections: {}", server.most_waiting());
}

#[test]
fn a_full_queue_is_tried_again() {
    let (_folder, docs) = many(2);
    let server = FakeServer::start(|number| match number {
        0..3 => Answer::Error("QUEUEFULL the queue is full"),
        _ => Answer::Counts(1, 0, 0),
    });
    let (totals, result) = ingest(&docs, &server, &[]);
    assert_eq!((result, totals.unfinished(), server.ingested().len()), (Ok(()), 0, 5));
}

#[test]
fn a_queue_that_stays_full_fails_the_file_in_the_end() {
    let (_folder, docs) = many(1);
    let server = FakeServer::start(|_| Answer::Error("QUEUEFULL the queue is full"));
    let (totals, result) = ingest_for(&docs, &server, &[], Duration::from_millis(120));
    assert_eq!((result, totals.unfinished()), (Ok(()), 1));
    assert!(totals.needs_another_round(), "the file is as good as any");
    assert!(server.ingested().len() > 1);
}

#[test]
fn a_refused_file_fails_alone() {
    let (_folder, docs) = many(3);
    let server = FakeServer::start(|number| match number {
        1 => Answer::Error("CTXLIMIT too long"),
        _ => Answer::Counts(1, 0, 0),
    });
    let (totals, result) = ingest(&docs, &server, &[]);
    assert_eq!((result, totals.unfinished()), (Ok(()), 1));
    assert!(totals.table().starts_with("files    2 ingested, 0 forgotten, 1 failed\n"), "{}", totals.table());
    assert_eq!(totals.json()["failures"][0]["error"], "CTXLIMIT too long");
    assert!(!totals.needs_another_round(), "the server will not take it as it is");
}

#[test]
fn an_index_that_does_not_exist_stops_everything() {
    let (_folder, docs) = many(40);
    let server = FakeServer::start(|_| Answer::Error("NOINDEX there is no such index"));
    let (totals, result) = ingest(&docs, &server, &[]);
    assert_eq!(result, Err(Failure::refused("NOINDEX", "there is no such index")));
    assert_eq!(totals.unfinished(), 40);
    assert!(server.ingested().len() <= 4, "{}", server.ingested().len());
}

#[test]
fn a_lost_connection_ends_the_ingestion_and_loses_no_count() {
    let (_folder, docs) = many(3);
    let server = FakeServer::start(|number| match number {
        0 => Answer::Counts(1, 0, 0),
        _ => Answer::Close,
    });
    let (totals, result) = ingest(&docs, &server, &[]);
    assert!(result.unwrap_err().is_connection());
    assert_eq!(totals.unfinished(), 2);
}

#[test]
fn ctrl_c_ends_at_once_with_what_was_done_so_far() {
    let (_folder, docs) = many(30);
    let server = FakeServer::start(|number| match number {
        0..10 => Answer::Counts(1, 0, 0),
        _ => Answer::Never,
    });
    let arguments = arguments(&docs, &server.url(), &[]);
    let ingestion = Ingestion::new(&arguments, PATIENCE).unwrap();
    let interrupt = Interrupt::default();
    let (totals, result) = thread::scope(|scope| {
        let running = scope.spawn(|| ingestion.once(&interrupt));
        // So many only when ten were answered and as many are on their way as may be.
        eventually("ten files and no more", || server.ingested().len() == 14);
        interrupt.set();
        running.join().unwrap()
    });
    assert_eq!(result, Ok(()));
    assert!(totals.table().starts_with("files    10 ingested, 0 forgotten, 20 not finished\n"), "{}", totals.table());
}

#[test]
fn attributes_go_with_every_file() {
    let (_folder, docs) = many(2);
    let server = FakeServer::start(|_| Answer::Counts(1, 0, 0));
    ingest(&docs, &server, &["--attrs", r#"{"year": 2026}"#]).1.unwrap();
    let sent = server.ingested();
    assert!(sent.len() == 2 && sent.iter().all(|s| s.options == ["ATTRS", r#"{"year": 2026}"#]), "{sent:?}");
    for wrong in ["[1]", "{"] {
        let line = ["ingest", "docs", "--index", "code", "--attrs", wrong];
        assert!(Line::try_parse_from(line).err().unwrap().to_string().contains("JSON"), "{wrong}");
    }
}

#[test]
fn delete_forgets_documents_whose_files_are_gone_or_no_text_any_more() {
    let (_folder, docs) = tree(&[("a", b"text"), ("emptied", b""), ("new-and-empty", b"")]);
    let paths = ["docs/a", "docs/gone", "other/gone", "docs/emptied", "docs/sub/gone"];
    let server = FakeServer::with_documents(&paths, |_| Answer::Counts(1, 0, 0));
    let (totals, result) = ingest(&docs, &server, &["--delete"]);
    assert_eq!((result, totals.unfinished()), (Ok(()), 0));
    let mut forgotten = server.forgotten();
    forgotten.sort();
    assert_eq!(forgotten, ["docs/emptied", "docs/gone", "docs/sub/gone"]);
    assert!(totals.table().starts_with("files    1 ingested, 3 forgotten\nskipped  2 empty\n"), "{}", totals.table());
}

#[test]
fn nothing_is_forgotten_unless_told() {
    let (_folder, docs) = tree(&[("a", b"text"), ("emptied", b"")]);
    let server = FakeServer::with_documents(&["docs/gone", "docs/emptied"], |_| Answer::Counts(1, 0, 0));
    ingest(&docs, &server, &[]).1.unwrap();
    assert_eq!(server.forgotten(), [""; 0]);
}

#[test]
fn a_dry_run_changes_nothing() {
    let (_folder, docs) = tree(&[("a", b"text"), ("emptied", b""), ("tab\t", b"text")]);
    let server = FakeServer::with_documents(&["docs/gone", "docs/emptied"], |_| Answer::Counts(1, 0, 0));
    let arguments = arguments(&docs, &server.url(), &["--delete", "--dry-run"]);
    let would = Ingestion::new(&arguments, PATIENCE).unwrap().planned().unwrap();
    let expected = format!(
        "ingest docs/a\nforget docs/emptied\nforget docs/gone\nskip   docs/emptied (empty)\n\
         skip   {}/tab  (control characters in the path)\n\
         would ingest 1 files of 4 B, forget 2, skip 2; nothing was changed",
        docs.display()
    );
    assert_eq!(would.lines(), expected);
    assert_eq!((server.ingested().len(), server.forgotten().len()), (0, 0));
}

#[test]
fn a_server_that_does_not_answer_is_named() {
    let (_folder, docs) = many(1);
    let arguments = arguments(&docs, "redis://127.0.0.1:1", &[]);
    let (_, result) = Ingestion::new(&arguments, PATIENCE).unwrap().once(&Interrupt::default());
    let failure = result.unwrap_err();
    assert!(failure.is_connection() && failure.to_string().contains("127.0.0.1:1"), "{failure}");
}

/// Watches `docs` until the end of `change`.
fn watching(docs: &Path, server: &FakeServer, options: &[&str], change: impl FnOnce()) -> Totals {
    let options: Vec<&str> = options.iter().chain(&["--watch", "--json"]).copied().collect();
    let arguments = arguments(docs, &server.url(), &options);
    let ingestion = Ingestion::new(&arguments, PATIENCE).unwrap();
    let interrupt = Interrupt::default();
    thread::scope(|scope| {
        let running = scope.spawn(|| watch::run(&ingestion, &interrupt));
        let ended = OnDrop(|| interrupt.set());
        change();
        drop(ended);
        let (totals, result) = running.join().unwrap();
        result.unwrap();
        totals
    })
}

/// Does something also when a test fails.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// How often the server was sent this text.
fn arrivals(server: &FakeServer, text: &str) -> usize {
    server.ingested().iter().filter(|sent| sent.text == text).count()
}

#[test]
fn changes_are_ingested_and_vanished_files_forgotten_while_watching() {
    let (folder, docs) = tree(&[("a", b"one"), ("b", b"two"), (".gitignore", b"out/\n")]);
    let server = FakeServer::start(|_| Answer::Counts(1, 0, 0));
    let totals = watching(&docs, &server, &[], || {
        eventually("all are ingested at first", || server.ingested().len() == 2);
        write(&docs.join("a"), b"changed");
        eventually("a changed file", || arrivals(&server, "changed") == 1);
        write(&docs.join("new/deep/c"), b"three");
        eventually("a file in a new directory", || arrivals(&server, "three") == 1);
        write(&docs.join("new/deep/d"), b"four");
        eventually("a further file there", || arrivals(&server, "four") == 1);
        fs::remove_file(docs.join("b")).unwrap();
        eventually("a removed file", || server.forgotten() == ["docs/b"]);
        fs::rename(docs.join("new"), folder.path().join("elsewhere")).unwrap();
        eventually("a directory that was moved away", || server.forgotten().len() == 3);
        write(&docs.join("out/x"), b"ignored");
        write(&docs.join("a"), b"last");
        eventually("the last change", || arrivals(&server, "last") == 1);
    });
    assert_eq!((arrivals(&server, "two"), arrivals(&server, "ignored")), (1, 0), "only what changed is sent");
    assert_eq!(totals.unfinished(), 0);
    assert_eq!((&totals.json()["files"]["ingested"], &totals.json()["files"]["forgotten"]), (&6.into(), &3.into()));
}

#[test]
fn a_server_that_went_away_gets_the_changes_when_it_is_back() {
    let (_folder, docs) = tree(&[("a", b"one")]);
    let server = FakeServer::start(|number| match number {
        1 | 2 => Answer::Close,
        _ => Answer::Counts(1, 0, 0),
    });
    let totals = watching(&docs, &server, &[], || {
        eventually("the first round", || arrivals(&server, "one") == 1);
        write(&docs.join("a"), b"changed");
        eventually("it is tried again", || arrivals(&server, "changed") == 3);
        write(&docs.join("a"), b"end");
        eventually("life goes on", || arrivals(&server, "end") == 1);
    });
    assert_eq!(totals.unfinished(), 0);
}

#[test]
fn a_file_that_the_server_refuses_is_sent_again_only_when_it_changes() {
    let (_folder, docs) = tree(&[("bad", b"one")]);
    let server = FakeServer::start(|number| match number {
        0 => Answer::Error("ERR too many chunks"),
        _ => Answer::Counts(1, 0, 0),
    });
    let totals = watching(&docs, &server, &[], || {
        eventually("the first round", || arrivals(&server, "one") == 1);
        write(&docs.join("other"), b"two");
        eventually("another file", || arrivals(&server, "two") == 1);
    });
    assert_eq!(arrivals(&server, "one"), 1);
    assert_eq!(totals.unfinished(), 1, "it is still not in the index");
}

#[test]
fn an_emptied_file_is_forgotten_while_watching() {
    let (_folder, docs) = tree(&[("a", b"one")]);
    let server = FakeServer::start(|_| Answer::Counts(1, 0, 0));
    watching(&docs, &server, &[], || {
        eventually("the first round", || arrivals(&server, "one") == 1);
        write(&docs.join("a"), b"");
        eventually("the emptied file", || server.forgotten() == ["docs/a"]);
    });
}
