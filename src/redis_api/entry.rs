//! The way from Redis into a command handler and back.

use std::ffi::c_int;
use std::sync::atomic::Ordering;

use redis_module::{Context, RedisResult, RedisString, RedisValue};

use super::config::REDACT;
use super::guard::guarded;
use super::key_positions;
use super::pending::HandlerScope;
use super::relay;
use super::reply::{Failure, Value, send};

/// How a handler leaves.
#[derive(Debug)]
pub enum Outcome {
    /// Answer the client now.
    Reply(Value),
    /// The handler blocked the client; a `PendingReply` answers later.
    Pending,
}

/// A command handler: gets the arguments without the command name.
pub type Handler = fn(&Context, &[&[u8]]) -> Result<Outcome, Failure>;

/// Has Redis show all arguments but the command's name and the first one, which names a model, an index or a key, as `(redacted)`
/// in `SLOWLOG` and `MONITOR`, as it does for the passwords of AUTH.
fn redact(ctx: &Context, count: usize) {
    let Some(redact) = api!(RedisModule_RedactClientCommandArgument) else { return };
    for place in (2..count).filter_map(|place| c_int::try_from(place).ok()) {
        // SAFETY: ctx is the live context of a handler; a place that the client's command does not have is refused.
        unsafe { redact(ctx.ctx, place) };
    }
}

/// Runs `handler` and sends its reply; for the one-line functions that `redis_module!` registers.
///
/// A client is answered exactly once, whatever the handler does: a panic becomes `INTERNAL`, a failure after
/// the client was blocked becomes the answer of the dropped `PendingReply`, and `Pending` without a blocked
/// client becomes `INTERNAL` instead of silence.
///
/// # Errors
/// Never; replies are sent here because `redis_module` would garble error texts.
pub fn dispatch(ctx: &Context, args: &[RedisString], handler: Handler) -> RedisResult {
    if key_positions::told(ctx, args) {
        return Ok(RedisValue::NoReply);
    }
    if relay::taken(ctx) {
        return Ok(RedisValue::NoReply);
    }
    let scope = HandlerScope::enter();
    let outcome = guarded("a command handler", || {
        let args: Vec<&[u8]> = args.iter().skip(1).map(RedisString::as_slice).collect();
        handler(ctx, &args)
    });
    let blocked = scope.leave();
    if REDACT.load(Ordering::Relaxed) {
        redact(ctx, args.len());
    }
    let answer = match outcome {
        Some(Ok(Outcome::Reply(value))) => Some(Ok(value)),
        Some(Ok(Outcome::Pending)) => None,
        Some(Err(failure)) => Some(Err(failure)),
        None => Some(Err(Failure::internal("the command failed because of a bug in the module; see the server log"))),
    };
    match (blocked, answer) {
        (None, Some(answer)) => send(ctx, &answer),
        (None, None) => send(ctx, &Err(Failure::internal("the command ended without an answer; please report this"))),
        (Some(blocked), Some(answer)) => blocked.answer_if_dropped(answer),
        (Some(_), None) => {}
    }
    Ok(RedisValue::NoReply)
}
