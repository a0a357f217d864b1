//! A server for tests that speaks just enough RESP and answers as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The generation of the index `code`.
const GENERATION: u32 = 3;

/// What to answer.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// Chunks added, kept, removed.
    Counts(i64, i64, i64),
    /// An error.
    Error(&'static str),
    /// Nothing: close the connection.
    Close,
    /// Nothing: leave the client waiting.
    Never,
}

/// One INFER.INGEST as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ingested {
    pub index: String,
    pub path: String,
    pub text: String,
    /// What stood behind the text.
    pub options: Vec<String>,
}

#[derive(Default)]
struct Seen {
    ingested: Mutex<Vec<Ingested>>,
    forgotten: Mutex<Vec<String>>,
    /// What SSCAN finds in the set of paths.
    paths: Vec<String>,
    number: AtomicUsize,
    most_waiting: AtomicUsize,
}

/// Runs until the test process ends.
pub struct FakeServer {
    url: String,
    seen: Arc<Seen>,
}

impl FakeServer {
    /// A server that answers the n-th INFER.INGEST, over all connections, with `answer(n)`.
    pub fn start(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::with_documents(&[], answer)
    }

    /// As [`FakeServer::start`], with an index that has documents under these paths.
    pub fn with_documents(paths: &[&str], answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        let paths = paths.iter().map(|&path| path.to_owned()).collect();
        let seen = Arc::new(Seen { paths, ..Seen::default() });
        let shared = seen.clone();
        let port = listen(move |stream| serve(stream, &answer, &shared));
        Self { url: format!("redis://127.0.0.1:{port}"), seen }
    }

    /// A server that speaks TLS, and the PEM certificate by which it can be trusted.
    pub fn with_tls() -> (Self, String) {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let config = ServerConfig::builder().with_no_client_auth();
        let config = Arc::new(config.with_single_cert(vec![signed.cert.der().clone()], key.into()).unwrap());
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let port = listen(move |stream| {
            let session = ServerConnection::new(config.clone()).unwrap();
            serve(StreamOwned::new(session, stream), &|_| Answer::Close, &shared);
        });
        (Self { url: format!("rediss://localhost:{port}"), seen }, signed.cert.pem())
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// All that arrived, in order.
    pub fn ingested(&self) -> Vec<Ingested> {
        self.seen.ingested.lock().unwrap().clone()
    }

    /// The paths of all INFER.FORGET, in order.
    pub fn forgotten(&self) -> Vec<String> {
        self.seen.forgotten.lock().unwrap().clone()
    }

    /// The most commands that one connection had sent without having had an answer.
    pub fn most_waiting(&self) -> usize {
        self.seen.most_waiting.load(Ordering::SeqCst)
    }
}

/// Has each connection served by a thread; the port.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    port
}

/// Reads commands until the client pauses, then answers them all: so a window shows as commands waiting.
fn serve(stream: impl Read + Write, answer: &dyn Fn(usize) -> Answer, seen: &Seen) {
    let mut stream = BufReader::new(stream);
    let mut waiting = 0;
    let mut answers = Vec::new();
    while let Some(command) = read_command(&mut stream) {
        match command[0].as_str() {
            "INFER.INGEST" => {
                waiting += 1;
                seen.most_waiting.fetch_max(waiting, Ordering::SeqCst);
                let [index, path, text] = [1, 2, 3].map(|at| command[at].clone());
                seen.ingested.lock().unwrap().push(Ingested { index, path, text, options: command[4..].to_vec() });
                match answer(seen.number.fetch_add(1, Ordering::SeqCst)) {
                    Answer::Counts(added, kept, removed) => answers.extend(
                        format!("%3\r\n+added\r\n:{added}\r\n+kept\r\n:{kept}\r\n+removed\r\n:{removed}\r\n").bytes(),
                    ),
                    Answer::Error(text) => answers.extend(format!("-{text}\r\n").bytes()),
                    Answer::Close => {
                        let _ = stream.get_mut().write_all(&answers);
                        return;
                    }
                    Answer::Never => {}
                }
            }
            "INFER.FORGET" => {
                seen.forgotten.lock().unwrap().push(command[2].clone());
                answers.extend(b":1\r\n");
            }
            "HGET" => answers.extend(format!("+{GENERATION}\r\n").bytes()),
            "SSCAN" if command[1] != format!("paths:{{code}}@{GENERATION}") => answers.extend(page(&[], "0").bytes()),
            "SSCAN" => answers.extend(page(&seen.paths, &command[2]).bytes()),
            _ => answers.extend(b"+OK\r\n"),
        }
        if stream.buffer().is_empty() {
            if stream.get_mut().write_all(&answers).is_err() {
                return;
            }
            answers.clear();
            waiting = 0;
        }
    }
}

/// Pages of two paths each; the cursor is where the next one begins.
fn page(paths: &[String], cursor: &str) -> String {
    let start: usize = cursor.parse().unwrap();
    let end = (start + 2).min(paths.len());
    let next = if end == paths.len() { 0 } else { end };
    let paths: String = paths[start..end].iter().map(|path| format!("${}\r\n{path}\r\n", path.len())).collect();
    format!("*2\r\n+{next}\r\n*{}\r\n{paths}", end - start)
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
