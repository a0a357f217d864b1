//! GGUF model files without llama.cpp: check one before llama.cpp may see it, write one, or make a small
//! random model for tests and speed runs.
//!
//! llama.cpp treats parts of a model file as trusted: some bad values end the process (see [`check`]).
//! Everything that loads a model into Redis therefore calls [`check_file`] first. The format itself is
//! described in `ggml/include/gguf.h` of llama.cpp; this crate reads versions 2 and 3, little-endian.
#![forbid(unsafe_code)]

mod adapter;
mod hazards;
mod open;
mod parse;
mod reader;
mod split;

pub mod check;
pub mod error;
pub mod header;
pub mod limits;
pub mod synthetic;
pub mod tensor_type;
pub mod value;
pub mod write;

pub use adapter::{Adapter, check_adapter};
pub use check::{check_file, check_file_and_parts, read_strings};
pub use error::GgufError;
pub use header::{Header, TensorInfo};
pub use split::part_paths;
pub use tensor_type::TensorType;
pub use value::{Array, Value, ValueType};
pub use write::{TensorData, WriteError, Writer};
