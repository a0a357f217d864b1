//! Chunks that searches did not find whole, because their tokens or the hash of their document are gone: for `INFER.INDEXINFO`, until
//! the document is ingested or forgotten, or they are found again.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use redis_infer_sync::MainLock;

use crate::logic::limits;

/// An index: number of the database, and name.
type Index = (i32, String);

/// Paths of documents, and numbers of their chunks.
type Chunks = BTreeSet<(String, u32)>;

static LOST: LazyLock<MainLock<HashMap<Index, Chunks>>> = LazyLock::new(MainLock::default);

/// Whether anything was ever noticed, so that searches need no lock where nothing was.
static ANY: AtomicBool = AtomicBool::new(false);

/// Notes chunks of an index that a search has missed.
pub(super) fn missed(db: i32, index: &str, chunks: Vec<(String, u32)>) {
    if chunks.is_empty() {
        return;
    }
    ANY.store(true, Ordering::Relaxed);
    all(|lost| {
        let index = (db, index.to_owned());
        if lost.len() >= limits::LOSSES_MAX && !lost.contains_key(&index) {
            return;
        }
        let lost = lost.entry(index).or_default();
        for chunk in chunks {
            if lost.len() < limits::LOSSES_MAX {
                lost.insert(chunk);
            }
        }
    });
}

/// Takes back what was noted of a chunk that was found.
pub(super) fn found(db: i32, index: &str, path: &str, chunk: u32) {
    change(db, index, |lost| {
        lost.remove(&(path.to_owned(), chunk));
    });
}

/// Takes back what was noted of a document, which was written or removed.
pub(super) fn healed(db: i32, index: &str, path: &str) {
    change(db, index, |lost| lost.retain(|(other, _)| other != path));
}

/// Takes back all that was noted of an index.
pub(super) fn forget(db: i32, index: &str) {
    change(db, index, BTreeSet::clear);
}

/// How many chunks of an index were missed.
pub(super) fn count(db: i32, index: &str) -> usize {
    all(|lost| lost.get(&(db, index.to_owned())).map_or(0, BTreeSet::len))
}

fn change(db: i32, index: &str, change: impl FnOnce(&mut Chunks)) {
    if !ANY.load(Ordering::Relaxed) {
        return;
    }
    all(|lost| {
        let index = (db, index.to_owned());
        let Some(chunks) = lost.get_mut(&index) else { return };
        change(chunks);
        if chunks.is_empty() {
            lost.remove(&index);
        }
    });
}

/// Held for a short while, so the main thread may wait for it.
fn all<T>(work: impl FnOnce(&mut HashMap<Index, Chunks>) -> T) -> T {
    work(&mut LOST.lock())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_counts_until_it_is_found_or_its_document_written() {
        let chunk = |path: &str, chunk| (path.to_owned(), chunk);
        missed(7, "lost", vec![chunk("a", 0), chunk("a", 1), chunk("b", 0)]);
        missed(7, "lost", vec![chunk("a", 0)]);
        assert_eq!((count(7, "lost"), count(0, "lost")), (3, 0));
        found(7, "lost", "b", 0);
        healed(7, "lost", "x");
        assert_eq!(count(7, "lost"), 2);
        healed(7, "lost", "a");
        assert_eq!(count(7, "lost"), 0);
        missed(7, "lost", (0..5000).map(|number| chunk("c", number)).collect());
        assert_eq!(count(7, "lost"), limits::LOSSES_MAX);
        forget(7, "lost");
        assert!(!all(|lost| lost.contains_key(&(7, "lost".to_owned()))));
    }
}
