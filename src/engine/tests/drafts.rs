//! Answers with drafts: the same ones, in fewer steps. Over the fake decoder, which answers with the letters that follow.

use super::*;

/// Letters in their order, and the first of them again: what the model answers stood there before.
const RIGHT: &str = "abcdefghijklmnopqrstuvwxy abcdefghijkl";
/// What followed before is not what the model answers.
const WRONG: &str = "abcdefghijklmn1234567 abcdefghijkl";
/// As above, two letters later.
const PARTLY: &str = "abcdefghijklmnop1234567 abcdefghijkl";

fn drafting() -> Fake {
    Fake::with(1, Fault::None, true)
}

#[test]
fn right_drafts_save_steps() {
    let fake = drafting();
    let generation = answer(&fake.ask(RIGHT, max_tokens(10)).1);
    assert_eq!((generation.text.as_str(), generation.finish_reason), ("mnopqrstuv", FinishReason::Length));
    assert_eq!(generation.tokens, "mnopqrstuv".bytes().map(u32::from).collect::<Vec<_>>());
    assert!(generation.accepted_tokens >= 3, "{generation:?}");
    assert_eq!(generation.drafted_tokens, generation.accepted_tokens);
    assert!(fake.steps.lock().unwrap().len() < 10);
}

#[test]
fn wrong_and_partly_right_drafts_change_nothing() {
    for (prompt, accepted) in [(WRONG, false), (PARTLY, true)] {
        let generation = answer(&drafting().ask(prompt, max_tokens(10)).1);
        assert_eq!((generation.text.as_str(), generation.completion_tokens), ("mnopqrstuv", 10));
        assert!(generation.drafted_tokens > generation.accepted_tokens, "{generation:?}");
        assert_eq!(generation.accepted_tokens > 0, accepted, "{generation:?}");
    }
}

#[test]
fn what_was_accepted_behind_the_end_of_an_answer_is_not_in_it() {
    let stop = GenerateOptions { stop: vec!["op".to_owned()], ..max_tokens(20) };
    let (end, stopped) = ("abcdefghijklmnopqrstuvwxyz{|}~ abcdefghijklmnopqrst", RIGHT);
    for (prompt, options, text, reason, tokens) in [
        (stopped, stop, "mn", FinishReason::Stop, 4),
        (end, max_tokens(20), "uvwxy", FinishReason::EndOfSequence, 6),
        (stopped, max_tokens(7), "mnopqrs", FinishReason::Length, 7),
    ] {
        let generation = answer(&drafting().ask(prompt, options).1);
        assert_eq!((generation.text.as_str(), generation.finish_reason), (text, reason));
        assert_eq!((generation.completion_tokens, generation.tokens.len()), (tokens, tokens));
        assert!(generation.drafted_tokens > 0, "{generation:?}");
    }
}

#[test]
fn a_conversation_goes_on_behind_drafts_that_were_accepted_and_those_that_were_not() {
    let fake = drafting();
    for prompt in [RIGHT, WRONG, PARTLY] {
        let first = answer(&fake.ask(prompt, max_tokens(10)).1);
        assert!(first.drafted_tokens > 0, "{first:?}");
        let second = answer(&fake.ask(&format!("{prompt}{}.stu", first.text), max_tokens(2)).1);
        // The last token of an answer was sampled and not read, unless it was drafted.
        assert!(prompt.len() + 9 <= second.cached_tokens, "{second:?}");
        assert_eq!(second.text, "vw");
    }
}

#[test]
fn answers_beside_others_are_not_drafted() {
    let fake = Fake::with(2, Fault::None, true);
    // The fake decoder looks at each step.
    let waiting: Vec<Answers> = (0..8).map(|_| fake.ask(RIGHT, max_tokens(10)).1).collect();
    assert!(waiting.iter().all(|answers| answer(answers).text == "mnopqrstuv"));
}

#[test]
fn without_speculation_nothing_is_drafted() {
    let generation = answer(&Fake::start(1, Fault::None).ask(RIGHT, max_tokens(10)).1);
    assert_eq!((generation.text.as_str(), generation.drafted_tokens), ("mnopqrstuv", 0));
}
