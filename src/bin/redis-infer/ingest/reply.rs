//! Replies to INFER.INGEST.

use redis::{RedisError, Value};

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

/// What to do after a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file is in the index.
    Done(Counts),
    /// The server is busy: offer the file again later.
    Retry(String),
    /// This file failed.
    Failed(String),
    /// Every file will fail like this one.
    Fatal(String),
}

/// The meaning of a reply.
pub fn outcome(reply: Result<Value, RedisError>) -> Outcome {
    match reply {
        Ok(Value::ServerError(error)) => refusal(error.code(), error.details().unwrap_or_default()),
        Ok(value) => match counts(&value) {
            Some(counts) => Outcome::Done(counts),
            None => Outcome::Failed("the server's reply is not one of INFER.INGEST".into()),
        },
        Err(error) => match error.code() {
            Some(code) => refusal(code, error.detail().unwrap_or_default()),
            None => Outcome::Fatal(format!("the connection failed: {error}")),
        },
    }
}

fn refusal(code: &str, details: &str) -> Outcome {
    let text = format!("{code} {details}");
    match code {
        "QUEUEFULL" | "MODELLOADING" | "LOADING" => Outcome::Retry(text),
        "NOINDEX" | "NOVECTORSETS" | "NOMODEL" | "NOPERM" | "NOAUTH" | "READONLY" | "MISMATCH" | "OOM"
        | "WRONGTYPE" => Outcome::Fatal(text),
        _ if details.starts_with("unknown command") => {
            // The server's own text would go on with the beginning of the file.
            Outcome::Fatal("the server does not know INFER.INGEST; load the redis-infer module into it".into())
        }
        _ => Outcome::Failed(text),
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
        assert_eq!(outcome(Ok(Value::Array(flat))), Outcome::Done(counts));
        assert_eq!(outcome(Ok(Value::Map(map))), Outcome::Done(counts));
    }

    #[test]
    fn a_server_without_the_module_is_told_apart_and_no_text_is_shown() {
        let Outcome::Fatal(why) = refusal("ERR", "unknown command 'INFER.INGEST', with args beginning with: 'secret'")
        else {
            panic!("every file would fail");
        };
        assert!(why.contains("load the redis-infer module") && !why.contains("secret"), "{why}");
        assert!(matches!(refusal("ERR", "text is not valid"), Outcome::Failed(_)));
    }

    #[test]
    fn another_reply_fails_the_file() {
        for value in [Value::Okay, Value::Array(vec![]), Value::Array(vec![name("added"), name("x")])] {
            assert!(matches!(outcome(Ok(value)), Outcome::Failed(_)));
        }
    }
}
