//! Removing a large vector set without holding up the server.
//!
//! `UNLINK` leaves the freeing of a value to a thread of Redis only if its type tells that it is much work. The type of
//! vector sets (up to Redis 8.4 at least) does not, so that the memory of 100,000 elements is given back while all clients wait:
//! 70 ms. Here the value in the key is first exchanged for an empty set, which the module API lets anybody do
//! (`ModuleTypeReplaceValue`), and then a thread of ours gives the old one back, as the server's own thread would after `FLUSHDB ASYNC`.
//!
//! The two functions for that, of an empty set and of freeing one, are no part of the module API: the server exports them because
//! it exports all its symbols. So this is done only in the versions of Redis whose source says that it can be ([`KNOWN`]),
//! and only for sets that are worth it. In all others `UNLINK` does the whole.
//!
//! Rejected: removing the elements one by one (crashes, see [`super::vset`]); moving the key to an empty database for `FLUSHDB ASYNC`
//! (other modules drop their data at any flush, and a replica may have keys there).

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ops::RangeInclusive;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use redis_module::{RedisString, raw};

use super::call::call;
use super::keyspace::{Keyspace, Reply};
use super::keyspace_thread::leave_signals_to_the_main_thread;
use super::reply::Failure;

/// The versions of Redis in which this is known to work: 8.2, in the form of `GetServerVersion`.
const KNOWN: RangeInclusive<c_int> = 0x0008_0200..=0x0008_02ff;

/// Fewer elements are freed in less than a millisecond.
const LARGE: i64 = 1000;

/// At most 15 bytes, the longest thread name of the kernel.
const THREAD: &str = "infer-free";

/// Sets that were freed by a thread of their own.
static FREED_APART: AtomicU64 = AtomicU64::new(0);

/// How many sets were freed without the lock since the module was loaded. Any thread.
pub fn freed_apart() -> u64 {
    FREED_APART.load(Ordering::Relaxed)
}

/// Removes the key `key`, whatever it holds; a large vector set without holding the lock for long.
///
/// # Errors
/// `NOPERM`, or what Redis says to `UNLINK`; then the key is as it was.
pub(super) fn remove(keyspace: &Keyspace<'_>, key: &[u8]) -> Result<(), Failure> {
    // Nothing may be exchanged that is not removed then.
    keyspace.check_write("UNLINK", &[key])?;
    let old = is_large_set(keyspace, key).then(|| take_out(keyspace, key)).flatten();
    let removed = keyspace.write("UNLINK", &[key]).map(drop);
    match (old, &removed) {
        (None, _) => {}
        (Some(old), Ok(())) => old.free_apart(),
        (Some(old), Err(_)) => old.put_back(keyspace, key),
    }
    removed
}

fn is_large_set(keyspace: &Keyspace<'_>, key: &[u8]) -> bool {
    // Asked as the server: the caller may not be allowed to run VCARD. It is an error for all other types.
    matches!(call(keyspace.context(), "VCARD", c"vE3", &[key]), Ok(Some(Reply::Int(elements))) if elements >= LARGE)
}

/// Takes the set out of its key and leaves an empty one there. `None` where that is not possible.
fn take_out(keyspace: &Keyspace<'_>, key: &[u8]) -> Option<Taken> {
    let functions = Functions::find()?;
    // SAFETY: see `Functions`; one dimension, no quantization, the smallest number of links.
    let empty = NonNull::new(unsafe { (functions.create)(1, 0, 4) })?;
    let empty = Taken { value: empty, free: functions.free };
    let old = exchange(keyspace, key, empty.value)?;
    // It is in the key now and goes with it.
    std::mem::forget(empty);
    Some(Taken { value: old, free: functions.free })
}

/// Puts `value` into `key`, which holds a vector set, and gives what was there.
fn exchange(keyspace: &Keyspace<'_>, key: &[u8], value: NonNull<c_void>) -> Option<NonNull<c_void>> {
    let (open, close) = (api!(RedisModule_OpenKey)?, api!(RedisModule_CloseKey)?);
    let (type_of, replace) = (api!(RedisModule_ModuleTypeGetType)?, api!(RedisModule_ModuleTypeReplaceValue)?);
    let ctx = keyspace.context().ctx;
    let name = RedisString::create_from_slice(ctx, key);
    let mode = raw::REDISMODULE_READ | raw::REDISMODULE_WRITE;
    // SAFETY: the lock is held; the context and the name are live.
    let handle = unsafe { open(ctx, name.inner, mode.cast_signed()) };
    if handle.is_null() {
        return None;
    }
    // SAFETY: the handle was just opened and is not null.
    let vector_sets = unsafe { type_of(handle) };
    let mut old = std::ptr::null_mut();
    // SAFETY: the handle is open. Its type is the one of vector sets, because VCARD took the key for one, and `value` is
    // one; ReplaceValue writes to `old` when it returns OK (0).
    let replaced = unsafe { replace(handle, vector_sets, value.as_ptr(), &raw mut old) == 0 };
    // SAFETY: closed once; it is not used afterwards.
    unsafe { close(handle) };
    if replaced { NonNull::new(old) } else { None }
}

/// A vector set that is in no key. Freed when dropped.
struct Taken {
    value: NonNull<c_void>,
    free: Free,
}

// SAFETY: nobody else has the value, except threads of VSIM, for whose end `free` waits.
unsafe impl Send for Taken {}

impl Taken {
    fn free_apart(self) {
        let free = move || {
            leave_signals_to_the_main_thread();
            drop(self);
            FREED_APART.fetch_add(1, Ordering::Relaxed);
        };
        // If there is no thread to be had it is freed here, with the closure.
        if let Err(error) = thread::Builder::new().name(THREAD.to_owned()).spawn(free) {
            ::log::info!("cannot start the thread {THREAD}, so all clients waited: {error}");
        }
    }

    fn put_back(self, keyspace: &Keyspace<'_>, key: &[u8]) {
        if let Some(empty) = exchange(keyspace, key, self.value) {
            drop(Self { value: empty, free: self.free });
            std::mem::forget(self);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: see `Functions`; the value is a vector set in no key, freed once.
        unsafe { (self.free)(self.value.as_ptr()) };
    }
}

type Create = unsafe extern "C" fn(dimensions: c_uint, quantization: u32, links: u32) -> *mut c_void;
type Free = unsafe extern "C" fn(value: *mut c_void);

/// Two functions of the server. `createVectorSetObject` gives a new empty set, or NULL; only with the lock held. `VectorSetFree` is
/// what the type of vector sets has as its function of freeing: it waits for threads that search the set, then
/// frees everything in it, which nothing else refers to. The server itself calls it on a thread for `FLUSHDB ASYNC`.
#[derive(Clone, Copy)]
struct Functions {
    create: Create,
    free: Free,
}

impl Functions {
    fn find() -> Option<Self> {
        let version = api!(RedisModule_GetServerVersion)?;
        // SAFETY: takes no arguments and returns a constant of the server.
        if !KNOWN.contains(&unsafe { version() }) {
            return None;
        }
        let create = symbol(c"createVectorSetObject")?;
        let free = symbol(c"VectorSetFree")?;
        // SAFETY: in these versions the function of this name has this type.
        let create = unsafe { std::mem::transmute::<NonNull<c_void>, Create>(create) };
        // SAFETY: as above.
        let free = unsafe { std::mem::transmute::<NonNull<c_void>, Free>(free) };
        Some(Self { create, free })
    }
}

fn symbol(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: the name is NUL-terminated; with RTLD_DEFAULT the server itself is searched first.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) })
}
