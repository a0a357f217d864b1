//! The attributes of a chunk in the vector set: what this module writes of it, and the members that the user adds with
//! `ATTRS`. A `FILTER` of `VSIM` reads them, and of an object's members only those at the top.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::args::ArgError;
use super::index::IndexError;

/// Members that only this module writes.
const RESERVED: [&str; 5] = ["path", "chunk", "first_line", "last_line", "ext"];

/// The members of `ATTRS`; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserAttributes(Map<String, Value>);

impl UserAttributes {
    /// Reads the value of `ATTRS`: a JSON object whose values are strings, numbers, booleans, or arrays of these.
    ///
    /// # Errors
    /// [`ArgError::BadForm`] with what is wrong.
    pub fn parse(json: &str) -> Result<Self, ArgError> {
        let bad = |problem: String| ArgError::BadForm { option: "ATTRS", problem };
        let Unique(members) = serde_json::from_str(json).map_err(|error| bad(printable(&error.to_string())))?;
        for (name, value) in &members {
            if RESERVED.contains(&name.as_str()) {
                return Err(bad(format!("the member {name} is one that INFER.INGEST writes itself")));
            }
            if !is_flat(value) {
                let name = printable(name);
                return Err(bad(format!(
                    "the member '{name}' is no string, number, boolean or array of these, and FILTER could not use it"
                )));
            }
        }
        Ok(Self(members))
    }

    /// As a JSON object, `{}` when there are none.
    pub fn to_json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }
}

/// A member that a filter can read.
fn is_flat(value: &Value) -> bool {
    let is_single = |value: &Value| matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_));
    match value {
        Value::Array(values) => values.iter().all(is_single),
        single => is_single(single),
    }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// An object in which no member stands twice: `serde_json` alone would keep the last one.
struct Unique(Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Unique, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a member stands twice"));
                    }
                }
                Ok(Unique(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The attributes of a chunk's element.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkAttributes {
    /// Path of the document.
    pub path: String,
    /// Number of the chunk in the document, from 0.
    pub chunk: u32,
    /// First line of the chunk in the document, from 1.
    pub first_line: u32,
    /// Last line of the chunk.
    pub last_line: u32,
    /// Extension of the path, without the dot; may be empty.
    pub ext: String,
    /// What the user added.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl ChunkAttributes {
    /// The attributes of a chunk of the document `path`.
    pub fn new(path: &str, chunk: u32, (first_line, last_line): (u32, u32), more: &UserAttributes) -> Self {
        let (path, ext, more) = (path.to_owned(), extension(path).to_owned(), more.0.clone());
        Self { path, chunk, first_line, last_line, ext, more }
    }

    /// As a JSON object.
    pub fn to_json(&self) -> String {
        // Strings, numbers and arrays cannot fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The inverse of [`ChunkAttributes::to_json`]; members that others added are fine and become part of `more`.
    ///
    /// # Errors
    /// [`IndexError::BadAttributes`].
    pub fn from_json(json: &[u8]) -> Result<Self, IndexError> {
        serde_json::from_slice(json).map_err(|_| IndexError::BadAttributes)
    }

    /// Whether `stored` says all that these do; it may say more.
    pub fn are_in(&self, stored: &Self) -> bool {
        let own = |a: &Self| (a.path.clone(), a.chunk, a.first_line, a.last_line, a.ext.clone());
        own(self) == own(stored) && self.more.iter().all(|(name, value)| stored.more.get(name) == Some(value))
    }
}

/// What follows the last dot of the file name; empty when there is none.
fn extension(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.rsplit_once('.').map_or("", |(_, extension)| extension)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn more(json: &str) -> UserAttributes {
        UserAttributes::parse(json).unwrap()
    }

    #[test]
    fn members_of_the_user_stand_beside_those_of_the_chunk() {
        let attributes = ChunkAttributes::new("a\"b/一.md", 2, (10, 31), &more(r#"{"year":1984,"tags":["x",true]}"#));
        let json: Value = serde_json::from_str(&attributes.to_json()).unwrap();
        let expected = serde_json::json!({
            "path": "a\"b/一.md", "chunk": 2, "first_line": 10, "last_line": 31, "ext": "md", "year": 1984, "tags": ["x", true]
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn what_a_filter_cannot_use_is_refused() {
        for (json, problem) in [
            ("", "EOF while parsing"),
            ("[]", "expected a JSON object"),
            ("{\"a\":1} x", "trailing characters"),
            (r#"{"a":null}"#, "the member 'a' is no string"),
            (r#"{"ok":1,"a?":{}}"#, "the member 'a?' is no string"),
            (r#"{"a":[[1]]}"#, "the member 'a' is no string"),
            (r#"{"a":1,"a":2}"#, "a member stands twice"),
            (r#"{"a":1e999}"#, "number out of range"),
            (r#"{"chunk":1}"#, "the member chunk is one that INFER.INGEST writes"),
        ] {
            let error = UserAttributes::parse(json).unwrap_err().to_string();
            assert!(error.starts_with("ATTRS: ") && error.contains(problem), "{json}: {error}");
        }
        for name in RESERVED {
            UserAttributes::parse(&format!(r#"{{"{name}":1}}"#)).unwrap_err();
        }
        assert_eq!(more("{}"), UserAttributes::default());
    }

    #[test]
    fn members_that_others_added_do_not_matter_and_missing_ones_do() {
        let attributes = ChunkAttributes::new("p", 0, (1, 2), &more(r#"{"a":1}"#));
        let stored = |json: &str| ChunkAttributes::from_json(json.as_bytes()).unwrap();
        let own = r#""path":"p","chunk":0,"first_line":1,"last_line":2,"ext":"""#;
        assert!(attributes.are_in(&stored(&format!(r#"{{"b":null,{own},"a":1}}"#))));
        assert!(!attributes.are_in(&stored(&format!(r#"{{{own},"a":2}}"#))));
        assert!(!attributes.are_in(&stored(&format!("{{{own}}}"))));
    }

    #[test]
    fn attributes_of_something_else_are_refused() {
        let negative = r#"{"path":"p","chunk":-1,"first_line":1,"last_line":2,"ext":""}"#;
        for json in ["", "{}", "[]", "null", negative, "\u{0}"] {
            assert_eq!(ChunkAttributes::from_json(json.as_bytes()), Err(IndexError::BadAttributes), "{json}");
        }
    }

    #[test]
    fn the_extension_is_that_of_the_file_name_only() {
        assert_eq!(extension("src/lib.rs"), "rs");
        assert_eq!(extension("a.d/Makefile"), "");
        assert_eq!(extension("archive.tar.gz"), "gz");
    }

    proptest! {
        #[test]
        fn attributes_are_read_back(path in any::<String>(), chunk in any::<u32>(), lines in any::<(u32, u32)>(), tag in any::<String>()) {
            let more = UserAttributes::parse(&serde_json::json!({ "tag": tag }).to_string()).unwrap();
            let attributes = ChunkAttributes::new(&path, chunk, lines, &more);
            prop_assert_eq!(ChunkAttributes::from_json(attributes.to_json().as_bytes()), Ok(attributes));
        }
    }
}
