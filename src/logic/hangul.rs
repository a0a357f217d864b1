//! Korean syllables as letters. A WordPiece vocabulary wants text in canonical decomposition (NFD); llama.cpp's table
//! of decompositions holds one character each and keeps only the first letter of a syllable, so the engine spells
//! syllables out before it asks llama.cpp.
//!
//! The arithmetic is section 3.12.2 of the Unicode standard.

use std::borrow::Cow;

const FIRST_SYLLABLE: u32 = 0xac00;
const LEADING: u32 = 0x1100;
const VOWEL: u32 = 0x1161;
/// One before the first trailing letter: 0 means that the syllable has none.
const TRAILING: u32 = 0x11a7;
const TRAILING_COUNT: u32 = 28;
const VOWEL_COUNT: u32 = 21;

/// `text` with each Hangul syllable as its two or three letters; borrowed when it has none.
pub fn spell_out(text: &str) -> Cow<'_, str> {
    if !text.contains(is_syllable) {
        return Cow::Borrowed(text);
    }
    let mut letters = String::with_capacity(text.len() * 3);
    for c in text.chars() {
        if is_syllable(c) {
            push_letters(&mut letters, c);
        } else {
            letters.push(c);
        }
    }
    Cow::Owned(letters)
}

fn is_syllable(c: char) -> bool {
    ('\u{ac00}'..='\u{d7a3}').contains(&c)
}

fn push_letters(letters: &mut String, syllable: char) {
    let index = u32::from(syllable) - FIRST_SYLLABLE;
    let (pair, trailing) = (index / TRAILING_COUNT, index % TRAILING_COUNT);
    let points = [LEADING + pair / VOWEL_COUNT, VOWEL + pair % VOWEL_COUNT, TRAILING + trailing];
    let count = if trailing == 0 { 2 } else { 3 };
    letters.extend(points.iter().take(count).filter_map(|&point| char::from_u32(point)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_syllables_is_not_copied() {
        assert!(matches!(spell_out("plain, 日本 and é"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_syllable_of_two_letters_becomes_two() {
        assert_eq!(spell_out("가"), "\u{1100}\u{1161}");
    }

    #[test]
    fn a_syllable_of_three_letters_becomes_three_between_its_neighbours() {
        assert_eq!(spell_out("a한b"), "a\u{1112}\u{1161}\u{11ab}b");
    }

    #[test]
    fn the_last_syllable_has_the_last_letters() {
        assert_eq!(spell_out("\u{d7a3}"), "\u{1112}\u{1175}\u{11c2}");
    }
}
