//! A generating model: architecture `llama`, a byte-level BPE tokenizer, a ChatML template.

use std::path::{Path, PathBuf};

use crate::parse::{TOKEN_TYPES, TOKENS};
use crate::synthetic::random::Random;
use crate::synthetic::{CONTROL, NORMAL, Summary, Weights};
use crate::write::{TensorData, WriteError, Writer};

/// The shape of a generating model. The default takes about half a megabyte and knows 512 positions.
#[derive(Clone, Debug)]
pub struct LlamaShape {
    /// `general.name`.
    pub name: String,
    /// Transformer layers, at least 1.
    pub layers: u32,
    /// Width of the model; a multiple of `heads` unless `head` is given.
    pub embd: u32,
    /// Attention heads; a multiple of `kv_heads`.
    pub heads: u32,
    /// Width of a head: even, and a multiple of 32 for a Q8_0 cache. 0 stands for `embd / heads`.
    pub head: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Width of the feed-forward layers.
    pub ff: u32,
    /// Positions the model claims to be trained for.
    pub ctx_train: u32,
    /// Tokens of the vocabulary; made larger when the bytes, merges and special tokens need more. Real models
    /// have 32,000 to 262,144, which matters for speed.
    pub vocab: u32,
    /// The output matrix is that of the input, as in many small models. Then nothing keeps answers from ending early.
    pub tied: bool,
    /// Format of the matrices.
    pub weights: Weights,
    /// `tokenizer.ggml.pre`. The detokenizer of "smollm" gives back exactly the bytes; that of "gpt-2" removes spaces
    /// before punctuation.
    pub pretokenizer: String,
    /// Whether it divides the angles of positions, as Llama 3.1 and later do.
    pub rope_divisors: bool,
    /// Jinja template of a conversation; `None` for a base model.
    pub chat_template: Option<String>,
}

impl Default for LlamaShape {
    fn default() -> Self {
        Self {
            name: "synthetic llama".into(),
            layers: 2,
            embd: 64,
            heads: 2,
            head: 0,
            kv_heads: 1,
            ff: 128,
            ctx_train: 512,
            vocab: 0,
            tied: false,
            weights: Weights::F32,
            pretokenizer: "smollm".into(),
            rope_divisors: false,
            chat_template: Some(CHAT_TEMPLATE.into()),
        }
    }
}

impl LlamaShape {
    /// The dimensions of Qwen3-0.6B (its config.json) in 4 bits, in the architecture `llama`: for speed, which does not
    /// depend on what the weights are.
    pub fn like_qwen3_0_6b() -> Self {
        Self {
            name: "random weights in the shape of Qwen3-0.6B".into(),
            layers: 28,
            embd: 1024,
            heads: 16,
            head: 128,
            kv_heads: 8,
            ff: 3072,
            ctx_train: 40_960,
            vocab: 151_936,
            tied: true,
            weights: Weights::Q4_0,
            ..Self::default()
        }
    }

    /// The special tokens of such a model: `<|im_start|>` and `<|im_end|>`.
    pub fn special_ids(&self) -> Vec<u32> {
        let vocabulary = vocabulary(0);
        vec![vocabulary.bos, vocabulary.eos]
    }

    fn head_width(&self) -> u32 {
        if self.head == 0 { self.embd / self.heads } else { self.head }
    }
}

/// Merges of two tokens, most frequent first; `G` stands for the visible form of a space.
const MERGES: [(&str, &str); 16] = [
    ("t", "h"),
    ("h", "e"),
    ("G", "t"),
    ("i", "n"),
    ("e", "r"),
    ("a", "n"),
    ("G", "a"),
    ("o", "n"),
    ("r", "e"),
    ("Gt", "he"),
    ("G", "s"),
    ("e", "n"),
    ("o", "r"),
    ("Ga", "n"),
    ("in", "g"),
    ("Gan", "d"),
];

/// `<|im_start|>role`, a line break, the content, `<|im_end|>`, a line break.
const CHAT_TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}\
     <|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<i32>,
    merges: Vec<String>,
    bos: u32,
    eos: u32,
}

/// Writes a model of this shape. Token ids 0 to 255 are the bytes; then come the merges, `<|im_start|>` (BOS,
/// not added to texts), `<|im_end|>` (EOS), and words that only generation produces, up to `shape.vocab`.
///
/// # Errors
/// When the shape is impossible or the file cannot be written.
pub fn write_llama(path: &Path, shape: &LlamaShape, seed: u64) -> Result<Summary, WriteError> {
    let (writer, vocabulary) = made(shape, seed)?;
    Ok(Summary {
        vocab: vocabulary.tokens.len() as u32,
        bos: vocabulary.bos,
        eos: vocabulary.eos,
        file_size: writer.write(path)?,
    })
}

/// As [`write_llama`], in `parts` files beside `prefix`, whose paths it returns; the first is the one to load.
///
/// # Errors
/// As [`write_llama`].
pub fn write_llama_split(prefix: &Path, shape: &LlamaShape, seed: u64, parts: u16) -> Result<Vec<PathBuf>, WriteError> {
    made(shape, seed)?.0.write_split(prefix, parts)
}

fn made(shape: &LlamaShape, seed: u64) -> Result<(Writer, Vocabulary), WriteError> {
    validate(shape)?;
    let vocabulary = vocabulary(shape.vocab);
    let mut writer = Writer::new("llama");
    metadata(&mut writer, shape, &vocabulary);
    tensors(&mut writer, shape, &vocabulary, &mut Random::new(seed));
    Ok((writer, vocabulary))
}

fn validate(shape: &LlamaShape) -> Result<(), WriteError> {
    let counts = [shape.layers, shape.embd, shape.heads, shape.kv_heads, shape.ff, shape.ctx_train];
    if counts.contains(&0) {
        return Err(WriteError::Invalid("every number of the shape must be at least 1".into()));
    }
    if (shape.head == 0 && !shape.embd.is_multiple_of(shape.heads))
        || !shape.heads.is_multiple_of(shape.kv_heads)
        || !shape.head_width().is_multiple_of(2)
    {
        return Err(WriteError::Invalid(
            "embd must be an even multiple of heads, or head even, and heads a multiple of kv_heads".into(),
        ));
    }
    Ok(())
}

fn vocabulary(at_least: u32) -> Vocabulary {
    let space = visible(b' ').to_string();
    let spell = |text: &str| text.replace('G', &space);
    let mut tokens: Vec<String> = (0..=255).map(|byte| visible(byte).to_string()).collect();
    let mut merges = Vec::new();
    for (left, right) in MERGES {
        let (left, right) = (spell(left), spell(right));
        tokens.push(format!("{left}{right}"));
        merges.push(format!("{left} {right}"));
    }
    let mut types = vec![NORMAL; tokens.len()];
    let bos = tokens.len() as u32;
    tokens.extend(["<|im_start|>".to_owned(), "<|im_end|>".to_owned()]);
    types.extend([CONTROL; 2]);
    for number in tokens.len()..at_least as usize {
        tokens.push(format!("{space}w{number}"));
        types.push(NORMAL);
    }
    Vocabulary { tokens, types, merges, bos, eos: bos + 1 }
}

/// How byte-level BPE writes a byte as a visible character: printable Latin-1 stands for itself, the other
/// bytes are numbered from U+0100 on.
fn visible(byte: u8) -> char {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(&byte) {
        return char::from(byte);
    }
    let others_before = (0..byte).filter(|b| !printable(b)).count() as u32;
    char::from_u32(0x100 + others_before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn metadata(writer: &mut Writer, shape: &LlamaShape, vocabulary: &Vocabulary) {
    writer
        .string("general.type", "model")
        .string("general.name", &shape.name)
        .u32("general.file_type", shape.weights.file_type())
        .u32("general.quantization_version", 2)
        .u32("llama.block_count", shape.layers)
        .u32("llama.context_length", shape.ctx_train)
        .u32("llama.embedding_length", shape.embd)
        .u32("llama.feed_forward_length", shape.ff)
        .u32("llama.attention.head_count", shape.heads)
        .u32("llama.attention.head_count_kv", shape.kv_heads)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .u32("llama.attention.key_length", shape.head_width())
        .u32("llama.attention.value_length", shape.head_width())
        .u32("llama.rope.dimension_count", shape.head_width())
        .f32("llama.rope.freq_base", 10_000.0)
        .u32("llama.vocab_size", vocabulary.tokens.len() as u32)
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", &shape.pretokenizer)
        .strings(TOKENS, &vocabulary.tokens)
        .i32s(TOKEN_TYPES, &vocabulary.types)
        .strings("tokenizer.ggml.merges", &vocabulary.merges)
        .u32("tokenizer.ggml.bos_token_id", vocabulary.bos)
        .u32("tokenizer.ggml.eos_token_id", vocabulary.eos)
        .u32("tokenizer.ggml.padding_token_id", vocabulary.eos)
        .bool("tokenizer.ggml.add_bos_token", false);
    if let Some(template) = &shape.chat_template {
        writer.string("tokenizer.chat_template", template);
    }
}

fn tensors(writer: &mut Writer, shape: &LlamaShape, vocabulary: &Vocabulary, random: &mut Random) {
    let [embd, ff] = [shape.embd, shape.ff].map(u64::from);
    let [all, kv] = [shape.heads, shape.kv_heads].map(|heads| u64::from(shape.head_width()) * u64::from(heads));
    let vocab = vocabulary.tokens.len() as u64;
    let ones = || TensorData::F32(vec![1.0; shape.embd as usize]);
    let matrix = |writer: &mut Writer, random: &mut Random, name: &str, [columns, rows]: [u64; 2]| {
        let data = shape.weights.data(random.matrix(columns, rows, 1.0));
        writer.tensor(name, &[columns, rows], data);
    };

    writer.tensor("token_embd.weight", &[embd, vocab], shape.weights.data(random.values(embd * vocab, 1.0)));
    for layer in 0..shape.layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        writer.tensor(&name("attn_norm"), &[embd], ones());
        matrix(writer, random, &name("attn_q"), [embd, all]);
        matrix(writer, random, &name("attn_k"), [embd, kv]);
        matrix(writer, random, &name("attn_v"), [embd, kv]);
        matrix(writer, random, &name("attn_output"), [all, embd]);
        writer.tensor(&name("ffn_norm"), &[embd], ones());
        matrix(writer, random, &name("ffn_gate"), [embd, ff]);
        matrix(writer, random, &name("ffn_up"), [embd, ff]);
        matrix(writer, random, &name("ffn_down"), [ff, embd]);
    }
    if shape.rope_divisors {
        let pairs = shape.embd / shape.heads / 2;
        let divisors = (0..pairs).map(|pair| 1.0 + pair as f32 / 2.0).collect();
        writer.tensor("rope_freqs.weight", &[u64::from(pairs)], TensorData::F32(divisors));
    }
    writer.tensor("output_norm.weight", &[embd], ones());
    if shape.tied {
        return;
    }

    // A gain above 1 keeps the best two logits apart, so that greedy answers do not depend on rounding. The
    // rows of the special tokens are zero: greedy answers run to their length limit.
    let mut output = random.matrix(embd, vocab, 4.0);
    let row = shape.embd as usize;
    for token in [vocabulary.bos, vocabulary.eos] {
        let start = token as usize * row;
        output[start..start + row].fill(0.0);
    }
    writer.tensor("output.weight", &[embd, vocab], shape.weights.data(output));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn bytes_merges_and_words_are_distinct_tokens() {
        let vocabulary = vocabulary(1000);
        assert_eq!(vocabulary.tokens.len(), 1000);
        assert_eq!(vocabulary.types.len(), 1000);
        assert_eq!(vocabulary.tokens.iter().collect::<HashSet<_>>().len(), 1000);
        assert_eq!(vocabulary.tokens[vocabulary.eos as usize], "<|im_end|>");
    }

    #[test]
    fn both_halves_of_every_merge_are_tokens() {
        let vocabulary = vocabulary(0);
        let tokens: HashSet<_> = vocabulary.tokens.iter().map(String::as_str).collect();
        for merge in &vocabulary.merges {
            let (left, right) = merge.split_once(' ').unwrap();
            assert!(tokens.contains(left) && tokens.contains(right), "{merge}");
        }
    }

    #[test]
    fn a_space_and_a_line_break_are_written_as_gpt_2_writes_them() {
        assert_eq!(visible(b' '), '\u{120}');
        assert_eq!(visible(b'\n'), '\u{10a}');
        assert_eq!(visible(b'a'), 'a');
        assert_eq!(visible(0xad), '\u{143}');
    }
}
