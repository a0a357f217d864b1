//! A tiny model directory for tests.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use redis_infer_gguf::{check_file, read_strings};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::convert::{Arguments, Format, Outcome, convert};

pub const WIDTH: usize = 4;
pub const FEED_FORWARD: usize = 6;
pub const POSITIONS: usize = 8;
pub const TOKENS: [&str; 10] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "hello", "##lo", "."];
/// One more row than tokens, as in models whose vocabulary is padded.
pub const VOCAB: usize = TOKENS.len() + 1;

/// A model directory that tests change before they convert it.
pub struct Model {
    folder: TempDir,
    pub tensors: HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Model {
    pub fn new() -> Self {
        let mut model = Self { folder: tempfile::tempdir().unwrap(), tensors: HashMap::new() };
        model.json("config.json", &config());
        model.json("tokenizer.json", &tokenizer());
        model.json("modules.json", &modules("Pooling"));
        model.json("1_Pooling/config.json", &json!({"pooling_mode_mean_tokens": true}));
        model.json("sentence_bert_config.json", &json!({"max_seq_length": 5, "do_lower_case": false}));
        model.add_tensors("");
        model
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("tiny-model")
    }

    pub fn json(&self, name: &str, value: &Value) {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value.to_string()).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.dir().join(name)).unwrap();
    }

    pub fn tensor(&mut self, name: &str, shape: &[usize]) {
        // Every value tells its place, and the first of each tensor its name.
        let start = name.len() as f32;
        let bytes =
            (0..shape.iter().product::<usize>()).flat_map(|place| (start + place as f32 / 8.0).to_le_bytes()).collect();
        self.tensors.insert(name.to_owned(), (Dtype::F32, shape.to_vec(), bytes));
    }

    pub fn add_tensors(&mut self, prefix: &str) {
        let mut add = |name: &str, shape: &[usize]| self.tensor(&format!("{prefix}{name}"), shape);
        add("embeddings.word_embeddings.weight", &[VOCAB, WIDTH]);
        add("embeddings.position_embeddings.weight", &[POSITIONS, WIDTH]);
        add("embeddings.token_type_embeddings.weight", &[2, WIDTH]);
        add("embeddings.LayerNorm.weight", &[WIDTH]);
        add("embeddings.LayerNorm.bias", &[WIDTH]);
        add("pooler.dense.weight", &[WIDTH, WIDTH]);
        for (module, weight, bias) in [
            ("attention.self.query", vec![WIDTH, WIDTH], WIDTH),
            ("attention.self.key", vec![WIDTH, WIDTH], WIDTH),
            ("attention.self.value", vec![WIDTH, WIDTH], WIDTH),
            ("attention.output.dense", vec![WIDTH, WIDTH], WIDTH),
            ("attention.output.LayerNorm", vec![WIDTH], WIDTH),
            ("intermediate.dense", vec![FEED_FORWARD, WIDTH], FEED_FORWARD),
            ("output.dense", vec![WIDTH, FEED_FORWARD], WIDTH),
            ("output.LayerNorm", vec![WIDTH], WIDTH),
        ] {
            add(&format!("encoder.layer.0.{module}.weight"), &weight);
            add(&format!("encoder.layer.0.{module}.bias"), &[bias]);
        }
    }

    pub fn arguments(&self) -> Arguments {
        Arguments {
            model_dir: self.dir(),
            out: self.folder.path().join("out.gguf"),
            force: false,
            name: None,
            pooling: None,
            format: Format::F16,
        }
    }

    pub fn convert_with(&self, arguments: &Arguments) -> Result<Outcome> {
        let views = self
            .tensors
            .iter()
            .map(|(name, (kind, shape, bytes))| (name, TensorView::new(*kind, shape.clone(), bytes).unwrap()));
        fs::write(self.dir().join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
        convert(arguments)
    }

    pub fn convert(&self) -> Result<Outcome> {
        self.convert_with(&self.arguments())
    }

    #[track_caller]
    pub fn refused_with(&self, text: &str) {
        let error = format!("{:#}", self.convert().unwrap_err());
        assert!(error.contains(text), "{error}");
        assert!(!self.arguments().out.exists(), "nothing is written");
    }

    /// The bytes of a converted tensor.
    pub fn written(&self, name: &str) -> Vec<u8> {
        let header = check_file(&self.arguments().out).unwrap();
        let tensor = header.tensor(name).unwrap();
        let start = (header.data_offset + tensor.offset) as usize;
        let bytes = fs::read(&self.arguments().out).unwrap();
        bytes[start..start + tensor.size.unwrap() as usize].to_vec()
    }

    pub fn tokens(&self) -> Vec<String> {
        read_strings(&self.arguments().out, "tokenizer.ggml.tokens").unwrap()
    }
}

pub fn config() -> Value {
    json!({
        "model_type": "bert", "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": FEED_FORWARD, "max_position_embeddings": POSITIONS, "type_vocab_size": 2,
        "vocab_size": VOCAB, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "position_embedding_type": "absolute"
    })
}

pub fn tokenizer() -> Value {
    let vocab: serde_json::Map<_, _> = TOKENS.iter().enumerate().map(|(id, t)| (t.to_string(), id.into())).collect();
    let added: Vec<_> = (0..5).map(|id| json!({"id": id, "content": TOKENS[id], "special": true})).collect();
    json!({
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": vocab},
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "lowercase": true, "strip_accents": null}
    })
}

pub fn modules(second: &str) -> Value {
    json!([
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": format!("sentence_transformers.models.{second}")}
    ])
}
