//! What this crate reads and keeps of a file at most. A real model stays far below each of these.

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
/// Longest string that a [`Header`](crate::Header) keeps, in bytes. Chat templates are far shorter.
pub const LONGEST_STRING: u64 = 1 << 20;
/// Bytes of strings that a [`Header`](crate::Header) keeps in all.
pub const STRINGS_KEPT: u64 = 16 << 20;
/// Longest array of numbers that a [`Header`](crate::Header) keeps: one value per layer fits easily.
pub const LONGEST_ARRAY: u64 = 4096;
/// Most tokens of a vocabulary. The largest known ones have 262,144.
pub const MAX_TOKENS: u64 = 1 << 22;
