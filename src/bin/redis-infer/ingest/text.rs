//! Reads a file if it is text.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// A NUL byte this near to the start marks a binary file, as in git.
const SNIFFED: usize = 8192;

/// Why a file is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// It has a NUL byte near its start.
    Binary,
    /// It holds nothing but white space.
    Empty,
    /// Its bytes are not UTF-8.
    NotUtf8,
    /// It is larger than the limit.
    TooLarge,
    /// It is a link, a pipe, a device.
    NotRegular,
    /// Its path is not UTF-8.
    PathNotUtf8,
    /// Its path is longer than the server takes.
    PathTooLong,
    /// Its path has control characters, such as a tab.
    PathControl,
    /// It was found and then was there no more.
    Vanished,
}

impl Skip {
    /// The reason for people, after a count.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Empty => "empty",
            Self::NotUtf8 => "not UTF-8",
            Self::TooLarge => "too large",
            Self::NotRegular => "not a regular file",
            Self::PathNotUtf8 => "path not UTF-8",
            Self::PathTooLong => "path too long",
            Self::PathControl => "control characters in the path",
            Self::Vanished => "vanished",
        }
    }
}

/// The text of a file, or why it is left out. No more than `limit` bytes are read.
pub fn read(path: &Path, limit: u64) -> io::Result<Result<String, Skip>> {
    let mut bytes = Vec::new();
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Err(Skip::Vanished)),
        opened => opened?,
    };
    let mut file = file.take(limit.saturating_add(1));
    file.by_ref().take(SNIFFED as u64).read_to_end(&mut bytes)?;
    if bytes.contains(&0) {
        return Ok(Err(Skip::Binary));
    }
    file.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Ok(Err(Skip::TooLarge));
    }
    Ok(match String::from_utf8(bytes) {
        Err(_) => Err(Skip::NotUtf8),
        Ok(text) if text.trim().is_empty() => Err(Skip::Empty),
        Ok(text) => Ok(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_bytes(bytes: &[u8], limit: u64) -> Result<String, Skip> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read(file.path(), limit).unwrap()
    }

    #[test]
    fn text_is_kept_to_the_byte() {
        let text = "\u{feff}a\r\nb\tc\u{0} ";
        let long = format!("{}{text}", "x".repeat(SNIFFED));
        assert_eq!(read_bytes(long.as_bytes(), 1 << 20).unwrap(), long, "a NUL far behind is kept");
        assert_eq!(read_bytes(b"abc", 3).unwrap(), "abc");
    }

    #[test]
    fn what_is_not_text_has_a_reason() {
        assert_eq!(read_bytes(b"", 10), Err(Skip::Empty));
        assert_eq!(read_bytes(b" \r\n\t", 10), Err(Skip::Empty));
        assert_eq!(read_bytes(b"a\0b", 10), Err(Skip::Binary));
        assert_eq!(read_bytes(b"abcd", 3), Err(Skip::TooLarge));
        assert_eq!(read_bytes(b"caf\xe9", 10), Err(Skip::NotUtf8));
        assert_eq!(read(Path::new("/no/such/file"), 10).unwrap(), Err(Skip::Vanished));
    }
}
