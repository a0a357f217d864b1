//! Server events that `redis_module` does not offer.

use std::ffi::{CStr, c_void};

use redis_infer_sync::MainLock;
use redis_module::{Context, raw};

use super::guard::guarded;
use super::reply::Failure;

static SHUTDOWN: MainLock<Option<fn()>> = MainLock::new(None);

/// Gets the names of the settings that were changed.
pub type ConfigHook = fn(&Context, &[&CStr]);

static CONFIG_CHANGE: MainLock<Option<ConfigHook>> = MainLock::new(None);

/// Calls `hook` when the server shuts down: on the main thread with the lock held, after the last save and
/// right before `exit`, which runs C++ destructors while threads that still live use what they destroy. So
/// the hook should stop and join all threads, with a deadline. A later call replaces the hook.
///
/// # Errors
/// `INTERNAL` if Redis refuses the subscription.
pub fn on_shutdown(ctx: &Context, hook: fn()) -> Result<(), Failure> {
    *SHUTDOWN.lock() = Some(hook);
    subscribe(ctx, raw::REDISMODULE_EVENT_SHUTDOWN, Some(shutting_down))
}

/// Calls `hook` after `CONFIG SET` or another command has changed settings: on the main thread with the lock held. A later call
/// replaces the hook.
///
/// # Errors
/// `INTERNAL` if Redis refuses the subscription.
pub fn on_config_change(ctx: &Context, hook: ConfigHook) -> Result<(), Failure> {
    *CONFIG_CHANGE.lock() = Some(hook);
    subscribe(ctx, raw::REDISMODULE_EVENT_CONFIG, Some(settings_changed))
}

fn subscribe(ctx: &Context, id: u64, callback: raw::RedisModuleEventCallback) -> Result<(), Failure> {
    let event = raw::RedisModuleEvent { id, dataver: 1 };
    let Some(subscribe) = api!(RedisModule_SubscribeToServerEvent) else {
        return Err(Failure::internal("this server has no module events"));
    };
    // SAFETY: ctx is the live context of OnLoad; the callback is a static function.
    let status = unsafe { subscribe(ctx.ctx, event, callback) };
    if status == 0 {
        Ok(())
    } else {
        Err(Failure::internal("the server refused the subscription to one of its events"))
    }
}

extern "C" fn settings_changed(
    ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    _subevent: u64,
    data: *mut c_void,
) {
    guarded("the event of changed settings", || {
        let hook = *CONFIG_CHANGE.lock();
        // SAFETY: Redis passes this struct with this event, alive through the callback, or nothing.
        let change = unsafe { data.cast::<raw::RedisModuleConfigChange>().as_ref() };
        let (Some(hook), Some(change)) = (hook, change) else { return };
        if change.config_names.is_null() {
            return;
        }
        // SAFETY: so many names, alive through the callback.
        let names = unsafe { std::slice::from_raw_parts(change.config_names, change.num_changes as usize) };
        let names = names.iter().filter(|name| !name.is_null());
        // SAFETY: each is NUL-terminated.
        let names: Vec<&CStr> = names.map(|&name| unsafe { CStr::from_ptr(name) }).collect();
        hook(&Context::new(ctx), &names);
    });
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
