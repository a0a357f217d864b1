//! A sentence encoder: architecture `bert`, a WordPiece tokenizer, mean pooling. Texts that share words get
//! similar vectors, so retrieval can be tested with it. With labels it is a cross-encoder instead.

use std::path::Path;

use crate::parse::{TOKEN_TYPES, TOKENS};
use crate::synthetic::random::Random;
use crate::synthetic::{CONTROL, NORMAL, Summary, Weights};
use crate::write::{TensorData, WriteError, Writer};

/// The shape of a sentence encoder. The default takes about a third of a megabyte.
#[derive(Clone, Debug)]
pub struct BertShape {
    /// `general.name`.
    pub name: String,
    /// Transformer layers, at least 1.
    pub layers: u32,
    /// Width of the model and length of its vectors; a multiple of `heads`.
    pub embd: u32,
    /// Attention heads.
    pub heads: u32,
    /// Width of the feed-forward layers.
    pub ff: u32,
    /// Positions: a longer text cannot be read.
    pub ctx_train: u32,
    /// Scores that a pair of texts gets: 0 for a sentence encoder, 1 for a reranker, more for a classifier.
    pub labels: u32,
    /// Format of the matrices.
    pub weights: Weights,
}

impl Default for BertShape {
    fn default() -> Self {
        Self {
            name: "synthetic bert".into(),
            layers: 2,
            embd: 64,
            heads: 2,
            ff: 128,
            ctx_train: 256,
            labels: 0,
            weights: Weights::F32,
        }
    }
}

/// Special tokens; their ids are their places.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const PAD: u32 = 0;
const UNK: u32 = 1;
const CLS: u32 = 2;
const SEP: u32 = 3;
const MASK: u32 = 4;

/// Words that are one token; others fall apart into characters.
const WORDS: [&str; 48] = [
    "the", "and", "for", "with", "from", "this", "that", "what", "how", "does", "is", "are", "in", "of", "to", "it",
    "redis", "model", "models", "token", "tokens", "text", "key", "keys", "index", "search", "query", "answer",
    "memory", "file", "files", "line", "thread", "worker", "queue", "error", "client", "server", "command", "load",
    "vector", "chunk", "city", "capital", "france", "paris", "cat", "dog",
];

/// Writes a model of this shape.
///
/// # Errors
/// When the shape is impossible or the file cannot be written.
pub fn write_bert(path: &Path, shape: &BertShape, seed: u64) -> Result<Summary, WriteError> {
    let counts = [shape.layers, shape.embd, shape.heads, shape.ff, shape.ctx_train];
    if counts.contains(&0) || !shape.embd.is_multiple_of(shape.heads) {
        return Err(WriteError::Invalid(
            "every number of the shape must be at least 1, and embd a multiple of heads".into(),
        ));
    }
    let tokens = vocabulary();
    let mut writer = Writer::new("bert");
    metadata(&mut writer, shape, &tokens);
    tensors(&mut writer, shape, tokens.len() as u64, &mut Random::new(seed));
    Ok(Summary { vocab: tokens.len() as u32, bos: CLS, eos: SEP, file_size: writer.write(path)? })
}

/// Special tokens, printable ASCII at the start and inside of words, whole words. llama.cpp marks the start of
/// a word with U+2581.
fn vocabulary() -> Vec<String> {
    let mut tokens: Vec<String> = SPECIAL.map(str::to_owned).to_vec();
    // Capitals are left out: the tokenizer lower-cases.
    for character in ('!'..='~').filter(|c| !c.is_ascii_uppercase()) {
        tokens.push(format!("\u{2581}{character}"));
        if character.is_ascii_alphanumeric() {
            tokens.push(character.to_string());
        }
    }
    tokens.extend(WORDS.map(|word| format!("\u{2581}{word}")));
    tokens
}

fn metadata(writer: &mut Writer, shape: &BertShape, tokens: &[String]) {
    // llama_pooling_type
    const MEAN: u32 = 1;
    const RANK: u32 = 4;
    let types: Vec<i32> = (0..tokens.len()).map(|id| if id < SPECIAL.len() { CONTROL } else { NORMAL }).collect();
    writer
        .string("general.type", "model")
        .string("general.name", &shape.name)
        .u32("general.file_type", shape.weights.file_type())
        .u32("general.quantization_version", 2)
        .u32("bert.block_count", shape.layers)
        .u32("bert.context_length", shape.ctx_train)
        .u32("bert.embedding_length", shape.embd)
        .u32("bert.feed_forward_length", shape.ff)
        .u32("bert.attention.head_count", shape.heads)
        .f32("bert.attention.layer_norm_epsilon", 1e-12)
        .bool("bert.attention.causal", false)
        .u32("bert.pooling_type", if shape.labels > 0 { RANK } else { MEAN })
        .string("tokenizer.ggml.model", "bert")
        .string("tokenizer.ggml.pre", "default")
        .strings(TOKENS, tokens)
        .i32s(TOKEN_TYPES, &types)
        .u32("tokenizer.ggml.token_type_count", 2)
        .u32("tokenizer.ggml.bos_token_id", CLS)
        .u32("tokenizer.ggml.cls_token_id", CLS)
        .u32("tokenizer.ggml.unknown_token_id", UNK)
        .u32("tokenizer.ggml.seperator_token_id", SEP)
        .u32("tokenizer.ggml.padding_token_id", PAD)
        .u32("tokenizer.ggml.mask_token_id", MASK);
    if shape.labels > 0 {
        let labels: Vec<String> = (0..shape.labels).map(|label| format!("LABEL_{label}")).collect();
        writer
            .strings("bert.classifier.output_labels", &labels)
            // As converters write them: [CLS] query [SEP] text [SEP].
            .bool("tokenizer.ggml.add_eos_token", true)
            .bool("tokenizer.ggml.add_sep_token", false);
    }
}

fn tensors(writer: &mut Writer, shape: &BertShape, vocab: u64, random: &mut Random) {
    let [embd, ff, positions] = [shape.embd, shape.ff, shape.ctx_train].map(u64::from);
    let filled = |value: f32, count: u64| TensorData::F32(vec![value; count as usize]);
    let norm = |writer: &mut Writer, name: &str| {
        writer.tensor(&format!("{name}.weight"), &[embd], filled(1.0, embd));
        writer.tensor(&format!("{name}.bias"), &[embd], filled(0.0, embd));
    };
    // Weak layers and positions: the words of a text decide its vector. A score is made of the first token alone, so
    // there the layers must bring the others to it.
    let gain = if shape.labels == 0 { 0.3 } else { 1.0 };
    let linear = |writer: &mut Writer, random: &mut Random, name: &str, [columns, rows]: [u64; 2]| {
        let data = shape.weights.data(random.matrix(columns, rows, gain));
        writer.tensor(&format!("{name}.weight"), &[columns, rows], data);
        writer.tensor(&format!("{name}.bias"), &[rows], filled(0.0, rows));
    };

    writer.tensor("token_embd.weight", &[embd, vocab], shape.weights.data(random.values(embd * vocab, 1.0)));
    let positions_data = TensorData::F32(random.values(embd * positions, 0.1));
    writer.tensor("position_embd.weight", &[embd, positions], positions_data);
    let token_types = match shape.labels {
        0 => filled(0.0, embd * 2),
        _ => TensorData::F32(random.values(embd * 2, 0.3)),
    };
    writer.tensor("token_types.weight", &[embd, 2], token_types);
    norm(writer, "token_embd_norm");
    for layer in 0..shape.layers {
        let name = |part: &str| format!("blk.{layer}.{part}");
        for part in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            linear(writer, random, &name(part), [embd, embd]);
        }
        norm(writer, &name("attn_output_norm"));
        linear(writer, random, &name("ffn_up"), [embd, ff]);
        linear(writer, random, &name("ffn_down"), [ff, embd]);
        norm(writer, &name("layer_output_norm"));
    }
    if shape.labels > 0 {
        let labels = u64::from(shape.labels);
        let mut dense = |name: &str, rows: u64| {
            let matrix = shape.weights.data(random.matrix(embd, rows, 1.5));
            writer.tensor(&format!("{name}.weight"), &[embd, rows], matrix);
            writer.tensor(&format!("{name}.bias"), &[rows], TensorData::F32(random.values(rows, 0.5)));
        };
        dense("cls", embd);
        dense("cls.output", labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn special_tokens_have_the_ids_that_the_metadata_names() {
        let tokens = vocabulary();
        assert_eq!(tokens[CLS as usize], "[CLS]");
        assert_eq!(tokens[MASK as usize], "[MASK]");
    }

    #[test]
    fn no_token_stands_twice() {
        let tokens = vocabulary();
        assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), tokens.len());
    }
}
