//! Found chunks as they go into a prompt. Neighbours of one document become one passage, in which what they share
//! stands once; when there is room for some only, it is the best that stay.

use std::collections::HashMap;
use std::fmt;

use super::attributes::ChunkAttributes;
use super::prompt::{ContextPassage, Segment, heading};

/// A chunk that a query found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Path and chunk number, as in the name of the token key.
    pub id: String,
    /// Where the chunk comes from.
    pub attributes: ChunkAttributes,
    /// These and those that the user gave, as the JSON text that a `FILTER` sees.
    pub json: Vec<u8>,
    /// Similarity, 0 to 1.
    pub score: f64,
    /// How well a reranker finds it fits, any number; `None` when none was asked.
    pub rerank_score: Option<f32>,
    /// Its token ids.
    pub tokens: Vec<u32>,
}

impl Found {
    /// First and last line in the document, from 1.
    pub fn lines(&self) -> (u32, u32) {
        (self.attributes.first_line, self.attributes.last_line)
    }
}

/// What the model's vocabulary is asked.
#[derive(Clone, Copy)]
pub struct Vocabulary<'a> {
    /// The bytes of a token.
    pub piece: &'a dyn Fn(u32) -> Vec<u8>,
    /// The number of tokens of a text.
    pub count: &'a dyn Fn(&str) -> usize,
}

impl fmt::Debug for Vocabulary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vocabulary")
    }
}

/// One or more chunks as one piece of text.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage {
    /// Places of its chunks among the found ones, in the order of the document.
    pub chunks: Vec<usize>,
    /// First and last line in the document, from 1.
    pub lines: (u32, u32),
    /// The highest of its chunks.
    pub score: f64,
    /// What it takes of the prompt, with its label and what parts it from the passage before.
    pub tokens: usize,
    /// What goes into the prompt.
    pub text: ContextPassage,
}

/// How a chunk goes on with the one before it.
#[derive(Debug, Clone, PartialEq)]
struct Continuation {
    content: Vec<Segment>,
    tokens: usize,
}

/// Makes passages of the first so many of some chunks, which are the best: the order of `found` is that of their worth.
#[derive(Debug)]
pub struct Passages<'a> {
    found: &'a [Found],
    vocabulary: Vocabulary<'a>,
    /// By the places of two chunks, whether the second continues the first, and how.
    continuations: HashMap<(usize, usize), Option<Continuation>>,
    /// Tokens of headings.
    headings: HashMap<String, usize>,
}

impl<'a> Passages<'a> {
    /// For chunks of which none is there twice.
    pub fn new(found: &'a [Found], vocabulary: Vocabulary<'a>) -> Self {
        Self { found, vocabulary, continuations: HashMap::new(), headings: HashMap::new() }
    }

    /// How many of the best fit into `budget` tokens. The first that does not fit ends it, so that no chunk is taken
    /// for a better one.
    pub fn fitting(&mut self, budget: usize) -> usize {
        let too_many = (1..=self.found.len()).find(|&count| self.tokens(count) > budget);
        too_many.map_or(self.found.len(), |count| count - 1)
    }

    /// What the best `count` take of the prompt.
    pub fn tokens(&mut self, count: usize) -> usize {
        let runs = self.runs(count);
        runs.iter().enumerate().map(|(place, run)| self.tokens_of(place, run)).sum()
    }

    /// The best `count`, the passage with the best chunk first.
    pub fn of(&mut self, count: usize) -> Vec<Passage> {
        let runs = self.runs(count);
        runs.into_iter().enumerate().map(|(place, run)| self.passage(place, run)).collect()
    }

    /// What the chunk at `place` takes of the prompt as a passage of its own behind others.
    pub fn tokens_alone(&mut self, place: usize) -> usize {
        self.tokens_of(1, &[place])
    }

    /// The best `count` in runs of neighbours; the run with the best chunk first, each in the order of its document.
    fn runs(&mut self, count: usize) -> Vec<Vec<usize>> {
        let mut places: Vec<usize> = (0..count.min(self.found.len())).collect();
        places.sort_by_key(|&place| (&self.found[place].attributes.path, self.found[place].attributes.chunk));
        let mut runs: Vec<Vec<usize>> = Vec::new();
        let mut previous = None;
        for place in places {
            let continues = previous.is_some_and(|previous| self.continuation(previous, place).is_some());
            match runs.last_mut() {
                Some(run) if continues => run.push(place),
                _ => runs.push(vec![place]),
            }
            previous = Some(place);
        }
        runs.sort_by_key(|run| run.iter().min().copied());
        runs
    }

    fn tokens_of(&mut self, place: usize, run: &[usize]) -> usize {
        let heading = self.heading_tokens(heading(place == 0, &self.label(run)));
        let first = run.first().map_or(0, |&first| self.found[first].tokens.len());
        let next = |pair: &[usize]| self.continuation(pair[0], pair[1]).map_or(0, |next| next.tokens);
        let others: usize = run.windows(2).map(next).sum();
        heading + first + others
    }

    fn passage(&mut self, place: usize, run: Vec<usize>) -> Passage {
        let tokens = self.tokens_of(place, &run);
        let mut content: Vec<Segment> =
            run.iter().take(1).map(|&first| Segment::Tokens(self.found[first].tokens.clone())).collect();
        for pair in run.windows(2) {
            content.extend(self.continuation(pair[0], pair[1]).into_iter().flat_map(|next| next.content.clone()));
        }
        Passage {
            lines: self.lines(&run),
            score: run.iter().min().map_or(0.0, |&best| self.found[best].score),
            tokens,
            text: ContextPassage { label: self.label(&run), content },
            chunks: run,
        }
    }

    fn lines(&self, run: &[usize]) -> (u32, u32) {
        let lines = || run.iter().map(|&place| self.found[place].lines());
        (lines().map(|(first, _)| first).min().unwrap_or(0), lines().map(|(_, last)| last).max().unwrap_or(0))
    }

    /// What the model reads above a passage.
    fn label(&self, run: &[usize]) -> String {
        let path = run.first().map_or("", |&first| self.found[first].attributes.path.as_str());
        label(path, self.lines(run))
    }

    fn heading_tokens(&mut self, heading: String) -> usize {
        let count = self.vocabulary.count;
        *self.headings.entry(heading).or_insert_with_key(|heading| count(heading))
    }

    fn continuation(&mut self, first: usize, second: usize) -> Option<&Continuation> {
        let (found, vocabulary) = (self.found, self.vocabulary);
        let continuation = self.continuations.entry((first, second));
        continuation.or_insert_with(|| continuation_of(&found[first], &found[second], vocabulary)).as_ref()
    }
}

/// What the model reads above a text of these lines.
pub fn label(path: &str, (first, last): (u32, u32)) -> String {
    format!("{path} lines {first}-{last}")
}

/// How `second`, a later chunk, goes on where `first` ends; `None` when something stands between them in the document
/// or when they are not of the same version of it.
fn continuation_of(first: &Found, second: &Found, vocabulary: Vocabulary<'_>) -> Option<Continuation> {
    let ((first_begin, first_end), (begin, end)) = (first.lines(), second.lines());
    let is_next = first.attributes.chunk.checked_add(1) == Some(second.attributes.chunk);
    if first.attributes.path != second.attributes.path || begin < first_begin || end < first_end {
        return None;
    }
    let behind = |between: &str| {
        let content = vec![Segment::Common(between.to_owned()), Segment::Tokens(second.tokens.clone())];
        Continuation { content, tokens: (vocabulary.count)(between) + second.tokens.len() }
    };
    if begin > first_end {
        return is_next.then(|| behind(if begin == first_end + 1 { "\n" } else { "\n\n" }));
    }
    if begin == end {
        // No line is new, so these are parts of a line too long for one chunk, cut at a space if it had one.
        return is_next.then(|| behind(" "));
    }
    without_overlap(first, second, first_end - begin + 1, vocabulary)
}

/// `second` without its first `shared` lines, the last ones of `first`; `None` when these are not the same.
fn without_overlap(first: &Found, second: &Found, shared: u32, vocabulary: Vocabulary<'_>) -> Option<Continuation> {
    let shared = usize::try_from(shared).ok()?;
    let bytes = |tokens: &[u32]| -> Vec<u8> { tokens.iter().flat_map(|&token| (vocabulary.piece)(token)).collect() };
    let (before, text) =
        (String::from_utf8(bytes(&first.tokens)).ok()?, String::from_utf8(bytes(&second.tokens)).ok()?);
    let (end, _) = text.match_indices('\n').nth(shared - 1)?;
    let begin = before.rmatch_indices('\n').nth(shared - 1).map_or(0, |(line_end, _)| line_end + 1);
    // Some tokenizers write a space before the first word.
    if before.get(begin..)?.trim() != text.get(..end)?.trim() {
        return None;
    }
    let end = if text.get(..end)?.ends_with('\r') { end - 1 } else { end };
    let mut read = 0;
    let at = second.tokens.iter().position(|&token| {
        let ends_here = read == end;
        read += (vocabulary.piece)(token).len();
        ends_here
    });
    Some(match at {
        Some(at) => {
            let rest = second.tokens.get(at..)?.to_vec();
            Continuation { tokens: rest.len(), content: vec![Segment::Tokens(rest)] }
        }
        // A token goes across the end of what they share.
        None => {
            let rest = text.get(end..)?;
            Continuation { tokens: (vocabulary.count)(rest), content: vec![Segment::Common(rest.to_owned())] }
        }
    })
}

#[cfg(test)]
mod tests;
