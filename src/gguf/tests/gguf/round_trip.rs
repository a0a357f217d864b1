//! What is written is what is read.

use std::fs;

use redis_infer_gguf::synthetic::{BertShape, LlamaShape, Weights, write_bert, write_llama};
use redis_infer_gguf::{Array, TensorData, TensorType, Value, ValueType, Writer, check_file, read_strings};

fn sample() -> Writer {
    let mut writer = Writer::new("llama");
    writer
        .string("tokenizer.ggml.model", "test")
        .u32("n.u32", u32::MAX)
        .u64("n.u64", u64::MAX)
        .i32("n.i32", -5)
        .f32("n.f32", 0.5)
        .bool("n.bool", true)
        .strings("a.strings", &["one", "", "zwei"])
        .i32s("a.i32", &[-1, 2])
        .u32s("a.u32", &[3])
        .f32s("a.f32", &[]);
    writer.tensor("matrix", &[3, 2], TensorData::F32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])).tensor(
        "halves",
        &[1, 2],
        TensorData::to_f16(&[0.5, -2.0]),
    );
    writer
}

#[test]
fn all_kinds_of_values_and_tensors_survive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let size = sample().write(&path).unwrap();
    let header = check_file(&path).unwrap();

    assert_eq!(header.architecture(), Some("llama"));
    assert_eq!(header.get_u32("n.u32"), Some(u32::MAX));
    assert_eq!(header.get_u32("n.u64"), None, "too large");
    assert_eq!(header.metadata["n.i32"], Value::I32(-5));
    assert_eq!(header.metadata["n.f32"].as_f64(), Some(0.5));
    assert_eq!(header.get_bool("n.bool"), Some(true));
    let strings = header.metadata["a.strings"].as_array().unwrap();
    assert_eq!((strings.element, strings.len), (ValueType::Str, 3));
    assert_eq!(read_strings(&path, "a.strings").unwrap(), ["one", "", "zwei"]);
    let numbers = Array { element: ValueType::I32, len: 2, values: vec![Value::I32(-1), Value::I32(2)] };
    assert_eq!(header.metadata["a.i32"], Value::Array(numbers));

    assert_eq!((header.file_size, fs::metadata(&path).unwrap().len()), (size, size));
    let halves = header.tensor("halves").unwrap();
    assert_eq!((halves.kind, halves.size, halves.offset), (TensorType::F16, Some(4), 32));
    let bytes = fs::read(&path).unwrap();
    let at = (header.data_offset + halves.offset) as usize;
    assert_eq!(bytes[at..at + 4], [0x00, 0x38, 0x00, 0xc0], "0.5 and -2 as IEEE halves");
    assert_eq!(header.parameters(), 8);
    assert_eq!(header.data_offset % header.alignment, 0);
}

#[test]
fn a_string_array_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    sample().write(&path).unwrap();
    assert!(read_strings(&path, "a.i32").is_err());
    assert!(read_strings(&path, "nothing").is_err());
}

#[test]
fn a_refused_write_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    fs::write(&path, "old").unwrap();
    let mut writer = sample();
    writer.u32("n.u32", 1);
    assert!(writer.write(&path).unwrap_err().to_string().contains("added twice"));
    assert!(sample().write(&folder.path().join("no/such/folder.gguf")).is_err());
    let mut wrong = Writer::new("llama");
    wrong.tensor("t", &[3], TensorData::F32(vec![1.0]));
    assert!(wrong.write(&path).unwrap_err().to_string().contains("[3] has 1 elements"));
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    assert!(sample().write(&taken).is_err(), "a directory is not replaced");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn the_default_models_are_small_and_pass_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("llama.gguf");
    let summary = write_llama(&path, &LlamaShape::default(), 1).unwrap();
    let header = check_file(&path).unwrap();
    assert!(summary.file_size < 1_000_000 && header.file_size == summary.file_size);
    assert_eq!(header.arch_u32("context_length"), Some(512));
    assert_eq!(header.get_u32("tokenizer.ggml.eos_token_id"), Some(summary.eos));

    let path = folder.path().join("bert.gguf");
    let summary = write_bert(&path, &BertShape::default(), 1).unwrap();
    let header = check_file(&path).unwrap();
    assert!(summary.file_size < 1_000_000);
    assert_eq!(header.architecture(), Some("bert"));
    assert_eq!(read_strings(&path, "tokenizer.ggml.tokens").unwrap().len(), summary.vocab as usize);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = |seed| {
        let path = folder.path().join("m.gguf");
        let shape = LlamaShape { weights: Weights::F16, ..LlamaShape::default() };
        write_llama(&path, &shape, seed).unwrap();
        fs::read(&path).unwrap()
    };
    assert_eq!(bytes(7), bytes(7));
    assert_ne!(bytes(7), bytes(8));
}

#[test]
fn a_model_in_4_bits_takes_18_bytes_for_32_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let shape = LlamaShape { weights: Weights::Q4_0, head: 64, tied: true, ..LlamaShape::default() };
    write_llama(&path, &shape, 1).unwrap();
    let header = check_file(&path).unwrap();
    let tensor = |name: &str| header.tensors.iter().find(|tensor| tensor.name == name);
    // Two heads of 64 from a width of 64.
    let queries = tensor("blk.0.attn_q.weight").unwrap();
    assert_eq!((queries.dims.as_slice(), queries.size), (&[64, 128][..], Some(64 * 128 / 32 * 18)));
    assert!(tensor("output.weight").is_none());
    let broken = LlamaShape { weights: Weights::Q4_0, embd: 48, heads: 2, ..LlamaShape::default() };
    assert!(write_llama(&path, &broken, 1).is_err());
}

#[test]
fn four_bits_keep_the_number_furthest_from_zero_and_its_sign() {
    let mut values = [0.0f32; 32];
    (values[0], values[5], values[31]) = (-4.0, 2.0, 1.0);
    let TensorData::Q4_0(blocks) = TensorData::to_q4_0(&values) else { panic!("not in 4 bits") };
    let (scale, numbers) = blocks[0];
    let value = |nibble: u8| (f32::from(nibble) - 8.0) * scale.to_f32();
    assert_eq!((value(numbers[0] & 15), value(numbers[5] & 15), value(numbers[15] >> 4)), (-4.0, 2.0, 1.0));
    assert_eq!(value(numbers[1] & 15), 0.0);
}

#[test]
fn an_impossible_shape_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    for (embd, heads, kv_heads) in [(64, 3, 1), (64, 4, 3), (64, 64, 1), (0, 1, 1)] {
        let shape = LlamaShape { embd, heads, kv_heads, ..LlamaShape::default() };
        assert!(write_llama(&path, &shape, 1).is_err(), "{embd} {heads} {kv_heads}");
    }
    let shape = BertShape { heads: 5, ..BertShape::default() };
    assert!(write_bert(&path, &shape, 1).is_err());
}
