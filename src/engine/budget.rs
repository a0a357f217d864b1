//! The CPUs of the process, shared by all models: a forward pass waits until its threads have one each.
//!
//! Threads inside one context meet at spin barriers, so more of them than CPUs is many times slower, not a little. Passes
//! are served in the order they come, but an embedding, which a search or a question waits for, goes before generation.
//! Each pass is overtaken once at most, so a flood of documents takes every other turn and not all.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// CPUs that passes take and give back.
#[derive(Debug)]
pub(super) struct Budget {
    cpus: u32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: u32,
    waiting: VecDeque<Waiter>,
    /// Number of the next waiter.
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    urgent: bool,
    overtaken: bool,
}

/// What a context asks for before each pass.
#[derive(Debug, Clone)]
pub(super) struct Share {
    budget: Arc<Budget>,
    threads: u32,
    urgent: bool,
}

/// CPUs taken for one pass, given back on drop.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    budget: &'a Budget,
    threads: u32,
}

impl Budget {
    pub(super) fn new(cpus: u32) -> Arc<Self> {
        let cpus = cpus.max(1);
        let state = Mutex::new(State { free: cpus, waiting: VecDeque::new(), next: 0 });
        Arc::new(Self { cpus, state, changed: Condvar::new() })
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

    fn is_next(&self, number: u64, threads: u32) -> bool {
        self.free >= threads && self.waiting.front().is_some_and(|first| first.number == number)
    }
}

impl Share {
    /// `urgent` passes go before others.
    pub(super) fn new(budget: &Arc<Budget>, threads: u32, urgent: bool) -> Self {
        Self { budget: Arc::clone(budget), threads: threads.clamp(1, budget.cpus), urgent }
    }

    /// Threads of a pass.
    pub(super) fn threads(&self) -> u32 {
        self.threads
    }

    /// Waits for the turn. Passes take a fraction of a second, so this does too.
    pub(super) fn take(&self) -> Turn<'_> {
        let Self { budget, threads, urgent } = self;
        let mut state = budget.state();
        let number = state.queue(*urgent);
        while !state.is_next(number, *threads) {
            state = budget.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.pop_front();
        state.free -= threads;
        drop(state);
        // The next one may fit beside this one.
        budget.changed.notify_all();
        Turn { budget, threads: *threads }
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

    fn order(arrivals: &[bool]) -> Vec<u64> {
        let mut state = State { free: 0, waiting: VecDeque::new(), next: 0 };
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
        let budget = Budget::new(3);
        let (running, most) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for threads in [1, 1, 2, 3, 9] {
                let share = Share::new(&budget, threads, threads == 2);
                let (running, most) = (&running, &most);
                scope.spawn(move || {
                    for _ in 0..20 {
                        let turn = share.take();
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
        let budget = Budget::new(1);
        let share = Share::new(&budget, 1, false);
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = share.take();
            panic!("on purpose");
        }));
        drop(share.take());
    }
}
