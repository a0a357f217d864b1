//! Which documents an index has: the set that the module keeps beside it.

use redis::{Connection, cmd};

use super::plan::Known;
use crate::failure::Failure;

/// Paths fetched at a time, so that a large set does not hold up the server.
const PAGE: u32 = 1000;

/// The name of the set: INFER.REINDEX makes another generation of all keys but the settings.
fn key(index: &str, generation: &str) -> String {
    if generation == "1" { format!("paths:{{{index}}}") } else { format!("paths:{{{index}}}@{generation}") }
}

/// The paths of all documents of `index`, in whatever state they are.
///
/// # Errors
/// When there is no such index, the connection is lost, or the user may not read the set.
pub fn read(connection: &mut Connection, index: &str) -> Result<Known, Failure> {
    let Some(generation) = cmd("HGET").arg(index).arg("generation").query::<Option<String>>(connection)? else {
        return Err(Failure::refused("NOINDEX", &format!("there is no index '{index}'; INFER.INDEX creates one")));
    };
    let key = key(index, &generation);
    let mut known = Known::default();
    let mut cursor = String::from("0");
    loop {
        let page = cmd("SSCAN").arg(&key).arg(&cursor).arg("COUNT").arg(PAGE).query(connection);
        let (next, paths): (String, Vec<Vec<u8>>) = page?;
        // The module stores no other; a path that somebody else put there is none of ours.
        known.indexed(paths.into_iter().filter_map(|path| String::from_utf8(path).ok()));
        if next == "0" {
            return Ok(known);
        }
        cursor = next;
    }
}
