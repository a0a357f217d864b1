//! Random arrivals, cancellations and failures, and machines of every speed.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

/// What the test knows of a request.
#[derive(Debug)]
struct Known {
    prompt: Vec<u32>,
    /// Tokens it still wants to generate.
    wants: usize,
    /// The token that was sampled last and has to be read next.
    next: Option<u32>,
    /// Tokens that prompt and answer may take of the model's memory.
    cells: usize,
    /// Steps it has been waiting for another request to read what both share; `None` once it has begun.
    waited: Option<usize>,
}

#[derive(Debug, Clone)]
struct Arrival {
    /// Tokens that all prompts of a family begin with, and tokens of its own. Those of family 0 begin with what the first
    /// slot has read, as a conversation goes on.
    family: u32,
    shared: u32,
    own: u32,
    wants: usize,
}

#[derive(Debug, Clone)]
struct Turn {
    arrivals: Vec<Arrival>,
    cancel: Option<usize>,
    fails: bool,
    millis: u64,
    /// How many tokens are guessed for each answer, and how many of them rightly.
    drafts: (u32, u32),
}

fn turn() -> impl Strategy<Value = Turn> {
    let arrival = (0_u32..3, 0_u32..90, 1_u32..30, 1_usize..30);
    let arrival = arrival.prop_map(|(family, shared, own, wants)| Arrival { family, shared, own, wants });
    let arrivals = proptest::collection::vec(arrival, 0..3);
    let cancel = proptest::option::weighted(0.2, 0_usize..8);
    let drafts = (0_u32..9, 0_u32..9);
    (arrivals, cancel, proptest::bool::weighted(0.1), 0_u64..2000, drafts)
        .prop_map(|(arrivals, cancel, fails, millis, drafts)| Turn { arrivals, cancel, fails, millis, drafts })
}

/// The longest prompt there is; whoever reads it advances by a token in each step.
const LONGEST: usize = 120;

/// A worker with a model that remembers, for each slot, exactly what it was given.
struct Machine {
    scheduler: Scheduler,
    memory: Vec<Vec<u32>>,
    known: BTreeMap<usize, Known>,
    /// In the order of arrival.
    queue: VecDeque<(Vec<u32>, usize)>,
    can_copy: bool,
    /// Every second time the model can keep nothing, as one with a recurrent state.
    keeps: bool,
    /// Tokens that slots expect from other workers, and for how many steps.
    loans: BTreeMap<usize, (usize, usize)>,
}

impl Machine {
    fn admit_all(&mut self) {
        while self.scheduler.free_slots() > 0
            && let Some((prompt, wants)) = self.queue.pop_front()
        {
            let slot = self.scheduler.admit(prompt.clone()).unwrap();
            let cells = prompt.len() + wants;
            let request = Known { prompt, wants, next: None, cells, waited: Some(0) };
            let length = request.prompt.len();
            if self.can_copy && length.is_multiple_of(3) {
                self.scheduler.set_coming(slot, length - 1);
                self.loans.insert(slot.index(), (length - 1, length % 10));
            }
            assert!(self.known.insert(slot.index(), request).is_none());
            self.start_all();
        }
    }

    /// What other workers were asked for comes, or does not.
    fn receive(&mut self) {
        let (due, later) = std::mem::take(&mut self.loans).into_iter().partition(|(_, (_, steps))| *steps == 0);
        self.loans = later;
        self.loans.values_mut().for_each(|(_, steps)| *steps -= 1);
        let due: BTreeMap<usize, (usize, usize)> = due;
        for (index, (tokens, _)) in due {
            let slot = SlotId::new(index);
            self.keeps = !self.keeps;
            if self.keeps {
                let request = self.known.get_mut(&index).unwrap();
                self.memory[index] = request.prompt[..tokens].to_vec();
                request.waited = None;
                self.scheduler.start(slot, tokens);
            } else {
                self.scheduler.set_coming(slot, 0);
            }
        }
    }

    /// Nobody waits for others without end, and not at all where nothing can be copied.
    fn count_waiting(&mut self) {
        for waited in self.known.values_mut().filter_map(|request| request.waited.as_mut()) {
            *waited += 1;
            assert!(self.can_copy && *waited <= LONGEST, "a request does not begin");
        }
    }

    fn start_all(&mut self) {
        while let Some(Admission { slot, source, keep }) = self.scheduler.next_start() {
            let request = self.known.get_mut(&slot.index()).unwrap();
            self.keeps = !self.keeps;
            let kept = if self.keeps && self.can_copy { keep } else { 0 };
            assert!(self.can_copy || source == slot);
            // The promise that keeps one client's text out of another's answer.
            assert_eq!(self.memory[source.index()][..kept], request.prompt[..kept]);
            self.memory[slot.index()] = self.memory[source.index()][..kept].to_vec();
            request.waited = None;
            self.scheduler.start(slot, kept);
        }
    }

    /// Guesses for every answer that runs. The next token of an answer is always one less than the last.
    fn set_drafts(&mut self, (count, right): (u32, u32)) {
        for (&index, request) in &self.known {
            let Some(next) = request.next else { continue };
            let count = count.min(u32::try_from(request.wants).unwrap() - 1);
            let drafts: Vec<u32> = (1..=count).map(|nth| if nth <= right { next - nth } else { 9 }).collect();
            self.scheduler.set_drafts(SlotId::new(index), &drafts);
        }
    }

    fn complete(&mut self, plan: &Plan, took_part: &[usize], millis: u64) {
        self.scheduler.complete(plan, Duration::from_millis(millis));
        for entry in plan.entries.iter().filter(|e| took_part.contains(&e.slot.index())) {
            let memory = &mut self.memory[entry.slot.index()];
            let Some(request) = self.known.get_mut(&entry.slot.index()) else {
                // Cancelled while the plan was under way: the model has read the tokens all the same.
                memory.extend(&entry.tokens);
                continue;
            };
            assert_eq!(entry.first_pos as usize, memory.len());
            assert_eq!(entry.drafts(), if request.next.is_some() { entry.tokens.len() - 1 } else { 0 });
            if let Some(next) = request.next {
                assert_eq!(entry.tokens[0], next);
            }
            memory.extend(&entry.tokens);
            assert!(memory.len() <= request.cells);
            let read = memory.len().min(request.prompt.len());
            assert_eq!(memory[..read], request.prompt[..read]);
            assert_eq!(entry.outputs > 0, memory.len() >= request.prompt.len());
            let drafts = &entry.tokens[entry.tokens.len() - entry.drafts()..];
            for accepted in 0..entry.outputs {
                request.wants -= 1;
                let token = 500_000 + u32::try_from(request.wants).unwrap();
                request.next = Some(token);
                if request.wants == 0 {
                    self.scheduler.release(entry.slot);
                    self.known.remove(&entry.slot.index());
                    break;
                }
                if drafts.get(accepted) != Some(&token) {
                    memory.truncate(memory.len() - (drafts.len() - accepted));
                    self.scheduler.sampled(entry.slot, accepted, token);
                    break;
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn every_request_is_served_in_full_with_its_own_tokens_and_none_starves(
        slots in 1_usize..8,
        batch_tokens in 1_usize..40,
        can_copy in proptest::bool::weighted(0.8),
        turns in proptest::collection::vec(turn(), 0..40),
    ) {
        let slots = slots.min(batch_tokens);
        let mut m = Machine {
            scheduler: Scheduler::new(SchedLimits { slots, batch_tokens, step_budget: STEP, can_copy }),
            memory: vec![Vec::new(); slots],
            known: BTreeMap::new(),
            queue: VecDeque::new(),
            can_copy,
            keeps: false,
            loans: BTreeMap::new(),
        };
        let mut plan = Plan::default();
        let quiet = Turn { arrivals: vec![], cancel: None, fails: false, millis: 50, drafts: (0, 0) };
        let mut turns = turns.into_iter();
        let mut id = 1_000_000;
        // 120 requests of 150 tokens at one token a step: more steps than that is starvation.
        for _ in 0..20_000 {
            let turn = match turns.next() {
                Some(turn) => turn,
                None if m.queue.is_empty() && m.known.is_empty() => break,
                None => quiet.clone(),
            };
            for Arrival { family, shared, own, wants } in turn.arrivals {
                id += 1000;
                let begun: Vec<u32> = match family {
                    0 => m.memory[0].iter().copied().take(shared as usize).collect(),
                    _ => (family * 1000..family * 1000 + shared).collect(),
                };
                let prompt = begun.into_iter().chain(id..id + own).collect();
                m.queue.push_back((prompt, wants));
            }
            m.admit_all();
            m.receive();
            m.start_all();
            m.count_waiting();
            prop_assert_eq!(m.scheduler.free_slots() + m.known.len(), slots);

            m.set_drafts(turn.drafts);
            m.scheduler.plan_into(&mut plan);
            let total: usize = plan.entries.iter().map(|e| e.tokens.len()).sum();
            prop_assert!(total <= batch_tokens);
            // Every request that has begun has exactly one entry, with at least one token, in order; and one has begun.
            let planned: Vec<usize> = plan.entries.iter().map(|e| e.slot.index()).collect();
            let begun = m.known.iter().filter(|(_, request)| request.waited.is_none()).map(|(index, _)| index);
            prop_assert!(planned.iter().eq(begun));
            prop_assert!(!planned.is_empty() || m.known.is_empty() || !m.loans.is_empty());
            prop_assert!(plan.entries.iter().all(|e| !e.tokens.is_empty()));

            if turn.fails {
                for &index in &planned {
                    m.scheduler.forget(SlotId::new(index));
                    m.memory[index].clear();
                    m.known.remove(&index);
                }
                continue;
            }
            // A request is cancelled while the plan is under way, or before it has begun.
            if let Some(index) = turn.cancel {
                m.scheduler.release(SlotId::new(index));
                m.known.remove(&index);
                m.loans.remove(&index);
            }
            m.complete(&plan, &planned, turn.millis);
        }
        prop_assert!(m.queue.is_empty() && m.known.is_empty());
        prop_assert_eq!(m.scheduler.free_slots(), slots);
    }

    #[test]
    fn a_long_prompt_never_stops_a_running_answer_for_two_budgets(
        fixed_micros in 100_u64..70_000,
        token_micros in 20_u64..20_000,
        // Reading a token gets slower the more tokens are before it.
        slower_per_thousand in 0.0_f64..1.0,
        first_prompt in 1_u32..600,
        noise in proptest::collection::vec(0.85_f64..1.15, 64),
    ) {
        let mut s = scheduler(4, 512);
        let mut noise = noise.into_iter().cycle();
        let mut take = |plan: &Plan| {
            let seconds: f64 = plan.entries.iter().map(|entry| {
                let depth = 1.0 + f64::from(entry.first_pos) / 1000.0 * slower_per_thousand;
token_micros as f64 * 1e-6 * depth * entry.tokens.len() as f64
            }).sum();
            Duration::from_secs_f64((fixed_micros as f64 * 1e-6 + seconds) * noise.next().unwrap_or(1.0))
        };
        begin(&mut s, prompt_from(1, first_prompt));
        while plan(&mut s).entries[0].outputs == 0 {
            let next = plan(&mut s);
            let elapsed = take(&next);
            step(&mut s, elapsed);
        }
        for turn in 0..200 {
            if turn == 10 {
                begin(&mut s, prompt_from(2, 3000));
            }
            let next = plan(&mut s);
            let elapsed = take(&next);
            prop_assert!(turn == 0 || elapsed <= 2 * STEP, "{turn}: {elapsed:?} for {:?}", shape(&next));
            step(&mut s, elapsed);
        }
    }
}
