//! `INFER.DEBUG`: faults on purpose, for tests. Refused unless the server's environment has `REDIS_INFER_DEBUG=1`.

use std::sync::{Arc, Mutex, PoisonError};

use redis_module::Context;

use super::runtime::{debug_commands_enabled, engine};
use crate::engine::Served;
use crate::logic::args::Args;
use crate::redis_api::entry::Outcome;
use crate::redis_api::reply::{Failure, Value};

/// What HOLD holds.
static HELD: Mutex<Vec<Arc<Served>>> = Mutex::new(Vec::new());

/* INFER.DEBUG PANIC model | INFER.DEBUG ASSERT model [TWICE] | INFER.DEBUG HOLD model | INFER.DEBUG RELEASE */
/// Makes the next step of one of the model's workers panic, or fail by an assertion of ggml; TWICE has it fail in the context that
/// the worker makes then as well. HOLD holds the model as a command does that reads tokens, until RELEASE.
pub fn debug(_ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    if !debug_commands_enabled() {
        return Err(Failure::err(
            "INFER.DEBUG is for tests: start redis-server with REDIS_INFER_DEBUG=1 in its environment to allow it",
        ));
    }
    let mut args = Args::new("INFER.DEBUG", args);
    let subcommand = args.required("subcommand")?.to_ascii_uppercase();
    let held = || HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if subcommand == b"RELEASE" {
        args.end()?;
        held().clear();
        return Ok(Outcome::Reply(Value::OK));
    }
    let served = engine()?.find(args.model("model")?)?;
    match &subcommand[..] {
        b"PANIC" => {
            args.end()?;
            served.panic_next();
        }
        b"ASSERT" => {
            let twice = match args.option()? {
                None => false,
                Some(option) if option.as_str() == "TWICE" => true,
                Some(option) => return Err(option.unknown().into()),
            };
            args.end()?;
            served.fail_next(if twice { 2 } else { 1 });
        }
        b"HOLD" => {
            args.end()?;
            held().push(served);
        }
        _ => return Err(Failure::err("the subcommands of INFER.DEBUG are PANIC, ASSERT, HOLD and RELEASE")),
    }
    Ok(Outcome::Reply(Value::OK))
}
