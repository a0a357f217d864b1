//! `INFER.DEBUG`: faults on purpose, for tests. Refused unless the server's environment has `REDIS_INFER_DEBUG=1`.

use redis_module::Context;

use super::runtime::{debug_commands_enabled, engine};
use crate::logic::args::Args;
use crate::redis_api::entry::Outcome;
use crate::redis_api::reply::{Failure, Value};

/* INFER.DEBUG PANIC model */
/// Makes the next step of one of the model's workers panic.
pub fn debug(_ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    if !debug_commands_enabled() {
        return Err(Failure::err(
            "INFER.DEBUG is for tests: start redis-server with REDIS_INFER_DEBUG=1 in its environment to allow it",
        ));
    }
    let mut args = Args::new("INFER.DEBUG", args);
    if !args.required("subcommand")?.eq_ignore_ascii_case(b"PANIC") {
        return Err(Failure::err("the only subcommand of INFER.DEBUG is PANIC"));
    }
    let name = args.model("model")?;
    args.end()?;
    engine()?.find(name)?.panic_next();
    Ok(Outcome::Reply(Value::OK))
}
