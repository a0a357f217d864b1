//! Models in several files.

use std::fs;
use std::path::Path;

use redis_infer_gguf::synthetic::{LlamaShape, write_llama, write_llama_split};
use redis_infer_gguf::{GgufError, TensorData, Writer, check_file, part_paths};
use tempfile::TempDir;

fn part(number: u16) -> Writer {
    let mut writer = Writer::new("llama");
    writer.string("tokenizer.ggml.model", "test").u16("split.no", number).u16("split.count", 2);
    writer.tensor(&format!("tensor.{number}"), &[2], TensorData::F32(vec![0.0; 2]));
    writer
}

fn two_parts() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    part(0).write(&folder.path().join("m-00001-of-00002.gguf")).unwrap();
    part(1).write(&folder.path().join("m-00002-of-00002.gguf")).unwrap();
    folder
}

#[test]
fn the_sizes_and_tensors_of_all_parts_count() {
    let folder = two_parts();
    let first = folder.path().join("m-00001-of-00002.gguf");
    let single = fs::metadata(&first).unwrap().len();
    let header = check_file(&first).unwrap();
    assert_eq!(header.file_size, 2 * single);
    let names: Vec<&str> = header.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["tensor.0", "tensor.1"]);
    assert_eq!(part_paths(&first, &header), [folder.path().join("m-00002-of-00002.gguf")]);
}

#[test]
fn a_missing_or_damaged_part_is_named() {
    let folder = two_parts();
    let first = folder.path().join("m-00001-of-00002.gguf");
    let second = folder.path().join("m-00002-of-00002.gguf");
    fs::write(&second, "text").unwrap();
    assert!(
        check_file(&first).unwrap_err().to_string().starts_with("part 2 of this split model, 'm-00002-of-00002.gguf',")
    );
    fs::remove_file(&second).unwrap();
    assert!(matches!(check_file(&first), Err(GgufError::Part { part: 2, .. })));
}

#[test]
fn only_the_first_part_under_its_own_name_can_be_loaded() {
    let folder = two_parts();
    let error = check_file(&folder.path().join("m-00002-of-00002.gguf")).unwrap_err();
    assert!(error.to_string().contains("load the first part"));
    let renamed = folder.path().join("renamed.gguf");
    fs::rename(folder.path().join("m-00001-of-00002.gguf"), &renamed).unwrap();
    let error = check_file(&renamed).unwrap_err();
    assert!(error.to_string().contains("-00001-of-00002.gguf"));
}

#[test]
fn a_split_model_has_the_tensors_of_all_parts() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, prefix) = (folder.path().join("m.gguf"), folder.path().join("m"));
    write_llama(&whole, &LlamaShape::default(), 1).unwrap();
    let parts = write_llama_split(&prefix, &LlamaShape::default(), 1, 3).unwrap();
    let names = |path: &Path| -> Vec<String> {
        check_file(path).unwrap().tensors.into_iter().map(|tensor| tensor.name).collect()
    };
    assert_eq!(parts.len(), 3);
    assert_eq!(names(&parts[0]), names(&whole));
}

#[test]
fn parts_that_were_exchanged_or_belong_to_another_model_are_named() {
    let folder = two_parts();
    let [first, second] = [1, 2].map(|part| folder.path().join(format!("m-0000{part}-of-00002.gguf")));
    let refusal = || check_file(&first).unwrap_err().to_string();
    fs::copy(&first, &second).unwrap();
    assert!(refusal().starts_with("part 2 of this split model, 'm-00002-of-00002.gguf', is refused"), "{}", refusal());
    assert!(refusal().ends_with("it is part 1 of 2"), "{}", refusal());
    part(1).u32("x", 1).write(&second).unwrap();
    check_file(&first).unwrap();
    Writer::new("llama").u16("split.no", 1).u16("split.count", 3).write(&second).unwrap();
    assert!(refusal().ends_with("it is part 2 of 3"), "{}", refusal());
    Writer::new("llama").write(&second).unwrap();
    assert!(refusal().contains("no part of a split model"), "{}", refusal());
    // llama.cpp aborts on a number of another type.
    Writer::new("llama").u32("split.no", 1).u16("split.count", 2).write(&second).unwrap();
    assert!(refusal().contains("no part of a split model"), "{}", refusal());
}
