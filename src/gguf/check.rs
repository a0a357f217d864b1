//! What must hold before llama.cpp may see a file. llama.cpp returns an error for most damaged files, but some
//! values make it abort, which would end redis-server with it; this check finds those that have been seen in
//! its sources. It is not a defence against a file made to attack llama.cpp: load files you trust.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::Path;

use crate::error::GgufError;
use crate::header::Header;
use crate::parse::{self, MAGIC};
use crate::{hazards, split};

/// A file with this many tensors or more is refused. The largest models have a few thousand.
pub const MAX_TENSORS: u64 = 100_000;
/// A file with this many metadata pairs or more is refused. Models have under a hundred.
pub const MAX_METADATA: u64 = 100_000;
/// Longest metadata key in bytes, as the GGUF specification has it.
pub const LONGEST_KEY: u64 = 65_535;
/// Longest tensor name in bytes: GGML_MAX_NAME less the closing NUL.
pub const MAX_TENSOR_NAME: u64 = 63;
/// Most dimensions of a tensor: GGML_MAX_DIMS.
pub const MAX_DIMS: u32 = 4;
/// Longest string that a [`Header`] keeps, in bytes. Chat templates are far shorter.
pub const LONGEST_STRING: u64 = 1 << 20;
/// Bytes of strings that a [`Header`] keeps in all.
pub const STRINGS_KEPT: u64 = 16 << 20;
/// Longest array of numbers that a [`Header`] keeps: one value per layer fits easily.
pub const LONGEST_ARRAY: u64 = 4096;
/// Most tokens of a vocabulary. The largest known ones have 262,144.
pub const MAX_TOKENS: u64 = 1 << 22;

/// Checks the GGUF file at `path`, and the other parts when the model is split, and returns its header. Only
/// headers are read, so the time does not depend on the size of the weights.
///
/// # Errors
/// Whatever stands in the way of handing this file to llama.cpp.
pub fn check_file(path: &Path) -> Result<Header, GgufError> {
    let parsed = open(path, None)?;
    hazards::check(&parsed.header, &parsed.vocabulary)?;
    split::check_parts(path, parsed.header)
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

/// Checks what kind of file `path` is and parses its header.
pub(crate) fn open(path: &Path, wanted: Option<&str>) -> Result<parse::Parsed, GgufError> {
    // Before opening: opening a pipe would wait for a writer.
    let kind = fs::metadata(path)?;
    if kind.is_dir() {
        return Err(GgufError::Directory);
    }
    if !kind.is_file() {
        return Err(GgufError::NotRegular);
    }
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    recognise(&mut file, length)?;
    parse::parse(file, length, wanted)
}

/// Fails with what the file is when it is not GGUF; leaves the position at the start.
fn recognise<R: Read + Seek>(file: &mut R, length: u64) -> Result<(), GgufError> {
    let mut start = Vec::with_capacity(512);
    file.by_ref().take(512).read_to_end(&mut start)?;
    file.seek(io::SeekFrom::Start(0))?;
    if start.starts_with(&MAGIC) {
        return Ok(());
    }
    if is_safetensors(&start, length) {
        return Err(GgufError::Safetensors);
    }
    if start.starts_with(b"version https://git-lfs") {
        return Err(GgufError::LfsPointer);
    }
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace() || *byte >= 0x80;
    let found = match start.as_slice() {
        [] => "it is empty",
        [b'P', b'K', 3, 4, ..] => "it is a ZIP archive or a PyTorch checkpoint",
        _ if start.iter().all(is_text) => "it is a text file",
        _ => "it does not start with the GGUF magic bytes",
    };
    Err(GgufError::NotGguf { found })
}

/// safetensors: the length of a JSON object in 8 bytes, little-endian, then the object.
fn is_safetensors(start: &[u8], length: u64) -> bool {
    let Some((&size, rest)) = start.split_first_chunk::<8>() else {
        return false;
    };
    let size = u64::from_le_bytes(size);
    rest.first() == Some(&b'{') && size >= 2 && size <= length.saturating_sub(8)
}
