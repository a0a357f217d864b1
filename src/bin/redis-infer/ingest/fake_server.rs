//! A server for tests that speaks just enough RESP2 and answers INFER.INGEST as it is told.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What to answer.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// Chunks added, kept, removed.
    Counts(i64, i64, i64),
    /// An error.
    Error(&'static str),
    /// Nothing: close the connection.
    Close,
}

/// One INFER.INGEST as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ingested {
    pub index: String,
    pub path: String,
    pub text: String,
}

#[derive(Default)]
struct Seen {
    ingested: Mutex<Vec<Ingested>>,
    number: AtomicUsize,
    most_waiting: AtomicUsize,
}

/// Runs until the test process ends.
pub struct FakeServer {
    port: u16,
    seen: Arc<Seen>,
}

impl FakeServer {
    /// A server that answers the n-th INFER.INGEST, over all connections, with `answer(n)`.
    pub fn start(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let answer = Arc::new(answer);
        let shared = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, seen) = (answer.clone(), shared.clone());
                thread::spawn(move || serve(stream.unwrap(), &*answer, &seen));
            }
        });
        Self { port, seen }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// All that arrived, in order.
    pub fn ingested(&self) -> Vec<Ingested> {
        self.seen.ingested.lock().unwrap().clone()
    }

    /// The most commands that one connection had sent without having had an answer.
    pub fn most_waiting(&self) -> usize {
        self.seen.most_waiting.load(Ordering::SeqCst)
    }
}

/// Reads commands until the client pauses, then answers them all: so a window shows as commands waiting.
fn serve(stream: TcpStream, answer: &dyn Fn(usize) -> Answer, seen: &Seen) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    let mut waiting = 0;
    let mut answers = Vec::new();
    while let Some(command) = read_command(&mut reader) {
        if command[0] == "INFER.INGEST" {
            waiting += 1;
            seen.most_waiting.fetch_max(waiting, Ordering::SeqCst);
            let [index, path, text] = [1, 2, 3].map(|at| command[at].clone());
            seen.ingested.lock().unwrap().push(Ingested { index, path, text });
            match answer(seen.number.fetch_add(1, Ordering::SeqCst)) {
                Answer::Counts(added, kept, removed) => answers.extend(
                    format!(
                        "*6\r\n$5\r\nadded\r\n:{added}\r\n$4\r\nkept\r\n:{kept}\r\n$7\r\nremoved\r\n:{removed}\r\n"
                    )
                    .bytes(),
                ),
                Answer::Error(text) => answers.extend(format!("-{text}\r\n").bytes()),
                Answer::Close => {
                    let _ = writer.write_all(&answers);
                    return;
                }
            }
        } else {
            answers.extend(b"+OK\r\n");
        }
        if reader.buffer().is_empty() {
            if writer.write_all(&answers).is_err() {
                return;
            }
            answers.clear();
            waiting = 0;
        }
    }
}

fn read_command(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let count = read_number(reader, '*')?;
    (0..count)
        .map(|_| {
            let length = read_number(reader, '$')?;
            let mut bytes = vec![0; length + 2];
            reader.read_exact(&mut bytes).ok()?;
            bytes.truncate(length);
            String::from_utf8(bytes).ok()
        })
        .collect()
}

fn read_number(reader: &mut impl BufRead, kind: char) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.trim_end().strip_prefix(kind)?.parse().ok()
}
