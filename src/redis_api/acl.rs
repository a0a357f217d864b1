//! The ACL category `@infer`, and what a user may run.
//!
//! Keys are not checked here: [`super::keyspace`] runs every command as the caller. Key specs alone are no security
//! boundary, because a malformed key count makes Redis check no key at all.

use redis_module::{Context, RedisString, raw};

use super::caller::user_name;
use super::log;
use super::preflight::Refused;

/// The ACL category `@infer`, an entry for `redis_module!`'s `data_types` list.
///
/// The macro's own `acl_categories` list cannot be used: Redis keeps a category when its module is unloaded, and
/// the macro takes "exists already" for a failure, so the module could not be loaded a second time.
#[derive(Debug)]
pub struct Category;

/// See [`Category`].
pub static CATEGORY: Category = Category;

impl Category {
    /// Adds the category if the server can (7.4 or newer) and does not have it. The name is the one that
    /// `redis_module!` calls.
    ///
    /// # Errors
    /// [`Refused`] if the server has no room for another category.
    pub fn create_data_type(&self, ctx: *mut raw::RedisModuleCtx) -> Result<(), Refused> {
        let Some(add) = api!(RedisModule_AddACLCategory) else {
            return Ok(());
        };
        // SAFETY: ctx is the context of OnLoad, the only place where Redis allows this; the name is
        // NUL-terminated.
        let status = unsafe { add(ctx, c"infer".as_ptr()) };
        let exists = std::io::Error::last_os_error().raw_os_error() == Some(libc::EBUSY);
        if status == 0 || exists {
            return Ok(());
        }
        log::line(::log::Level::Error, "the server cannot add the ACL category @infer");
        Err(Refused)
    }
}

/// Whether the user of `ctx` may run `command` with one argument that is no key. `false` where there is no user.
pub fn may_run(ctx: &Context, command: &str) -> bool {
    let (Some(find_user), Some(free_user), Some(check)) = (
        api!(RedisModule_GetModuleUserFromUserName),
        api!(RedisModule_FreeModuleUser),
        api!(RedisModule_ACLCheckCommandPermissions),
    ) else {
        return false;
    };
    let Some(name) = user_name(ctx) else { return false };
    // SAFETY: the lock is held; the name is a live string.
    let user = unsafe { find_user(name.inner) };
    if user.is_null() {
        return false;
    }
    let words = [command, "x"].map(|word| RedisString::create_from_slice(std::ptr::null_mut(), word.as_bytes()));
    let mut argv = words.each_ref().map(|word| word.inner);
    // SAFETY: the user was just found; two live strings.
    let status = unsafe { check(user, argv.as_mut_ptr(), 2) };
    // SAFETY: the handle made above, freed once; the user itself stays with Redis.
    unsafe { free_user(user) };
    status == 0
}
