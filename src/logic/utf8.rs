//! Bytes that arrive in arbitrary pieces, as text: a token may end in the middle of a character.

/// Turns pieces of bytes into text. The text does not depend on how the bytes were cut.
#[derive(Debug, Default)]
pub struct Utf8Decoder {
    /// The beginning of a character that is not complete yet; at most 3 bytes between calls.
    pending: Vec<u8>,
}

impl Utf8Decoder {
    /// Appends to `text` what `piece` completes. Invalid bytes become U+FFFD, one per invalid
    /// sequence as in [`String::from_utf8_lossy`]; an incomplete character at the end waits.
    pub fn decode(&mut self, piece: &[u8], text: &mut String) {
        if self.pending.is_empty() {
            let rest = decode_complete(piece, text);
            self.pending.extend_from_slice(rest);
        } else {
            self.pending.extend_from_slice(piece);
            let rest = decode_complete(&self.pending, text).len();
            self.pending.drain(..self.pending.len() - rest);
        }
    }
}

/// Appends all complete characters of `bytes`; the incomplete one at the end is returned.
fn decode_complete<'a>(bytes: &'a [u8], text: &mut String) -> &'a [u8] {
    let mut left = bytes.len();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid();
        left -= chunk.valid().len() + invalid.len();
        if left == 0 && is_incomplete(invalid) {
            return invalid;
        }
        if !invalid.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    &[]
}

/// Whether more bytes may make a character of `bytes`.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(pieces: &[&[u8]]) -> String {
        let mut decoder = Utf8Decoder::default();
        let mut text = String::new();
        for piece in pieces {
            decoder.decode(piece, &mut text);
        }
        text
    }

    #[test]
    fn a_character_cut_in_two_appears_when_it_is_complete() {
        let mut decoder = Utf8Decoder::default();
        let mut text = String::new();
        decoder.decode(b"a\xe4\xb8", &mut text);
        assert_eq!(text, "a");
        decoder.decode(b"\x80b", &mut text);
        assert_eq!(text, "a\u{4e00}b");
    }

    #[test]
    fn four_pieces_make_one_character() {
        assert_eq!(decode(&[b"\xf0", b"\x9f", b"\x98", b"\x80"]), "\u{1f600}");
    }

    #[test]
    fn an_invalid_byte_becomes_a_replacement_character() {
        assert_eq!(decode(&[b"a\xffb"]), "a\u{fffd}b");
    }

    #[test]
    fn a_character_broken_off_becomes_a_replacement_character_when_the_next_begins() {
        assert_eq!(decode(&[b"\xe4\xb8", b"x"]), "\u{fffd}x");
    }

    proptest! {
        #[test]
        fn any_cut_of_any_bytes_gives_the_lossy_text_of_the_whole(
            bytes in proptest::collection::vec(
                prop_oneof![Just(0xe4_u8), Just(0xb8), Just(0x80), Just(0xf0), Just(0x9f), any::<u8>()],
                0..40,
            ),
            cuts in proptest::collection::vec(1_usize..5, 0..40),
        ) {
            let mut rest = bytes.as_slice();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            // A space completes whatever is pending, in both.
            pieces.push(b" ");
            let whole = [bytes.as_slice(), b" "].concat();
            prop_assert_eq!(decode(&pieces), String::from_utf8_lossy(&whole));
        }
    }
}
