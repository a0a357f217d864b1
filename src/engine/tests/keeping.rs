//! Sequences that lose their slots and come back.

use super::*;
use crate::logic::kept::KvUse;

/// The beginning of a conversation, which goes on with letters.
fn conversation(name: char) -> String {
    name.to_string().repeat(100)
}

/// Asks for one more letter, and goes on with it. How many tokens were not read.
fn turn(fake: &Fake, prompt: &mut String) -> usize {
    // As much as is worth keeping.
    prompt.push_str(&"more".repeat(20));
    let generation = answer(&fake.ask(prompt, max_tokens(1)).1);
    assert_eq!(generation.text, "f");
    prompt.push_str(&generation.text);
    generation.cached_tokens
}

#[test]
fn conversations_in_turn_are_read_once_by_one_slot() {
    let fake = Fake::start(1, Fault::None);
    let mut prompts: Vec<String> = ('A'..='J').map(conversation).collect();
    for round in 0..5 {
        for prompt in &mut prompts {
            let read = prompt.len();
            // The letter that was answered last was not read.
            assert_eq!(turn(&fake, prompt), if round == 0 { 0 } else { read - 1 }, "round {round}");
        }
    }
    assert_eq!(fake.kept.usage().sequences, 10);
}

#[test]
fn what_one_worker_has_read_comes_back_in_another() {
    let fake = Fake::workers(2, 1, Fault::None, false);
    let mut prompts: Vec<String> = ('A'..='H').map(conversation).collect();
    for round in 0..5 {
        // Always another order, so conversations change their workers.
        prompts.rotate_left(round);
        for prompt in &mut prompts {
            let read = prompt.len();
            assert_eq!(turn(&fake, prompt), if round == 0 { 0 } else { read - 1 }, "round {round}");
        }
    }
}

#[test]
fn without_a_budget_a_prompt_that_lost_its_slot_is_read_again() {
    let fake = Fake::start(1, Fault::None);
    fake.kept.set_budget(0);
    let mut prompts = ['A', 'B'].map(conversation);
    for _ in 0..3 {
        assert_eq!(prompts.each_mut().map(|prompt| turn(&fake, prompt)), [0, 0]);
    }
    assert_eq!(fake.kept.usage().bytes(), 0);
}

#[test]
fn a_sequence_whose_pass_failed_is_not_kept() {
    for fault in [Fault::Error, Fault::Panic] {
        let fake = Fake::start(1, fault);
        assert!(!matches!(fake.ask(&conversation('A'), max_tokens(1)).1.recv_timeout(PATIENCE), Ok(Ok(_))));
        turn(&fake, &mut conversation('B'));
        assert_eq!(fake.kept.usage().sequences, 0);
    }
}

#[test]
fn what_a_cancelled_request_has_read_is_kept() {
    let fake = Fake::start(1, Fault::None);
    let (ticket, answers) = fake.ask(&conversation('A'), max_tokens(1_000_000));
    while ticket.generated.load(Ordering::Relaxed) == 0 && answers.try_recv().is_err() {
        std::thread::yield_now();
    }
    ticket.cancelled.store(true, Ordering::Relaxed);
    let _ = answers.recv_timeout(PATIENCE);
    turn(&fake, &mut conversation('B'));
    assert!(turn(&fake, &mut conversation('A')) >= 100);
}

#[test]
fn requests_that_are_cancelled_at_any_time_leave_the_others_right() {
    let fake = Fake::workers(2, 2, Fault::None, false);
    let mut random = fastrand::Rng::with_seed(7);
    let mut prompts: Vec<String> = ('A'..='L').map(conversation).collect();
    for _ in 0..300 {
        let asked: Vec<(usize, Ticket, Answers)> = (0..random.usize(1..8))
            .map(|_| {
                let own = random.usize(..prompts.len());
                prompts[own].push_str(["w", "d"][random.usize(..2)]);
                let (ticket, answers) = fake.ask(&prompts[own], max_tokens(3));
                ticket.cancelled.store(random.u8(..4) == 0, Ordering::Relaxed);
                (own, ticket, answers)
            })
            .collect();
        for (_, ticket, answers) in asked {
            match answers.recv_timeout(PATIENCE).unwrap() {
                // The fake decoder asserts that each token follows what its slot holds.
                Ok(generation) => assert!(["xy", "efg"].contains(&generation.text.as_str()), "{generation:?}"),
                Err(error) => assert!(ticket.is_cancelled(), "{error}"),
            }
        }
        if random.u8(..50) == 0 {
            fake.kept.set_budget(random.u64(..3000));
        }
    }
}

#[test]
fn what_a_model_has_read_comes_back_the_same() {
    for kv_type in [None, Some(KvType::Q8_0)] {
        let load_one = |engine: &Arc<Engine>| {
            let one = LoadOptions { workers: Some(1), threads: Some(1), parallel: Some(1), kv_type, ..options("chat") };
            load(engine, one).unwrap()
        };
        let (keeps, reads) = (Engine::new(ENGINE), Engine::new(EngineSettings { kv_budget: 0, ..ENGINE }));
        let models = [load_one(&keeps), load_one(&reads)];
        let prompts: Vec<Vec<u32>> = (0..4_u32).map(|own| (own..150 + own).collect()).collect();
        for round in 0..3 {
            for prompt in &prompts {
                let asked = [prompt.as_slice(), &[200 + round]].concat();
                let [with, without] =
                    models.each_ref().map(|served| answer(&generate(served, asked.clone(), greedy(max_tokens(2)))));
                assert_eq!(with.tokens, without.tokens);
                assert_eq!((with.cached_tokens, without.cached_tokens), (if round == 0 { 0 } else { 150 }, 0));
            }
        }
        let used = keeps.kept();
        assert!(used.sequences > 0 && used.sequence_bytes > 0, "{used:?}");
        drop(models);
        assert!(keeps.stop(Instant::now() + PATIENCE));
        assert_eq!(keeps.kept(), KvUse::default());
    }
}
