//! Keys and values of the chunks of an index with `KV CHUNK`: got for a question, and made ahead of it after an ingest.
//!
//! They are a cache of the process (`engine`), bounded by `infer.kv-budget`, found by the tokens themselves. What is not there
//! when a question comes is read then, by all workers side by side, and kept.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::index_work::{self, IndexWork};
use super::runtime::{engine, kv_budget, queue_limit};
use crate::engine::{Block, EngineError, Errand, Permit, ReadJob, Served, Ticket};
use crate::logic::kv_rows::KvRows;

/// Blocks that may wait to be made ahead. Those beyond are made when a question needs them.
const AHEAD_MAX: usize = 10_000;

/// The rows of some blocks, in their order, and how many of them had to be read.
pub(super) type Gathered = Result<(Vec<Arc<KvRows>>, usize), EngineError>;

/// Blocks whose rows are being got.
struct Gathering {
    rows: Vec<Option<Arc<KvRows>>>,
    missing: usize,
    done: Option<Box<dyn FnOnce(Gathered) + Send>>,
}

/// Gets the rows of `blocks`. `done` is called once, on any thread, or dropped with its client when a worker fails badly.
/// The blocks share the place in the queue of the request that needs them.
pub(super) fn gather(
    served: &Arc<Served>,
    blocks: Vec<Block>,
    cancelled: &Arc<AtomicBool>,
    permit: &Permit,
    done: impl FnOnce(Gathered) + Send + 'static,
) {
    let rows: Vec<_> = blocks.iter().map(|block| served.kept_rows(block)).collect();
    let missing: Vec<usize> = (0..rows.len()).filter(|&place| rows[place].is_none()).collect();
    count(rows.len() - missing.len(), missing.len());
    let gathering = Gathering { rows, missing: missing.len(), done: Some(Box::new(done)) };
    let gathering = Arc::new(Mutex::new(gathering));
    if missing.is_empty() {
        return finish_if_complete(&gathering);
    }
    for (place, block) in blocks.into_iter().enumerate().filter(|(place, _)| missing.binary_search(place).is_ok()) {
        let gathering = Arc::clone(&gathering);
        served.read_block(ReadJob {
            block,
            ticket: Ticket { cancelled: Arc::clone(cancelled), ..Ticket::default() },
            permit: permit.clone(),
            done: Box::new(move |result| {
                match result {
                    Ok(rows) => {
                        let mut gathering = gathering.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Some(place) = gathering.rows.get_mut(place) {
                            *place = Some(rows);
                        }
                    }
                    Err(error) => {
                        let done = gathering.lock().unwrap_or_else(PoisonError::into_inner).done.take();
                        if let Some(done) = done {
                            done(Err(error));
                        }
                    }
                }
                finish_if_complete(&gathering);
            }),
        });
    }
}

fn finish_if_complete(gathering: &Mutex<Gathering>) {
    let mut gathering = gathering.lock().unwrap_or_else(PoisonError::into_inner);
    let rows: Option<Vec<Arc<KvRows>>> = gathering.rows.iter().cloned().collect();
    if let Some(rows) = rows
        && let Some(done) = gathering.done.take()
    {
        let missing = gathering.missing;
        drop(gathering);
        done(Ok((rows, missing)));
    }
}

fn count(hits: usize, misses: usize) {
    if let Ok(engine) = engine() {
        engine.metrics.kv_hits.add(hits);
        engine.metrics.kv_misses.add(misses);
    }
}

/// A block of an index that is to be made ahead of the questions.
struct Ahead {
    /// Counts it among those of its index.
    _counted: index_work::Ahead,
    model: Weak<Served>,
    block: Block,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Ahead>,
    /// One is being read. Questions come between two.
    is_running: bool,
}

/// Of workers and preprocess threads alone.
static QUEUE: Mutex<Queue> = Mutex::new(Queue { waiting: VecDeque::new(), is_running: false });

fn queue<T>(change: impl FnOnce(&mut Queue) -> T) -> T {
    change(&mut QUEUE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Has blocks of an index read one after another, as long as there is room for their rows. Not on the main thread.
pub(super) fn make_ahead(index: &IndexWork, served: &Arc<Served>, blocks: Vec<Block>) {
    let begins = queue(|queue| {
        let room = AHEAD_MAX.saturating_sub(queue.waiting.len());
        let ahead = |block| Ahead { _counted: index.ahead(), model: Arc::downgrade(served), block };
        queue.waiting.extend(blocks.into_iter().take(room).map(ahead));
        !std::mem::replace(&mut queue.is_running, true)
    });
    if begins {
        drop(Turn);
    }
}

/// The right to have the next block read; given on when it is dropped, whatever became of the last one.
struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        let handed = engine().and_then(|engine| engine.go_on(Errand::anyway(0, 0), || Self.begin()));
        if handed.is_err() {
            // The server is stopping.
            queue(std::mem::take);
        }
    }
}

impl Turn {
    fn begin(self) {
        while let Some(Ahead { model, block, .. }) = queue(|queue| {
            queue.is_running = !queue.waiting.is_empty();
            queue.waiting.pop_front()
        }) {
            let Some(served) = model.upgrade().filter(is_in_service) else { continue };
            if served.kept_rows(&block).is_some() || !has_room() {
                continue;
            }
            // When the queue is full, questions have it: the block is read when one of them needs it.
            let Ok(permit) = served.permit(queue_limit()) else { continue };
            let turn = self;
            let ticket = Ticket::default();
            let done = Box::new(move |_result| drop(turn));
            return served.read_block(ReadJob { block, ticket, permit, done });
        }
        // Nothing waits; the turn ends here.
        std::mem::forget(self);
    }
}

/// Whether nobody unloads the model, which waits for the end of its requests.
fn is_in_service(served: &Arc<Served>) -> bool {
    let found = engine().and_then(|engine| engine.find(&served.model.name));
    found.is_ok_and(|found| Arc::ptr_eq(&found, served))
}

/// Whether a chunk can be kept without another going: what was asked for is worth more than what was not. Kept conversations,
/// which take what room there is, are no reason to read nothing ahead.
fn has_room() -> bool {
    /// Of the budget: rows of the longest blocks have some dozen megabytes.
    const FILLED: f64 = 0.95;
    engine().is_ok_and(|engine| (engine.kept().block_bytes as f64) < kv_budget() as f64 * FILLED)
}
