//! BM25 over the chunks: what a search engine without a model finds, as a floor.

use bm25::{Document, SearchEngine, SearchEngineBuilder, Tokenizer};

use super::ranking::Ranking;

/// A BM25 index of chunks.
#[derive(Debug)]
pub struct Lexical {
    engine: SearchEngine<usize, u32, Words>,
}

impl Lexical {
    /// Indexes chunks; their numbers are their places in `texts`.
    pub fn new(texts: &[String]) -> Self {
        let documents = texts.iter().enumerate().map(|(number, text)| Document::new(number, text.as_str()));
        Self { engine: SearchEngineBuilder::with_tokenizer_and_documents(Words, documents).build() }
    }

    /// The `most` chunks that fit `query` best; fewer when fewer have a word of it.
    pub fn search(&self, query: &str, most: usize) -> Ranking {
        self.engine.search(query, most).into_iter().map(|found| found.document.id).collect()
    }
}

/// Words in lower case; identifiers as a whole and in their parts, so that "lock scope" finds `LockScope` and
/// `lock_scope`.
#[derive(Debug)]
struct Words;

impl Tokenizer for Words {
    fn tokenize(&self, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        for identifier in text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()) {
            let parts: Vec<&str> = identifier.split('_').flat_map(humps).filter(|part| !part.is_empty()).collect();
            words.extend(parts.iter().map(|part| part.to_lowercase()));
            if parts.len() > 1 {
                words.push(identifier.to_lowercase());
            }
        }
        words
    }
}

/// The parts of a name in camel case; runs of capitals stay together.
fn humps(name: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut previous = ' ';
    for (at, character) in name.char_indices() {
        if character.is_uppercase() && previous.is_lowercase() {
            parts.extend(name.get(start..at));
            start = at;
        }
        previous = character;
    }
    parts.extend(name.get(start..));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_words_as_a_whole_and_in_parts() {
        assert_eq!(
            Words.tokenize("fn lockScope(read_URL: &Str)"),
            ["fn", "lock", "scope", "lockscope", "read", "url", "read_url", "str"]
        );
    }

    #[test]
    fn the_chunk_with_the_rare_words_of_the_query_is_first() {
        let texts = ["the cat sat", "the dog sat on the LogFile", "the cow"].map(str::to_owned);
        assert_eq!(Lexical::new(&texts).search("where is the log file", 2)[0], 1);
    }
}
