//! A command of Redis that works on a thread of its own, without the lock.
//!
//! `VSIM` does so for every ordinary client. Called from a module it does when the module allows it to block (`K`): what
//! comes back is a promise, and Redis calls [`on_done`] on the main thread with the reply. The context must be one that knows
//! its module, or Redis aborts.

use std::ffi::{CStr, CString, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use redis_module::{Context, raw};

use super::call::{Owned, Reply, Strings, copy};
use super::guard::guarded;
use super::reply::Failure;

/// Commands that went on without the lock.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// How many commands went on without the lock since the module was loaded. Any thread.
pub fn begun() -> u64 {
    BEGUN.load(Ordering::Relaxed)
}

/// Where the reply of a command comes that goes on without the lock. Wait for it without the lock: it comes through the main thread.
pub type Coming = Receiver<Result<Reply, Failure>>;

/// As [`super::call::call`], with `K` among the flags. A command that is done at once, as where the server is told to use no threads
/// for it, has its reply ready there. `None` for an error, which is lost.
pub(super) fn begin(
    ctx: &Context,
    command: &'static str,
    flags: &CStr,
    args: &[&[u8]],
) -> Result<Option<Coming>, Failure> {
    let missing = || Failure::internal("this server does not let modules wait for commands");
    let name = CString::new(command).map_err(|_| Failure::internal("a command name has a NUL in it"))?;
    let (call, type_of) =
        (api!(RedisModule_Call).ok_or_else(missing)?, api!(RedisModule_CallReplyType).ok_or_else(missing)?);
    let when_done = api!(RedisModule_CallReplyPromiseSetUnblockHandler).ok_or_else(missing)?;
    let mut args = Strings::of(args)?;
    // SAFETY: as in `call`; Redis keeps its own references to the strings as long as the command works.
    let reply = unsafe { call(ctx.ctx, name.as_ptr(), flags.as_ptr(), args.0.as_mut_ptr(), args.0.len()) };
    if reply.is_null() {
        return Err(Failure::internal(format!("the server did not answer {command}")));
    }
    let reply = Owned(reply);
    // SAFETY: the reply is alive.
    let kind = unsafe { type_of(reply.0) };
    if isize::try_from(kind) != Ok(raw::REDISMODULE_REPLY_PROMISE) {
        return Ok(copy(reply.0).ok().map(ready));
    }
    let (sender, receiver) = bounded(1);
    let sender: Box<Sender<Result<Reply, Failure>>> = Box::new(sender);
    // SAFETY: the reply is a promise, and since the lock is held nobody can have kept it yet; the box goes to `on_done`, which is
    // called once.
    unsafe { when_done(reply.0, Some(on_done), Box::into_raw(sender).cast::<c_void>()) };
    BEGUN.fetch_add(1, Ordering::Relaxed);
    Ok(Some(receiver))
}

fn ready(reply: Reply) -> Coming {
    let (sender, receiver) = bounded(1);
    // There is room for it, and the other end is here.
    let _sent = sender.try_send(Ok(reply));
    receiver
}

/// Called by Redis on the main thread; the reply is ours to free.
unsafe extern "C" fn on_done(
    _ctx: *mut raw::RedisModuleCtx,
    reply: *mut raw::RedisModuleCallReply,
    sender: *mut c_void,
) {
    // SAFETY: the box that `begin` gave away, taken once.
    let sender = unsafe { Box::from_raw(sender.cast::<Sender<Result<Reply, Failure>>>()) };
    guarded("the reply of a command", || {
        let reply = Owned(reply);
        // Nobody waits any more when the server stops.
        let _nobody_waits = sender.try_send(copy(reply.0));
    });
}
