//! How a model turns its keys by their positions, for the models whose rows can be put elsewhere in a prompt.
//!
//! Only architectures for which this is known to be all that happens to a key before it is kept: the same angle in each layer,
//! no window, nothing that depends on the length of the prompt.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use redis_infer_gguf::{Header, TensorInfo, TensorType};

use crate::logic::kv_rows::{Pairs, Rope};

/// Architectures of which all layers turn keys in the same way, and which keep nothing else.
const ARCHITECTURES: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// `rope.freq_base` when the file names none.
const BASE: f64 = 10_000.0;

/// What Llama 3.1 and later divide the angles by, a number for each pair.
const DIVISORS: &str = "rope_freqs.weight";

/// How the model in the file at `path` turns keys, or why its rows cannot be put elsewhere.
pub(super) fn rope(
    header: &Header,
    path: &Path,
    kind: llama_cpp_sys_2::llama_rope_type,
    window: i32,
) -> Result<Rope, String> {
    let architecture = header.architecture().unwrap_or_default();
    if !ARCHITECTURES.contains(&architecture) {
        return Err(format!("its architecture is '{architecture}', not one of {}", ARCHITECTURES.join(", ")));
    }
    if window > 0 {
        return Err("it has layers with a sliding window".to_owned());
    }
    let pairs = match kind {
        llama_cpp_sys_2::LLAMA_ROPE_TYPE_NORM => Pairs::Neighbours,
        llama_cpp_sys_2::LLAMA_ROPE_TYPE_NEOX => Pairs::Halves,
        _ => return Err("it encodes positions in a way that is not known".to_owned()),
    };
    let scaling = header.get_str(&format!("{architecture}.rope.scaling.type"));
    let scales = scaling.is_some_and(|scaling| scaling != "none")
        || header.metadata.contains_key(&format!("{architecture}.rope.scale_linear"))
        || header.tensors.iter().any(|tensor| tensor.name.contains("rope_f") && tensor.name != DIVISORS);
    if scales {
        return Err("it scales the angles of positions".to_owned());
    }
    let sizes = || {
        let heads = header.arch_u32("attention.head_count").filter(|&heads| heads > 0)?;
        let head = header
            .arch_u32("attention.key_length")
            .or_else(|| Some(header.arch_u32("embedding_length")? / heads))
            .filter(|&head| head > 0)?;
        let turned = header.arch_u32("rope.dimension_count").unwrap_or(head);
        (turned > 0 && turned <= head && turned.is_multiple_of(2)).then_some((turned as usize, head as usize))
    };
    let (turned, head) = sizes().ok_or("its file does not tell the width of its heads")?;
    let base = header.metadata.get(&format!("{architecture}.rope.freq_base"));
    let base = base.and_then(redis_infer_gguf::Value::as_f64).unwrap_or(BASE);
    let divisors = match header.tensor(DIVISORS) {
        Some(tensor) => read_divisors(header, path, tensor, turned / 2)
            .ok_or_else(|| format!("its file has '{DIVISORS}' in a form that is not known"))?,
        None => Vec::new(),
    };
    Ok(Rope { pairs, turned, head, base, divisors })
}

fn read_divisors(header: &Header, path: &Path, tensor: &TensorInfo, pairs: usize) -> Option<Vec<f32>> {
    // Offsets of a split model are those in one of its files.
    let is_split = header.get_u32("split.count").is_some_and(|parts| parts > 1);
    if is_split || tensor.kind != TensorType::F32 || tensor.dims != [pairs as u64] {
        return None;
    }
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(header.data_offset.checked_add(tensor.offset)?)).ok()?;
    let mut bytes = vec![0; pairs * size_of::<f32>()];
    file.read_exact(&mut bytes).ok()?;
    let divisors: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    divisors.iter().all(|divisor| divisor.is_normal()).then_some(divisors)
}

#[cfg(test)]
mod tests {
    use llama_cpp_sys_2::{LLAMA_ROPE_TYPE_MROPE, LLAMA_ROPE_TYPE_NEOX, LLAMA_ROPE_TYPE_NORM};
    use redis_infer_gguf::Value;

    use super::*;

    fn header(more: &[(&str, Value)]) -> Header {
        let all = [
            ("general.architecture", Value::Str("llama".into())),
            ("llama.embedding_length", Value::U32(64)),
            ("llama.attention.head_count", Value::U32(4)),
        ];
        let all = all.iter().chain(more).map(|(key, value)| ((*key).to_owned(), value.clone()));
        Header { metadata: all.collect(), ..Header::default() }
    }

    #[test]
    fn what_a_file_does_not_tell_has_the_defaults_of_llama_cpp() {
        let expected = Rope { pairs: Pairs::Neighbours, turned: 16, head: 16, base: 10_000.0, divisors: Vec::new() };
        assert_eq!(rope(&header(&[]), Path::new(""), LLAMA_ROPE_TYPE_NORM, 0), Ok(expected));
    }

    #[test]
    fn what_a_file_tells_is_taken() {
        let more = [
            ("llama.attention.key_length", Value::U32(32)),
            ("llama.rope.dimension_count", Value::U32(8)),
            ("llama.rope.freq_base", Value::F32(100_000.0)),
        ];
        let expected = Rope { pairs: Pairs::Halves, turned: 8, head: 32, base: 100_000.0, divisors: Vec::new() };
        assert_eq!(rope(&header(&more), Path::new(""), LLAMA_ROPE_TYPE_NEOX, 0), Ok(expected));
    }

    #[test]
    fn other_ways_to_tell_positions_are_refused_with_the_reason() {
        let refused = |more: &[(&str, Value)], kind, window, text: &str| {
            let reason = rope(&header(more), Path::new(""), kind, window).unwrap_err();
            assert!(reason.contains(text), "{reason}");
        };
        refused(&[], LLAMA_ROPE_TYPE_NORM, 512, "sliding window");
        refused(&[], LLAMA_ROPE_TYPE_MROPE, 0, "positions in a way");
        refused(&[("llama.rope.scaling.type", Value::Str("yarn".into()))], LLAMA_ROPE_TYPE_NORM, 0, "scales");
        refused(&[("general.architecture", Value::Str("gemma3".into()))], LLAMA_ROPE_TYPE_NORM, 0, "'gemma3'");
        refused(&[("llama.rope.dimension_count", Value::U32(18))], LLAMA_ROPE_TYPE_NORM, 0, "width");
    }
}
