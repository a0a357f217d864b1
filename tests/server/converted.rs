//! A cross-encoder in Hugging Face layout, made by `redis-infer convert` and then used.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cross_encoder::CrossEncoder;
use crate::harness::{Server, array, cmd, float, int, report, text};
use crate::program::program;

const TOKENS: [&str; 12] =
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "paris", "france", "city", "of"];
const WIDTH: usize = 32;
const WIDE: usize = 64;
const LAYERS: usize = 2;
const POSITIONS: usize = 32;

/// Tensors with their shapes, in the names of BertForSequenceClassification.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![
        ("bert.embeddings.word_embeddings.weight".to_owned(), vec![TOKENS.len(), WIDTH]),
        ("bert.embeddings.position_embeddings.weight".to_owned(), vec![POSITIONS, WIDTH]),
        ("bert.embeddings.token_type_embeddings.weight".to_owned(), vec![2, WIDTH]),
    ];
    let mut module = |name: String, shape: Vec<usize>| {
        tensors.push((format!("{name}.bias"), vec![shape[0]]));
        tensors.push((format!("{name}.weight"), shape));
    };
    module("bert.embeddings.LayerNorm".to_owned(), vec![WIDTH]);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("bert.encoder.layer.{layer}.{part}");
        for part in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
            module(name(part), vec![WIDTH, WIDTH]);
        }
        module(name("attention.output.LayerNorm"), vec![WIDTH]);
        module(name("intermediate.dense"), vec![WIDE, WIDTH]);
        module(name("output.dense"), vec![WIDTH, WIDE]);
        module(name("output.LayerNorm"), vec![WIDTH]);
    }
    module("bert.pooler.dense".to_owned(), vec![WIDTH, WIDTH]);
    module("classifier".to_owned(), vec![1, WIDTH]);
    tensors
}

/// A safetensors file of these tensors with random values.
fn safetensors() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(11);
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in tensors() {
        let start = data.len();
        let scale = if shape.len() == 2 { 1.5 / (shape[1] as f32).sqrt() } else { 0.2 };
        // Norms multiply by about 1.
        let around = f32::from(name.ends_with("LayerNorm.weight"));
        for _ in 0..shape.iter().product::<usize>() {
            data.extend((around + (random.f32() * 2.0 - 1.0) * scale * 1.7).to_le_bytes());
        }
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::Object(header).to_string().into_bytes();
    [(header.len() as u64).to_le_bytes().to_vec(), header, data].concat()
}

fn model_directory(folder: &Path) -> PathBuf {
    let directory = folder.join("tiny-cross-encoder");
    std::fs::create_dir(&directory).unwrap();
    let config = json!({
        "model_type": "bert", "architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"},
        "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": WIDE,
        "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "vocab_size": TOKENS.len(), "hidden_act": "gelu"
    });
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    std::fs::write(directory.join("vocab.txt"), TOKENS.join("\n")).unwrap();
    std::fs::write(directory.join("model.safetensors"), safetensors()).unwrap();
    directory
}

#[test]
fn a_converted_cross_encoder_scores_pairs_with_both_its_segments() {
    let mut server = Server::start();
    let mut client = server.client();
    let (from, to) = (model_directory(server.folder()), server.folder().join("tiny.gguf"));
    let arguments = ["convert", from.to_str().unwrap(), to.to_str().unwrap(), "--format", "f32"];
    let converted = program(&server, &arguments).output().unwrap();
    let printed = String::from_utf8_lossy(&converted.stdout);
    assert!(converted.status.success() && printed.contains("rank pooling"), "{converted:?}");
    client.ok(&cmd!["INFER.LOAD", "rank", to.to_str().unwrap()]);
    let facts = client.ok(&cmd!["INFER.MODEL", "rank"]);
    assert_eq!(text(crate::harness::field(&facts, "type")), "reranking");

    let reference = CrossEncoder::open(&to);
    let (query, texts) =
        ("the city of france", ["paris", "the cat of the dog", "cat dog cat dog cat dog", "paris paris"]);
    let reply = client.ok(&cmd!["INFER.RERANK", "rank", query, texts.len(), &texts]);
    let (mut largest, mut segments_matter) = (0.0_f64, 0.0_f64);
    for pair in array(&reply) {
        let (text, score) = (texts[usize::try_from(int(&array(pair)[0])).unwrap()], float(&array(pair)[1]));
        let expected = reference.score(query, text, [0, 1]);
        largest = largest.max((score - expected).abs());
        segments_matter = segments_matter.max((reference.score(query, text, [0, 0]) - expected).abs());
    }
    report(&format!("largest difference from the reference: {largest:.1e}, of segments: {segments_matter:.1e}"));
    assert!(largest < 2e-3 && segments_matter > 0.1, "{largest} {segments_matter}");
    // The copies of tokens for the second segment are in no text.
    let tokens = client.ok(&cmd!["INFER.TOKENIZE", "rank", "[SECOND_5] second 5 cat"]);
    assert!(array(&tokens).iter().all(|id| int(id) < TOKENS.len() as i64), "{tokens:?}");
    server.assert_alive();
}
