//! Texts in chunks of limited length, cut where a reader would cut: between paragraphs if that is
//! possible, else between lines, words or characters.
//!
//! Counting tokens is the expensive part. Each paragraph or line is counted once, chunks are put
//! together by the sums, and each finished chunk is counted once more to be sure.

use std::ops::Range;

/// Bytes per token at the very most. A longer text is taken as too long without counting it:
/// tokenizers are made for sentences, and some need time or stack out of all proportion for
/// megabytes.
const MAX_BYTES_PER_TOKEN: usize = 64;

/// Where the search for the end of a piece begins, in bytes per token. English has 4 to 5, most
/// other languages and program text less.
const TYPICAL_BYTES_PER_TOKEN: f64 = 3.0;

/// How to cut a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkOptions {
    /// Tokens in a chunk, at most; 0 is taken as 1. A single character of more tokens than this
    /// is a chunk of its own.
    pub max_tokens: usize,
    /// Paragraphs at the end of a chunk with which the next one begins again, as far as they
    /// leave room for a new one.
    pub overlap: usize,
}

/// A part of a text, without the line end behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it is, in bytes.
    pub text_range: Range<usize>,
    /// The line it begins in, counted from 1.
    pub first_line: u32,
    /// The line it ends in.
    pub last_line: u32,
}

/// Cuts `text` into chunks of at most `options.max_tokens` tokens by `count`, in order.
///
/// Paragraphs are separated by lines of white space. Whole paragraphs are put together as far as
/// they fit; a paragraph too long for a chunk is split at line ends, a line too long at white
/// space or, failing that, between characters. Only white space is in no chunk.
#[must_use]
pub fn chunk(text: &str, options: &ChunkOptions, count: &dyn Fn(&str) -> usize) -> Vec<Chunk> {
    let mut chunker = Chunker { text, max_tokens: options.max_tokens.max(1), count, chunks: Vec::new() };
    // Paragraphs that each fit into a chunk, since the last one that does not.
    let mut fitting = Vec::new();
    for paragraph in paragraphs(text) {
        match chunker.fit(paragraph.place) {
            Some(part) => fitting.push(part),
            None => {
                chunker.pack(&fitting, options.overlap);
                fitting.clear();
                chunker.split_paragraph(paragraph.lines);
            }
        }
    }
    chunker.pack(&fitting, options.overlap);
    chunker.chunks
}

struct Paragraph {
    place: Chunk,
    lines: Vec<Chunk>,
}

fn paragraphs(text: &str) -> impl Iterator<Item = Paragraph> {
    let mut lines = lines(text);
    std::iter::from_fn(move || {
        let first = lines.by_ref().flatten().next()?;
        let mut paragraph = Paragraph { place: first.clone(), lines: vec![first] };
        while let Some(Some(line)) = lines.next() {
            paragraph.place = span(&paragraph.place, &line);
            paragraph.lines.push(line);
        }
        Some(paragraph)
    })
}

/// Each line of `text`; `None` for a blank one.
fn lines(text: &str) -> impl Iterator<Item = Option<Chunk>> {
    let mut start = 0;
    let numbered = text.split_inclusive('\n').zip(1_u32..);
    numbered.map(move |(line, number)| {
        let content = line.strip_suffix('\n').unwrap_or(line);
        let content = content.strip_suffix('\r').unwrap_or(content);
        let text_range = start..start + content.len();
        start += line.len();
        (!content.trim().is_empty()).then_some(Chunk { text_range, first_line: number, last_line: number })
    })
}

/// The text from `first` to `last`.
fn span(first: &Chunk, last: &Chunk) -> Chunk {
    Chunk {
        text_range: first.text_range.start..last.text_range.end,
        first_line: first.first_line,
        last_line: last.last_line,
    }
}

/// A paragraph or line that fits into a chunk.
struct Part {
    place: Chunk,
    tokens: usize,
}

struct Chunker<'a> {
    text: &'a str,
    max_tokens: usize,
    count: &'a dyn Fn(&str) -> usize,
    chunks: Vec<Chunk>,
}

impl<'a> Chunker<'a> {
    /// Counts the tokens of `place`; nothing when it does not fit into a chunk.
    fn fit(&self, place: Chunk) -> Option<Part> {
        if place.text_range.len() > self.longest() {
            return None;
        }
        let tokens = (self.count)(self.text_of(place.text_range.clone()));
        (tokens <= self.max_tokens).then_some(Part { place, tokens })
    }

    /// Bytes above which a text is not even counted.
    fn longest(&self) -> usize {
        self.max_tokens.saturating_mul(MAX_BYTES_PER_TOKEN)
    }

    fn text_of(&self, range: Range<usize>) -> &'a str {
        self.text.get(range).unwrap_or_default()
    }

    /// Puts consecutive `parts` together; each chunk begins again with at most `overlap` of the
    /// parts before it.
    fn pack(&mut self, parts: &[Part], overlap: usize) {
        let mut previous = 0;
        // Parts before this one are in a chunk.
        let mut new = 0;
        while new < parts.len() {
            // Never the whole previous chunk: the new part was left out because it does not fit.
            let earliest = new.saturating_sub(overlap).max(previous + 1).min(new);
            let (begin, end) = self.fill(parts, earliest, new);
            if let Some([first, .., last]) = parts.get(begin..end) {
                self.chunks.push(span(&first.place, &last.place));
            } else if let Some(only) = parts.get(begin) {
                self.chunks.push(only.place.clone());
            }
            previous = begin;
            new = end;
        }
    }

    /// The bounds of one chunk: part `new`, before it as many as fit back to `earliest`, then
    /// after it as many as fit.
    fn fill(&self, parts: &[Part], earliest: usize, new: usize) -> (usize, usize) {
        // A line end or blank line between parts is taken as one token.
        let cost = |i: usize| parts.get(i).map_or(usize::MAX, |part| part.tokens.saturating_add(1));
        let room = self.max_tokens.saturating_add(1);
        let mut total = cost(new);
        let mut begin = new;
        while begin > earliest && total.saturating_add(cost(begin - 1)) <= room {
            begin -= 1;
            total += cost(begin);
        }
        let mut end = new + 1;
        while total.saturating_add(cost(end)) <= room {
            total += cost(end);
            end += 1;
        }
        self.shrink(parts, begin..end, new)
    }

    /// Takes parts away until the chunk really fits: the last ones first, then the overlap. Part
    /// `new` alone always fits.
    fn shrink(&self, parts: &[Part], chunk: Range<usize>, new: usize) -> (usize, usize) {
        let (mut begin, mut end) = (chunk.start, chunk.end);
        let mut fewer = 1;
        while let Some([first, .., last]) = parts.get(begin..end)
            && end - begin > 1
            && self.fit(span(&first.place, &last.place)).is_none()
        {
            if end - new > 1 {
                // Twice as many each time, as every attempt costs a count.
                end = (new + 1).max(end.saturating_sub(fewer));
                fewer *= 2;
            } else {
                begin = new;
            }
        }
        (begin, end)
    }

    fn split_paragraph(&mut self, lines: Vec<Chunk>) {
        let mut fitting = Vec::new();
        for line in lines {
            match self.fit(line.clone()) {
                Some(part) => fitting.push(part),
                None => {
                    self.pack(&fitting, 0);
                    fitting.clear();
                    self.split_line(&line);
                }
            }
        }
        self.pack(&fitting, 0);
    }

    fn split_line(&mut self, line: &Chunk) {
        let mut bytes_per_token = TYPICAL_BYTES_PER_TOKEN;
        let mut start = line.text_range.start;
        loop {
            let rest = self.text_of(start..line.text_range.end);
            let text = rest.trim_start();
            if text.is_empty() {
                return;
            }
            start += rest.len() - text.len();
            let piece = self.piece(text, bytes_per_token);
            self.chunks.push(Chunk { text_range: start..start + piece.bytes, ..line.clone() });
            start += piece.bytes;
            bytes_per_token = piece.bytes as f64 / piece.tokens.max(1) as f64;
        }
    }

    /// A piece at the beginning of `text` that about fills a chunk. `text` does not begin with
    /// white space; the piece does not end in it.
    fn piece(&self, text: &str, bytes_per_token: f64) -> Piece {
        let limit = text.len().min(self.longest());
        let max_tokens = self.max_tokens as f64;
        // A little less than a full chunk: one count too many costs more than a few tokens.
        let mut guess = (max_tokens * bytes_per_token * 0.95) as usize;
        let mut smaller: Option<Piece> = None;
        loop {
            let piece = text.get(..cut(text, guess.min(limit))).unwrap_or(text);
            let piece = piece.trim_end();
            let tokens = (self.count)(piece);
            let bytes = piece.len();
            let found = Piece { bytes, tokens };
            let scale = max_tokens / tokens.max(1) as f64;
            if tokens > self.max_tokens {
                if let Some(smaller) = smaller {
                    return smaller;
                }
                if piece.chars().nth(1).is_none() {
                    return found;
                }
                guess = ((bytes as f64 * scale * 0.95) as usize).min(bytes * 3 / 4);
            } else if smaller.is_some() || guess >= limit || scale < 1.25 {
                return found;
            } else {
                // Denser than what follows was thought to be: try once with more.
                guess = ((bytes as f64 * scale * 0.95) as usize).min(bytes * 4);
                smaller = Some(found);
            }
        }
    }
}

struct Piece {
    bytes: usize,
    tokens: usize,
}

/// A place to cut `text` at or before byte `at`, but behind its first character: at white space
/// if there is any in the last quarter.
fn cut(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    let first = text.chars().next().map_or(0, char::len_utf8);
    let at = boundary(text, at).max(first);
    let (before, after) = text.split_at(at);
    if after.starts_with(char::is_whitespace) {
        return at;
    }
    let quarter = boundary(text, at - at / 4).max(first);
    let space = before.get(quarter..).and_then(|end| end.rfind(char::is_whitespace));
    space.map_or(at, |space| quarter + space)
}

/// The last character boundary at or before byte `at`.
fn boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests;
