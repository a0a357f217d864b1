//! `INFER.CANCEL`: ends a request of another client.

use std::sync::atomic::Ordering;

use redis_module::Context;

use super::live::visible;
use crate::logic::args::Args;
use crate::redis_api::entry::Outcome;
use crate::redis_api::pending;
use crate::redis_api::reply::{Failure, Value};

/* INFER.CANCEL id */
/// Answers the client of the request with CANCELLED and lets the workers drop it at their next step; 1, or 0 when there
/// is no such request, or none that the caller may see.
pub fn cancel(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let mut args = Args::new("INFER.CANCEL", args);
    let id: i64 = args.integer("id", 0, i64::MAX)?;
    args.end()?;
    let found = visible(ctx).into_iter().find(|(listed, _)| i64::try_from(*listed) == Ok(id));
    let Some((_, live)) = found else { return Ok(Outcome::Reply(Value::Int(0))) };
    if live.is_awaited {
        pending::cancel(ctx, live.caller.client, &live.ticket.cancelled)?;
    } else {
        live.ticket.cancelled.store(true, Ordering::Relaxed);
    }
    Ok(Outcome::Reply(Value::Int(1)))
}
