//! A LoRA adapter with random weights for a model of [`write_llama`](super::write_llama).

use std::path::Path;

use crate::synthetic::LlamaShape;
use crate::synthetic::random::Random;
use crate::write::{TensorData, WriteError, Writer};

/// The shape of an adapter. The default changes every matrix of the layers, and that of the logits.
#[derive(Clone, Debug)]
pub struct LoraShape {
    /// `general.architecture`.
    pub architecture: String,
    /// Rows of A, columns of B.
    pub rank: u32,
    /// `adapter.lora.alpha`: the change is `scale * alpha / rank * B * A`.
    pub alpha: f32,
    /// Whether it changes the token embedding too.
    pub embedding: bool,
}

impl Default for LoraShape {
    fn default() -> Self {
        Self { architecture: "llama".into(), rank: 4, alpha: 6.0, embedding: false }
    }
}

/// Writes an adapter for models of the shape `model`, with a vocabulary of `vocab` tokens. Returns its size in bytes.
///
/// # Errors
/// When the file cannot be written.
pub fn write_lora(
    path: &Path,
    model: &LlamaShape,
    vocab: u32,
    shape: &LoraShape,
    seed: u64,
) -> Result<u64, WriteError> {
    let mut random = Random::new(seed);
    let mut writer = Writer::new(&shape.architecture);
    writer.string("general.type", "adapter").string("adapter.type", "lora").f32("adapter.lora.alpha", shape.alpha);
    let rank = u64::from(shape.rank);
    let mut half = |writer: &mut Writer, name: &str, [columns, rows]: [u64; 2]| {
        writer.tensor(name, &[columns, rows], TensorData::F32(random.matrix(columns, rows, 0.5)));
    };
    let mut pair = |writer: &mut Writer, name: &str, [inputs, outputs]: [u64; 2]| {
        half(writer, &format!("{name}.lora_a"), [inputs, rank]);
        half(writer, &format!("{name}.lora_b"), [rank, outputs]);
    };
    let [embd, ff, vocab] = [model.embd, model.ff, vocab].map(u64::from);
    let kv = embd / u64::from(model.heads) * u64::from(model.kv_heads);
    for layer in 0..model.layers {
        for (part, shape) in [
            ("attn_q", [embd, embd]),
            ("attn_k", [embd, kv]),
            ("attn_v", [embd, kv]),
            ("attn_output", [embd, embd]),
            ("ffn_gate", [embd, ff]),
            ("ffn_up", [embd, ff]),
            ("ffn_down", [ff, embd]),
        ] {
            pair(&mut writer, &format!("blk.{layer}.{part}.weight"), shape);
        }
    }
    pair(&mut writer, "output.weight", [embd, vocab]);
    if shape.embedding {
        // Read by rows: A has a row for each token, and B makes it as wide as the model.
        half(&mut writer, "token_embd.weight.lora_a", [rank, vocab]);
        half(&mut writer, "token_embd.weight.lora_b", [rank, embd]);
    }
    writer.write(path)
}
