//! Workers that lose their context: who is answered what, and what comes after.

use super::*;

#[test]
fn a_worker_that_lost_what_it_held_answers_all_it_had_and_makes_it_anew_before_the_next_request() {
    let fake = Fake::start(2, Fault::Lost);
    // The first step waits for this, so that both requests are in slots when it fails.
    let first_step = fake.steps.lock().unwrap();
    let both = ["a", "b"].map(|prompt| fake.ask(prompt, max_tokens(3)).1);
    drop(first_step);
    let codes = both.map(|answers| answers.recv_timeout(PATIENCE).unwrap().map(|done| done.text).map_err(|e| e.code()));
    // The second one may have come too late for the first step.
    assert_eq!(codes[0], Err("WORKERFAIL"));
    assert!(codes[1] == Err("WORKERFAIL") || codes[1].as_deref() == Ok("cde"), "{codes:?}");
    assert_eq!(answer(&fake.ask("a", max_tokens(3)).1).text, "bcd");
    assert_eq!((fake.pool.renewed(), fake.pool.failure()), (1, None));
}

#[test]
fn a_model_whose_worker_cannot_be_made_anew_has_failed_and_refuses_what_is_queued_and_what_comes() {
    let fake = Fake::start(1, Fault::LostForGood);
    let first_step = fake.steps.lock().unwrap();
    let (_, running) = fake.ask("a", max_tokens(3));
    let queued: Vec<Answers> = (0..5).map(|_| fake.ask("a", max_tokens(3)).1).collect();
    drop(first_step);
    let code = |answers: &Answers| answers.recv_timeout(PATIENCE).unwrap().unwrap_err().code();
    assert_eq!(code(&running), "WORKERFAIL");
    assert!(queued.iter().all(|answers| code(answers) == "NOMODEL"));
    let refusal = fake.pool.permit(100).unwrap_err();
    assert_eq!((refusal.code(), refusal.to_string().contains("failed again at once")), ("NOMODEL", true), "{refusal}");
    assert!(fake.pool.join(Instant::now() + PATIENCE), "the worker has not ended");
}
