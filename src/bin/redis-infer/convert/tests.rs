//! Converts tiny models made here and reads the result back.

mod model;

use std::fs;

use half::f16;
use redis_infer_gguf::{TensorType, check_file};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::*;
use model::{Model, TOKENS, WIDTH, config, modules, tokenizer};

/// `value` with one entry changed.
fn with(mut value: Value, key: &str, new: Value) -> Value {
    value[key] = new;
    value
}

#[test]
fn the_metadata_is_what_llama_cpp_reads() {
    let model = Model::new();
    let outcome = model.convert().unwrap();
    let header = &outcome.header;
    assert_eq!(header.architecture(), Some("bert"));
    assert_eq!(header.get_str("general.name"), Some("tiny-model"));
    for (key, value) in [
        ("general.file_type", 1),
        ("bert.block_count", 1),
        ("bert.context_length", 8),
        ("bert.embedding_length", 4),
        ("bert.feed_forward_length", 6),
        ("bert.attention.head_count", 2),
        ("bert.pooling_type", 1),
        ("tokenizer.ggml.token_type_count", 2),
        ("tokenizer.ggml.bos_token_id", 2),
        ("tokenizer.ggml.seperator_token_id", 3),
        ("tokenizer.ggml.unknown_token_id", 1),
        ("tokenizer.ggml.padding_token_id", 0),
        ("tokenizer.ggml.mask_token_id", 4),
        ("redis_infer.max_seq_length", 5),
    ] {
        assert_eq!(header.get_u32(key), Some(value), "{key}");
    }
    assert_eq!(header.get_str("tokenizer.ggml.model"), Some("bert"));
    assert_eq!(header.get_bool("bert.attention.causal"), Some(false));
    assert_eq!(header.get_bool("tokenizer.ggml.normalizer.lowercase"), Some(true));
    assert_eq!(header.get_bool("tokenizer.ggml.normalizer.strip_accents"), Some(true));
    let epsilon = header.metadata["bert.attention.layer_norm_epsilon"].as_f64().unwrap();
    assert!((epsilon - 1e-12).abs() < 1e-18);
    assert!(outcome.notes.is_empty(), "{:?}", outcome.notes);
}

#[test]
fn word_starts_are_marked_and_pieces_are_bare() {
    let model = Model::new();
    model.convert().unwrap();
    let expected = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "\u{2581}a",
        "a",
        "\u{2581}hello",
        "lo",
        "\u{2581}.",
        "[UNUSED_10]",
    ];
    assert_eq!(model.tokens(), expected);
    let header = check_file(&model.arguments().out).unwrap();
    assert_eq!(header.metadata["tokenizer.ggml.token_type"].as_array().unwrap().len, 11);
}

#[test]
fn matrices_become_f16_and_the_rest_stays_f32() {
    let model = Model::new();
    let header = model.convert().unwrap().header;
    assert_eq!(header.tensors.len(), 5 + 16, "the pooler is left behind");
    for tensor in &header.tensors {
        let matrix = tensor.name == "token_embd.weight" || (tensor.name.starts_with("blk.") && tensor.dims.len() == 2);
        let expected = if matrix { TensorType::F16 } else { TensorType::F32 };
        assert_eq!(tensor.kind, expected, "{}", tensor.name);
    }
    assert_eq!(header.tensor("position_embd.weight").unwrap().dims, [4, 8]);
    assert_eq!(header.tensor("blk.0.ffn_up.weight").unwrap().dims, [4, 6]);
    assert_eq!(header.tensor("blk.0.ffn_down.weight").unwrap().dims, [6, 4]);
}

#[test]
fn values_keep_their_order_under_their_new_names() {
    let model = Model::new();
    model.convert().unwrap();
    for (target, source) in [
        ("blk.0.attn_q.weight", "encoder.layer.0.attention.self.query.weight"),
        ("blk.0.attn_k.weight", "encoder.layer.0.attention.self.key.weight"),
        ("blk.0.attn_v.weight", "encoder.layer.0.attention.self.value.weight"),
        ("blk.0.attn_output.weight", "encoder.layer.0.attention.output.dense.weight"),
        ("blk.0.ffn_up.weight", "encoder.layer.0.intermediate.dense.weight"),
        ("blk.0.ffn_down.weight", "encoder.layer.0.output.dense.weight"),
        ("token_embd.weight", "embeddings.word_embeddings.weight"),
    ] {
        let halves: Vec<u8> = floats_of(&model, source).iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        assert_eq!(model.written(target), halves, "{target}");
    }
    for (target, source) in [
        ("blk.0.attn_output_norm.bias", "encoder.layer.0.attention.output.LayerNorm.bias"),
        ("blk.0.layer_output_norm.weight", "encoder.layer.0.output.LayerNorm.weight"),
        ("token_embd_norm.weight", "embeddings.LayerNorm.weight"),
        ("token_types.weight", "embeddings.token_type_embeddings.weight"),
    ] {
        assert_eq!(model.written(target), model.tensors[source].2, "{target}");
    }
}

fn floats_of(model: &Model, name: &str) -> Vec<f32> {
    model.tensors[name].2.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn half_precision_weights_below_a_prefix_with_old_norm_names_are_read() {
    let mut model = Model::new();
    let plain = model.convert().map(|_| fs::read(&model.arguments().out).unwrap()).unwrap();
    let old = std::mem::take(&mut model.tensors);
    for (name, (_, shape, bytes)) in old {
        let name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        let halves =
            bytes.as_chunks::<4>().0.iter().flat_map(|b| f16::from_f32(f32::from_le_bytes(*b)).to_le_bytes()).collect();
        model.tensors.insert(format!("bert.{name}"), (Dtype::F16, shape, halves));
    }
    let mut arguments = model.arguments();
    arguments.force = true;
    model.convert_with(&arguments).unwrap();
    assert!(fs::read(&arguments.out).unwrap() == plain, "the values fit F16, so the files are equal");
}

#[test]
fn vocab_txt_serves_without_a_tokenizer_json() {
    let model = Model::new();
    model.convert().unwrap();
    let expected = model.tokens();
    model.remove("tokenizer.json");
    fs::write(model.dir().join("vocab.txt"), TOKENS.join("\n") + "\n").unwrap();
    model.json("tokenizer_config.json", &json!({"do_lower_case": false, "cls_token": {"content": "[CLS]"}}));
    let mut arguments = model.arguments();
    arguments.force = true;
    let header = model.convert_with(&arguments).unwrap().header;
    assert_eq!(model.tokens(), expected);
    assert_eq!(header.get_bool("tokenizer.ggml.normalizer.lowercase"), Some(false));
}

#[test]
fn an_existing_file_is_replaced_only_by_force() {
    let model = Model::new();
    fs::write(model.arguments().out, "mine").unwrap();
    let error = model.convert().unwrap_err().to_string();
    assert!(error.contains("--force"), "{error}");
    assert_eq!(fs::read(model.arguments().out).unwrap(), b"mine");
}

#[test]
fn the_pooling_comes_from_the_configuration_or_the_command_line() {
    let pooling = |config: Value, asked| {
        let model = Model::new();
        model.json("1_Pooling/config.json", &config);
        let mut arguments = model.arguments();
        arguments.pooling = asked;
        model.convert_with(&arguments).map(|outcome| outcome.header.get_u32("bert.pooling_type").unwrap())
    };
    assert_eq!(pooling(json!({"pooling_mode_cls_token": true, "include_prompt": true}), None).unwrap(), 2);
    assert_eq!(pooling(json!({"pooling_mode": "lasttoken"}), None).unwrap(), 3);
    assert_eq!(pooling(json!({"pooling_mode_cls_token": true}), Some(Pooling::Mean)).unwrap(), 1);
    let error = |config| pooling(config, None).unwrap_err().to_string();
    assert!(error(json!({"pooling_mode_max_tokens": true})).contains("'max_tokens' is not supported"));
    assert!(error(json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true})).contains("joins"));
    assert!(error(json!({})).contains("--pooling"));
}

#[test]
fn a_model_without_pooling_configuration_gets_the_mean_and_a_note() {
    let model = Model::new();
    model.remove("1_Pooling/config.json");
    model.remove("modules.json");
    let outcome = model.convert().unwrap();
    assert_eq!(outcome.pooling, Pooling::Mean);
    assert!(outcome.notes[0].contains("1_Pooling/config.json is missing"), "{:?}", outcome.notes);
}

#[test]
fn a_module_that_would_be_lost_is_refused() {
    let model = Model::new();
    model.json("modules.json", &modules("Dense"));
    model.refused_with("a module 'Dense'");
}

/// The model as a cross-encoder with so many labels.
fn cross_encoder(labels: usize) -> Model {
    let mut model = Model::new();
    model.json("config.json", &with(config(), "architectures", json!(["BertForSequenceClassification"])));
    model.remove("1_Pooling/config.json");
    model.remove("modules.json");
    model.tensor("pooler.dense.bias", &[WIDTH]);
    let old: Vec<(String, _)> = model.tensors.drain().collect();
    model.tensors.extend(old.into_iter().map(|(name, tensor)| (format!("bert.{name}"), tensor)));
    model.tensor("classifier.weight", &[labels, WIDTH]);
    model.tensor("classifier.bias", &[labels]);
    model
}

#[test]
fn a_cross_encoder_keeps_what_makes_its_score() {
    let model = cross_encoder(1);
    let header = model.convert().unwrap().header;
    assert_eq!(header.get_u32("bert.pooling_type"), Some(4));
    assert_eq!(header.get_bool("tokenizer.ggml.add_eos_token"), Some(true));
    assert_eq!(header.get_bool("tokenizer.ggml.add_sep_token"), Some(false));
    for (name, dims) in [("cls.weight", &[4_u64, 4][..]), ("cls.output.weight", &[4, 1]), ("cls.output.bias", &[1])] {
        assert_eq!(header.tensor(name).unwrap().dims, dims, "{name}");
    }
    assert_eq!(model.written("cls.bias"), model.tensors["bert.pooler.dense.bias"].2);
    assert_eq!(model.written("cls.output.bias"), model.tensors["classifier.bias"].2);
}

#[test]
fn each_token_of_a_cross_encoder_has_a_copy_for_the_second_segment() {
    let model = cross_encoder(1);
    let mut arguments = model.arguments();
    arguments.format = Format::F32;
    let header = model.convert_with(&arguments).unwrap().header;
    assert_eq!(header.get_u32(SECOND_SEGMENT), Some(11));
    let tokens = model.tokens();
    assert_eq!((tokens.len(), tokens[11].as_str(), tokens[21].as_str()), (22, "[SECOND_0]", "[SECOND_10]"));
    let floats = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>();
    let (words, types) = (floats(&model.written("token_embd.weight")), floats(&model.written("token_types.weight")));
    let (first, second) = words.split_at(11 * WIDTH);
    for (place, (first, second)) in first.iter().zip(second).enumerate() {
        let difference = types[WIDTH + place % WIDTH] - types[place % WIDTH];
        assert!((second - first - difference).abs() < 1e-5, "{place}");
    }
}

#[test]
fn a_cross_encoder_without_token_types_needs_no_copies() {
    let mut model = cross_encoder(1);
    let config = with(config(), "architectures", json!(["BertForSequenceClassification"]));
    model.json("config.json", &with(config, "type_vocab_size", json!(1)));
    model.tensor("bert.embeddings.token_type_embeddings.weight", &[1, WIDTH]);
    let header = model.convert().unwrap().header;
    assert_eq!((header.get_u32(SECOND_SEGMENT), model.tokens().len()), (None, 11));
}

#[test]
fn what_is_no_cross_encoder_after_all_is_refused() {
    cross_encoder(3).refused_with("a classifier with 3 labels; a cross-encoder has one");
    let mut model = cross_encoder(1);
    model.tensors.remove("bert.pooler.dense.bias");
    model.refused_with("the tensor pooler.dense.bias is missing");
    let model = cross_encoder(1);
    let mut arguments = model.arguments();
    arguments.pooling = Some(Pooling::Mean);
    let error = model.convert_with(&arguments).unwrap_err().to_string();
    assert!(error.contains("leave out --pooling"), "{error}");
}

#[test]
fn two_tokens_that_llama_cpp_cannot_tell_apart_get_a_note() {
    let model = Model::new();
    let mut tokenizer = tokenizer();
    tokenizer["model"]["vocab"]["##\u{2581}a"] = 10.into();
    model.json("tokenizer.json", &tokenizer);
    let outcome = model.convert().unwrap();
    assert_eq!(model.tokens()[10], "[DUPLICATE_10]");
    assert!(outcome.notes[0].contains("tokens 5 and 10"), "{:?}", outcome.notes);
}

#[test]
fn a_missing_file_is_named() {
    for (name, message) in [("config.json", "config.json is missing"), ("tokenizer.json", "vocab.txt")] {
        let model = Model::new();
        model.remove(name);
        model.refused_with(message);
    }
    let model = Model::new();
    let error = format!("{:#}", convert(&model.arguments()).unwrap_err());
    assert!(error.contains("model.safetensors is missing"), "{error}");
}

#[test]
fn a_path_that_is_no_model_directory_is_refused() {
    let model = Model::new();
    let mut arguments = model.arguments();
    arguments.model_dir = model.dir().join("config.json");
    let error = convert(&arguments).unwrap_err().to_string();
    assert!(error.contains("is not a directory"), "{error}");
    arguments.model_dir = model.dir().join("nothing");
    assert!(convert(&arguments).unwrap_err().to_string().contains("cannot read"));
}

#[test]
fn another_architecture_is_refused_with_the_one_that_is_supported() {
    let model = Model::new();
    model.json("config.json", &with(config(), "model_type", json!("roberta")));
    model.refused_with("model type 'roberta' is not supported; convert knows 'bert'");
    model.json("config.json", &with(config(), "position_embedding_type", json!("relative_key")));
    model.refused_with("relative_key");
    model.json("config.json", &with(config(), "hidden_act", json!("relu")));
    model.refused_with("activation 'relu'");
    model.json("config.json", &with(config(), "num_attention_heads", json!(3)));
    model.refused_with("not a multiple");
    model.json("config.json", &with(config(), "hidden_size", json!("four")));
    model.refused_with("hidden_size is missing or not a number");
}

#[test]
fn another_tokenizer_is_refused() {
    let model = Model::new();
    let mut bpe = tokenizer();
    bpe["model"]["type"] = json!("BPE");
    model.json("tokenizer.json", &bpe);
    model.refused_with("a tokenizer of type 'BPE'");
    fs::write(model.dir().join("tokenizer.json"), "{").unwrap();
    model.refused_with("tokenizer.json is not valid JSON");
    model.json("tokenizer.json", &tokenizer());
    model.json("tokenizer_config.json", &json!({"cls_token": "<s>"}));
    model.refused_with("no token '<s>' (cls_token)");
    model.json("tokenizer_config.json", &json!({}));
    model.json("config.json", &with(config(), "vocab_size", json!(9)));
    model.refused_with("vocab_size of 9");
}

#[test]
fn a_missing_or_misshapen_tensor_is_named() {
    const NAME: &str = "encoder.layer.0.output.dense.weight";
    let mut model = Model::new();
    model.tensor(NAME, &[WIDTH, WIDTH]);
    model.refused_with("encoder.layer.0.output.dense.weight has the shape [4, 4], but config.json asks for [4, 6]");
    model.tensors.remove(NAME);
    model.refused_with("the tensor encoder.layer.0.output.dense.weight is missing");
    model.tensors.clear();
    model.refused_with("the tensor embeddings.word_embeddings.weight is missing");
}

#[test]
fn elements_that_cannot_be_converted_are_refused() {
    const NAME: &str = "encoder.layer.0.output.dense.weight";
    let mut model = Model::new();
    model.tensors.insert(NAME.into(), (Dtype::I8, vec![4, 6], vec![0; 24]));
    model.refused_with("elements of type I8 are not supported");
    let filled = |value: f32| (Dtype::F32, vec![4, 6], value.to_le_bytes().repeat(24));
    model.tensors.insert(NAME.into(), filled(f32::NAN));
    model.refused_with("not a finite number");
    model.tensors.insert(NAME.into(), filled(70_000.0));
    model.refused_with("too large for F16; pass --format f32");
    let mut arguments = model.arguments();
    arguments.format = Format::F32;
    assert_eq!(model.convert_with(&arguments).unwrap().header.get_u32("general.file_type"), Some(0));
}

#[test]
fn a_damaged_safetensors_file_is_refused() {
    let model = Model::new();
    fs::write(model.dir().join("model.safetensors"), "garbage").unwrap();
    let error = format!("{:#}", convert(&model.arguments()).unwrap_err());
    assert!(error.contains("not a sound safetensors file"), "{error}");
}
