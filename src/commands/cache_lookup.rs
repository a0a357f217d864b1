//! Looking into a cache: for the very prompt, by its hash and without a model, or for the nearest ones of its scope, by its vector.

use std::time::{Duration, Instant};

use super::cache_entry::{read_entry, read_settings};
use crate::engine::Metrics;
use crate::logic::cache::{CacheKeys, CacheSettings, Entry, entry_id, scope_filter};
use crate::logic::limits;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::reply::Failure;
use crate::redis_api::vset::{self, Effort, Wanted};

/// How a prompt was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Exact,
    Similar,
    Not,
}

impl How {
    /// The word in the reply.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Similar => "similar",
            Self::Not => "miss",
        }
    }

    /// Adds it to what INFO tells.
    pub(super) fn count(self, metrics: &Metrics) {
        match self {
            Self::Exact => metrics.cache_exact.increment(),
            Self::Similar => metrics.cache_similar.increment(),
            Self::Not => metrics.cache_misses.increment(),
        }
    }
}

/// What a prompt finds.
#[derive(Debug)]
pub(super) struct Finding {
    pub how: How,
    /// That of the very prompt, or the nearest one that is still there, even if it is not near enough.
    pub entry: Option<Entry>,
    pub score: Option<f64>,
    pub searched: Duration,
}

impl Finding {
    pub(super) fn exact(entry: Entry) -> Self {
        Self { how: How::Exact, entry: Some(entry), score: Some(limits::MINSCORE_MAX), searched: Duration::ZERO }
    }

    pub(super) fn nothing() -> Self {
        Self { how: How::Not, entry: None, score: None, searched: Duration::ZERO }
    }
}

/// The settings of a cache, if there is one, and the entry of the very prompt in this scope.
///
/// All that [`similar`] may need is asked for here, so that what a user is refused does not depend on what is stored.
pub(super) fn exact(
    keyspace: &Keyspace<'_>,
    keys: &CacheKeys,
    scope: &[u8],
    prompt: &str,
) -> Result<(Option<CacheSettings>, Option<Entry>), Failure> {
    vset::check_searching(keyspace, &keys.vectors())?;
    let entry = read_entry(keyspace, keys, entry_id(scope, prompt).as_bytes())?;
    let settings = read_settings(keyspace, keys)?;
    // Without settings the cache is being removed, whatever is left of it.
    let is_asked =
        |entry: &Entry| entry.is_of(scope, prompt) && settings.as_ref().is_some_and(|settings| entry.is_in(settings));
    let entry = entry.filter(is_asked);
    Ok((settings, entry))
}

/// The entry whose prompt in this scope is nearest to `vector`, which was made for a cache with these settings.
pub(super) fn similar(
    keyspace: &Keyspace<'_>,
    keys: &CacheKeys,
    settings: &CacheSettings,
    scope: &[u8],
    vector: &[f32],
    threshold: f64,
) -> Result<Finding, Failure> {
    // Removed meanwhile, and perhaps made anew with another model.
    let settings = read_settings(keyspace, keys)?.filter(|now| now.has_vectors_of(settings));
    let Some(settings) = settings else { return Ok(Finding::nothing()) };
    let (filter, count) = (scope_filter(scope), limits::CACHE_CANDIDATES);
    let wanted = Wanted { vector, count, ef: None, filter: Some(&filter), effort: Effort::Near };
    let since = Instant::now();
    // It gives up wherever the scope has fewer entries than that; what is as near as a threshold asks is found before.
    let hits = vset::similar(keyspace, &keys.vectors(), &wanted)?.hits;
    let searched = since.elapsed();
    for hit in hits {
        // Others may have put elements into the set, and other scopes may have the same hash.
        let entry =
            read_entry(keyspace, keys, &hit.element)?.filter(|entry| entry.scope == scope && entry.is_in(&settings));
        if entry.is_some() {
            let how = if hit.score >= threshold { How::Similar } else { How::Not };
            return Ok(Finding { how, entry, score: Some(hit.score), searched });
        }
    }
    Ok(Finding { searched, ..Finding::nothing() })
}
