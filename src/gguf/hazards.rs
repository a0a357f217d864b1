//! Well-formed headers over which llama.cpp ends the process (GGML_ASSERT, GGML_ABORT) instead of returning
//! an error. Each check names the source it comes from, in the llama.cpp of llama-cpp-sys-2 0.1.161; go
//! through `grep GGML_ASSERT` in those files again when it is updated.

use crate::error::{GgufError, quoted};
use crate::header::Header;
use crate::parse::Vocabulary;
use crate::tensor_type::TensorType;
use crate::value::Value;

fn unusable(text: impl Into<String>) -> GgufError {
    GgufError::Unusable(text.into())
}

/// Refuses a header that llama.cpp would abort on.
pub(crate) fn check(header: &Header, vocabulary: &Vocabulary) -> Result<(), GgufError> {
    if header.get_str("general.type") == Some("adapter") {
        return Err(unusable("it is a LoRA adapter; give it to INFER.LOAD as LORA, behind the model that it changes"));
    }
    let architecture = header.architecture().ok_or_else(|| unusable("general.architecture is missing"))?;
    layers(header)?;
    context(header)?;
    // llama-model.cpp, load_hparams: these two drop the experts of models that have at most one.
    if !architecture.starts_with("hunyuan") {
        experts(header)?;
    }
    rope(header)?;
    epsilons(header)?;
    numbers(header)?;
    pooling(header)?;
    head(header)?;
    tensors(header)?;
    tokenizer(header, vocabulary)
}

/// llama-model.cpp, load_hparams; LLAMA_MAX_LAYERS of llama-hparams.h.
fn layers(header: &Header) -> Result<(), GgufError> {
    const MAX_LAYERS: u32 = 512;
    let Some(layers) = header.arch_u32("block_count") else {
        return Ok(()); // llama.cpp reports a missing key itself
    };
    if layers == 0 || layers > MAX_LAYERS {
        return Err(unusable(format!("{layers} layers, 1 to {MAX_LAYERS} are possible")));
    }
    if header.arch_u32("nextn_predict_layers").unwrap_or(0) > layers {
        return Err(unusable("nextn_predict_layers is larger than block_count"));
    }
    Ok(())
}

/// llama-cpp-2, model.rs: n_ctx_train panics on what does not fit a signed 32-bit number.
fn context(header: &Header) -> Result<(), GgufError> {
    match header.arch_u32("context_length") {
        Some(length) if i32::try_from(length).is_err() => {
            Err(unusable(format!("it claims a context of {length} tokens")))
        }
        _ => Ok(()),
    }
}

/// Settings of the architecture that are no numbers, and bases of powers that make none: the logits would be no numbers
/// either.
fn numbers(header: &Header) -> Result<(), GgufError> {
    let prefix = format!("{}.", header.architecture().unwrap_or_default());
    for (key, value) in &header.metadata {
        let (Some(name), Some(number)) = (key.strip_prefix(&prefix), value.as_f64()) else { continue };
        let is_base = name.starts_with("rope.freq_base");
        if !number.is_finite() || (is_base && number <= 0.0) {
            return Err(unusable(format!("{} is {number}", quoted(name.as_bytes()))));
        }
    }
    Ok(())
}

/// llama-model.cpp, load_hparams; LLAMA_MAX_EXPERTS of llama-hparams.h.
fn experts(header: &Header) -> Result<(), GgufError> {
    const MAX_EXPERTS: u32 = 1024;
    let number = |key| header.arch_u32(key).unwrap_or(0);
    let (experts, groups, groups_used) =
        (number("expert_count"), number("expert_group_count"), number("expert_group_used_count"));
    let used = most_experts_used(header);
    let agree = if experts == 0 {
        used == 0 && groups == 0
    } else {
        experts <= MAX_EXPERTS
            && (1..=u64::from(experts)).contains(&used)
            && groups < experts
            && (groups <= 1 || (experts % groups == 0 && groups_used > 0 && groups_used < groups))
    };
    if agree {
        Ok(())
    } else {
        Err(unusable(format!(
            "its expert numbers do not agree ({experts} experts, {used} used, {groups} groups, {groups_used} used)"
        )))
    }
}

/// `expert_used_count`, or its largest element when it differs by layer.
fn most_experts_used(header: &Header) -> u64 {
    let Some(value) = header.arch_key("expert_used_count").and_then(|key| header.metadata.get(&key)) else {
        return 0;
    };
    match value {
        Value::Array(array) => array.values.iter().filter_map(Value::as_u64).max().unwrap_or(0),
        value => value.as_u64().unwrap_or(0),
    }
}

/// llama-model.cpp, load_hparams; the names are those of LLAMA_ROPE_SCALING_TYPES.
fn rope(header: &Header) -> Result<(), GgufError> {
    let scaling = header.arch_key("rope.scaling.type").and_then(|key| header.get_str(&key));
    match scaling {
        None | Some("none" | "linear" | "yarn" | "longrope") => Ok(()),
        Some(other) => Err(unusable(format!("unknown rope scaling type {}", quoted(other.as_bytes())))),
    }
}

/// ggml-cpu/ops.cpp: norms assert that their epsilon is not negative; what is not a number is neither.
fn epsilons(header: &Header) -> Result<(), GgufError> {
    for key in ["attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "attention.group_norm_epsilon"] {
        let value = header.arch_key(key).and_then(|key| header.metadata.get(&key)).and_then(Value::as_f64);
        if value.is_some_and(|epsilon| !(0.0..=1.0).contains(&epsilon)) {
            return Err(unusable(format!("{key} is not between 0 and 1")));
        }
    }
    Ok(())
}

/// ggml-cpu.c has no product with a matrix of some types and calls what is not there; binary-ops.cpp aborts on a bias or
/// a norm that is not F32. Tables of ids are integers.
fn tensors(header: &Header) -> Result<(), GgufError> {
    /// Q8_1, Q8_K, I8, I16, I32, I64, F64.
    const NO_WEIGHTS: [u32; 7] = [9, 15, 24, 25, 26, 27, 28];
    for tensor in &header.tensors {
        let is_table = tensor.name.contains("tid2eid") || tensor.name.starts_with("d2t");
        // The last layer of a cross-encoder is a matrix of one row.
        let is_vector = tensor.dims.iter().skip(1).all(|&dim| dim == 1) && tensor.name != "cls.output.weight";
        if !is_table && (NO_WEIGHTS.contains(&tensor.kind.0) || (is_vector && tensor.kind != TensorType::F32)) {
            let kind = tensor.kind.name().unwrap_or("unknown");
            return Err(unusable(format!("tensor {} is of the type {kind}", quoted(tensor.name.as_bytes()))));
        }
    }
    Ok(())
}

/// llama-graph.cpp, build_pooling, knows the values of llama_pooling_type: NONE, MEAN, CLS, LAST, RANK.
fn pooling(header: &Header) -> Result<(), GgufError> {
    const MOST: u32 = 4;
    match header.arch_u32("pooling_type") {
        Some(kind) if kind > MOST => Err(unusable(format!("unknown pooling type {kind}"))),
        _ => Ok(()),
    }
}

/// llama-graph.cpp, build_pooling: what makes the score of a reranker. The product needs a type that ggml multiplies
/// with, the sums need F32; modern-bert.cpp puts another output with the same tensors before it when it has decision
/// blocks.
fn head(header: &Header) -> Result<(), GgufError> {
    const RANK: u32 = 4;
    // Q8_1, Q8_K, I8, I16, I32, I64, F64: no vec_dot in ggml-cpu.c.
    const NO_PRODUCT: [u32; 7] = [9, 15, 24, 25, 26, 27, 28];
    for tensor in header.tensors.iter().filter(|tensor| tensor.name.starts_with("cls.")) {
        let usable = match tensor.name.as_str() {
            "cls.weight" | "cls.output.weight" => !NO_PRODUCT.contains(&tensor.kind.0),
            _ => tensor.kind == TensorType::F32,
        };
        if !usable {
            return Err(unusable(format!("tensor {} has an element type that cannot be computed with", tensor.name)));
        }
    }
    if header.arch_u32("pooling_type") == Some(RANK) && header.arch_u32("decision.block_count").unwrap_or(0) > 0 {
        return Err(unusable("it has decision blocks, whose output cannot be ranked"));
    }
    Ok(())
}

/// llama-vocab.cpp: every use of a vocabulary of type NONE asserts, and tokenizing asserts that the special
/// tokens it adds exist. Their ids have defaults that fall away when they lie outside the vocabulary.
fn tokenizer(header: &Header, vocabulary: &Vocabulary) -> Result<(), GgufError> {
    let Some(model) = header.get_str("tokenizer.ggml.model") else {
        return Err(unusable("it has no tokenizer (tokenizer.ggml.model is missing)"));
    };
    // (default BOS, default EOS, adds EOS unless told otherwise)
    let (bos, eos, adds_eos) = match model {
        "none" | "no_vocab" => return Err(unusable("it has no tokenizer")),
        "bert" => return wordpiece(header, vocabulary),
        "llama" | "plamo2" => (Some(1), Some(2), false),
        "gpt2" | "hybriddna" | "whitespace" => (Some(11), Some(11), false),
        "t5" => (None, Some(1), true),
        // Others add no special tokens, or llama.cpp refuses them.
        _ => return Ok(()),
    };
    let added = |key: &str, default: bool| header.get_bool(key).unwrap_or(default);
    // Whether BOS is added by default depends on the pre-tokenizer; without the key, take it that it is.
    let adds_bos = added("tokenizer.ggml.add_bos_token", model != "t5");
    if adds_bos && special(header, vocabulary, "tokenizer.ggml.bos_token_id", bos).is_none() {
        return Err(unusable("its tokenizer adds a BOS token that its vocabulary lacks"));
    }
    let adds_eos = added("tokenizer.ggml.add_eos_token", adds_eos);
    if adds_eos && special(header, vocabulary, "tokenizer.ggml.eos_token_id", eos).is_none() {
        return Err(unusable("its tokenizer adds an EOS token that its vocabulary lacks"));
    }
    Ok(())
}

/// The WordPiece tokenizer always adds BOS ([CLS]) and SEP, and aborts on a token that stands for a byte.
fn wordpiece(header: &Header, vocabulary: &Vocabulary) -> Result<(), GgufError> {
    if vocabulary.byte_tokens {
        return Err(unusable("its WordPiece vocabulary holds byte tokens"));
    }
    // "seperator" is how the key is written.
    for (key, default) in [("tokenizer.ggml.bos_token_id", 101), ("tokenizer.ggml.seperator_token_id", 102)] {
        if special(header, vocabulary, key, Some(default)).is_none() {
            return Err(unusable("its WordPiece vocabulary lacks the [CLS] or [SEP] token"));
        }
    }
    Ok(())
}

/// The id that llama.cpp ends up with for a special token.
fn special(header: &Header, vocabulary: &Vocabulary, key: &str, default: Option<u32>) -> Option<u32> {
    let inside = |id: &u32| vocabulary.tokens.is_some_and(|tokens| u64::from(*id) < tokens);
    header.get_u32(key).filter(inside).or_else(|| default.filter(inside))
}
