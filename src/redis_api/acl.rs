//! The ACL category `@infer`.
//!
//! Keys are not checked here: [`super::keyspace`] runs every command as the caller. Key specs alone are no security
//! boundary, because a malformed key count makes Redis check no key at all.

use redis_module::raw;

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
