//! Well-formed headers on which llama.cpp would abort.

use crate::raw::{Raw, minimal};

/// A header with a string array of tokens after `pairs` more pairs.
fn with_tokens(model: &str, pairs: u64, tokens: &[&str]) -> Raw {
    let start = Raw::new(3, 0, 3 + pairs)
        .string_pair("general.architecture", "bert")
        .string_pair("tokenizer.ggml.model", model)
        .text("tokenizer.ggml.tokens")
        .u32(9)
        .u32(8)
        .u64(tokens.len() as u64);
    tokens.iter().fold(start, |raw, token| raw.text(token))
}

fn five() -> [&'static str; 5] {
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"]
}

fn i32s(raw: Raw, key: &str, values: &[i32]) -> Raw {
    let start = raw.text(key).u32(9).u32(5).u64(values.len() as u64);
    values.iter().fold(start, |raw, value| raw.add(&value.to_le_bytes()))
}

#[test]
fn a_model_without_architecture_or_tokenizer_is_refused() {
    let refusal = Raw::new(3, 0, 0).refusal();
    assert!(refusal.contains("general.architecture"), "{refusal}");
    let refusal = Raw::new(3, 0, 1).string_pair("general.architecture", "llama").refusal();
    assert!(refusal.contains("no tokenizer"), "{refusal}");
    let none =
        Raw::new(3, 0, 2).string_pair("general.architecture", "llama").string_pair("tokenizer.ggml.model", "none");
    assert!(none.refusal().contains("no tokenizer"));
}

#[test]
fn layer_numbers_out_of_range_are_refused() {
    for layers in [0, 513, u32::MAX] {
        let refusal = minimal(0, 1).u32_pair("llama.block_count", layers).refusal();
        assert!(refusal.contains("1 to 512"), "{refusal}");
    }
    let raw = minimal(0, 2).u32_pair("llama.block_count", 4).u32_pair("llama.nextn_predict_layers", 5);
    assert!(raw.refusal().contains("nextn"));
}

#[test]
fn an_epsilon_that_is_negative_or_no_number_is_refused() {
    for epsilon in [-1e-5_f32, f32::NAN, f32::INFINITY] {
        let raw = minimal(0, 1).text("llama.attention.layer_norm_rms_epsilon").u32(6).add(&epsilon.to_le_bytes());
        let refusal = raw.refusal();
        assert!(refusal.contains("layer_norm_rms_epsilon is not between 0 and 1"), "{refusal}");
    }
}

#[test]
fn a_context_that_is_no_signed_number_is_refused() {
    for length in [1 << 31, u32::MAX] {
        let refusal = minimal(0, 1).u32_pair("llama.context_length", length).refusal();
        assert!(refusal.contains(&format!("a context of {length} tokens")), "{refusal}");
    }
    assert!(minimal(0, 1).u32_pair("llama.context_length", i32::MAX as u32).check().is_ok());
}

#[test]
fn settings_that_are_no_numbers_and_bases_that_make_none_are_refused() {
    let with = |key: &str, value: f32| minimal(0, 1).text(key).u32(6).add(&value.to_le_bytes());
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert!(with("llama.rope.scaling.factor", value).refusal().contains("rope.scaling.factor' is"));
    }
    for base in [0.0, -1.0] {
        assert!(with("llama.rope.freq_base", base).refusal().contains("'rope.freq_base' is"));
        assert!(with("llama.rope.freq_base_swa", base).refusal().contains("'rope.freq_base_swa' is"));
    }
    assert!(with("llama.rope.freq_base", 1e11).check().is_ok());
    assert!(with("general.something", f32::NAN).check().is_ok());
}

#[test]
fn tensors_of_types_with_which_nothing_can_be_computed_are_refused() {
    for kind in [24, 26, 28] {
        let bytes = [1, 0, 4, 0, 8][kind as usize - 24] * 64;
        let refusal = minimal(1, 0).tensor("blk.0.attn_q.weight", &[8, 8], kind, 0).data(bytes).refusal();
        assert!(refusal.contains("tensor 'blk.0.attn_q.weight' is of the type"), "{refusal}");
    }
    assert!(minimal(1, 0).tensor("blk.0.attn_q.weight", &[8, 8], 1, 0).data(128).check().is_ok());
    assert!(minimal(1, 0).tensor("blk.0.ffn_gate_tid2eid.weight", &[8, 8], 26, 0).data(256).check().is_ok());
    let vector = |kind: u32, bytes| minimal(1, 0).tensor("blk.0.attn_norm.weight", &[8], kind, 0).data(bytes);
    assert!(vector(1, 16).refusal().contains("is of the type F16"));
    assert!(vector(0, 32).check().is_ok());
}

#[test]
fn an_unknown_pooling_is_refused() {
    let refusal = minimal(0, 1).u32_pair("llama.pooling_type", 5).refusal();
    assert!(refusal.contains("unknown pooling type 5"), "{refusal}");
}

#[test]
fn a_head_of_a_type_that_cannot_be_computed_with_is_refused() {
    let with = |name, dims: &[u64], kind| minimal(1, 0).tensor(name, dims, kind, 0).data(1024);
    for (name, dims, kind) in [
        ("cls.output.weight", &[32, 1][..], 26),
        ("cls.weight", &[32, 2], 28),
        ("cls.bias", &[2], 1),
        ("cls.norm.weight", &[32], 8),
    ] {
        let refusal = with(name, dims, kind).refusal();
        assert!(refusal.contains(&format!("tensor {name} has an element type")), "{refusal}");
    }
    for (name, dims, kind) in [("cls.output.weight", &[32][..], 8), ("cls.weight", &[32, 2], 1), ("cls.bias", &[2], 0)]
    {
        assert!(with(name, dims, kind).check().is_ok(), "{name}");
    }
}

#[test]
fn decision_blocks_behind_pooling_rank_are_refused() {
    let with =
        |pooling| minimal(0, 2).u32_pair("llama.pooling_type", pooling).u32_pair("llama.decision.block_count", 1);
    assert!(with(1).check().is_ok());
    assert!(with(4).refusal().contains("decision blocks"));
}

#[test]
fn expert_numbers_that_do_not_agree_are_refused() {
    let with = |experts, used, groups, groups_used| {
        minimal(0, 4)
            .u32_pair("llama.expert_count", experts)
            .u32_pair("llama.expert_used_count", used)
            .u32_pair("llama.expert_group_count", groups)
            .u32_pair("llama.expert_group_used_count", groups_used)
    };
    for bad in [
        (0, 1, 0, 0),
        (8, 0, 0, 0),
        (8, 9, 0, 0),
        (2000, 1, 0, 0),
        (8, 2, 3, 1),
        (8, 2, 4, 0),
        (8, 2, 4, 4),
        (8, 2, 8, 2),
    ] {
        let raw = with(bad.0, bad.1, bad.2, bad.3);
        assert!(raw.refusal().contains("expert numbers"), "{bad:?}");
    }
    for good in [(0, 0, 0, 0), (8, 2, 0, 0), (8, 2, 1, 0), (8, 2, 4, 2)] {
        assert!(with(good.0, good.1, good.2, good.3).check().is_ok(), "{good:?}");
    }
}

#[test]
fn an_expert_number_per_layer_counts_with_its_largest() {
    let raw = i32s(minimal(0, 2).u32_pair("llama.expert_count", 4), "llama.expert_used_count", &[2, 5]);
    assert!(raw.refusal().contains("5 used"));
}

#[test]
fn an_unknown_rope_scaling_is_refused() {
    assert!(minimal(0, 1).string_pair("llama.rope.scaling.type", "yarn").check().is_ok());
    let refusal = minimal(0, 1).string_pair("llama.rope.scaling.type", "su").refusal();
    assert!(refusal.contains("'su'"), "{refusal}");
}

#[test]
fn a_token_that_stands_twice_is_refused() {
    let refusal = with_tokens("test", 0, &["a", "b", "a"]).refusal();
    assert!(refusal.contains("token 2"), "{refusal}");
    assert!(with_tokens("test", 0, &["a\0b", "a\0c"]).check().is_err(), "read as C strings");
    assert!(with_tokens("test", 0, &["", ""]).check().is_ok(), "renamed by llama.cpp");
    assert!(with_tokens("test", 0, &["[EMPTY_1]", ""]).check().is_err());
}

#[test]
fn a_wordpiece_vocabulary_needs_cls_and_sep() {
    let with = |bos, sep| {
        with_tokens("bert", 2, &five())
            .u32_pair("tokenizer.ggml.bos_token_id", bos)
            .u32_pair("tokenizer.ggml.seperator_token_id", sep)
    };
    assert!(with(2, 3).check().is_ok());
    assert!(with(2, 9).refusal().contains("[SEP]"));
    assert!(with_tokens("bert", 0, &five()).refusal().contains("[CLS]"), "101 is out of range");
}

#[test]
fn a_wordpiece_vocabulary_has_no_byte_tokens() {
    let with = |kind| {
        let raw = with_tokens("bert", 3, &five())
            .u32_pair("tokenizer.ggml.bos_token_id", 2)
            .u32_pair("tokenizer.ggml.seperator_token_id", 3);
        i32s(raw, "tokenizer.ggml.token_type", &[3, 3, 3, 3, kind])
    };
    assert!(with(1).check().is_ok());
    assert!(with(6).refusal().contains("byte tokens"));
}

#[test]
fn a_tokenizer_must_have_the_special_tokens_it_adds() {
    assert!(with_tokens("llama", 0, &five()).check().is_ok(), "BOS 1 exists");
    assert!(with_tokens("llama", 0, &["a"]).refusal().contains("BOS"));
    assert!(with_tokens("gpt2", 0, &five()).refusal().contains("BOS"), "BOS 11 is out of range");
    let raw = with_tokens("gpt2", 1, &five()).text("tokenizer.ggml.add_bos_token").u32(7).add(&[0]);
    assert!(raw.check().is_ok(), "no BOS is added");
    let raw = with_tokens("t5", 1, &five()).u32_pair("tokenizer.ggml.eos_token_id", 70);
    assert!(raw.check().is_ok(), "an id out of range falls back to the default");
    assert!(with_tokens("t5", 0, &["a"]).refusal().contains("EOS"));
}
