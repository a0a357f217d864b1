//! How many threads a forward pass may have while other processes use the same CPUs.
//!
//! Threads of one pass meet after each step of the computation, so the slowest of them sets the pace: when one shares
//! its CPU with somebody else, a pass of two threads is slower than one of a single thread, for which the system finds
//! a CPU that is free. So the ceiling goes down when threads had to wait for their CPUs, and a higher one is tried after a
//! pause, which is longer each time the try fails. No clock here: the caller says what time it is.

use std::time::Duration;

/// A pass is crowded when one of its threads was ready to run and did not for more than this part of it: plain Redis
/// commands take less, a busy process takes half or more.
const CROWDED: f64 = 0.2;
/// Less than this is no reason to change anything, however short the pass.
const NOTICEABLE: Duration = Duration::from_micros(1500);
/// So much at once is no accident. Less is one only when it happens in two passes in a row: whoever asked for the pass
/// needs a CPU for a moment as well.
const ALARMING: Duration = Duration::from_millis(10);
/// The first pause, and the longest one. A try costs about one pass, so at the end they cost less than a percent.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// As many passes without trouble make the next pause a first one again.
const CALM: u32 = 20;

/// What passes have told about the CPUs.
#[derive(Debug)]
pub struct Crowd {
    most: u32,
    ceiling: u32,
    /// Whether a pass with more threads than the ceiling is under way.
    trying: bool,
    /// When the next such pass may begin.
    retry: Duration,
    pause: Duration,
    calm: u32,
    /// Whether the latest pass was crowded.
    noticed: bool,
}

impl Crowd {
    /// A process that may use `most` CPUs and has them all to itself.
    #[must_use]
    pub fn new(most: u32) -> Self {
        let most = most.max(1);
        Self { most, ceiling: most, trying: false, retry: Duration::ZERO, pause: FIRST_PAUSE, calm: 0, noticed: false }
    }

    /// Threads for a pass that begins at `now` and could use `wish`: at least 1.
    pub fn grant(&mut self, now: Duration, wish: u32) -> u32 {
        if wish > self.ceiling && self.ceiling < self.most && now >= self.retry {
            // Passes beside this one do not try as well.
            self.retry = now + self.pause;
            self.trying = true;
            return wish.min(self.ceiling + self.ceiling.div_ceil(3)).min(self.most);
        }
        wish.clamp(1, self.ceiling)
    }

    /// Takes note of a pass of `threads` threads that took `elapsed` until `now`, of which one of them `lost` so much
    /// because it had no CPU.
    pub fn learn(&mut self, now: Duration, threads: u32, elapsed: Duration, lost: Duration) {
        if threads < 2 {
            return;
        }
        let is_try = threads > self.ceiling;
        if is_try && !std::mem::take(&mut self.trying) {
            // It began before the ceiling went down.
            return;
        }
        let crowded = lost > NOTICEABLE.max(elapsed.mul_f64(CROWDED));
        let again = std::mem::replace(&mut self.noticed, crowded);
        if crowded && !again && !is_try && lost < ALARMING {
            return;
        }
        if crowded {
            self.ceiling = self.ceiling.min(threads - threads.div_ceil(4));
            self.retry = now + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            self.calm = 0;
            return;
        }
        self.ceiling = self.ceiling.max(threads);
        self.calm = self.calm.saturating_add(1);
        if self.calm >= CALM {
            self.pause = FIRST_PAUSE;
        }
    }

    /// The ceiling as it is, for people.
    #[must_use]
    pub fn allowed(&self) -> u32 {
        self.ceiling
    }
}

/// Of measured passes of one token, as (threads, time): the threads beyond which more do not help, where 5 percent are
/// no help.
#[must_use]
pub fn useful_threads(measured: &[(u32, Duration)]) -> Option<u32> {
    let fastest = measured.iter().map(|&(_, time)| time).min()?;
    measured.iter().filter(|&&(_, time)| time <= fastest.mul_f64(1.05)).map(|&(threads, _)| threads).min()
}

/// The numbers of threads worth measuring on `cpus` CPUs: 1, 2, 4 and so on, and all of them.
#[must_use]
pub fn candidates(cpus: u32) -> Vec<u32> {
    let cpus = cpus.max(1);
    let mut widths: Vec<u32> = (0..u32::BITS).map(|bit| 1 << bit).take_while(|&width| width < cpus).collect();
    widths.push(cpus);
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASS: Duration = Duration::from_millis(10);
    const CALM_PASS: Duration = Duration::from_micros(100);

    /// Runs passes until `until`, each as wide as it may be; a thread loses 9/10 of a pass while `busy`. The number of
    /// passes of more than one thread.
    fn run(crowd: &mut Crowd, now: &mut Duration, until: Duration, busy: bool) -> u32 {
        let mut wide = 0;
        while *now < until {
            let threads = crowd.grant(*now, u32::MAX);
            *now += PASS;
            wide += u32::from(threads > 1);
            crowd.learn(*now, threads, PASS, if busy { PASS.mul_f64(0.9) } else { CALM_PASS });
        }
        wide
    }

    #[test]
    fn all_cpus_are_used_while_nobody_else_does() {
        let (mut crowd, mut now) = (Crowd::new(2), Duration::ZERO);
        assert_eq!(run(&mut crowd, &mut now, Duration::from_secs(1), false), 100);
    }

    #[test]
    fn while_a_cpu_is_taken_few_passes_try_it() {
        let (mut crowd, mut now) = (Crowd::new(2), Duration::ZERO);
        let tries = run(&mut crowd, &mut now, Duration::from_secs(60), true);
        // The first, those with growing pauses, then one in five seconds.
        assert!((10..25).contains(&tries), "{tries}");
    }

    #[test]
    fn when_the_cpu_is_free_again_it_is_used_within_the_longest_pause() {
        let (mut crowd, mut now) = (Crowd::new(2), Duration::ZERO);
        run(&mut crowd, &mut now, Duration::from_secs(60), true);
        run(&mut crowd, &mut now, Duration::from_secs(60) + LONGEST_PAUSE + PASS, false);
        assert_eq!(crowd.grant(now, u32::MAX), 2);
    }

    #[test]
    fn a_short_disturbance_costs_the_first_pause_again_after_a_calm_time() {
        let (mut crowd, mut now) = (Crowd::new(2), Duration::ZERO);
        run(&mut crowd, &mut now, Duration::from_secs(60), true);
        run(&mut crowd, &mut now, Duration::from_secs(70), false);
        crowd.learn(now, 2, PASS, PASS);
        assert_eq!(crowd.grant(now, u32::MAX), 1);
        assert_eq!(crowd.grant(now + FIRST_PAUSE, u32::MAX), 2);
    }

    #[test]
    fn many_threads_become_a_quarter_fewer_at_a_time_and_come_back_in_steps() {
        let (mut crowd, mut now) = (Crowd::new(12), Duration::ZERO);
        for fewer in [9, 6, 4, 3, 2, 1] {
            let threads = crowd.grant(now, u32::MAX);
            crowd.learn(now, threads, PASS, PASS);
            assert_eq!(crowd.allowed(), fewer);
        }
        let mut seen = vec![1];
        while crowd.allowed() < 12 {
            let next = now + PASS;
            run(&mut crowd, &mut now, next, false);
            seen.push(crowd.allowed());
        }
        seen.dedup();
        assert_eq!(seen, [1, 2, 3, 4, 6, 8, 11, 12]);
    }

    #[test]
    fn passes_that_began_before_the_ceiling_went_down_say_nothing() {
        for lost in [PASS, CALM_PASS] {
            let mut crowd = Crowd::new(8);
            crowd.learn(PASS, 8, PASS, PASS);
            crowd.learn(PASS, 8, PASS, lost);
            assert_eq!(crowd.allowed(), 6);
        }
    }

    #[test]
    fn plain_commands_beside_a_pass_change_nothing() {
        let mut crowd = Crowd::new(2);
        crowd.learn(PASS, 2, PASS, PASS / 10);
        crowd.learn(PASS, 2, PASS / 10, PASS / 10);
        assert_eq!(crowd.grant(PASS, u32::MAX), 2);
    }

    #[test]
    fn a_pass_gets_no_more_than_it_can_use_and_then_tries_nothing() {
        let mut crowd = Crowd::new(8);
        assert_eq!([0, 1, 3, 9].map(|wish| crowd.grant(PASS, wish)), [1, 1, 3, 8]);
        crowd.learn(PASS, 8, PASS, PASS);
        let later = PASS + FIRST_PAUSE;
        assert_eq!([5, 8, 8].map(|wish| crowd.grant(later, wish)), [5, 8, 6]);
    }

    #[test]
    fn one_short_disturbance_changes_nothing_and_two_in_a_row_do() {
        let lost = PASS / 2;
        let mut crowd = Crowd::new(2);
        for lost in [lost, CALM_PASS, lost] {
            crowd.learn(PASS, 2, PASS, lost);
            assert_eq!(crowd.allowed(), 2);
        }
        crowd.learn(PASS, 2, PASS, lost);
        assert_eq!(crowd.allowed(), 1);
        assert_eq!(crowd.grant(PASS + FIRST_PAUSE, 2), 2);
        crowd.learn(PASS + FIRST_PAUSE, 2, PASS, lost);
        assert_eq!(crowd.allowed(), 1, "one is enough in a try");
    }

    #[test]
    fn narrow_passes_tell_nothing() {
        let mut crowd = Crowd::new(2);
        crowd.learn(PASS, 1, PASS, PASS);
        assert_eq!(crowd.grant(PASS, u32::MAX), 2);
    }

    #[test]
    fn threads_that_help_by_less_than_a_twentieth_are_left_out() {
        let ms = Duration::from_millis;
        assert_eq!(useful_threads(&[(1, ms(100)), (2, ms(60)), (4, ms(58)), (8, ms(90))]), Some(2));
        assert_eq!(useful_threads(&[(1, ms(100)), (2, ms(300))]), Some(1));
        assert_eq!(useful_threads(&[]), None);
    }

    #[test]
    fn candidates_are_powers_of_two_and_all_cpus() {
        assert_eq!(candidates(1), [1]);
        assert_eq!(candidates(2), [1, 2]);
        assert_eq!(candidates(12), [1, 2, 4, 8, 12]);
        assert_eq!(candidates(0), [1]);
    }
}
