//! Opens a file that should be GGUF, or says what it is instead.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::Path;

use crate::error::GgufError;
use crate::parse::{self, MAGIC};

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
