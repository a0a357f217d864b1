//! Removing all keys of a generation of an index, a document at a time, so that no lock scope is long however large the
//! index. Interrupted, it can be begun again: what is left is found through the set of paths, of which a path goes with the
//! last key of its document.
//!
//! Where that set, or anything else, was lost, all keys of the database are looked through (SCAN) for those of any generation that is not in
//! use.

use std::ops::ControlFlow;

use super::document::{Document, Present, Stats};
use super::retrieval::{no_index, read_settings};
use crate::logic::cache::CacheKeys;
use crate::logic::keys::{DataKeys, IndexKeys, Kind, chunk_id};
use crate::logic::limits;
use crate::redis_api::caller::Caller;
use crate::redis_api::keyspace::{Keyspace, Reply};
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::Failure;
use crate::redis_api::scan::Scan;
use crate::redis_api::vset;

/// Generations that are being removed.
struct Clearing {
    index: IndexKeys,
    generations: Vec<DataKeys>,
    /// Whether the counters of the last of them were looked at.
    looked: bool,
    /// Whether there is to be an index afterwards.
    stays: bool,
    /// How the names of kept answers begin.
    answers: Vec<u8>,
    /// Whether all keys of the database are to be looked through.
    sweep: bool,
    scan: Scan,
    /// Keys that were found by that.
    found: Vec<Vec<u8>>,
    removed: Removed,
}

/// How much of an index is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Generations that are not in use.
    Generations,
    /// All of it, and whatever a look at all keys of the database finds, if that is to be taken.
    Index { sweep: bool },
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Removed {
    pub documents: u64,
    /// Whether anything else was.
    pub anything: bool,
}

/// Removes all keys of `generations` of an index, as the caller, but never those of the generation that is in use: SWAPDB
/// and RESTORE can put another index in the place of the one that was asked about. With a look at all keys, or if anything of them was lost, everything of
/// all other generations too. `done` is called with the lock held.
pub(super) fn clear(
    caller: Caller,
    index: IndexKeys,
    generations: Vec<DataKeys>,
    extent: Extent,
    done: impl FnOnce(Result<Removed, Failure>) + Send + 'static,
) {
    let step = |clearing: &mut Clearing, keyspace: &Keyspace<'_>| clearing.step(&keyspace.above_maxmemory());
    let scan = Scan::containing(&index.common_part());
    let removed = Removed::default();
    let (stays, sweep) = (extent == Extent::Generations, extent == Extent::Index { sweep: true });
    let answers = CacheKeys::of_index(index.name()).answer(b"");
    let clearing =
        Clearing { index, generations, answers, looked: false, stays, sweep, scan, found: Vec::new(), removed };
    keyspace_thread::run_in_slices(caller, clearing, step, |clearing, ended| {
        done(ended.map(|()| clearing.removed));
    });
}

/// Whether there is anything of these generations, or the note of an index that is being dropped, as far as their main keys tell.
pub(super) fn is_anything_left(
    keyspace: &Keyspace<'_>,
    index: &IndexKeys,
    generations: impl Iterator<Item = u32>,
) -> Result<bool, Failure> {
    let main_keys = |generation| main_keys(&index.data(generation));
    let names: Vec<Vec<u8>> = std::iter::once(index.dropped()).chain(generations.flat_map(main_keys)).collect();
    let found = keyspace.read("EXISTS", &names.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    Ok(!matches!(found, Reply::Int(0)))
}

/// The keys of a generation that there are once.
fn main_keys(keys: &DataKeys) -> [Vec<u8>; 3] {
    [keys.paths(), keys.vectors(), keys.stats()]
}

/// Whether anything of a generation was lost, as far as its main keys tell.
pub(super) fn is_incomplete(keyspace: &Keyspace<'_>, keys: &DataKeys) -> bool {
    if !main_keys(keys).iter().any(|key| keyspace.is_present(key)) {
        return false;
    }
    let keyspace = keyspace.as_server();
    let signs = Present::read(&keyspace, keys).and_then(|present| {
        let stats = Stats::read(&keyspace, keys)?.beside(present);
        Ok(stats.unsure || present.listed != stats.size.documents || present.visible != stats.size.chunks)
    });
    // What cannot be read is something else.
    signs.unwrap_or(true)
}

/// Whether the caller may [`clear`]; changes nothing.
pub(super) fn check_rights(keyspace: &Keyspace<'_>, keys: &DataKeys) -> Result<(), Failure> {
    let some_document = "x";
    let unlinked = [
        keys.vectors(),
        keys.stats(),
        keys.paths(),
        keys.document(some_document),
        keys.tokens(&chunk_id(some_document, 0)),
    ];
    keyspace.check_write("UNLINK", &unlinked.each_ref().map(Vec::as_slice))?;
    keyspace.check_write("SREM", &[&keys.paths(), b""])
}

impl Clearing {
    fn step(&mut self, keyspace: &Keyspace<'_>) -> Result<ControlFlow<()>, Failure> {
        let settings = match read_settings(keyspace, &self.index) {
            // Something else stands there, or what no command has written: that is no index.
            Err(failure) if ["NOINDEX", "WRONGTYPE"].contains(&failure.code) => None,
            settings => settings?,
        };
        if self.stays && settings.is_none() {
            // Nobody knows any more which generation is not to be removed.
            return Err(no_index(&self.index));
        }
        let in_use = settings.map(|settings| settings.generation);
        let Some(keys) = self.generations.last() else {
            return if self.sweep { self.sweep(keyspace, in_use) } else { Ok(ControlFlow::Break(())) };
        };
        if in_use.is_some_and(|generation| self.index.data(generation) == *keys) {
            self.generations.pop();
        } else if !self.looked {
            self.sweep |= is_incomplete(keyspace, keys);
            self.removed.anything |= main_keys(keys).iter().any(|key| keyspace.is_present(key));
            self.looked = true;
        } else if let Some(path) = any_path(keyspace, keys)? {
            if let Ok(path) = std::str::from_utf8(&path) {
                remove_document(keyspace, keys, path)?;
                self.removed.documents += 1;
            }
            keyspace.write("SREM", &[&keys.paths(), &path])?;
        } else {
            vset::remove(keyspace, &keys.vectors())?;
            keyspace.write("UNLINK", &[&keys.stats(), &keys.paths()])?;
            self.generations.pop();
            self.looked = false;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Looks through the next keys of the database, or removes the next of those that were found.
    fn sweep(&mut self, keyspace: &Keyspace<'_>, in_use: Option<u32>) -> Result<ControlFlow<()>, Failure> {
        let Some(key) = self.found.pop() else {
            if self.scan.is_done() {
                return Ok(ControlFlow::Break(()));
            }
            self.found = self.scan.next(keyspace)?;
            return Ok(ControlFlow::Continue(()));
        };
        // Answers of the index that its list has lost.
        if !self.stays && key.starts_with(&self.answers) && keyspace.is_hash(&key) {
            keyspace.write("UNLINK", &[&key])?;
            self.removed.anything = true;
            return Ok(ControlFlow::Continue(()));
        }
        let kind = self.index.kind_of(&key).filter(|(_, generation)| Some(*generation) != in_use);
        match kind.map(|(kind, _)| kind) {
            Some(Kind::Vectors) => vset::remove(keyspace, &key)?,
            Some(Kind::Document) if keyspace.is_hash(&key) => {
                keyspace.write("UNLINK", &[&key])?;
                self.removed.documents += 1;
            }
            Some(Kind::Tokens) if keyspace.is_string(&key) => keyspace.write("UNLINK", &[&key]).map(drop)?,
            Some(Kind::Stats | Kind::Paths) => keyspace.write("UNLINK", &[&key]).map(drop)?,
            // What others have put there is not to be lost.
            _ => return Ok(ControlFlow::Continue(())),
        }
        self.removed.anything = true;
        Ok(ControlFlow::Continue(()))
    }
}

/// A path of a document that is left; `None` also where something else is in the place of the set.
fn any_path(keyspace: &Keyspace<'_>, keys: &DataKeys) -> Result<Option<Vec<u8>>, Failure> {
    match keyspace.read("SRANDMEMBER", &[&keys.paths()]) {
        Ok(Reply::Bytes(path)) => Ok(Some(path)),
        Ok(_) => Ok(None),
        Err(failure) if failure.code == "WRONGTYPE" => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn remove_document(keyspace: &Keyspace<'_>, keys: &DataKeys, path: &str) -> Result<(), Failure> {
    let document = keys.document(path);
    let stored = match Document::read(keyspace, &document) {
        // Not one of ours, and not to be lost.
        Err(failure) if failure.code == "WRONGTYPE" => None,
        stored => Some(stored?),
    };
    let is_foreign = stored.is_none();
    // Of a hash that was evicted, the keys of all chunks that there may have been.
    let chunks = stored.map_or(0, |stored| stored.versions.len());
    let chunks = if chunks == 0 { limits::DOCUMENT_CHUNKS_MAX } else { chunks };
    let tokens = (0..).take(chunks).map(|number| keys.tokens(&chunk_id(path, number)));
    let names: Vec<Vec<u8>> = tokens.chain((!is_foreign).then_some(document)).collect();
    keyspace.write("UNLINK", &names.iter().map(Vec::as_slice).collect::<Vec<_>>()).map(drop)
}
