//! Workers that lend each other what they have read: nobody's tokens in another's answer, and no request that waits for ever.

use super::*;

/// Prompts that begin alike, and what the fake decoder answers to each.
fn prompts(count: u8) -> Vec<(String, String)> {
    let begin = "shared ".repeat(20);
    (b'a'..b'a' + count).map(|own| (format!("{begin}{}", own as char), ((own + 1) as char).to_string())).collect()
}

#[test]
fn workers_read_what_their_prompts_share_once() {
    let fake = Fake::workers(3, 2, Fault::None, false);
    let prompts = prompts(6);
    let waiting: Vec<Answers> = prompts.iter().map(|(prompt, _)| fake.ask(prompt, max_tokens(1)).1).collect();
    let generations: Vec<Generation> = waiting.iter().map(answer).collect();
    assert!(generations.iter().zip(&prompts).all(|(generation, (_, expected))| generation.text == *expected));
    let read: usize = generations.iter().map(|generation| generation.prompt_tokens - generation.cached_tokens).sum();
    assert_eq!(read, 140 + 6);
}

#[test]
fn an_idle_worker_lends_to_a_busy_one() {
    let fake = Fake::workers(2, 1, Fault::None, false);
    let (prompt, expected) = prompts(1).remove(0);
    assert_eq!(answer(&fake.ask(&prompt, max_tokens(1)).1).cached_tokens, 0);
    // The worker that has read it is given this one, and the other one the second.
    let waiting = [0, 1].map(|_| fake.ask(&prompt, max_tokens(1)).1);
    for answers in waiting {
        let generation = answer(&answers);
        assert_eq!((generation.cached_tokens, generation.text), (140, expected.clone()));
    }
}

#[test]
fn a_request_whose_lender_fails_reads_its_prompt_itself() {
    for fault in [Fault::Error, Fault::Panic] {
        let fake = Fake::workers(2, 2, fault, false);
        let prompts = prompts(4);
        for _ in 0..20 {
            let waiting: Vec<Answers> = prompts.iter().map(|(prompt, _)| fake.ask(prompt, max_tokens(1)).1).collect();
            for (answers, (_, expected)) in waiting.iter().zip(&prompts) {
                // The first pass of each worker fails its requests; a panic drops them.
                if let Ok(Ok(generation)) = answers.recv_timeout(PATIENCE).map_err(|error| {
                    assert_eq!(error, std::sync::mpsc::RecvTimeoutError::Disconnected);
                }) {
                    assert_eq!(generation.text, *expected);
                }
            }
        }
        assert_eq!(answer(&fake.ask(&prompts[0].0, max_tokens(1)).1).text, prompts[0].1);
    }
}

#[test]
fn requests_that_are_cancelled_while_workers_lend_leave_the_others_alone() {
    let fake = Fake::workers(3, 2, Fault::None, false);
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..200_u32 {
        let begin = format!("{round} ").repeat(30);
        let asked: Vec<(char, Ticket, Answers)> = ('a'..='h')
            .map(|own| {
                let (ticket, answers) = fake.ask(&format!("{begin}{own}"), max_tokens(2));
                (own, ticket, answers)
            })
            .collect();
        asked
            .iter()
            .filter(|_| random.bool())
            .for_each(|(_, ticket, _)| ticket.cancelled.store(true, Ordering::Relaxed));
        for (own, ticket, answers) in &asked {
            match answers.recv_timeout(PATIENCE).unwrap() {
                Ok(generation) => assert!(generation.text.starts_with((*own as u8 + 1) as char), "{generation:?}"),
                Err(error) => assert!(ticket.is_cancelled(), "{error}"),
            }
        }
    }
}

#[test]
fn closing_a_pool_ends_workers_that_wait_for_each_other() {
    for _ in 0..50 {
        let fake = Fake::workers(3, 2, Fault::None, false);
        let waiting: Vec<Answers> = prompts(12).iter().map(|(prompt, _)| fake.ask(prompt, max_tokens(3)).1).collect();
        fake.pool.close();
        assert!(fake.pool.join(Instant::now() + PATIENCE));
        assert!(waiting.iter().all(|answers| answers.try_recv().unwrap().is_ok()));
    }
}

/// The chat model with two workers.
fn two_workers(engine: &Arc<Engine>, kv_type: Option<KvType>) -> Arc<Served> {
    let options = LoadOptions { workers: Some(2), threads: Some(1), parallel: Some(2), kv_type, ..options("chat") };
    load(engine, options).unwrap()
}

#[test]
fn what_a_model_has_read_in_one_worker_is_the_same_in_another() {
    for kv_type in [None, Some(KvType::Q8_0)] {
        let engine = Engine::new(ENGINE);
        let served = two_workers(&engine, kv_type);
        let begin: Vec<u32> = (1..150).collect();
        let prompts: Vec<Vec<u32>> = (200..204_u32).map(|own| [begin.as_slice(), &[own]].concat()).collect();
        // Two tokens: how many are read at once changes roundings, and so in the end the choices of random weights.
        let ask = |served: &Served, prompt: &Vec<u32>| generate(served, prompt.clone(), greedy(max_tokens(2)));
        let expected: Vec<Vec<u32>> = prompts
            .iter()
            .map(|prompt| answer(&ask(&two_workers(&Engine::new(ENGINE), kv_type), prompt)).tokens)
            .collect();
        let waiting: Vec<Answers> = prompts.iter().map(|prompt| ask(&served, prompt)).collect();
        let generations: Vec<Generation> = waiting.iter().map(answer).collect();
        assert_eq!(
            generations.iter().map(|generation| &generation.tokens).collect::<Vec<_>>(),
            expected.iter().collect::<Vec<_>>()
        );
        let read: usize =
            generations.iter().map(|generation| generation.prompt_tokens - generation.cached_tokens).sum();
        assert_eq!(read, 149 + 4, "{kv_type:?}");
    }
}
