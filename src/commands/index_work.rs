//! What is being done with each index right now, for `INFER.INDEXINFO`.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// What is being done with an index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Documents that wait to be written, or are.
    pub ingests: usize,
}

/// An index: number of the database, and name.
type Index = (i32, String);

static WORK: LazyLock<Mutex<HashMap<Index, Work>>> = LazyLock::new(Mutex::default);

/// One document on its way into an index, until it is dropped.
#[derive(Debug)]
pub(super) struct Ingesting(Index);

impl Ingesting {
    pub(super) fn begin(db: i32, index: &str) -> Self {
        let index = (db, index.to_owned());
        all(|work| work.entry(index.clone()).or_default().ingests += 1);
        Self(index)
    }
}

impl Drop for Ingesting {
    fn drop(&mut self) {
        all(|work| {
            let Some(entry) = work.get_mut(&self.0) else { return };
            entry.ingests = entry.ingests.saturating_sub(1);
            if *entry == Work::default() {
                work.remove(&self.0);
            }
        });
    }
}

/// What is being done with an index.
pub(super) fn of(db: i32, index: &str) -> Work {
    all(|work| work.get(&(db, index.to_owned())).copied().unwrap_or_default())
}

/// Held for a few instructions, so the main thread may wait for it.
fn all<T>(work: impl FnOnce(&mut HashMap<Index, Work>) -> T) -> T {
    work(&mut WORK.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_counts_while_it_is_on_its_way() {
        let first = Ingesting::begin(7, "counted");
        let second = Ingesting::begin(7, "counted");
        assert_eq!((of(7, "counted").ingests, of(0, "counted").ingests), (2, 0));
        drop(first);
        assert_eq!(of(7, "counted").ingests, 1);
        drop(second);
        assert!(!all(|work| work.contains_key(&(7, "counted".to_owned()))));
    }
}
