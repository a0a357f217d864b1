//! What chunking promises.

use super::*;
use proptest::prelude::*;
use std::cell::Cell;
use std::fmt::Write;

/// One token per character.
fn characters(text: &str) -> usize {
    text.chars().count()
}

/// The texts of the chunks.
fn texts(text: &str, max_tokens: usize, overlap: usize) -> Vec<&str> {
    let options = ChunkOptions { max_tokens, overlap };
    let chunks = chunk(text, &options, &characters);
    chunks.into_iter().map(|c| &text[c.text_range]).collect()
}

/// The first and last lines of the chunks.
fn line_numbers(text: &str, max_tokens: usize) -> Vec<(u32, u32)> {
    let options = ChunkOptions { max_tokens, overlap: 0 };
    let chunks = chunk(text, &options, &characters);
    chunks.iter().map(|c| (c.first_line, c.last_line)).collect()
}

#[test]
fn a_text_of_white_space_has_no_chunks() {
    assert!(texts("", 10, 1).is_empty());
    assert!(texts(" \n\t\r\n\n ", 10, 1).is_empty());
}

#[test]
fn a_short_text_is_one_chunk_without_the_blank_lines_around_it() {
    assert_eq!(texts("\n\na\nb\n\nc\n\n", 100, 1), ["a\nb\n\nc"]);
}

#[test]
fn whole_paragraphs_fill_a_chunk() {
    assert_eq!(texts("aaa\n\nbbb\n\nccc", 8, 0), ["aaa\n\nbbb", "ccc"]);
}

#[test]
fn a_chunk_begins_with_the_end_of_the_one_before() {
    assert_eq!(texts("aa\n\nbb\n\ncc\n\ndd", 6, 1), ["aa\n\nbb", "bb\n\ncc", "cc\n\ndd"]);
}

#[test]
fn overlap_gives_way_to_a_new_paragraph() {
    assert_eq!(texts("aa\n\nbb\n\ncccc\n\nd", 8, 2), ["aa\n\nbb", "bb\n\ncccc", "cccc\n\nd"]);
    assert_eq!(texts("aaa\n\nbbb\n\nccccc", 8, 1), ["aaa\n\nbbb", "ccccc"]);
}

#[test]
fn the_last_chunk_is_never_overlap_alone() {
    assert_eq!(texts("aa\n\nbb", 6, 1), ["aa\n\nbb"]);
}

#[test]
fn lines_of_white_space_separate_paragraphs() {
    assert_eq!(texts("aa\n \t\nbb", 3, 0), ["aa", "bb"]);
}

#[test]
fn a_comment_stays_with_the_function_below_it() {
    let text = "/// Adds.\nfn add() {}\n\n# adds\ndef add(): 1";
    assert_eq!(texts(text, 25, 0), ["/// Adds.\nfn add() {}", "# adds\ndef add(): 1"]);
}

#[test]
fn tabs_and_the_lack_of_a_last_line_end_change_nothing() {
    assert_eq!(texts("\taa\n\t\n\tbb", 3, 0), ["\taa", "\tbb"]);
}

#[test]
fn carriage_returns_belong_to_line_ends() {
    assert_eq!(texts("aa\r\n\r\nbb\r\n", 3, 0), ["aa", "bb"]);
}

#[test]
fn separators_longer_than_expected_do_not_break_the_limit() {
    let text = "aa\n\n\n\n\n\nbb\n\n\n\ncc";
    assert_eq!(texts(text, 9, 1), ["aa", "bb\n\n\n\ncc"]);
}

#[test]
fn a_long_paragraph_is_split_at_line_ends_and_stands_alone() {
    assert_eq!(texts("a\n\nbb\ncc\ndd\n\ne", 5, 1), ["a", "bb\ncc", "dd", "e"]);
}

#[test]
fn a_long_line_is_split_at_white_space() {
    let text = "abc ".repeat(30);
    let pieces = texts(&text, 20, 0);
    assert!(pieces.iter().all(|piece| piece.len() >= 11));
    assert_eq!(pieces.join(" "), text.trim_end());
}

#[test]
fn pieces_of_a_line_have_no_white_space_around_them() {
    assert_eq!(texts("aaaa    bbbb    cccc    ", 6, 0), ["aaaa", "bbbb", "cccc"]);
}

#[test]
fn a_long_word_is_split_between_characters() {
    let text = "\u{e9}".repeat(25);
    let pieces = texts(&text, 10, 0);
    assert_eq!(pieces.concat(), text);
    assert!(pieces.len() <= 4);
}

#[test]
fn a_character_of_more_tokens_than_fit_is_a_chunk() {
    let options = ChunkOptions { max_tokens: 1, overlap: 0 };
    let chunks = chunk("\u{1f600}\u{1f600}", &options, &str::len);
    let ranges: Vec<_> = chunks.into_iter().map(|c| c.text_range).collect();
    assert_eq!(ranges, [0..4, 4..8]);
}

#[test]
fn lines_are_counted_from_one() {
    assert_eq!(line_numbers("a\n\nb\nc\n\n\nd", 4), [(1, 1), (3, 4), (7, 7)]);
}

#[test]
fn pieces_of_a_line_have_its_number() {
    let mut numbers = line_numbers("aaaa\nbbbbbbbb\ncc", 4);
    numbers.dedup();
    assert_eq!(numbers, [(1, 1), (2, 2), (3, 3)]);
}

/// Bytes counted per byte of `text`, and the longest text counted.
fn counting_effort(text: &str, count: impl Fn(&str) -> usize) -> (usize, usize) {
    let counted = Cell::new(0);
    let longest = Cell::new(0);
    let options = ChunkOptions { max_tokens: 512, overlap: 1 };
    let chunks = chunk(text, &options, &|t| {
        counted.set(counted.get() + t.len());
        longest.set(longest.get().max(t.len()));
        count(t)
    });
    assert!(!chunks.is_empty());
    (counted.get() / text.len(), longest.get())
}

#[test]
fn a_huge_line_costs_few_counts_of_short_texts() {
    let counts: [fn(&str) -> usize; 4] =
        [characters, |t| t.len() / 5, |t| t.split_whitespace().count(), |t| t.len() * 3];
    for text in ["a".repeat(2_000_000), "\u{4e00}bc d".repeat(300_000)] {
        for count in counts {
            let (per_byte, longest) = counting_effort(&text, count);
            assert!(per_byte <= 6, "{per_byte} bytes counted per byte");
            assert!(longest <= 512 * MAX_BYTES_PER_TOKEN);
        }
    }
}

#[test]
fn ten_megabytes_without_a_line_end_cost_as_much_per_byte_as_two() {
    for text in ["x".repeat(10_000_000), "word ".repeat(2_000_000)] {
        assert!(counting_effort(&text, |t| t.len() / 4).0 <= 3);
    }
}

#[test]
fn a_long_paragraph_of_short_lines_is_counted_about_once_in_lines_and_once_in_chunks() {
    assert!(counting_effort(&"  line\n".repeat(300_000), |t| t.len() / 4).0 <= 3);
}

#[test]
fn many_paragraphs_are_counted_about_once_alone_and_once_together() {
    let mut text = String::new();
    for i in 0..20_000 {
        write!(text, "paragraph number {i}\nof many\n\n").unwrap();
    }
    assert!(counting_effort(&text, |t| t.len() / 4).0 <= 3);
}

/// Texts of all the shapes that matter, in small.
fn document() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-c\u{e9}\u{4e00}\u{1f600}]{1,6}",
        2 => Just(" ".to_owned()),
        2 => Just("\n".to_owned()),
        2 => Just("\n\n".to_owned()),
        1 => Just("\r\n".to_owned()),
        1 => Just("\r\n\r\n".to_owned()),
        1 => Just("\n \t\n\u{3000}\n".to_owned()),
        1 => "[a-c ]{30,80}",
        1 => "(\n(\t|    |)(// |# |\\}|)[a-c]{0,5}){1,8}",
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn counts() -> impl Strategy<Value = fn(&str) -> usize> {
    let words: fn(&str) -> usize = |t| t.split_whitespace().count();
    let quarter: fn(&str) -> usize = |t| t.len().div_ceil(4);
    let heavy: fn(&str) -> usize = |t| 3 + t.chars().count() * 2;
    let all: fn(&str) -> usize = characters;
    prop_oneof![Just(all), Just(words), Just(quarter), Just(heavy)]
}

fn line_of(text: &str, at: usize) -> u32 {
    u32::try_from(text[..at].matches('\n').count() + 1).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn chunks_keep_the_limit_the_order_and_all_text(
        text in document(),
        max_tokens in 1_usize..40,
        overlap in 0_usize..4,
        count in counts(),
    ) {
        let chunks = chunk(&text, &ChunkOptions { max_tokens, overlap }, &count);
        let mut covered = 0;
        let mut start = 0;
        for c in &chunks {
            let range = c.text_range.clone();
            let content = text.get(range.clone());
            prop_assert!(content.is_some(), "not at character boundaries");
            let content = content.unwrap();
            prop_assert!(!content.trim().is_empty());
            prop_assert!(count(content) <= max_tokens || content.chars().count() == 1);
            prop_assert!(range.start >= start && range.end > covered, "order");
            if range.start > covered {
                prop_assert!(text[covered..range.start].trim().is_empty(), "text left out");
            }
            if range.start < covered {
                let repeated = &text[range.start..covered];
                prop_assert!(paragraphs(repeated).count() <= overlap, "more overlap than asked for");
                let above = text[..range.start].lines().last();
                prop_assert!(above.is_none_or(|line| line.trim().is_empty()), "overlap is not a whole paragraph");
            }
            prop_assert_eq!(c.first_line, line_of(&text, range.start));
            prop_assert_eq!(c.last_line, line_of(&text, range.end));
            (start, covered) = (range.start, range.end);
        }
        prop_assert!(text[covered..].trim().is_empty(), "text left out at the end");
    }
}
