//! Why a file is refused. The texts are printable ASCII whatever the file holds, name the cause and what to
//! do, and never the path: the caller knows it.

use std::io;

/// Why a file cannot be given to llama.cpp.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// Nothing is at the path.
    #[error("there is no such file; check the path")]
    NotFound,
    /// The path is a directory.
    #[error(
        "the path is a directory; give the .gguf file itself, or convert a Hugging Face model directory with \
         `redis-infer convert`"
    )]
    Directory,
    /// A socket, a pipe, a device.
    #[error("the path is not a regular file")]
    NotRegular,
    /// The operating system refused to read.
    #[error("the file cannot be read: {0}")]
    Io(io::Error),
    /// A safetensors file.
    #[error(
        "this is a safetensors file, not GGUF; convert its model directory with \
         `redis-infer convert <model-dir> <out.gguf>`"
    )]
    Safetensors,
    /// The pointer that Git LFS leaves in place of a file.
    #[error("this is a Git LFS pointer, not a model; fetch the real file with `git lfs pull`")]
    LfsPointer,
    /// Any other file without the GGUF magic; `found` says what it looks like.
    #[error("this is not a GGUF file: {found}; models must be in GGUF format")]
    NotGguf {
        /// What the file looks like.
        found: &'static str,
    },
    /// A GGUF file of a big-endian machine.
    #[error("this GGUF file is big-endian; only little-endian files are read, convert it again")]
    BigEndian,
    /// A GGUF version that llama.cpp does not read.
    #[error("GGUF version {0} is not supported (2 and 3 are); convert the model again")]
    Version(u32),
    /// The file ends before what its header promises.
    #[error("the file is truncated or damaged: it needs at least {expected} bytes and has {actual}; download it again")]
    Truncated {
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes that the file has.
        actual: u64,
    },
    /// The header contradicts itself or the format.
    #[error("the GGUF header is damaged: {0}")]
    Malformed(String),
    /// The header is well-formed, but llama.cpp would end the process over it.
    #[error("llama.cpp cannot run this model: {0}")]
    Unusable(String),
    /// The file is no LoRA adapter, or none for this model.
    #[error("this LoRA adapter cannot be used: {0}")]
    Adapter(String),
    /// A part of a split model is refused.
    #[error("part {part} of this split model, {file}, is refused: {source}")]
    Part {
        /// The number in the part's file name, from 1.
        part: u64,
        /// The name of its file without the folder, in quotes.
        file: String,
        /// Why.
        source: Box<GgufError>,
    },
    /// A part of a split model must not be opened where it is.
    #[error("part {part} of this split model, {file}, is refused: {reason}")]
    PartElsewhere {
        /// The number in the part's file name, from 1.
        part: u64,
        /// The name of its file without the folder, in quotes.
        file: String,
        /// Why.
        reason: String,
    },
}

impl From<io::Error> for GgufError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            _ => Self::Io(error),
        }
    }
}

/// `bytes` for an error text: in quotes, printable ASCII only, at most 40 characters.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let mut text: String = bytes
        .iter()
        .take(SHOWN)
        .map(|&b| if b.is_ascii_graphic() || b == b' ' { char::from(b) } else { '?' })
        .collect();
    if bytes.len() > SHOWN {
        text.push_str("...");
    }
    format!("'{text}'")
}
