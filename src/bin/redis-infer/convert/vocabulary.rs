//! The WordPiece vocabulary, rewritten for llama.cpp, and the options of the normalizer.
//!
//! Hugging Face marks pieces inside a word with `##`; llama.cpp marks the start of a word with U+2581 and
//! leaves the others bare. Special tokens keep their text.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result, bail};
use redis_infer_gguf::Writer;
use serde_json::Value;

use super::config::Json;

/// Types of tokens, `enum llama_token_type` of llama.h.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// A vocabulary in llama.cpp's form.
#[derive(Debug)]
pub struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<i32>,
    special: Special,
    normalizer: Normalizer,
}

/// Ids of the tokens with a role.
#[derive(Debug)]
struct Special {
    cls: u32,
    sep: u32,
    unknown: u32,
    pad: Option<u32>,
    mask: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Normalizer {
    lowercase: bool,
    strip_accents: bool,
}

/// A vocabulary as it is written in the model directory.
#[derive(Debug, Default)]
struct Source {
    ids: HashMap<String, u32>,
    /// Tokens added beside the vocabulary, and whether they are special.
    added: HashMap<String, bool>,
    /// What marks a piece inside a word.
    inside: String,
}

impl Vocabulary {
    /// Reads tokenizer.json, or vocab.txt without it, for a model with `size` token vectors.
    pub fn read(json: &Json, size: u32, notes: &mut Vec<String>) -> Result<Self> {
        let tokenizer = json.optional("tokenizer.json")?;
        let config = json.optional("tokenizer_config.json")?.unwrap_or(Value::Null);
        let source = match &tokenizer {
            Some(tokenizer) => Source::from_tokenizer(tokenizer)?,
            None => Source::from_text(json)?,
        };
        let special = Special::find(&source, &config)?;
        let (tokens, types) = rewritten(&source, &special, size, notes)?;
        let mut normalizer = match &tokenizer {
            Some(tokenizer) => Normalizer::from_tokenizer(&tokenizer["normalizer"], notes),
            None => Normalizer::from_config(&config),
        };
        let sentence = json.optional("sentence_bert_config.json")?.unwrap_or(Value::Null);
        normalizer.lowercase |= sentence["do_lower_case"].as_bool().unwrap_or(false);
        Ok(Self { tokens, types, special, normalizer })
    }

    /// Adds a copy of each token, which stands for it in the second of two texts. No text is ever cut into copies: their
    /// brackets are words of their own.
    pub fn double(&mut self) {
        let copies = (0..self.tokens.len()).map(|id| format!("[SECOND_{id}]"));
        self.tokens.extend(copies.collect::<Vec<_>>());
        self.types.resize(self.tokens.len(), UNUSED);
    }

    /// Says how two texts become one: `[CLS] first [SEP] second [SEP]`. llama.cpp takes SEP for the EOS that such a
    /// vocabulary lacks.
    pub fn write_pairs(&self, writer: &mut Writer) {
        writer.bool("tokenizer.ggml.add_eos_token", true).bool("tokenizer.ggml.add_sep_token", false);
    }

    /// Adds the vocabulary to a GGUF file.
    pub fn write(&self, writer: &mut Writer, token_types: u32) {
        writer
            .string("tokenizer.ggml.model", "bert")
            .string("tokenizer.ggml.pre", "default")
            .strings("tokenizer.ggml.tokens", &self.tokens)
            .i32s("tokenizer.ggml.token_type", &self.types)
            .u32("tokenizer.ggml.token_type_count", token_types)
            // llama.cpp puts BOS in front of a text and reads no CLS id; other readers do.
            .u32("tokenizer.ggml.bos_token_id", self.special.cls)
            .u32("tokenizer.ggml.cls_token_id", self.special.cls)
            // The key is really spelt so.
            .u32("tokenizer.ggml.seperator_token_id", self.special.sep)
            .u32("tokenizer.ggml.unknown_token_id", self.special.unknown)
            .bool("tokenizer.ggml.normalizer.lowercase", self.normalizer.lowercase)
            .bool("tokenizer.ggml.normalizer.strip_accents", self.normalizer.strip_accents);
        if let Some(pad) = self.special.pad {
            writer.u32("tokenizer.ggml.padding_token_id", pad);
        }
        if let Some(mask) = self.special.mask {
            writer.u32("tokenizer.ggml.mask_token_id", mask);
        }
    }
}

impl Source {
    fn from_tokenizer(tokenizer: &Value) -> Result<Self> {
        let model = &tokenizer["model"];
        // Files of old versions leave the type out; only WordPiece has this prefix.
        let kind = match model["type"].as_str() {
            None if model["continuing_subword_prefix"].is_string() && model["vocab"].is_object() => "WordPiece",
            kind => kind.unwrap_or("(none)"),
        };
        if kind != "WordPiece" {
            bail!("tokenizer.json: a tokenizer of type '{kind}' is not supported, only 'WordPiece'");
        }
        let vocab = model["vocab"].as_object().context("tokenizer.json: model.vocab is missing")?;
        let mut source =
            Self { inside: model["continuing_subword_prefix"].as_str().unwrap_or("##").to_owned(), ..Self::default() };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        for (token, value) in vocab {
            let id = id(value).context("tokenizer.json: an id of model.vocab is not a number")?;
            source.ids.insert(token.clone(), id);
        }
        for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
            let (Some(text), Some(id)) = (added["content"].as_str(), id(&added["id"])) else {
                bail!("tokenizer.json: an added token lacks its content or id");
            };
            source.ids.insert(text.to_owned(), id);
            source.added.insert(text.to_owned(), added["special"].as_bool().unwrap_or(false));
        }
        Ok(source)
    }

    fn from_text(json: &Json) -> Result<Self> {
        let path = json.path("vocab.txt");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("tokenizer.json is missing, and so is {} or it is not UTF-8", path.display()))?;
        let mut source = Self { inside: "##".into(), ..Self::default() };
        for (line, token) in text.lines().enumerate() {
            // A token that stands twice keeps its last line, as in Hugging Face's reader.
            source.ids.insert(token.to_owned(), u32::try_from(line)?);
        }
        Ok(source)
    }
}

impl Special {
    /// The roles are named in tokenizer_config.json, as a string or as an object with `content`.
    fn find(source: &Source, config: &Value) -> Result<Self> {
        let find = |role: &str, default: &str| {
            let named = &config[role];
            let text = named.as_str().or_else(|| named["content"].as_str()).unwrap_or(default);
            source.ids.get(text).copied().with_context(|| format!("the vocabulary has no token '{text}' ({role})"))
        };
        Ok(Self {
            cls: find("cls_token", "[CLS]")?,
            sep: find("sep_token", "[SEP]")?,
            unknown: find("unk_token", "[UNK]")?,
            pad: find("pad_token", "[PAD]").ok(),
            mask: find("mask_token", "[MASK]").ok(),
        })
    }

    fn contains(&self, id: u32) -> bool {
        [Some(self.cls), Some(self.sep), Some(self.unknown), self.pad, self.mask].contains(&Some(id))
    }
}

impl Normalizer {
    fn from_tokenizer(normalizer: &Value, notes: &mut Vec<String>) -> Self {
        let mut result = Self { lowercase: false, strip_accents: false };
        result.apply(normalizer, notes);
        result
    }

    fn apply(&mut self, normalizer: &Value, notes: &mut Vec<String>) {
        match normalizer["type"].as_str() {
            None => {}
            Some("Sequence") => {
                for part in normalizer["normalizers"].as_array().into_iter().flatten() {
                    self.apply(part, notes);
                }
            }
            Some("Lowercase") => self.lowercase = true,
            Some("StripAccents") => self.strip_accents = true,
            // llama.cpp always decomposes before it strips accents.
            Some("NFD") => {}
            Some("BertNormalizer") => {
                let lowercase = normalizer["lowercase"].as_bool().unwrap_or(true);
                self.lowercase |= lowercase;
                self.strip_accents |= normalizer["strip_accents"].as_bool().unwrap_or(lowercase);
                if normalizer["handle_chinese_chars"].as_bool() == Some(false) {
                    notes.push("llama.cpp splits Chinese characters, this model's tokenizer does not".into());
                }
            }
            Some(other) => {
                notes.push(format!("the tokenizer's normalizer '{other}' is left out: llama.cpp has none like it"))
            }
        }
    }

    fn from_config(config: &Value) -> Self {
        let lowercase = config["do_lower_case"].as_bool().unwrap_or(true);
        Self { lowercase, strip_accents: config["strip_accents"].as_bool().unwrap_or(lowercase) }
    }
}

/// The tokens in order of their ids, in llama.cpp's form, with their types. Ids without a token are filled up.
fn rewritten(
    source: &Source,
    special: &Special,
    size: u32,
    notes: &mut Vec<String>,
) -> Result<(Vec<String>, Vec<i32>)> {
    let mut slots: Vec<Option<(String, i32)>> = vec![None; size as usize];
    for (text, &id) in &source.ids {
        let slot = slots
            .get_mut(id as usize)
            .with_context(|| format!("the tokenizer has the token id {id}, but config.json a vocab_size of {size}"))?;
        *slot = Some(match source.added.get(text) {
            _ if special.contains(id) => (text.clone(), CONTROL),
            Some(true) => (text.clone(), CONTROL),
            Some(false) => (text.clone(), USER_DEFINED),
            None => (with_word_start(text, &source.inside), NORMAL),
        });
    }
    let (mut tokens, mut types) = (Vec::new(), Vec::new());
    let mut seen = HashMap::new();
    for (id, slot) in slots.into_iter().enumerate() {
        // A text with brackets is never found in the middle of a word: punctuation ends words.
        let (mut text, kind) = slot.unwrap_or_else(|| (format!("[UNUSED_{id}]"), UNUSED));
        // llama.cpp aborts when two tokens have one text.
        if let Some(first) = seen.insert(text.clone(), id) {
            notes.push(format!("tokens {first} and {id} are the same to llama.cpp; {id} is never used"));
            seen.insert(text, first);
            text = format!("[DUPLICATE_{id}]");
        }
        tokens.push(text);
        types.push(kind);
    }
    Ok((tokens, types))
}

fn with_word_start(token: &str, inside: &str) -> String {
    match token.strip_prefix(inside) {
        Some(piece) if !piece.is_empty() && !inside.is_empty() => piece.to_owned(),
        _ => format!("\u{2581}{token}"),
    }
}
