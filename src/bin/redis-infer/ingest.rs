//! `redis-infer ingest <dir>… --index NAME`: sends the text files below directories to an index.
//!
//! The server blocks a client while it works on one INFER.INGEST, so a pipeline is handled one command after
//! the other; several connections keep several files in work. The number of commands on their way is bounded,
//! and so is the memory: each holds one file.

mod reply;
mod report;
mod sender;
mod text;
mod walk;

#[cfg(test)]
mod fake_server;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::Args;

use report::Report;
use sender::{Plan, Sender};

/// How long to wait for the server to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one file is offered to a server whose queue is full.
const PATIENCE: Duration = Duration::from_secs(120);
/// Files above this size are skipped unless told otherwise: the server takes no larger document.
const LARGEST_FILE: u64 = 1 << 20;

/// Arguments of `redis-infer ingest`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Directories (or single files) to ingest. Hidden files and what .gitignore names are left out.
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Index to fill; create it with INFER.INDEX first.
    #[arg(long)]
    index: String,
    /// Redis server, as `redis://user:password@host:port/database` with user and database optional.
    #[arg(long, default_value = "redis://127.0.0.1:6379")]
    url: String,
    /// Commands on their way at any time, over all connections.
    #[arg(long, default_value = "16")]
    window: NonZeroUsize,
    /// Connections; each has its share of the window.
    #[arg(long, default_value = "2")]
    connections: NonZeroUsize,
    /// Skip files larger than this many bytes.
    #[arg(long, default_value_t = LARGEST_FILE)]
    max_file_size: u64,
}

/// Ingests and prints a summary.
///
/// # Errors
/// When the server cannot be reached, or any file failed; each has been printed with its path by then.
pub fn run(arguments: &Arguments) -> Result<()> {
    let report = ingest(arguments, PATIENCE)?;
    println!("{}", report.summary());
    match report.unfinished() {
        0 => Ok(()),
        count => bail!("{count} files were not ingested; run the same command again, unchanged files are kept"),
    }
}

fn ingest(arguments: &Arguments, patience: Duration) -> Result<Report> {
    let client = redis::Client::open(arguments.url.as_str())
        .map_err(|error| anyhow!("--url is not a Redis URL ({error}); give redis://host:port"))?;
    let found = walk::walk(&arguments.dirs)?;
    let plan = Plan {
        index: arguments.index.clone(),
        window: arguments.window.get().div_ceil(arguments.connections.get()),
        max_file_size: arguments.max_file_size,
        patience,
    };
    // More connections than files would only idle.
    let connections = arguments.connections.get().min(found.files.len());
    let connections = (0..connections)
        .map(|_| client.get_connection_with_timeout(CONNECT_TIMEOUT))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| anyhow!("cannot connect to Redis ({error}); check --url and that the server runs"))?;

    let mut report = Report::new(&found);
    let queue = Mutex::new(found.files.into_iter());
    let stop = AtomicBool::new(false);
    let (events, received) = mpsc::channel();
    thread::scope(|scope| {
        for connection in connections {
            let sender = Sender::new(connection, &plan, &queue, &stop, events.clone());
            scope.spawn(move || sender.run());
        }
        drop(events);
        // Ends when the last sender has dropped its end.
        for event in received {
            report.record(event);
        }
    });
    report.finish();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::fake_server::{Answer, FakeServer};
    use std::fs;
    use tempfile::TempDir;

    /// A directory `docs` with these files.
    fn tree(files: &[(&str, &[u8])]) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let docs = folder.path().join("docs");
        for (name, content) in files {
            let path = docs.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        (folder, docs)
    }

    fn arguments(docs: PathBuf, server: &FakeServer) -> Arguments {
        Arguments {
            dirs: vec![docs],
            index: "code".into(),
            url: server.url(),
            window: NonZeroUsize::new(4).unwrap(),
            connections: NonZeroUsize::new(2).unwrap(),
            max_file_size: 1000,
        }
    }

    #[test]
    fn every_text_file_is_sent_once_and_the_others_are_counted_by_reason() {
        let many: Vec<_> = (0..30).map(|n| (format!("deep/{n}.txt"), format!("text {n}"))).collect();
        let mut files: Vec<(&str, &[u8])> = many.iter().map(|(n, t)| (n.as_str(), t.as_bytes())).collect();
        files.push(("binary", b"a\0b"));
        files.push(("empty", b" \n"));
        files.push(("latin1", b"caf\xe9"));
        let large = [b'x'; 1001];
        files.push(("large", &large));
        let (_folder, docs) = tree(&files);
        let server = FakeServer::start(|_| Answer::Counts(2, 1, 0));
        let report = ingest(&arguments(docs.clone(), &server), PATIENCE).unwrap();

        let mut sent = server.ingested();
        sent.sort();
        sent.dedup();
        assert_eq!(sent.len(), 30);
        let path = docs.join("deep/7.txt").to_str().unwrap().trim_start_matches('/').to_owned();
        assert!(sent.iter().any(|s| s.index == "code" && path.ends_with(&s.path) && s.text == "text 7"));
        let summary = report.summary();
        assert!(summary.starts_with("ingested 30 files"), "{summary}");
        assert!(summary.contains("60 added, 30 kept, 0 removed"), "{summary}");
        for reason in ["1 binary", "1 empty", "1 not UTF-8", "1 too large"] {
            assert!(summary.contains(reason), "{reason}: {summary}");
        }
        assert_eq!(report.unfinished(), 0);
    }

    #[test]
    fn no_more_commands_are_on_their_way_than_the_window_allows() {
        let many: Vec<_> = (0..40).map(|n| format!("{n}.txt")).collect();
        let files: Vec<(&str, &[u8])> = many.iter().map(|n| (n.as_str(), &b"text"[..])).collect();
        let (_folder, docs) = tree(&files);
        let server = FakeServer::start(|_| Answer::Counts(1, 0, 0));
        ingest(&arguments(docs, &server), PATIENCE).unwrap();
        assert_eq!(server.ingested().len(), 40);
        assert!(server.most_waiting() <= 2, "4 over 2 connections: {}", server.most_waiting());
    }

    #[test]
    fn a_full_queue_is_tried_again() {
        let (_folder, docs) = tree(&[("a.txt", b"one"), ("b.txt", b"two")]);
        let server = FakeServer::start(|number| match number {
            0..3 => Answer::Error("QUEUEFULL the queue is full"),
            _ => Answer::Counts(1, 0, 0),
        });
        let report = ingest(&arguments(docs, &server), PATIENCE).unwrap();
        assert_eq!(server.ingested().len(), 5);
        assert_eq!(report.unfinished(), 0);
    }

    #[test]
    fn a_queue_that_stays_full_fails_the_file_in_the_end() {
        let (_folder, docs) = tree(&[("a.txt", b"one")]);
        let server = FakeServer::start(|_| Answer::Error("QUEUEFULL the queue is full"));
        let report = ingest(&arguments(docs, &server), Duration::from_millis(120)).unwrap();
        assert_eq!(report.unfinished(), 1);
        assert!(server.ingested().len() > 1);
    }

    #[test]
    fn a_refused_file_fails_alone() {
        let (_folder, docs) = tree(&[("a.txt", b"one"), ("b.txt", b"two"), ("c.txt", b"three")]);
        let server = FakeServer::start(|number| match number {
            1 => Answer::Error("CTXLIMIT too long"),
            _ => Answer::Counts(1, 0, 0),
        });
        let report = ingest(&arguments(docs, &server), PATIENCE).unwrap();
        assert_eq!(report.unfinished(), 1);
        assert!(report.summary().starts_with("ingested 2 files"), "{}", report.summary());
    }

    #[test]
    fn an_index_that_does_not_exist_stops_everything() {
        let many: Vec<_> = (0..40).map(|n| format!("{n}.txt")).collect();
        let files: Vec<(&str, &[u8])> = many.iter().map(|n| (n.as_str(), &b"text"[..])).collect();
        let (_folder, docs) = tree(&files);
        let server = FakeServer::start(|_| Answer::Error("NOINDEX there is no such index"));
        let report = ingest(&arguments(docs, &server), PATIENCE).unwrap();
        assert_eq!(report.unfinished(), 40);
        assert!(server.ingested().len() <= 4, "{}", server.ingested().len());
    }

    #[test]
    fn a_lost_connection_ends_the_ingestion_and_loses_no_count() {
        let (_folder, docs) = tree(&[("a.txt", b"one"), ("b.txt", b"two"), ("c.txt", b"three")]);
        let server = FakeServer::start(|number| match number {
            0 => Answer::Counts(1, 0, 0),
            _ => Answer::Close,
        });
        let report = ingest(&arguments(docs, &server), PATIENCE).unwrap();
        assert_eq!(report.unfinished(), 2);
    }

    #[test]
    fn a_server_that_does_not_answer_is_named() {
        let (_folder, docs) = tree(&[("a.txt", b"one")]);
        let server = FakeServer::start(|_| Answer::Close);
        let mut arguments = arguments(docs, &server);
        arguments.url = "redis://127.0.0.1:1".into();
        let error = format!("{:#}", ingest(&arguments, PATIENCE).unwrap_err());
        assert!(error.contains("check --url"), "{error}");
    }
}
