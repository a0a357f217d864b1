//! Blocks of prompts that are read one by one and put together.

use super::*;
use crate::engine::budget::{Budget, PassThreads, Share, Threads};
use crate::engine::context::{AbortSwitch, Batch, Context, ContextSpec, Output};
use crate::engine::job::{Block, ReadJob};
use crate::logic::kv_rows::join;

/// What stands before all blocks, and three blocks.
fn beginning() -> Vec<u32> {
    (1..12).collect()
}

fn block(number: u32) -> Vec<u32> {
    (0..25).map(|token| 30 + number * 50 + (token * 7 + number) % 40).collect()
}

const QUESTION: [u32; 6] = [3, 5, 8, 13, 21, 34];

/// A prompt with these blocks.
fn prompt(blocks: &[u32]) -> Vec<u32> {
    let blocks = blocks.iter().flat_map(|&number| block(number));
    beginning().into_iter().chain(blocks).chain(QUESTION).collect()
}

type Rows = Result<Arc<KvRows>, EngineError>;

fn begin_reading(served: &Arc<Served>, before: &[u32], tokens: Vec<u32>, ticket: Ticket) -> Receiver<Rows> {
    let (done, rows) = channel();
    served.read_block(ReadJob {
        block: Block { before: before.into(), tokens },
        ticket,
        permit: served.permit(100).unwrap(),
        done: Box::new(move |result| done.send(result).unwrap()),
    });
    rows
}

fn rows_of(served: &Arc<Served>, before: &[u32], tokens: Vec<u32>) -> Arc<KvRows> {
    let rows = begin_reading(served, before, tokens, Ticket::default());
    rows.recv_timeout(PATIENCE).unwrap().unwrap()
}

/// The prompt with these blocks as splices, of which the first `reread` tokens of all but the first are read.
fn splices(served: &Arc<Served>, blocks: &[u32], reread: usize) -> Vec<Splice> {
    let before = beginning();
    let rows = blocks.iter().map(|&number| rows_of(served, &before, block(number))).collect();
    Splice::of_blocks(Some(rows_of(served, &[], before.clone())), rows, reread)
}

fn ask(served: &Served, prompt: Vec<u32>, splices: Vec<Splice>) -> Answers {
    generate_with(served, prompt, greedy(max_tokens(12)), splices)
}

/// One context of two sequences over the weights of `served`.
fn context(served: &Served) -> Context {
    let spec =
        ContextSpec { context: 256, sequences: 2, batch: 128, logits: 2, kv_type: KvType::F16, output: Output::Logits };
    let budget = Budget::new(1, &Arc::default());
    let share = Share::new(&budget, Threads::Fixed(1), false, &PassThreads::new());
    Context::new(Arc::clone(&served.model), spec, Arc::new(AbortSwitch::default()), share).unwrap()
}

/// Logits after the last of `tokens`, which stand at `first`.
fn read(context: &mut Context, sequence: u32, first: u32, tokens: &[u32]) -> Vec<f32> {
    let mut batch = Batch::default();
    for (position, &token) in (first..).zip(tokens) {
        batch.push(token, position, sequence, position + 1 == first + tokens.len() as u32);
    }
    assert!(matches!(context.decode(&mut batch).unwrap(), Decoded::Done(_)));
    context.logits(tokens.len() - 1).unwrap().to_vec()
}

fn farthest(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_moved_block_is_what_llama_cpp_makes_of_shifted_cells() {
    for name in ["chat", "divides"] {
        assert_moved_as_shifted(name);
    }
}

fn assert_moved_as_shifted(name: &str) {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, options(name)).unwrap();
    let before = beginning();
    let shift = before.len() as i32;
    let mut context = context(&served);
    read(&mut context, 0, 0, &[before.clone(), block(1)].concat());
    let rows = context.cut(0, before.len()).unwrap();

    // By llama.cpp: the beginning goes, and the rest moves to its place.
    context.shift_for_test(0, shift);
    let shifted = read(&mut context, 0, block(1).len() as u32, &QUESTION);
    // From here.
    context.splice(1, 0, &[Piece { rows: &rows, skip: 0 }]).unwrap();
    let moved = read(&mut context, 1, block(1).len() as u32, &QUESTION);
    // What a block at a wrong place would be.
    let unmoved = join(
        &[Piece { rows: &rows, skip: 0 }],
        &crate::logic::kv_rows::Rope { turned: 2, ..served.model.rope().unwrap().clone() },
        2,
    )
    .unwrap();
    context.restore(1, &unmoved).unwrap();
    let wrong = read(&mut context, 1, block(1).len() as u32, &QUESTION);
    let (near, far) = (farthest(&shifted, &moved), farthest(&shifted, &wrong));
    assert!(near < 0.02 && far > 10.0 * near, "{near} and {far}");
}

#[test]
fn blocks_at_their_own_place_answer_as_a_prompt_that_is_read() {
    let engine = Engine::new(ENGINE);
    let served = one_worker(&engine);
    let splices = splices(&served, &[1], 0);
    let generation = answer(&ask(&served, prompt(&[1]), splices));
    assert_eq!(generation.spliced_tokens, beginning().len() + block(1).len());
    assert_eq!(generation.text, fresh_answer(&prompt(&[1])));
}

#[test]
fn the_same_blocks_give_the_same_answer_whichever_were_read_before() {
    let engine = Engine::new(ENGINE);
    let served = one_worker(&engine);
    let made = splices(&served, &[2, 0, 1], 4);
    let first = answer(&ask(&served, prompt(&[2, 0, 1]), made.clone()));
    answer(&generate(&served, (100..200).collect(), greedy(max_tokens(3))));
    let again = answer(&ask(&served, prompt(&[2, 0, 1]), made));
    assert_eq!((first.text, first.spliced_tokens), (again.text, again.spliced_tokens));
    assert_eq!(again.spliced_tokens, beginning().len() + 3 * 25 - 2 * 4);
    let other = Engine::new(ENGINE);
    let served = one_worker(&other);
    let made = splices(&served, &[2, 0, 1], 4);
    assert_eq!(answer(&ask(&served, prompt(&[2, 0, 1]), made)).tokens, again.tokens);
}

#[test]
fn what_was_put_together_is_not_taken_for_what_was_read() {
    let engine = Engine::new(ENGINE);
    let served =
        load(&engine, LoadOptions { workers: Some(1), threads: Some(1), parallel: Some(1), ..options("chat") })
            .unwrap();
    let made = splices(&served, &[1, 2], 0);
    answer(&ask(&served, prompt(&[1, 2]), made));
    let plain = answer(&generate(&served, prompt(&[1, 2]), greedy(max_tokens(12))));
    // The first block stands where it was read; the second one does not.
    assert_eq!(plain.cached_tokens, beginning().len() + block(1).len());
    assert_eq!(plain.text, fresh_answer(&prompt(&[1, 2])));
}

#[test]
fn rows_that_do_not_fit_the_model_are_not_used() {
    let engine = Engine::new(ENGINE);
    let served = one_worker(&engine);
    let foreign = Arc::new(KvRows::example(0, 20));
    let splices = Splice::of_blocks(Some(foreign), Vec::new(), 0);
    let generation = answer(&ask(&served, prompt(&[1]), splices));
    assert_eq!((generation.spliced_tokens, generation.text), (0, fresh_answer(&prompt(&[1]))));
}

#[test]
fn rows_longer_than_their_prompt_are_refused() {
    let engine = Engine::new(ENGINE);
    let served = one_worker(&engine);
    let splices = splices(&served, &[0, 1], 0);
    let refused = ask(&served, prompt(&[0])[..30].to_vec(), splices).recv_timeout(PATIENCE).unwrap();
    assert_eq!(refused.unwrap_err().code(), "INTERNAL");
}

#[test]
fn splices_and_copies_beside_each_other_do_not_disturb_each_other() {
    let engine = Engine::new(ENGINE);
    let served =
        load(&engine, LoadOptions { workers: Some(1), threads: Some(1), parallel: Some(4), ..options("chat") })
            .unwrap();
    let made = splices(&served, &[0, 1, 2], 3);
    let alone = answer(&ask(&served, prompt(&[0, 1, 2]), made.clone())).tokens;
    let long: Vec<u32> = (1..120).collect();
    let plain: Vec<Vec<u32>> = (200..206_u32).map(|own| long.iter().copied().chain([own]).collect()).collect();
    // Two tokens: how many tokens are read at once changes roundings, and so in the end the choices of random weights.
    let begin = |served: &Served, prompt: &Vec<u32>| generate(served, prompt.clone(), greedy(max_tokens(2)));
    let fresh = one_worker(&Engine::new(ENGINE));
    let expected: Vec<Vec<u32>> = plain.iter().map(|prompt| answer(&begin(&fresh, prompt)).tokens).collect();
    for _ in 0..5 {
        // The plain ones share a beginning, which is copied from slot to slot.
        let waiting: Vec<(Answers, Answers)> =
            plain.iter().map(|plain| (begin(&served, plain), ask(&served, prompt(&[0, 1, 2]), made.clone()))).collect();
        for ((plain, spliced), expected) in waiting.iter().zip(&expected) {
            assert_eq!(&answer(plain).tokens, expected);
            assert_eq!(answer(spliced).tokens, alone);
        }
    }
}

#[test]
fn a_quantised_cache_is_refused_with_the_reason() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, LoadOptions { kv_type: Some(KvType::Q8_0), ..options("chat") }).unwrap();
    let error = served.check_splicing().unwrap_err();
    assert!(error.to_string().contains("KVTYPE"), "{error}");
    assert!(one_worker(&Engine::new(ENGINE)).check_splicing().is_ok());
}

#[test]
fn a_block_that_is_wanted_twice_at_once_is_read_once() {
    let engine = Engine::new(ENGINE);
    let served = one_worker(&engine);
    let wanted = [(); 4].map(|()| begin_reading(&served, &beginning(), block(1), Ticket::default()));
    let rows = wanted.map(|rows| rows.recv_timeout(PATIENCE).unwrap().unwrap());
    assert!(rows.iter().all(|same| Arc::ptr_eq(same, &rows[0])));
}

#[test]
fn who_waits_for_a_reader_that_leaves_reads_the_block() {
    let engine = Engine::new(ENGINE);
    let served = one_worker(&engine);
    let busy = [1, 2].map(|first| generate(&served, (first..200).collect(), greedy(max_tokens(40))));
    // It has left when its turn comes, however soon that is.
    let leaves = Ticket::default();
    leaves.cancelled.store(true, Ordering::Release);
    let [left, other] = [leaves, Ticket::default()].map(|ticket| begin_reading(&served, &[], beginning(), ticket));
    assert_eq!(left.recv_timeout(PATIENCE).unwrap().unwrap_err().code(), "CANCELLED");
    assert_eq!(other.recv_timeout(PATIENCE).unwrap().unwrap().tokens(), beginning().len());
    busy.iter().for_each(|busy| drop(answer(busy)));
}

#[test]
fn kept_rows_go_when_the_model_is_unloaded() {
    let engine = Engine::new(ENGINE);
    let served = one_worker(&engine);
    let rows = rows_of(&served, &[], beginning());
    let block = Block { before: [].into(), tokens: beginning() };
    assert!(Arc::ptr_eq(&served.kept_rows(&block).unwrap(), &rows));
    assert_eq!(engine.kept().blocks, 1);
    drop(served);
    let (done, unloaded) = channel();
    engine.unload("chat", Requests::Finish, Box::new(move |result| done.send(result).unwrap()));
    unloaded.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(engine.kept().blocks, 0);
}
