//! Which texts share a forward pass when many are embedded.

use thiserror::Error;

/// Why texts cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PackError {
    /// A text does not fit into a forward pass even alone.
    #[error(
        "text {index} has {tokens} tokens, more than the {max_tokens} of one forward pass: shorten it or load the model with a larger CTX"
    )]
    TooLong {
        /// Which text, counted from 0.
        index: usize,
        /// Its length.
        tokens: usize,
        /// The limit.
        max_tokens: usize,
    },
}

/// Groups the texts of `lengths` tokens into forward passes of at most `max_tokens` tokens and
/// `max_sequences` texts (0 is taken as 1). Each index is in exactly one group.
///
/// Attention costs the square of the tokens of a pass, so a short text is cheaper among short ones
/// than beside a long one: texts of similar length go together, the longest first.
///
/// # Errors
/// When a text is longer than `max_tokens`.
pub fn pack(lengths: &[usize], max_tokens: usize, max_sequences: usize) -> Result<Vec<Vec<usize>>, PackError> {
    let mut order: Vec<(usize, usize)> = lengths.iter().copied().zip(0..).collect();
    if let Some(&(tokens, index)) = order.iter().find(|(tokens, _)| *tokens > max_tokens) {
        return Err(PackError::TooLong { index, tokens, max_tokens });
    }
    order.sort_by_key(|&(tokens, _)| std::cmp::Reverse(tokens));

    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for (tokens, index) in order {
        match groups.last_mut() {
            Some(group) if tokens <= room && group.len() < max_sequences => {
                group.push(index);
                room -= tokens;
            }
            _ => {
                groups.push(vec![index]);
                room = max_tokens - tokens;
            }
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_to_pack_is_no_group() {
        assert_eq!(pack(&[], 10, 10), Ok(vec![]));
    }

    #[test]
    fn similar_lengths_share_a_pass() {
        assert_eq!(pack(&[2, 9, 3, 8], 20, 2), Ok(vec![vec![1, 3], vec![2, 0]]));
    }

    #[test]
    fn a_pass_ends_at_its_tokens() {
        assert_eq!(pack(&[5, 5, 5], 10, 8), Ok(vec![vec![0, 1], vec![2]]));
    }

    #[test]
    fn a_pass_ends_at_its_sequences() {
        assert_eq!(pack(&[1, 1, 1], 10, 2), Ok(vec![vec![0, 1], vec![2]]));
    }

    #[test]
    fn a_text_longer_than_a_pass_is_refused() {
        let error = pack(&[1, 11], 10, 8).unwrap_err();
        assert_eq!(error, PackError::TooLong { index: 1, tokens: 11, max_tokens: 10 });
    }

    proptest! {
        #[test]
        fn each_text_is_in_one_group_within_the_limits(
            lengths in proptest::collection::vec(0_usize..=50, 0..60),
            max_tokens in 50_usize..200,
            max_sequences in 1_usize..10,
        ) {
            let groups = pack(&lengths, max_tokens, max_sequences).unwrap();
            for group in &groups {
                prop_assert!((1..=max_sequences).contains(&group.len()));
                prop_assert!(group.iter().map(|&i| lengths[i]).sum::<usize>() <= max_tokens);
            }
            let mut all: Vec<usize> = groups.concat();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..lengths.len()));
        }
    }
}
