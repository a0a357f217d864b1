//! Checks made before anything else when the module is loaded.
//!
//! On an older server some functions of the module API are missing, and `redis_module` aborts the whole server
//! when it calls one while registering commands. That is refused here with one line in the log.
//!
//! `redis_module!` has no early hook, but it "creates" the entries of its `data_types` list before it registers
//! commands; [`PREFLIGHT`] stands in that list and creates nothing.

use redis_module::raw;

use super::log;

/// The functions of the module API that this module or `redis_module` calls, as (name, present) pairs.
macro_rules! functions {
    ($($name:ident)*) => {
        [$((stringify!($name), api!($name).is_some())),*]
    };
}

/// The entry for `redis_module!`'s `data_types` list.
#[derive(Debug)]
pub struct Preflight;

/// See [`Preflight`].
pub static PREFLIGHT: Preflight = Preflight;

/// The module cannot run here; the reason is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

impl Preflight {
    /// Checks the server and sets the environment that llama.cpp needs. The name is the one that
    /// `redis_module!` calls.
    ///
    /// # Errors
    /// [`Refused`], after writing one line to the log; Redis then does not load the module.
    pub fn create_data_type(&self, _ctx: *mut raw::RedisModuleCtx) -> Result<(), Refused> {
        let functions = missing_functions();
        if !functions.is_empty() {
            log::line(
                ::log::Level::Error,
                &format!(
                    "redis-infer needs Redis 7.2 or newer, or Valkey 8 or newer; {} lacks {}",
                    server(),
                    functions.join(", ")
                ),
            );
            return Err(Refused);
        }
        forbid_ggml_backtrace();
        Ok(())
    }
}

fn missing_functions() -> Vec<&'static str> {
    functions![
        RedisModule_ACLCheckCommandPermissions
        RedisModule_ACLCheckKeyPermissions
        RedisModule_AvoidReplicaTraffic
        RedisModule_BlockClient
        RedisModule_BlockClientGetPrivateData
        RedisModule_BlockClientSetPrivateData
        RedisModule_Call
        RedisModule_CallReplyArrayElement
        RedisModule_CallReplyBool
        RedisModule_CallReplyDouble
        RedisModule_CallReplyInteger
        RedisModule_CallReplyLength
        RedisModule_CallReplyMapElement
        RedisModule_CallReplySetElement
        RedisModule_CallReplyStringPtr
        RedisModule_CallReplyType
        RedisModule_CallReplyVerbatim
        RedisModule_CloseKey
        RedisModule_CreateCommand
        RedisModule_CreateString
        RedisModule_FreeCallReply
        RedisModule_FreeModuleUser
        RedisModule_FreeString
        RedisModule_FreeThreadSafeContext
        RedisModule_GetBlockedClientPrivateData
        RedisModule_GetClientId
        RedisModule_GetCommand
        RedisModule_GetContextFlags
        RedisModule_GetCurrentUserName
        RedisModule_GetDetachedThreadSafeContext
        RedisModule_GetModuleUserFromUserName
        RedisModule_GetSelectedDb
        RedisModule_InfoAddFieldCString
        RedisModule_InfoAddFieldULongLong
        RedisModule_InfoAddSection
        RedisModule_LatencyAddSample
        RedisModule_KeyType
        RedisModule_LoadConfigs
        RedisModule_Log
        RedisModule_OpenKey
        RedisModule_RegisterInfoFunc
        RedisModule_RegisterNumericConfig
        RedisModule_ReplyWithArray
        RedisModule_ReplyWithDouble
        RedisModule_ReplyWithError
        RedisModule_ReplyWithLongLong
        RedisModule_ReplyWithMap
        RedisModule_ReplyWithSimpleString
        RedisModule_ReplyWithStringBuffer
        RedisModule_RetainString
        RedisModule_SelectDb
        RedisModule_SetCommandACLCategories
        RedisModule_SetCommandInfo
        RedisModule_SetContextUser
        RedisModule_SetDisconnectCallback
        RedisModule_SetModuleOptions
        RedisModule_StringPtrLen
        RedisModule_SubscribeToServerEvent
        RedisModule_ThreadSafeContextLock
        RedisModule_ThreadSafeContextUnlock
        RedisModule_UnblockClient
        RedisModule_ValueLength
    ]
    .into_iter()
    .filter(|(_, present)| !present)
    .map(|(name, _)| name.trim_start_matches("RedisModule_"))
    .collect()
}

/// The server's version for people, if it tells.
fn server() -> String {
    let Some(version) = api!(RedisModule_GetServerVersion) else {
        return "this server".to_owned();
    };
    // SAFETY: takes no arguments and returns a constant of the server.
    let version = unsafe { version() };
    format!("this server (version {}.{}.{})", (version >> 16) & 0xff, (version >> 8) & 0xff, version & 0xff)
}

/// Keeps ggml from starting a debugger in the crashing server to print a backtrace; Redis prints its own.
fn forbid_ggml_backtrace() {
    const NAME: &str = "GGML_NO_BACKTRACE";
    if std::env::var_os(NAME).is_none() {
        // SAFETY: on the main thread while the module loads. At server start there is no other thread yet; at
        // MODULE LOAD Redis' own background threads run, and they do not use the environment.
        unsafe { std::env::set_var(NAME, "1") };
    }
}
