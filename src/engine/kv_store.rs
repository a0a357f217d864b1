//! Keys and values of blocks of prompts, kept for the next prompt with such a block: those of all models, up to a number of
//! bytes; the ones not used for longest go first.
//!
//! An entry is found by its very tokens, those of the block and those before it, and belongs to one loaded model. So there is
//! nothing that could be stale: a changed chunk is another entry, a model that is loaded anew has none.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::job::Block;
use crate::logic::kv_rows::KvRows;

/// The rows of all models.
#[derive(Debug, Default)]
pub(super) struct KvStore {
    kept: Mutex<Kept>,
    models: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<Arc<Key>, Entry>,
    /// All entries by `Entry::used`.
    order: BTreeMap<u64, Arc<Key>>,
    bytes: u64,
    /// Counts what `Entry::used` is about.
    clock: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    model: u64,
    before: Arc<[u32]>,
    tokens: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    rows: Arc<KvRows>,
    bytes: u64,
    used: u64,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvUse {
    /// Blocks.
    pub blocks: usize,
    /// Bytes of their rows.
    pub bytes: u64,
}

impl KvStore {
    /// The part of the store for a model that begins to serve.
    pub(super) fn for_model(self: &Arc<Self>) -> ModelRows {
        ModelRows { store: Arc::clone(self), model: self.models.fetch_add(1, Ordering::Relaxed) }
    }

    pub(super) fn usage(&self) -> KvUse {
        let kept = self.kept();
        KvUse { blocks: kept.entries.len(), bytes: kept.bytes }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows of one model; they go with it.
#[derive(Debug)]
pub(super) struct ModelRows {
    store: Arc<KvStore>,
    model: u64,
}

impl ModelRows {
    /// The rows of `block`; all rows may take `budget` bytes.
    pub(super) fn get(&self, block: &Block, budget: u64) -> Option<Arc<KvRows>> {
        let mut kept = self.store.kept();
        kept.shrink(budget);
        let key = self.key(block);
        let rows = Arc::clone(&kept.entries.get(&key)?.rows);
        kept.insert(Arc::new(key), Arc::clone(&rows));
        Some(rows)
    }

    /// Keeps the rows of `block`; all rows may take `budget` bytes.
    pub(super) fn put(&self, block: &Block, rows: &Arc<KvRows>, budget: u64) {
        let mut kept = self.store.kept();
        kept.insert(Arc::new(self.key(block)), Arc::clone(rows));
        kept.shrink(budget);
    }

    fn key(&self, block: &Block) -> Key {
        Key { model: self.model, before: Arc::clone(&block.before), tokens: block.tokens.clone() }
    }
}

impl Drop for ModelRows {
    fn drop(&mut self) {
        let mut kept = self.store.kept();
        let own: Vec<Arc<Key>> = kept.entries.keys().filter(|key| key.model == self.model).cloned().collect();
        own.iter().for_each(|key| kept.remove(key));
    }
}

impl Kept {
    /// As the one used last.
    fn insert(&mut self, key: Arc<Key>, rows: Arc<KvRows>) {
        self.remove(&key);
        self.clock += 1;
        // The tokens of the key are small beside the rows, but there can be many of them.
        let bytes = (rows.bytes() + (key.before.len() + key.tokens.len()) * size_of::<u32>()) as u64;
        self.bytes += bytes;
        self.order.insert(self.clock, Arc::clone(&key));
        self.entries.insert(key, Entry { rows, bytes, used: self.clock });
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
    }

    /// Lets go what was not used for longest until the rest takes at most `budget` bytes.
    fn shrink(&mut self, budget: u64) {
        while self.bytes > budget {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(token: u32) -> Block {
        Block { before: Arc::new([1, 2]), tokens: vec![token] }
    }

    /// A store, a model in it, and the rows and bytes of a block.
    fn store() -> (Arc<KvStore>, ModelRows, Arc<KvRows>, u64) {
        let store = Arc::new(KvStore::default());
        let model = store.for_model();
        let rows = Arc::new(KvRows::example(0, 1));
        let bytes = rows.bytes() as u64 + 12;
        (store, model, rows, bytes)
    }

    #[test]
    fn rows_are_found_by_the_block_what_stands_before_it_and_the_model() {
        let (store, model, rows, bytes) = store();
        model.put(&block(7), &rows, u64::MAX);
        assert!(model.get(&block(7), u64::MAX).is_some());
        assert!(model.get(&Block { before: Arc::new([1]), ..block(7) }, u64::MAX).is_none());
        assert!(store.for_model().get(&block(7), u64::MAX).is_none());
        assert_eq!(store.usage(), KvUse { blocks: 1, bytes });
    }

    #[test]
    fn what_was_not_used_for_longest_goes_when_there_is_no_room() {
        let (store, model, rows, bytes) = store();
        let budget = 2 * bytes;
        model.put(&block(1), &rows, budget);
        model.put(&block(2), &rows, budget);
        model.get(&block(1), budget).unwrap();
        model.put(&block(3), &rows, budget);
        assert_eq!([1, 2, 3].map(|token| model.get(&block(token), budget).is_some()), [true, false, true]);
        assert_eq!(store.usage(), KvUse { blocks: 2, bytes: budget });
    }

    #[test]
    fn a_smaller_budget_holds_at_the_next_use() {
        let (store, model, rows, bytes) = store();
        (0..4).for_each(|token| model.put(&block(token), &rows, u64::MAX));
        assert!(model.get(&block(0), bytes).is_none());
        assert_eq!(store.usage().blocks, 1);
        model.put(&block(9), &rows, 0);
        assert_eq!(store.usage(), KvUse { blocks: 0, bytes: 0 });
    }

    #[test]
    fn the_same_block_twice_is_kept_once() {
        let (store, model, rows, bytes) = store();
        model.put(&block(1), &rows, u64::MAX);
        model.put(&block(1), &rows, u64::MAX);
        assert_eq!(store.usage(), KvUse { blocks: 1, bytes });
    }

    #[test]
    fn rows_go_with_their_model() {
        let (store, model, rows, bytes) = store();
        let other = store.for_model();
        model.put(&block(1), &rows, u64::MAX);
        other.put(&block(1), &rows, u64::MAX);
        drop(model);
        assert_eq!(store.usage(), KvUse { blocks: 1, bytes });
        assert!(other.get(&block(1), u64::MAX).is_some());
    }
}
