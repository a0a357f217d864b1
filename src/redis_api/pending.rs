//! A client that waits for an answer: blocked once, answered exactly once.
//!
//! # Who owns what
//!
//! * Redis' handle of the blocked client belongs to Redis. We may name it until we call `UnblockClient`, which
//!   hands it back, and must make that call exactly once, even when the client is long gone: without it the
//!   handle leaks and the module can never be unloaded. [`PendingReply`] is the right to make that call; it
//!   cannot be cloned, and both its ways out (`finish*` and drop) make it.
//! * [`Job`] is what the callbacks see: cancel flag, deadline, answer slot. It is shared by one `Arc` held by
//!   the handle as its private data, dropped in `on_free`, and one held by the `PendingReply`, dropped *before*
//!   `UnblockClient`. So the last owner is always the handle, and an answer or a closure that nobody wants any
//!   more is dropped on the main thread.
//! * The cancel flag is an `Arc` of its own, because workers may look at it after the answer is on its way.
//!
//! # Which thread does what
//!
//! The main thread blocks the client and runs all callbacks. A worker, or the keyspace thread, or the main
//! thread itself, finishes: it fills the slot and calls `UnblockClient`, the one function here that Redis allows
//! without the lock. The answer is rendered on the main thread in `on_reply`, with the context of the real
//! client: its RESP version, database and ACL user. So no worker ever needs the lock to answer.
//!
//! # Races
//!
//! * *Finish against timeout, disconnect, CLIENT KILL, CLIENT UNBLOCK.* Redis decides on the main thread. If the
//!   client goes first, our private data stays alive with the handle, `on_reply` is not called, and the late
//!   answer is freed in `on_free`. If the finish was handled first, Redis has forgotten the timeout. When the finish
//!   is queued but not handled yet, the answer wins over a timeout and CLIENT UNBLOCK, which does nothing although it
//!   returns 1; the client goes first if it is lost or unblocked with ERROR. The finish writes the same private data
//!   pointer that is already there, so a callback that reads the pointer meanwhile sees the right one.
//! * *Slot.* Written by the finisher before `UnblockClient`, read in `on_reply` after Redis took the handle from
//!   its queue; Redis' queue mutex orders the two. The `Mutex` around it only satisfies the compiler.
//! * *Priority.* Redis' queue mutex is one that the main thread takes, so niced threads have the call made by `infer-reply`
//!   (`delivery`).
//! * *A handler that blocks and then fails or panics.* Its `PendingReply` is dropped before `entry::dispatch`
//!   looks at the failure, so the client is already being answered, and a second reply would shift all later
//!   ones. [`HandlerScope`] tells `dispatch` that the client is blocked, and lets it put the failure into the
//!   slot instead; both run on the main thread before `on_reply` can.
//!
//! # What was rejected
//!
//! * *Replying from the worker* through a thread-safe context: needs the same `UnblockClient` anyway, copies
//!   large answers once more, renders with a fake client (no database, no user), and leaves nothing to say when
//!   the worker dies.
//! * *`redis_module`'s `BlockedClient`*: registers no callbacks, so a gone client is never noticed, CLIENT
//!   UNBLOCK is refused, and dropping it leaves the client without any reply.
//! * *Taking the job away from the worker on timeout*: the worker is inside llama.cpp; the flag is how it hears.
//! * *`BlockedClientMeasureTimeStart` and `…End`*: they add the wait to SLOWLOG, commandstats and LATENCY HISTOGRAM. Those
//!   tell what held up the main thread, as for BLPOP; every answer of a second would be in the slow log and push out
//!   what belongs there. Redis still counts the handler and `on_reply`; how long clients wait is in `INFO infer_latency`.
//! * *`AbortBlock`* for a handler that fails after blocking: it drops our private data without `on_free`.

use std::cell::RefCell;
use std::ffi::{c_int, c_longlong, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis_module::{Context, raw};

use super::blocking::refuse_blocking;
use super::call::call;
use super::caller;
use super::delivery;
use super::guard::guarded;
use super::lock_times::REPLIES;
use super::reply::{Answer, Failure, send};

/// Redis adds the timeout to the time of day in milliseconds and fails on overflow; nobody waits longer.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// How far Redis' clock (time of day, milliseconds) may be ahead of ours when we ask whether a timeout was
/// reached.
const CLOCK_SLACK: Duration = Duration::from_millis(20);

/// Codes of failures that are for whoever runs the server, not only for the client.
const LOGGED: [&str; 4] = ["INTERNAL", "WORKERFAIL", "OOM", "LOADFAIL"];

/// How to block a client.
pub struct BlockOptions {
    /// The command, for error texts.
    pub command: &'static str,
    /// Longest wait; `None` for no limit. Redis checks it about ten times per second.
    pub timeout: Option<Duration>,
    /// Text after the code `TIMEOUT`, for instance how far the work got. Runs on the main thread.
    pub on_timeout: Box<dyn Fn() -> String + Send + Sync>,
}

impl fmt::Debug for BlockOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockOptions")
            .field("command", &self.command)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// What the callbacks share with the `PendingReply`.
struct Job {
    command: &'static str,
    /// Redis' id of the client.
    client: u64,
    deadline: Option<Instant>,
    on_timeout: Box<dyn Fn() -> String + Send + Sync>,
    cancel: Arc<AtomicBool>,
    slot: Mutex<Slot>,
}

enum Slot {
    /// Nobody has answered yet, or the answer was sent.
    Empty,
    Answer(Answer),
    Closure(Closure),
    /// The `PendingReply` was dropped without an answer.
    Dropped,
}

type Closure = Box<dyn FnOnce(&Context) -> Answer + Send>;

impl Job {
    fn put(&self, slot: Slot) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = slot;
    }

    fn take(&self) -> Slot {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *slot, Slot::Empty)
    }
}

/// The duty to answer one blocked client. Dropping it answers `INTERNAL`.
#[must_use = "dropping it answers the client with an INTERNAL error"]
pub struct PendingReply {
    client: NonNull<raw::RedisModuleBlockedClient>,
    /// `None` once the client is unblocked.
    job: Option<Arc<Job>>,
    cancel: Arc<AtomicBool>,
    /// See [`PendingReply::keep`].
    kept: Option<Box<dyn Send>>,
}

// SAFETY: the only thing that is done with `client` outside the main thread is UnblockClient, which Redis allows
// from any thread; `job`, `cancel` and `kept` are `Send` themselves (checked below).
unsafe impl Send for PendingReply {}

const _: fn() = || {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Job>();
};

impl fmt::Debug for PendingReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingReply").field("cancelled", &self.cancel.load(Ordering::Relaxed)).finish_non_exhaustive()
    }
}

impl PendingReply {
    /// Blocks the client whose command is being handled. At most once per command, only under
    /// `entry::dispatch`.
    ///
    /// # Errors
    /// `ERR` where Redis cannot block a client, see [`refuse_blocking`]; `INTERNAL` on misuse.
    pub fn block(ctx: &Context, options: BlockOptions) -> Result<Self, Failure> {
        refuse_blocking(ctx, options.command)?;
        let (Some(block), Some(set_privdata), Some(set_disconnect)) = (
            api!(RedisModule_BlockClient),
            api!(RedisModule_BlockClientSetPrivateData),
            api!(RedisModule_SetDisconnectCallback),
        ) else {
            return Err(Failure::internal("this server lacks functions for blocking a client"));
        };
        if !HandlerScope::may_block() {
            return Err(Failure::internal("a client was to be blocked twice or outside its command"));
        }
        delivery::start();
        let timeout = options.timeout.map(|timeout| timeout.clamp(Duration::from_millis(1), LONGEST_TIMEOUT));
        let cancel = Arc::new(AtomicBool::new(false));
        let job = Arc::new(Job {
            command: options.command,
            client: caller::client_id(ctx),
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            on_timeout: options.on_timeout,
            cancel: Arc::clone(&cancel),
            slot: Mutex::new(Slot::Empty),
        });
        let milliseconds = timeout.map_or(0, |timeout| timeout.as_millis());
        let milliseconds = c_longlong::try_from(milliseconds).unwrap_or(c_longlong::MAX);
        // SAFETY: ctx is the context of a running command that may block (checked above); the callbacks are
        // static functions. A timeout callback is always given: without one Redis refuses CLIENT UNBLOCK.
        let client = unsafe { block(ctx.ctx, Some(on_reply), Some(on_timeout), Some(on_free), milliseconds) };
        let Some(client) = NonNull::new(client) else {
            return Err(Failure::internal("the server did not block the client"));
        };
        HandlerScope::blocked(&job);
        let privdata = Arc::into_raw(Arc::clone(&job)).cast_mut().cast::<c_void>();
        // SAFETY: the handle was just made; its private data is now one strong count of the Arc, which on_free
        // takes back.
        unsafe { set_privdata(client.as_ptr(), privdata) };
        // SAFETY: as above; no event can be handled before this command's handler returns.
        unsafe { set_disconnect(client.as_ptr(), Some(on_disconnect)) };
        Ok(Self { client, job: Some(job), cancel, kept: None })
    }

    /// The flag that is set when nobody waits for the answer any more: disconnect, CLIENT KILL, CLIENT UNBLOCK,
    /// timeout, or this server having become a replica. It may be polled often and from any thread.
    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancel)
    }

    /// Redis' id of the client; 0 once it is answered.
    pub fn client_id(&self) -> u64 {
        self.job.as_ref().map_or(0, |job| job.client)
    }

    /// Drops `value` right before the client is answered: whoever still finds it knows that the client waits.
    pub fn keep(&mut self, value: impl Send + 'static) {
        self.kept = Some(Box::new(value));
    }

    /// Answers the client. Any thread.
    pub fn finish(mut self, answer: Answer) {
        self.settle(Slot::Answer(answer));
    }

    /// Answers the client with what `work` returns. `work` runs on the main thread with the context of the real
    /// client: its database, ACL user and RESP version; its writes reach AOF and replicas as one MULTI/EXEC. It
    /// must be short, it must not reply itself, and it does not run if the client is gone. Any thread.
    pub fn finish_with(mut self, work: impl FnOnce(&Context) -> Answer + Send + 'static) {
        self.settle(Slot::Closure(Box::new(work)));
    }

    fn settle(&mut self, slot: Slot) {
        let Some(job) = self.job.take() else { return };
        drop(self.kept.take());
        job.put(slot);
        let unblock = Unblock { client: self.client, job };
        delivery::make(move || unblock.call());
    }
}

/// The call that gives the handle of a blocked client back, made by a thread that is not niced: it takes a lock of the server.
struct Unblock {
    client: NonNull<raw::RedisModuleBlockedClient>,
    job: Arc<Job>,
}

// SAFETY: UnblockClient may be called from any thread, and `job` is `Send` itself.
unsafe impl Send for Unblock {}

impl Unblock {
    fn call(self) {
        let Self { client, job } = self;
        // The handle's own count, made in `block`, keeps the job alive, so this address stays valid.
        let privdata = Arc::as_ptr(&job).cast_mut().cast::<c_void>();
        drop(job);
        if let Some(unblock) = api!(RedisModule_UnblockClient) {
            // SAFETY: the handle is still ours, and is not used again. UnblockClient overwrites the private data, so it gets the
            // pointer that is already there.
            unsafe { unblock(client.as_ptr(), privdata) };
        }
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        self.settle(Slot::Dropped);
    }
}

/// What `entry::dispatch` has to know about the handler it runs: may it block the client, has it done so.
pub(super) struct HandlerScope {
    outer: Scope,
}

enum Scope {
    NoHandler,
    Running,
    Blocked(Arc<Job>),
}

thread_local! {
    static SCOPE: RefCell<Scope> = const { RefCell::new(Scope::NoHandler) };
}

impl HandlerScope {
    pub(super) fn enter() -> Self {
        Self { outer: SCOPE.replace(Scope::Running) }
    }

    /// The job of the client that was blocked since `enter`, if one was.
    pub(super) fn leave(self) -> Option<BlockedHere> {
        match SCOPE.replace(self.outer) {
            Scope::Blocked(job) => Some(BlockedHere(job)),
            Scope::NoHandler | Scope::Running => None,
        }
    }

    fn may_block() -> bool {
        SCOPE.with_borrow(|scope| matches!(scope, Scope::Running))
    }

    fn blocked(job: &Arc<Job>) {
        SCOPE.set(Scope::Blocked(Arc::clone(job)));
    }
}

/// A client that the handler blocked.
pub(super) struct BlockedHere(Arc<Job>);

impl BlockedHere {
    /// Answers with `answer` if the handler dropped the `PendingReply`; otherwise whoever holds it will answer.
    pub(super) fn answer_if_dropped(self, answer: Answer) {
        let mut slot = self.0.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*slot, Slot::Dropped) {
            *slot = Slot::Answer(answer);
        } else {
            ::log::error!("{} ended with a reply after it had handed the reply on", self.0.command);
        }
    }
}

/// The job of the blocked client in a reply or timeout callback.
///
/// The reference must not outlive the callback.
fn job_of<'a>(ctx: *mut raw::RedisModuleCtx) -> Option<&'a Job> {
    let privdata = api!(RedisModule_GetBlockedClientPrivateData)?;
    // SAFETY: ctx is the context of a callback of a blocked client.
    let job = unsafe { privdata(ctx) }.cast_const().cast::<Job>();
    // SAFETY: set in `block` to an Arc's contents, which live until on_free; that runs after this callback.
    unsafe { job.as_ref() }
}

extern "C" fn on_reply(ctx: *mut raw::RedisModuleCtx, _argv: *mut *mut raw::RedisModuleString, _argc: c_int) -> c_int {
    let since = Instant::now();
    guarded("a reply callback", || {
        let context = Context::new(ctx);
        send(&context, &answer_of(&context, job_of(ctx)));
    });
    REPLIES.record(since.elapsed());
    0
}

fn answer_of(ctx: &Context, job: Option<&Job>) -> Answer {
    let Some(job) = job else {
        return Err(Failure::internal("the answer was lost; please report this"));
    };
    let lost = || {
        Err(Failure::internal(format!(
            "{} was given up because of an error in the module; see the server log",
            job.command
        )))
    };
    let answer = match job.take() {
        Slot::Answer(answer) => answer,
        Slot::Closure(work) => guarded("the end of a command", || work(ctx)).unwrap_or_else(lost),
        Slot::Dropped | Slot::Empty => lost(),
    };
    match &answer {
        Err(failure) if LOGGED.contains(&failure.code) => {
            ::log::warn!("{} of client {} failed: {failure}", job.command, job.client);
        }
        _ => {}
    }
    answer
}

extern "C" fn on_timeout(
    ctx: *mut raw::RedisModuleCtx,
    _argv: *mut *mut raw::RedisModuleString,
    _argc: c_int,
) -> c_int {
    guarded("a timeout callback", || {
        send(&Context::new(ctx), &Err(timed_out(job_of(ctx))));
    });
    0
}

/// Redis calls the timeout callback for CLIENT UNBLOCK too; only the deadline tells the two apart. A flag that is set
/// already is [`cancel`]'s.
fn timed_out(job: Option<&Job>) -> Failure {
    let Some(job) = job else {
        return Failure::new("CANCELLED", "the command was cancelled");
    };
    if job.cancel.swap(true, Ordering::Relaxed) {
        return Failure::new("CANCELLED", format!("{} was cancelled by INFER.CANCEL", job.command));
    }
    if job.deadline.is_some_and(|deadline| Instant::now() + CLOCK_SLACK >= deadline) {
        let text = guarded("the text of a timeout", || (job.on_timeout)())
            .unwrap_or_else(|| format!("{} ran out of time", job.command));
        Failure::new("TIMEOUT", text)
    } else {
        Failure::new("CANCELLED", format!("{} was cancelled by CLIENT UNBLOCK", job.command))
    }
}

/// Ends the wait of the client with this id: it is answered `CANCELLED`, and `flag` tells whoever works for it. The
/// caller knows that the client waits and that `flag` is that of its [`PendingReply`], which is still to be answered.
///
/// # Errors
/// What Redis answers to CLIENT UNBLOCK, when it refuses.
pub fn cancel(ctx: &Context, client: u64, flag: &AtomicBool) -> Result<(), Failure> {
    flag.store(true, Ordering::Relaxed);
    // Without C: who may cancel is for the command to decide, the right to CLIENT is not needed for it.
    call(ctx, "CLIENT", c"vE3", &[b"UNBLOCK", client.to_string().as_bytes()]).map(drop)
}

extern "C" fn on_disconnect(_ctx: *mut raw::RedisModuleCtx, client: *mut raw::RedisModuleBlockedClient) {
    guarded("a disconnect callback", || {
        // In this callback the private data is found through the handle, not through the context.
        let Some(privdata) = api!(RedisModule_BlockClientGetPrivateData) else { return };
        // SAFETY: Redis passes a live handle.
        let job = unsafe { privdata(client) }.cast_const().cast::<Job>();
        // SAFETY: as in `job_of`.
        if let Some(job) = unsafe { job.as_ref() } {
            job.cancel.store(true, Ordering::Relaxed);
        }
    });
}

extern "C" fn on_free(_ctx: *mut raw::RedisModuleCtx, privdata: *mut c_void) {
    guarded("the end of a blocked client", || {
        if !privdata.is_null() {
            // SAFETY: the strong count that `block` made; Redis calls this once per handle.
            drop(unsafe { Arc::from_raw(privdata.cast_const().cast::<Job>()) });
        }
    });
}
