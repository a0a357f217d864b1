//! What must hold before llama.cpp may see a file. llama.cpp returns an error for most damaged files, but some
//! values make it abort, which would end redis-server with it; this check finds those that have been seen in
//! its sources. It is not a defence against a file made to attack llama.cpp: load files you trust.

use std::path::Path;

use crate::error::GgufError;
use crate::header::Header;
use crate::open::open;
use crate::{hazards, split};

/// Checks the GGUF file at `path`, and the other parts when the model is split, and returns its header. Only
/// headers are read, so the time does not depend on the size of the weights.
///
/// # Errors
/// Whatever stands in the way of handing this file to llama.cpp.
pub fn check_file(path: &Path) -> Result<Header, GgufError> {
    check_file_and_parts(path, |_| Ok(()))
}

/// As [`check_file`]; of a split model no other part is opened before `place` has allowed the path of each.
///
/// # Errors
/// As [`check_file`], and with the reason that `place` gives.
pub fn check_file_and_parts(path: &Path, place: impl Fn(&Path) -> Result<(), String>) -> Result<Header, GgufError> {
    let parsed = open(path, None)?;
    hazards::check(&parsed.header, &parsed.vocabulary)?;
    split::check_parts(path, parsed.header, place)
}

/// The elements of the string array `key` of the file at `path`, such as the tokens of a vocabulary. Bytes
/// that are not UTF-8 are replaced by U+FFFD.
///
/// # Errors
/// As [`check_file`], and when the file has no such array.
pub fn read_strings(path: &Path, key: &str) -> Result<Vec<String>, GgufError> {
    open(path, Some(key))?
        .strings
        .ok_or_else(|| GgufError::Malformed("it has no string array of the name asked for".into()))
}
