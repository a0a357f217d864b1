//! What the scheduler promises.

mod gaps;
mod properties;

use super::*;

const STEP: Duration = Duration::from_millis(100);

fn scheduler(slots: usize, batch_tokens: usize) -> Scheduler {
    Scheduler::new(SchedLimits { slots, batch_tokens, step_budget: STEP, can_copy: true })
}

fn prompt(length: u32) -> Vec<u32> {
    (0..length).collect()
}

/// Prompts with different `from` share nothing.
fn prompt_from(from: u32, length: u32) -> Vec<u32> {
    (from * 1000..from * 1000 + length).collect()
}

fn plan(scheduler: &mut Scheduler) -> Plan {
    let mut plan = Plan::default();
    scheduler.plan_into(&mut plan);
    plan
}

/// Admits a request whose model can keep nothing, as the worker does it.
fn begin(scheduler: &mut Scheduler, prompt: Vec<u32>) -> Option<SlotId> {
    let slot = scheduler.admit(prompt)?;
    while let Some(next) = scheduler.next_start() {
        scheduler.start(next.slot, 0);
    }
    Some(slot)
}

/// One step as the worker does it: every token sampled is 7.
fn step(scheduler: &mut Scheduler, elapsed: Duration) -> Plan {
    let plan = plan(scheduler);
    scheduler.complete(&plan, elapsed);
    for entry in plan.entries.iter().filter(|e| e.outputs > 0) {
        scheduler.sampled(entry.slot, 0, 7);
    }
    plan
}

/// (slot, first position, tokens, wants logits) of each entry.
fn shape(plan: &Plan) -> Vec<(usize, u32, usize, bool)> {
    plan.entries.iter().map(|e| (e.slot.index(), e.first_pos, e.tokens.len(), e.outputs > 0)).collect()
}

#[test]
fn without_requests_there_is_nothing_to_do() {
    assert!(plan(&mut scheduler(2, 8)).entries.is_empty());
}

#[test]
fn a_request_gets_the_first_free_slot_until_none_is_left() {
    let mut s = scheduler(2, 8);
    assert_eq!(begin(&mut s, prompt(1)), Some(SlotId::new(0)));
    assert_eq!(begin(&mut s, prompt(1)), Some(SlotId::new(1)));
    assert_eq!((begin(&mut s, prompt(1)), s.free_slots()), (None, 0));
    s.release(SlotId::new(0));
    assert_eq!(begin(&mut s, prompt(1)), Some(SlotId::new(0)));
}

#[test]
fn an_empty_prompt_is_refused() {
    let mut s = scheduler(2, 8);
    assert_eq!((begin(&mut s, vec![]), s.free_slots()), (None, 2));
}

#[test]
fn there_are_never_more_slots_than_tokens_in_a_batch() {
    assert_eq!(scheduler(8, 3).free_slots(), 3);
    assert_eq!(scheduler(0, 0).free_slots(), 1);
}

#[test]
fn a_prompt_is_prefilled_in_batches_and_only_its_end_wants_logits() {
    let mut s = scheduler(1, 8);
    begin(&mut s, prompt(10));
    assert_eq!(shape(&step(&mut s, STEP)), [(0, 0, 8, false)]);
    let second = step(&mut s, STEP);
    assert_eq!(shape(&second), [(0, 8, 2, true)]);
    assert_eq!(second.entries[0].tokens, [8, 9]);
}

#[test]
fn a_sampled_token_is_decoded_next() {
    let mut s = scheduler(1, 8);
    begin(&mut s, prompt(3));
    step(&mut s, STEP);
    let decode = step(&mut s, STEP);
    assert_eq!(shape(&decode), [(0, 3, 1, true)]);
    assert_eq!(decode.entries[0].tokens, [7]);
    assert_eq!(shape(&step(&mut s, STEP)), [(0, 4, 1, true)]);
}

#[test]
fn a_slot_whose_token_is_owed_waits() {
    let mut s = scheduler(1, 8);
    let slot = begin(&mut s, prompt(3)).unwrap();
    let first = plan(&mut s);
    s.complete(&first, STEP);
    assert!(plan(&mut s).entries.is_empty());
    s.sampled(slot, 0, 5);
    assert_eq!(plan(&mut s).entries[0].tokens, [5]);
}

#[test]
fn generating_slots_get_their_token_before_prompts_share_the_rest() {
    let mut s = scheduler(2, 8);
    begin(&mut s, prompt(20));
    begin(&mut s, prompt(1));
    step(&mut s, Duration::from_millis(1));
    assert_eq!(shape(&plan(&mut s)), [(0, 7, 7, false), (1, 1, 1, true)]);
}

#[test]
fn entries_are_in_the_order_of_their_slots() {
    let mut s = scheduler(3, 30);
    for (number, length) in [(1, 9), (2, 50), (3, 3)] {
        begin(&mut s, prompt_from(number, length));
    }
    for _ in 0..5 {
        let slots: Vec<usize> = shape(&step(&mut s, Duration::from_millis(1))).iter().map(|entry| entry.0).collect();
        assert_eq!(slots, [0, 1, 2]);
    }
}

#[test]
fn prompts_share_a_batch_equally_and_a_short_one_passes_on_its_rest() {
    let mut s = scheduler(3, 12);
    begin(&mut s, prompt_from(1, 100));
    begin(&mut s, prompt_from(2, 2));
    begin(&mut s, prompt_from(3, 100));
    assert_eq!(shape(&plan(&mut s)), [(0, 0, 5, false), (1, 0, 2, true), (2, 0, 5, false)]);
}

#[test]
fn a_short_prompt_is_not_held_up_by_a_long_one_before_it() {
    let mut s = scheduler(2, 32);
    begin(&mut s, prompt(100_000));
    step(&mut s, STEP);
    let short = begin(&mut s, prompt(30)).unwrap();
    step(&mut s, STEP);
    let second = step(&mut s, STEP);
    assert!(second.entries.iter().any(|e| e.slot == short && e.outputs > 0));
}

#[test]
fn alone_a_prompt_may_use_the_whole_batch_whatever_it_takes() {
    let mut s = scheduler(1, 512);
    begin(&mut s, prompt(2000));
    step(&mut s, Duration::from_secs(50));
    assert_eq!(shape(&plan(&mut s)), [(0, 512, 512, false)]);
}

#[test]
fn beside_a_generating_slot_prefill_fits_the_step_budget() {
    let mut s = scheduler(2, 512);
    begin(&mut s, prompt(100));
    // 1 ms per prefill token, then 20 ms for a step of one token.
    step(&mut s, Duration::from_millis(100));
    step(&mut s, Duration::from_millis(20));
    begin(&mut s, prompt(2000));
    assert_eq!(shape(&plan(&mut s)), [(0, 101, 1, true), (1, 0, 80, false)]);
}

#[test]
fn on_a_slow_machine_prefill_takes_few_tokens_and_never_more_than_one_and_a_half_budgets() {
    // Seconds for ten tokens, and the tokens that are read beside an answer whose step takes 50 ms.
    for (seconds, expected) in [(0.025, 20), (0.0625, MIN_PREFILL_TOKENS), (0.2, 5), (100.0, 1)] {
        let mut s = scheduler(2, 512);
        begin(&mut s, prompt(10));
        step(&mut s, Duration::from_secs_f64(seconds));
        step(&mut s, Duration::from_millis(50));
        begin(&mut s, prompt(2000));
        assert_eq!(shape(&plan(&mut s))[1].2, expected, "{seconds}");
    }
}

#[test]
fn where_a_step_takes_longer_than_the_budget_reading_takes_half_as_long_as_decoding() {
    let mut s = scheduler(2, 512);
    begin(&mut s, prompt(10));
    step(&mut s, Duration::from_secs(1));
    step(&mut s, Duration::from_millis(400));
    begin(&mut s, prompt(2000));
    assert_eq!(shape(&plan(&mut s))[1].2, 2);
}

/// Times of 60 steps of a machine that takes `fixed` for a pass and `each` per prefill token, with
/// one slot generating beside one long prompt.
fn step_times(scheduler: &mut Scheduler, fixed: Duration, each: Duration) -> Vec<Duration> {
    (0..60)
        .map(|_| {
            let plan = plan(scheduler);
            let prefill: usize = plan.entries.iter().skip(1).map(|e| e.tokens.len()).sum();
            let elapsed = fixed + each * u32::try_from(prefill).unwrap();
            scheduler.complete(&plan, elapsed);
            scheduler.sampled(plan.entries[0].slot, 0, 7);
            elapsed
        })
        .collect()
}

#[test]
fn step_time_settles_near_the_budget_and_follows_a_change_of_speed() {
    let mut s = scheduler(2, 4096);
    begin(&mut s, prompt(8));
    step(&mut s, Duration::from_millis(40));
    for _ in 0..5 {
        step(&mut s, Duration::from_millis(30));
    }
    begin(&mut s, prompt(1_000_000));
    for micros in [100, 1000, 50] {
        let each = Duration::from_micros(micros);
        let times = step_times(&mut s, Duration::from_millis(30), each);
        let near = Duration::from_millis(70)..Duration::from_millis(130);
        assert!(times[20..].iter().all(|time| near.contains(time)), "{times:?}");
    }
}

#[test]
fn a_fixed_cost_out_of_date_does_not_break_the_budget() {
    let mut s = scheduler(2, 4096);
    begin(&mut s, prompt(8));
    for _ in 0..5 {
        step(&mut s, Duration::from_millis(90));
    }
    begin(&mut s, prompt(1_000_000));
    let times = step_times(&mut s, Duration::from_millis(10), Duration::from_micros(500));
    assert!(times.iter().all(|time| *time < Duration::from_millis(150)), "{times:?}");
}

#[test]
fn on_a_slow_machine_each_of_many_prompts_still_advances() {
    let mut s = scheduler(40, 64);
    begin(&mut s, prompt(1));
    step(&mut s, Duration::from_secs(100));
    for number in 1..31 {
        begin(&mut s, prompt_from(number, 100));
    }
    let plan = plan(&mut s);
    assert_eq!(plan.entries.len(), 31);
    assert!(plan.entries.iter().all(|e| e.tokens.len() == 1));
}

#[test]
fn a_step_of_no_time_is_no_trouble() {
    let mut s = scheduler(2, 64);
    begin(&mut s, prompt(8));
    step(&mut s, Duration::ZERO);
    begin(&mut s, prompt(100));
    assert_eq!(shape(&step(&mut s, Duration::ZERO)).len(), 2);
}

#[test]
fn a_release_between_plan_and_completion_leaves_the_next_request_alone() {
    let mut s = scheduler(1, 8);
    let slot = begin(&mut s, prompt(8)).unwrap();
    let old = plan(&mut s);
    s.release(slot);
    s.release(slot);
    assert_eq!(begin(&mut s, prompt(5)), Some(slot));
    s.complete(&old, STEP);
    s.sampled(slot, 0, 3);
    assert_eq!(shape(&plan(&mut s)), [(0, 0, 5, true)]);
}

#[test]
fn a_batch_that_was_not_completed_is_planned_again() {
    let mut s = scheduler(1, 8);
    begin(&mut s, prompt(5));
    let lost = shape(&plan(&mut s));
    assert_eq!(shape(&plan(&mut s)), lost);
}

#[test]
fn an_unknown_slot_is_ignored() {
    let mut s = scheduler(1, 8);
    s.release(SlotId::new(9));
    s.sampled(SlotId::new(9), 0, 1);
    assert_eq!(s.free_slots(), 1);
}

#[test]
fn memory_of_the_last_plan_is_used_again() {
    let mut s = scheduler(1, 8);
    begin(&mut s, prompt(8));
    let mut plan = Plan::default();
    s.plan_into(&mut plan);
    let memory = plan.entries[0].tokens.as_ptr();
    s.complete(&plan, STEP);
    s.sampled(SlotId::new(0), 0, 7);
    s.plan_into(&mut plan);
    assert_eq!(plan.entries[0].tokens.as_ptr(), memory);
}

#[test]
fn a_released_slot_keeps_what_the_next_prompt_shares_with_it() {
    let mut s = scheduler(1, 64);
    let slot = begin(&mut s, prompt(10)).unwrap();
    step(&mut s, STEP);
    s.release(slot);
    let mut next = prompt(6);
    next.extend([70, 71, 72]);
    s.admit(next).unwrap();
    assert_eq!(s.next_start(), Some(Admission { slot, source: slot, keep: 6 }));
    s.start(slot, 6);
    let plan = plan(&mut s);
    assert_eq!(shape(&plan), [(0, 6, 3, true)]);
    assert_eq!(plan.entries[0].tokens, [70, 71, 72]);
}

#[test]
fn generated_tokens_are_held_too() {
    let mut s = scheduler(1, 64);
    let slot = begin(&mut s, prompt(3)).unwrap();
    for _ in 0..3 {
        step(&mut s, STEP);
    }
    s.release(slot);
    // Three read and two of the sampled ones decoded; the third was never read.
    s.admit(vec![0, 1, 2, 7, 7, 7, 7]).unwrap();
    assert_eq!(s.next_start().unwrap().keep, 5);
}

#[test]
fn a_forgotten_slot_shares_nothing() {
    let mut s = scheduler(1, 64);
    let slot = begin(&mut s, prompt(10)).unwrap();
    step(&mut s, STEP);
    s.forget(slot);
    s.admit(prompt(10)).unwrap();
    assert_eq!(s.next_start().unwrap().keep, 0);
}

#[test]
fn a_request_waits_for_another_that_is_reading_the_same() {
    let mut s = scheduler(2, 64);
    let first = begin(&mut s, prompt(100)).unwrap();
    let second = s.admit(prompt(100)).unwrap();
    assert_eq!(s.next_start(), None);
    assert_eq!(shape(&step(&mut s, STEP)), [(0, 0, 64, false)]);
    assert_eq!(s.next_start(), None);
    step(&mut s, STEP);
    assert_eq!(s.next_start(), Some(Admission { slot: second, source: first, keep: 99 }));
    s.start(second, 99);
    assert!(shape(&plan(&mut s)).contains(&(1, 99, 1, true)));
}

#[test]
fn a_request_takes_what_there_is_when_the_one_it_waits_for_ends() {
    let mut s = scheduler(2, 64);
    let first = begin(&mut s, prompt(100)).unwrap();
    let second = s.admit(prompt(100)).unwrap();
    step(&mut s, STEP);
    s.release(first);
    assert_eq!(s.next_start(), Some(Admission { slot: second, source: first, keep: 64 }));
    s.forget(first);
    assert_eq!(s.next_start().unwrap().keep, 0);
}

#[test]
fn without_copies_no_request_waits_for_another() {
    let mut s = Scheduler::new(SchedLimits { slots: 2, batch_tokens: 64, step_budget: STEP, can_copy: false });
    begin(&mut s, prompt(100)).unwrap();
    let second = s.admit(prompt(100)).unwrap();
    assert_eq!(s.next_start(), Some(Admission { slot: second, source: second, keep: 0 }));
}

/// A slot that generates, whose next token is at position 3.
#[test]
fn a_request_that_expects_tokens_begins_with_them_and_those_after_it_follow() {
    let mut s = scheduler(2, 64);
    let first = s.admit(prompt(100)).unwrap();
    assert_eq!(s.following(first), Some((prompt(100).as_slice(), 0)));
    s.set_coming(first, 90);
    let second = s.admit(prompt(100)).unwrap();
    assert_eq!((s.next_start(), plan(&mut s).entries.len()), (None, 0));
    s.start(first, 90);
    assert_eq!(s.held(first), &prompt(90));
    assert_eq!(s.next_start(), Some(Admission { slot: second, source: first, keep: 90 }));
    assert_eq!(shape(&plan(&mut s)), [(0, 90, 10, true)]);
}

#[test]
fn a_request_that_expected_tokens_in_vain_reads_them() {
    let mut s = scheduler(1, 64);
    let slot = s.admit(prompt(100)).unwrap();
    s.set_coming(slot, 90);
    s.set_coming(slot, 0);
    assert_eq!(s.next_start(), Some(Admission { slot, source: slot, keep: 0 }));
}

#[test]
fn a_slot_that_holds_tokens_is_found_before_one_that_reads_them() {
    let mut s = scheduler(3, 64);
    let expecting = s.admit(prompt(100)).unwrap();
    s.set_coming(expecting, 99);
    let follower = s.admit(prompt(100)).unwrap();
    assert_eq!(s.holder(&prompt(50)), None, "two workers would wait for each other");
    [expecting, follower].into_iter().for_each(|slot| s.forget(slot));
    let reading = begin(&mut s, prompt(100)).unwrap();
    assert_eq!(s.holder(&prompt(50)), Some((reading, false)));
    step(&mut s, STEP);
    assert_eq!(s.holder(&prompt(50)), Some((reading, true)));
    assert_eq!(s.holder(&prompt(90)), Some((reading, false)));
    assert_eq!(s.holder(&prompt_from(7, 50)), None);
    let following = s.admit(prompt(100)).unwrap();
    s.release(reading);
    assert_eq!(s.holder(&prompt(90)), Some((following, false)));
}

fn generating(slots: usize, batch_tokens: usize) -> (Scheduler, SlotId) {
    let mut s = scheduler(slots, batch_tokens);
    let slot = begin(&mut s, prompt(3)).unwrap();
    step(&mut s, STEP);
    (s, slot)
}

#[test]
fn drafts_are_read_behind_the_token_and_each_gives_logits() {
    let (mut s, slot) = generating(1, 8);
    s.set_drafts(slot, &[1, 2]);
    let entry = PlanEntry { slot, first_pos: 3, tokens: vec![7, 1, 2], outputs: 3 };
    assert_eq!(plan(&mut s).entries, [entry]);
}

#[test]
fn after_accepted_drafts_the_answer_goes_on_behind_them() {
    for accepted in 0..3 {
        let (mut s, slot) = generating(1, 8);
        s.set_drafts(slot, &[1, 2]);
        let drafted = plan(&mut s);
        s.complete(&drafted, STEP);
        s.sampled(slot, accepted, 9);
        let first_pos = 4 + u32::try_from(accepted).unwrap();
        assert_eq!(plan(&mut s).entries, [PlanEntry { slot, first_pos, tokens: vec![9], outputs: 1 }]);
    }
}

#[test]
fn rejected_drafts_are_not_held_and_accepted_ones_are() {
    let (mut s, slot) = generating(1, 16);
    s.set_drafts(slot, &[1, 2]);
    let drafted = plan(&mut s);
    s.complete(&drafted, STEP);
    s.sampled(slot, 1, 9);
    s.release(slot);
    s.admit(vec![0, 1, 2, 7, 1, 2, 9]);
    assert_eq!(s.next_start().map(|next| next.keep), Some(5));
}

#[test]
fn drafts_leave_room_for_a_token_of_each_other_slot() {
    let (mut s, slot) = generating(3, 8);
    s.set_drafts(slot, &[1; 20]);
    begin(&mut s, prompt_from(1, 50));
    begin(&mut s, prompt_from(2, 50));
    let shape: Vec<usize> = plan(&mut s).entries.iter().map(|entry| entry.tokens.len()).collect();
    assert_eq!(shape, [6, 1, 1]);
}

#[test]
fn a_prompt_is_not_drafted_nor_a_token_that_is_owed() {
    let mut s = scheduler(1, 8);
    let slot = begin(&mut s, prompt(3)).unwrap();
    s.set_drafts(slot, &[1]);
    let prefill = plan(&mut s);
    assert_eq!(prefill.entries[0].tokens, [0, 1, 2]);
    s.complete(&prefill, STEP);
    s.set_drafts(slot, &[1]);
    s.sampled(slot, 0, 7);
    assert_eq!(plan(&mut s).entries[0].tokens, [7]);
}

#[test]
fn only_a_request_by_itself_that_generates_is_alone() {
    let mut s = scheduler(2, 8);
    assert_eq!(s.lone_generating(), None);
    let slot = begin(&mut s, prompt(3)).unwrap();
    assert_eq!(s.lone_generating(), None);
    step(&mut s, STEP);
    assert_eq!(s.lone_generating(), Some(slot));
    let other = begin(&mut s, prompt_from(1, 3)).unwrap();
    assert_eq!(s.lone_generating(), None);
    s.release(slot);
    step(&mut s, STEP);
    assert_eq!(s.lone_generating(), Some(other));
}

#[test]
fn a_pass_with_drafts_is_not_taken_for_the_speed_of_one_without() {
    let prefill_beside_an_answer = |drafts: &[u32]| {
        let mut s = scheduler(2, 512);
        begin(&mut s, prompt(100));
        step(&mut s, Duration::from_millis(100));
        let slot = s.lone_generating().unwrap();
        for _ in 0..20 {
            step(&mut s, Duration::from_millis(20));
            s.set_drafts(slot, drafts);
            let slow = plan(&mut s);
            s.complete(&slow, Duration::from_millis(if drafts.is_empty() { 20 } else { 90 }));
            s.sampled(slot, 0, 7);
        }
        begin(&mut s, prompt_from(1, 300));
        plan(&mut s).entries[1].tokens.len()
    };
    assert_eq!(prefill_beside_an_answer(&[]), prefill_beside_an_answer(&[5, 5, 5]));
}
