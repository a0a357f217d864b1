//! Names of the keys of an index, of its chunks, and of the elements of its vector set.
//!
//! The name of the index is the hash tag of all its keys, so that a cluster keeps them in one slot: `docs` itself
//! hashes as `{docs}` does.

/// Between the path and the number of a chunk in an element.
const CHUNK: &str = ":chunk_";

/// The keys of one index. See `args::check_name` for what a name may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexKeys {
    index: String,
}

impl IndexKeys {
    /// The keys of `index`.
    pub fn new(index: &str) -> Self {
        Self { index: index.to_owned() }
    }

    /// The hash of the settings: the name of the index.
    pub fn settings(&self) -> &[u8] {
        self.index.as_bytes()
    }

    /// The vector set, `vec:{docs}`.
    pub fn vectors(&self) -> Vec<u8> {
        format!("vec:{{{}}}", self.index).into_bytes()
    }

    /// The hash of a document, `doc:{docs}:PATH`.
    pub fn document(&self, path: &str) -> Vec<u8> {
        format!("doc:{{{}}}:{path}", self.index).into_bytes()
    }

    /// The tokens of a chunk, `tokens:{docs}:ID`; see [`chunk_id`].
    pub fn tokens(&self, id: &str) -> Vec<u8> {
        format!("tokens:{{{}}}:{id}", self.index).into_bytes()
    }
}

/// The id of a chunk, `PATH:chunk_N`; `chunk` counts from 0.
pub fn chunk_id(path: &str, chunk: u32) -> String {
    format!("{path}{CHUNK}{chunk}")
}

/// The element of one version of a chunk in the vector set, `PATH:chunk_N@VERSION`.
pub fn element(path: &str, chunk: u32, version: &str) -> String {
    format!("{path}{CHUNK}{chunk}@{version}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_key_has_the_name_of_the_index_as_hash_tag() {
        let keys = IndexKeys::new("docs");
        assert_eq!(keys.settings(), b"docs");
        assert_eq!(keys.vectors(), b"vec:{docs}");
        assert_eq!(keys.document("a/b.md"), b"doc:{docs}:a/b.md");
        assert_eq!(keys.tokens(&chunk_id("a/b.md", 7)), b"tokens:{docs}:a/b.md:chunk_7");
    }

    proptest! {
        #[test]
        fn chunks_of_different_paths_never_share_an_id(
            one in "a?b?(:chunk_[0-9]{1,2}){0,2}", other in "a?b?(:chunk_[0-9]{1,2}){0,2}", chunks in any::<(u8, u8)>()
        ) {
            let (first, second) = (chunk_id(&one, chunks.0.into()), chunk_id(&other, chunks.1.into()));
            prop_assert_eq!(first == second, one == other && chunks.0 == chunks.1);
        }
    }
}
