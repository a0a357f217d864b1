//! Token ids as bytes, as `INFER.TOKENIZESTORE` writes them into a key: unsigned 32-bit little-endian, nothing before,
//! between or after.

use thiserror::Error;

/// Bytes of one token id.
const TOKEN_BYTES: usize = size_of::<u32>();

/// Bytes that are not tokens of the model. Sent to clients with the code `BADTOKENS`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlobError {
    /// Not a whole number of ids.
    #[error("tokens are {length} bytes long, which is not a multiple of 4")]
    BadLength {
        /// Bytes given.
        length: usize,
    },
    /// An id that the model does not have; the tokens are probably another model's.
    #[error(
        "token {id} at position {position} is outside the vocabulary of {vocabulary}; were the tokens made for another model?"
    )]
    OutsideVocabulary {
        /// Index of the first such token, from 0.
        position: usize,
        /// Its id.
        id: u32,
        /// Tokens in the vocabulary.
        vocabulary: u32,
    },
}

/// The ids in `blob`.
///
/// # Errors
/// [`BlobError::BadLength`].
pub fn decode(blob: &[u8]) -> Result<Vec<u32>, BlobError> {
    let (tokens, rest) = blob.as_chunks::<TOKEN_BYTES>();
    if !rest.is_empty() {
        return Err(BlobError::BadLength { length: blob.len() });
    }
    Ok(tokens.iter().copied().map(u32::from_le_bytes).collect())
}

/// The bytes of `tokens`.
pub fn encode(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

/// Whether all ids are below `n_vocab`.
///
/// # Errors
/// [`BlobError::OutsideVocabulary`] for the first that is not.
pub fn check_vocab(tokens: &[u32], n_vocab: u32) -> Result<(), BlobError> {
    match tokens.iter().position(|&id| id >= n_vocab) {
        None => Ok(()),
        Some(position) => Err(BlobError::OutsideVocabulary { position, id: tokens[position], vocabulary: n_vocab }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_little_endian_and_nothing_else() {
        assert_eq!(encode(&[1, 0x0403_0201]), [1, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(decode(b""), Ok(Vec::new()));
    }

    #[test]
    fn a_part_of_an_id_is_refused_with_the_length() {
        let error = decode(&[0; 7]).unwrap_err();
        assert_eq!(error.to_string(), "tokens are 7 bytes long, which is not a multiple of 4");
    }

    #[test]
    fn the_first_id_outside_the_vocabulary_is_named() {
        assert_eq!(check_vocab(&[0, 9], 10), Ok(()));
        let error = check_vocab(&[0, 10, u32::MAX], 10).unwrap_err();
        assert_eq!(
            error.to_string(),
            "token 10 at position 1 is outside the vocabulary of 10; were the tokens made for another model?"
        );
        assert!(check_vocab(&[0], 0).is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(tokens in prop::collection::vec(any::<u32>(), 0..50)) {
            prop_assert_eq!(decode(&encode(&tokens)), Ok(tokens));
        }

        #[test]
        fn what_is_decoded_is_encoded(blob in prop::collection::vec(any::<u8>(), 0..50)) {
            match decode(&blob) {
                Ok(tokens) => prop_assert_eq!(encode(&tokens), blob),
                Err(error) => prop_assert_eq!(error, BlobError::BadLength { length: blob.len() }),
            }
        }
    }
}
