//! Prompts with tokens that are not read.

use super::*;

fn gap(at: usize, to: usize, exact: bool) -> Gap {
    Gap { at, to, exact }
}

/// Admits a prompt of 20 tokens with these gaps.
fn begin_with(scheduler: &mut Scheduler, gaps: &[Gap]) -> SlotId {
    let slot = scheduler.admit_with_gaps(prompt(20), gaps.iter().copied()).unwrap();
    let next = scheduler.next_start().unwrap();
    assert_eq!((next.slot, next.keep), (slot, 0));
    scheduler.start(slot, 0);
    slot
}

#[test]
fn a_prompt_is_read_around_its_gaps() {
    let mut s = scheduler(1, 64);
    let slot = begin_with(&mut s, &[gap(0, 5, true), gap(8, 15, false)]);
    assert_eq!(s.next_gap(), Some((slot, gap(0, 5, true))));
    assert!(plan(&mut s).entries.is_empty());
    s.fill(slot);
    assert_eq!(s.next_gap(), None);
    assert_eq!(shape(&step(&mut s, STEP)), [(0, 5, 3, false)]);
    assert_eq!(s.next_gap(), Some((slot, gap(8, 15, false))));
    s.fill(slot);
    assert_eq!(shape(&step(&mut s, STEP)), [(0, 15, 5, true)]);
    assert_eq!(shape(&step(&mut s, STEP)), [(0, 20, 1, true)]);
}

#[test]
fn gaps_side_by_side_are_filled_one_after_another() {
    let mut s = scheduler(1, 64);
    let slot = begin_with(&mut s, &[gap(0, 5, true), gap(5, 9, false)]);
    s.fill(slot);
    assert_eq!(s.next_gap(), Some((slot, gap(5, 9, false))));
    s.fill(slot);
    assert_eq!(shape(&plan(&mut s)), [(0, 9, 11, true)]);
}

#[test]
fn what_cannot_be_filled_is_read() {
    let mut s = scheduler(1, 64);
    let slot = begin_with(&mut s, &[gap(0, 5, true), gap(8, 15, false)]);
    s.fill(slot);
    step(&mut s, STEP);
    s.read_all(slot);
    assert_eq!(s.next_gap(), None);
    assert_eq!(shape(&step(&mut s, STEP)), [(0, 0, 20, true)]);
    s.release(slot);
    s.admit(prompt(20)).unwrap();
    assert_eq!(s.next_start().map(|next| next.keep), Some(19));
}

#[test]
fn what_follows_a_gap_that_is_not_exact_is_not_kept_for_others() {
    let mut s = scheduler(1, 64);
    let slot = begin_with(&mut s, &[gap(0, 5, true), gap(8, 15, false)]);
    s.fill(slot);
    step(&mut s, STEP);
    s.fill(slot);
    (0..3).for_each(|_| drop(step(&mut s, STEP)));
    s.release(slot);
    s.admit(prompt(20)).unwrap();
    assert_eq!(s.next_start().map(|next| next.keep), Some(8));
}

#[test]
fn a_prompt_with_gaps_takes_nothing_from_others_and_nobody_waits_for_it() {
    let mut s = scheduler(3, 128);
    let first = begin(&mut s, prompt(100)).unwrap();
    step(&mut s, STEP);
    let slot = s.admit_with_gaps(prompt(100), [gap(0, 5, true), gap(5, 15, false)].into_iter()).unwrap();
    let start = s.next_start().unwrap();
    assert_eq!((start.slot, start.source, start.keep), (slot, slot, 0));
    s.start(slot, 0);
    s.fill(slot);
    s.fill(slot);
    s.release(first);
    s.forget(first);
    // It could be thought to be on its way to the same tokens.
    s.admit(prompt(100)).unwrap();
    assert_eq!(s.next_start().map(|next| next.keep), Some(0));
}

#[test]
fn a_released_slot_has_no_gaps() {
    let mut s = scheduler(1, 64);
    let slot = begin_with(&mut s, &[gap(4, 9, false)]);
    s.release(slot);
    begin(&mut s, prompt(6)).unwrap();
    assert_eq!(shape(&plan(&mut s)), [(0, 0, 6, true)]);
}
