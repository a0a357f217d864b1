//! The files of a model, which must not change while llama.cpp reads them. With `MMAP` their pages are the weights: when
//! somebody writes into such a file, the weights change; when somebody cuts it off, the next access to a page behind its
//! end is a SIGBUS, which ends redis-server. So these files stay open, and before each step one `fstat` tells whether they
//! still are what was loaded. A change in the middle of a step is noticed too late.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a change of a file's content changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    file: File,
    stamp: Stamp,
}

/// The files of one model: none when its weights have been read into memory.
#[derive(Debug, Default)]
pub(super) struct Mapped(Vec<Watched>);

impl Mapped {
    /// Opens the files at `paths`, before llama.cpp does.
    pub(super) fn open(paths: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let watch = |path: PathBuf| {
            let file = File::open(&path)?;
            let stamp = Stamp::from(&file.metadata()?);
            Ok(Watched { path, file, stamp })
        };
        paths.into_iter().map(watch).collect::<io::Result<_>>().map(Self)
    }

    /// The first file whose content is no longer that which was opened. Another file under its name does not count.
    pub(super) fn changed(&self) -> Option<&Path> {
        let is_same =
            |watched: &&Watched| watched.file.metadata().is_ok_and(|metadata| Stamp::from(&metadata) == watched.stamp);
        self.0.iter().find(|watched| !is_same(watched)).map(|watched| watched.path.as_path())
    }

    /// As [`Mapped::changed`], after llama.cpp has opened the paths by itself: it may have found another file there.
    pub(super) fn replaced(&self) -> Option<&Path> {
        let is_same =
            |watched: &&Watched| watched.path.metadata().is_ok_and(|found| Stamp::from(&found) == watched.stamp);
        self.0.iter().find(|watched| !is_same(watched)).map(|watched| watched.path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn mapped() -> (tempfile::TempDir, PathBuf, Mapped) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        fs::write(&path, "weights").unwrap();
        let mapped = Mapped::open([path.clone()]).unwrap();
        (folder, path, mapped)
    }

    #[test]
    fn a_file_that_stays_or_is_renamed_over_or_removed_has_not_changed() {
        let (folder, path, mapped) = mapped();
        assert_eq!((mapped.changed(), mapped.replaced()), (None, None));
        let other = folder.path().join("b.gguf");
        fs::write(&other, "other weights").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!((mapped.changed(), mapped.replaced()), (None, Some(path.as_path())));
        fs::remove_file(&path).unwrap();
        assert_eq!((mapped.changed(), mapped.replaced()), (None, Some(path.as_path())));
    }

    #[test]
    fn a_file_that_is_cut_off_or_written_into_has_changed_until_it_is_as_before() {
        let (_folder, path, mapped) = mapped();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        for content in ["", "weight", "others!", "weights and more"] {
            fs::write(&path, content).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(before + std::time::Duration::from_secs(1)).unwrap();
            assert_eq!(mapped.changed(), Some(path.as_path()), "{content}");
        }
        fs::write(&path, "weights").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
        assert_eq!(mapped.changed(), None);
    }

    #[test]
    fn a_file_that_is_not_there_cannot_be_watched() {
        assert!(Mapped::open([PathBuf::from("/no/such.gguf")]).is_err());
    }
}
