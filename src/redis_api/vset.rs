//! Vector sets (Redis 8): the few commands that an index and a cache need, with their traps closed.
//!
//! * `VSIM` in a small set gets `NOTHREAD`, without which it blocks; a module that does not expect that makes Redis abort.
//!   In a large one the search has a thread of Redis, as that of an ordinary client has ([`begin_similar`], [`super::call_apart`]).
//! * `VADD` never gets `CAS` (same abort), and never the name of an element that exists: Redis does not send that
//!   change to the AOF and the replicas.
//! * An element comes in hidden ([`stage`]) and is shown later ([`show`]), so that the slow part, `VADD`, is never what a reader
//!   waits for to see a whole document.
//! * No element is ever removed. Up to Redis 8.4 at least, removing an element can crash the server (redis issue 15424:
//!   the graph's entry point may be replaced by a node that is too low, and the next removal reads past its end;
//!   equal vectors make that likely), here or on a replica, whose graph is another. An element that is not wanted any
//!   more is hidden: without attributes no search finds it.

use std::sync::atomic::{AtomicBool, Ordering};

use redis_module::Context;

use super::call::call;
use super::call_apart::Coming;
use super::keyspace::{Keyspace, Reply};
use super::reply::Failure;
use super::set_removal;
use crate::logic::limits;
use crate::logic::options::filter_effort;
use crate::logic::vector::to_fp32;

static AVAILABLE: AtomicBool = AtomicBool::new(false);

/// Set once the server has turned out to be one whose VSIM has no WITHATTRIBS (Redis 8.0).
static NO_WITHATTRIBS: AtomicBool = AtomicBool::new(false);

/// True of every element with the attributes of a chunk.
const NOT_HIDDEN: &str = ".chunk >= 0";

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

/// What [`similar`] looks for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Elements like this one; of the set's dimension.
    pub vector: &'a [f32],
    /// At most so many.
    pub count: u32,
    /// Candidates kept at hand; `None` for Redis' default.
    pub ef: Option<u32>,
    /// An expression that the attributes must meet. It must not hold a NUL, at which Redis would end it.
    pub filter: Option<&'a str>,
    /// When to give up looking for those that meet it.
    pub effort: Effort,
}

/// What [`similar`] has found.
#[derive(Debug, Default)]
pub struct Similar {
    /// Best first.
    pub hits: Vec<Hit>,
    /// There may be more, farther away than [`Wanted::effort`] lets it look.
    pub gave_up: bool,
}

/// How far a search with a filter looks around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Among the nearest few thousand elements, which takes about as long as a search without a filter.
    Near,
    /// Eight times as far.
    Far,
}

impl Effort {
    /// `FILTER-EF` for this filter.
    fn for_filter(self, filter: &str) -> String {
        let part = if self == Self::Near { limits::FILTER_NEAR_PART } else { 1 };
        (filter_effort(filter) / part).to_string()
    }
}

/// The elements of the set at `key` that are most similar and not hidden, best first. No key, no hits, whatever the
/// filter.
///
/// # Errors
/// `MISMATCH` if the set holds vectors of another dimension, `WRONGTYPE`, `NOPERM`, `ERR` if the filter does not parse, or
/// what Redis says.
pub fn similar(keyspace: &Keyspace<'_>, key: &[u8], wanted: &Wanted<'_>) -> Result<Similar, Failure> {
    check_finite(wanted.vector)?;
    if wanted.count == 0 {
        return Ok(Similar::default());
    }
    let (blob, count) = (to_fp32(wanted.vector), wanted.count.to_string());
    let ef = wanted.ef.map(|ef| ef.to_string());
    let mut args: Vec<&[u8]> = vec![key, b"FP32", &blob, b"COUNT", count.as_bytes(), b"NOTHREAD", b"WITHSCORES"];
    if let Some(ef) = &ef {
        args.extend([b"EF".as_slice(), ef.as_bytes()]);
    }
    // Hidden elements have no attributes, and what has none meets no filter.
    if let Some(filter) = wanted.filter {
        return search_filtered(keyspace, &args, filter, wanted);
    }
    let found = search(keyspace, &args)?;
    if found.iter().all(|hit| hit.attributes.is_some()) {
        return Ok(Similar { hits: found, gave_up: false });
    }
    // Asked again, because the filter costs something for each element that is looked at.
    search_filtered(keyspace, &args, NOT_HIDDEN, wanted)
}

/// In a set of fewer elements a search takes less than a millisecond, or two with a filter.
const LARGE: i64 = 5000;

/// Begins what [`similar`] does, for a large set: there the search goes on without the lock. `None` for small sets, and where the
/// server cannot do that (before Redis 8.2). The reply, when it comes, is read by [`read_similar`].
///
/// # Errors
/// `INTERNAL`.
pub fn begin_similar(keyspace: &Keyspace<'_>, key: &[u8], wanted: &Wanted<'_>) -> Result<Option<Coming>, Failure> {
    check_finite(wanted.vector)?;
    if wanted.count == 0 || NO_WITHATTRIBS.load(Ordering::Relaxed) || elements(keyspace, key) < LARGE {
        return Ok(None);
    }
    let (blob, count) = (to_fp32(wanted.vector), wanted.count.to_string());
    let ef = wanted.ef.map(|ef| ef.to_string());
    let mut args: Vec<&[u8]> = vec![key, b"FP32", &blob, b"COUNT", count.as_bytes(), b"WITHSCORES", b"WITHATTRIBS"];
    if let Some(ef) = &ef {
        args.extend([b"EF".as_slice(), ef.as_bytes()]);
    }
    // Far without a filter is for what hidden elements crowd out.
    let filter = wanted.filter.or((wanted.effort == Effort::Far).then_some(NOT_HIDDEN));
    let effort = filter.map(|filter| wanted.effort.for_filter(filter));
    if let (Some(filter), Some(effort)) = (filter, &effort) {
        args.extend([b"FILTER".as_slice(), filter.as_bytes(), b"FILTER-EF", effort.as_bytes()]);
    }
    // After an error it is asked again in the ordinary way, which tells it.
    keyspace.begin_read("VSIM", &args)
}

/// What a search has found that was begun with [`begin_similar`]. `None` when the set has changed since, so that what was found does not
/// fit what else is stored; then it has to be searched again.
///
/// # Errors
/// As for [`similar`].
pub fn read_similar(
    keyspace: &Keyspace<'_>,
    key: &[u8],
    wanted: &Wanted<'_>,
    reply: Result<Reply, Failure>,
) -> Result<Option<Similar>, Failure> {
    let found = hits(reply.map_err(dimension_mismatch)?)?;
    for hit in &found {
        // Asked as the server: the caller was given just that. An error is told by whoever searches again.
        let now = match call(keyspace.context(), "VGETATTR", c"vE3", &[key, &hit.element]) {
            Ok(Some(Reply::Bytes(attributes))) => Some(attributes),
            _ => None,
        };
        if now != hit.attributes {
            return Ok(None);
        }
    }
    let is_filtered = wanted.filter.is_some() || wanted.effort == Effort::Far;
    let gave_up = if is_filtered {
        found.len() < wanted.count as usize
    } else {
        // Hidden ones among them take the place of others.
        found.iter().any(|hit| hit.attributes.is_none())
    };
    Ok(Some(Similar { hits: found, gave_up }))
}

/// Elements of a large set that a search can find and whose attribute `path` is this are looked for apart, see [`begin_of_path`].
#[derive(Debug, PartialEq, Eq)]
pub enum OfPath {
    /// Names of elements; where the path cannot stand in a filter, those of all elements that a search can find.
    Here(Vec<Vec<u8>>),
    /// The set is large.
    Apart,
}

/// The elements that a search can find and whose attribute `path` is this, all of them. Looks at each element of the set.
///
/// # Errors
/// What Redis says.
pub fn of_path(keyspace: &Keyspace<'_>, key: &[u8], path: &str) -> Result<OfPath, Failure> {
    if elements(keyspace, key) >= LARGE {
        return Ok(OfPath::Apart);
    }
    let Some(search) = PathSearch::new(keyspace, key, path)? else { return Ok(OfPath::Here(Vec::new())) };
    if !search.is_exact && elements(keyspace, key) >= INEXACT_MAX {
        return Ok(OfPath::Apart);
    }
    let args: Vec<&[u8]> = search.args(key).into_iter().chain([&b"NOTHREAD"[..]]).collect();
    names(keyspace.as_server().read("VSIM", &args)?).map(OfPath::Here)
}

/// Begins what [`of_path`] does, for a large set. The reply is read by [`names`]. `None` where that cannot be done, as where the path
/// cannot stand in a filter.
///
/// # Errors
/// What Redis says.
pub fn begin_of_path(keyspace: &Keyspace<'_>, key: &[u8], path: &str) -> Result<Option<Coming>, Failure> {
    match PathSearch::new(keyspace, key, path)? {
        Some(search) if search.is_exact => keyspace.begin_read_as_server("VSIM", &search.args(key)),
        _ => Ok(None),
    }
}

/// The names in the reply of a search for elements.
///
/// # Errors
/// `INTERNAL`.
pub fn names(reply: Reply) -> Result<Vec<Vec<u8>>, Failure> {
    let Reply::Array(names) = reply else { return Err(unexpected("VSIM")) };
    let name = |name| if let Reply::Bytes(name) = name { Some(name) } else { None };
    Ok(names.into_iter().filter_map(name).collect())
}

/// At most so many elements: all of a set that is not large, and of a large one each chunk of one path some times over.
const OF_PATH_MAX: &[u8] = b"5000";
/// Elements whose names are all looked at with the lock held, where the path cannot stand in a filter.
const INEXACT_MAX: i64 = 1000;

/// A search through all elements for those of a path.
struct PathSearch {
    vector: Vec<u8>,
    filter: String,
    is_exact: bool,
}

impl PathSearch {
    /// `None` where there is no set.
    fn new(keyspace: &Keyspace<'_>, key: &[u8], path: &str) -> Result<Option<Self>, Failure> {
        if elements(keyspace, key) == 0 {
            return Ok(None);
        }
        let Reply::Int(dim) = keyspace.as_server().read("VDIM", &[key])? else { return Err(unexpected("VDIM")) };
        let mut vector = vec![0.0; usize::try_from(dim).unwrap_or_default()];
        if let Some(first) = vector.first_mut() {
            *first = 1.0;
        }
        // An expression compares strings as they are written, escapes included.
        let quote = if path.contains('"') { '\'' } else { '"' };
        let is_exact = !path.chars().any(|c| c.is_control() || c == quote || c == '\\');
        let filter = if is_exact { format!(".path == {quote}{path}{quote}") } else { NOT_HIDDEN.to_owned() };
        Ok(Some(Self { vector: to_fp32(&vector), filter, is_exact }))
    }

    fn args<'a>(&'a self, key: &'a [u8]) -> [&'a [u8]; 8] {
        [key, b"FP32", &self.vector, b"COUNT", OF_PATH_MAX, b"TRUTH", b"FILTER", self.filter.as_bytes()]
    }
}

/// Some elements of the set at random, whether or not a search can find them.
///
/// # Errors
/// What Redis says.
pub fn random(keyspace: &Keyspace<'_>, key: &[u8], count: usize) -> Result<Vec<Vec<u8>>, Failure> {
    match keyspace.as_server().read("VRANDMEMBER", &[key, count.to_string().as_bytes()])? {
        Reply::Array(_) | Reply::Null if elements(keyspace, key) == 0 => Ok(Vec::new()),
        reply => names(reply),
    }
}

/// Elements of the set; 0 for anything else.
fn elements(keyspace: &Keyspace<'_>, key: &[u8]) -> i64 {
    // Asked as the server: the caller may not be allowed to run VCARD.
    match call(keyspace.context(), "VCARD", c"vE3", &[key]) {
        Ok(Some(Reply::Int(elements))) => elements,
        _ => 0,
    }
}

fn search_filtered(
    keyspace: &Keyspace<'_>,
    args: &[&[u8]],
    filter: &str,
    wanted: &Wanted<'_>,
) -> Result<Similar, Failure> {
    let effort = wanted.effort.for_filter(filter);
    let filter: [&[u8]; 4] = [b"FILTER", filter.as_bytes(), b"FILTER-EF", effort.as_bytes()];
    let hits = search(keyspace, &[args, &filter].concat())?;
    let gave_up = hits.len() < wanted.count as usize;
    Ok(Similar { hits, gave_up })
}

/// VSIM with the attributes of what it finds.
fn search(keyspace: &Keyspace<'_>, args: &[&[u8]]) -> Result<Vec<Hit>, Failure> {
    if !NO_WITHATTRIBS.load(Ordering::Relaxed) {
        let with_attributes: [&[&[u8]]; 2] = [args, &[b"WITHATTRIBS"]];
        match keyspace.read("VSIM", &with_attributes.concat()) {
            Err(failure) if failure.code == "ERR" && !is_dimension_error(&failure) => {}
            reply => return hits(reply.map_err(dimension_mismatch)?),
        }
    }
    let mut found = hits(keyspace.read("VSIM", args).map_err(dimension_mismatch)?)?;
    for hit in &mut found {
        hit.attributes = attributes(keyspace, args.first().unwrap_or(&&[][..]), &hit.element)?;
    }
    // It worked without the option and did not work with it, so the option is what the server lacks.
    NO_WITHATTRIBS.store(true, Ordering::Relaxed);
    Ok(found)
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

/// What a vector set holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Elements that a search can find.
    pub visible: i64,
    /// Elements that were hidden.
    pub hidden: i64,
    /// Memory of the whole set, as Redis estimates it.
    pub bytes: i64,
}

/// What the set at `key` holds; nothing when there is no key.
///
/// # Errors
/// `NOPERM`, `WRONGTYPE`, or what Redis says.
pub fn size(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<Size, Failure> {
    let (visible, hidden) = counts(keyspace, key)?;
    let bytes = match keyspace.read("MEMORY", &[b"USAGE", key])? {
        Reply::Int(bytes) => bytes,
        _ => 0,
    };
    Ok(Size { visible, hidden, bytes })
}

/// How many elements of the set at `key` a search can find, and how many are hidden; none when there is no key.
///
/// # Errors
/// `NOPERM`, `WRONGTYPE`, or what Redis says.
pub fn counts(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<(i64, i64), Failure> {
    let Reply::Map(facts) = keyspace.read("VINFO", &[key])? else { return Ok((0, 0)) };
    let fact = |wanted: &[u8]| {
        facts.iter().find_map(|(name, value)| match (name, value) {
            (Reply::Bytes(name), Reply::Int(value)) if name == wanted => Some(*value),
            _ => None,
        })
    };
    let (all, visible) = (fact(b"size").unwrap_or_default(), fact(b"attributes-count").unwrap_or_default());
    Ok((visible, all.saturating_sub(visible)))
}

/// The vector of an element, as exactly as it is stored; `None` when there is none of that name.
///
/// # Errors
/// `NOPERM`, `WRONGTYPE`, or what Redis says.
pub fn vector(keyspace: &Keyspace<'_>, key: &[u8], element: &[u8]) -> Result<Option<Vec<f32>>, Failure> {
    let Reply::Array(numbers) = keyspace.read("VEMB", &[key, element])? else { return Ok(None) };
    let number = |number| if let Reply::Double(number) = number { Some(number as f32) } else { None };
    numbers.into_iter().map(number).collect::<Option<_>>().map(Some).ok_or_else(|| unexpected("VEMB"))
}

/// What is stored of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// There is none of that name.
    Nothing,
    /// It is there and hidden.
    Hidden,
    /// It has these attributes, as JSON text.
    Shown(Vec<u8>),
}

/// What is stored of an element.
///
/// # Errors
/// `NOPERM`, `WRONGTYPE`, or what Redis says.
pub fn stored(keyspace: &Keyspace<'_>, key: &[u8], element: &[u8]) -> Result<Stored, Failure> {
    if let Some(attributes) = attributes(keyspace, key, element)? {
        return Ok(Stored::Shown(attributes));
    }
    // VLINKS because all versions have it; VISMEMBER is younger.
    let is_there = !matches!(keyspace.read("VLINKS", &[key, element])?, Reply::Null);
    Ok(if is_there { Stored::Hidden } else { Stored::Nothing })
}

/// Adds an element, hidden. One of that name that is there already is left as it is: an element never gets another vector.
/// Numbers of the vector must be finite; `quant` is `NOQUANT`, `Q8` or `BIN`, the same for all elements of a set.
///
/// # Errors
/// `MISMATCH` if the set holds vectors of another dimension, `OOM`, `NOPERM`, `WRONGTYPE`, or what Redis says.
pub fn stage(
    keyspace: &Keyspace<'_>,
    key: &[u8],
    element: &[u8],
    vector: &[f32],
    quant: &'static str,
) -> Result<(), Failure> {
    check_finite(vector)?;
    if stored(keyspace, key, element)? != Stored::Nothing {
        return Ok(());
    }
    let vadd: [&[u8]; 5] = [key, b"FP32", &to_fp32(vector), element, quant.as_bytes()];
    keyspace.write("VADD", &vadd).map(drop).map_err(dimension_mismatch)
}

/// Whether the caller may search with [`similar`]; changes nothing.
///
/// # Errors
/// `NOPERM`.
pub fn check_searching(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<(), Failure> {
    keyspace.check_read("VSIM", &[key, b"FP32", b"", b"NOTHREAD"])
}

/// Whether the caller may [`stage`]; changes nothing.
///
/// # Errors
/// As there.
pub fn check_staging(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<(), Failure> {
    keyspace.check_read("VGETATTR", &[key, b""])?;
    keyspace.check_read("VLINKS", &[key, b""])?;
    keyspace.check_write("VADD", &[key, b"FP32", b"", b""])
}

/// Whether the caller may [`show`] and [`hide`]; changes nothing.
///
/// # Errors
/// As there.
pub fn check_showing(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<(), Failure> {
    keyspace.check_write("VSETATTR", &[key, b"", b""])
}

/// Gives an element attributes, with which searches find it. Whether there is one of that name.
///
/// # Errors
/// `NOPERM`, `WRONGTYPE`, or what Redis says.
pub fn show(keyspace: &Keyspace<'_>, key: &[u8], element: &[u8], attributes: &str) -> Result<bool, Failure> {
    let reply = keyspace.write("VSETATTR", &[key, element, attributes.as_bytes()])?;
    Ok(matches!(reply, Reply::Int(1) | Reply::Bool(true)))
}

/// Hides an element from every search, if there is one of that name.
///
/// # Errors
/// `NOPERM`, `WRONGTYPE`, or what Redis says.
pub fn hide(keyspace: &Keyspace<'_>, key: &[u8], element: &[u8]) -> Result<(), Failure> {
    keyspace.write("VSETATTR", &[key, element, b""]).map(drop)
}

/// Whether the caller may [`remove_if_all_hidden`]; changes nothing.
///
/// # Errors
/// As there.
pub fn check_removing(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<(), Failure> {
    keyspace.read("VINFO", &[key])?;
    keyspace.check_write("UNLINK", &[key])
}

/// Removes the set when all its elements are hidden.
///
/// # Errors
/// `NOPERM`, `WRONGTYPE`, or what Redis says.
pub fn remove_if_all_hidden(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<(), Failure> {
    let Reply::Map(facts) = keyspace.read("VINFO", &[key])? else { return Ok(()) };
    let with_attributes =
        facts.iter().find(|(name, _)| matches!(name, Reply::Bytes(name) if name == b"attributes-count"));
    if matches!(with_attributes, Some((_, Reply::Int(0)))) {
        remove(keyspace, key)?;
    }
    Ok(())
}

/// Removes the set, or what else the key holds. Other clients do not wait until the memory of a large one is free, except in versions
/// of Redis that `set_removal` does not know.
///
/// # Errors
/// `NOPERM`, or what Redis says.
pub fn remove(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<(), Failure> {
    set_removal::remove(keyspace, key)
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
        return Failure::new(
            "MISMATCH",
            format!("{}; its vectors were made with another embedding model", failure.text),
        );
    }
    failure
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
