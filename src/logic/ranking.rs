//! The order of texts by their scores.

use std::cmp::Ordering;

/// The places of the `top` highest scores, the highest first; of equal ones the first in the list. What is not a number
/// comes last.
pub fn best_first(scores: &[f32], top: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    places.sort_by(|&a, &b| descending(scores[a], scores[b]));
    places.truncate(top);
    places
}

fn descending(a: f32, b: f32) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_highest_scores_come_first_and_equal_ones_keep_their_order() {
        assert_eq!(best_first(&[-1.0, 3.0, 0.5, 3.0], 9), [1, 3, 2, 0]);
        assert_eq!(best_first(&[-1.0, 3.0, 0.5, 3.0], 2), [1, 3]);
        assert_eq!(best_first(&[0.0, -0.0], 2), [0, 1]);
        assert_eq!(best_first(&[], 2), [0; 0]);
    }

    #[test]
    fn what_is_not_a_number_comes_last() {
        let (nan, infinity) = (f32::NAN, f32::INFINITY);
        assert_eq!(best_first(&[nan, -infinity, -nan, infinity], 4), [3, 1, 0, 2]);
    }

    proptest! {
        #[test]
        fn no_score_left_out_is_higher_than_one_that_is_kept(
            scores in prop::collection::vec(prop_oneof![9 => -5_f32..5.0, 1 => Just(f32::NAN)], 0..40),
            top in 0_usize..50,
        ) {
            let kept = best_first(&scores, top);
            prop_assert_eq!(kept.len(), top.min(scores.len()));
            prop_assert!(kept.windows(2).all(|pair| descending(scores[pair[0]], scores[pair[1]]) != Ordering::Greater));
            if let Some(&last) = kept.last() {
                let mut left = (0..scores.len()).filter(|place| !kept.contains(place));
                prop_assert!(left.all(|place| descending(scores[last], scores[place]) != Ordering::Greater));
            }
        }
    }
}
