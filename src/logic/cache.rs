//! The semantic cache: names of its keys and entries, and what is found in them.
//!
//! An entry is found by a hash of its scope and prompt, but a hash proves nothing: whoever reads an entry compares both with
//! what was asked, see [`Entry::is_of`].

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::args::check_name;
use super::limits;

/// The keys of one cache, in one cluster slot. See `args::check_name` for what a name may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheKeys {
    cache: String,
    settings: String,
}

impl CacheKeys {
    /// The keys of `cache`.
    pub fn new(cache: &str) -> Self {
        Self { cache: cache.to_owned(), settings: cache.to_owned() }
    }

    /// The keys of the cache of an index, whose own settings have the name of the index.
    pub fn of_index(index: &str) -> Self {
        Self { cache: index.to_owned(), settings: format!("cache-settings:{{{index}}}") }
    }

    /// The hash of the settings: the name of the cache, or `cache-settings:{docs}` of the index `docs`.
    pub fn settings(&self) -> &[u8] {
        self.settings.as_bytes()
    }

    /// The vector set of the prompts, `cache:{faq}`. An element is the id of an entry.
    pub fn vectors(&self) -> Vec<u8> {
        self.key("cache", "")
    }

    /// The vector set that is going to replace it, `cache:{faq}@new`.
    pub fn new_vectors(&self) -> Vec<u8> {
        self.key("cache", "@new")
    }

    /// The sorted set of the ids of all entries, `answers:{faq}`, by the time in milliseconds at which they expire.
    pub fn ids(&self) -> Vec<u8> {
        self.key("answers", "")
    }

    /// The ids of entries that are being removed, `drop-answers:{faq}`.
    pub fn dropped_ids(&self) -> Vec<u8> {
        self.key("drop-answers", "")
    }

    /// The hash of an entry, `answer:{faq}:ID`.
    pub fn answer(&self, id: &[u8]) -> Vec<u8> {
        [self.key("answer", ":").as_slice(), id].concat()
    }

    fn key(&self, kind: &str, rest: &str) -> Vec<u8> {
        format!("{kind}:{{{}}}{rest}", self.cache).into_bytes()
    }
}

/// Hexadecimal digits of the hash of a scope.
fn scope_hash(scope: &[u8]) -> String {
    format!("{:016x}", xxh3_64(scope))
}

/// The id of the entry of a prompt in a scope: a hash of the scope, so that the entries of a scope are found by their
/// ids, and one of both.
pub fn entry_id(scope: &[u8], prompt: &str) -> String {
    let mut hash = Xxh3::new();
    // With its length in front, no end of a scope passes for the beginning of a prompt.
    hash.update(&(scope.len() as u64).to_le_bytes());
    hash.update(scope);
    hash.update(prompt.as_bytes());
    format!("{}-{:032x}", scope_hash(scope), hash.digest128())
}

/// Whether this can be the name of an element that a cache has made.
pub fn is_entry_id(element: &[u8]) -> bool {
    let is_hash = |hash: &[u8], digits| hash.len() == digits && hash.iter().all(u8::is_ascii_hexdigit);
    matches!(element.split_at_checked(16), Some((scope, [b'-', both @ ..])) if is_hash(scope, 16) && is_hash(both, 32))
}

/// A glob pattern of the ids of all entries of a scope, and of next to no others.
pub fn ids_of_scope(scope: &[u8]) -> String {
    format!("{}-*", scope_hash(scope))
}

/// The attributes of an element, as JSON: what [`scope_filter`] looks at.
pub fn scope_attributes(scope: &[u8]) -> String {
    format!(r#"{{"scope":"{}"}}"#, scope_hash(scope))
}

/// The `FILTER` that all elements of a scope meet, and next to no others. Nothing of the scope itself stands in it, so
/// there is nothing to escape.
pub fn scope_filter(scope: &[u8]) -> String {
    format!(r#".scope == "{}""#, scope_hash(scope))
}

/// An entry, the fields of its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was asked.
    pub prompt: Vec<u8>,
    /// For whom, or in which circumstances.
    pub scope: Vec<u8>,
    /// What was answered.
    pub answer: Vec<u8>,
    /// That of the cache when it was written.
    pub epoch: Vec<u8>,
}

impl Entry {
    /// Fields of the hash, in the order of [`Entry`].
    pub const FIELDS: [&str; 4] = ["prompt", "scope", "answer", "epoch"];
    /// Field with the time at which it was written, in seconds since 1970.
    pub const CREATED: &str = "created";

    /// Whether it is the entry of this prompt in this scope.
    pub fn is_of(&self, scope: &[u8], prompt: &str) -> bool {
        self.scope == scope && self.prompt == prompt.as_bytes()
    }

    /// Whether it is one of the cache with these settings, and not of an earlier one of that name which was removed,
    /// evicted or deleted by hand.
    pub fn is_in(&self, settings: &CacheSettings) -> bool {
        self.epoch == settings.epoch.as_bytes()
    }
}

/// The settings of a cache, the fields of its hash. The first entry fixes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// Name of the model that makes the vectors.
    pub embed_model: String,
    /// Fingerprint of that model as it was loaded.
    pub embedder: String,
    /// Values of a vector.
    pub dim: u32,
    /// Another one for each cache, also for those of one name after each other.
    pub epoch: String,
}

/// The field, with this value, that tells the settings of a cache from those of an index.
const TYPE: (&str, &str) = ("type", "cache");
const EMBED_MODEL: &str = "embed_model";
const EMBEDDER: &str = "embedder";
const DIM: &str = "dim";
const EPOCH: &str = "epoch";

impl CacheSettings {
    /// Fields of the hash.
    pub const FIELDS: [&str; 5] = [TYPE.0, EMBED_MODEL, EMBEDDER, DIM, EPOCH];

    /// The fields and values of the hash.
    pub fn to_fields(&self) -> [(&'static str, String); 5] {
        [
            (TYPE.0, TYPE.1.to_owned()),
            (EMBED_MODEL, self.embed_model.clone()),
            (EMBEDDER, self.embedder.clone()),
            (DIM, self.dim.to_string()),
            (EPOCH, self.epoch.clone()),
        ]
    }

    /// The settings in a hash; `None` if they are not those of a cache.
    pub fn from_fields(fields: &[(Vec<u8>, Vec<u8>)]) -> Option<Self> {
        let text = |wanted: &str| {
            let (_, value) = fields.iter().find(|(name, _)| name == wanted.as_bytes())?;
            std::str::from_utf8(value).ok()
        };
        let is_name = |name: &&str| check_name(EMBED_MODEL, name).is_ok();
        let is_dim = |dim: &u32| (limits::DIM_MIN..=limits::DIM_MAX).contains(dim);
        text(TYPE.0).filter(|value| *value == TYPE.1)?;
        Some(Self {
            embed_model: text(EMBED_MODEL).filter(is_name)?.to_owned(),
            embedder: text(EMBEDDER)?.to_owned(),
            dim: text(DIM)?.parse().ok().filter(is_dim)?,
            epoch: text(EPOCH)?.to_owned(),
        })
    }

    /// Whether the vectors of both can be compared.
    pub fn has_vectors_of(&self, other: &Self) -> bool {
        (&self.embedder, self.dim) == (&other.embedder, other.dim)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_key_has_the_name_of_the_cache_as_hash_tag() {
        let keys = CacheKeys::new("faq");
        assert_eq!(keys.settings(), b"faq");
        assert_eq!(keys.vectors(), b"cache:{faq}");
        assert_eq!(keys.new_vectors(), b"cache:{faq}@new");
        assert_eq!(keys.ids(), b"answers:{faq}");
        assert_eq!(keys.dropped_ids(), b"drop-answers:{faq}");
        assert_eq!(keys.answer(b"1-2"), b"answer:{faq}:1-2");
        let of_index = CacheKeys::of_index("faq");
        assert_eq!(of_index.settings(), b"cache-settings:{faq}");
        assert_eq!(of_index.answer(b"1-2"), keys.answer(b"1-2"));
    }

    #[test]
    fn an_id_tells_the_scope_and_nothing_of_a_scope_stands_in_a_filter() {
        let id = entry_id(b"a", "prompt");
        assert!(is_entry_id(id.as_bytes()));
        for other in ["", "a", &id[1..], &id[..48], &format!("{id}0"), &id.replace('-', "0"), &format!("x{}", &id[1..])]
        {
            assert!(!is_entry_id(other.as_bytes()), "{other}");
        }
        assert!(id.starts_with(ids_of_scope(b"a").trim_end_matches('*')));
        assert_ne!(id, entry_id(b"a", "Prompt"));
        assert_ne!(id, entry_id(b"", "aprompt"));
        for scope in [&b"\" or 1 or \""[..], b"\\", b"\0", b"\xff", b"*"] {
            let hex = scope_hash(scope);
            assert!(hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
            assert_eq!(scope_filter(scope), format!(".scope == \"{hex}\""));
            assert_eq!(scope_attributes(scope), format!("{{\"scope\":\"{hex}\"}}"));
        }
    }

    #[test]
    fn an_entry_is_that_of_the_very_prompt_and_scope() {
        let [prompt, scope, answer, epoch] = ["p", "s", "a", "7"].map(|text| text.as_bytes().to_vec());
        let entry = Entry { prompt, scope, answer, epoch };
        assert!(entry.is_of(b"s", "p"));
        assert!(!entry.is_of(b"s", "p ") && !entry.is_of(b"", "p") && !entry.is_of(b"p", "s"));
        assert!(entry.is_in(&settings()) && !entry.is_in(&CacheSettings { epoch: "8".into(), ..settings() }));
    }

    fn settings() -> CacheSettings {
        CacheSettings { embed_model: "minilm".into(), embedder: "def456".into(), dim: 384, epoch: "7".into() }
    }

    /// The fields of [`settings`] with one replaced.
    fn changed(field: &str, value: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let fields = settings().to_fields();
        let change = |(name, old): &(&str, String)| if *name == field { value.to_owned() } else { old.clone() };
        fields.iter().map(|pair| (pair.0.into(), change(pair).into_bytes())).collect()
    }

    #[test]
    fn the_fields_that_are_read_are_those_that_are_written() {
        assert_eq!(settings().to_fields().map(|(name, _)| name), CacheSettings::FIELDS);
    }

    #[test]
    fn settings_are_read_back_and_those_of_something_else_are_not() {
        assert_eq!(CacheSettings::from_fields(&changed("", "")), Some(settings()));
        for (field, value) in [
            ("type", "index"),
            ("embed_model", ""),
            ("embed_model", "a\nb"),
            ("dim", "0"),
            ("dim", "65537"),
            ("dim", "x"),
        ] {
            assert_eq!(CacheSettings::from_fields(&changed(field, value)), None, "{field} {value:?}");
        }
        for (missing, _) in settings().to_fields() {
            let mut fields = changed("", "");
            fields.retain(|(name, _)| name != missing.as_bytes());
            assert_eq!(CacheSettings::from_fields(&fields), None, "{missing}");
        }
    }

    #[test]
    fn vectors_go_by_fingerprint_and_dimension_not_by_the_name_of_the_model() {
        let other = |change: fn(&mut CacheSettings)| {
            let mut other = settings();
            change(&mut other);
            settings().has_vectors_of(&other)
        };
        assert!(other(|settings| settings.embed_model = "m2".into()));
        assert!(!other(|settings| settings.embedder = "x".into()));
        assert!(!other(|settings| settings.dim = 383));
    }

    proptest! {
        #[test]
        fn other_scopes_and_prompts_have_other_ids(one in any::<(Vec<u8>, String)>(), other in any::<(Vec<u8>, String)>()) {
            prop_assert_eq!(entry_id(&one.0, &one.1) == entry_id(&other.0, &other.1), one == other);
        }
    }
}
