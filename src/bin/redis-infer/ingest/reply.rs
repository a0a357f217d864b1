//! Replies to INFER.INGEST.

use std::ops::AddAssign;

use redis::{RedisError, Value};

use crate::failure::Failure;

/// Chunks of a file: what INFER.INGEST answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Chunks that are new or changed.
    pub added: u64,
    /// Chunks that were there already.
    pub kept: u64,
    /// Chunks of an older version that are gone.
    pub removed: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.added += other.added;
        self.kept += other.kept;
        self.removed += other.removed;
    }
}

/// What to do after a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file is in the index.
    Ingested(Counts),
    /// The document, of so many chunks, is not in the index any more.
    Forgotten(u64),
    /// The server is busy: offer the file again later.
    Retry(Failure),
    /// This file failed.
    Failed(Failure),
    /// Every file will fail like this one.
    Fatal(Failure),
}

/// The meaning of a reply.
pub fn outcome(reply: Result<Value, RedisError>) -> Outcome {
    match reply {
        Ok(Value::ServerError(error)) => refusal(error.into()),
        Ok(Value::Int(chunks)) => Outcome::Forgotten(chunks.unsigned_abs()),
        Ok(value) => match counts(&value) {
            Some(counts) => Outcome::Ingested(counts),
            None => Outcome::Failed(Failure::new("the server's reply is not one of INFER.INGEST")),
        },
        Err(error) => refusal(error.into()),
    }
}

fn refusal(failure: Failure) -> Outcome {
    match failure.code() {
        "QUEUEFULL" | "WORKERFAIL" | "MODELLOADING" | "LOADING" => Outcome::Retry(failure),
        "NOINDEX" | "NOVECTORSETS" | "NOMODEL" | "NOPERM" | "NOAUTH" | "READONLY" | "MISMATCH" | "OOM"
        | "WRONGTYPE" => Outcome::Fatal(failure),
        _ if failure.is_connection() || failure.is_unknown_command() => Outcome::Fatal(failure),
        _ => Outcome::Failed(failure),
    }
}

/// A map in RESP3, names and numbers in turn in RESP2.
fn counts(value: &Value) -> Option<Counts> {
    let mut counts = Counts::default();
    let mut seen = 0;
    for (name, number) in value.as_map_iter()? {
        let number = match number {
            Value::Int(number) => u64::try_from(*number).ok()?,
            _ => return None,
        };
        let name = match name {
            Value::BulkString(name) => name.as_slice(),
            Value::SimpleString(name) => name.as_bytes(),
            _ => return None,
        };
        let field = match name {
            b"added" => &mut counts.added,
            b"kept" => &mut counts.kept,
            b"removed" => &mut counts.removed,
            _ => continue, // a newer module may tell more
        };
        *field = number;
        seen += 1;
    }
    (seen == 3).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn a_flat_array_and_a_map_mean_the_same() {
        let pairs = [("added", 3), ("kept", 2), ("removed", 1), ("new-field", 9)];
        let flat = pairs.iter().flat_map(|(key, n)| [name(key), Value::Int(*n)]).collect();
        let map = pairs.iter().map(|(key, n)| (name(key), Value::Int(*n))).collect();
        let counts = Counts { added: 3, kept: 2, removed: 1 };
        assert_eq!(outcome(Ok(Value::Array(flat))), Outcome::Ingested(counts));
        assert_eq!(outcome(Ok(Value::Map(map))), Outcome::Ingested(counts));
    }

    #[test]
    fn what_would_happen_to_every_file_ends_the_ingestion() {
        let of = |code: &str, details: &str| refusal(Failure::refused(code, details));
        assert!(matches!(of("NOINDEX", "no index"), Outcome::Fatal(_)));
        assert!(matches!(of("ERR", "unknown command 'INFER.INGEST'"), Outcome::Fatal(_)));
        assert!(matches!(refusal(Failure::connection("lost")), Outcome::Fatal(_)));
        assert!(matches!(of("ERR", "text is not valid"), Outcome::Failed(_)));
        assert!(matches!(of("QUEUEFULL", "full"), Outcome::Retry(_)));
        assert!(matches!(of("WORKERFAIL", "again"), Outcome::Retry(_)));
    }

    #[test]
    fn another_reply_fails_the_file() {
        for value in [Value::Okay, Value::Array(vec![]), Value::Array(vec![name("added"), name("x")])] {
            assert!(matches!(outcome(Ok(value)), Outcome::Failed(_)));
        }
    }
}
