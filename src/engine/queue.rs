//! The requests that wait for one model, and the workers that wait for them.
//!
//! First come, first served, or nearly so. Which idle worker gets a request is decided in `logic::assign`; a busy one that has
//! room takes what is left over, so that it never takes what an idle one could begin at once, and of that first what it has
//! read already.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::logic::assign::{Idle, assign, most_saving};

/// A request, as far as the queue is concerned.
pub(super) trait Job: Send + 'static {
    /// Tokens that a worker may have read for an earlier request, in their order.
    fn prompt(&self) -> &[u32];
}

/// How often a job may be passed over for others that a worker has read already.
const PATIENCE: u32 = 8;

/// What a worker gets when it asks for work.
#[derive(Debug)]
pub(super) enum Next<J> {
    /// A job.
    Job(J),
    /// Nothing now.
    Nothing,
    /// Nothing any more: the queue is closed, and what is left in it is for others.
    Closed,
}

/// Jobs of one model.
#[derive(Debug)]
pub(super) struct Queue<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<J> {
    jobs: VecDeque<Queued<J>>,
    closed: bool,
    idle: Vec<Waiting>,
    /// Counts what `Waiting::since` is about.
    clock: u64,
}

#[derive(Debug)]
struct Queued<J> {
    job: J,
    passed_over: u32,
}

/// A worker that waits for a job.
#[derive(Debug)]
struct Waiting {
    worker: usize,
    since: u64,
    held: Vec<Vec<u32>>,
}

impl<J> Default for Queue<J> {
    fn default() -> Self {
        let state = State { jobs: VecDeque::new(), closed: false, idle: Vec::new(), clock: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<J: Job> Queue<J> {
    /// Queues a job, or gives it back when the queue is closed.
    pub(super) fn push(&self, job: J) -> Result<(), J> {
        let mut state = self.state();
        if state.closed {
            return Err(job);
        }
        state.jobs.push_back(Queued { job, passed_over: 0 });
        drop(state);
        // All of them: it may be for a certain one.
        self.changed.notify_all();
        Ok(())
    }

    /// Says that `worker`, whose slots hold these tokens, is about to wait.
    pub(super) fn announce(&self, worker: usize, held: Vec<Vec<u32>>) {
        let mut state = self.state();
        match state.idle.iter_mut().find(|waiting| waiting.worker == worker) {
            Some(waiting) => waiting.held = held,
            None => {
                state.clock += 1;
                let since = state.clock;
                state.idle.push(Waiting { worker, since, held });
            }
        }
        drop(state);
        // A job may now be for another worker, which sleeps.
        self.changed.notify_all();
    }

    /// Waits for a job for `worker`, whose slots hold these tokens.
    pub(super) fn wait(&self, worker: usize, held: Vec<Vec<u32>>) -> Next<J> {
        self.announce(worker, held);
        let mut state = self.state();
        loop {
            let job = state.take_for(worker);
            // What is left in a closed queue is for others.
            if job.is_some() || state.closed {
                state.idle.retain(|waiting| waiting.worker != worker);
                return job.map_or(Next::Closed, Next::Job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A job if there are more than the idle workers will take, for a worker whose slots hold the tokens that `held` gives.
    pub(super) fn poll(&self, held: impl FnOnce() -> Vec<Vec<u32>>) -> Next<J> {
        let mut state = self.state();
        let first = state.idle.len();
        let Some(oldest) = state.jobs.get(first) else {
            return if state.closed { Next::Closed } else { Next::Nothing };
        };
        let place = if oldest.passed_over >= PATIENCE || state.jobs.len() == first + 1 {
            first
        } else {
            first + most_saving(state.jobs.iter().skip(first).map(|queued| queued.job.prompt()), &held())
        };
        state.jobs.range_mut(first..place).for_each(|queued| queued.passed_over += 1);
        state.jobs.remove(place).map_or(Next::Nothing, |queued| Next::Job(queued.job))
    }
}

impl<J> Queue<J> {
    /// Says that `worker` is not going to wait after all.
    pub(super) fn leave(&self, worker: usize) {
        self.state().idle.retain(|waiting| waiting.worker != worker);
        self.changed.notify_all();
    }

    /// Takes no more jobs.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J: Job> State<J> {
    /// The job that an idle worker is to have. Taking it does not change what the others are to have.
    fn take_for(&mut self, worker: usize) -> Option<J> {
        let idle =
            self.idle.iter().map(|waiting| Idle { worker: waiting.worker, since: waiting.since, held: &waiting.held });
        let prompts = self.jobs.iter().map(|queued| queued.job.prompt());
        let place = assign(prompts, idle.collect()).into_iter().position(|to| to == worker)?;
        self.jobs.remove(place).map(|queued| queued.job)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;
    use std::time::Duration;

    use super::*;

    impl Job for Vec<u32> {
        fn prompt(&self) -> &[u32] {
            self
        }
    }

    fn queued(job: Vec<u32>) -> Queued<Vec<u32>> {
        Queued { job, passed_over: 0 }
    }

    fn taken<J>(next: Next<J>) -> Option<J> {
        if let Next::Job(job) = next { Some(job) } else { None }
    }

    /// Has `worker` wait until it gets a job, which it tells.
    fn waiting(queue: &Arc<Queue<Vec<u32>>>, worker: usize, held: Vec<Vec<u32>>) -> Receiver<Option<Vec<u32>>> {
        let (tell, told) = channel();
        let (queue, idle) = (Arc::clone(queue), Arc::clone(queue));
        thread::spawn(move || tell.send(taken(queue.wait(worker, held))));
        while !idle.state().idle.iter().any(|waiting| waiting.worker == worker) {
            thread::yield_now();
        }
        told
    }

    #[test]
    fn a_job_reaches_the_idle_worker_that_knows_its_beginning() {
        let conversation: Vec<u32> = (0..100).collect();
        for knowing in [0, 1] {
            let queue = Arc::new(Queue::default());
            let workers: Vec<_> = (0..2)
                .map(|worker| {
                    let held = if worker == knowing { conversation.clone() } else { Vec::new() };
                    waiting(&queue, worker, vec![held])
                })
                .collect();
            queue.push(conversation.clone()).unwrap();
            assert_eq!(workers[knowing].recv_timeout(Duration::from_secs(5)), Ok(Some(conversation.clone())));
            queue.close();
            assert_eq!(workers[1 - knowing].recv_timeout(Duration::from_secs(5)), Ok(None));
        }
    }

    #[test]
    fn a_busy_worker_leaves_to_idle_ones_what_they_can_begin_and_takes_the_rest_in_order() {
        let queue = Arc::new(Queue::default());
        let idle = waiting(&queue, 0, Vec::new());
        // Nobody is told of them yet.
        queue.state().jobs.extend([1, 2, 3].map(|token| queued(vec![token])));
        assert_eq!(taken(queue.poll(Vec::new)), Some(vec![2]));
        queue.push(vec![4]).unwrap();
        assert_eq!(idle.recv_timeout(Duration::from_secs(5)), Ok(Some(vec![1])));
        assert_eq!([taken(queue.poll(Vec::new)), taken(queue.poll(Vec::new))], [Some(vec![3]), Some(vec![4])]);
        assert!(matches!(queue.poll(Vec::new), Next::Nothing));
    }

    #[test]
    fn a_job_is_left_to_a_worker_that_is_about_to_wait_unless_it_leaves() {
        let queue = Arc::new(Queue::default());
        let other = waiting(&queue, 0, Vec::new());
        queue.announce(1, vec![(0..100).collect()]);
        queue.push((0..101).collect()).unwrap();
        assert!(matches!(queue.poll(Vec::new), Next::Nothing));
        assert!(other.recv_timeout(Duration::from_millis(50)).is_err());
        queue.leave(1);
        assert_eq!(other.recv_timeout(Duration::from_secs(5)), Ok(Some((0..101).collect())));
    }

    #[test]
    fn a_job_never_waits_for_a_worker_that_waits_for_it() {
        let queue = Arc::new(Queue::default());
        queue.announce(0, Vec::new());
        queue.push(vec![1]).unwrap();
        let other = waiting(&queue, 1, Vec::new());
        let announced = thread::spawn({
            let queue = Arc::clone(&queue);
            move || taken(queue.wait(0, Vec::new()))
        });
        // Both wait, for two jobs.
        queue.push(vec![2]).unwrap();
        let told = [announced.join().unwrap(), other.recv_timeout(Duration::from_secs(5)).unwrap()];
        assert!(told == [Some(vec![1]), Some(vec![2])] || told == [Some(vec![2]), Some(vec![1])], "{told:?}");
    }

    #[test]
    fn every_job_is_taken_however_workers_come_and_go() {
        const JOBS: usize = 5000;
        let queue: Arc<Queue<Vec<u32>>> = Arc::default();
        let (tell, told) = channel();
        for worker in 0..4 {
            let (queue, tell) = (Arc::clone(&queue), tell.clone());
            thread::spawn(move || {
                let mut held = Vec::new();
                while let Next::Job(job) = queue.wait(worker, vec![held]) {
                    held = job.clone();
                    while let Next::Job(more) = queue.poll(Vec::new) {
                        tell.send(more).unwrap();
                    }
                    if job.len() % 2 == 0 {
                        queue.announce(worker, vec![held.clone()]);
                    }
                    tell.send(job).unwrap();
                }
            });
        }
        let mut random = fastrand::Rng::with_seed(7);
        let mut answered = 0;
        for pushed in 1..=JOBS {
            queue.push((random.u32(0..3)..random.u32(0..200)).collect()).unwrap();
            // Sometimes all are waited for, so that all workers are idle.
            while answered < pushed && random.u32(0..4) == 0 {
                told.recv_timeout(Duration::from_secs(20)).expect("no job is left");
                answered += 1;
            }
        }
        queue.close();
        drop(tell);
        assert_eq!(answered + told.iter().count(), JOBS);
    }

    #[test]
    fn all_workers_end_when_the_queue_is_closed_with_a_job_for_one_of_them() {
        let queue = Arc::new(Queue::default());
        let workers = [0, 1, 2].map(|worker| waiting(&queue, worker, Vec::new()));
        let mut state = queue.state();
        state.jobs.push_back(queued(vec![1]));
        state.closed = true;
        drop(state);
        queue.changed.notify_all();
        let told = workers.map(|told| told.recv_timeout(Duration::from_secs(5)).unwrap());
        assert_eq!(told, [Some(vec![1]), None, None]);
    }

    #[test]
    fn a_busy_worker_takes_what_it_has_read_first_but_passes_nobody_over_for_ever() {
        let queue: Queue<Vec<u32>> = Queue::default();
        let known: Vec<u32> = (0..50).collect();
        queue.push(vec![7]).unwrap();
        for _ in 0..=PATIENCE {
            queue.push(known.clone()).unwrap();
        }
        queue.push(vec![8]).unwrap();
        let poll = || taken(queue.poll(|| vec![known.clone()])).unwrap();
        for _ in 0..PATIENCE {
            assert_eq!(poll(), known);
        }
        assert_eq!([poll(), poll(), poll()], [vec![7], known.clone(), vec![8]]);
    }

    #[test]
    fn a_closed_queue_is_emptied_first() {
        let queue = Queue::default();
        queue.push(vec![1]).unwrap();
        queue.close();
        assert_eq!(queue.push(vec![2]), Err(vec![2]));
        assert_eq!(taken(queue.wait(0, Vec::new())), Some(vec![1]));
        assert!(matches!(queue.wait(0, Vec::new()), Next::Closed));
        assert!(matches!(queue.poll(Vec::new), Next::Closed));
    }
}
