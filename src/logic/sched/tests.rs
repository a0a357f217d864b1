//! What the scheduler promises.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const STEP: Duration = Duration::from_millis(100);

fn scheduler(slots: usize, batch_tokens: usize) -> Scheduler {
    Scheduler::new(SchedLimits { slots, batch_tokens, step_budget: STEP })
}

fn prompt(length: u32) -> Vec<u32> {
    (0..length).collect()
}

fn plan(scheduler: &mut Scheduler) -> Plan {
    let mut plan = Plan::default();
    scheduler.plan_into(&mut plan);
    plan
}

/// One step as the worker does it: every token sampled is 7.
fn step(scheduler: &mut Scheduler, elapsed: Duration) -> Plan {
    let plan = plan(scheduler);
    scheduler.complete(&plan, elapsed);
    for entry in plan.entries.iter().filter(|e| e.wants_logits) {
        scheduler.sampled(entry.slot, 7);
    }
    plan
}

/// (slot, first position, tokens, wants logits) of each entry.
fn shape(plan: &Plan) -> Vec<(usize, u32, usize, bool)> {
    plan.entries.iter().map(|e| (e.slot.index(), e.first_pos, e.tokens.len(), e.wants_logits)).collect()
}

#[test]
fn without_requests_there_is_nothing_to_do() {
    assert!(plan(&mut scheduler(2, 8)).entries.is_empty());
}

#[test]
fn a_request_gets_the_first_free_slot_until_none_is_left() {
    let mut s = scheduler(2, 8);
    assert_eq!(s.admit(prompt(1)), Some(SlotId::new(0)));
    assert_eq!(s.admit(prompt(1)), Some(SlotId::new(1)));
    assert_eq!((s.admit(prompt(1)), s.free_slots()), (None, 0));
    s.release(SlotId::new(0));
    assert_eq!(s.admit(prompt(1)), Some(SlotId::new(0)));
}

#[test]
fn an_empty_prompt_is_refused() {
    let mut s = scheduler(2, 8);
    assert_eq!((s.admit(vec![]), s.free_slots()), (None, 2));
}

#[test]
fn there_are_never_more_slots_than_tokens_in_a_batch() {
    assert_eq!(scheduler(8, 3).free_slots(), 3);
    assert_eq!(scheduler(0, 0).free_slots(), 1);
}

#[test]
fn a_prompt_is_prefilled_in_batches_and_only_its_end_wants_logits() {
    let mut s = scheduler(1, 8);
    s.admit(prompt(10));
    assert_eq!(shape(&step(&mut s, STEP)), [(0, 0, 8, false)]);
    let second = step(&mut s, STEP);
    assert_eq!(shape(&second), [(0, 8, 2, true)]);
    assert_eq!(second.entries[0].tokens, [8, 9]);
}

#[test]
fn a_sampled_token_is_decoded_next() {
    let mut s = scheduler(1, 8);
    s.admit(prompt(3));
    step(&mut s, STEP);
    let decode = step(&mut s, STEP);
    assert_eq!(shape(&decode), [(0, 3, 1, true)]);
    assert_eq!(decode.entries[0].tokens, [7]);
    assert_eq!(shape(&step(&mut s, STEP)), [(0, 4, 1, true)]);
}

#[test]
fn a_slot_whose_token_is_owed_waits() {
    let mut s = scheduler(1, 8);
    let slot = s.admit(prompt(3)).unwrap();
    let first = plan(&mut s);
    s.complete(&first, STEP);
    assert!(plan(&mut s).entries.is_empty());
    s.sampled(slot, 5);
    assert_eq!(plan(&mut s).entries[0].tokens, [5]);
}

#[test]
fn generating_slots_come_first() {
    let mut s = scheduler(2, 8);
    s.admit(prompt(20));
    let other = s.admit(prompt(1)).unwrap();
    step(&mut s, STEP);
    let next = plan(&mut s);
    assert_eq!(next.entries[0].slot, other);
    assert_eq!(shape(&next), [(1, 1, 1, true), (0, 7, 7, false)]);
}

#[test]
fn prompts_share_a_batch_equally_and_a_short_one_passes_on_its_rest() {
    let mut s = scheduler(3, 12);
    s.admit(prompt(100));
    s.admit(prompt(2));
    s.admit(prompt(100));
    assert_eq!(shape(&plan(&mut s)), [(1, 0, 2, true), (0, 0, 5, false), (2, 0, 5, false)]);
}

#[test]
fn a_short_prompt_is_not_held_up_by_a_long_one_before_it() {
    let mut s = scheduler(2, 32);
    s.admit(prompt(100_000));
    step(&mut s, STEP);
    let short = s.admit(prompt(30)).unwrap();
    step(&mut s, STEP);
    let second = step(&mut s, STEP);
    assert!(second.entries.iter().any(|e| e.slot == short && e.wants_logits));
}

#[test]
fn alone_a_prompt_may_use_the_whole_batch_whatever_it_takes() {
    let mut s = scheduler(1, 512);
    s.admit(prompt(2000));
    step(&mut s, Duration::from_secs(50));
    assert_eq!(shape(&plan(&mut s)), [(0, 512, 512, false)]);
}

#[test]
fn beside_a_generating_slot_prefill_fits_the_step_budget() {
    let mut s = scheduler(2, 512);
    s.admit(prompt(100));
    // 1 ms per prefill token, then 20 ms for a step of one token.
    step(&mut s, Duration::from_millis(100));
    step(&mut s, Duration::from_millis(20));
    s.admit(prompt(2000));
    assert_eq!(shape(&plan(&mut s)), [(0, 101, 1, true), (1, 0, 80, false)]);
}

#[test]
fn on_a_slow_machine_prefill_still_advances() {
    let mut s = scheduler(2, 512);
    s.admit(prompt(10));
    step(&mut s, Duration::from_secs(100));
    s.admit(prompt(2000));
    let length = plan(&mut s).entries[1].tokens.len();
    assert_eq!(length, MIN_PREFILL_TOKENS);
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
            scheduler.sampled(plan.entries[0].slot, 7);
            elapsed
        })
        .collect()
}

#[test]
fn step_time_settles_near_the_budget_and_follows_a_change_of_speed() {
    let mut s = scheduler(2, 4096);
    s.admit(prompt(8));
    step(&mut s, Duration::from_millis(40));
    for _ in 0..5 {
        step(&mut s, Duration::from_millis(30));
    }
    s.admit(prompt(1_000_000));
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
    s.admit(prompt(8));
    for _ in 0..5 {
        step(&mut s, Duration::from_millis(90));
    }
    s.admit(prompt(1_000_000));
    let times = step_times(&mut s, Duration::from_millis(10), Duration::from_micros(500));
    assert!(times.iter().all(|time| *time < Duration::from_millis(150)), "{times:?}");
}

#[test]
fn on_a_slow_machine_each_of_many_prompts_still_advances() {
    let mut s = scheduler(40, 64);
    s.admit(prompt(1));
    step(&mut s, Duration::from_secs(100));
    for _ in 0..30 {
        s.admit(prompt(100));
    }
    let plan = plan(&mut s);
    assert_eq!(plan.entries.len(), 31);
    assert!(plan.entries.iter().all(|e| e.tokens.len() == 1));
}

#[test]
fn a_step_of_no_time_is_no_trouble() {
    let mut s = scheduler(2, 64);
    s.admit(prompt(8));
    step(&mut s, Duration::ZERO);
    s.admit(prompt(100));
    assert_eq!(shape(&step(&mut s, Duration::ZERO)).len(), 2);
}

#[test]
fn a_release_between_plan_and_completion_leaves_the_next_request_alone() {
    let mut s = scheduler(1, 8);
    let slot = s.admit(prompt(8)).unwrap();
    let old = plan(&mut s);
    s.release(slot);
    s.release(slot);
    assert_eq!(s.admit(prompt(5)), Some(slot));
    s.complete(&old, STEP);
    s.sampled(slot, 3);
    assert_eq!(shape(&plan(&mut s)), [(0, 0, 5, true)]);
}

#[test]
fn a_batch_that_was_not_completed_is_planned_again() {
    let mut s = scheduler(1, 8);
    s.admit(prompt(5));
    let lost = shape(&plan(&mut s));
    assert_eq!(shape(&plan(&mut s)), lost);
}

#[test]
fn an_unknown_slot_is_ignored() {
    let mut s = scheduler(1, 8);
    s.release(SlotId::new(9));
    s.sampled(SlotId::new(9), 1);
    assert_eq!(s.free_slots(), 1);
}

#[test]
fn memory_of_the_last_plan_is_used_again() {
    let mut s = scheduler(1, 8);
    s.admit(prompt(8));
    let mut plan = Plan::default();
    s.plan_into(&mut plan);
    let memory = plan.entries[0].tokens.as_ptr();
    s.complete(&plan, STEP);
    s.sampled(SlotId::new(0), 7);
    s.plan_into(&mut plan);
    assert_eq!(plan.entries[0].tokens.as_ptr(), memory);
}

/// What the test knows of a request: its prompt, the tokens it still wants to generate, and
/// the tokens the model has seen.
#[derive(Debug)]
struct Known {
    prompt: Vec<u32>,
    wants: usize,
    seen: Vec<u32>,
    next: Option<u32>,
}

#[derive(Debug, Clone)]
struct Turn {
    arrivals: Vec<(u32, usize)>,
    cancel: Option<usize>,
    fails: bool,
    millis: u64,
}

fn turn() -> impl Strategy<Value = Turn> {
    let arrivals = proptest::collection::vec((1_u32..80, 1_usize..6), 0..3);
    let cancel = proptest::option::weighted(0.2, 0_usize..8);
    (arrivals, cancel, proptest::bool::weighted(0.1), 0_u64..2000).prop_map(|(arrivals, cancel, fails, millis)| Turn {
        arrivals,
        cancel,
        fails,
        millis,
    })
}

proptest! {
    #[test]
    fn every_request_is_served_in_full_and_none_starves(
        slots in 1_usize..8,
        batch_tokens in 1_usize..40,
        turns in proptest::collection::vec(turn(), 0..40),
    ) {
        let mut s = scheduler(slots, batch_tokens);
        let mut known: BTreeMap<usize, Known> = BTreeMap::new();
        let mut queue = Vec::new();
        let mut plan = Plan::default();
        let quiet = Turn { arrivals: vec![], cancel: None, fails: false, millis: 50 };
        let mut turns = turns.into_iter();
        let mut id = 0;
        // 120 requests of 85 tokens at one token a step: more steps than that is starvation.
        for _ in 0..20_000 {
            let turn = match turns.next() {
                Some(turn) => turn,
                None if queue.is_empty() && known.is_empty() => break,
                None => quiet.clone(),
            };
            for (length, wants) in turn.arrivals {
                id += 1000;
                queue.push(((id..id + length).collect::<Vec<u32>>(), wants));
            }
            while s.free_slots() > 0 && let Some((prompt, wants)) = queue.pop() {
                let slot = s.admit(prompt.clone()).unwrap();
                let request = Known { prompt, wants, seen: vec![], next: None };
                prop_assert!(known.insert(slot.index(), request).is_none());
            }
            prop_assert!(known.len() <= slots.min(batch_tokens));
            prop_assert_eq!(s.free_slots() + known.len(), slots.min(batch_tokens));

            s.plan_into(&mut plan);
            let total: usize = plan.entries.iter().map(|e| e.tokens.len()).sum();
            prop_assert!(total <= batch_tokens);
            // Every request has exactly one entry, with at least one token.
            let mut planned: Vec<usize> = plan.entries.iter().map(|e| e.slot.index()).collect();
            planned.sort_unstable();
            prop_assert!(planned.iter().eq(known.keys()));
            prop_assert!(plan.entries.iter().all(|e| !e.tokens.is_empty()));

            // A request is cancelled, and perhaps replaced, while the plan is under way.
            if let Some(index) = turn.cancel {
                s.release(SlotId::new(index));
                known.remove(&index);
                if s.free_slots() > 0 && let Some((prompt, wants)) = queue.pop() {
                    let slot = s.admit(prompt.clone()).unwrap();
                    known.insert(slot.index(), Known { prompt, wants, seen: vec![], next: None });
                    planned.retain(|i| *i != slot.index());
                }
            }
            if turn.fails {
                // Sometimes the batch is just tried again.
                continue;
            }
            s.complete(&plan, Duration::from_millis(turn.millis));
            for entry in plan.entries.iter().filter(|e| planned.contains(&e.slot.index())) {
                let Some(request) = known.get_mut(&entry.slot.index()) else {
                    continue;
                };
                prop_assert_eq!(entry.first_pos as usize, request.seen.len());
                if let Some(next) = request.next {
                    prop_assert_eq!(&entry.tokens, &[next]);
                }
                request.seen.extend_from_slice(&entry.tokens);
                let prompt = &request.prompt;
                let read = request.seen.len().min(prompt.len());
                prop_assert_eq!(&request.seen[..read], &prompt[..read]);
                prop_assert_eq!(entry.wants_logits, request.seen.len() >= prompt.len());
                if entry.wants_logits {
                    request.wants -= 1;
                    let token = 500 + u32::try_from(request.wants).unwrap();
                    request.next = Some(token);
                    if request.wants == 0 {
                        s.release(entry.slot);
                        known.remove(&entry.slot.index());
                    } else {
                        s.sampled(entry.slot, token);
                    }
                }
            }
        }
        prop_assert!(queue.is_empty() && known.is_empty());
        prop_assert_eq!(s.free_slots(), slots.min(batch_tokens));
    }
}
