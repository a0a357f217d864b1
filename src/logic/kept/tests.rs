//! What is found, what is let go, and both against a plain list.

use proptest::prelude::*;

use super::*;

type Example = Kept<u32, &'static str, u32>;

const MODEL: Owner = Owner { id: 1, longest_cut: usize::MAX };

fn numbers(from: u32, to: u32) -> Vec<u32> {
    (from..to).collect()
}

/// What a prompt of these tokens and one more finds.
fn found(kept: &mut Example, owner: Owner, mut prompt: Vec<u32>) -> Option<(usize, u32)> {
    prompt.push(u32::MAX);
    kept.sequence(owner, &prompt, 0).map(|(saves, state)| (saves, *state))
}

#[test]
fn a_prompt_finds_the_sequence_that_it_shares_most_with() {
    let mut kept = Example::default();
    let fork = [numbers(0, 100), numbers(500, 700)].concat();
    kept.keep_sequence(MODEL, numbers(0, 200), 1, 10);
    kept.keep_sequence(MODEL, fork.clone(), 2, 10);
    kept.keep_sequence(MODEL, numbers(900, 1000), 3, 10);
    assert_eq!(found(&mut kept, MODEL, numbers(0, 400)), Some((200, 1)));
    assert_eq!(found(&mut kept, MODEL, fork), Some((300, 2)));
    assert_eq!(found(&mut kept, MODEL, numbers(900, 990)), Some((90, 3)));
    // Both have it; the first one is shorter.
    assert_eq!(found(&mut kept, MODEL, numbers(0, 90)), Some((90, 1)));
}

#[test]
fn the_last_token_of_a_prompt_is_read_anew() {
    let mut kept = Example::default();
    kept.keep_sequence(MODEL, numbers(0, 100), 1, 10);
    assert_eq!(kept.sequence(MODEL, &numbers(0, 100), 0), Some((99, &1)));
    assert_eq!(kept.sequence(MODEL, &[], 0), None);
}

#[test]
fn what_saves_little_is_neither_kept_nor_brought_back() {
    let mut kept = Example::default();
    let tokens = numbers(0, 200);
    assert!(kept.is_worth(MODEL, &tokens, 200 - MIN_SEQUENCE) && !kept.is_worth(MODEL, &tokens, 201 - MIN_SEQUENCE));
    kept.keep_sequence(MODEL, tokens.clone(), 1, 10);
    assert!(!kept.is_worth(MODEL, &numbers(0, 199 + MIN_SEQUENCE as u32), 0));
    assert!(kept.is_worth(MODEL, &numbers(0, 200 + MIN_SEQUENCE as u32), 0));
    assert!(kept.sequence(MODEL, &tokens, 199 - MIN_SEQUENCE).is_some());
    assert!(kept.sequence(MODEL, &tokens, 200 - MIN_SEQUENCE).is_none());
}

#[test]
fn of_a_conversation_only_the_latest_turn_is_kept() {
    let mut kept = Example::default();
    kept.keep_sequence(MODEL, numbers(0, 100), 1, 10);
    // Its last tokens were written otherwise in the next prompt.
    kept.keep_sequence(MODEL, [numbers(0, 97), numbers(500, 700)].concat(), 2, 20);
    assert_eq!((kept.usage().sequences, kept.usage().bytes()), (1, 20));
    assert_eq!(found(&mut kept, MODEL, numbers(0, 100)), Some((97, 2)));
}

#[test]
fn a_fork_of_a_conversation_is_kept_beside_it() {
    let mut kept = Example::default();
    kept.keep_sequence(MODEL, numbers(0, 200), 1, 10);
    kept.keep_sequence(MODEL, [numbers(0, 136), numbers(500, 700)].concat(), 2, 20);
    assert_eq!(kept.usage().sequences, 2);
}

#[test]
fn behind_a_sliding_window_a_sequence_serves_as_a_whole_only() {
    let window = Owner { longest_cut: 100, ..MODEL };
    let mut kept = Example::default();
    kept.keep_sequence(window, numbers(0, 100), 1, 10);
    kept.keep_sequence(window, numbers(0, 300), 2, 10);
    assert_eq!(kept.usage().sequences, 2, "the longer one does not serve those that go on with the shorter one");
    assert_eq!(found(&mut kept, window, numbers(0, 80)), Some((80, 1)));
    assert_eq!(found(&mut kept, window, numbers(0, 299)), Some((100, 1)));
    assert_eq!(found(&mut kept, window, numbers(0, 300)), Some((300, 2)));
}

#[test]
fn models_share_nothing_and_one_can_be_forgotten() {
    let other = Owner { id: 2, ..MODEL };
    let mut kept = Example::default();
    for (owner, key) in [(MODEL, 7), (other, 8)] {
        kept.keep_sequence(owner, numbers(0, 100), key, 10);
        kept.keep_block(owner.id, key, "rows", 5);
    }
    assert_eq!(found(&mut kept, other, numbers(0, 100)), Some((100, 8)));
    kept.forget(MODEL.id);
    assert_eq!(kept.take_gone().len(), 2);
    assert_eq!(found(&mut kept, MODEL, numbers(0, 100)), None);
    assert_eq!([7, 8].map(|key| kept.block(&key).copied()), [None, Some("rows")]);
    assert_eq!(kept.usage(), KvUse { blocks: 1, block_bytes: 5, sequences: 1, sequence_bytes: 10 });
}

#[test]
fn what_was_not_used_for_longest_goes_first_whatever_it_is() {
    let mut kept = Example::default();
    kept.keep_block(MODEL.id, 1, "one", 10);
    kept.keep_sequence(MODEL, numbers(0, 100), 0, 10);
    kept.keep_block(MODEL.id, 2, "two", 10);
    kept.block(&1).unwrap();
    kept.shrink(20);
    assert_eq!((found(&mut kept, MODEL, numbers(0, 100)), kept.usage().blocks), (None, 2));
    kept.shrink(19);
    assert_eq!([1, 2].map(|key| kept.block(&key).copied()), [Some("one"), None]);
    assert_eq!(kept.take_gone().len(), 2);
}

#[test]
fn the_same_block_twice_is_kept_once() {
    let mut kept = Example::default();
    kept.keep_block(MODEL.id, 1, "old", 10);
    kept.keep_block(MODEL.id, 1, "new", 15);
    assert_eq!((kept.usage().blocks, kept.usage().bytes()), (1, 15));
    assert_eq!(kept.block(&1), Some(&"new"));
}

#[derive(Debug, Clone)]
enum Step {
    Sequence { owner: u64, tokens: Vec<u32>, bytes: u64 },
    Block { key: u32, bytes: u64 },
    Find { owner: u64, prompt: Vec<u32>, have: usize },
    Rows { key: u32 },
    Forget { owner: u64 },
}

/// Tokens that often begin alike: three beginnings, each of which parts in two at some place.
fn tokens() -> impl Strategy<Value = Vec<u32>> {
    (0_u32..3, 0_u32..2, 0_u32..300, 0_u32..300).prop_map(|(family, side, fork, length)| {
        (0..length).map(|at| 10 * at + 3 * u32::from(at >= fork / 100 * 100) * side + family).collect()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..2, tokens(), 1_u64..50).prop_map(|(owner, tokens, bytes)| Step::Sequence { owner, tokens, bytes }),
        2 => (0_u32..6, 1_u64..30).prop_map(|(key, bytes)| Step::Block { key, bytes }),
        4 => (0_u64..2, tokens(), 0_usize..150).prop_map(|(owner, prompt, have)| Step::Find { owner, prompt, have }),
        2 => (0_u32..6).prop_map(|key| Step::Rows { key }),
        1 => (0_u64..2).prop_map(|owner| Step::Forget { owner }),
    ]
}

/// What is kept, the one used last at the end: owner, bytes, and a key or tokens.
type Plain = Vec<(u64, u64, Result<u32, Vec<u32>>)>;

proptest! {
    #[test]
    fn what_is_found_shares_most_and_the_bytes_stay_within_the_budget(
        steps in proptest::collection::vec(step(), 1..60),
        budget in 20_u64..150,
        window in prop_oneof![Just(usize::MAX), Just(120)],
    ) {
        let model = |id| Owner { id, longest_cut: window };
        let (mut kept, mut plain) = (Kept::<u32, u64, Vec<u32>>::default(), Plain::new());
        for step in steps {
            match step {
                Step::Sequence { owner, tokens, bytes } => {
                    kept.keep_sequence(model(owner), tokens.clone(), tokens.clone(), bytes);
                    let cut = tokens.len() <= window;
                    plain.retain(|(other, _, what)| match what {
                        Err(older) if *other == owner => {
                            let common = common_prefix(older, &tokens);
                            let serves = if cut || common == tokens.len() { common } else { 0 };
                            older.len() >= serves + MIN_SEQUENCE
                        }
                        _ => true,
                    });
                    plain.push((owner, bytes, Err(tokens)));
                }
                Step::Block { key, bytes } => {
                    kept.keep_block(0, key, bytes, bytes);
                    plain.retain(|(.., what)| *what != Ok(key));
                    plain.push((0, bytes, Ok(key)));
                }
                Step::Find { owner, prompt, have } => {
                    let most = plain.iter().filter_map(|(other, _, what)| {
                        let saved = what.as_ref().err().filter(|_| *other == owner)?;
                        let common = common_prefix(saved, &prompt).min(prompt.len().saturating_sub(1));
                        (common == saved.len() || saved.len() <= window).then_some(common)
                    });
                    let most = most.max().filter(|most| *most >= have + MIN_SEQUENCE);
                    let found = kept.sequence(model(owner), &prompt, have).map(|(saves, state)| (saves, state.clone()));
                    prop_assert_eq!(found.as_ref().map(|(saves, _)| *saves), most);
                    if let Some((saves, state)) = found {
                        prop_assert_eq!(&state[..saves], &prompt[..saves]);
                        let place = plain.iter().rposition(|(other, _, what)| *other == owner && *what == Err(state.clone()));
                        let used = plain.remove(place.unwrap());
                        plain.push(used);
                    }
                }
                Step::Rows { key } => {
                    let place = plain.iter().position(|(.., what)| *what == Ok(key));
                    prop_assert_eq!(kept.block(&key).copied(), place.map(|place| plain[place].1));
                    if let Some(place) = place {
                        let used = plain.remove(place);
                        plain.push(used);
                    }
                }
                Step::Forget { owner } => {
                    kept.forget(owner);
                    plain.retain(|(other, ..)| *other != owner);
                }
            }
            kept.shrink(budget);
            while plain.iter().map(|(_, bytes, _)| bytes).sum::<u64>() > budget {
                drop(plain.remove(0));
            }
            let total = |blocks: bool| {
                let of_kind = plain.iter().filter(|(.., what)| what.is_ok() == blocks);
                of_kind.fold((0, 0), |(number, sum), (_, bytes, _)| (number + 1, sum + bytes))
            };
            let ((blocks, block_bytes), (sequences, sequence_bytes)) = (total(true), total(false));
            prop_assert_eq!(kept.usage(), KvUse { blocks, block_bytes, sequences, sequence_bytes });
            prop_assert!(kept.usage().bytes() <= budget);
        }
    }
}
