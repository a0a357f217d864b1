//! Where Redis can block a client, and where not.

use redis_module::{Context, ContextFlags};

use super::reply::Failure;

/// Refuses to go on where Redis cannot block a client: in MULTI, scripts and functions, calls from other
/// modules (where blocking aborts the server), and on the replication link.
///
/// # Errors
/// `ERR` with the name of `command`.
pub fn refuse_blocking(ctx: &Context, command: &'static str) -> Result<(), Failure> {
    let never = ContextFlags::DENY_BLOCKING | ContextFlags::MULTI | ContextFlags::LUA | ContextFlags::REPLICATED;
    if ctx.get_flags().intersects(never) {
        return Err(Failure::err(format!(
            "{command} cannot run inside MULTI, a script or another module: it waits for a worker thread"
        )));
    }
    Ok(())
}
