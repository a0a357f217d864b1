//! Which files may be loaded: with `infer.model-dir` only those inside one folder.

use std::path::{Path, PathBuf};

use super::error::EngineError;

/// What is said of every path that leads elsewhere.
pub(super) const ELSEWHERE: &str =
    "there is no file at this path inside infer.model-dir; CONFIG GET infer.model-dir tells the folder";

/// The file that `path` means. With a `folder`, whose own path has no symbolic links, a relative path begins there, and
/// the file must be inside it after all symbolic links are followed. The error is the same for every path that leads
/// elsewhere, so that nobody learns what is there.
///
/// # Errors
/// `LOADFAIL` when the path leads out of the folder or to no file.
pub(super) fn resolve(path: &Path, folder: Option<&Path>) -> Result<PathBuf, EngineError> {
    let Some(folder) = folder else {
        return Ok(path.to_owned());
    };
    let resolved = folder.join(path).canonicalize().ok();
    resolved
        .filter(|found| found.starts_with(folder) && found.is_file())
        .ok_or_else(|| EngineError::LoadFailed(format!("{ELSEWHERE} ({})", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn without_a_folder_every_path_stays_as_it_is() {
        assert_eq!(resolve(Path::new("../x"), None), Ok(PathBuf::from("../x")));
    }

    #[test]
    fn only_files_inside_the_folder_are_found_and_nothing_is_told_of_others() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().canonicalize().unwrap().join("models");
        let (inside, secret) = (folder.join("a.gguf"), folder.with_file_name("secret"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&inside, "").unwrap();
        std::fs::write(&secret, "").unwrap();
        symlink(&inside, folder.join("link.gguf")).unwrap();
        symlink(&secret, folder.join("out.gguf")).unwrap();
        std::fs::create_dir(folder.with_file_name("models-of-others")).unwrap();
        std::fs::write(folder.with_file_name("models-of-others").join("a"), "").unwrap();

        for good in ["a.gguf", "./a.gguf", "link.gguf", "../models/a.gguf", inside.to_str().unwrap()] {
            assert_eq!(resolve(Path::new(good), Some(&folder)), Ok(inside.clone()), "{good}");
        }
        let secret = secret.to_str().unwrap();
        for bad in ["", ".", "..", "no.gguf", "out.gguf", "../secret", "../no", secret, "../models-of-others/a", "/etc"]
        {
            let error = resolve(Path::new(bad), Some(&folder)).unwrap_err().to_string();
            assert_eq!(
                error.replace(&format!("({bad})"), "()"),
                "there is no file at this path inside infer.model-dir; \
                CONFIG GET infer.model-dir tells the folder ()"
            );
        }
    }
}
