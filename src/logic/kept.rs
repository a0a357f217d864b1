//! Which keys and values are kept for later prompts, up to a number of bytes: of blocks of prompts, and of sequences that lost
//! their slots. The ones not used for longest go first, of both kinds together.
//!
//! A block is found by its key, a sequence by how it begins, token by token; both belong to one loaded model. So there is
//! nothing that could be stale: other tokens are another entry, a model that is loaded anew has none.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use super::prefix::common_prefix;

/// Tokens that a sequence must have beyond what there is elsewhere to be kept, or to be brought back: the whole sequence is
/// copied for them, and every prompt is compared with what is kept.
pub const MIN_SEQUENCE: usize = 64;

/// A loaded model, as far as what is kept of it is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Told apart by this from all others, before and after it.
    pub id: u64,
    /// The longest saved sequence of which a beginning can be used: a sliding window keeps only what the next token sees, so
    /// a longer one serves as a whole or not at all.
    pub longest_cut: usize,
}

impl Owner {
    /// How many of the first tokens of `wanted` can be had of a saved sequence with the tokens `saved`.
    fn has(self, saved: &[u32], wanted: &[u32]) -> usize {
        let common = common_prefix(saved, wanted);
        if common == saved.len() || saved.len() <= self.longest_cut { common } else { 0 }
    }
}

/// How much is kept.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct KvUse {
    /// Blocks of prompts.
    pub blocks: u64,
    /// Bytes of their rows, and of the tokens they are found by.
    pub block_bytes: u64,
    /// Sequences.
    pub sequences: u64,
    /// Bytes of their states and tokens.
    pub sequence_bytes: u64,
}

impl KvUse {
    /// Of both kinds.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.block_bytes + self.sequence_bytes
    }
}

/// What is kept: rows `R` of blocks found by a key `K`, and states `S` of sequences.
#[derive(Debug)]
pub struct Kept<K, R, S> {
    /// By when they were last used.
    entries: BTreeMap<u64, Entry<K, R, S>>,
    /// The place of each block among them.
    blocks: HashMap<K, u64>,
    usage: KvUse,
    /// Counts uses.
    clock: u64,
    gone: Vec<Entry<K, R, S>>,
}

/// Something that is, or was, kept.
#[derive(Debug)]
pub struct Entry<K, R, S> {
    owner: u64,
    bytes: u64,
    what: What<K, R, S>,
}

#[derive(Debug)]
enum What<K, R, S> {
    Block { key: K, rows: R },
    Sequence { tokens: Vec<u32>, state: S },
}

impl<K, R, S> Default for Kept<K, R, S> {
    fn default() -> Self {
        let (entries, blocks) = (BTreeMap::new(), HashMap::new());
        Self { entries, blocks, usage: KvUse::default(), clock: 0, gone: Vec::new() }
    }
}

impl<K: Clone + Eq + Hash, R, S> Kept<K, R, S> {
    /// How much is kept now.
    #[must_use]
    pub fn usage(&self) -> KvUse {
        self.usage
    }

    /// The rows of a block, which are used now.
    pub fn block(&mut self, key: &K) -> Option<&R> {
        let place = *self.blocks.get(key)?;
        match &self.touch(place)?.what {
            What::Block { rows, .. } => Some(rows),
            What::Sequence { .. } => None,
        }
    }

    /// Keeps the rows of a block. `bytes` is what all of it takes.
    pub fn keep_block(&mut self, owner: u64, key: K, rows: R, bytes: u64) {
        if let Some(&place) = self.blocks.get(&key) {
            self.remove(place);
        }
        self.insert(Entry { owner, bytes, what: What::Block { key, rows } });
    }

    /// The saved sequence that saves most of reading `prompt`, of which the first `have` tokens need not be read anyway: how many
    /// tokens it saves, and its state, which is used now. Of equal ones the shortest, which is the fastest to bring back.
    pub fn sequence(&mut self, owner: Owner, prompt: &[u32], have: usize) -> Option<(usize, &S)> {
        // The last token of a prompt is always read anew: the first word of the answer comes from it.
        let (_, reusable) = prompt.split_last()?;
        let found =
            self.sequences(owner).map(|(place, saved)| (owner.has(saved, reusable), Reverse(saved.len()), place));
        let (saves, _, place) = found.max().filter(|(saves, ..)| *saves >= have + MIN_SEQUENCE)?;
        match &self.touch(place)?.what {
            What::Sequence { state, .. } => Some((saves, state)),
            What::Block { .. } => None,
        }
    }

    /// Whether a sequence with `tokens` is worth keeping, of which the first `elsewhere` stay in a slot.
    #[must_use]
    pub fn is_worth(&self, owner: Owner, tokens: &[u32], elsewhere: usize) -> bool {
        let enough = |have: usize| tokens.len() >= have + MIN_SEQUENCE;
        enough(elsewhere) && self.sequences(owner).all(|(_, saved)| enough(owner.has(saved, tokens)))
    }

    /// Keeps a sequence. `bytes` is what all of it takes. Those that would save hardly more than it does are let go: the earlier
    /// turns of a conversation.
    pub fn keep_sequence(&mut self, owner: Owner, tokens: Vec<u32>, state: S, bytes: u64) {
        let lacks_little = |saved: &[u32]| saved.len() < owner.has(&tokens, saved) + MIN_SEQUENCE;
        let replaced = self.sequences(owner).filter(|(_, saved)| lacks_little(saved)).map(|(place, _)| place);
        for place in replaced.collect::<Vec<u64>>() {
            self.remove(place);
        }
        self.insert(Entry { owner: owner.id, bytes, what: What::Sequence { tokens, state } });
    }

    /// Lets go what was not used for longest until the rest takes at most `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        while self.usage.bytes() > bytes
            && let Some((&oldest, _)) = self.entries.first_key_value()
        {
            self.remove(oldest);
        }
    }

    /// Lets go all that belongs to a model.
    pub fn forget(&mut self, owner: u64) {
        let own = self.entries.iter().filter(|(_, entry)| entry.owner == owner);
        for place in own.map(|(&place, _)| place).collect::<Vec<u64>>() {
            self.remove(place);
        }
    }

    /// What was let go since the last call, for the caller to free when nobody waits for it.
    #[must_use]
    pub fn take_gone(&mut self) -> Vec<Entry<K, R, S>> {
        std::mem::take(&mut self.gone)
    }

    fn sequences(&self, owner: Owner) -> impl Iterator<Item = (u64, &[u32])> {
        self.entries.iter().filter(move |(_, entry)| entry.owner == owner.id).filter_map(|(&place, entry)| match &entry
            .what
        {
            What::Sequence { tokens, .. } => Some((place, tokens.as_slice())),
            What::Block { .. } => None,
        })
    }

    /// Makes an entry the one used last.
    fn touch(&mut self, place: u64) -> Option<&Entry<K, R, S>> {
        let entry = self.entries.remove(&place)?;
        self.clock += 1;
        if let What::Block { key, .. } = &entry.what
            && let Some(place) = self.blocks.get_mut(key)
        {
            *place = self.clock;
        }
        Some(self.entries.entry(self.clock).or_insert(entry))
    }

    fn insert(&mut self, entry: Entry<K, R, S>) {
        self.clock += 1;
        let (number, bytes) = self.counted(&entry.what);
        *number += 1;
        *bytes += entry.bytes;
        if let What::Block { key, .. } = &entry.what {
            self.blocks.insert(key.clone(), self.clock);
        }
        self.entries.insert(self.clock, entry);
    }

    fn remove(&mut self, place: u64) {
        let Some(entry) = self.entries.remove(&place) else { return };
        let (number, bytes) = self.counted(&entry.what);
        *number -= 1;
        *bytes -= entry.bytes;
        if let What::Block { key, .. } = &entry.what {
            self.blocks.remove(key);
        }
        self.gone.push(entry);
    }

    /// Where an entry is counted.
    fn counted(&mut self, what: &What<K, R, S>) -> (&mut u64, &mut u64) {
        let usage = &mut self.usage;
        match what {
            What::Block { .. } => (&mut usage.blocks, &mut usage.block_bytes),
            What::Sequence { .. } => (&mut usage.sequences, &mut usage.sequence_bytes),
        }
    }
}

#[cfg(test)]
mod tests;
