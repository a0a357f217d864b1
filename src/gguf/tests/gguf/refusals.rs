//! What is not a sound GGUF file.

use redis_infer_gguf::{GgufError, TensorType, Value, check_file};

use crate::raw::{Raw, check_bytes, minimal};

#[track_caller]
fn refused_with(raw: &Raw, text: &str) {
    let refusal = raw.refusal();
    assert!(refusal.contains(text), "{refusal}");
}

#[test]
fn a_missing_file_and_a_directory_have_their_own_errors() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(check_file(&folder.path().join("no.gguf")), Err(GgufError::NotFound)));
    assert!(matches!(check_file(folder.path()), Err(GgufError::Directory)));
}

#[cfg(unix)]
#[test]
fn a_socket_is_refused_without_opening_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(matches!(check_file(&path), Err(GgufError::NotRegular)));
}

#[test]
fn the_error_for_a_safetensors_file_names_the_converter() {
    let json = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let raw = Raw::default().u64(json.len() as u64).add(json).u32(0);
    refused_with(&raw, "redis-infer convert");
    assert!(matches!(raw.check(), Err(GgufError::Safetensors)));
}

#[test]
fn other_files_are_named_for_what_they_are() {
    for (bytes, what) in [
        (&b""[..], "it is empty"),
        (b"# a read-me\n\nwith text\n", "it is a text file"),
        (b"PK\x03\x04rest", "a PyTorch checkpoint"),
        (b"\x7fELF\x02\x01\x01\x00", "magic bytes"),
        (b"GG", "it is a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    ] {
        let error = check_bytes(bytes).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn only_versions_2_and_3_are_read() {
    assert!(matches!(Raw::new(1, 0, 0).check(), Err(GgufError::Version(1))));
    assert!(matches!(Raw::new(4, 0, 0).check(), Err(GgufError::Version(4))));
    let version_2 =
        Raw::new(2, 0, 2).string_pair("general.architecture", "llama").string_pair("tokenizer.ggml.model", "test");
    assert_eq!(version_2.check().unwrap().version, 2);
}

#[test]
fn a_big_endian_file_is_recognised() {
    let raw = Raw::default().add(b"GGUF").add(&3u32.to_be_bytes()).u64(0).u64(0);
    assert!(matches!(raw.check(), Err(GgufError::BigEndian)));
}

#[test]
fn a_hundred_thousand_tensors_or_pairs_are_too_many() {
    refused_with(&Raw::new(3, 100_000, 0), "100000 tensors, the limit");
    refused_with(&Raw::new(3, 0, u64::MAX), "metadata pairs, the limit");
}

#[test]
fn a_length_beyond_the_file_is_a_truncation_and_allocates_nothing() {
    for raw in [
        Raw::new(3, 0, 1).u64(u64::MAX),
        Raw::new(3, 0, 1).u64(1 << 40),
        Raw::new(3, 0, 1).text("key").u32(8).u64(1 << 50),
        Raw::new(3, 0, 1).text("key").u32(9).u32(8).u64(1 << 40),
        Raw::new(3, 0, 1).text("key").u32(9).u32(4).u64(1 << 40),
        Raw::new(3, 0, 1).text("tokenizer.ggml.tokens").u32(9).u32(8).u64(1 << 60),
        Raw::new(3, 0, 1).text("key").u32(9).u32(8).u64(2).text("a").u64(1 << 40),
    ] {
        assert!(matches!(raw.check(), Err(GgufError::Truncated { .. })), "{:?}", raw.check());
    }
    refused_with(&Raw::new(3, 0, 1).text("key").u32(9).u32(10).u64(u64::MAX), "endless array");
}

#[test]
fn a_truncated_file_names_the_size_it_should_have_and_the_size_it_has() {
    let whole = minimal(2, 0).tensor("a", &[32, 4], 0, 0).tensor("b", &[1, 7], 1, 512).data(512 + 14);
    let header = whole.check().unwrap();
    assert_eq!(header.data_offset + 512 + 14, whole.bytes.len() as u64);
    let mut cut = whole.clone();
    cut.bytes.pop();
    let size = whole.bytes.len();
    refused_with(&cut, &format!("needs at least {size} bytes and has {}", size - 1));
}

#[test]
fn every_truncation_of_a_sound_file_is_refused() {
    let whole = minimal(1, 1).u32_pair("n", 5).tensor("a", &[32], 0, 0).data(128);
    for length in 0..whole.bytes.len() {
        assert!(check_bytes(&whole.bytes[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn metadata_must_be_well_formed() {
    refused_with(&Raw::new(3, 0, 1).text("").u32(4).u32(0), "key is empty");
    refused_with(&Raw::new(3, 0, 1).text("k").u32(13).u32(0), "unknown type 13");
    refused_with(&Raw::new(3, 0, 1).text("k").u32(9).u32(9).u64(0), "array of arrays");
    refused_with(&Raw::new(3, 0, 1).u64(2).add(&[0xff, 0xfe]).u32(4).u32(0), "'??' is not UTF-8");
    refused_with(&Raw::new(3, 0, 2).u32_pair("k", 1).u32_pair("k", 1), "'k' stands twice");
    let long = "k".repeat(65_536);
    refused_with(&Raw::new(3, 0, 1).u32_pair(&long, 1), "65536 bytes, the limit is 65535");
}

#[test]
fn the_alignment_must_be_a_power_of_two() {
    for alignment in [0, 3, 48] {
        refused_with(&minimal(0, 1).u32_pair("general.alignment", alignment), "not a power of two");
    }
    refused_with(&minimal(0, 1).string_pair("general.alignment", "32"), "not a 32-bit number");
    let raw = minimal(0, 1).u32_pair("general.alignment", 1 << 31);
    assert_eq!(raw.check().unwrap().alignment, 1 << 31);
}

#[test]
fn tensor_descriptions_must_be_sane() {
    let one = |name: &str, dims: &[u64], kind, offset| minimal(1, 0).tensor(name, dims, kind, offset).data(1 << 12);
    refused_with(&one("t", &[1; 5], 0, 0), "5 dimensions, the limit is 4");
    refused_with(&one("t", &[4, 0], 0, 0), "zero or too large");
    refused_with(&one("t", &[1 << 40, 1 << 40], 0, 0), "zero or too large");
    refused_with(&one("t", &[1 << 62], 0, 0), "size in bytes is too large");
    refused_with(&one("t", &[33], 2, 0), "whole blocks of 32");
    refused_with(&one(&"n".repeat(64), &[1], 0, 0), "64 bytes, the limit is 63");
    refused_with(&one("t", &[1], 0, 32), "does not follow");
    let twice = minimal(2, 0).tensor("t", &[1], 0, 0).tensor("t", &[1], 0, 32).data(64);
    refused_with(&twice, "'t' stands twice");
    let overlapping = minimal(2, 0).tensor("a", &[16], 0, 0).tensor("b", &[1], 0, 32).data(128);
    refused_with(&overlapping, "does not follow");
}

#[test]
fn tensor_sizes_that_overflow_together_are_refused() {
    let half = 1u64 << 61;
    let raw = minimal(3, 0).tensor("a", &[half], 0, 0).tensor("b", &[half], 0, half * 4).tensor(
        "c",
        &[half],
        0,
        u64::MAX - 31,
    );
    assert!(raw.check().is_err());
    let raw = minimal(2, 0).tensor("a", &[half - 1], 0, 0).tensor("b", &[half - 8], 0, half * 4).data(0);
    assert!(raw.check().is_err());
}

#[test]
fn a_tensor_of_unknown_type_is_kept_without_a_size() {
    let raw = minimal(2, 0).tensor("new", &[32, 2], 99, 0).tensor("old", &[1], 0, 96).data(100);
    let header = raw.check().unwrap();
    assert_eq!(header.tensors[0].kind, TensorType(99));
    assert_eq!(header.tensors[0].size, None);
    let last = minimal(1, 0).tensor("new", &[32, 2], 99, 0).data(0);
    assert!(last.check().is_ok(), "the end of an unknown type is not known");
    let misaligned = minimal(2, 0).tensor("new", &[32, 2], 99, 0).tensor("old", &[1], 0, 33).data(100);
    refused_with(&misaligned, "not aligned");
}

#[test]
fn strings_that_are_too_long_to_keep_are_only_measured() {
    let text = "x".repeat((1 << 20) + 1);
    let header = minimal(0, 1).string_pair("long", &text).check().unwrap();
    assert_eq!(header.metadata["long"], Value::LongStr(text.len() as u64));
}

#[test]
fn only_so_many_bytes_of_strings_are_kept_in_all() {
    let text = "x".repeat(1 << 20);
    let raw = (0..18).fold(minimal(0, 18), |raw, number| raw.string_pair(&format!("text{number:02}"), &text));
    let header = raw.check().unwrap();
    assert_eq!(header.metadata["text00"], Value::Str(text.clone()));
    assert_eq!(header.metadata["text17"], Value::LongStr(text.len() as u64));
}

#[test]
fn error_texts_show_no_control_characters_of_the_file() {
    let raw = Raw::new(3, 0, 2).u32_pair("a\r\n\u{7}b", 1).u32_pair("a\r\n\u{7}b", 1);
    refused_with(&raw, "'a???b' stands twice");
}
