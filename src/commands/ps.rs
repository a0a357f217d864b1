//! `INFER.PS`: what waits and what runs.

use std::sync::atomic::Ordering;

use redis_module::Context;

use super::live::{Live, visible};
use crate::logic::args::Args;
use crate::redis_api::entry::Outcome;
use crate::redis_api::reply::{Failure, Value};

/* INFER.PS */
/// The requests of the caller's user, or of all users if the caller may run INFER.UNLOAD; oldest first. Never prompts.
pub fn ps(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    Args::new("INFER.PS", args).end()?;
    let requests = visible(ctx).iter().map(|(id, live)| Value::Map(fields(*id, live))).collect();
    Ok(Outcome::Reply(Value::Array(requests)))
}

fn fields(id: u64, live: &Live) -> Vec<(&'static str, Value)> {
    let (ticket, caller) = (&live.ticket, &live.caller);
    vec![
        ("id", Value::from(id)),
        ("command", Value::from(caller.command)),
        ("client", Value::from(caller.client)),
        ("user", Value::from(caller.user.as_deref().unwrap_or_default())),
        ("db", Value::from(i64::from(caller.db))),
        ("model", Value::from(live.model.as_str())),
        ("state", Value::from(ticket.stage().name())),
        ("prompt_tokens", Value::from(ticket.prompt_tokens.load(Ordering::Relaxed))),
        ("generated_tokens", Value::from(ticket.generated.load(Ordering::Relaxed))),
        ("age_ms", Value::from(u64::try_from(live.arrived.elapsed().as_millis()).unwrap_or(u64::MAX))),
    ]
}
