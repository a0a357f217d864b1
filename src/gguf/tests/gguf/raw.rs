//! GGUF bytes put together by hand, right or wrong.

use std::path::PathBuf;

use redis_infer_gguf::{GgufError, Header, check_file};
use tempfile::TempDir;

/// A header in the making. `tensors` and `pairs` are the counts it claims.
#[derive(Clone, Default)]
pub struct Raw {
    pub bytes: Vec<u8>,
}

impl Raw {
    pub fn new(version: u32, tensors: u64, pairs: u64) -> Self {
        Self::default().add(b"GGUF").u32(version).u64(tensors).u64(pairs)
    }

    pub fn add(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    pub fn u32(self, value: u32) -> Self {
        self.add(&value.to_le_bytes())
    }

    pub fn u64(self, value: u64) -> Self {
        self.add(&value.to_le_bytes())
    }

    pub fn text(self, text: &str) -> Self {
        self.u64(text.len() as u64).add(text.as_bytes())
    }

    pub fn string_pair(self, key: &str, value: &str) -> Self {
        self.text(key).u32(8).text(value)
    }

    pub fn u32_pair(self, key: &str, value: u32) -> Self {
        self.text(key).u32(4).u32(value)
    }

    pub fn tensor(self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        let start = self.text(name).u32(dims.len() as u32);
        let with_dims = dims.iter().fold(start, |raw, &dim| raw.u64(dim));
        with_dims.u32(kind).u64(offset)
    }

    /// Pads to the next multiple of 32 and adds `bytes` zeros of tensor data.
    pub fn data(mut self, bytes: usize) -> Self {
        let start = self.bytes.len().next_multiple_of(32);
        self.bytes.resize(start + bytes, 0);
        self
    }

    pub fn check(&self) -> Result<Header, GgufError> {
        check_bytes(&self.bytes)
    }

    /// The error text; fails when the file is accepted.
    pub fn refusal(&self) -> String {
        self.check().expect_err("the file must be refused").to_string()
    }
}

/// The two pairs without which no file is accepted.
pub fn minimal(tensors: u64, more_pairs: u64) -> Raw {
    Raw::new(3, tensors, 2 + more_pairs)
        .string_pair("general.architecture", "llama")
        .string_pair("tokenizer.ggml.model", "test")
}

pub fn saved(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

pub fn check_bytes(bytes: &[u8]) -> Result<Header, GgufError> {
    let (_folder, path) = saved(bytes);
    check_file(&path)
}
