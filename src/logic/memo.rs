//! What was worked out for short texts, kept while they come again. Two generations: when the young one is full, the old one
//! is forgotten and the young one becomes old. So what is used stays, and nothing is listed or counted by use.

use std::collections::HashMap;

/// Bytes that an entry takes beside its text and its tokens: keys, pointers, a place in the table.
const OVERHEAD: usize = 64;

/// Tokens of texts.
#[derive(Debug)]
pub struct Memo {
    /// Bytes of one generation.
    most: usize,
    young: HashMap<Box<str>, Box<[u32]>>,
    /// Of the young ones.
    bytes: usize,
    old: HashMap<Box<str>, Box<[u32]>>,
}

impl Memo {
    /// Keeps entries of about so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { most: bytes / 2, young: HashMap::new(), bytes: 0, old: HashMap::new() }
    }

    /// The tokens kept for `text`.
    pub fn get(&mut self, text: &str) -> Option<&[u32]> {
        if let Some((text, tokens)) = self.old.remove_entry(text) {
            self.keep(text, tokens);
        }
        self.young.get(text).map(AsRef::as_ref)
    }

    /// Keeps `tokens` for `text`, unless they would be a large part of everything.
    pub fn put(&mut self, text: &str, tokens: &[u32]) {
        if size(text, tokens) <= self.most / 16 {
            self.keep(text.into(), tokens.into());
        }
    }

    fn keep(&mut self, text: Box<str>, tokens: Box<[u32]>) {
        let size = size(&text, &tokens);
        if self.bytes + size > self.most {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        if self.young.insert(text, tokens).is_none() {
            self.bytes += size;
        }
    }
}

fn size(text: &str, tokens: &[u32]) -> usize {
    OVERHEAD + text.len() + size_of_val(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = OVERHEAD + 3 + 4;

    #[test]
    fn what_was_put_is_there() {
        let mut memo = Memo::new(64 * SIZE);
        memo.put("one", &[1]);
        memo.put("two", &[2]);
        assert_eq!(memo.get("one"), Some(&[1][..]));
        assert_eq!(memo.get("two"), Some(&[2][..]));
        assert_eq!(memo.get("three"), None);
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut memo = Memo::new(64 * SIZE);
        memo.put("use", &[1]);
        memo.put("not", &[2]);
        for number in 100_u32..500 {
            memo.put(&number.to_string(), &[number]);
            assert_eq!(memo.get("use"), Some(&[1][..]), "{number}");
        }
        assert_eq!(memo.get("not"), None);
    }

    #[test]
    fn it_never_takes_more_than_it_may() {
        let mut memo = Memo::new(64 * SIZE);
        for number in 100_u32..500 {
            memo.put(&number.to_string(), &[number]);
            memo.put(&number.to_string(), &[number]);
            assert!(memo.young.len() + memo.old.len() <= 64);
        }
        assert!(memo.old.len() == 32, "{}", memo.old.len());
    }

    #[test]
    fn a_large_text_is_not_kept() {
        let mut memo = Memo::new(64 * SIZE);
        let text = "x".repeat(2 * SIZE);
        memo.put(&text, &[1]);
        assert_eq!(memo.get(&text), None);
    }
}
