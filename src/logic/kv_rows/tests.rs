//! What is cut, joined and turned.

use proptest::prelude::*;

use super::*;

const STREAMS: u32 = 3;

/// For the rows of [`KvRows::example`].
fn rope(pairs: Pairs) -> Rope {
    Rope { pairs, turned: 4, head: 4, base: 100.0, divisors: Vec::new() }
}

fn rows(first: usize, tokens: usize) -> KvRows {
    KvRows::example(first, tokens)
}

fn all(rows: &KvRows) -> Piece<'_> {
    Piece { rows, skip: 0 }
}

fn keys(rows: &KvRows) -> Vec<f32> {
    rows.keys.iter().map(|&bits| f16::from_bits(bits).to_f32()).collect()
}

#[test]
fn what_is_joined_at_its_own_place_is_cut_out_unchanged() {
    let (one, two) = (rows(0, 5), rows(5, 3));
    let state = join(&[all(&one), all(&two)], &rope(Pairs::Neighbours), STREAMS).unwrap();
    assert_eq!(KvRows::cut(&state, 5).unwrap(), two);
    assert_eq!(KvRows::cut(&state, 0).unwrap().tokens(), 8);
    let again = join(&[all(&KvRows::cut(&state, 0).unwrap())], &rope(Pairs::Halves), STREAMS).unwrap();
    assert_eq!(again, state);
}

#[test]
fn tokens_at_the_beginning_of_a_piece_can_be_left_out() {
    let (one, two) = (rows(0, 4), rows(4, 6));
    let state = join(&[all(&one), all(&two)], &rope(Pairs::Halves), 1).unwrap();
    let rest = KvRows::cut(&state, 6).unwrap();
    let place = rows(0, 6);
    let joined = join(&[all(&place), Piece { rows: &two, skip: 2 }], &rope(Pairs::Halves), 1).unwrap();
    assert_eq!(KvRows::cut(&joined, 6).unwrap(), rest);
}

#[test]
fn a_key_is_turned_by_the_angle_of_its_positions() {
    for pairs in [Pairs::Neighbours, Pairs::Halves] {
        let (one, moved) = (rows(0, 3), rows(7, 2));
        let state = join(&[all(&one), all(&moved)], &rope(pairs), 1).unwrap();
        let (before, after) = (keys(&moved), keys(&KvRows::cut(&state, 3).unwrap()));
        for (before, after) in before.chunks_exact(4).zip(after.chunks_exact(4)) {
            let places = if pairs == Pairs::Neighbours { [(0, 1), (2, 3)] } else { [(0, 2), (1, 3)] };
            for ((x, y), speed) in places.into_iter().zip([1.0_f32, 0.1]) {
                // From 7 to 3.
                let (sin, cos) = (-4.0 * speed).sin_cos();
                let turned = [before[x] * cos - before[y] * sin, before[x] * sin + before[y] * cos];
                assert!((after[x] - turned[0]).abs() < 0.01 && (after[y] - turned[1]).abs() < 0.01, "{pairs:?}");
            }
        }
    }
}

#[test]
fn a_divisor_makes_the_angle_of_its_pair_smaller() {
    let (one, moved) = (rows(0, 4), rows(8, 1));
    let turned = |first: usize, rope: &Rope| {
        let moved = KvRows { first, ..moved.clone() };
        keys(&KvRows::cut(&join(&[all(&one), all(&moved)], rope, 1).unwrap(), 4).unwrap())
    };
    let slowed = Rope { divisors: vec![4.0, 1.0], ..rope(Pairs::Neighbours) };
    // Back by four positions at a quarter of the angle, or by one.
    let (slow, fast) = (turned(8, &slowed), turned(5, &rope(Pairs::Neighbours)));
    let near = |(slow, fast): (&f32, &f32)| (slow - fast).abs() < 0.02;
    assert!(slow.chunks_exact(4).zip(fast.chunks_exact(4)).all(|(slow, fast)| slow[..2].iter().zip(fast).all(near)));
}

#[test]
fn turned_on_and_back_it_is_what_it_was() {
    let (one, moved) = (rows(0, 9), rows(2, 4));
    let there = join(&[all(&one), all(&moved)], &rope(Pairs::Neighbours), 1).unwrap();
    let there = KvRows::cut(&there, 9).unwrap();
    let two = rows(0, 2);
    let back = join(&[all(&two), all(&there)], &rope(Pairs::Neighbours), 1).unwrap();
    let back = KvRows::cut(&back, 2).unwrap();
    assert!(keys(&back).iter().zip(keys(&moved)).all(|(back, was)| (back - was).abs() < 0.02));
    assert_eq!(back.values, moved.values);
}

#[test]
fn rows_of_different_models_do_not_fit() {
    let (one, mut other) = (rows(0, 2), rows(2, 2));
    other.layers[1].value = 4;
    let misfit = |pieces: &[Piece<'_>], rope: &Rope| matches!(join(pieces, rope, 1), Err(KvError::Misfit(_)));
    assert!(misfit(&[all(&one), all(&other)], &rope(Pairs::Halves)));
    assert!(misfit(&[], &rope(Pairs::Halves)));
    assert!(misfit(&[Piece { rows: &one, skip: 2 }], &rope(Pairs::Halves)));
    assert!(misfit(&[all(&one)], &Rope { head: 3, ..rope(Pairs::Halves) }));
}

#[test]
fn more_tokens_than_there_are_cannot_be_cut() {
    let state = join(&[all(&rows(0, 5))], &rope(Pairs::Halves), 1).unwrap();
    assert!(matches!(KvRows::cut(&state, 6), Err(KvError::Misfit(_))));
}

#[test]
fn a_state_that_ends_early_or_late_is_refused() {
    let state = join(&[all(&rows(0, 5))], &rope(Pairs::Halves), STREAMS).unwrap();
    for length in 0..state.len() {
        KvRows::cut(&state[..length], 0).unwrap_err();
    }
    let mut longer = state;
    longer.push(0);
    assert!(matches!(KvRows::cut(&longer, 0), Err(KvError::Unexpected(_))));
}

proptest! {
    #[test]
    fn no_damage_to_a_state_makes_a_panic(at in 0_usize..700, value in any::<u8>(), from in 0_usize..8) {
        let mut state = join(&[all(&rows(0, 5))], &rope(Pairs::Halves), STREAMS).unwrap();
        let at = at % state.len();
        state[at] = value;
        if let Ok(rows) = KvRows::cut(&state, from) {
            prop_assert!(rows.tokens() <= 5);
        }
    }
}
