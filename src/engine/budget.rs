//! The CPUs of the process, shared by all models: a forward pass waits until its threads have one each.
//!
//! More threads than CPUs are many times slower, not a little, because threads of one pass meet after each step of the
//! computation. Passes are served in the order they come, but an embedding, which a search or a question waits for, goes
//! before generation. Each pass is overtaken once at most, so a flood of documents takes every other turn and not all.
//!
//! Where THREADS is AUTO a pass gets what is there: all CPUs while only one context has something to do, and its share
//! of them as soon as others have as well. A newcomer waits for the pass under way and for no other. When threads had to
//! wait for their CPUs, because other processes use them, passes become narrower for a while: see `logic::crowd`.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::metrics::Metrics;
use crate::logic::crowd::Crowd;

/// A pass of at most so many tokens reads all weights for little work, so that more threads may not make it faster.
const FEW_TOKENS: usize = 8;

/// CPUs that passes take and give back.
#[derive(Debug)]
pub(super) struct Budget {
    cpus: u32,
    /// Of workers: `INFO` must not wait for it.
    state: Mutex<State>,
    /// What `State::crowd` allows, for `INFO`.
    allowed: AtomicU32,
    changed: Condvar,
    /// What [`Crowd`] counts its time from.
    since: Instant,
    metrics: Arc<Metrics>,
    /// What was measured when files were loaded, by their fingerprints.
    measured: Mutex<HashMap<(String, Question), u32>>,
}

/// What a measurement has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// How many threads help with few tokens.
    Threads,
    /// How many workers answer so many requests at once.
    Workers { requests: u32 },
}

#[derive(Debug)]
struct State {
    free: u32,
    waiting: VecDeque<Waiter>,
    /// Number of the next waiter.
    next: u64,
    /// Contexts with something to do.
    busy: u32,
    crowd: Crowd,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    urgent: bool,
    overtaken: bool,
}

/// Threads that a pass is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// As many, always.
    Fixed(u32),
    /// As many as are useful and free.
    Auto,
}

/// The threads of the passes of one model.
#[derive(Debug)]
pub(super) struct PassThreads {
    /// Useful for few tokens, by measurement; no limit before it.
    few: AtomicU32,
    /// Of the latest pass, 0 before the first.
    latest: AtomicU32,
}

impl PassThreads {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { few: AtomicU32::new(u32::MAX), latest: AtomicU32::new(0) })
    }

    /// Sets what a measurement has shown.
    pub(super) fn set_useful(&self, threads: u32) {
        self.few.store(threads, Ordering::Relaxed);
    }

    /// Useful for few tokens, at most `cpus`.
    pub(super) fn useful(&self, cpus: u32) -> u32 {
        self.few.load(Ordering::Relaxed).min(cpus)
    }

    pub(super) fn latest(&self) -> u32 {
        self.latest.load(Ordering::Relaxed)
    }
}

/// What a context asks for before each pass.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    threads: Threads,
    urgent: bool,
    of_model: Arc<PassThreads>,
    /// Whether this context counts as one with something to do.
    busy: bool,
}

/// CPUs taken for one pass, given back on drop.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    budget: &'a Budget,
    threads: u32,
}

impl Budget {
    pub(super) fn new(cpus: u32, metrics: &Arc<Metrics>) -> Arc<Self> {
        let cpus = cpus.max(1);
        let state = State { free: cpus, waiting: VecDeque::new(), next: 0, busy: 0, crowd: Crowd::new(cpus) };
        Arc::new(Self {
            cpus,
            allowed: AtomicU32::new(state.crowd.allowed()),
            state: Mutex::new(state),
            changed: Condvar::new(),
            since: Instant::now(),
            metrics: Arc::clone(metrics),
            measured: Mutex::default(),
        })
    }

    pub(super) fn cpus(&self) -> u32 {
        self.cpus
    }

    /// Threads that a pass may have now, as other processes leave CPUs free. Never waits.
    pub(super) fn allowed(&self) -> u32 {
        self.allowed.load(Ordering::Relaxed)
    }

    /// What was measured for the file with this fingerprint.
    pub(super) fn measured(&self, fingerprint: &str, question: Question) -> Option<u32> {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured.get(&(fingerprint.to_owned(), question)).copied()
    }

    pub(super) fn remember(&self, fingerprint: &str, question: Question, answer: u32) {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured.insert((fingerprint.to_owned(), question), answer);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds a waiter at its place; its number.
    fn queue(&mut self, urgent: bool) -> u64 {
        let number = self.next;
        self.next += 1;
        let may_be_overtaken = |waiter: &Waiter| !waiter.urgent && !waiter.overtaken;
        let behind = self.waiting.iter().rposition(|waiter| !may_be_overtaken(waiter)).map_or(0, |place| place + 1);
        let place = if urgent { behind } else { self.waiting.len() };
        self.waiting.range_mut(place..).for_each(|waiter| waiter.overtaken = true);
        self.waiting.insert(place, Waiter { number, urgent, overtaken: false });
        number
    }

    /// Threads for the first in the queue, once there are enough CPUs.
    fn grant(&mut self, number: u64, threads: Threads, most: u32, cpus: u32, now: Duration) -> Option<u32> {
        self.waiting.front().filter(|first| first.number == number)?;
        match threads {
            Threads::Fixed(threads) => (self.free >= threads).then_some(threads),
            Threads::Auto if self.free == 0 => None,
            Threads::Auto => {
                let fair = (cpus / self.busy.max(1)).max(1);
                Some(self.crowd.grant(now, most.min(fair).min(self.free)))
            }
        }
    }
}

impl Share {
    /// `urgent` passes go before others.
    pub(super) fn new(budget: &Arc<Budget>, threads: Threads, urgent: bool, of_model: &Arc<PassThreads>) -> Self {
        let threads = match threads {
            Threads::Fixed(threads) => Threads::Fixed(threads.clamp(1, budget.cpus)),
            Threads::Auto => Threads::Auto,
        };
        Self { budget: Arc::clone(budget), threads, urgent, of_model: Arc::clone(of_model), busy: false }
    }

    /// The same for another context of the model.
    pub(super) fn another(&self) -> Self {
        Self::new(&self.budget, self.threads, self.urgent, &self.of_model)
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(super) fn of_model(&self) -> &PassThreads {
        &self.of_model
    }

    pub(super) fn is_auto(&self) -> bool {
        self.threads == Threads::Auto
    }

    /// Threads that are useful to a pass over `tokens` tokens, at most the CPUs there are.
    pub(super) fn useful(&self, tokens: usize) -> u32 {
        let cpus = self.budget.cpus;
        if tokens > FEW_TOKENS { cpus } else { self.of_model.useful(cpus) }
    }

    /// Waits for the turn of a pass over `tokens` tokens. Passes take a fraction of a second, so this does too.
    pub(super) fn take(&mut self, tokens: usize) -> Turn<'_> {
        let most = self.useful(tokens);
        self.take_at_most(most)
    }

    /// As [`Share::take`], with `most` threads at most where it is for this to choose.
    pub(super) fn take_at_most(&mut self, most: u32) -> Turn<'_> {
        let Self { budget, threads, urgent, of_model, busy } = self;
        let mut state = budget.state();
        if !std::mem::replace(busy, true) {
            state.busy += 1;
        }
        let number = state.queue(*urgent);
        let granted = loop {
            match state.grant(number, *threads, most, budget.cpus, budget.since.elapsed()) {
                Some(granted) => break granted,
                None => state = budget.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        state.waiting.pop_front();
        state.free -= granted;
        budget.allowed.store(state.crowd.allowed(), Ordering::Relaxed);
        drop(state);
        // The next one may fit beside this one.
        budget.changed.notify_all();
        of_model.latest.store(granted, Ordering::Relaxed);
        budget.metrics.passes.increment();
        if granted > 1 {
            budget.metrics.wide_passes.increment();
        }
        Turn { budget, threads: granted }
    }

    /// Says that this context has nothing to do until its next pass.
    pub(super) fn rest(&mut self) {
        if std::mem::take(&mut self.busy) {
            self.budget.state().busy -= 1;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.rest();
    }
}

impl Turn<'_> {
    /// Threads to compute with.
    pub(super) fn threads(&self) -> u32 {
        self.threads
    }

    /// Takes note of how the pass went: how long it took, and how long one of its threads had no CPU.
    pub(super) fn learn(&self, took: Duration, lost: Duration) {
        let Budget { since, metrics, allowed, .. } = self.budget;
        let mut state = self.budget.state();
        let before = state.crowd.allowed();
        state.crowd.learn(since.elapsed(), self.threads, took, lost);
        let after = state.crowd.allowed();
        allowed.store(after, Ordering::Relaxed);
        if after < before {
            metrics.crowded_passes.increment();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.budget.state().free += self.threads;
        self.budget.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    fn state(cpus: u32) -> State {
        State { free: cpus, waiting: VecDeque::new(), next: 0, busy: 0, crowd: Crowd::new(cpus) }
    }

    fn share(budget: &Arc<Budget>, threads: Threads, urgent: bool) -> Share {
        Share::new(budget, threads, urgent, &PassThreads::new())
    }

    fn order(arrivals: &[bool]) -> Vec<u64> {
        let mut state = state(0);
        for &urgent in arrivals {
            state.queue(urgent);
        }
        state.waiting.iter().map(|waiter| waiter.number).collect()
    }

    #[test]
    fn equal_passes_are_served_in_order() {
        assert_eq!(order(&[false, false, false]), [0, 1, 2]);
        assert_eq!(order(&[true, true]), [0, 1]);
    }

    #[test]
    fn an_urgent_pass_goes_before_others_but_behind_urgent_ones() {
        assert_eq!(order(&[false, false, true]), [2, 0, 1]);
        assert_eq!(order(&[true, false, true]), [0, 2, 1]);
    }

    #[test]
    fn nobody_is_overtaken_twice() {
        assert_eq!(order(&[false, true, true, true]), [1, 0, 2, 3]);
        assert_eq!(order(&[false, true, false, true]), [1, 0, 3, 2]);
    }

    #[test]
    fn never_more_threads_than_cpus_and_wide_passes_are_not_starved() {
        let budget = Budget::new(3, &Arc::default());
        let (running, most) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let fixed = [1, 1, 2, 3, 9].map(Threads::Fixed);
            for threads in fixed.into_iter().chain([Threads::Auto; 3]) {
                let mut share = share(&budget, threads, threads == Threads::Fixed(2));
                let (running, most) = (&running, &most);
                scope.spawn(move || {
                    for _ in 0..20 {
                        let turn = share.take(100);
                        let now = running.fetch_add(turn.threads, Ordering::SeqCst) + turn.threads;
                        most.fetch_max(now, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_micros(200));
                        running.fetch_sub(turn.threads, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert_eq!(budget.state().free, 3);
    }

    #[test]
    fn a_pass_that_panics_gives_its_cpus_back() {
        let budget = Budget::new(1, &Arc::default());
        let mut share = share(&budget, Threads::Fixed(1), false);
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = share.take(1);
            panic!("on purpose");
        }));
        drop(share.take(1));
    }

    #[test]
    fn one_busy_context_has_all_cpus_and_two_have_half_each() {
        let budget = Budget::new(4, &Arc::default());
        let [mut one, mut other] = [false, true].map(|urgent| share(&budget, Threads::Auto, urgent));
        assert_eq!(one.take(100).threads(), 4);
        assert_eq!(other.take(100).threads(), 2);
        assert_eq!(one.take(100).threads(), 2);
        one.rest();
        assert_eq!(other.take(100).threads(), 4);
        drop(other);
        assert_eq!(one.take(100).threads(), 4);
    }

    #[test]
    fn a_pass_takes_what_a_fixed_one_leaves() {
        let budget = Budget::new(4, &Arc::default());
        let mut fixed = share(&budget, Threads::Fixed(3), false);
        let mut auto = share(&budget, Threads::Auto, false);
        let turn = fixed.take(100);
        assert_eq!(auto.take(100).threads(), 1);
        drop(turn);
        fixed.rest();
        assert_eq!(auto.take(100).threads(), 4);
    }

    #[test]
    fn few_tokens_get_the_threads_that_help_and_many_get_all() {
        let budget = Budget::new(4, &Arc::default());
        let mut share = share(&budget, Threads::Auto, false);
        assert_eq!(share.take(1).threads(), 4);
        share.of_model().set_useful(2);
        assert_eq!(share.take(1).threads(), 2);
        assert_eq!(share.of_model().latest(), 2);
        assert_eq!(share.take(FEW_TOKENS + 1).threads(), 4);
    }

    #[test]
    fn whoever_asks_what_is_allowed_waits_for_no_worker_that_holds_the_lock() {
        let budget = Budget::new(4, &Arc::default());
        let stopped = budget.state();
        let (tx, rx) = std::sync::mpsc::channel();
        let other = Arc::clone(&budget);
        std::thread::spawn(move || tx.send(other.allowed()).unwrap());
        assert_eq!(rx.recv_timeout(Duration::from_secs(60)), Ok(4));
        drop(stopped);
    }

    #[test]
    fn after_a_crowded_pass_the_next_one_is_narrower() {
        let budget = Budget::new(2, &Arc::default());
        let [mut share, mut fixed] = [Threads::Auto, Threads::Fixed(2)].map(|threads| share(&budget, threads, false));
        let long = Duration::from_secs(1);
        share.take(100).learn(long, long);
        assert_eq!(budget.allowed(), 1);
        assert_eq!(share.take(100).threads(), 1);
        assert_eq!(budget.metrics.crowded_passes.get(), 1);
        share.rest();
        assert_eq!(fixed.take(100).threads(), 2);
    }
}
