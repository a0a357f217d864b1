//! Telling Redis where the keys of a command stand, when it asks the module instead of reading the command's description.
//!
//! It asks for the commands with the flag `getkeys-api`. Those with a number of keys among their arguments need it: the
//! description is enough for COMMAND and for ACL rules, but a cluster looks for keys in an older way that does not know
//! such a number. Without the flag it would run the command on any node, also on one that does not have the keys.

use std::ffi::c_int;
use std::ops::Range;

use redis_module::{Context, RedisString};

use super::command_info;

/// Answers Redis if it asks for keys; `false` if the command is to be run.
pub(super) fn told(ctx: &Context, args: &[RedisString]) -> bool {
    let Some(asks) = api!(RedisModule_IsKeysPositionRequest) else { return false };
    // SAFETY: ctx is the context of the call that is being handled.
    if unsafe { asks(ctx.ctx) } == 0 {
        return false;
    }
    let args: Vec<&[u8]> = args.iter().map(RedisString::as_slice).collect();
    let keys = args.first().and_then(|name| command_info::numbered_keys(name));
    if let (Some((at, flags)), Some(tell)) = (keys, api!(RedisModule_KeyAtPosWithFlags)) {
        for position in positions(&args, at) {
            let (Ok(position), Ok(flags)) = (c_int::try_from(position), c_int::try_from(flags)) else { break };
            // SAFETY: as above, and Redis asks for keys (checked); the position is one of the command's arguments.
            unsafe { tell(ctx.ctx, position, flags) };
        }
    }
    true
}

/// Where the keys stand whose number is argument `at`; none when that is no number, or more than there are arguments.
fn positions(args: &[&[u8]], at: usize) -> Range<usize> {
    let count = args.get(at).and_then(|number| std::str::from_utf8(number).ok()?.parse::<usize>().ok());
    let first = at.saturating_add(1);
    let end = count.map_or(first, |count| first.saturating_add(count));
    if end <= args.len() { first..end } else { first..first }
}

#[cfg(test)]
mod tests {
    use super::positions;

    #[test]
    fn keys_stand_behind_their_number_and_a_wrong_number_has_none() {
        let of = |line: &str| positions(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>(), 2);
        assert_eq!(of("infer.generate m 2 a b RAW"), 3..5);
        assert_eq!(of("infer.generate m 2 a b"), 3..5);
        for none in [
            "infer.generate m 3 a b",
            "infer.generate m 0 RAW",
            "infer.generate m -1 a",
            "infer.generate m x a",
            "infer.generate m 18446744073709551615 a",
            "infer.generate m 99999999999999999999 a",
            "infer.generate m",
        ] {
            assert!(of(none).is_empty(), "{none}");
        }
    }
}
