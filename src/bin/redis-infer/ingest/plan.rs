//! What a round has to do: the difference between the files there are and the documents that are known.

use std::collections::{BTreeMap, HashSet};

use super::sender::{Event, Retry};
use super::walk::{Found, Selection, Stamp, Walk};

/// One command for the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Ingest a file. When it holds no text and `indexed`, its document is forgotten.
    Ingest { found: Found, indexed: bool },
    /// Forget the document under this path.
    Forget(String),
}

/// What this program knows about the documents of the index.
#[derive(Debug, Default)]
pub struct Known {
    /// By path the state of the file that was dealt with last, or `None` when it is to be dealt with again.
    documents: BTreeMap<String, Option<Stamp>>,
    /// Why the server refused the files that it will not take as they are, by path.
    pub refused: BTreeMap<String, String>,
}

impl Known {
    /// These are in the index.
    pub fn indexed(&mut self, paths: impl Iterator<Item = String>) {
        self.documents.extend(paths.map(|path| (path, None)));
    }

    /// Learns from what came of a task.
    pub fn learn(&mut self, event: &Event, walk: &Walk) {
        match event {
            Event::Done { stored, .. } | Event::Skipped { stored, .. } => {
                self.refused.remove(stored);
                self.documents.insert(stored.clone(), walk.stamp(stored));
            }
            Event::Forgotten { stored, .. } => {
                self.refused.remove(stored);
                // A file that is there and holds no text stays known, so that it is not looked at again and again.
                if walk.stamp(stored).is_none() {
                    self.documents.remove(stored);
                }
            }
            Event::Failed { stored, why, retry: Retry::WhenChanged, .. } => {
                self.refused.insert(stored.clone(), why.clone());
                self.documents.insert(stored.clone(), walk.stamp(stored));
            }
            Event::Failed { stored, .. } => {
                self.documents.entry(stored.clone()).and_modify(|stamp| *stamp = None);
            }
            Event::Ended(_) => {}
        }
    }
}

/// What brings the index from `known` to `walk`: new and changed files, then documents whose files are gone.
pub fn tasks(walk: &Walk, known: &Known, selection: &Selection) -> Vec<Task> {
    let there: HashSet<&str> = walk.files.iter().map(|found| found.stored.as_str()).collect();
    let changed = walk.files.iter().filter_map(|found| {
        let before = known.documents.get(&found.stored);
        let task = Task::Ingest { found: found.clone(), indexed: before.is_some() };
        (before != Some(&Some(found.stamp))).then_some(task)
    });
    let gone = known.documents.keys().filter(|path| !there.contains(path.as_str()) && selection.has_lost(path));
    changed.chain(gone.map(|path| Task::Forget(path.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ingest::reply::Counts;
    use crate::ingest::text::Skip;

    fn selection(folder: &tempfile::TempDir) -> Selection {
        Selection::new(&[folder.path().join("docs")], &[], &[]).unwrap()
    }

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("docs")).unwrap();
        for name in files {
            fs::write(folder.path().join("docs").join(name), "text").unwrap();
        }
        folder
    }

    /// The tasks as words.
    fn planned(selection: &Selection, known: &Known) -> Vec<String> {
        let word = |task| match task {
            Task::Ingest { found, indexed: false } => format!("ingest {}", found.stored),
            Task::Ingest { found, indexed: true } => format!("replace {}", found.stored),
            Task::Forget(path) => format!("forget {path}"),
        };
        tasks(&selection.walk().unwrap(), known, selection).into_iter().map(word).collect()
    }

    fn done(path: &str) -> Event {
        Event::Done { stored: path.into(), size: 4, counts: Counts::default() }
    }

    fn failed(path: &str, retry: Retry) -> Event {
        Event::Failed { stored: path.into(), size: 4, why: "why".into(), retry }
    }

    #[test]
    fn what_is_in_the_index_already_is_sent_once_because_it_may_have_changed() {
        let folder = folder(&["a", "b"]);
        let selection = selection(&folder);
        let mut known = Known::default();
        known.indexed(["docs/a".to_owned()].into_iter());
        assert_eq!(planned(&selection, &known), ["replace docs/a", "ingest docs/b"]);
        let walk = selection.walk().unwrap();
        known.learn(&done("docs/a"), &walk);
        known.learn(&done("docs/b"), &walk);
        assert_eq!(planned(&selection, &known), [""; 0]);
        fs::write(folder.path().join("docs/a"), "longer text").unwrap();
        assert_eq!(planned(&selection, &known), ["replace docs/a"]);
    }

    #[test]
    fn documents_are_forgotten_whose_files_are_gone_and_no_others() {
        let folder = folder(&["a", "kept.log"]);
        fs::write(folder.path().join("docs/.gitignore"), "*.log").unwrap();
        fs::create_dir(folder.path().join("docs/sub")).unwrap();
        let mut known = Known::default();
        let paths = ["docs/gone", "docs/sub/gone", "docs/a/gone", "docs/sub", "docs/kept.log"];
        let outside = ["docs", "docs2/x", "other/x", "x", "docs/../x", "docs//x", "/docs/x", "docs/./x"];
        known.indexed(paths.into_iter().chain(outside).map(str::to_owned));
        let expected =
            ["ingest docs/a", "forget docs/a/gone", "forget docs/gone", "forget docs/sub", "forget docs/sub/gone"];
        assert_eq!(planned(&selection(&folder), &known), expected);
    }

    #[test]
    fn what_failed_is_tried_again_but_not_what_is_refused_or_no_text() {
        let folder = folder(&["a", "b", "c"]);
        let selection = selection(&folder);
        let walk = selection.walk().unwrap();
        let mut known = Known::default();
        known.indexed(["docs/c".to_owned()].into_iter());
        known.learn(&failed("docs/a", Retry::NextRound), &walk);
        known.learn(&Event::Skipped { stored: "docs/b".into(), size: 4, why: Skip::Binary, finished: true }, &walk);
        known.learn(&Event::Skipped { stored: "docs/c".into(), size: 4, why: Skip::Empty, finished: false }, &walk);
        known.learn(&failed("docs/c", Retry::Soon), &walk);
        assert_eq!(planned(&selection, &known), ["ingest docs/a", "replace docs/c"]);
        known.learn(&Event::Skipped { stored: "docs/c".into(), size: 4, why: Skip::Empty, finished: false }, &walk);
        known.learn(&Event::Forgotten { stored: "docs/c".into(), chunks: 1 }, &walk);
        known.learn(&failed("docs/a", Retry::WhenChanged), &walk);
        assert_eq!((planned(&selection, &known).len(), known.refused.len()), (0, 1));
        fs::write(folder.path().join("docs/a"), "longer text").unwrap();
        assert_eq!(planned(&selection, &known), ["replace docs/a"]);
        known.learn(&done("docs/a"), &selection.walk().unwrap());
        assert_eq!((planned(&selection, &known).len(), known.refused.len()), (0, 0));
    }
}
