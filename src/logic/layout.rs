//! How many requests a generation model serves at once, and by how many contexts: workers times requests of each.

use std::time::Duration;

use super::options::LoadOptions;

/// What two workers must gain over one with as many requests. One has advantages that no measurement of throughput shows:
/// it takes less memory to compute in, and its requests share what they have read without copying it. Measurements of a
/// second vary by some percent, and two gain more with long prompts than with the short ones that there is time for.
const GAIN: f64 = 1.02;

/// Worker threads of a model, compute threads of each, and requests that each advances together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Worker threads, each with its own context.
    pub workers: u32,
    /// Compute threads of one forward pass; `None` for as many as help and are free, pass by pass.
    pub threads: Option<u32>,
    /// Requests of one worker for generation.
    pub slots: u32,
    /// Whether [`Layout::joined`] may be better: `workers` was left to us, and so were the threads.
    pub is_open: bool,
}

impl Layout {
    /// What `options` say, with two workers where it is for us to choose and WORKERS x THREADS stay within `cpus`.
    ///
    /// More than two would take memory for a cache each, and with AUTO threads two use all CPUs.
    #[must_use]
    pub fn choose(options: &LoadOptions, cpus: u32) -> Self {
        let of_each = options.threads.unwrap_or(1).max(1);
        let workers = options.workers.unwrap_or((cpus / of_each).clamp(1, 2));
        let is_open = options.workers.is_none() && options.threads.is_none() && workers > 1;
        Self { workers, threads: options.threads, slots: options.slots(), is_open }
    }

    /// Threads that it needs at least.
    #[must_use]
    pub fn needs(self) -> u32 {
        self.workers.saturating_mul(self.threads.unwrap_or(1))
    }

    /// Requests that all workers together advance at once.
    #[must_use]
    pub fn requests(self) -> u32 {
        self.workers.saturating_mul(self.slots)
    }

    /// As many requests in one worker.
    #[must_use]
    pub fn joined(self) -> Self {
        Self { workers: 1, slots: self.requests(), is_open: false, ..self }
    }

    /// The most requests that one worker may come to have.
    #[must_use]
    pub fn most_slots(self) -> u32 {
        if self.is_open { self.requests() } else { self.slots }
    }
}

/// Whether two workers are better than one, from the times that each layout takes for the same tokens.
#[must_use]
pub fn two_gain(one: Duration, two: Duration) -> bool {
    one > two.mul_f64(GAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(workers: Option<u32>, threads: Option<u32>, parallel: Option<u32>) -> LoadOptions {
        LoadOptions { workers, threads, parallel, ..LoadOptions::new("m", "p") }
    }

    #[test]
    fn auto_never_uses_more_threads_than_cpus() {
        for cpus in 1_u32..=64 {
            for threads in [None, Some(1), Some(cpus.div_ceil(2)), Some(cpus)] {
                let layout = Layout::choose(&options(None, threads, None), cpus);
                assert!(layout.needs() <= cpus, "{layout:?} on {cpus}");
            }
        }
    }

    #[test]
    fn one_worker_has_room_for_as_many_requests_as_two() {
        let two = Layout::choose(&options(None, None, Some(3)), 4);
        assert_eq!((two.workers, two.slots, two.requests(), two.most_slots()), (2, 3, 6, 6));
        let one = two.joined();
        assert_eq!((one.workers, one.slots, one.requests(), one.most_slots()), (1, 6, 6, 6));
        assert!(two.is_open && !one.is_open);
    }

    #[test]
    fn on_one_cpu_there_is_one_worker_with_the_requests_of_one() {
        let layout = Layout::choose(&options(None, None, Some(3)), 1);
        assert_eq!((layout.workers, layout.slots, layout.is_open), (1, 3, false));
    }

    #[test]
    fn what_was_asked_for_is_not_open() {
        for (workers, threads) in [(Some(2), None), (Some(1), None), (None, Some(1)), (None, Some(2))] {
            let layout = Layout::choose(&options(workers, threads, None), 2);
            assert!(!layout.is_open, "{layout:?}");
            assert_eq!(layout.most_slots(), layout.slots);
        }
    }

    #[test]
    fn two_workers_must_gain_a_little() {
        let ms = Duration::from_millis;
        assert!(two_gain(ms(103), ms(100)));
        assert!(!two_gain(ms(101), ms(100)));
        assert!(!two_gain(ms(100), ms(120)));
    }
}
