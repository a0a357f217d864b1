//! What a checked GGUF file says about itself.

use std::collections::BTreeMap;

use crate::tensor_type::TensorType;
use crate::value::Value;

/// The header of a checked file. Metadata is in key order.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// GGUF version: 2 or 3.
    pub version: u32,
    /// All key-value pairs.
    pub metadata: BTreeMap<String, Value>,
    /// All tensors, in file order; those of the other parts of a split model behind them, with offsets into their own
    /// files.
    pub tensors: Vec<TensorInfo>,
    /// Alignment of tensor data in bytes, a power of two.
    pub alignment: u64,
    /// Where the tensor data starts, in bytes from the start of the file.
    pub data_offset: u64,
    /// Size of the file in bytes; of all parts together when the model is split.
    pub file_size: u64,
}

/// One tensor of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Its dimensions in ggml's order: the fastest-moving (a row's length) first. None for a scalar.
    pub dims: Vec<u64>,
    /// Its element type.
    pub kind: TensorType,
    /// Where its data starts, in bytes from [`Header::data_offset`].
    pub offset: u64,
    /// Bytes of its data; `None` when the element type is unknown.
    pub size: Option<u64>,
}

impl Header {
    /// The model architecture, such as `llama` or `bert`.
    pub fn architecture(&self) -> Option<&str> {
        self.get_str("general.architecture")
    }

    /// A metadata string.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.metadata.get(key)?.as_str()
    }

    /// A metadata number of any integer width that fits 32 bits.
    pub fn get_u32(&self, key: &str) -> Option<u32> {
        self.metadata.get(key)?.as_u64()?.try_into().ok()
    }

    /// A metadata truth value.
    pub fn get_bool(&self, key: &str) -> Option<bool> {
        self.metadata.get(key)?.as_bool()
    }

    /// A number below the architecture's own prefix: `arch_u32("context_length")` reads
    /// `llama.context_length` of a llama model.
    pub fn arch_u32(&self, key: &str) -> Option<u32> {
        self.get_u32(&self.arch_key(key)?)
    }

    /// The full name of an architecture's own key.
    pub(crate) fn arch_key(&self, key: &str) -> Option<String> {
        Some(format!("{}.{key}", self.architecture()?))
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Number of weights: the elements of all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors
            .iter()
            .map(|tensor| tensor.dims.iter().fold(1u64, |n, &d| n.saturating_mul(d)))
            .fold(0, u64::saturating_add)
    }
}
