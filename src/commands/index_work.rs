//! What is being done with each index right now: for `INFER.INDEXINFO`, and so that a re-index learns which documents
//! change while it runs.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

/// How often the documents that changed meanwhile are made again before further ones have to wait. Where documents change
/// faster than they are made it would never end.
const ROUNDS: u32 = 3;

/// An ingest that waits for the end of a re-index.
type Parked = Box<dyn FnOnce() + Send>;

/// What is being done with an index.
#[derive(Debug, Default)]
struct Work {
    /// Documents that wait to be written, or are.
    ingests: usize,
    /// The re-index that runs, or the last one.
    reindex: Option<Reindex>,
}

struct Reindex {
    progress: Progress,
    /// Paths of documents that have changed since it began and are not made anew yet.
    changed: BTreeSet<String>,
    /// How often there were such.
    rounds: u32,
    parked: Vec<Parked>,
}

impl fmt::Debug for Reindex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reindex")
            .field("progress", &self.progress)
            .field("rounds", &self.rounds)
            .finish_non_exhaustive()
    }
}

/// How far a re-index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    pub state: State,
    /// Documents that were made anew; those that changed meanwhile count again.
    pub done: u64,
    /// Documents that there were when it began.
    pub documents: u64,
    /// Why it failed.
    pub error: Option<String>,
}

impl Progress {
    fn has_ended(&self) -> bool {
        matches!(self.state, State::Done | State::Failed)
    }
}

/// The state of a re-index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Documents are made anew.
    Running,
    /// The new ones are in use, the old ones are being removed.
    Clearing,
    Done,
    Failed,
}

impl State {
    /// The word in the reply.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Clearing => "clearing",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
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

    /// See [`changed`].
    pub(super) fn changed(&self, path: &str) {
        changed(self.0.0, &self.0.1, path);
    }
}

impl Drop for Ingesting {
    fn drop(&mut self) {
        all(|work| {
            let Some(entry) = work.get_mut(&self.0) else { return };
            entry.ingests = entry.ingests.saturating_sub(1);
            if entry.ingests == 0 && entry.reindex.is_none() {
                work.remove(&self.0);
            }
        });
    }
}

/// A re-index that runs. Dropped without [`Reindexing::end`] it has failed.
#[derive(Debug)]
pub(super) struct Reindexing(Index);

impl Reindexing {
    /// `None` when one runs already.
    pub(super) fn begin(db: i32, index: &str, documents: u64) -> Option<Self> {
        let index = (db, index.to_owned());
        all(|work| {
            let entry = work.entry(index.clone()).or_default();
            if entry.reindex.as_ref().is_some_and(|reindex| !reindex.progress.has_ended()) {
                return None;
            }
            let progress = Progress { state: State::Running, done: 0, documents, error: None };
            entry.reindex = Some(Reindex { progress, changed: BTreeSet::new(), rounds: 0, parked: Vec::new() });
            Some(Self(index))
        })
    }

    /// One more document was made anew.
    pub(super) fn advance(&self) {
        self.with(|reindex| reindex.progress.done += 1);
    }

    /// The documents that have changed since this was last asked.
    pub(super) fn take_changed(&self) -> Vec<String> {
        let take = |reindex: &mut Reindex| {
            reindex.rounds += 1;
            std::mem::take(&mut reindex.changed)
        };
        self.with(take).unwrap_or_default().into_iter().collect()
    }

    /// Whether a document has changed since [`Reindexing::take_changed`].
    pub(super) fn has_changed(&self, path: &str) -> bool {
        self.with(|reindex| reindex.changed.contains(path)).unwrap_or_default()
    }

    /// The new documents are in use.
    pub(super) fn switched(&self) {
        self.with(|reindex| reindex.progress.state = State::Clearing);
        self.release();
    }

    /// It ended well, or not.
    pub(super) fn end(&self, error: Option<String>) {
        self.with(|reindex| {
            reindex.progress.state = if error.is_none() { State::Done } else { State::Failed };
            reindex.progress.error = error;
            reindex.changed.clear();
        });
        self.release();
    }

    /// The ingests that wait go on.
    fn release(&self) {
        let parked = self.with(|reindex| std::mem::take(&mut reindex.parked));
        parked.into_iter().flatten().for_each(|ingest| ingest());
    }

    fn with<T>(&self, change: impl FnOnce(&mut Reindex) -> T) -> Option<T> {
        all(|work| work.get_mut(&self.0)?.reindex.as_mut().map(change))
    }
}

impl Drop for Reindexing {
    fn drop(&mut self) {
        if self.with(|reindex| reindex.progress.has_ended()) == Some(false) {
            self.end(Some("it was given up because of an error in the module; see the server log".to_owned()));
        }
    }
}

/// Runs `ingest`, now or, where a re-index would else not come to its end, after that.
pub(super) fn when_there_is_room(db: i32, index: &str, ingest: impl FnOnce() + Send + 'static) {
    let now = all(|work| {
        let reindex = work.get_mut(&(db, index.to_owned())).and_then(|work| work.reindex.as_mut());
        match reindex.filter(|reindex| reindex.progress.state == State::Running && reindex.rounds >= ROUNDS) {
            Some(reindex) => {
                reindex.parked.push(Box::new(ingest));
                None
            }
            None => Some(ingest),
        }
    });
    if let Some(ingest) = now {
        ingest();
    }
}

/// Notes that a document has changed. With the lock held in which it did.
pub(super) fn changed(db: i32, index: &str, path: &str) {
    all(|work| {
        let reindex = work.get_mut(&(db, index.to_owned())).and_then(|work| work.reindex.as_mut());
        if let Some(reindex) = reindex.filter(|reindex| reindex.progress.state == State::Running) {
            reindex.changed.insert(path.to_owned());
        }
    });
}

/// Forgets how the last re-index of an index ended. One that runs notices by itself that the index is gone.
pub(super) fn forget_reindex(db: i32, index: &str) {
    all(|work| {
        let Some(entry) = work.get_mut(&(db, index.to_owned())) else { return };
        entry.reindex.take_if(|reindex| reindex.progress.has_ended());
        if entry.ingests == 0 && entry.reindex.is_none() {
            work.remove(&(db, index.to_owned()));
        }
    });
}

/// How many documents are on their way into an index.
pub(super) fn ingests(db: i32, index: &str) -> usize {
    all(|work| work.get(&(db, index.to_owned())).map_or(0, |work| work.ingests))
}

/// How far the re-index of an index is that runs or was the last one.
pub(super) fn reindex(db: i32, index: &str) -> Option<Progress> {
    all(|work| work.get(&(db, index.to_owned()))?.reindex.as_ref().map(|reindex| reindex.progress.clone()))
}

/// Held for a few instructions, so the main thread may wait for it.
fn all<T>(work: impl FnOnce(&mut HashMap<Index, Work>) -> T) -> T {
    work(&mut WORK.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(index: &str) -> Option<State> {
        reindex(7, index).map(|progress| progress.state)
    }

    #[test]
    fn a_document_counts_while_it_is_on_its_way() {
        let first = Ingesting::begin(7, "counted");
        let second = Ingesting::begin(7, "counted");
        assert_eq!((ingests(7, "counted"), ingests(0, "counted")), (2, 0));
        drop(first);
        assert_eq!(ingests(7, "counted"), 1);
        drop(second);
        assert!(!all(|work| work.contains_key(&(7, "counted".to_owned()))));
    }

    #[test]
    fn an_index_is_made_anew_once_at_a_time() {
        let first = Reindexing::begin(7, "once", 3).unwrap();
        assert!(Reindexing::begin(7, "once", 3).is_none());
        assert!(Reindexing::begin(8, "once", 3).is_some());
        first.switched();
        assert!(Reindexing::begin(7, "once", 3).is_none());
        first.end(None);
        assert_eq!(state("once"), Some(State::Done));
        assert!(Reindexing::begin(7, "once", 3).is_some());
    }

    #[test]
    fn changes_are_noted_until_the_switch() {
        changed(7, "noted", "before");
        let reindexing = Reindexing::begin(7, "noted", 0).unwrap();
        changed(7, "noted", "a");
        changed(7, "noted", "a");
        changed(0, "noted", "b");
        assert!(reindexing.has_changed("a") && !reindexing.has_changed("before"));
        assert_eq!(reindexing.take_changed(), ["a"]);
        reindexing.switched();
        changed(7, "noted", "c");
        assert!(reindexing.take_changed().is_empty());
        reindexing.end(None);
    }

    #[test]
    fn ingests_wait_only_when_documents_change_again_and_again_and_not_for_ever() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};
        let done = Arc::new(AtomicUsize::new(0));
        let ingest = |index| {
            let counted = Arc::clone(&done);
            when_there_is_room(7, index, move || {
                counted.fetch_add(1, Ordering::Relaxed);
            });
            done.load(Ordering::Relaxed)
        };
        let reindexing = Reindexing::begin(7, "busy", 0).unwrap();
        for number in 1..=ROUNDS {
            assert_eq!(ingest("busy"), number as usize);
            reindexing.take_changed();
        }
        assert_eq!([ingest("busy"), ingest("busy"), ingest("other")], [3, 3, 4]);
        reindexing.switched();
        assert_eq!([done.load(Ordering::Relaxed), ingest("busy")], [6, 7]);
        drop(reindexing);
    }

    #[test]
    fn one_that_is_lost_has_failed() {
        drop(Reindexing::begin(7, "lost", 0));
        assert_eq!(state("lost"), Some(State::Failed));
        forget_reindex(7, "lost");
        assert_eq!(state("lost"), None);
    }
}
