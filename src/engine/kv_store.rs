//! Keys and values that are kept for later prompts, of all models, within one number of bytes: rows of blocks of prompts, which
//! are put together anew for each prompt (`KV CHUNK`), and sequences that lost their slots. What stays is decided in
//! `logic::kept`; here are the lock, the bytes, and the model that each entry goes with.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::job::Block;
use super::metrics::Metrics;
use super::queue::Saved;
use crate::logic::kept::{Kept, KvUse, Owner};
use crate::logic::kv_rows::KvRows;

/// What is kept of all models.
#[derive(Debug)]
pub(super) struct KvStore {
    kept: Mutex<Kept<Arc<Key>, Arc<KvRows>, Saved>>,
    /// Bytes that all of it may take.
    budget: AtomicU64,
    models: AtomicU64,
    /// What [`Kept::usage`] last was, for those who must not wait for a worker that holds the lock.
    seen: Seen,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Seen {
    blocks: AtomicU64,
    block_bytes: AtomicU64,
    sequences: AtomicU64,
    sequence_bytes: AtomicU64,
}

/// What a block is found by.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    model: u64,
    before: Arc<[u32]>,
    tokens: Vec<u32>,
}

impl KvStore {
    /// An empty store for this many bytes.
    pub(super) fn new(budget: u64, metrics: &Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::default(),
            budget: budget.into(),
            models: AtomicU64::default(),
            seen: Seen::default(),
            metrics: Arc::clone(metrics),
        })
    }

    /// The part of the store for a model that begins to serve. Its saved sequences can be cut anywhere when they have at most
    /// `longest_cut` tokens.
    pub(super) fn for_model(self: &Arc<Self>, longest_cut: usize) -> ModelStore {
        let owner = Owner { id: self.models.fetch_add(1, Ordering::Relaxed), longest_cut };
        ModelStore { store: Arc::clone(self), owner }
    }

    /// How much is kept. Never waits.
    pub(super) fn usage(&self) -> KvUse {
        let number = |of: &AtomicU64| of.load(Ordering::Relaxed);
        KvUse {
            blocks: number(&self.seen.blocks),
            block_bytes: number(&self.seen.block_bytes),
            sequences: number(&self.seen.sequences),
            sequence_bytes: number(&self.seen.sequence_bytes),
        }
    }

    /// Sets how many bytes may be kept, which holds from the next use on; whether that is less than are kept now.
    pub(super) fn set_budget(&self, bytes: u64) -> bool {
        self.budget.store(bytes, Ordering::Relaxed);
        self.usage().bytes() > bytes
    }

    /// Lets go what the budget has no room for.
    pub(super) fn shrink(&self) {
        self.with(|_| ());
    }

    fn budget(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    /// Runs `uses` under the lock. What the budget has no room for, before it and after it, is freed without the lock.
    fn with<T>(&self, uses: impl FnOnce(&mut Kept<Arc<Key>, Arc<KvRows>, Saved>) -> T) -> T {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.shrink(self.budget());
        let result = uses(&mut kept);
        kept.shrink(self.budget());
        let KvUse { blocks, block_bytes, sequences, sequence_bytes } = kept.usage();
        self.seen.blocks.store(blocks, Ordering::Relaxed);
        self.seen.block_bytes.store(block_bytes, Ordering::Relaxed);
        self.seen.sequences.store(sequences, Ordering::Relaxed);
        self.seen.sequence_bytes.store(sequence_bytes, Ordering::Relaxed);
        let gone = kept.take_gone();
        drop(kept);
        // Hundreds of megabytes are not given back in no time.
        drop(gone);
        result
    }
}

/// What is kept of one model; it goes with the model.
#[derive(Debug)]
pub(super) struct ModelStore {
    store: Arc<KvStore>,
    owner: Owner,
}

impl ModelStore {
    /// The rows of `block`.
    pub(super) fn rows(&self, block: &Block) -> Option<Arc<KvRows>> {
        let key = self.key(block);
        self.store.with(|kept| kept.block(&key).map(Arc::clone))
    }

    /// Keeps the rows of `block`.
    pub(super) fn keep_rows(&self, block: &Block, rows: &Arc<KvRows>) {
        let key = self.key(block);
        // The tokens of the key are small beside the rows, but there can be many of them.
        let bytes = rows.bytes() + (key.before.len() + key.tokens.len()) * size_of::<u32>();
        self.store.with(|kept| kept.keep_block(self.owner.id, key, Arc::clone(rows), bytes as u64));
    }

    /// A saved sequence that saves much of reading `prompt`, of which the first `have` tokens need not be read anyway, and how many
    /// tokens it saves.
    pub(super) fn sequence(&self, prompt: &[u32], have: usize) -> Option<(usize, Saved)> {
        let found = |(tokens, state): (usize, &Saved)| (tokens, Arc::clone(state));
        self.store.with(|kept| kept.sequence(self.owner, prompt, have).map(found))
    }

    /// Whether a sequence with `tokens` is to be kept, of which the first `elsewhere` stay in a slot.
    pub(super) fn wants(&self, tokens: &[u32], elsewhere: usize) -> bool {
        self.store.budget() > 0 && self.store.with(|kept| kept.is_worth(self.owner, tokens, elsewhere))
    }

    /// Makes room for the `bytes` of a sequence's state; whether there is any.
    pub(super) fn make_room(&self, tokens: &[u32], bytes: usize) -> bool {
        let room = self.store.budget().checked_sub(sequence_bytes(tokens, bytes));
        room.inspect(|&room| self.store.with(|kept| kept.shrink(room))).is_some()
    }

    /// Keeps a sequence.
    pub(super) fn keep_sequence(&self, tokens: &[u32], state: Saved) {
        let bytes = sequence_bytes(tokens, state.len());
        self.store.metrics.saved_sequences.increment();
        self.store.with(|kept| kept.keep_sequence(self.owner, tokens.to_vec(), state, bytes));
    }

    /// Forgets all.
    pub(super) fn forget(&self) {
        self.store.with(|kept| kept.forget(self.owner.id));
    }

    /// Counts that a request begins with a saved sequence.
    pub(super) fn count_restored(&self) {
        self.store.metrics.restored_sequences.increment();
    }

    fn key(&self, block: &Block) -> Arc<Key> {
        let (before, tokens) = (Arc::clone(&block.before), block.tokens.clone());
        Arc::new(Key { model: self.owner.id, before, tokens })
    }
}

impl Drop for ModelStore {
    fn drop(&mut self) {
        self.forget();
    }
}

fn sequence_bytes(tokens: &[u32], state: usize) -> u64 {
    (size_of_val(tokens) + state) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(token: u32) -> Block {
        Block { before: Arc::new([1, 2]), tokens: vec![token] }
    }

    /// A store, a model in it, and the rows and bytes of a block.
    fn store(blocks: u64) -> (Arc<KvStore>, ModelStore, Arc<KvRows>, u64) {
        let rows = Arc::new(KvRows::example(0, 1));
        let bytes = rows.bytes() as u64 + 12;
        let store = KvStore::new(blocks * bytes, &Arc::default());
        let model = store.for_model(usize::MAX);
        (store, model, rows, bytes)
    }

    fn used(blocks: u64, block_bytes: u64) -> KvUse {
        KvUse { blocks, block_bytes, ..KvUse::default() }
    }

    #[test]
    fn rows_are_found_by_the_block_what_stands_before_it_and_the_model() {
        let (store, model, rows, bytes) = store(10);
        model.keep_rows(&block(7), &rows);
        assert!(model.rows(&block(7)).is_some());
        assert!(model.rows(&Block { before: Arc::new([1]), ..block(7) }).is_none());
        assert!(store.for_model(0).rows(&block(7)).is_none());
        assert_eq!(store.usage(), used(1, bytes));
    }

    #[test]
    fn what_was_not_used_for_longest_goes_when_there_is_no_room() {
        let (store, model, rows, bytes) = store(2);
        model.keep_rows(&block(1), &rows);
        model.keep_rows(&block(2), &rows);
        model.rows(&block(1)).unwrap();
        model.keep_rows(&block(3), &rows);
        assert_eq!([1, 2, 3].map(|token| model.rows(&block(token)).is_some()), [true, false, true]);
        assert_eq!(store.usage(), used(2, 2 * bytes));
    }

    #[test]
    fn a_smaller_budget_holds_at_the_next_use() {
        let (store, model, rows, bytes) = store(10);
        (0..4).for_each(|token| model.keep_rows(&block(token), &rows));
        assert!(!store.set_budget(4 * bytes));
        assert!(store.set_budget(bytes));
        assert!(model.rows(&block(0)).is_none());
        assert_eq!(store.usage(), used(1, bytes));
        assert!(store.set_budget(0));
        store.shrink();
        assert_eq!(store.usage(), KvUse::default());
        model.keep_rows(&block(9), &rows);
        assert_eq!(store.usage(), KvUse::default());
    }

    #[test]
    fn what_is_kept_goes_with_its_model() {
        let (store, model, rows, bytes) = store(10);
        let other = store.for_model(usize::MAX);
        model.keep_rows(&block(1), &rows);
        model.keep_sequence(&[7; 100], Arc::new(vec![0; 10]));
        other.keep_rows(&block(1), &rows);
        drop(model);
        assert_eq!(store.usage(), used(1, bytes));
        assert!(other.rows(&block(1)).is_some());
    }

    #[test]
    fn room_for_a_sequence_is_made_before_it_is_saved() {
        let (store, model, rows, bytes) = store(3);
        let state = vec![0; bytes as usize];
        (0..3).for_each(|token| model.keep_rows(&block(token), &rows));
        assert!(!model.make_room(&[7; 100], 3 * bytes as usize));
        assert_eq!(store.usage().blocks, 3);
        assert!(model.make_room(&[], state.len()));
        assert_eq!(store.usage(), used(2, 2 * bytes));
    }

    #[test]
    fn without_a_budget_no_sequence_is_wanted() {
        let (store, model, ..) = store(1);
        assert!(model.wants(&[7; 100], 0));
        store.set_budget(0);
        assert!(!model.wants(&[7; 100], 0));
    }
}
