//! The requests that wait for one model, the workers that wait for them, and what these have read.
//!
//! First come, first served, or nearly so. Which idle worker gets a request is decided in `logic::assign`; a busy one that has
//! room takes what is left over, so that it never takes what an idle one could begin at once, and of that first what it has
//! read already. What a worker has read, or is reading, is shown here, so that another one can ask for it instead of reading
//! it too. Who asks does not show its own prompt as being read; so two never wait for each other.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::logic::assign::{Idle, assign, lender, most_saving};

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
    /// Nothing now; after a wait, because another worker asks for something.
    Nothing,
    /// Nothing any more: the queue is closed, and what is left in it is for others.
    Closed,
}

/// The bytes of a saved sequence.
pub(super) type Saved = Arc<Vec<u8>>;

/// A worker asks for what another one has read. Dropped when it is not to be had.
#[derive(Debug)]
pub(super) struct Ask {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Takes a saved sequence that begins with them.
    pub lend: Sender<Saved>,
}

/// What a worker has asked for, or was kept.
#[derive(Debug)]
pub(super) struct Loan {
    /// How many tokens of its prompt that is.
    pub tokens: usize,
    /// Gives a saved sequence that begins with them, or ends when it is not to be had.
    pub lent: Receiver<Saved>,
    /// Whether it was kept, and not asked for.
    pub is_kept: bool,
}

impl Loan {
    /// One that nobody need be asked for.
    pub(super) fn at_hand(tokens: usize, state: Saved) -> Self {
        let (lend, lent) = bounded(1);
        // There is room for one.
        let _ = lend.send(state);
        Self { tokens, lent, is_kept: true }
    }
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
    /// By their numbers.
    workers: Vec<Known>,
    /// Counts what `Known::idle_since` is about.
    clock: u64,
}

#[derive(Debug)]
struct Queued<J> {
    job: J,
    passed_over: u32,
}

/// What is known of a worker.
#[derive(Debug, Default)]
struct Known {
    /// For a worker that waits for a job.
    idle_since: Option<u64>,
    /// What each of its slots holds, or is about to hold because it is reading it.
    held: Vec<Vec<u32>>,
    asked: Vec<Ask>,
}

impl<J> Default for Queue<J> {
    fn default() -> Self {
        let state = State { jobs: VecDeque::new(), closed: false, workers: Vec::new(), clock: 0 };
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

    /// Says that `worker` is about to wait.
    pub(super) fn announce(&self, worker: usize) {
        self.state().set_idle(worker);
        // A job may now be for another worker, which sleeps.
        self.changed.notify_all();
    }

    /// Waits until there is a job for `worker`, or another worker asks it for something.
    pub(super) fn wait(&self, worker: usize) -> Next<J> {
        self.announce(worker);
        let mut state = self.state();
        loop {
            let job = state.take_for(worker);
            // What is left in a closed queue is for others.
            if job.is_some() || state.closed {
                state.worker(worker).idle_since = None;
                return job.map_or(Next::Closed, Next::Job);
            }
            if !state.worker(worker).asked.is_empty() {
                return Next::Nothing;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A job for `worker`, which is not idle, if there are more than the idle ones will take.
    pub(super) fn poll(&self, worker: usize) -> Next<J> {
        let mut state = self.state();
        let first = state.workers.iter().filter(|known| known.idle_since.is_some()).count();
        let Some(oldest) = state.jobs.get(first) else {
            return if state.closed { Next::Closed } else { Next::Nothing };
        };
        let place = if oldest.passed_over >= PATIENCE || state.jobs.len() == first + 1 {
            first
        } else {
            let prompts = state.jobs.iter().skip(first).map(|queued| queued.job.prompt());
            first + most_saving(prompts, state.workers.get(worker).map_or(&[], |known| &known.held))
        };
        state.jobs.range_mut(first..place).for_each(|queued| queued.passed_over += 1);
        state.jobs.remove(place).map_or(Next::Nothing, |queued| Next::Job(queued.job))
    }
}

impl<J> Queue<J> {
    /// Shows what a slot of `worker` holds.
    pub(super) fn show(&self, worker: usize, slot: usize, tokens: &[u32]) {
        self.state().show(worker, slot, tokens);
    }

    /// Asks for the beginning of `prompt` for a slot of `worker`, which has its first `have` tokens, or shows that the slot
    /// is about to read it where nobody has more.
    pub(super) fn borrow(&self, worker: usize, slot: usize, prompt: &[u32], have: usize) -> Option<Loan> {
        let mut state = self.state();
        let others = state.workers.iter().enumerate().filter(|&(other, _)| other != worker);
        let others = others.map(|(other, known)| (other, known.held.as_slice(), known.idle_since.is_some()));
        let Some((from, tokens)) = lender(prompt, have, others) else {
            state.show(worker, slot, prompt);
            return None;
        };
        let (lend, lent) = bounded(1);
        let wanted = prompt.get(..tokens).unwrap_or_default().to_vec();
        state.worker(from).asked.push(Ask { tokens: wanted, lend });
        state.show(worker, slot, &[]);
        drop(state);
        self.changed.notify_all();
        Some(Loan { tokens, lent, is_kept: false })
    }

    /// What others have asked `worker` for since.
    pub(super) fn asked(&self, worker: usize) -> Vec<Ask> {
        std::mem::take(&mut self.state().worker(worker).asked)
    }

    /// Says that `worker` is not going to wait after all.
    pub(super) fn leave(&self, worker: usize) {
        self.state().worker(worker).idle_since = None;
        self.changed.notify_all();
    }

    /// Says that `worker` has ended: it has nothing to lend any more.
    pub(super) fn end(&self, worker: usize) {
        *self.state().worker(worker) = Known::default();
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
        let idle = self
            .workers
            .iter()
            .enumerate()
            .filter_map(|(worker, known)| known.idle_since.map(|since| Idle { worker, since, held: &known.held }));
        let prompts = self.jobs.iter().map(|queued| queued.job.prompt());
        let place = assign(prompts, idle.collect()).into_iter().position(|to| to == worker)?;
        self.jobs.remove(place).map(|queued| queued.job)
    }
}

impl<J> State<J> {
    fn worker(&mut self, worker: usize) -> &mut Known {
        if self.workers.len() <= worker {
            self.workers.resize_with(worker + 1, Known::default);
        }
        &mut self.workers[worker]
    }

    fn set_idle(&mut self, worker: usize) {
        if self.worker(worker).idle_since.is_none() {
            self.clock += 1;
            self.worker(worker).idle_since = Some(self.clock);
        }
    }

    fn show(&mut self, worker: usize, slot: usize, tokens: &[u32]) {
        let held = &mut self.worker(worker).held;
        if held.len() <= slot {
            held.resize_with(slot + 1, Vec::new);
        }
        held[slot].clear();
        held[slot].extend_from_slice(tokens);
    }
}

#[cfg(test)]
mod tests {
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
    fn waiting(queue: &Arc<Queue<Vec<u32>>>, worker: usize, held: &[u32]) -> Receiver<Option<Vec<u32>>> {
        queue.show(worker, 0, held);
        let (tell, told) = channel();
        let (queue, idle) = (Arc::clone(queue), Arc::clone(queue));
        thread::spawn(move || tell.send(taken(queue.wait(worker))));
        while idle.state().worker(worker).idle_since.is_none() {
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
                .map(|worker| waiting(&queue, worker, if worker == knowing { &conversation } else { &[] }))
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
        let idle = waiting(&queue, 0, &[]);
        // Nobody is told of them yet.
        queue.state().jobs.extend([1, 2, 3].map(|token| queued(vec![token])));
        assert_eq!(taken(queue.poll(1)), Some(vec![2]));
        queue.push(vec![4]).unwrap();
        assert_eq!(idle.recv_timeout(Duration::from_secs(5)), Ok(Some(vec![1])));
        assert_eq!([taken(queue.poll(1)), taken(queue.poll(1))], [Some(vec![3]), Some(vec![4])]);
        assert!(matches!(queue.poll(1), Next::Nothing));
    }

    #[test]
    fn a_job_is_left_to_a_worker_that_is_about_to_wait_unless_it_leaves() {
        let queue = Arc::new(Queue::default());
        let other = waiting(&queue, 0, &[]);
        queue.show(1, 0, &(0..100).collect::<Vec<u32>>());
        queue.announce(1);
        queue.push((0..101).collect()).unwrap();
        assert!(matches!(queue.poll(1), Next::Nothing));
        assert!(other.recv_timeout(Duration::from_millis(50)).is_err());
        queue.leave(1);
        assert_eq!(other.recv_timeout(Duration::from_secs(5)), Ok(Some((0..101).collect())));
    }

    #[test]
    fn a_job_never_waits_for_a_worker_that_waits_for_it() {
        let queue = Arc::new(Queue::default());
        queue.announce(0);
        queue.push(vec![1]).unwrap();
        let other = waiting(&queue, 1, &[]);
        let announced = thread::spawn({
            let queue = Arc::clone(&queue);
            move || taken(queue.wait(0))
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
                while let Next::Job(job) = queue.wait(worker) {
                    queue.show(worker, 0, &job);
                    while let Next::Job(more) = queue.poll(worker) {
                        tell.send(more).unwrap();
                    }
                    if job.len() % 2 == 0 {
                        queue.announce(worker);
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
        let workers = [0, 1, 2].map(|worker| waiting(&queue, worker, &[]));
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
        queue.show(0, 0, &known);
        let poll = || taken(queue.poll(0)).unwrap();
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
        assert_eq!(taken(queue.wait(0)), Some(vec![1]));
        assert!(matches!(queue.wait(0), Next::Closed));
        assert!(matches!(queue.poll(1), Next::Closed));
    }

    #[test]
    fn a_worker_asks_the_one_that_has_read_more_and_else_shows_what_it_reads() {
        let queue: Queue<Vec<u32>> = Queue::default();
        let prompt: Vec<u32> = (0..100).collect();
        assert!(queue.borrow(0, 1, &prompt, 0).is_none());
        // The first one reads it now.
        let loan = queue.borrow(1, 0, &prompt, 10).unwrap();
        assert_eq!(loan.tokens, 99);
        assert!(queue.borrow(1, 0, &prompt, 80).is_none(), "it has nearly all");
        let asked = queue.asked(0);
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].tokens, prompt[..99]);
        asked[0].lend.send(Arc::new(vec![7])).unwrap();
        assert_eq!(*loan.lent.recv().unwrap(), [7]);
        assert!(queue.asked(0).is_empty());
    }

    #[test]
    fn what_is_waited_for_is_not_lent() {
        let queue: Queue<Vec<u32>> = Queue::default();
        let prompt: Vec<u32> = (0..100).collect();
        queue.show(0, 0, &prompt);
        queue.borrow(1, 0, &prompt, 0).unwrap();
        queue.show(0, 0, &[]);
        assert!(queue.borrow(2, 0, &prompt, 0).is_none());
    }

    #[test]
    fn an_idle_worker_wakes_when_it_is_asked_and_is_idle_still() {
        let queue = Arc::new(Queue::default());
        let prompt: Vec<u32> = (0..100).collect();
        let idle = waiting(&queue, 0, &prompt);
        queue.borrow(1, 0, &prompt, 0).unwrap();
        assert_eq!(idle.recv_timeout(Duration::from_secs(5)), Ok(None));
        assert_eq!(queue.asked(0).len(), 1);
        queue.push(vec![1]).unwrap();
        assert!(matches!(queue.poll(1), Next::Nothing), "the job is for the idle one");
        assert_eq!(taken(queue.wait(0)), Some(vec![1]));
    }

    #[test]
    fn who_asks_a_worker_that_ends_learns_it() {
        let queue: Queue<Vec<u32>> = Queue::default();
        let prompt: Vec<u32> = (0..100).collect();
        queue.show(0, 0, &prompt);
        let loan = queue.borrow(1, 0, &prompt, 0).unwrap();
        queue.end(0);
        assert!(loan.lent.recv().is_err());
        assert!(queue.borrow(1, 0, &prompt, 0).is_none());
    }
}
