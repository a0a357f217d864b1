//! How a cross-encoder reads a query and a text: as one sequence, in the order in which llama.cpp's server puts them
//! (`format_prompt_rerank`).

/// The special tokens around a query and a text, and which tokens stand for those of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairLayout {
    before: Vec<u32>,
    between: Vec<u32>,
    after: Vec<u32>,
    /// Added to each token behind those between.
    second_segment: u32,
}

impl PairLayout {
    /// `[BOS] query [EOS] [SEP] text [EOS]`, with those that the tokenizer adds; `None` when nothing would part query and
    /// text.
    pub fn new(bos: Option<u32>, eos: Option<u32>, sep: Option<u32>) -> Option<Self> {
        let between: Vec<u32> = eos.into_iter().chain(sep).collect();
        (!between.is_empty()).then(|| Self {
            before: bos.into_iter().collect(),
            between,
            after: eos.into_iter().collect(),
            second_segment: 0,
        })
    }

    /// The same for a vocabulary in which the copy of each token for the text is `distance` behind the token.
    pub fn with_second_segment(self, distance: u32) -> Self {
        Self { second_segment: distance, ..self }
    }

    /// Tokens of a pair whose query and text have this many.
    pub fn length(&self, query: usize, text: usize) -> usize {
        let special = self.before.len() + self.between.len() + self.after.len();
        special.saturating_add(query).saturating_add(text)
    }

    /// The sequence of a pair.
    pub fn join(&self, query: &[u32], text: &[u32]) -> Vec<u32> {
        let mut pair = [&self.before, query, &self.between].concat();
        pair.extend(text.iter().chain(&self.after).map(|token| token.saturating_add(self.second_segment)));
        pair
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(bos: Option<u32>, eos: Option<u32>, sep: Option<u32>) -> Option<Vec<u32>> {
        PairLayout::new(bos, eos, sep).map(|layout| layout.join(&[7, 8], &[9]))
    }

    #[test]
    fn special_tokens_stand_where_llama_server_puts_them() {
        assert_eq!(joined(Some(1), Some(2), None).unwrap(), [1, 7, 8, 2, 9, 2]);
        assert_eq!(joined(Some(1), Some(2), Some(3)).unwrap(), [1, 7, 8, 2, 3, 9, 2]);
        assert_eq!(joined(Some(1), None, Some(3)).unwrap(), [1, 7, 8, 3, 9]);
        assert_eq!(joined(None, Some(2), None).unwrap(), [7, 8, 2, 9, 2]);
    }

    #[test]
    fn a_second_segment_is_the_text_and_what_ends_it() {
        let layout = PairLayout::new(Some(1), Some(2), None).unwrap().with_second_segment(100);
        assert_eq!(layout.join(&[7, 8], &[9]), [1, 7, 8, 2, 109, 102]);
    }

    #[test]
    fn query_and_text_are_never_without_a_token_between_them() {
        assert_eq!(joined(Some(1), None, None), None);
    }

    #[test]
    fn the_length_is_that_of_the_sequence() {
        for (bos, eos, sep) in [(Some(1), Some(2), Some(3)), (Some(1), None, Some(3)), (None, Some(2), None)] {
            let layout = PairLayout::new(bos, eos, sep).unwrap();
            assert_eq!(layout.length(2, 1), layout.join(&[7, 8], &[9]).len());
        }
        assert_eq!(PairLayout::new(Some(1), Some(2), None).unwrap().length(usize::MAX, 1), usize::MAX);
    }
}
