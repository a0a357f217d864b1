//! What is being done with each index right now: for `INFER.INDEXINFO`, and so that a re-index learns which documents
//! change while it runs.
//!
//! The main thread and the keyspace thread look at it under Redis' lock, so whatever workers and preprocess threads do here they do
//! without a lock: they have a share of the entry of their index, with counters, and a mailbox for what has to wait.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use redis_infer_sync::{Mailbox, MainLock, is_niced};

/// How often the documents that changed meanwhile are made again before further ones have to wait. Where documents change
/// faster than they are made it would never end.
const ROUNDS: u32 = 3;

/// An ingest that waits for the end of a re-index.
type Parked = Box<dyn FnOnce() + Send>;

/// What is being done with an index.
#[derive(Debug, Clone)]
pub(super) struct IndexWork(Arc<Work>);

#[derive(Debug, Default)]
struct Work {
    /// Documents that wait to be written, or are.
    ingests: AtomicUsize,
    /// Chunks that wait to be read ahead of the questions.
    ahead: AtomicUsize,
    /// The re-index that runs, or the last one.
    reindex: ArcSwapOption<Reindex>,
}

struct Reindex {
    /// A [`State`].
    state: AtomicU8,
    done: AtomicU64,
    documents: u64,
    /// Set before the state.
    error: OnceLock<String>,
    /// Paths of documents that have changed since it began and are not made anew yet. Not touched any more when it has ended.
    changed: MainLock<BTreeSet<String>>,
    /// How often there were such.
    rounds: AtomicU32,
    parked: Mailbox<Parked>,
}

impl fmt::Debug for Reindex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reindex")
            .field("progress", &self.progress())
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
    const ALL: [Self; 4] = [Self::Running, Self::Clearing, Self::Done, Self::Failed];

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

impl Reindex {
    fn state(&self) -> State {
        let state = self.state.load(Ordering::SeqCst);
        State::ALL.into_iter().find(|&of| of as u8 == state).unwrap_or(State::Failed)
    }

    fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::SeqCst);
    }

    fn has_ended(&self) -> bool {
        matches!(self.state(), State::Done | State::Failed)
    }

    fn progress(&self) -> Progress {
        let state = self.state();
        let (done, documents) = (self.done.load(Ordering::Relaxed), self.documents);
        Progress { state, done, documents, error: self.error.get().cloned() }
    }

    /// The ingests that wait go on.
    fn release(&self) {
        self.parked.take().into_iter().for_each(|ingest| ingest());
    }
}

/// An index: number of the database, and name.
type Index = (i32, String);

/// Entries of indexes with which nothing is done are swept out when there are this many in all.
const SWEEP_AT: usize = 64;

static WORK: MainLock<BTreeMap<Index, Arc<Work>>> = MainLock::new(BTreeMap::new());

/// The entry of an index, a new one if need be.
fn of(db: i32, index: &str) -> Arc<Work> {
    let mut all = WORK.lock();
    let mut idle = BTreeMap::new();
    if all.len() >= SWEEP_AT {
        let is_idle = |work: &Arc<Work>| Arc::strong_count(work) == 1 && work.reindex.load().is_none();
        let (kept, gone) = std::mem::take(&mut *all).into_iter().partition(|(_, work)| !is_idle(work));
        (*all, idle) = (kept, gone);
    }
    let work = Arc::clone(all.entry((db, index.to_owned())).or_default());
    drop(all);
    drop(idle);
    work
}

/// The entry of an index, if there is one.
fn find(db: i32, index: &str) -> Option<Arc<Work>> {
    WORK.lock().get(&(db, index.to_owned())).cloned()
}

/// One document on its way into an index, until it is dropped.
#[derive(Debug)]
pub(super) struct Ingesting(IndexWork);

impl Ingesting {
    /// On the main thread.
    pub(super) fn begin(db: i32, index: &str) -> Self {
        let work = of(db, index);
        work.ingests.fetch_add(1, Ordering::Relaxed);
        Self(IndexWork(work))
    }

    /// All that is done with this index.
    pub(super) fn index(&self) -> IndexWork {
        self.0.clone()
    }

    /// See [`changed`].
    pub(super) fn changed(&self, path: &str) {
        self.0.changed(path);
    }
}

impl Drop for Ingesting {
    fn drop(&mut self) {
        self.0.0.ingests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A chunk that waits to be read ahead, until it is dropped.
#[derive(Debug)]
pub(super) struct Ahead(IndexWork);

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.0.ahead.fetch_sub(1, Ordering::Relaxed);
    }
}

impl IndexWork {
    /// Counts a chunk that waits to be read ahead.
    pub(super) fn ahead(&self) -> Ahead {
        self.0.ahead.fetch_add(1, Ordering::Relaxed);
        Ahead(self.clone())
    }

    /// Runs `ingest`, now or, where a re-index would else not come to its end, after that. Any thread.
    pub(super) fn when_there_is_room(&self, ingest: impl FnOnce() + Send + 'static) {
        let reindex = self.0.reindex.load_full();
        let is_crowded = |reindex: &Arc<Reindex>| {
            reindex.state() == State::Running && reindex.rounds.load(Ordering::Relaxed) >= ROUNDS
        };
        let Some(reindex) = reindex.filter(is_crowded) else { return ingest() };
        reindex.parked.post(Box::new(ingest));
        if reindex.state() != State::Running {
            // It may have come to its end before it could see this one.
            reindex.release();
        }
    }

    fn changed(&self, path: &str) {
        let reindex = self.0.reindex.load_full().filter(|reindex| reindex.state() == State::Running);
        if let Some(reindex) = reindex {
            reindex.changed.lock().insert(path.to_owned());
        }
    }
}

/// A re-index that runs. Dropped without [`Reindexing::end`] it has failed.
#[derive(Debug)]
pub(super) struct Reindexing(Arc<Reindex>);

impl Reindexing {
    /// `None` when one runs already. On the main thread.
    pub(super) fn begin(db: i32, index: &str, documents: u64) -> Option<Self> {
        let work = of(db, index);
        if work.reindex.load().as_ref().is_some_and(|reindex| !reindex.has_ended()) {
            return None;
        }
        let reindex = Arc::new(Reindex {
            state: AtomicU8::new(State::Running as u8),
            done: AtomicU64::new(0),
            documents,
            error: OnceLock::new(),
            changed: MainLock::default(),
            rounds: AtomicU32::new(0),
            parked: Mailbox::new(),
        });
        work.reindex.store(Some(Arc::clone(&reindex)));
        Some(Self(reindex))
    }

    /// One more document was made anew.
    pub(super) fn advance(&self) {
        self.0.done.fetch_add(1, Ordering::Relaxed);
    }

    /// The documents that have changed since this was last asked. With Redis' lock held.
    pub(super) fn take_changed(&self) -> Vec<String> {
        self.0.rounds.fetch_add(1, Ordering::Relaxed);
        let changed = std::mem::take(&mut *self.0.changed.lock());
        changed.into_iter().collect()
    }

    /// Whether a document has changed since [`Reindexing::take_changed`]. With Redis' lock held.
    pub(super) fn has_changed(&self, path: &str) -> bool {
        self.0.changed.lock().contains(path)
    }

    /// The new documents are in use.
    pub(super) fn switched(&self) {
        self.0.set_state(State::Clearing);
        self.0.release();
    }

    /// It ended well, or not.
    pub(super) fn end(&self, error: Option<String>) {
        let state = if error.is_none() { State::Done } else { State::Failed };
        if let Some(error) = error {
            let _first_stays = self.0.error.set(error);
        }
        self.0.set_state(state);
        if !is_niced() {
            let changed = std::mem::take(&mut *self.0.changed.lock());
            drop(changed);
        }
        self.0.release();
    }
}

impl Drop for Reindexing {
    fn drop(&mut self) {
        if !self.0.has_ended() {
            self.end(Some("it was given up because of an error in the module; see the server log".to_owned()));
        }
    }
}

/// Notes that a document has changed. With the lock held in which it did.
pub(super) fn changed(db: i32, index: &str, path: &str) {
    if let Some(work) = find(db, index) {
        IndexWork(work).changed(path);
    }
}

/// Forgets how the last re-index of an index ended. One that runs notices by itself that the index is gone.
pub(super) fn forget_reindex(db: i32, index: &str) {
    let ended = find(db, index).filter(|work| work.reindex.load().as_ref().is_some_and(|reindex| reindex.has_ended()));
    if let Some(work) = ended {
        work.reindex.store(None);
    }
}

/// How many documents are on their way into an index.
pub(super) fn ingests(db: i32, index: &str) -> usize {
    find(db, index).map_or(0, |work| work.ingests.load(Ordering::Relaxed))
}

/// How many chunks of an index wait to be read ahead of the questions.
pub(super) fn ahead(db: i32, index: &str) -> usize {
    find(db, index).map_or(0, |work| work.ahead.load(Ordering::Relaxed))
}

/// How far the re-index of an index is that runs or was the last one.
pub(super) fn reindex(db: i32, index: &str) -> Option<Progress> {
    find(db, index)?.reindex.load().as_ref().map(|reindex| reindex.progress())
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
        assert_eq!(ingests(7, "counted"), 0);
    }

    #[test]
    fn entries_of_indexes_that_rest_do_not_pile_up_and_others_stay() {
        let busy = Ingesting::begin(7, "stays");
        for number in 0..10 * SWEEP_AT {
            drop(Ingesting::begin(6, &format!("piled {number}")));
        }
        assert!(WORK.lock().keys().filter(|(db, _)| *db == 6).count() <= SWEEP_AT);
        assert_eq!(ingests(7, "stays"), 1);
        drop(busy);
    }

    #[test]
    fn an_ingest_that_waits_for_a_reindex_just_when_it_ends_is_not_forgotten() {
        for _ in 0..200 {
            let reindexing = Reindexing::begin(7, "raced", 0).unwrap();
            (0..ROUNDS).for_each(|_| drop(reindexing.take_changed()));
            let begun = Arc::new(AtomicUsize::new(0));
            let work = IndexWork(of(7, "raced"));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let begun = Arc::clone(&begun);
                    work.when_there_is_room(move || {
                        begun.fetch_add(1, Ordering::Relaxed);
                    });
                });
                scope.spawn(|| reindexing.end(None));
            });
            assert_eq!(begun.load(Ordering::Relaxed), 1);
        }
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
        let done = Arc::new(AtomicUsize::new(0));
        let ingest = |index| {
            let counted = Arc::clone(&done);
            IndexWork(of(7, index)).when_there_is_room(move || {
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
