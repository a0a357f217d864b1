//! kill -9 while documents are written: what comes back is whole.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{CHAT, Client, EMBED, Server, cmd, documents, paragraph_index};

const WRITERS: usize = 3;

/// Number of the newest version that a writer has sent, and of the newest that was acknowledged.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    sent: usize,
    acknowledged: usize,
}

fn index(client: &mut Client) {
    client.ok(&paragraph_index("docs"));
}

/// The chunks of a writer's document. Later versions are longer or shorter, and share chunks with earlier ones.
fn version(writer: usize, number: usize) -> Vec<String> {
    let length = 1 + number * 7 % 40;
    (0..length)
        .map(|chunk| format!("the cat {writer} and {chunk} of {}", if chunk % 3 == 0 { 0 } else { number }))
        .collect()
}

/// Replaces one document per writer again and again, until the server is killed after so many answers.
fn write_until_killed(server: &mut Server, begin: [Written; WRITERS], answers: usize) -> [Written; WRITERS] {
    let written = Mutex::new(begin);
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (written, answered) = (&written, &answered);
            let mut client = server.client();
            scope.spawn(move || {
                loop {
                    let number = {
                        let mut written = written.lock().unwrap();
                        written[writer].sent += 1;
                        written[writer].sent
                    };
                    let path = format!("{writer}.txt");
                    let text = version(writer, number).join("\n\n");
                    if client.call(&cmd!["INFER.INGEST", "docs", path, text]).is_err() {
                        break;
                    }
                    written.lock().unwrap()[writer].acknowledged = number;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        crate::harness::eventually("documents are written", || answered.load(Ordering::Relaxed) >= answers);
        server.kill();
    });
    written.into_inner().unwrap()
}

/// Kills the server in the middle of its work several times; `keeps` says whether an answer means that the write is on disk.
fn crash_again_and_again(fsync: &str) {
    let mut server = Server::configured(&[CHAT, EMBED], &["--appendonly", "yes", "--appendfsync", fsync]);
    index(&mut server.client());
    let mut written = [Written::default(); WRITERS];
    for round in 0..4 {
        written = write_until_killed(&mut server, written, 5 + round * 3);
        server.start_again();
        let mut client = server.client();
        client.ok(&CHAT.load());
        client.ok(&EMBED.load());
        let stored = documents(&mut client, "docs");
        for (writer, written) in written.iter().enumerate() {
            let path = format!("{writer}.txt");
            let chunks = stored.get(&path).cloned().unwrap_or_default();
            // The process died, not the machine: what was answered is there under any setting.
            let possible = (written.acknowledged..=written.sent)
                .map(|number| if number == 0 { Vec::new() } else { version(writer, number) });
            assert!(possible.into_iter().any(|version| version == chunks), "{fsync}: {written:?}: {chunks:?}");
        }
        // The next writes take over what the crash has left.
        if round % 2 == 1 {
            for (writer, written) in written.iter_mut().enumerate() {
                written.sent += 1;
                client.ok(&cmd![
                    "INFER.INGEST",
                    "docs",
                    format!("{writer}.txt"),
                    version(writer, written.sent).join("\n\n")
                ]);
                written.acknowledged = written.sent;
                let stored = documents(&mut client, "docs");
                assert_eq!(stored[&format!("{writer}.txt")], version(writer, written.sent));
            }
        }
    }
    let mut client = server.client();
    for writer in 0..WRITERS {
        client.ok(&cmd!["INFER.FORGET", "docs", format!("{writer}.txt")]);
    }
    assert_eq!(documents(&mut client, "docs").len(), 0);
    // Nothing but what INDEX makes, and counters, is left of an index without documents.
    let left = crate::harness::keys_of(&mut client, "docs");
    assert!(left.iter().all(|key| key.starts_with("stats:")), "{left:?}");
}

#[test]
fn a_crash_between_writes_that_are_synced_each_leaves_whole_documents() {
    crash_again_and_again("always");
}

#[test]
fn a_crash_between_writes_that_are_synced_every_second_leaves_whole_documents() {
    crash_again_and_again("everysec");
}
