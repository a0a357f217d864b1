//! Counting the documents of an index anew, when keys that its counters count were lost: in the background, over all keys of the
//! database that can be one (SCAN), some at a time. Documents that do not stand in the set of paths are put back into it.
//!
//! Documents may change meanwhile. What was counted of which document is known here, so a change is counted exactly once.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use redis_infer_sync::MainLock;
use xxhash_rust::xxh3::xxh3_64;

use super::document::{Document, Present, Size, Stats, is_listed};
use super::retrieval::read_settings;
use super::writing::on_desk;
use crate::logic::keys::{DataKeys, IndexKeys};
use crate::redis_api::caller::Caller;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::Failure;
use crate::redis_api::scan::Scan;

/// How often it begins again because more losses came to light. Then the next ingest that notices has to begin it.
const ROUNDS: u32 = 3;

/// What is called when it has ended, with the lock held.
type Done = Box<dyn FnOnce(Result<(), Failure>) + Send>;

/// The number of the database, and the name of the counters' key.
type Id = (i32, Vec<u8>);

/// The counts that run.
static RUNNING: LazyLock<MainLock<HashMap<Id, Count>>> = LazyLock::new(MainLock::default);

#[derive(Default)]
struct Count {
    /// Hashes of the paths of documents that are counted.
    seen: HashSet<u64>,
    size: Size,
    /// More losses have come to light since it began.
    again: bool,
    done: Vec<Done>,
}

/// A count that runs, until it is dropped.
struct Recount {
    id: Id,
    caller: Caller,
    index: IndexKeys,
    keys: DataKeys,
    scan: Scan,
    rounds: u32,
}

impl fmt::Debug for Recount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recount").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// Begins it, unless it runs. One that runs begins again where `is_new_loss`: then there is more that it may have missed.
pub(super) fn begin(caller: &Caller, index: &IndexKeys, keys: &DataKeys, is_new_loss: bool) {
    start(caller, index, keys, is_new_loss, None);
}

/// Begins it, or waits for the one that runs. `done` is called with the lock held.
pub(super) fn begin_and_then(
    caller: &Caller,
    index: &IndexKeys,
    keys: &DataKeys,
    done: impl FnOnce(Result<(), Failure>) + Send + 'static,
) {
    start(caller, index, keys, false, Some(Box::new(done)));
}

fn start(caller: &Caller, index: &IndexKeys, keys: &DataKeys, is_new_loss: bool, done: Option<Done>) {
    let id = (caller.db, keys.stats());
    let is_new = all(|running| {
        let is_new = !running.contains_key(&id);
        let count = running.entry(id.clone()).or_default();
        count.again |= !is_new && is_new_loss;
        count.done.extend(done);
        is_new
    });
    if !is_new {
        return;
    }
    let scan = Scan::new(&keys.document(""));
    let recount = Recount { id, caller: caller.clone(), index: index.clone(), keys: keys.clone(), scan, rounds: 0 };
    let step = |recount: &mut Recount, keyspace: &Keyspace<'_>| recount.step(&keyspace.as_server());
    keyspace_thread::run_in_slices(caller.clone(), recount, step, |recount, ended| recount.end(ended));
}

/// Notes that a document of this size has become one of that, in the lock scope in which it did.
pub(super) fn changed(db: i32, keys: &DataKeys, path: &str, before: Size, after: Size) {
    all(|running| {
        let Some(count) = running.get_mut(&(db, keys.stats())) else { return };
        let before = if count.seen.insert(xxh3_64(path.as_bytes())) { Size::default() } else { before };
        count.size = count.size.changed(before, after);
    });
}

impl Recount {
    fn step(&mut self, keyspace: &Keyspace<'_>) -> Result<ControlFlow<()>, Failure> {
        // SCAN would find half of the documents, and that would pass for all.
        keyspace.check_still(self.index.settings())?;
        let settings = read_settings(keyspace, &self.index)?;
        if settings.is_none_or(|settings| self.index.data(settings.generation) != self.keys) {
            return Err(Failure::err("the index was made anew or changed by somebody else"));
        }
        for path in self.scan.next(keyspace)? {
            self.count(keyspace, &path)?;
        }
        if !self.scan.is_done() {
            return Ok(ControlFlow::Continue(()));
        }
        let (size, again) = self.with(|count| (count.size, std::mem::take(&mut count.again))).unwrap_or_default();
        self.rounds += 1;
        if again && self.rounds < ROUNDS {
            self.scan = Scan::new(&self.keys.document(""));
            self.with(|count| {
                count.seen.clear();
                count.size = Size::default();
            });
            return Ok(ControlFlow::Continue(()));
        }
        if again {
            return Err(Failure::err("keys were lost again and again while they were counted; try again"));
        }
        let stats = Stats::read(keyspace, &self.keys)?.beside(Present::read(keyspace, &self.keys)?);
        stats.settle(keyspace, &self.keys, size)?;
        Ok(ControlFlow::Break(()))
    }

    fn count(&self, keyspace: &Keyspace<'_>, path: &[u8]) -> Result<(), Failure> {
        let Ok(path) = std::str::from_utf8(path) else { return Ok(()) };
        let Some(size) = Document::size_of(keyspace, &self.keys.document(path))? else { return Ok(()) };
        self.with(|count| {
            if count.seen.insert(xxh3_64(path.as_bytes())) {
                count.size = count.size.changed(Size::default(), size);
            }
        });
        if !is_listed(keyspace, &self.keys, path)? {
            keyspace.write("SADD", &[&self.keys.paths(), path.as_bytes()])?;
        }
        Ok(())
    }

    fn end(self, ended: Result<(), Failure>) {
        if let Err(failure) = &ended {
            log::info!("the documents of an index are not counted anew: {failure}");
        }
        let Some(count) = all(|running| running.remove(&self.id)) else { return };
        let Count { seen, done, .. } = count;
        for done in done {
            done(ended.clone());
        }
        // It may be large.
        on_desk(&self.caller, 0, move || drop(seen));
    }

    fn with<T>(&self, work: impl FnOnce(&mut Count) -> T) -> Option<T> {
        all(|running| running.get_mut(&self.id).map(work))
    }
}

impl Drop for Recount {
    fn drop(&mut self) {
        // After `end` there is nothing. What waits is dropped without the lock of the map, which it may want.
        drop(all(|running| running.remove(&self.id)));
    }
}

/// Held for a few instructions, so the main thread may wait for it.
fn all<T>(work: impl FnOnce(&mut HashMap<Id, Count>) -> T) -> T {
    work(&mut RUNNING.lock())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(chunks: u64) -> Size {
        Size { documents: u64::from(chunks > 0), chunks, tokens: 10 * chunks }
    }

    #[test]
    fn a_change_is_counted_once_whether_the_document_was_counted_before_or_not() {
        let keys = IndexKeys::new("recount test").data(1);
        let id = (7, keys.stats());
        let now = || all(|running| running.get(&id).map(|count| count.size));
        changed(7, &keys, "a", size(0), size(1));
        assert_eq!(now(), None, "nobody counts");
        all(|running| running.insert(id.clone(), Count::default()));
        // Not counted yet: what it was before is no part of the count.
        changed(7, &keys, "a", size(5), size(2));
        assert_eq!(now(), Some(size(2)));
        changed(7, &keys, "a", size(2), size(3));
        assert_eq!(now(), Some(size(3)));
        changed(7, &keys, "a", size(3), size(0));
        changed(0, &keys, "b", size(0), size(9));
        assert_eq!(now(), Some(size(0)));
        all(|running| running.remove(&id));
    }
}
