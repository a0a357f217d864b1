//! The engine without Redis: the batching loop over a fake decoder, then over llama.cpp with small random models.

mod drafts;
mod fuzz;
mod keeping;
mod lending;
mod loading;
mod measuring;
mod renewing;
mod splicing;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use redis_infer_gguf::synthetic::{BertShape, LlamaShape, write_bert, write_llama};
use tempfile::TempDir;

use super::catalogue::{Catalogue, Listing, Load};
use super::context::Decoded;
use super::decoder::{Decoder, Vocabulary};
use super::error::EngineError;
use super::job::{EmbedJob, FinishReason, GenerateJob, Generation, RerankJob, Splice, Ticket};
use super::kv_store::KvStore;
use super::model::Model;
use super::pool::{Pool, PoolSpec};
use super::registry::{Engine, EngineSettings, Requests};
use super::stop::Stop;
use super::threads::Manners;
use super::worker::Worker;
use super::{Purpose, Served, Special, source};
use crate::logic::kv_rows::{KvRows, Piece};
use crate::logic::options::{GenerateOptions, KvType, LoadOptions, ModelKind, Pooling};
use crate::logic::prompt::Segment;
use crate::logic::sched::{Plan, PlanEntry, SlotId};

const PATIENCE: Duration = Duration::from_secs(120);
const ENGINE: EngineSettings =
    EngineSettings { manners: Manners { nice: 0, cpus: None }, cpus: 2, model_dir: None, kv_budget: 1 << 30 };

// ---- The loop over a fake decoder -------------------------------------------------------------------------

/// Token ids are letters: the "model" answers a prompt with the letter after its last one, and so on; 'z' ends the
/// answer. Remembers what it was given, as a real model does, and that requests are alone when they have drafts.
struct Alphabet {
    log: Arc<Mutex<Vec<Vec<usize>>>>,
    memory: Vec<Vec<u32>>,
    /// The tokens of each entry that have logits.
    outputs: Vec<Vec<u32>>,
    logits: Vec<f32>,
    fault: Fault,
    lost: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Error,
    Panic,
    /// Nobody knows what is left; a new one works.
    Lost,
    /// As before, but a new one fails as well.
    LostForGood,
}

impl Decoder for Alphabet {
    fn decode(
        &mut self,
        plan: &Plan,
        _requests: &mut dyn Iterator<Item = Arc<AtomicBool>>,
    ) -> Result<Decoded, EngineError> {
        self.log.lock().unwrap().push(plan.entries.iter().map(|entry| entry.slot.index()).collect());
        assert!(!self.lost, "used before it was made anew");
        let fault = self.fault;
        if fault != Fault::LostForGood {
            self.fault = Fault::None;
        }
        match fault {
            Fault::None => {}
            Fault::Lost | Fault::LostForGood => {
                self.lost = true;
                return Err(lost());
            }
            Fault::Error => return Err(EngineError::Internal("on purpose".to_owned())),
            Fault::Panic => panic!("on purpose"),
        }
        for entry in &plan.entries {
            let memory = &mut self.memory[entry.slot.index()];
            assert_eq!(entry.first_pos as usize, memory.len());
            memory.extend(&entry.tokens);
            assert!(plan.entries.len() == 1 || entry.drafts() == 0);
        }
        let outputs = |entry: &PlanEntry| entry.tokens[entry.tokens.len() - entry.outputs..].to_vec();
        self.outputs = plan.entries.iter().map(outputs).collect();
        Ok(Decoded::Done(Duration::from_millis(1)))
    }

    fn logits(&mut self, entry: usize, output: usize) -> Result<&[f32], EngineError> {
        self.logits = vec![0.0; 128];
        self.logits[self.outputs[entry][output] as usize + 1] = 1.0;
        Ok(&self.logits)
    }

    fn reuse(&mut self, slot: SlotId, source: SlotId, keep: usize) -> usize {
        self.memory[slot.index()] = self.memory[source.index()][..keep].to_vec();
        keep
    }

    fn can_copy(&self) -> bool {
        true
    }

    fn cut(&mut self, _slot: SlotId, _from: usize) -> Result<KvRows, EngineError> {
        Err(EngineError::Internal("letters have no keys".to_owned()))
    }

    fn splice(&mut self, _slot: SlotId, _keep: usize, _pieces: &[Piece<'_>]) -> Result<(), EngineError> {
        Err(EngineError::Internal("letters have no keys".to_owned()))
    }

    fn saved_bytes(&mut self, slot: SlotId) -> Result<usize, EngineError> {
        Ok(self.memory[slot.index()].len())
    }

    fn save(&mut self, slot: SlotId) -> Result<Vec<u8>, EngineError> {
        Ok(self.memory[slot.index()].iter().map(|&token| token as u8).collect())
    }

    fn restore(&mut self, slot: SlotId, state: &[u8]) -> Result<(), EngineError> {
        self.memory[slot.index()] = state.iter().map(|&letter| letter.into()).collect();
        Ok(())
    }

    fn is_settled(&self) -> bool {
        true
    }

    fn clear(&mut self, slot: SlotId) {
        self.memory[slot.index()].clear();
    }

    fn clear_all(&mut self) {
        self.memory.iter_mut().for_each(Vec::clear);
    }

    fn lost(&self) -> Option<EngineError> {
        self.lost.then(lost)
    }

    fn renew(&mut self) -> Result<(), EngineError> {
        self.memory.iter_mut().for_each(Vec::clear);
        self.lost = self.fault == Fault::LostForGood;
        if self.lost { Err(lost()) } else { Ok(()) }
    }

    fn fail_next(&mut self, _times: u32) {}
}

fn lost() -> EngineError {
    EngineError::ContextLost("on purpose".to_owned())
}

struct Letters;

impl Vocabulary for Letters {
    fn piece(&self, token: u32, text: &mut Vec<u8>) -> Result<(), EngineError> {
        text.push(u8::try_from(token).unwrap());
        Ok(())
    }

    fn is_end(&self, token: u32) -> bool {
        token == u32::from(b'z')
    }
}

struct Fake {
    pool: Pool<GenerateJob>,
    kept: Arc<KvStore>,
    steps: Arc<Mutex<Vec<Vec<usize>>>>,
    stop: Stop,
}

impl Fake {
    fn start(slots: u32, fault: Fault) -> Self {
        Self::with(slots, fault, false)
    }

    fn with(slots: u32, fault: Fault, speculates: bool) -> Self {
        Self::workers(1, slots, fault, speculates)
    }

    fn workers(workers: u32, slots: u32, fault: Fault, speculates: bool) -> Self {
        let (steps, stop) = (Arc::new(Mutex::default()), Stop::default());
        let spec = PoolSpec {
            model: "fake".to_owned(),
            thread_prefix: "test-gen",
            workers,
            per_worker: slots,
            manners: Manners::default(),
            stop: stop.clone(),
        };
        let log = Arc::clone(&steps);
        let make = move || {
            let memory = vec![Vec::new(); slots as usize];
            let log = Arc::clone(&log);
            Ok(Alphabet { log, memory, outputs: Vec::new(), logits: Vec::new(), fault, lost: false })
        };
        let kept = KvStore::new(1 << 20, &Arc::default());
        let of_model = Arc::new(kept.for_model(usize::MAX));
        let serve = move |decoder, inbox| {
            let kept = Arc::clone(&of_model);
            Worker::new(decoder, Arc::new(Letters), inbox, kept, slots as usize, 64, speculates).run();
        };
        Self { pool: Pool::start(spec, make, serve).unwrap(), kept, steps, stop }
    }

    fn ask(&self, prompt: &str, options: GenerateOptions) -> (Ticket, Answers) {
        let ticket = Ticket::default();
        let (done, answers) = channel();
        let job = GenerateJob {
            prompt: prompt.bytes().map(u32::from).collect(),
            options: greedy(options),
            constraint: None,
            splices: Vec::new(),
            cut: None,
            ticket: ticket.clone(),
            arrived: Instant::now(),
            ready: Instant::now(),
            permit: self.pool.permit(100).unwrap(),
            done: Box::new(move |result| done.send(result).unwrap()),
        };
        self.pool.submit(job).unwrap();
        (ticket, answers)
    }
}

type Answers = Receiver<Result<Generation, EngineError>>;

fn greedy(mut options: GenerateOptions) -> GenerateOptions {
    options.sampling.temperature = 0.0;
    options
}

fn max_tokens(max_tokens: u32) -> GenerateOptions {
    GenerateOptions { max_tokens, ..GenerateOptions::default() }
}

fn answer(answers: &Answers) -> Generation {
    answers.recv_timeout(PATIENCE).unwrap().unwrap()
}

#[test]
fn an_answer_ends_at_max_tokens_with_reason_length() {
    let fake = Fake::start(1, Fault::None);
    let generation = answer(&fake.ask("a", max_tokens(3)).1);
    assert_eq!((generation.text.as_str(), generation.finish_reason), ("bcd", FinishReason::Length));
    assert_eq!((generation.prompt_tokens, generation.completion_tokens), (1, 3));
}

#[test]
fn an_answer_ends_at_the_end_token_without_its_text() {
    let fake = Fake::start(1, Fault::None);
    let generation = answer(&fake.ask("w", max_tokens(10)).1);
    assert_eq!((generation.text.as_str(), generation.finish_reason), ("xy", FinishReason::EndOfSequence));
}

#[test]
fn an_answer_ends_before_a_stop_string_that_spans_tokens() {
    let fake = Fake::start(1, Fault::None);
    let options = GenerateOptions { stop: vec!["ef".to_owned()], ..max_tokens(10) };
    let generation = answer(&fake.ask("a", options).1);
    assert_eq!((generation.text.as_str(), generation.finish_reason), ("bcd", FinishReason::Stop));
}

#[test]
fn two_requests_share_decode_calls() {
    let fake = Fake::start(2, Fault::None);
    // The first step waits for this, so that the first answer is not made when the second request comes.
    let first_step = fake.steps.lock().unwrap();
    let (_, first) = fake.ask("a", max_tokens(20));
    let (_, second) = fake.ask("b", max_tokens(20));
    drop(first_step);
    assert_eq!((answer(&first).completion_tokens, answer(&second).completion_tokens), (20, 20));
    let steps = fake.steps.lock().unwrap();
    assert!(steps.iter().any(|slots| slots.len() == 2), "no decode call served both: {steps:?}");
}

#[test]
fn a_failed_batch_fails_its_requests_and_the_next_one_works() {
    let fake = Fake::start(1, Fault::Error);
    let failed = fake.ask("a", max_tokens(3)).1.recv_timeout(PATIENCE).unwrap();
    assert_eq!(failed.unwrap_err().code(), "INTERNAL");
    assert_eq!(answer(&fake.ask("a", max_tokens(3)).1).text, "bcd");
}

#[test]
fn a_panic_in_a_step_drops_its_sinks_and_the_next_request_works() {
    let fake = Fake::start(1, Fault::Panic);
    let (_, answers) = fake.ask("a", max_tokens(3));
    assert!(answers.recv_timeout(PATIENCE).is_err(), "the sink was called instead of dropped");
    assert_eq!(answer(&fake.ask("a", max_tokens(3)).1).text, "bcd");
}

#[test]
fn a_request_cancelled_in_the_queue_is_answered_without_decoding() {
    let fake = Fake::start(1, Fault::None);
    let (done, answers) = channel();
    let ticket = Ticket::default();
    ticket.cancelled.store(true, Ordering::Relaxed);
    let job = GenerateJob {
        prompt: vec![97],
        options: max_tokens(3),
        constraint: None,
        splices: Vec::new(),
        cut: None,
        ticket,
        arrived: Instant::now(),
        ready: Instant::now(),
        permit: fake.pool.permit(100).unwrap(),
        done: Box::new(move |result| done.send(result).unwrap()),
    };
    fake.pool.submit(job).unwrap();
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap().unwrap_err().code(), "CANCELLED");
    assert!(fake.steps.lock().unwrap().is_empty());
}

#[test]
fn closing_a_pool_answers_what_is_queued_and_ends_its_threads() {
    let fake = Fake::start(1, Fault::None);
    let waiting: Vec<Answers> = (0..5).map(|_| fake.ask("a", max_tokens(5)).1).collect();
    fake.pool.close();
    assert!(waiting.iter().all(|answers| answer(answers).text == "bcdef"));
    assert!(fake.pool.join(Instant::now() + PATIENCE));
    assert_eq!(fake.pool.requests(), 0, "every request gave its place back");
}

#[test]
fn stopping_answers_every_request_with_cancelled() {
    let fake = Fake::start(1, Fault::None);
    fake.stop.end_model();
    let (_, answers) = fake.ask("a", max_tokens(1_000_000));
    fake.pool.close();
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap().unwrap_err().code(), "CANCELLED");
    assert!(fake.pool.join(Instant::now() + PATIENCE));
}

// ---- llama.cpp with small random models -------------------------------------------------------------------

struct Models {
    dir: TempDir,
}

static MODELS: LazyLock<Models> = LazyLock::new(|| {
    let dir = TempDir::new().unwrap();
    write_llama(&dir.path().join("chat.gguf"), &LlamaShape::default(), 1).unwrap();
    let divides = LlamaShape { rope_divisors: true, ..LlamaShape::default() };
    write_llama(&dir.path().join("divides.gguf"), &divides, 1).unwrap();
    write_bert(&dir.path().join("embed.gguf"), &BertShape::default(), 1).unwrap();
    for (name, labels) in [("rank", 1), ("classify", 3)] {
        let shape = BertShape { labels, ..BertShape::default() };
        write_bert(&dir.path().join(format!("{name}.gguf")), &shape, 1).unwrap();
    }
    Models { dir }
});

fn options(name: &str) -> LoadOptions {
    let path = MODELS.dir.path().join(format!("{name}.gguf"));
    let args: [&[u8]; 2] = [name.as_bytes(), path.to_str().unwrap().as_bytes()];
    LoadOptions::parse(&args).unwrap()
}

fn load(engine: &Arc<Engine>, options: LoadOptions) -> Result<Arc<Served>, EngineError> {
    let name = options.name.clone();
    let (done, loaded) = channel();
    engine.load(options, 0, Box::new(move |result| done.send(result).unwrap()));
    loaded.recv_timeout(PATIENCE).unwrap()?;
    engine.find(&name)
}

fn generate(served: &Served, prompt: Vec<u32>, options: GenerateOptions) -> Answers {
    generate_with(served, prompt, options, Vec::new())
}

/// As [`generate`], with rows in the places of some tokens.
fn generate_with(served: &Served, prompt: Vec<u32>, options: GenerateOptions, splices: Vec<Splice>) -> Answers {
    let (done, answers) = channel();
    served.generate(GenerateJob {
        prompt,
        options,
        constraint: None,
        splices,
        cut: None,
        ticket: Ticket::default(),
        arrived: Instant::now(),
        ready: Instant::now(),
        permit: served.permit(100).unwrap(),
        done: Box::new(move |result| done.send(result).unwrap()),
    });
    answers
}

fn embed(served: &Served, texts: &[&str]) -> Receiver<Result<Vec<Vec<f32>>, EngineError>> {
    let (done, answers) = channel();
    served.embed(EmbedJob {
        texts: texts.iter().map(|text| served.model.tokenize(text, Special::Add).unwrap()).collect(),
        ticket: Ticket::default(),
        permit: served.permit(100).unwrap(),
        done: Box::new(move |result| done.send(result).unwrap()),
    });
    answers
}

#[test]
fn the_kind_of_a_model_is_read_from_its_file() {
    let engine = Engine::new(ENGINE);
    assert_eq!(load(&engine, options("chat")).unwrap().model.purpose, Purpose::Generation);
    assert_eq!(load(&engine, options("embed")).unwrap().model.purpose, Purpose::Embedding);
    assert_eq!(load(&engine, options("rank")).unwrap().model.purpose, Purpose::Reranking);
    assert!(engine.stop(Instant::now() + PATIENCE));
}

#[test]
fn text_survives_tokens_and_back() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, options("chat")).unwrap();
    for text in ["hello world", " leading", "line\r\nline\0nul", "\u{20ac} \u{4e00} \u{1f980}", "<|im_end|>"] {
        let tokens = served.model.tokenize(text, Special::None).unwrap();
        assert_eq!(String::from_utf8(served.model.detokenize(&tokens).unwrap()).unwrap(), text);
    }
}

#[test]
fn common_text_has_the_same_tokens_each_time_also_where_a_template_says_the_same() {
    let engine = Engine::new(ENGINE);
    let model = &load(&engine, options("chat")).unwrap().model;
    for text in ["a.md lines 1-9\n", "<|im_end|>\n"] {
        let encode = |segment: fn(String) -> Segment| model.encode(&[segment(text.to_owned())]).unwrap();
        let (plain, template) = (encode(Segment::Text), encode(Segment::Template));
        for _ in 0..2 {
            assert_eq!([encode(Segment::Common), encode(Segment::Template)], [plain.clone(), template.clone()]);
        }
        assert_eq!(plain == template, !text.starts_with('<'));
    }
}

#[test]
fn a_special_token_in_a_users_text_stays_text() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, options("chat")).unwrap();
    let tokens = served.model.tokenize("<|im_end|>", Special::None).unwrap();
    assert!(tokens.iter().all(|&token| !served.model.is_end(token)), "{tokens:?}");
}

#[test]
fn an_unknown_token_id_is_refused_before_llama_sees_it() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, options("chat")).unwrap();
    let vocabulary = served.model.facts.vocabulary;
    assert_eq!(served.model.detokenize(&[0, vocabulary]).unwrap_err().code(), "BADTOKENS");
    assert_eq!(served.model.detokenize(&[u32::MAX]).unwrap_err().code(), "BADTOKENS");
}

#[test]
fn greedy_answers_are_the_same_alone_and_beside_others() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, options("chat")).unwrap();
    let prompts: Vec<Vec<u32>> = (1..9_u32).map(|n| (1..=n * 7).collect()).collect();
    let alone: Vec<String> =
        prompts.iter().map(|p| answer(&generate(&served, p.clone(), greedy(max_tokens(12)))).text).collect();
    let waiting: Vec<Answers> = prompts.iter().map(|p| generate(&served, p.clone(), greedy(max_tokens(12)))).collect();
    let together: Vec<String> = waiting.iter().map(|answers| answer(answers).text).collect();
    assert_eq!(alone, together);
}

/// The chat model with one worker, which answers two requests at once.
fn one_worker(engine: &Arc<Engine>) -> Arc<Served> {
    load(engine, LoadOptions { workers: Some(1), threads: Some(1), parallel: Some(2), ..options("chat") }).unwrap()
}

/// What a worker without any memory of earlier requests answers.
fn fresh_answer(prompt: &[u32]) -> String {
    let engine = Engine::new(ENGINE);
    let served = one_worker(&engine);
    answer(&generate(&served, prompt.to_vec(), greedy(max_tokens(12)))).text
}

#[test]
fn a_prompt_that_begins_like_an_earlier_one_is_read_from_where_they_part() {
    let engine = Engine::new(ENGINE);
    let served = one_worker(&engine);
    let first: Vec<u32> = (1..100).collect();
    let mut second: Vec<u32> = (1..80).collect();
    second.extend([7, 7, 7]);
    for (prompt, cached) in [(&first, 0), (&first, 98), (&second, 79), (&first, 79)] {
        let generation = answer(&generate(&served, prompt.clone(), greedy(max_tokens(12))));
        assert_eq!((generation.cached_tokens, generation.prompt_tokens), (cached, prompt.len()));
        assert_eq!(generation.text, fresh_answer(prompt));
    }
}

#[test]
fn nothing_of_earlier_requests_shows_in_a_prompt_of_its_own() {
    let engine = Engine::new(ENGINE);
    let served = one_worker(&engine);
    for from in [1_u32, 50, 100, 150] {
        let prompt: Vec<u32> = (from..from + 40).collect();
        let generation = answer(&generate(&served, prompt.clone(), greedy(max_tokens(12))));
        assert_eq!((generation.cached_tokens, generation.text), (0, fresh_answer(&prompt)));
    }
}

#[test]
fn two_requests_at_once_read_what_they_share_once() {
    let engine = Engine::new(ENGINE);
    let served = one_worker(&engine);
    let prompts: Vec<Vec<u32>> = [200_u32, 210].map(|own| (1..150).chain([own, own + 1]).collect()).into();
    let answers: Vec<Answers> = prompts.iter().map(|p| generate(&served, p.clone(), greedy(max_tokens(12)))).collect();
    let generations: Vec<Generation> = answers.iter().map(answer).collect();
    assert_eq!(generations.iter().map(|g| g.cached_tokens).collect::<Vec<_>>(), [0, 149]);
    for (generation, prompt) in generations.iter().zip(&prompts) {
        assert_eq!(generation.text, fresh_answer(prompt));
    }
}

#[test]
fn a_prompt_that_leaves_no_room_names_both_numbers() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, LoadOptions { ctx: Some(64), ..options("chat") }).unwrap();
    let error = generate(&served, vec![1; 60], max_tokens(8)).recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert_eq!(error.code(), "CTXLIMIT");
    let text = error.to_string();
    assert!(text.contains("60 tokens") && text.contains("holds 64"), "{text}");
}

#[test]
fn a_prompt_that_fills_the_context_exactly_is_answered() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, LoadOptions { ctx: Some(64), ..options("chat") }).unwrap();
    let generation = answer(&generate(&served, vec![1; 60], greedy(max_tokens(4))));
    assert!(generation.completion_tokens >= 1);
}

#[test]
fn texts_embedded_together_have_the_vectors_they_have_alone() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, options("embed")).unwrap();
    let texts = ["a", "a b c", "the end of it", "x y z a b c d e f g", "a"];
    let together = embed(&served, &texts).recv_timeout(PATIENCE).unwrap().unwrap();
    for (text, vector) in texts.iter().zip(&together) {
        let alone = embed(&served, &[text]).recv_timeout(PATIENCE).unwrap().unwrap().remove(0);
        let difference = alone.iter().zip(vector).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
        assert!(difference < 1e-3, "{text}: {difference}");
    }
}

fn rerank(served: &Served, query: &str, texts: &[&str]) -> Vec<f32> {
    let (done, answers) = channel();
    served.rerank(RerankJob {
        pairs: served.pairs(query, texts, &Ticket::default()).unwrap(),
        ticket: Ticket::default(),
        permit: served.permit(100).unwrap(),
        done: Box::new(move |result| done.send(result).unwrap()),
    });
    answers.recv_timeout(PATIENCE).unwrap().unwrap()
}

#[test]
fn texts_scored_together_have_the_scores_they_have_alone() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, options("rank")).unwrap();
    let long = "the cat and the dog ".repeat(20);
    let texts = ["a", "", "the end of it", &long, "x y z a b c d e f g", "a"];
    let together = rerank(&served, "the query", &texts);
    for (text, score) in texts.iter().zip(&together) {
        let alone = rerank(&served, "the query", &[text]);
        assert!((alone[0] - score).abs() < 1e-3, "{text}: {alone:?} and {score}");
    }
    let spread = together.iter().fold(0.0_f32, |most, score| most.max((score - together[0]).abs()));
    assert!(spread > 0.1, "scores that hardly differ prove nothing: {together:?}");
}

#[test]
fn a_pair_is_laid_out_with_the_special_tokens_of_the_model() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, options("rank")).unwrap();
    let [cls, sep] = [2, 3];
    let words = |text| served.model.tokenize(text, Special::None).unwrap();
    let expected = [&[cls], &*words("the cat"), &[sep], &words("[SEP] dog"), &[sep]].concat();
    assert_eq!(served.pairs("the cat", &["[SEP] dog"], &Ticket::default()).unwrap(), [expected]);
    assert!(!words("[SEP] dog").contains(&sep), "special tokens of a text stay text");
}

#[test]
fn a_pair_longer_than_the_model_reads_is_refused_with_its_index_and_both_numbers() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, LoadOptions { ctx: Some(64), ..options("rank") }).unwrap();
    let fits = "cat ".repeat(64 - 3 - 2);
    assert_eq!(served.pairs("the dog", &[&fits], &Ticket::default()).unwrap()[0].len(), 64);
    let error = served.pairs("the dog", &["cat", &format!("{fits} cat")], &Ticket::default()).unwrap_err();
    assert_eq!(error.code(), "CTXLIMIT");
    let text = error.to_string();
    assert!(text.contains("the text at index 1 have 65 tokens together") && text.contains("at most 64"), "{text}");
}

#[test]
fn a_file_that_makes_no_single_score_is_refused_for_reranking() {
    let engine = Engine::new(ENGINE);
    for (name, reason) in [
        ("embed", "the tensor cls.output.weight is missing"),
        ("chat", "llama.cpp knows no reranker of architecture 'llama'"),
        ("classify", "it is a classifier with 3 labels"),
    ] {
        let error = load(&engine, LoadOptions { kind: ModelKind::Rerank, ..options(name) }).unwrap_err();
        assert_eq!(error.code(), "LOADFAIL");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn the_texts_behind_one_that_is_too_long_are_not_tokenized_and_none_for_a_client_that_has_left() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, options("embed")).unwrap();
    let (ticket, long) = (Ticket::default(), "cat ".repeat(5000));
    let refused = served.texts(&["a", &long, "b"], &ticket).unwrap_err();
    assert!(matches!(refused, EngineError::TextTooLong { index: 2, .. }), "{refused}");
    assert_eq!(served.texts(&["a", "b"], &ticket).unwrap().len(), 2);
    ticket.cancelled.store(true, Ordering::Relaxed);
    assert_eq!(served.texts(&[&long], &ticket).unwrap_err().code(), "CANCELLED");
    let ranks = load(&engine, options("rank")).unwrap();
    assert_eq!(ranks.pairs("a", &[&long], &ticket).unwrap_err().code(), "CANCELLED");
}

#[test]
fn a_text_has_at_least_the_tokens_that_are_told_before_it_is_tokenized() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, options("chat")).unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    for length in [0, 1, 10, 1000] {
        let text: String = (0..length).map(|_| random.char('\0'..='\u{4ff}')).collect();
        let tokens = served.model.tokenize(&text, Special::None).unwrap().len();
        let least = served.model.least_tokens(&text);
        assert!(least <= tokens && (length < 1000 || least > 20), "{least}, {tokens}");
    }
}

#[test]
fn vectors_and_scores_are_not_mistaken_for_each_other() {
    let engine = Engine::new(ENGINE);
    let (ranks, embeds) = (load(&engine, options("rank")).unwrap(), load(&engine, options("embed")).unwrap());
    let error = embed(&ranks, &["a"]).recv_timeout(PATIENCE).unwrap().unwrap_err().to_string();
    assert_eq!(error, "model 'rank' is for reranking; this command needs a model for embedding");
    let error = embeds.pairs("a", &["b"], &Ticket::default()).unwrap_err().to_string();
    assert_eq!(error, "model 'embed' is for embedding; this command needs a model for reranking");
}

#[test]
fn a_query_does_not_wait_for_the_end_of_a_long_request() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, LoadOptions { workers: Some(1), threads: Some(1), ..options("embed") }).unwrap();
    let text = "a b c d e f ".repeat(15);
    let long = embed(&served, &vec![text.as_str(); 8000]);
    let short = embed(&served, &["x"]);
    short.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!(long.try_recv().is_err(), "the long request was over before the short one");
    assert_eq!(long.recv_timeout(PATIENCE).unwrap().unwrap().len(), 8000);
}

#[test]
fn a_text_without_tokens_is_refused_by_its_position() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, options("embed")).unwrap();
    let (done, answers) = channel();
    served.embed(EmbedJob {
        texts: vec![vec![1], vec![]],
        ticket: Ticket::default(),
        permit: served.permit(100).unwrap(),
        done: Box::new(move |result| done.send(result).unwrap()),
    });
    let error = answers.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert!(error.to_string().starts_with("text 2 has no tokens"), "{error}");
}

#[test]
fn options_that_the_model_would_ignore_are_refused() {
    let engine = Engine::new(ENGINE);
    let embed = |options| load(&engine, options).unwrap_err().to_string();
    let text = embed(LoadOptions { parallel: Some(2), ..options("embed") });
    assert!(text.contains("PARALLEL, KVTYPE, SPECULATION and LORA are for generation"), "{text}");
    let text = embed(LoadOptions { kv_type: Some(KvType::F16), ..options("embed") });
    assert!(text.contains("PARALLEL, KVTYPE, SPECULATION and LORA are for generation"), "{text}");
    for name in ["chat", "rank"] {
        let text = embed(LoadOptions { pooling: Some(Pooling::Mean), ..options(name) });
        assert!(text.contains("POOLING is for embedding"), "{text}");
    }
    let text = embed(LoadOptions { parallel: Some(2), ..options("rank") });
    assert!(text.contains("PARALLEL, KVTYPE, SPECULATION and LORA are for generation"), "{text}");
}
