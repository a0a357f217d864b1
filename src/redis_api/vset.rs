//! Vector sets (Redis 8): the few commands that an index needs, with their traps closed.
//!
//! * `VSIM` always gets `NOTHREAD`: called from a module without it, it blocks, and Redis aborts.
//! * `VADD` never gets `CAS` (same abort), and an element that exists is removed and added again: Redis does
//!   not send the change of an existing element to the AOF and the replicas.

use std::sync::atomic::{AtomicBool, Ordering};

use redis_module::Context;

use super::call::call;
use super::keyspace::{Keyspace, Reply};
use super::reply::Failure;
use crate::logic::vector::to_fp32;

static AVAILABLE: AtomicBool = AtomicBool::new(false);

/// Set once the server has turned out to be one whose VSIM has no WITHATTRIBS (Redis 8.0).
static NO_WITHATTRIBS: AtomicBool = AtomicBool::new(false);

/// One element found by [`similar`].
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Name of the element.
    pub element: Vec<u8>,
    /// Similarity from 0 (opposite) to 1 (same direction).
    pub score: f64,
    /// Attributes as JSON text, if it has any.
    pub attributes: Option<Vec<u8>>,
}

/// A new or changed element for [`add`].
#[derive(Debug, Clone, Copy)]
pub struct Element<'a> {
    /// Key of the vector set.
    pub key: &'a [u8],
    /// Name of the element.
    pub element: &'a [u8],
    /// Its vector; every number must be finite.
    pub vector: &'a [f32],
    /// `NOQUANT`, `Q8` or `BIN`; must be the same for all elements of a set.
    pub quant: &'static str,
    /// Attributes as JSON text.
    pub attributes: &'a str,
}

/// Whether this server has vector sets. A yes is remembered.
pub fn available(ctx: &Context) -> bool {
    if AVAILABLE.load(Ordering::Relaxed) {
        return true;
    }
    // Asked as the server, not as the caller, who may not be allowed to run COMMAND.
    let known = call(ctx, "COMMAND", c"vE3", &[b"INFO", b"VSIM"]);
    let yes = matches!(known, Ok(Some(Reply::Array(commands)))
        if commands.first().is_some_and(|command| matches!(command, Reply::Array(_))));
    if yes {
        AVAILABLE.store(true, Ordering::Relaxed);
    }
    yes
}

/// Refuses to go on without vector sets.
///
/// # Errors
/// `NOVECTORSETS`.
pub fn require(ctx: &Context) -> Result<(), Failure> {
    if available(ctx) {
        return Ok(());
    }
    Err(Failure::new("NOVECTORSETS", "this server has no vector sets; run the module in Redis 8.0 or newer"))
}

/// The `k` elements of the set at `key` that are most similar to `query`, best first. No key, no hits.
///
/// # Errors
/// `MISMATCH` if the set holds vectors of another dimension, `WRONGTYPE`, `NOPERM`, or what Redis says.
pub fn similar(keyspace: &Keyspace<'_>, key: &[u8], query: &[f32], k: u32) -> Result<Vec<Hit>, Failure> {
    check_finite(query)?;
    if k == 0 {
        return Ok(Vec::new());
    }
    let blob = to_fp32(query);
    let count = k.to_string();
    let with_attributes: [&[u8]; 8] =
        [key, b"FP32", &blob, b"COUNT", count.as_bytes(), b"NOTHREAD", b"WITHSCORES", b"WITHATTRIBS"];
    if !NO_WITHATTRIBS.load(Ordering::Relaxed) {
        match keyspace.read("VSIM", &with_attributes) {
            Err(failure) if failure.code == "ERR" && !is_dimension_error(&failure) => {}
            reply => return hits(reply.map_err(dimension_mismatch)?),
        }
    }
    let (_, without_attributes) = with_attributes.split_last().unwrap_or((&key, &[]));
    let mut found = hits(keyspace.read("VSIM", without_attributes).map_err(dimension_mismatch)?)?;
    for hit in &mut found {
        hit.attributes = attributes(keyspace, key, &hit.element)?;
    }
    // It worked without the option and did not work with it, so the option is what the server lacks.
    NO_WITHATTRIBS.store(true, Ordering::Relaxed);
    Ok(found)
}

/// Whether there is a vector set at `key`.
///
/// # Errors
/// `NOPERM`, `WRONGTYPE`, or what Redis says.
pub fn exists(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<bool, Failure> {
    keyspace.read("VCARD", &[key]).map(|reply| !matches!(reply, Reply::Int(0)))
}

/// The attributes of an element; `None` when it has none or there is no such element.
///
/// # Errors
/// `NOPERM`, `WRONGTYPE`, or what Redis says.
pub fn attributes(keyspace: &Keyspace<'_>, key: &[u8], element: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    match keyspace.read("VGETATTR", &[key, element])? {
        Reply::Bytes(attributes) => Ok(Some(attributes)),
        _ => Ok(None),
    }
}

/// Adds an element, or replaces the one of that name, with its attributes.
///
/// # Errors
/// `MISMATCH` if the set holds vectors of another dimension, `OOM`, `NOPERM`, `WRONGTYPE`, or what Redis
/// says. An element that could not be replaced keeps its old vector.
pub fn add(keyspace: &Keyspace<'_>, new: &Element<'_>) -> Result<(), Failure> {
    check_finite(new.vector)?;
    let blob = to_fp32(new.vector);
    let vadd: [&[u8]; 7] =
        [new.key, b"FP32", &blob, new.element, new.quant.as_bytes(), b"SETATTR", new.attributes.as_bytes()];
    let vrem: [&[u8]; 2] = [new.key, new.element];
    // The removal may be needed below, when there is no way back any more.
    keyspace.check_write("VREM", &vrem)?;
    // Adding first: if the element exists, this has passed every check (dimension, quantization, memory)
    // that could otherwise fail between the removal and the second VADD and lose the element.
    let added = keyspace.write("VADD", &vadd).map_err(dimension_mismatch)?;
    if is_true(&added) {
        return Ok(());
    }
    keyspace.write("VREM", &vrem)?;
    keyspace.write_over_limit("VADD", &vadd).map(drop)
}

/// Removes an element; `false` if there was none of that name. An empty set goes away with its key.
///
/// # Errors
/// `NOPERM`, `WRONGTYPE`, or what Redis says.
pub fn remove(keyspace: &Keyspace<'_>, key: &[u8], element: &[u8]) -> Result<bool, Failure> {
    keyspace.write("VREM", &[key, element]).map(|reply| is_true(&reply))
}

/// Reads the reply of VSIM: a map from element to score, or to score and attributes. A missing key is
/// answered with an empty array, whatever the options.
fn hits(reply: Reply) -> Result<Vec<Hit>, Failure> {
    match reply {
        Reply::Map(found) => found.into_iter().map(|entry| hit(entry).ok_or_else(|| unexpected("VSIM"))).collect(),
        Reply::Array(found) if found.is_empty() => Ok(Vec::new()),
        _ => Err(unexpected("VSIM")),
    }
}

fn hit((element, about): (Reply, Reply)) -> Option<Hit> {
    let Reply::Bytes(element) = element else { return None };
    let (score, attributes) = match about {
        Reply::Array(about) => {
            let mut about = about.into_iter();
            (about.next()?, about.next())
        }
        score => (score, None),
    };
    let Reply::Double(score) = score else { return None };
    let attributes = match attributes {
        Some(Reply::Bytes(attributes)) => Some(attributes),
        _ => None,
    };
    Some(Hit { element, score, attributes })
}

/// VSIM and VADD take FP32 blobs unchecked, and one NaN spoils the order of a whole set.
fn check_finite(vector: &[f32]) -> Result<(), Failure> {
    if vector.iter().all(|number| number.is_finite()) {
        return Ok(());
    }
    Err(Failure::internal("an embedding holds a number that is not finite; check the model file"))
}

fn is_dimension_error(failure: &Failure) -> bool {
    failure.text.starts_with("Vector dimension mismatch")
}

fn dimension_mismatch(failure: Failure) -> Failure {
    if is_dimension_error(&failure) {
        return Failure::new("MISMATCH", format!("{}; the index was made with another embedding model", failure.text));
    }
    failure
}

fn is_true(reply: &Reply) -> bool {
    matches!(reply, Reply::Bool(true) | Reply::Int(1))
}

fn unexpected(command: &str) -> Failure {
    Failure::internal(format!("{command} answered in a form that this module does not know"))
}

#[cfg(test)]
mod tests {
    use super::{Hit, hits};
    use crate::redis_api::keyspace::Reply;

    fn bytes(text: &str) -> Reply {
        Reply::Bytes(text.as_bytes().to_vec())
    }

    #[test]
    fn hits_keep_their_order_and_may_lack_attributes() {
        let reply = Reply::Map(vec![
            (bytes("b"), Reply::Array(vec![Reply::Double(0.9), bytes("{}")])),
            (bytes("a"), Reply::Array(vec![Reply::Double(0.5), Reply::Null])),
            (bytes("c"), Reply::Double(0.1)),
        ]);
        let hit = |element: &str, score, attributes: Option<&str>| Hit {
            element: element.into(),
            score,
            attributes: attributes.map(Into::into),
        };
        assert_eq!(hits(reply), Ok(vec![hit("b", 0.9, Some("{}")), hit("a", 0.5, None), hit("c", 0.1, None)]));
    }

    #[test]
    fn a_missing_key_has_no_hits() {
        assert_eq!(hits(Reply::Array(Vec::new())), Ok(Vec::new()));
    }
}
