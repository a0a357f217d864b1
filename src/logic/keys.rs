//! Names of the keys of an index, of its chunks, and of the elements of its vector set.
//!
//! The name of the index is the hash tag of all its keys, so that a cluster keeps them in one slot: `docs` itself
//! hashes as `{docs}` does. What a re-index writes has a generation in the names of its keys, so that it lies beside what
//! it is going to replace; the first generation has none.

use super::version::Version;

/// Between the path and the number of a chunk in an element.
const CHUNK: &str = ":chunk_";

/// The first generation of an index.
pub const FIRST_GENERATION: u32 = 1;

/// The keys of one index. See `args::check_name` for what a name may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexKeys {
    index: String,
}

/// The keys of one generation of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKeys {
    /// `{docs}` or `{docs}@2`.
    of: String,
}

impl IndexKeys {
    /// The keys of `index`.
    pub fn new(index: &str) -> Self {
        Self { index: index.to_owned() }
    }

    /// The name of the index.
    pub fn name(&self) -> &str {
        &self.index
    }

    /// The hash of the settings: the name of the index.
    pub fn settings(&self) -> &[u8] {
        self.index.as_bytes()
    }

    /// The settings of an index that is being dropped, `drop:{docs}`.
    pub fn dropped(&self) -> Vec<u8> {
        format!("drop:{{{}}}", self.index).into_bytes()
    }

    /// The keys of a generation; settings say which one is in use.
    pub fn data(&self, generation: u32) -> DataKeys {
        let of = if generation == FIRST_GENERATION {
            format!("{{{}}}", self.index)
        } else {
            format!("{{{}}}@{generation}", self.index)
        };
        DataKeys { of }
    }
}

impl DataKeys {
    /// The vector set, `vec:{docs}`.
    pub fn vectors(&self) -> Vec<u8> {
        format!("vec:{}", self.of).into_bytes()
    }

    /// The hash of the counters, `stats:{docs}`.
    pub fn stats(&self) -> Vec<u8> {
        format!("stats:{}", self.of).into_bytes()
    }

    /// The set of the paths of all documents, `paths:{docs}`.
    pub fn paths(&self) -> Vec<u8> {
        format!("paths:{}", self.of).into_bytes()
    }

    /// The hash of a document, `doc:{docs}:PATH`.
    pub fn document(&self, path: &str) -> Vec<u8> {
        format!("doc:{}:{path}", self.of).into_bytes()
    }

    /// The tokens of a chunk, `tokens:{docs}:ID`; see [`chunk_id`].
    pub fn tokens(&self, id: &str) -> Vec<u8> {
        format!("tokens:{}:{id}", self.of).into_bytes()
    }
}

/// The id of a chunk, `PATH:chunk_N`; `chunk` counts from 0.
pub fn chunk_id(path: &str, chunk: u32) -> String {
    format!("{path}{CHUNK}{chunk}")
}

/// The element of one version of a chunk in the vector set, `PATH:chunk_N@VERSION`.
pub fn element(path: &str, chunk: u32, version: Version) -> String {
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
        assert_eq!(keys.dropped(), b"drop:{docs}");
        let keys = keys.data(1);
        assert_eq!(keys.vectors(), b"vec:{docs}");
        assert_eq!(keys.stats(), b"stats:{docs}");
        assert_eq!(keys.paths(), b"paths:{docs}");
        assert_eq!(keys.document("a/b.md"), b"doc:{docs}:a/b.md");
        assert_eq!(keys.tokens(&chunk_id("a/b.md", 7)), b"tokens:{docs}:a/b.md:chunk_7");
    }

    #[test]
    fn later_generations_lie_beside_the_first() {
        let keys = IndexKeys::new("docs").data(12);
        assert_eq!(keys.vectors(), b"vec:{docs}@12");
        assert_eq!(keys.document("a"), b"doc:{docs}@12:a");
        assert_eq!(keys.tokens("a:chunk_0"), b"tokens:{docs}@12:a:chunk_0");
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
