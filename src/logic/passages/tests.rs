//! Which neighbours are joined to passages, and what fits into a budget.

use std::cell::RefCell;

use proptest::prelude::*;

use super::*;
use crate::logic::chunk::{ChunkOptions, chunk};

/// A tokenizer whose tokens are so many characters each, counted from where the text begins, so that a text that begins
/// elsewhere has other tokens.
struct Tokenizer {
    width: usize,
    pieces: RefCell<Vec<String>>,
}

impl Tokenizer {
    fn new(width: usize) -> Self {
        Self { width, pieces: RefCell::default() }
    }

    fn tokenize(&self, text: &str) -> Vec<u32> {
        let characters: Vec<char> = text.chars().collect();
        let mut pieces = self.pieces.borrow_mut();
        characters
            .chunks(self.width)
            .map(|piece| {
                pieces.push(piece.iter().collect());
                u32::try_from(pieces.len() - 1).unwrap()
            })
            .collect()
    }

    fn read(&self, content: &[Segment]) -> String {
        let pieces = self.pieces.borrow();
        let read = |segment: &Segment| match segment {
            Segment::Tokens(tokens) => tokens.iter().map(|&token| pieces[token as usize].as_str()).collect(),
            Segment::Text(text) | Segment::Common(text) | Segment::Template(text) => text.clone(),
        };
        content.iter().map(read).collect()
    }

    fn passages<T>(&self, found: &[Found], look: impl FnOnce(&mut Passages<'_>) -> T) -> T {
        let piece = |token: u32| self.pieces.borrow()[token as usize].clone().into_bytes();
        let count = |text: &str| text.chars().count().div_ceil(self.width);
        look(&mut Passages::new(found, Vocabulary { piece: &piece, count: &count }))
    }
}

fn found(path: &str, number: u32, (first_line, last_line): (u32, u32), tokens: Vec<u32>) -> Found {
    Found {
        id: format!("{path}:chunk_{number}"),
        attributes: ChunkAttributes {
            path: path.to_owned(),
            chunk: number,
            first_line,
            last_line,
            ext: String::new(),
            more: serde_json::Map::new(),
        },
        json: Vec::new(),
        score: 0.5,
        rerank_score: None,
        tokens,
    }
}

/// The chunks of a document, in its order.
fn chunks(path: &str, text: &str, options: ChunkOptions, tokenizer: &Tokenizer) -> Vec<Found> {
    let chunks = chunk(text, &options, &|text| text.chars().count());
    let numbered = (0_u32..).zip(&chunks);
    numbered
        .map(|(number, chunk)| {
            let tokens = tokenizer.tokenize(&text[chunk.text_range.clone()]);
            found(path, number, (chunk.first_line, chunk.last_line), tokens)
        })
        .collect()
}

/// The passages of all chunks as text, each below its label.
fn texts(found: &[Found], tokenizer: &Tokenizer) -> Vec<String> {
    let passages = tokenizer.passages(found, |passages| passages.of(found.len()));
    let read = |passage: &Passage| format!("{}: {}", passage.text.label, tokenizer.read(&passage.text.content));
    passages.iter().map(read).collect()
}

#[test]
fn what_two_chunks_share_stands_once() {
    for width in [1, 2, 3, 5, 100] {
        let tokenizer = Tokenizer::new(width);
        let options = ChunkOptions { max_tokens: 9, overlap: 1 };
        let found = chunks("a.md", "aaa\n\nbbb\n\nccc\n\nddd", options, &tokenizer);
        assert_eq!(found.len(), 3);
        assert_eq!(texts(&found, &tokenizer), ["a.md lines 1-7: aaa\n\nbbb\n\nccc\n\nddd"], "width {width}");
    }
}

#[test]
fn tokens_stay_as_they_are_when_one_begins_where_the_overlap_ends() {
    let tokenizer = Tokenizer::new(1);
    let options = ChunkOptions { max_tokens: 9, overlap: 1 };
    let found = chunks("a.md", "aaa\n\nbbb\n\nccc", options, &tokenizer);
    let [passage] = &tokenizer.passages(&found, |passages| passages.of(2))[..] else { panic!("not one") };
    let expected = [Segment::Tokens(found[0].tokens.clone()), Segment::Tokens(found[1].tokens[3..].to_vec())];
    assert_eq!(passage.text.content, expected);
}

#[test]
fn neighbours_that_touch_are_parted_as_in_the_document() {
    let tokenizer = Tokenizer::new(2);
    let paragraphs = chunks("a", "aaa\n\n\n\nbbb", ChunkOptions { max_tokens: 4, overlap: 0 }, &tokenizer);
    assert_eq!(texts(&paragraphs, &tokenizer), ["a lines 1-5: aaa\n\nbbb"]);
    let lines = chunks("a", "aaa\nbbb", ChunkOptions { max_tokens: 4, overlap: 0 }, &tokenizer);
    assert_eq!(texts(&lines, &tokenizer), ["a lines 1-2: aaa\nbbb"]);
    let words = chunks("a", "aaa bbb", ChunkOptions { max_tokens: 4, overlap: 0 }, &tokenizer);
    assert_eq!(texts(&words, &tokenizer), ["a lines 1-1: aaa bbb"]);
}

#[test]
fn parts_of_a_line_that_are_equal_are_both_kept() {
    let tokenizer = Tokenizer::new(1);
    let found: Vec<Found> = (0..3).map(|number| found("a", number, (1, 1), tokenizer.tokenize("aaaa"))).collect();
    assert_eq!(texts(&found, &tokenizer), ["a lines 1-1: aaaa aaaa aaaa"]);
}

#[test]
fn a_line_that_happens_to_be_repeated_is_not_overlap() {
    let tokenizer = Tokenizer::new(1);
    let found = chunks("a", "aaa\n}\n\n}\nbbb", ChunkOptions { max_tokens: 6, overlap: 0 }, &tokenizer);
    assert_eq!(texts(&found, &tokenizer), ["a lines 1-5: aaa\n}\n\n}\nbbb"]);
}

#[test]
fn chunks_with_something_between_them_stay_apart() {
    let tokenizer = Tokenizer::new(1);
    let mut found = chunks("a", "aaa\n\nbbb\n\nccc", ChunkOptions { max_tokens: 4, overlap: 0 }, &tokenizer);
    found.remove(1);
    assert_eq!(texts(&found, &tokenizer), ["a lines 1-1: aaa", "a lines 5-5: ccc"]);
}

#[test]
fn neighbours_in_number_alone_stay_apart() {
    let tokenizer = Tokenizer::new(1);
    let one = |path, number, lines, text| found(path, number, lines, tokenizer.tokenize(text));
    for (case, other) in [
        ("another document", one("b", 1, (3, 3), "bbb")),
        ("lines that go back", one("a", 1, (1, 1), "bbb")),
        ("lines that should be the same", one("a", 1, (2, 5), "xxx\nbbb")),
    ] {
        let found = [one("a", 0, (2, 2), "aaa"), other];
        assert_eq!(tokenizer.passages(&found, |passages| passages.of(2)).len(), 2, "{case}");
    }
}

#[test]
fn a_space_that_the_tokenizer_puts_first_does_not_hide_an_overlap() {
    let tokenizer = Tokenizer::new(1);
    let first = found("a", 0, (1, 3), tokenizer.tokenize(" aaa\n\nbbb"));
    let second = found("a", 1, (3, 5), tokenizer.tokenize(" bbb\n\nccc"));
    assert_eq!(texts(&[first, second], &tokenizer), ["a lines 1-5:  aaa\n\nbbb\n\nccc"]);
}

#[test]
fn line_ends_of_windows_are_line_ends() {
    for width in [1, 2, 3] {
        let tokenizer = Tokenizer::new(width);
        let options = ChunkOptions { max_tokens: 12, overlap: 1 };
        let found = chunks("a", "aaa\r\n\r\nbbb\r\n\r\nccc", options, &tokenizer);
        assert_eq!(found.len(), 2);
        assert_eq!(texts(&found, &tokenizer), ["a lines 1-5: aaa\r\n\r\nbbb\r\n\r\nccc"]);
    }
}

#[test]
fn the_passage_with_the_best_chunk_comes_first_and_has_its_score() {
    let tokenizer = Tokenizer::new(1);
    let mut of_a = chunks("a", "aaa\n\nbbb", ChunkOptions { max_tokens: 4, overlap: 0 }, &tokenizer);
    let mut found = chunks("b", "ccc", ChunkOptions { max_tokens: 4, overlap: 0 }, &tokenizer);
    // The second chunk of a is the best of all, its first the worst.
    found.insert(0, of_a.remove(1));
    found.push(of_a.remove(0));
    for (chunk, score) in found.iter_mut().zip([0.9, 0.8, 0.1]) {
        chunk.score = score;
    }
    let passages = tokenizer.passages(&found, |passages| passages.of(3));
    let facts: Vec<_> = passages.iter().map(|it| (it.chunks.clone(), it.lines, it.score)).collect();
    assert_eq!(facts, [(vec![2, 0], (1, 3), 0.9), (vec![1], (1, 1), 0.8)]);
}

#[test]
fn the_best_are_taken_until_the_next_does_not_fit() {
    let tokenizer = Tokenizer::new(1);
    let one = |path, text| found(path, 0, (1, 1), tokenizer.tokenize(text));
    let found = [one("a", "aaaa"), one("b", &"b".repeat(50)), one("c", "c")];
    // "a lines 1-1\n" is 12, "\n\nb lines 1-1\n" 14.
    for (budget, fitting) in [(0, 0), (15, 0), (16, 1), (79, 1), (80, 2), (94, 2), (95, 3), (1000, 3)] {
        assert_eq!(tokenizer.passages(&found, |passages| passages.fitting(budget)), fitting, "{budget}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_is_lost_or_repeated_and_the_order_is_kept(
        text in "([a-c]{1,9} ?[a-cé]{0,9}(\r?\n){1,3}){0,12}[a-c]{0,30}",
        max_tokens in 3_usize..25,
        overlap in 0_usize..4,
        width in 1_usize..5,
        picked in prop::collection::vec(any::<bool>(), 40),
        rank in any::<u64>(),
    ) {
        let tokenizer = Tokenizer::new(width);
        let options = ChunkOptions { max_tokens, overlap };
        let ranges: Vec<_> = chunk(&text, &options, &|text| text.chars().count())
            .into_iter().map(|chunk| chunk.text_range).collect();
        let all = chunks("a", &text, options, &tokenizer);
        let mut found: Vec<Found> =
            all.into_iter().zip(&picked).filter(|(_, picked)| **picked).map(|(chunk, _)| chunk).collect();
        fastrand::Rng::with_seed(rank).shuffle(&mut found);

        let (passages, tokens) =
            tokenizer.passages(&found, |passages| (passages.of(found.len()), passages.tokens(found.len())));
        let mut seen: Vec<usize> = passages.iter().flat_map(|passage| passage.chunks.clone()).collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..found.len()).collect::<Vec<_>>());
        for passage in &passages {
            let numbers: Vec<_> = passage.chunks.iter().map(|&at| found[at].attributes.chunk as usize).collect();
            prop_assert!(numbers.is_sorted());
            let (first, last) = (ranges[numbers[0]].clone(), ranges[numbers[numbers.len() - 1]].clone());
            let solid = |text: &str| -> String { text.split_whitespace().collect() };
            prop_assert_eq!(solid(&tokenizer.read(&passage.text.content)), solid(&text[first.start..last.end]));
        }
        prop_assert_eq!(tokens, passages.iter().map(|passage| passage.tokens).sum::<usize>());
    }

    #[test]
    fn what_fits_fits_and_one_more_does_not(
        sizes in prop::collection::vec((0_u32..6, 0_usize..30), 0..10), budget in 0_usize..200
    ) {
        let tokenizer = Tokenizer::new(1);
        let found: Vec<Found> = (0_u32..).zip(sizes).map(|(place, (number, size))| {
            let path = format!("p{}", place / 3);
            found(&path, number * 3 + place % 3, (number * 9 + place % 3, number * 9 + place % 3), tokenizer.tokenize(&"x".repeat(size)))
        }).collect();
        let (fitting, tokens): (usize, Vec<usize>) = tokenizer.passages(&found, |passages| {
            (passages.fitting(budget), (0..=found.len()).map(|count| passages.tokens(count)).collect())
        });
        prop_assert!(tokens[..=fitting].iter().all(|&tokens| tokens <= budget));
        prop_assert!(tokens.get(fitting + 1).is_none_or(|&more| more > budget));
    }
}
