//! Work on keys as a client that has sent `ASKING` or `READONLY` to a node of a cluster.
//!
//! Redis lets such a client read keys that are not this node's. `RM_Call` gives the two flags on from the client of its context to the one
//! that it runs the command with, but no context that a thread may have is of a client with flags, and there is no function that
//! sets them. So the keyspace thread hands such work to the main thread, to a client that Redis itself made from the caller's and
//! that keeps them:
//!
//! * In the handler of the caller's command a command of ours is called with `K`. It blocks. Its client is one that `RM_Call` made, with
//!   the flags of the caller, and it stays as long as it is blocked, whatever becomes of the caller.
//! * For each scope of work it is unblocked. In its reply callback, which has a context of it, first the next one is made in the same way,
//!   to which the flags go on, then the work is done.
//! * When nobody needs it any more it is unblocked without work.
//!
//! The command that is called is `INFER.PS`, which any caller's command may be: [`taken`] sees that it is not to be run.
//!
//! Rejected: `SetClusterFlags`, which opens the whole server to every client for ever; the flags in Redis' struct of a client,
//! which is no interface; all the work in the caller's own reply callback, of which there is only one, at the end.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use redis_infer_sync::Mailbox;
use redis_module::{Context, raw};

use super::call::Owned;
use super::delivery;
use super::guard::guarded;

/// Work on the main thread, with a context of a client that has the caller's flags.
type Work = Box<dyn FnOnce(&Context) + Send>;

/// A way to do work with the flags of a client, until it is dropped.
pub(super) struct Relay(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// One at most of each; nobody waits for whoever puts one in.
    held: Mailbox<Held>,
    work: Mailbox<Work>,
}

/// The right to unblock a client that has the flags, once.
struct Held(NonNull<raw::RedisModuleBlockedClient>);

// SAFETY: all that is done with it is UnblockClient, which Redis allows from any thread.
unsafe impl Send for Held {}

thread_local! {
    /// For whom the command that is called right now is to block.
    static ASKED: Cell<Option<Arc<Shared>>> = const { Cell::new(None) };
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relay")
    }
}

impl Relay {
    /// For the client of `ctx`, the context of a handler; `None` where Redis does not go along.
    pub(super) fn begin(ctx: &Context) -> Option<Arc<Self>> {
        let shared = Arc::new(Shared::default());
        hold(ctx, &shared);
        (!shared.held.is_empty()).then(|| Arc::new(Self(shared)))
    }

    /// Has the main thread do `work` soon; one at a time. Any thread. Dropped where that is not possible any more.
    pub(super) fn run(&self, work: Work) {
        let Some(held) = self.0.take_held() else { return };
        self.0.work.post(work);
        held.unblock(&self.0);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The last holder may be a niced thread, and Redis' own lock is taken here.
        let shared = Arc::clone(&self.0);
        delivery::make(move || {
            if let Some(held) = shared.take_held() {
                held.unblock(&shared);
            }
        });
    }
}

impl Shared {
    fn take_held(&self) -> Option<Held> {
        self.held.take().pop()
    }
}

impl Held {
    fn unblock(self, shared: &Arc<Shared>) {
        let Some(unblock) = api!(RedisModule_UnblockClient) else { return };
        // SAFETY: the handle is unblocked once, since it was taken; the private data is what is there already, see `taken`.
        unsafe { unblock(self.0.as_ptr(), Arc::as_ptr(shared).cast_mut().cast::<c_void>()) };
    }
}

/// Makes a client with the flags of the one of `ctx`, blocked.
fn hold(ctx: &Context, shared: &Arc<Shared>) {
    let Some(call) = api!(RedisModule_Call) else { return };
    ASKED.set(Some(Arc::clone(shared)));
    // SAFETY: the lock is held, and the context knows its module, as K demands; no arguments follow.
    let reply = unsafe { call(ctx.ctx, c"INFER.PS".as_ptr(), c"E3K".as_ptr()) };
    // If it did not come to that.
    ASKED.set(None);
    if !reply.is_null() {
        // A promise, of which nothing is wanted.
        drop(Owned(reply));
    }
}

/// Blocks the client of `ctx` if its command was called by [`hold`]; `false` if it is to be run.
pub(super) fn taken(ctx: &Context) -> bool {
    let Some(shared) = ASKED.take() else { return false };
    let (Some(block), Some(set_privdata)) =
        (api!(RedisModule_BlockClient), api!(RedisModule_BlockClientSetPrivateData))
    else {
        return true;
    };
    // SAFETY: the context is that of a command called with K, which may block; the callbacks are static functions. Nobody can
    // name this client, so it needs no callback for a timeout.
    let client = unsafe { block(ctx.ctx, Some(on_turn), None, Some(on_free), 0) };
    let Some(client) = NonNull::new(client) else { return true };
    let privdata = Arc::into_raw(Arc::clone(&shared)).cast_mut().cast::<c_void>();
    // SAFETY: the handle was just made; its private data is one strong count of the Arc, which `on_free` takes back.
    unsafe { set_privdata(client.as_ptr(), privdata) };
    shared.held.post(Held(client));
    true
}

extern "C" fn on_turn(ctx: *mut raw::RedisModuleCtx, _argv: *mut *mut raw::RedisModuleString, _argc: c_int) -> c_int {
    guarded("work on the keyspace", || {
        let Some(privdata) = api!(RedisModule_GetBlockedClientPrivateData) else { return };
        // SAFETY: ctx is the context of a callback of a blocked client.
        let shared = unsafe { privdata(ctx) }.cast_const().cast::<Shared>();
        if shared.is_null() {
            return;
        }
        // SAFETY: set in `taken` to the contents of an Arc, of which `on_free` still has a count.
        unsafe { Arc::increment_strong_count(shared) };
        // SAFETY: the count that was just added.
        let shared = unsafe { Arc::from_raw(shared) };
        let Some(work) = shared.work.take().pop() else { return };
        let context = Context::new(ctx);
        // Before the work, with which the last use may end.
        hold(&context, &shared);
        work(&context);
    });
    0
}

unsafe extern "C" fn on_free(_ctx: *mut raw::RedisModuleCtx, privdata: *mut c_void) {
    guarded("the end of work on the keyspace", || {
        // SAFETY: the count that `taken` gave away, taken back once.
        drop(unsafe { Arc::from_raw(privdata.cast_const().cast::<Shared>()) });
    });
}
