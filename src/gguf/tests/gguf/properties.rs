//! Whatever the bytes are, the check answers.

use std::sync::LazyLock;

use proptest::prelude::*;
use redis_infer_gguf::synthetic::{BertShape, write_bert};

use crate::raw::{check_bytes, saved};

/// A whole small model.
static MODEL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let (_folder, path) = saved(b"");
    let shape = BertShape { layers: 1, embd: 8, ff: 8, ctx_train: 8, ..BertShape::default() };
    write_bert(&path, &shape, 1).unwrap();
    std::fs::read(&path).unwrap()
});

/// Where the tensor data starts: changes behind it cannot matter.
static HEADER: LazyLock<usize> = LazyLock::new(|| check_bytes(&MODEL).unwrap().data_offset as usize);

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((0..*HEADER, any::<u8>()), 1..8)) {
        let mut bytes = MODEL.clone();
        for (place, byte) in changes {
            bytes[place] = byte;
        }
        let _ = check_bytes(&bytes);
    }

    #[test]
    fn changed_numbers_never_panic(place in 0..*HEADER - 8, number in any::<u64>(), shift in 0u32..64) {
        let mut bytes = MODEL.clone();
        bytes[place..place + 8].copy_from_slice(&(number >> shift).to_le_bytes());
        let _ = check_bytes(&bytes);
    }

    #[test]
    fn removed_bytes_never_panic(place in 0..*HEADER, count in 1usize..200) {
        let mut bytes = MODEL.clone();
        bytes.drain(place..(place + count).min(bytes.len()));
        let _ = check_bytes(&bytes);
    }

    #[test]
    fn a_file_without_its_end_is_refused(cut in 1usize..3000) {
        let bytes = &MODEL[..MODEL.len().saturating_sub(cut + 31)];
        prop_assert!(check_bytes(bytes).is_err());
    }

    #[test]
    fn random_bytes_after_the_magic_never_panic(tail in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tail);
        let _ = check_bytes(&bytes);
    }
}
