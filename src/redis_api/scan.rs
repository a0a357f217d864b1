//! Walking over all keys of a database whose names begin in a certain way, some at a time.

use super::keyspace::{Keyspace, Reply};
use super::reply::Failure;

/// Keys that one step looks at, in tens of microseconds.
const COUNT: &[u8] = b"200";

/// How far a walk is. What is there all the time is found, once or more often.
#[derive(Debug)]
pub struct Scan {
    prefix: Vec<u8>,
    pattern: Vec<u8>,
    /// `None` at the end.
    cursor: Option<Vec<u8>>,
}

impl Scan {
    /// A walk over the keys that begin with `prefix`.
    pub fn new(prefix: &[u8]) -> Self {
        Self::matching(prefix, escape(prefix))
    }

    /// A walk over the keys that contain `part`; what [`Scan::next`] gives are whole names.
    pub fn containing(part: &[u8]) -> Self {
        Self::matching(b"", [b"*", escape(part).as_slice()].concat())
    }

    fn matching(prefix: &[u8], pattern: Vec<u8>) -> Self {
        let pattern = [pattern.as_slice(), b"*"].concat();
        Self { prefix: prefix.to_vec(), pattern, cursor: Some(b"0".to_vec()) }
    }

    /// The next keys, without the prefix; perhaps none.
    ///
    /// # Errors
    /// What Redis says.
    pub fn next(&mut self, keyspace: &Keyspace<'_>) -> Result<Vec<Vec<u8>>, Failure> {
        let unexpected = || Failure::internal("SCAN answered in a form that this module does not know");
        let Some(cursor) = &self.cursor else { return Ok(Vec::new()) };
        // The names alone tell nothing that the caller would be told.
        let reply = keyspace.as_server().read("SCAN", &[cursor, b"MATCH", &self.pattern, b"COUNT", COUNT])?;
        let Reply::Array(parts) = reply else { return Err(unexpected()) };
        let Ok([Reply::Bytes(cursor), Reply::Array(keys)]) = <[Reply; 2]>::try_from(parts) else {
            return Err(unexpected());
        };
        self.cursor = (cursor != b"0").then_some(cursor);
        let rest = |key| match key {
            Reply::Bytes(key) => key.strip_prefix(self.prefix.as_slice()).map(<[u8]>::to_vec),
            _ => None,
        };
        Ok(keys.into_iter().filter_map(rest).collect())
    }

    /// Whether it has been everywhere.
    pub fn is_done(&self) -> bool {
        self.cursor.is_none()
    }
}

/// A glob pattern that only these bytes match.
fn escape(bytes: &[u8]) -> Vec<u8> {
    let escaped = |byte: &u8| {
        let is_special = matches!(byte, b'*' | b'?' | b'[' | b']' | b'^' | b'-' | b'\\');
        is_special.then_some(b'\\').into_iter().chain([*byte])
    };
    bytes.iter().flat_map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_in_a_name_is_a_pattern() {
        assert_eq!(escape(br"doc:{a*b?[c]\-^}:"), br"doc:{a\*b\?\[c\]\\\-\^}:");
    }
}
