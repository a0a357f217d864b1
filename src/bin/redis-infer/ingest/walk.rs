//! Finds the files to ingest and the paths to store them under.

use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use ignore::{DirEntry, WalkBuilder};

use super::text::Skip;

/// A file to ingest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub file: PathBuf,
    /// The path it is stored under, with `/` between its parts.
    pub stored: String,
    /// Its size in bytes when it was found.
    pub size: u64,
}

/// What a walk came upon.
#[derive(Debug, Default)]
pub struct Walk {
    /// Files to ingest, in order of their paths.
    pub files: Vec<Found>,
    /// Entries left out, with the reason.
    pub skipped: Vec<Skip>,
    /// What could not be read, with the reason.
    pub failed: Vec<(String, String)>,
}

/// Walks `roots` in the order given. Hidden entries and those named by .gitignore or .ignore files are left
/// out, whether or not there is a git repository.
///
/// # Errors
/// When a root does not exist, or two files would be stored under one path.
pub fn walk(roots: &[PathBuf]) -> Result<Walk> {
    let mut walk = Walk::default();
    for root in roots {
        fs::metadata(root).with_context(|| format!("cannot read {}", root.display()))?;
        let prefix = prefix(root)?;
        let entries = WalkBuilder::new(root).require_git(false).sort_by_file_path(Path::cmp).build();
        for entry in entries {
            match entry {
                Ok(entry) => walk.add(&entry, root, &prefix),
                Err(error) => walk.failed.push((root.display().to_string(), error.to_string())),
            }
        }
    }
    let mut stored = HashSet::new();
    if let Some(twice) = walk.files.iter().find(|found| !stored.insert(&found.stored)) {
        bail!(
            "two files would be stored under the path {}; ingest the directories one by one into two indexes, \
             or name a directory above both",
            twice.stored
        );
    }
    Ok(walk)
}

impl Walk {
    fn add(&mut self, entry: &DirEntry, root: &Path, prefix: &str) {
        let Some(kind) = entry.file_type() else {
            return; // standard input, which is never walked
        };
        // A root that is a link counts as what it points to.
        let is_file = kind.is_file() || (entry.depth() == 0 && entry.path().is_file());
        if kind.is_dir() || (entry.depth() == 0 && !is_file) {
            return;
        }
        if !is_file {
            self.skipped.push(Skip::NotRegular);
            return;
        }
        let inner = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let Some(stored) = joined(prefix, inner) else {
            self.skipped.push(Skip::PathNotUtf8);
            return;
        };
        self.files.push(Found {
            file: entry.path().to_owned(),
            stored,
            size: entry.metadata().map(|data| data.len()).unwrap_or(0),
        });
    }
}

/// What stands before the paths of a root's files: the root as it was given, so that `ingest src` stores
/// `src/lib.rs` and two roots do not collide. The current directory has no name; an absolute root or one with
/// `..` in it is known by its last name.
fn prefix(root: &Path) -> Result<String> {
    let mut names = Vec::new();
    let mut relative = true;
    for component in root.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => relative = false,
        }
    }
    let resolved;
    let path: PathBuf = if relative {
        names.iter().collect()
    } else {
        resolved = fs::canonicalize(root).with_context(|| format!("cannot read {}", root.display()))?;
        resolved.file_name().map(PathBuf::from).unwrap_or_default()
    };
    joined("", &path).with_context(|| format!("{} is not UTF-8", root.display()))
}

/// `prefix` and the names of `path` with `/` between them; `None` when a name is not UTF-8.
fn joined(prefix: &str, path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    if !prefix.is_empty() {
        parts.push(prefix);
    }
    for component in path.components() {
        parts.push(component.as_os_str().to_str()?);
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "text").unwrap();
        }
        folder
    }

    fn stored(walk: &Walk) -> Vec<&str> {
        walk.files.iter().map(|found| found.stored.as_str()).collect()
    }

    #[test]
    fn a_root_is_stored_under_its_name_as_given() {
        assert_eq!(prefix(Path::new("src")).unwrap(), "src");
        assert_eq!(prefix(Path::new("./a//src/")).unwrap(), "a/src");
        assert_eq!(prefix(Path::new(".")).unwrap(), "");
        let folder = tree(&["docs/x.txt"]);
        assert_eq!(prefix(&folder.path().join("docs")).unwrap(), "docs");
        assert_eq!(prefix(&folder.path().join("docs/../docs")).unwrap(), "docs");
    }

    #[test]
    fn hidden_and_ignored_files_are_left_out_without_a_git_repository() {
        let folder = tree(&["p/a.txt", "p/.hidden", "p/.dir/b.txt", "p/build/c.txt", "p/sub/d.txt", "p/sub/e.log"]);
        fs::write(folder.path().join("p/.gitignore"), "build/\n").unwrap();
        fs::write(folder.path().join("p/sub/.gitignore"), "*.log\n").unwrap();
        let walk = walk(&[folder.path().join("p")]).unwrap();
        assert_eq!(stored(&walk), ["p/a.txt", "p/sub/d.txt"]);
        assert_eq!(walk.files[0].size, 4);
    }

    #[test]
    fn a_single_file_is_stored_under_its_name() {
        let folder = tree(&["p/a.txt"]);
        let walk = walk(&[folder.path().join("p/a.txt")]).unwrap();
        assert_eq!(stored(&walk), ["a.txt"]);
    }

    #[test]
    fn two_files_under_one_path_and_a_missing_root_are_refused() {
        let folder = tree(&["x/src/a.txt", "y/src/a.txt"]);
        let roots = ["x/src", "y/src"].map(|name| folder.path().join(name));
        assert!(walk(&roots).unwrap_err().to_string().contains("src/a.txt"));
        assert!(walk(&[folder.path().join("no")]).unwrap_err().to_string().contains("cannot read"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_counted_and_not_followed() {
        let folder = tree(&["p/a.txt"]);
        std::os::unix::fs::symlink(folder.path().join("p/a.txt"), folder.path().join("p/link")).unwrap();
        let walk = walk(&[folder.path().join("p")]).unwrap();
        assert_eq!(stored(&walk), ["p/a.txt"]);
        assert_eq!(walk.skipped, [Skip::NotRegular]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_that_is_not_utf8_is_counted() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tree(&["p/a.txt"]);
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
        fs::write(folder.path().join("p").join(name), "text").unwrap();
        let walk = walk(&[folder.path().join("p")]).unwrap();
        assert_eq!(walk.skipped, [Skip::PathNotUtf8]);
    }
}
