//! Removing all keys of a generation of an index, a document at a time, so that no lock scope is long however large the
//! index. Interrupted, it can be begun again: what is left is found through the set of paths, of which a path goes with the
//! last key of its document.

use std::ops::ControlFlow;

use super::document::Document;
use super::retrieval::read_settings;
use crate::logic::keys::{DataKeys, IndexKeys, chunk_id};
use crate::logic::limits;
use crate::redis_api::caller::Caller;
use crate::redis_api::keyspace::{Keyspace, Reply};
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::Failure;
use crate::redis_api::vset;

/// Generations that are being removed.
struct Clearing {
    index: IndexKeys,
    generations: Vec<DataKeys>,
    documents: u64,
}

/// Removes all keys of `generations` of an index, as the caller, but never those of the generation that is in use: SWAPDB
/// and RESTORE can put another index in the place of the one that was asked about. `done` gets the number of documents that were removed, with the lock
/// held.
pub(super) fn clear(
    caller: Caller,
    index: IndexKeys,
    generations: Vec<DataKeys>,
    done: impl FnOnce(Result<u64, Failure>) + Send + 'static,
) {
    let step = |clearing: &mut Clearing, keyspace: &Keyspace<'_>| clearing.step(&keyspace.above_maxmemory());
    let clearing = Clearing { index, generations, documents: 0 };
    keyspace_thread::run_in_slices(caller, clearing, step, |clearing, ended| {
        done(ended.map(|()| clearing.documents));
    });
}

/// Whether there is anything of a generation, or the note of an index that is being dropped.
pub(super) fn is_anything_left(keyspace: &Keyspace<'_>, index: &IndexKeys, keys: &DataKeys) -> Result<bool, Failure> {
    let names = [index.dropped(), keys.paths(), keys.vectors(), keys.stats()];
    let found = keyspace.read("EXISTS", &names.each_ref().map(Vec::as_slice))?;
    Ok(!matches!(found, Reply::Int(0)))
}

/// Whether the caller may [`clear`]; changes nothing.
pub(super) fn check_rights(keyspace: &Keyspace<'_>, keys: &DataKeys) -> Result<(), Failure> {
    let some_document = "x";
    let unlinked =
        [keys.vectors(), keys.stats(), keys.document(some_document), keys.tokens(&chunk_id(some_document, 0))];
    keyspace.check_write("UNLINK", &unlinked.each_ref().map(Vec::as_slice))?;
    keyspace.check_write("SREM", &[&keys.paths(), b""])
}

impl Clearing {
    fn step(&mut self, keyspace: &Keyspace<'_>) -> Result<ControlFlow<()>, Failure> {
        let Some(keys) = self.generations.last() else { return Ok(ControlFlow::Break(())) };
        // What cannot be read is no index.
        let settings = match read_settings(keyspace, &self.index) {
            Err(failure) if failure.is_of_slot() => return Err(failure),
            settings => settings.ok().flatten(),
        };
        let in_use = settings.map(|settings| self.index.data(settings.generation));
        if in_use.as_ref() == Some(keys) {
            self.generations.pop();
        } else if let Reply::Bytes(path) = keyspace.read("SRANDMEMBER", &[&keys.paths()])? {
            if let Ok(path) = std::str::from_utf8(&path) {
                remove_document(keyspace, keys, path)?;
                self.documents += 1;
            }
            keyspace.write("SREM", &[&keys.paths(), &path])?;
        } else {
            vset::remove(keyspace, &keys.vectors())?;
            keyspace.write("UNLINK", &[&keys.stats()])?;
            self.generations.pop();
        }
        Ok(ControlFlow::Continue(()))
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
