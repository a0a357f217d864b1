//! LoRA adapters: what must hold before llama.cpp may see one. It adds `scale * alpha / rank * B * A` to a weight, and
//! aborts while it computes when the shapes of A and B do not fit, which it checks only in part.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{GgufError, quoted};
use crate::header::{Header, TensorInfo};
use crate::open::open;
use crate::tensor_type::TensorType;
use crate::value::Value;

/// The tensor that is read row by row instead of being multiplied; its A and B are the other way round.
const TOKEN_EMBEDDING: &str = "token_embd.weight";
/// The tensor of the logits. A model without one uses the token embedding in its place.
const OUTPUT: &str = "output.weight";

/// What is known of a checked adapter.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Its header.
    pub header: Header,
    /// Tensors of norms in it, which llama.cpp leaves out.
    pub ignored: usize,
}

/// The two halves, A and B, of a change to one weight.
type Pair<'a> = [Option<&'a TensorInfo>; 2];

fn refused(text: impl Into<String>) -> GgufError {
    GgufError::Adapter(text.into())
}

/// Checks the adapter at `path` for the model whose header is `base`. Only headers are read.
///
/// # Errors
/// Whatever stands in the way of using it with this model.
pub fn check_adapter(path: &Path, base: &Header) -> Result<Adapter, GgufError> {
    let header = open(path, None)?.header;
    check_metadata(&header, base)?;
    let (pairs, ignored) = pairs(&header)?;
    if pairs.is_empty() {
        return Err(refused("it changes no weight"));
    }
    for (name, &pair) in &pairs {
        check_pair(name, pair, base)?;
    }
    Ok(Adapter { ignored, header })
}

/// llama-adapter.cpp, llama_adapter_lora_init_impl, aborts on values of another type than it expects.
fn check_metadata(header: &Header, base: &Header) -> Result<(), GgufError> {
    for (key, expected) in [("general.type", "adapter"), ("adapter.type", "lora")] {
        match header.get_str(key) {
            Some(found) if found == expected => {}
            found => {
                let found = found.map_or_else(|| "missing".to_owned(), |found| quoted(found.as_bytes()));
                return Err(refused(format!("{key} is {found}, not '{expected}'; is it a model?")));
            }
        }
    }
    let architecture = |header: &Header| quoted(header.architecture().unwrap_or_default().as_bytes());
    if header.architecture() != base.architecture() {
        let (its, models) = (architecture(header), architecture(base));
        return Err(refused(format!("it is for the architecture {its}, the model's is {models}")));
    }
    match header.metadata.get("adapter.lora.alpha") {
        None => {}
        Some(Value::F32(alpha)) if alpha.is_finite() => {}
        Some(_) => return Err(refused("adapter.lora.alpha is not a finite 32-bit float")),
    }
    if header.metadata.contains_key("adapter.alora.invocation_tokens") {
        return Err(refused("it is an activated LoRA, which only works behind certain tokens"));
    }
    if header.metadata.contains_key("split.count") {
        return Err(refused("it is split into several files"));
    }
    Ok(())
}

/// The changes by the weight that they change, and the number of tensors that llama.cpp leaves out.
fn pairs(header: &Header) -> Result<(BTreeMap<&str, Pair<'_>>, usize), GgufError> {
    let mut pairs: BTreeMap<&str, Pair> = BTreeMap::new();
    let mut ignored = 0;
    for tensor in &header.tensors {
        let bad = |what| refused(format!("its tensor {} {what}", quoted(tensor.name.as_bytes())));
        let (name, half) = match (tensor.name.strip_suffix(".lora_a"), tensor.name.strip_suffix(".lora_b")) {
            (Some(name), _) => (name, 0),
            (_, Some(name)) => (name, 1),
            _ if tensor.name.ends_with("_norm.weight") => {
                ignored += 1;
                continue;
            }
            _ => return Err(bad("is neither half of a LoRA")),
        };
        // llama.cpp takes the suffixes out wherever they stand.
        if name.contains(".lora_a") || name.contains(".lora_b") {
            return Err(bad("is neither half of a LoRA"));
        }
        // What convert_lora_to_gguf.py writes.
        if ![TensorType::F32, TensorType::F16, TensorType::BF16, TensorType::Q8_0].contains(&tensor.kind) {
            return Err(bad("is of a type other than F32, F16, BF16 and Q8_0"));
        }
        pairs.entry(name).or_default()[half] = Some(tensor);
    }
    Ok((pairs, ignored))
}

/// llama-adapter.cpp checks some of the dimensions; llama-graph.cpp (build_lora_mm, build_lora_mm_id, build_inp_embd)
/// multiplies, where ggml asserts on the others.
fn check_pair(name: &str, pair: Pair<'_>, base: &Header) -> Result<(), GgufError> {
    let shown = quoted(name.as_bytes());
    let [Some(a), Some(b)] = pair else {
        return Err(refused(format!("one half of the change to {shown} is missing")));
    };
    let Some(weight) = base.tensor(name) else {
        return Err(refused(format!("the model has no tensor {shown}; was the adapter made for another model?")));
    };
    let is_embedding = name == TOKEN_EMBEDDING;
    if is_embedding && base.tensor(OUTPUT).is_none() {
        return Err(refused("it changes the token embedding of a model that also computes its logits with it"));
    }
    if weight.dims.len() < 2 || weight.kind == TensorType::NVFP4 {
        return Err(refused(format!("llama.cpp cannot adapt the tensor {shown}")));
    }
    let ([inputs, outputs, weights], [a_row, a_rows, a_count], [b_row, b_rows, b_count]) =
        (shape(weight), shape(a), shape(b));
    let fits = if is_embedding {
        [b_rows, a_rows, a_row] == [inputs, outputs, b_row]
    } else {
        [a_row, b_rows, a_rows] == [inputs, outputs, b_row]
    };
    if !fits || [a_count, b_count] != [weights; 2] || [weight, a, b].iter().any(|tensor| tensor.dims.len() > 3) {
        return Err(refused(format!(
            "its halves of {shown} have the shapes {:?} and {:?}, which do not fit the {:?} of the model; was it made \
             for another model?",
            a.dims, b.dims, weight.dims
        )));
    }
    Ok(())
}

/// The first three dimensions; what is not there counts as 1.
fn shape(tensor: &TensorInfo) -> [u64; 3] {
    [0, 1, 2].map(|i| tensor.dims.get(i).copied().unwrap_or(1))
}
