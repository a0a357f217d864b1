//! The vector set of a cache anew, without the vectors that lead nowhere any more: elements are never removed from a set
//! (`redis_api::vset` says why), so a cache whose entries expire would grow for ever.
//!
//! It begins after a write that finds more hidden vectors than others, and goes on in the background: the vectors of the
//! entries that are there are copied to `cache:{faq}@new`, in slices and without a model, and then that set takes the place of
//! the old one. What is written meanwhile goes into both, which [`is_running`] tells, so nothing is missing at the end whatever happens to the
//! keys. A new set that a crash leaves behind is removed when the next rebuild begins.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use redis_infer_sync::MainLock;

use super::cache_entry::{forget, scan_ids};
use crate::logic::cache::CacheKeys;
use crate::logic::limits;
use crate::logic::options::Quant;
use crate::redis_api::caller::Caller;
use crate::redis_api::keyspace::{Keyspace, Reply};
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::Failure;
use crate::redis_api::vset;

/// A cache: number of the database, and name.
type Cache = (i32, Vec<u8>);

/// Those that are being rebuilt.
static RUNNING: MainLock<BTreeSet<Cache>> = MainLock::new(BTreeSet::new());

/// A cache that is being rebuilt, until this is dropped.
#[derive(Debug)]
struct Running(Cache);

impl Running {
    /// `None` when it is already.
    fn begin(cache: Cache) -> Option<Self> {
        running(|running| running.insert(cache.clone())).then(|| Self(cache))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        running(|running| running.remove(&self.0));
    }
}

/// Held for a few instructions, by the main thread and by the keyspace thread.
fn running<T>(work: impl FnOnce(&mut BTreeSet<Cache>) -> T) -> T {
    work(&mut RUNNING.lock())
}

/// Whether a cache is being rebuilt, so that what is written goes into the new set too.
pub(super) fn is_running(db: i32, keys: &CacheKeys) -> bool {
    running(|running| running.contains(&(db, keys.settings().to_vec())))
}

/// Whether the caller may rebuild; changes nothing.
pub(super) fn check_rights(keyspace: &Keyspace<'_>, keys: &CacheKeys) -> Result<(), Failure> {
    let (old, new) = (keys.vectors(), keys.new_vectors());
    keyspace.check_read("VINFO", &[&old])?;
    keyspace.check_read("VEMB", &[&old, b"x"])?;
    keyspace.check_read("VRANDMEMBER", &[&old])?;
    keyspace.check_read("ZSCAN", &[&keys.ids(), b"0"])?;
    keyspace.check_read("EXISTS", &[&keys.answer(b"x")])?;
    keyspace.check_write("UNLINK", &[&old, &new])?;
    keyspace.check_write("RENAME", &[&new, &old])?;
    vset::check_staging(keyspace, &new)?;
    vset::check_showing(keyspace, &new)
}

/// Begins to rebuild the set if there are more vectors in it that lead nowhere than others.
pub(super) fn rebuild_if_crowded(keyspace: &Keyspace<'_>, caller: &Caller, keys: &CacheKeys) -> Result<(), Failure> {
    let (visible, hidden) = vset::counts(keyspace, &keys.vectors())?;
    if hidden < limits::CACHE_HIDDEN_MAX || hidden <= visible {
        return Ok(());
    }
    let Some(running) = Running::begin((caller.db, keys.settings().to_vec())) else { return Ok(()) };
    // In the scope in which it is noted that what is written goes into both.
    vset::remove(keyspace, &keys.new_vectors())?;
    let rebuild = Rebuild { keys: keys.clone(), cursor: None, ids: Vec::new() };
    let step = |rebuild: &mut Rebuild, keyspace: &Keyspace<'_>| rebuild.step(&keyspace.above_maxmemory());
    keyspace_thread::run_in_slices(caller.clone(), rebuild, step, move |_, ended| {
        // With the lock held in which the set was renamed.
        drop(running);
        if let Err(failure) = ended {
            log::warn!("the vectors of a cache are not rebuilt: {failure}");
        }
    });
    Ok(())
}

/// A rebuild on its way.
struct Rebuild {
    keys: CacheKeys,
    /// How far the list of ids was read; `None` at the beginning.
    cursor: Option<Vec<u8>>,
    /// Those that were read and not looked at.
    ids: Vec<Vec<u8>>,
}

impl Rebuild {
    fn step(&mut self, keyspace: &Keyspace<'_>) -> Result<ControlFlow<()>, Failure> {
        if let Some(id) = self.ids.pop() {
            self.copy(keyspace, &id)?;
            return Ok(ControlFlow::Continue(()));
        }
        if self.cursor.as_deref() == Some(b"0") {
            self.switch(keyspace)?;
            return Ok(ControlFlow::Break(()));
        }
        let cursor = self.cursor.as_deref().unwrap_or(b"0");
        let (cursor, ids) = scan_ids(keyspace, &self.keys, cursor, b"*")?;
        (self.cursor, self.ids) = (Some(cursor), ids);
        Ok(ControlFlow::Continue(()))
    }

    /// Copies the element of an entry, if the entry is still there.
    fn copy(&self, keyspace: &Keyspace<'_>, id: &[u8]) -> Result<(), Failure> {
        let (old, new) = (self.keys.vectors(), self.keys.new_vectors());
        if matches!(keyspace.read("EXISTS", &[&self.keys.answer(id)])?, Reply::Int(0)) {
            return forget(keyspace, &self.keys, id);
        }
        let Some(attributes) = vset::attributes(keyspace, &old, id)? else { return Ok(()) };
        let Some(vector) = vset::vector(keyspace, &old, id)? else { return Ok(()) };
        vset::stage(keyspace, &new, id, &vector, Quant::Q8.name())?;
        vset::show(keyspace, &new, id, &String::from_utf8_lossy(&attributes)).map(drop)
    }

    fn switch(&self, keyspace: &Keyspace<'_>) -> Result<(), Failure> {
        let (old, new) = (self.keys.vectors(), self.keys.new_vectors());
        if matches!(keyspace.read("EXISTS", &[&new])?, Reply::Int(0)) {
            return vset::remove_if_all_hidden(keyspace, &old);
        }
        // First, so that its memory is given back without holding up the server.
        vset::remove(keyspace, &old)?;
        keyspace.write("RENAME", &[&new, &old]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::{CacheKeys, Running, is_running};

    #[test]
    fn a_cache_is_rebuilt_once_at_a_time() {
        let keys = CacheKeys::new("once");
        let first = Running::begin((7, b"once".to_vec())).unwrap();
        assert!(is_running(7, &keys) && !is_running(8, &keys));
        assert!(Running::begin((7, b"once".to_vec())).is_none());
        assert!(is_running(7, &keys));
        drop(first);
        assert!(!is_running(7, &keys));
    }
}
