//! Threads for the work around a model call: rendering templates, tokenizing, chunking, hashing. None of it may run on
//! Redis' main thread.

use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Sender, unbounded};

use super::error::EngineError;
use super::threads::{self, Manners};

/// Tasks that may wait before further commands are refused. Each holds the text of one command.
const QUEUE: usize = 1024;
/// Two, so that one huge text does not hold up everybody.
const THREADS: usize = 2;

type Task = Box<dyn FnOnce() + Send>;

/// The desk's queue and threads, started with the first task.
#[derive(Debug)]
pub(super) struct Desk {
    manners: Manners,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tasks: Option<Sender<Task>>,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

impl Desk {
    pub(super) fn new(manners: Manners) -> Self {
        Self { manners, state: Mutex::default() }
    }

    /// Queues the first task of a command. A task that is not run is dropped, and what it captured answers its client.
    ///
    /// # Errors
    /// `QUEUEFULL`, or `CANCELLED` after [`Desk::close`].
    pub(super) fn run(&self, task: Task) -> Result<(), EngineError> {
        self.queue(task, QUEUE)
    }

    /// Queues a later task of a command, which is not refused for want of room: what was begun is to come to its end.
    ///
    /// # Errors
    /// `CANCELLED` after [`Desk::close`].
    pub(super) fn go_on(&self, task: Task) -> Result<(), EngineError> {
        self.queue(task, usize::MAX)
    }

    fn queue(&self, task: Task, limit: usize) -> Result<(), EngineError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(EngineError::Cancelled("the server is stopping"));
        }
        if state.tasks.is_none() {
            self.start(&mut state)?;
        }
        let ended = || EngineError::Internal("the tokenizer threads have ended".to_owned());
        let tasks = state.tasks.as_ref().ok_or_else(ended)?;
        if tasks.len() >= limit {
            return Err(EngineError::QueueFull { name: "tokenizer".to_owned(), waiting: tasks.len() });
        }
        tasks.send(task).map_err(|_| ended())
    }

    fn start(&self, state: &mut State) -> Result<(), EngineError> {
        let (sender, tasks) = unbounded::<Task>();
        for i in 0..THREADS {
            let tasks = tasks.clone();
            let body = move || {
                for task in tasks {
                    // A panic drops what the task captured, which answers the client; the panic hook has logged the
                    // place.
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(task));
                }
            };
            let thread = threads::spawn(&format!("infer-desk-{i}"), self.manners, body)
                .map_err(|e| EngineError::OutOfMemory(format!("could not start a tokenizer thread: {e}")))?;
            state.threads.push(thread);
        }
        state.tasks = Some(sender);
        Ok(())
    }

    /// Takes no more tasks; the queued ones are still run.
    pub(super) fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        state.tasks = None;
    }

    /// Waits for the threads after [`Desk::close`].
    pub(super) fn join(&self, deadline: Instant) -> bool {
        let threads = std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).threads);
        threads::join_until(threads, deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_task_that_panics_does_not_stop_the_next_one() {
        let desk = Desk::new(Manners::default());
        let (tx, rx) = mpsc::channel();
        for _ in 0..THREADS {
            desk.run(Box::new(|| panic!("on purpose"))).unwrap();
        }
        desk.run(Box::new(move || tx.send(42).unwrap())).unwrap();
        assert_eq!(rx.recv_timeout(Duration::from_secs(5)), Ok(42));
    }

    #[test]
    fn a_full_queue_refuses_commands_but_not_what_was_begun() {
        let desk = Desk::new(Manners::default());
        let (begin, wait) = mpsc::channel::<()>();
        let wait = std::sync::Arc::new(Mutex::new(wait));
        for _ in 0..THREADS {
            let wait = std::sync::Arc::clone(&wait);
            let until_dropped = move || wait.lock().unwrap().iter().for_each(drop);
            desk.run(Box::new(until_dropped)).unwrap();
        }
        let full = (0..=QUEUE + THREADS).find_map(|_| desk.run(Box::new(|| ())).err());
        assert_eq!(full.map(|error| error.code()), Some("QUEUEFULL"));
        let (tx, rx) = mpsc::channel();
        desk.go_on(Box::new(move || tx.send(42).unwrap())).unwrap();
        drop(begin);
        assert_eq!(rx.recv_timeout(Duration::from_secs(5)), Ok(42));
    }

    #[test]
    fn a_closed_desk_refuses_tasks_and_its_threads_end() {
        let desk = Desk::new(Manners::default());
        desk.run(Box::new(|| ())).unwrap();
        desk.close();
        assert_eq!(desk.run(Box::new(|| ())).unwrap_err().code(), "CANCELLED");
        assert!(desk.join(Instant::now() + Duration::from_secs(5)));
    }
}
