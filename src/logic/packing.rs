//! Which texts share the next forward pass when several requests have texts to embed.

/// A text: the request's place in the list, and the text's place in the request.
pub type Place = (usize, usize);

/// The texts of the next pass, of at most `max_tokens` tokens and `max_sequences` texts (0 is taken as 1). `requests`
/// holds the lengths of the texts that each still has, none above `max_tokens`.
///
/// Each request gives its first text, then each its second, as long as there is room: a short query does not wait for
/// the end of a long document. The first request always gives one.
pub fn next_pass(requests: &[Vec<usize>], max_tokens: usize, max_sequences: usize) -> Vec<Place> {
    let mut pass: Vec<Place> = Vec::new();
    let mut room = max_tokens;
    let rounds = requests.iter().map(Vec::len).max().unwrap_or(0);
    for text in 0..rounds {
        let before = pass.len();
        for (request, lengths) in requests.iter().enumerate() {
            let Some(&tokens) = lengths.get(text) else { continue };
            if tokens <= room && pass.len() < max_sequences.max(1) {
                pass.push((request, text));
                room -= tokens;
            }
        }
        if pass.len() == before {
            break;
        }
    }
    pass
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_to_embed_is_an_empty_pass() {
        assert_eq!(next_pass(&[], 10, 10), []);
        assert_eq!(next_pass(&[vec![]], 10, 10), []);
    }

    #[test]
    fn a_short_request_shares_the_pass_of_a_long_one() {
        assert_eq!(next_pass(&[vec![4, 4, 4], vec![2]], 10, 8), [(0, 0), (1, 0), (0, 1)]);
    }

    #[test]
    fn a_pass_ends_at_its_tokens() {
        assert_eq!(next_pass(&[vec![5, 5, 5]], 10, 8), [(0, 0), (0, 1)]);
        assert_eq!(next_pass(&[vec![6], vec![5], vec![4]], 10, 8), [(0, 0), (2, 0)]);
    }

    #[test]
    fn a_pass_ends_at_its_sequences() {
        assert_eq!(next_pass(&[vec![1, 1, 1]], 10, 2), [(0, 0), (0, 1)]);
        assert_eq!(next_pass(&[vec![1, 1]], 10, 0), [(0, 0)]);
    }

    proptest! {
        #[test]
        fn passes_stay_within_the_limits_and_end_with_every_text_embedded_once(
            requests in proptest::collection::vec(proptest::collection::vec(0_usize..=50, 0..12), 0..12),
            max_tokens in 50_usize..200,
            max_sequences in 1_usize..10,
        ) {
            let mut left = requests;
            while left.iter().any(|request| !request.is_empty()) {
                // The oldest request is the first.
                let pass = next_pass(&left, max_tokens, max_sequences);
                prop_assert!((1..=max_sequences).contains(&pass.len()));
                prop_assert!(pass.iter().map(|&(request, text)| left[request][text]).sum::<usize>() <= max_tokens);
                let oldest = left.iter().position(|request| !request.is_empty());
                prop_assert_eq!(Some(pass[0]), oldest.map(|request| (request, 0)));
                for (request, lengths) in left.iter_mut().enumerate() {
                    let mut text = 0;
                    lengths.retain(|_| {
                        text += 1;
                        !pass.contains(&(request, text - 1))
                    });
                }
            }
        }
    }
}
