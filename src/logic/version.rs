//! The version of a chunk: its lines and a hash over its text. What else tokens and vector depend on are the settings of the
//! index, which are the same for all keys of a generation.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

/// A version, written `FIRST-LAST-HASH`: lines in decimal, the hash as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// First and last line in the document, from 1.
    pub lines: (u32, u32),
    hash: u128,
}

impl Version {
    /// The version of a chunk with this text at these lines.
    pub fn new(lines: (u32, u32), text: &str) -> Self {
        Self { lines, hash: xxh3_128(text.as_bytes()) }
    }

    /// Reads what [`fmt::Display`] writes; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.splitn(3, '-');
        let (first, last, hash) = (parts.next()?, parts.next()?, parts.next()?);
        let version =
            Self { lines: (first.parse().ok()?, last.parse().ok()?), hash: u128::from_str_radix(hash, 16).ok()? };
        // One way to write it only, because it is part of a name.
        (version.to_string().as_bytes() == text).then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((first, last), hash) = (self.lines, self.hash);
        write!(f, "{first}-{last}-{hash:032x}")
    }
}

/// The hash of a whole document, which tells at once whether it has changed.
pub fn document_hash(text: &str) -> String {
    format!("{:032x}", xxh3_128(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_version_is_that_of_a_text_at_its_lines() {
        let version = Version::new((3, 4), "text");
        assert_eq!(version, Version::new((3, 4), "text"));
        assert_ne!(version, Version::new((3, 5), "text"));
        assert_ne!(version, Version::new((3, 4), "Text"));
        assert!(version.to_string().starts_with("3-4-"));
        assert_eq!(version.to_string().len(), 36);
    }

    #[test]
    fn what_somebody_else_wrote_is_no_version() {
        let zeros = "0".repeat(32);
        for field in
            ["", "x", "1-2", "1-2-", "1-2-xyz", &format!("+1-2-{zeros}"), &format!("1-2-{}", "0".repeat(31)), "\u{e9}"]
        {
            assert_eq!(Version::parse(field.as_bytes()), None, "{field}");
        }
        assert_eq!(Version::parse(b"\xff"), None);
        assert!(Version::parse(format!("1-2-{zeros}").as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn a_version_is_read_back(lines in any::<(u32, u32)>(), text in any::<String>()) {
            let version = Version::new(lines, &text);
            prop_assert_eq!(Version::parse(version.to_string().as_bytes()), Some(version));
        }

        #[test]
        fn bytes_of_any_kind_are_no_trouble(bytes in any::<Vec<u8>>()) {
            Version::parse(&bytes);
        }
    }
}
