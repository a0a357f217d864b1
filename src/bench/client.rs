//! The server under measurement, as its clients see it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use redis::{Connection, FromRedisValue, Pipeline};

/// Connections that ingest at once: more than the workers of a small machine, so that none waits for work.
const SENDERS: usize = 4;

/// Commands sent before the first of their replies is read.
const WINDOW: usize = 500;

/// A text on its way into an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its path in the index.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// What an ingest was.
#[derive(Debug, Clone, Copy)]
pub struct Ingested {
    /// Chunks that were written.
    pub added: u64,
    /// Chunks that were there already.
    pub kept: u64,
    /// From the first command to the last reply.
    pub time: Duration,
}

/// Connects to the server at `url`.
pub fn connect(url: &str) -> Result<Connection> {
    let client = redis::Client::open(url).context("the URL of the server is not right")?;
    client.get_connection().context("cannot connect to the server")
}

/// Puts `documents` into `index`, over several connections.
pub fn ingest(url: &str, index: &str, documents: &[Document]) -> Result<Ingested> {
    let start = Instant::now();
    let rest = Mutex::new(documents.iter());
    let send = || -> Result<[u64; 2]> {
        let mut connection = connect(url)?;
        let mut sum = [0, 0];
        loop {
            // A poisoned lock guards a sound iterator all the same.
            let next = rest.lock().unwrap_or_else(|e| e.into_inner()).next();
            let Some(document) = next else { return Ok(sum) };
            let mut command = redis::cmd("INFER.INGEST");
            command.arg(index).arg(&document.path).arg(&document.text);
            let counts: HashMap<String, u64> =
                command.query(&mut connection).with_context(|| format!("ingesting {}", document.path))?;
            for (sum, name) in sum.iter_mut().zip(["added", "kept"]) {
                *sum += counts.get(name).with_context(|| format!("a reply to INFER.INGEST has no '{name}'"))?;
            }
        }
    };
    let counts = thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS).map(|_| scope.spawn(send)).collect();
        let joined = senders.into_iter().map(|sender| sender.join().map_err(|_| anyhow!("a sender panicked"))?);
        joined.collect::<Result<Vec<_>>>()
    })?;
    let [added, kept] = [0, 1].map(|at| counts.iter().map(|sum| sum[at]).sum());
    Ok(Ingested { added, kept, time: start.elapsed() })
}

/// The replies to `commands`, which are sent without waiting for each other.
pub fn pipelined<T: FromRedisValue>(
    connection: &mut Connection,
    commands: impl IntoIterator<Item = redis::Cmd>,
) -> Result<Vec<T>> {
    let mut replies = Vec::new();
    let mut commands = commands.into_iter().peekable();
    while commands.peek().is_some() {
        let mut pipeline = Pipeline::new();
        for command in commands.by_ref().take(WINDOW) {
            pipeline.add_command(command);
        }
        replies.extend(pipeline.query::<Vec<T>>(connection)?);
    }
    Ok(replies)
}
