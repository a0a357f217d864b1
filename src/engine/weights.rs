//! What tells the weights of a model from others of the same sizes, such as those of the same model trained further.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

/// Places of a file that are looked at, as far from each other as the file allows, and bytes there. Training changes nearly all
/// weights, so much fewer would do.
const PLACES: u64 = 256;
const BYTES: usize = 64;

/// A hash over samples of the files at `paths`: the same wherever copies of them lie, and whenever they were written.
pub(super) fn sample<'a>(paths: impl Iterator<Item = &'a Path>) -> io::Result<u64> {
    let mut hash = Xxh3::new();
    for path in paths {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        hash.update(&length.to_le_bytes());
        let step = (length / PLACES).max(BYTES as u64);
        for place in (0..length).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            let mut bytes = [0; BYTES];
            let count = file.read_at(&mut bytes, place)?;
            hash.update(bytes.get(..count).unwrap_or_default());
        }
    }
    Ok(hash.digest())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_copy_has_the_same_sample_and_a_file_with_other_weights_another() {
        let folder = tempfile::tempdir().unwrap();
        let sampled = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            sample([path.as_path()].into_iter()).unwrap()
        };
        let weights: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let first = sampled("a", &weights);
        assert_eq!(sampled("b", &weights), first);
        for changed in [0..1000, 50_000..51_000, 99_000..100_000] {
            let mut other = weights.clone();
            other[changed].fill(252);
            assert_ne!(sampled("c", &other), first);
        }
        assert_ne!(sampled("d", &weights[..99_999]), first);
        assert_eq!(sampled("e", &[]), sampled("f", &[]));
        assert!(sample([Path::new("/no/such.gguf")].into_iter()).is_err());
    }
}
