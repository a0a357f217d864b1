//! The text of an answer, put together from the bytes of its tokens and cut at a stop string.
//!
//! Neither characters nor stop strings respect the borders of tokens. The answer depends on the
//! bytes only, not on how the tokens cut them.

use super::utf8::Utf8Decoder;

/// Whether generation goes on after a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No stop string so far.
    Continue,
    /// A stop string is complete; nothing after it counts.
    Stopped,
}

/// Collects an answer.
///
/// The first stop string to be complete ends the answer, and the text before it is kept. When
/// several are completed by the same character, the longest one is cut off.
#[derive(Debug)]
pub struct TextAssembler {
    stop: Vec<String>,
    /// Bytes of the longest stop string.
    longest_stop: usize,
    decoder: Utf8Decoder,
    text: String,
    progress: Progress,
}

impl TextAssembler {
    /// An empty answer that ends at any of `stop`. Empty stop strings are ignored.
    #[must_use]
    pub fn new(mut stop: Vec<String>) -> Self {
        stop.retain(|s| !s.is_empty());
        Self {
            longest_stop: stop.iter().map(String::len).max().unwrap_or(0),
            stop,
            decoder: Utf8Decoder::default(),
            text: String::new(),
            progress: Progress::Continue,
        }
    }

    /// Appends the bytes of one token. After a stop string everything is ignored.
    pub fn push(&mut self, piece: &[u8]) -> Progress {
        if self.progress == Progress::Continue {
            let from = self.search_start();
            self.decoder.decode(piece, &mut self.text);
            if let Some(start) = self.first_stop(from) {
                self.text.truncate(start);
                self.progress = Progress::Stopped;
            }
        }
        self.progress
    }

    /// Where a stop string that ends in text still to come can begin at the earliest.
    fn search_start(&self) -> usize {
        let overlap = self.longest_stop.saturating_sub(1);
        let mut start = self.text.len().saturating_sub(overlap);
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        start
    }

    /// Where the stop string that is complete first begins, looking from byte `from` on.
    fn first_stop(&self, from: usize) -> Option<usize> {
        let recent = self.text.get(from..)?;
        let found = self.stop.iter().filter_map(|stop| {
            let start = from + recent.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        found.min().map(|(_, start)| start)
    }

    /// The answer. The beginning of a stop string at its end is kept, the beginning of a character
    /// is dropped.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The answer from `pieces`, and whether it was stopped.
    fn assemble(stop: &[&str], pieces: &[&[u8]]) -> (String, Progress) {
        let mut text = TextAssembler::new(stop.iter().map(|&s| s.to_owned()).collect());
        let mut progress = Progress::Continue;
        for piece in pieces {
            progress = text.push(piece);
        }
        (text.finish(), progress)
    }

    fn stopped(text: &str) -> (String, Progress) {
        (text.to_owned(), Progress::Stopped)
    }

    fn running(text: &str) -> (String, Progress) {
        (text.to_owned(), Progress::Continue)
    }

    #[test]
    fn without_stop_strings_all_text_is_kept() {
        assert_eq!(assemble(&[], &[b"one ", b"two"]), running("one two"));
    }

    #[test]
    fn the_stop_string_and_what_follows_are_cut_off() {
        assert_eq!(assemble(&["END"], &[b"one END two"]), stopped("one "));
    }

    #[test]
    fn a_stop_string_is_found_across_pieces() {
        assert_eq!(assemble(&["END"], &[b"one E", b"N", b"D two"]), stopped("one "));
    }

    #[test]
    fn a_stop_string_begun_but_not_completed_is_kept() {
        assert_eq!(assemble(&["END"], &[b"one E", b"N"]), running("one EN"));
    }

    #[test]
    fn a_stop_string_is_found_where_a_false_start_overlaps_it() {
        assert_eq!(assemble(&["aab"], &[b"xa", b"a", b"a", b"b"]), stopped("xa"));
    }

    #[test]
    fn the_stop_string_completed_first_counts() {
        assert_eq!(assemble(&["bc", "abcd"], &[b"xabcd"]), stopped("xa"));
    }

    #[test]
    fn the_longest_of_the_stop_strings_completed_together_is_cut_off() {
        assert_eq!(assemble(&["c", "abc", "bc"], &[b"xabc"]), stopped("x"));
    }

    #[test]
    fn pieces_after_a_stop_string_are_ignored() {
        assert_eq!(assemble(&["."], &[b"one.", b"two"]), stopped("one"));
    }

    #[test]
    fn an_empty_stop_string_never_stops() {
        assert_eq!(assemble(&[""], &[b"one"]), running("one"));
    }

    #[test]
    fn a_stop_string_of_characters_cut_by_pieces_is_found() {
        let pieces: [&[u8]; 3] = [b"x\xe4\xb8", b"\x80\xe4", b"\xba\x8c y"];
        assert_eq!(assemble(&["\u{4e00}\u{4e8c}"], &pieces), stopped("x"));
    }

    #[test]
    fn a_character_not_completed_is_dropped_at_the_end() {
        assert_eq!(assemble(&[], &[b"a\xe4\xb8"]), running("a"));
    }

    /// The definition, spelled out: the shortest beginning of the text that ends in a stop string.
    fn reference(stop: &[String], text: &str) -> (String, Progress) {
        let ends = text.char_indices().map(|(i, c)| &text[..i + c.len_utf8()]);
        for begun in ends {
            let found = stop.iter().filter(|s| !s.is_empty() && begun.ends_with(*s));
            if let Some(longest) = found.max_by_key(|s| s.len()) {
                return stopped(&begun[..begun.len() - longest.len()]);
            }
        }
        running(text)
    }

    proptest! {
        #[test]
        fn any_cut_of_a_text_gives_the_same_answer(
            text in "[ab\u{e9}\u{4e00}]{0,30}",
            stop in proptest::collection::vec("[ab\u{e9}\u{4e00}]{0,4}", 0..4),
            cuts in proptest::collection::vec(0_usize..4, 0..60),
        ) {
            let mut rest = text.as_bytes();
            let mut assembler = TextAssembler::new(stop.clone());
            let mut progress = Progress::Continue;
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                progress = assembler.push(piece);
                rest = after;
            }
            if !rest.is_empty() {
                progress = assembler.push(rest);
            }
            prop_assert_eq!((assembler.finish(), progress), reference(&stop, &text));
        }

        #[test]
        fn no_bytes_leave_a_stop_string_in_the_answer(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            stop in "[a-z\u{fffd}]{1,2}",
        ) {
            let mut assembler = TextAssembler::new(vec![stop.clone()]);
            for byte in bytes {
                assembler.push(&[byte]);
            }
            prop_assert!(!assembler.finish().contains(&stop));
        }
    }
}
