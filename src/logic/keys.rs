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

/// What a key of a generation holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`DataKeys::vectors`].
    Vectors,
    /// [`DataKeys::stats`].
    Stats,
    /// [`DataKeys::paths`].
    Paths,
    /// [`DataKeys::document`].
    Document,
    /// [`DataKeys::tokens`].
    Tokens,
}

impl IndexKeys {
    /// What stands in the names of all keys of all generations.
    pub fn common_part(&self) -> Vec<u8> {
        format!(":{{{}}}", self.index).into_bytes()
    }

    /// What the key `name` holds, and of which generation, if it is one of this index.
    pub fn kind_of(&self, name: &[u8]) -> Option<(Kind, u32)> {
        let (kind, rest) = std::str::from_utf8(name).ok()?.split_once(':')?;
        let rest = rest.strip_prefix(&format!("{{{}}}", self.index))?;
        let (generation, rest) = match rest.strip_prefix('@') {
            None => (FIRST_GENERATION, rest),
            Some(rest) => {
                let digits = rest.find(':').unwrap_or(rest.len());
                let (number, rest) = rest.split_at_checked(digits)?;
                let generation = number.parse::<u32>().ok().filter(|generation| *generation > FIRST_GENERATION)?;
                // One way to write it only.
                (number == generation.to_string()).then_some((generation, rest))?
            }
        };
        let kind = match (kind, rest.is_empty(), rest.starts_with(':')) {
            ("vec", true, _) => Kind::Vectors,
            ("stats", true, _) => Kind::Stats,
            ("paths", true, _) => Kind::Paths,
            ("doc", _, true) => Kind::Document,
            ("tokens", _, true) => Kind::Tokens,
            _ => return None,
        };
        Some((kind, generation))
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

    #[test]
    fn a_key_tells_what_it_holds_and_of_which_generation() {
        let index = IndexKeys::new("docs");
        for generation in [1, 2, 12] {
            let keys = index.data(generation);
            for (key, kind) in [
                (keys.vectors(), Kind::Vectors),
                (keys.stats(), Kind::Stats),
                (keys.paths(), Kind::Paths),
                (keys.document("a@3:b"), Kind::Document),
                (keys.tokens("a:chunk_1"), Kind::Tokens),
            ] {
                assert_eq!(index.kind_of(&key), Some((kind, generation)));
                assert_eq!(IndexKeys::new("doc").kind_of(&key), None);
            }
        }
        for other in [
            "docs",
            "drop:{docs}",
            "vec:{docs}x",
            "vec:{docs}@1",
            "vec:{docs}@02",
            "vec:{docs}@",
            "vec:{docs}@x",
            "doc:{docs}",
            "tokens:{docs}@2",
            "answer:{docs}:1",
            "xdoc:{docs}:a",
            "paths:{docs}:a",
        ] {
            assert_eq!(index.kind_of(other.as_bytes()), None, "{other}");
        }
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
