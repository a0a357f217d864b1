//! The largest of many numbers: of the logits of a whole vocabulary, up to 262,144 of them for each token.
//!
//! Written so that compilers make vector instructions of it: a block at a time, without leaving a loop early.

/// Numbers looked at together. Of blocks without a large number nothing more is asked.
const BLOCK: usize = 256;

/// Numbers compared at once.
const LANES: usize = 16;

/// The index of the largest finite number, the first one of equals; none when there is no finite number.
#[must_use]
pub fn argmax(values: &[f32]) -> Option<usize> {
    let mut best = (0, f32::NEG_INFINITY);
    for (start, block) in blocks(values) {
        let top = largest_in(block);
        if top == f32::INFINITY {
            return argmax_finite(values);
        }
        if top > best.1 {
            best = (start, top);
        }
    }
    let block = values.get(best.0..).unwrap_or_default();
    let place = block.iter().position(|value| *value == best.1)?;
    (best.1 > f32::NEG_INFINITY).then_some(best.0 + place)
}

/// As [`argmax`], one number after the other.
fn argmax_finite(values: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (index, &value) in values.iter().enumerate() {
        if value.is_finite() && best.is_none_or(|(_, top)| value > top) {
            best = Some((index, value));
        }
    }
    best.map(|(index, _)| index)
}

/// Replaces `found` by the `count` largest numbers and their indexes, in any order; fewer when fewer are above minus
/// infinity. Of equal numbers some are left out if there is no room for all. Every number must be one.
pub fn largest(values: &[f32], count: usize, found: &mut Vec<(usize, f32)>) {
    found.clear();
    if count == 0 {
        return;
    }
    let mut least = f32::NEG_INFINITY;
    for (start, block) in blocks(values) {
        if largest_in(block) <= least {
            continue;
        }
        found.extend((start..).zip(block.iter().copied()).filter(|(_, value)| *value > least));
        if found.len() > count {
            let (_, last, _) = found.select_nth_unstable_by(count - 1, |a, b| b.1.total_cmp(&a.1));
            least = last.1;
            found.truncate(count);
        }
    }
}

/// Whether one is not a number or infinite; minus infinity is allowed.
#[must_use]
pub fn any_unusable(values: &[f32]) -> bool {
    let mut bad = false;
    for value in values {
        bad |= value.is_nan() | (*value == f32::INFINITY);
    }
    bad
}

fn blocks(values: &[f32]) -> impl Iterator<Item = (usize, &[f32])> {
    (0..).step_by(BLOCK).zip(values.chunks(BLOCK))
}

/// The largest number; NaN does not count.
fn largest_in(block: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let groups = block.chunks_exact(LANES);
    let rest = groups.remainder();
    for group in groups {
        for (lane, &value) in lanes.iter_mut().zip(group) {
            *lane = larger(*lane, value);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |top, &value| larger(top, value))
}

/// One instruction, unlike `f32::max`.
fn larger(top: f32, value: f32) -> f32 {
    if value > top { value } else { top }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn largest_of(values: &[f32], count: usize) -> Vec<(usize, f32)> {
        let mut found = vec![(9, 9.0)];
        largest(values, count, &mut found);
        found.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found
    }

    #[test]
    fn the_first_of_equals_is_taken_and_what_is_not_finite_does_not_count() {
        let mut values = vec![0.0; 1000];
        (values[3], values[600], values[700]) = (f32::NAN, 7.0, 7.0);
        assert_eq!(argmax(&values), Some(600));
        values[800] = f32::INFINITY;
        assert_eq!(argmax(&values), Some(600));
        for none in [&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY][..], &[f32::NEG_INFINITY; 300], &[]] {
            assert_eq!(argmax(none), None);
        }
    }

    #[test]
    fn what_is_minus_infinity_is_never_among_the_largest() {
        assert_eq!(largest_of(&[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY], 3), [(1, 1.0)]);
        assert_eq!(largest_of(&[1.0, 2.0], 0), []);
    }

    #[test]
    fn of_equal_numbers_there_are_as_many_as_fit() {
        assert_eq!(largest_of(&[1.0; 900], 5).len(), 5);
    }

    #[test]
    fn only_what_no_distribution_can_hold_is_unusable() {
        assert!(!any_unusable(&[0.0, f32::NEG_INFINITY, f32::MAX]));
        assert!(any_unusable(&[0.0, f32::NAN]) && any_unusable(&[f32::INFINITY, 0.0]));
    }

    fn number() -> impl Strategy<Value = f32> {
        prop_oneof![
            20 => -100.0_f32..100.0,
            // Equal ones.
            5 => (0_u8..4).prop_map(f32::from),
            1 => Just(f32::NEG_INFINITY),
        ]
    }

    proptest! {
        #[test]
        fn the_fast_way_finds_what_the_plain_one_finds(
            mut values in proptest::collection::vec(number(), 0..1200),
            odd in proptest::option::weighted(0.3, (0_usize..1200, prop_oneof![Just(f32::NAN), Just(f32::INFINITY)])),
            count in 0_usize..60,
        ) {
            let mut sorted: Vec<f32> = values.iter().copied().filter(|value| value.is_finite()).collect();
            sorted.sort_unstable_by(|a, b| b.total_cmp(a));
            sorted.truncate(count);
            let found = largest_of(&values, count);
            prop_assert!(found.iter().all(|&(index, value)| values[index].to_bits() == value.to_bits()));
            prop_assert_eq!(found.iter().map(|found| found.1).collect::<Vec<_>>(), sorted);
            if let Some((index, value)) = odd
                && let Some(place) = values.get_mut(index)
            {
                *place = value;
            }
            prop_assert_eq!(argmax(&values), argmax_finite(&values));
            prop_assert_eq!(any_unusable(&values), values.iter().any(|v| v.is_nan() || *v == f32::INFINITY));
        }
    }
}
