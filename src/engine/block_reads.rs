//! Blocks of prompts that are being read: who wants one that somebody else has begun to read gets the same rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::job::{Block, ReadJob};

/// The blocks of one model that are being read, and who else waits for each.
#[derive(Debug, Default)]
pub(super) struct BlockReads {
    waiting: Mutex<HashMap<Block, Vec<ReadJob>>>,
}

/// A block that is being read. When it is dropped, so are those who wait for it.
#[derive(Debug)]
pub(super) struct Reading {
    reads: Arc<BlockReads>,
    /// `None` once it has ended.
    block: Option<Block>,
}

impl BlockReads {
    /// Gives `job` back if nobody reads its block yet. If somebody does, it waits until [`Reading::end`].
    pub(super) fn begin(self: &Arc<Self>, job: ReadJob) -> Option<(ReadJob, Reading)> {
        let mut waiting = self.waiting();
        if let Some(waiting) = waiting.get_mut(&job.block) {
            waiting.push(job);
            return None;
        }
        waiting.insert(job.block.clone(), Vec::new());
        let reading = Reading { reads: Arc::clone(self), block: Some(job.block.clone()) };
        Some((job, reading))
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Block, Vec<ReadJob>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    /// Who has waited for it.
    pub(super) fn end(mut self) -> Vec<ReadJob> {
        self.take()
    }

    fn take(&mut self) -> Vec<ReadJob> {
        let waiting = self.block.take().and_then(|block| self.reads.waiting().remove(&block));
        waiting.unwrap_or_default()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // Their sinks answer.
        drop(self.take());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::engine::job::{Permit, Ticket};
    use crate::logic::kv_rows::KvRows;

    fn job(token: u32) -> (ReadJob, Receiver<()>) {
        let (tell, told) = channel();
        let job = ReadJob {
            block: Block { before: [1].into(), tokens: vec![token] },
            ticket: Ticket::default(),
            permit: Permit::take(&Arc::default(), 1).unwrap(),
            done: Box::new(move |_| tell.send(()).unwrap()),
        };
        (job, told)
    }

    #[test]
    fn a_block_is_read_once_and_whoever_wants_it_meanwhile_waits() {
        let reads = Arc::new(BlockReads::default());
        let (_, reading) = reads.begin(job(7).0).unwrap();
        let (second, told) = job(7);
        assert!(reads.begin(second).is_none());
        assert!(reads.begin(job(8).0).is_some(), "another block");
        let mut waited = reading.end();
        assert_eq!(waited.len(), 1);
        (waited.remove(0).done)(Ok(Arc::new(KvRows::example(0, 1))));
        told.recv().unwrap();
        assert!(reads.begin(job(7).0).is_some());
    }

    #[test]
    fn who_waits_for_a_reading_that_is_dropped_is_dropped() {
        let reads = Arc::new(BlockReads::default());
        let (_, reading) = reads.begin(job(7).0).unwrap();
        let (second, told) = job(7);
        reads.begin(second);
        drop(reading);
        assert!(told.recv().is_err());
        assert!(reads.begin(job(7).0).is_some());
    }

    #[test]
    fn a_reading_that_has_ended_does_not_touch_the_next_one() {
        let reads = Arc::new(BlockReads::default());
        let (_, mut first) = reads.begin(job(7).0).unwrap();
        first.take();
        let (_, second) = reads.begin(job(7).0).unwrap();
        reads.begin(job(7).0);
        drop(first);
        assert_eq!(second.end().len(), 1);
    }
}
