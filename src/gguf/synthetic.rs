//! Small models with random weights, made in milliseconds: for tests that need no meaning in the answers, and
//! for speed runs of any shape. The same shape and seed give the same bytes on every machine.

mod bert;
mod llama;
mod lora;
mod random;

pub use bert::{BertShape, write_bert};
pub use llama::{LlamaShape, write_llama, write_llama_split};
pub use lora::{LoraShape, write_lora};

/// What [`write_llama`] and [`write_bert`] made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Number of tokens of the vocabulary.
    pub vocab: u32,
    /// Id of the token that starts a text: `<|im_start|>` or `[CLS]`.
    pub bos: u32,
    /// Id of the token that ends one: `<|im_end|>` or `[SEP]`.
    pub eos: u32,
    /// Bytes written.
    pub file_size: u64,
}

/// The format of the weight matrices; norms and biases are always F32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats.
    F16,
    /// 4 bits and a scale for 32 numbers: rows must be multiples of 32.
    Q4_0,
}

impl Weights {
    /// Number of a file of this format in llama.cpp's `enum llama_ftype`.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
        }
    }
}

/// Types of tokens, `enum llama_token_type` of llama.h.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
