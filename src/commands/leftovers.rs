//! What is left over of a document: elements of the vector set that a search can find, and tokens of chunks, that its hash does not
//! name. They stay behind when the hash is lost (evicted, deleted by hand) and go with the next ingest or removal of the document.
//!
//! Looking for them takes a look at each element of the vector set, so it is done only where something speaks for it, and in a large
//! set without the lock.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::document::Document;
use crate::logic::attributes::ChunkAttributes;
use crate::logic::keys::{DataKeys, chunk_id, element};
use crate::logic::limits;
use crate::logic::version::Version;
use crate::redis_api::caller::Caller;
use crate::redis_api::keyspace::{Keyspace, Reply};
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::Failure;
use crate::redis_api::vset::{self, OfPath};

/// What is left over of one document.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    elements: Vec<Vec<u8>>,
    /// Numbers of chunks whose tokens are there.
    tokens: BTreeSet<u32>,
    /// Numbers of all chunks of which anything is there.
    pub chunks: BTreeSet<u32>,
    /// The vector set is large, and its elements are still to be looked at: [`hide_apart`].
    pub apart: bool,
}

impl Leftovers {
    /// What there is of `path` beside chunks `0..known`, and beside elements named in `kept`.
    pub(super) fn find(
        keyspace: &Keyspace<'_>,
        keys: &DataKeys,
        path: &str,
        known: usize,
        kept: &BTreeSet<String>,
    ) -> Result<Self, Failure> {
        let mut left = Self::default();
        match vset::of_path(keyspace, &keys.vectors(), path)? {
            OfPath::Here(names) => {
                for (name, chunk) in
                    names.into_iter().filter_map(|name| chunk_of(&name, path).map(|chunk| (name, chunk)))
                {
                    if !std::str::from_utf8(&name).is_ok_and(|name| kept.contains(name)) {
                        left.elements.push(name);
                        left.chunks.insert(chunk);
                    }
                }
            }
            OfPath::Apart => left.apart = true,
        }
        let numbers = (0..).take(limits::DOCUMENT_CHUNKS_MAX).skip(known);
        left.tokens.extend(numbers.filter(|number| keyspace.is_present(&keys.tokens(&chunk_id(path, *number)))));
        left.chunks.extend(&left.tokens);
        Ok(left)
    }

    /// Hides the elements and removes the tokens.
    pub(super) fn remove(&self, keyspace: &Keyspace<'_>, keys: &DataKeys, path: &str) -> Result<(), Failure> {
        for element in &self.elements {
            vset::hide(keyspace, &keys.vectors(), element)?;
        }
        let tokens: Vec<Vec<u8>> = self.tokens.iter().map(|number| keys.tokens(&chunk_id(path, *number))).collect();
        if !tokens.is_empty() {
            keyspace.write("UNLINK", &tokens.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// The number of the chunk of `path` that an element is a version of.
fn chunk_of(element: &[u8], path: &str) -> Option<u32> {
    let (number, _version) =
        std::str::from_utf8(element).ok()?.strip_prefix(path)?.strip_prefix(":chunk_")?.split_once('@')?;
    number.parse().ok()
}

/// The elements of a document with these versions of its chunks.
pub(super) fn elements(path: &str, versions: impl Iterator<Item = Option<Version>>) -> BTreeSet<String> {
    (0..).zip(versions).filter_map(|(number, version)| Some(element(path, number, version?))).collect()
}

/// The path of a document of which a vector is left over, if there is one among some random ones.
pub(super) fn any(keyspace: &Keyspace<'_>, keys: &DataKeys) -> Result<Option<String>, Failure> {
    let keyspace = &keyspace.as_server();
    for name in vset::random(keyspace, &keys.vectors(), RANDOM_AT_ONCE)? {
        let Some(json) = vset::attributes(keyspace, &keys.vectors(), &name)? else { continue };
        let Ok(ChunkAttributes { path, chunk, .. }) = ChunkAttributes::from_json(&json) else { continue };
        if chunk_of(&name, &path) != Some(chunk) {
            continue;
        }
        let version = Document::version_of(keyspace, &keys.document(&path), chunk)?;
        if version.is_none_or(|version| name != element(&path, chunk, version).as_bytes()) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Looks through a large vector set for elements of `path` that are left over, and hides them as the caller: without the lock, or, where the
/// path cannot stand in a filter, at random and in slices.
pub(super) fn hide_apart(caller: Caller, keys: DataKeys, path: String) {
    keyspace_thread::run_around(caller.clone(), move |keyspace| {
        let begun = keyspace.and_then(|keyspace| vset::begin_of_path(keyspace, &keys.vectors(), &path));
        let reply = match begun {
            Ok(Some(reply)) => reply,
            Ok(None) => {
                hide_at_random(caller, keys, path);
                return None;
            }
            Err(failure) => {
                told(Err(failure));
                return None;
            }
        };
        Some((reply, move |keyspace: Result<&Keyspace<'_>, Failure>, reply: Result<Reply, Failure>| {
            told(keyspace.and_then(|keyspace| hide(keyspace, &keys, &path, vset::names(reply?)?)));
        }))
    });
}

fn hide_at_random(caller: Caller, keys: DataKeys, path: String) {
    let step = move |left: &mut Option<u64>, keyspace: &Keyspace<'_>| {
        let steps = match *left {
            Some(steps) => steps,
            None => random_steps(vset::counts(&keyspace.as_server(), &keys.vectors())?),
        };
        hide(keyspace, &keys, &path, vset::random(keyspace, &keys.vectors(), RANDOM_AT_ONCE)?)?;
        *left = Some(steps.saturating_sub(1));
        Ok(if steps == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    keyspace_thread::run_in_slices(caller, None, step, |_left, ended| told(ended));
}

/// Elements that one step looks at.
pub(super) const RANDOM_AT_ONCE: usize = 50;

/// Steps after which one element of them all was missed once in some thousand times.
pub(super) fn random_steps((visible, hidden): (i64, i64)) -> u64 {
    const TIMES: u64 = 8;
    let all = visible.saturating_add(hidden).unsigned_abs();
    all.saturating_mul(TIMES) / RANDOM_AT_ONCE as u64 + TIMES
}

fn told(hidden: Result<(), Failure>) {
    if let Err(failure) = hidden {
        log::warn!("vectors that are left over of a document stay until it is ingested or forgotten again: {failure}");
    }
}

fn hide(keyspace: &Keyspace<'_>, keys: &DataKeys, path: &str, names: Vec<Vec<u8>>) -> Result<(), Failure> {
    let now = Document::read(&keyspace.as_server(), &keys.document(path))?;
    let kept = elements(path, now.versions.into_iter());
    for name in names.into_iter().filter(|name| chunk_of(name, path).is_some()) {
        if !std::str::from_utf8(&name).is_ok_and(|name| kept.contains(name)) {
            vset::hide(&keyspace.above_maxmemory(), &keys.vectors(), &name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::chunk_of;

    #[test]
    fn an_element_is_that_of_a_chunk_of_its_own_path_only() {
        assert_eq!(chunk_of(b"a.md:chunk_7@1-2-00", "a.md"), Some(7));
        for other in ["a.md:chunk_7", "b.md:chunk_7@1", "xa.md:chunk_7@1", "a.md:chunk_x@1", "a.md:chunk_1:chunk_7@1"] {
            assert_eq!(chunk_of(other.as_bytes(), "a.md"), None, "{other}");
        }
    }
}
