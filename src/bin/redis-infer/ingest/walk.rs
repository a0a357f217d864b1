//! Finds the files to ingest and the paths to store them under.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use ignore::overrides::{Override, OverrideBuilder};
use ignore::{DirEntry, WalkBuilder};

use super::text::Skip;

/// Bytes of a path, at most: the server takes none that is longer.
const LONGEST_PATH: usize = 1024;

/// By which a file is seen to have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: Option<SystemTime>,
    size: u64,
}

impl Stamp {
    fn of(metadata: Option<&Metadata>) -> Self {
        Self {
            modified: metadata.and_then(|data| data.modified().ok()),
            size: metadata.map(Metadata::len).unwrap_or(0),
        }
    }
}

/// A file to ingest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub file: PathBuf,
    /// The path it is stored under, with `/` between its parts.
    pub stored: String,
    /// Its state when it was found.
    pub stamp: Stamp,
}

impl Found {
    /// Its size in bytes when it was found.
    pub fn size(&self) -> u64 {
        self.stamp.size
    }
}

/// What a walk came upon.
#[derive(Debug, Default)]
pub struct Walk {
    /// Files to ingest, in order of their paths.
    pub files: Vec<Found>,
    /// Directories that were looked into.
    pub directories: Vec<PathBuf>,
    /// Entries left out, with their path for people and the reason.
    pub skipped: Vec<(String, Skip)>,
    /// What could not be read, with the reason.
    pub failed: Vec<(String, String)>,
    /// Where in `files` each stored path is.
    places: HashMap<String, usize>,
}

/// Which files to ingest.
#[derive(Debug)]
pub struct Selection {
    roots: Vec<Root>,
}

/// A directory or file to ingest.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    /// What its files are stored below; empty for the current directory.
    prefix: String,
    include: Override,
    exclude: Override,
}

impl Selection {
    /// Files below `roots` that match one of `include`, if there is any, and none of `exclude`.
    ///
    /// # Errors
    /// When a root does not exist, or a pattern cannot be read.
    pub fn new(roots: &[PathBuf], include: &[String], exclude: &[String]) -> Result<Self> {
        let excluded: Vec<String> = exclude.iter().map(|glob| format!("!{glob}")).collect();
        let root = |path: &PathBuf| {
            fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Root {
                prefix: prefix(path)?,
                include: patterns(path, "--include", include)?,
                exclude: patterns(path, "--exclude", &excluded)?,
                path: path.clone(),
            })
        };
        Ok(Self { roots: roots.iter().map(root).collect::<Result<_>>()? })
    }

    /// Walks the roots in the order given. Hidden entries and those named by .gitignore or .ignore files are left
    /// out, whether or not there is a git repository.
    ///
    /// # Errors
    /// When a root does not exist, or two files would be stored under one path.
    pub fn walk(&self) -> Result<Walk> {
        let mut walk = Walk::default();
        for root in &self.roots {
            fs::metadata(&root.path).with_context(|| format!("cannot read {}", root.path.display()))?;
            let mut builder = WalkBuilder::new(&root.path);
            builder.require_git(false).overrides(root.exclude.clone()).sort_by_file_path(Path::cmp);
            for entry in builder.build() {
                match entry {
                    Ok(entry) => walk.add(&entry, root)?,
                    Err(error) => walk.failed.push((root.path.display().to_string(), error.to_string())),
                }
            }
        }
        Ok(walk)
    }

    /// Whether a document under this path was one of a file below the roots that is there no more.
    pub fn has_lost(&self, stored: &str) -> bool {
        let files: Vec<PathBuf> = self.roots.iter().filter_map(|root| root.file_of(stored)).collect();
        !files.is_empty() && files.iter().all(|file| is_gone(file))
    }
}

impl Root {
    /// The file that is stored under this path, if it is one of this root.
    fn file_of(&self, stored: &str) -> Option<PathBuf> {
        let rest = match self.prefix.as_str() {
            "" => stored,
            prefix => stored.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        // Only paths as this program writes them.
        let plain = rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
        plain.then(|| self.path.join(rest))
    }
}

/// A file that cannot be looked at, for instance for want of rights, is not gone.
fn is_gone(file: &Path) -> bool {
    match fs::symlink_metadata(file) {
        Ok(metadata) => metadata.is_dir(),
        Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

fn patterns(root: &Path, option: &str, globs: &[String]) -> Result<Override> {
    let mut builder = OverrideBuilder::new(root);
    for glob in globs {
        builder.add(glob).with_context(|| format!("{option} is no pattern; write it as in .gitignore"))?;
    }
    builder.build().with_context(|| format!("{option} cannot be used"))
}

impl Walk {
    /// The state of the file stored under this path, if the walk came upon it.
    pub fn stamp(&self, stored: &str) -> Option<Stamp> {
        self.places.get(stored).and_then(|&at| self.files.get(at)).map(|found| found.stamp)
    }

    fn add(&mut self, entry: &DirEntry, root: &Root) -> Result<()> {
        let Some(kind) = entry.file_type() else {
            return Ok(()); // standard input, which is never walked
        };
        // A root that is a link counts as what it points to.
        let is_file = kind.is_file() || (entry.depth() == 0 && entry.path().is_file());
        if kind.is_dir() || (entry.depth() == 0 && !is_file) {
            self.directories.push(entry.path().to_owned());
            return Ok(());
        }
        // A root is taken whatever the patterns say.
        if entry.depth() > 0 && root.include.matched(entry.path(), false).is_ignore() {
            return Ok(());
        }
        let mut skip = |why| self.skipped.push((entry.path().display().to_string(), why));
        if !is_file {
            skip(Skip::NotRegular);
            return Ok(());
        }
        let inner = entry.path().strip_prefix(&root.path).unwrap_or(entry.path());
        let Some(stored) = joined(&root.prefix, inner) else {
            skip(Skip::PathNotUtf8);
            return Ok(());
        };
        if stored.len() > LONGEST_PATH {
            skip(Skip::PathTooLong);
            return Ok(());
        }
        if stored.contains(char::is_control) {
            skip(Skip::PathControl);
            return Ok(());
        }
        if self.places.insert(stored.clone(), self.files.len()).is_some() {
            bail!(
                "two files would be stored under the path {stored}; ingest the directories one by one into two \
                 indexes, or name a directory above both"
            );
        }
        let metadata = if entry.depth() == 0 { entry.path().metadata().ok() } else { entry.metadata().ok() };
        self.files.push(Found { file: entry.path().to_owned(), stored, stamp: Stamp::of(metadata.as_ref()) });
        Ok(())
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

    fn walk(roots: &[PathBuf]) -> Result<Walk> {
        Selection::new(roots, &[], &[])?.walk()
    }

    /// What these patterns leave of `p`.
    fn selected(folder: &tempfile::TempDir, include: &[&str], exclude: &[&str]) -> Vec<String> {
        let [include, exclude] =
            [include, exclude].map(|globs| globs.iter().map(|&g| g.to_owned()).collect::<Vec<_>>());
        let walk = Selection::new(&[folder.path().join("p")], &include, &exclude).unwrap().walk().unwrap();
        walk.files.into_iter().map(|found| found.stored).collect()
    }

    fn stored(walk: &Walk) -> Vec<&str> {
        walk.files.iter().map(|found| found.stored.as_str()).collect()
    }

    fn reasons(walk: &Walk) -> Vec<Skip> {
        walk.skipped.iter().map(|(_, why)| *why).collect()
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
        assert_eq!(walk.files[0].size(), 4);
    }

    #[test]
    fn patterns_choose_among_the_files_and_never_bring_back_ignored_ones() {
        let folder = tree(&["p/a.md", "p/b.rs", "p/sub/c.md", "p/sub/deep/d.md", "p/.hidden.md", "p/out/e.md"]);
        fs::write(folder.path().join("p/.gitignore"), "out/").unwrap();
        assert_eq!(selected(&folder, &["*.md"], &[]), ["p/a.md", "p/sub/c.md", "p/sub/deep/d.md"]);
        assert_eq!(selected(&folder, &[], &["deep", "*.rs"]), ["p/a.md", "p/sub/c.md"]);
        assert_eq!(selected(&folder, &["/sub/*.md", "*.rs"], &["/b.rs"]), ["p/sub/c.md"]);
    }

    #[test]
    fn a_pattern_that_is_none_is_refused() {
        let folder = tree(&["p/a.md"]);
        let error = Selection::new(&[folder.path().to_owned()], &["a[".into()], &[]).unwrap_err();
        assert!(error.to_string().contains("--include"), "{error}");
    }

    #[test]
    fn everything_lies_below_the_current_directory() {
        let selection = Selection::new(&[PathBuf::from(".")], &[], &[]).unwrap();
        assert!(selection.has_lost("no/such/file") && !selection.has_lost("../x"));
        assert!(!selection.has_lost("Cargo.toml"));
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
        assert_eq!(reasons(&walk), [Skip::NotRegular]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_that_is_not_utf8_is_counted() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tree(&["p/a.txt"]);
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
        fs::write(folder.path().join("p").join(name), "text").unwrap();
        let walk = walk(&[folder.path().join("p")]).unwrap();
        assert_eq!(reasons(&walk), [Skip::PathNotUtf8]);
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_the_server_would_refuse_is_counted() {
        let part = "p".repeat(200);
        let long = [&*part; 5].join("/");
        let fits = format!("p/{long}/{}", "x".repeat(1024 - 1007));
        let folder = tree(&["p/a.txt", "p/tab\tin a name", "p/line\nend", &fits, &format!("{fits}y")]);
        let walk = walk(&[folder.path().join("p")]).unwrap();
        assert_eq!(stored(&walk), ["p/a.txt", &fits]);
        assert_eq!(fits.len(), 1024);
        let mut why = reasons(&walk);
        why.sort();
        assert_eq!(why, [Skip::PathTooLong, Skip::PathControl, Skip::PathControl]);
    }
}
