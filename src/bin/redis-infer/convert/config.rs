//! The JSON files of a Hugging Face model directory, and the shape of the model in config.json.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Reads the JSON files of one model directory.
#[derive(Debug)]
pub struct Json {
    dir: PathBuf,
}

impl Json {
    /// Files below `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The path of a file of the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A file that may be missing.
    pub fn optional(&self, name: &str) -> Result<Option<Value>> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("{} is not valid JSON", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// A file that must be there.
    pub fn required(&self, name: &str) -> Result<Value> {
        self.optional(name)?.with_context(|| format!("{name} is missing in {}", self.dir.display()))
    }
}

/// The shape of a BERT model.
#[derive(Clone, Debug)]
pub struct Config {
    /// Length of a token's vector.
    pub width: u32,
    /// Transformer layers.
    pub layers: u32,
    /// Attention heads.
    pub heads: u32,
    /// Width of the feed-forward layers.
    pub feed_forward: u32,
    /// Positions: the longest text in tokens.
    pub positions: u32,
    /// Rows of the token-type embedding.
    pub token_types: u32,
    /// Rows of the token embedding.
    pub vocab_size: u32,
    /// Epsilon of the layer norms.
    pub norm_epsilon: f32,
    /// Whether it makes a score of two texts, and not a vector of one.
    pub cross_encoder: bool,
}

impl Config {
    /// Reads config.json and refuses what llama.cpp's `bert` architecture does not compute.
    pub fn read(json: &Json) -> Result<Self> {
        let config = json.required("config.json")?;
        supported(&config)?;
        let number = |key: &str| {
            config[key]
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .filter(|&n| n > 0)
                .with_context(|| format!("config.json: {key} is missing or not a number of at least 1"))
        };
        let result = Self {
            width: number("hidden_size")?,
            layers: number("num_hidden_layers")?,
            heads: number("num_attention_heads")?,
            feed_forward: number("intermediate_size")?,
            positions: number("max_position_embeddings")?,
            token_types: number("type_vocab_size")?,
            vocab_size: number("vocab_size")?,
            norm_epsilon: config["layer_norm_eps"].as_f64().unwrap_or(1e-12) as f32,
            cross_encoder: config["architectures"][0].as_str() == Some("BertForSequenceClassification"),
        };
        if !result.width.is_multiple_of(result.heads) {
            bail!("config.json: hidden_size is not a multiple of num_attention_heads");
        }
        Ok(result)
    }

    /// Whether the second of two texts is told apart by its token type.
    pub fn has_second_segment(&self) -> bool {
        self.cross_encoder && self.token_types > 1
    }
}

fn supported(config: &Value) -> Result<()> {
    let model_type = config["model_type"].as_str().unwrap_or("(none)");
    if model_type != "bert" {
        bail!(
            "config.json: model type '{model_type}' is not supported; convert knows 'bert' \
             (MiniLM, BGE, E5, GTE and other encoders built on BertModel, and cross-encoders as ms-marco-MiniLM)"
        );
    }
    let positions = config["position_embedding_type"].as_str().unwrap_or("absolute");
    if positions != "absolute" {
        bail!("config.json: position embeddings of type '{positions}' are not supported, only 'absolute'");
    }
    // llama.cpp computes the tanh form for all of them; the difference is below F16 rounding.
    let activation = config["hidden_act"].as_str().unwrap_or("gelu");
    if !["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python"].contains(&activation) {
        bail!("config.json: activation '{activation}' is not supported, only 'gelu' and its approximations");
    }
    Ok(())
}
