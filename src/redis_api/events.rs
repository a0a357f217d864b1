//! Server events that `redis_module` does not offer.

use std::ffi::c_void;

use redis_infer_sync::MainLock;
use redis_module::{Context, raw};

use super::guard::guarded;
use super::reply::Failure;

static SHUTDOWN: MainLock<Option<fn()>> = MainLock::new(None);

/// Calls `hook` when the server shuts down: on the main thread with the lock held, after the last save and
/// right before `exit`, which runs C++ destructors while threads that still live use what they destroy. So
/// the hook should stop and join all threads, with a deadline. A later call replaces the hook.
///
/// # Errors
/// `INTERNAL` if Redis refuses the subscription.
pub fn on_shutdown(ctx: &Context, hook: fn()) -> Result<(), Failure> {
    *SHUTDOWN.lock() = Some(hook);
    let event = raw::RedisModuleEvent { id: raw::REDISMODULE_EVENT_SHUTDOWN, dataver: 1 };
    let Some(subscribe) = api!(RedisModule_SubscribeToServerEvent) else {
        return Err(Failure::internal("this server has no module events"));
    };
    // SAFETY: ctx is the live context of OnLoad; the callback is a static function.
    let status = unsafe { subscribe(ctx.ctx, event, Some(shutting_down)) };
    if status == 0 {
        Ok(())
    } else {
        Err(Failure::internal("the server refused the subscription to its shutdown event"))
    }
}

extern "C" fn shutting_down(
    _ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    _subevent: u64,
    _data: *mut c_void,
) {
    guarded("the shutdown event", || {
        let hook = *SHUTDOWN.lock();
        if let Some(hook) = hook {
            hook();
        }
    });
}
