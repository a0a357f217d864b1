//! What Redis tells about a command: `COMMAND INFO`, `COMMAND DOCS`, `COMMAND GETKEYS`, its arity and ACL categories.
//!
//! `redis_module!` can only say where keys stand, not what is done with them, so Redis takes every key for one that is
//! written. Here the whole description goes to `RM_SetCommandInfo`, which may be called once for each command and copies
//! what it gets. The descriptions themselves are data, in `commands::docs`.
//!
//! Redis derives no ACL category of a module's command from its flags: `@read` and the like are set here too.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;
use std::sync::OnceLock;

use redis_module::{Context, raw};

use super::reply::Failure;

/// One command, as `COMMAND` describes it.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    /// As `lib.rs` registers it.
    pub name: &'static CStr,
    /// One sentence without a full stop.
    pub summary: &'static CStr,
    /// In O notation, with the meaning of its letters.
    pub complexity: &'static CStr,
    /// Version of the module that had it first.
    pub since: &'static CStr,
    /// Number of words with the command's name; negative for "at least".
    pub arity: c_int,
    /// For clients and proxies, parted by spaces.
    pub tips: &'static CStr,
    /// ACL categories beside `@infer`, parted by spaces.
    pub categories: &'static str,
    /// Where its keys stand.
    pub keys: &'static [Keys],
    /// Its arguments in order, in groups so that commands can share one.
    pub arguments: &'static [&'static [Argument]],
}

/// Where keys stand and what is done with them.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// Position of the key, or of the number of keys; the command's name is at 0.
    pub at: u8,
    /// Whether `at` is a key or the number of keys that follow.
    pub count: Count,
    /// What is done with them.
    pub access: Access,
    /// For people, for example which keys are derived from this one.
    pub notes: &'static CStr,
}

impl Keys {
    /// One key, the first argument.
    #[must_use]
    pub const fn first(access: Access, notes: &'static CStr) -> Self {
        Self { at: 1, count: Count::One, access, notes }
    }
}

/// How many keys stand at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// One.
    One,
    /// As many as the number there says.
    Numkeys,
}

/// What a command does with a key. ACL rules such as `%R~key` go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads the value.
    Read,
    /// Reads the value, and writes one if there is none.
    ReadOrInsert,
    /// Reads the value, and changes it.
    ReadUpdate,
    /// Reads the value, and removes it.
    ReadRemove,
    /// Replaces the value, whatever it was.
    Overwrite,
}

/// One argument, or an option with its values.
#[derive(Debug, Clone, Copy)]
pub struct Argument {
    name: &'static CStr,
    kind: Kind,
    token: Option<&'static CStr>,
    optional: bool,
    repeat: Repeat,
    limit: Limit,
}

/// What an argument may be; COMMAND DOCS has it as the argument's summary.
#[derive(Debug, Clone, Copy)]
enum Limit {
    None,
    /// At most so many bytes.
    Bytes(usize),
    /// Whole numbers from the one to the other.
    Integers(i64, i64),
    /// Numbers from the one to the other.
    Numbers(f64, f64),
}

impl Limit {
    fn summary(self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Bytes(most) => Some(format!("at most {}", bytes(most))),
            Self::Integers(least, most) => Some(format!("{least} to {most}")),
            Self::Numbers(least, most) => Some(format!("{least} to {most}")),
        }
    }
}

/// `8 MiB`, `4 KiB`, `128 bytes`.
fn bytes(count: usize) -> String {
    match count {
        _ if count >= 1 << 20 && count.is_multiple_of(1 << 20) => format!("{} MiB", count >> 20),
        _ if count >= 4 << 10 && count.is_multiple_of(1 << 10) => format!("{} KiB", count >> 10),
        _ => format!("{count} bytes"),
    }
}

#[derive(Debug, Clone, Copy)]
enum Repeat {
    Once,
    /// Several values, behind one word if the argument has one.
    Values,
    /// Several values, each behind the argument's word.
    Words,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Integer,
    Double,
    Key,
    Word,
    OneOf(&'static [Argument]),
    Block(&'static [Argument]),
}

impl Argument {
    const fn new(name: &'static CStr, kind: Kind) -> Self {
        Self { name, kind, token: None, optional: false, repeat: Repeat::Once, limit: Limit::None }
    }

    /// Text or bytes.
    pub const fn text(name: &'static CStr) -> Self {
        Self::new(name, Kind::Text)
    }

    /// A whole number.
    pub const fn integer(name: &'static CStr) -> Self {
        Self::new(name, Kind::Integer)
    }

    /// A number.
    pub const fn double(name: &'static CStr) -> Self {
        Self::new(name, Kind::Double)
    }

    /// A key; a command has one place of keys at most.
    pub const fn key(name: &'static CStr) -> Self {
        Self::new(name, Kind::Key)
    }

    /// A word that stands for itself.
    pub const fn word(name: &'static CStr, word: &'static CStr) -> Self {
        Self { token: Some(word), ..Self::new(name, Kind::Word) }
    }

    /// One of several.
    pub const fn one_of(name: &'static CStr, choices: &'static [Argument]) -> Self {
        Self::new(name, Kind::OneOf(choices))
    }

    /// Several, one after the other.
    pub const fn block(name: &'static CStr, parts: &'static [Argument]) -> Self {
        Self::new(name, Kind::Block(parts))
    }

    /// The same after this word, as an option has it.
    pub const fn after(self, word: &'static CStr) -> Self {
        Self { token: Some(word), ..self }
    }

    /// The same, of at most so many bytes.
    pub const fn bytes(self, most: usize) -> Self {
        Self { limit: Limit::Bytes(most), ..self }
    }

    /// The same, a whole number from `least` to `most`.
    pub const fn between(self, least: i64, most: i64) -> Self {
        Self { limit: Limit::Integers(least, most), ..self }
    }

    /// The same, a number from `least` to `most`.
    pub const fn within(self, least: f64, most: f64) -> Self {
        Self { limit: Limit::Numbers(least, most), ..self }
    }

    /// The same, but it may be missing.
    pub const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// The same, once or more.
    pub const fn multiple(self) -> Self {
        Self { repeat: Repeat::Values, ..self }
    }

    /// The same, once or more, each time with its word.
    pub const fn each(self) -> Self {
        Self { repeat: Repeat::Words, ..self }
    }
}

/// Tells Redis about all `commands`. Only while the module is being loaded.
///
/// # Errors
/// `INTERNAL` with the command that Redis does not know, or whose description it refused.
pub fn describe(ctx: &Context, commands: &'static [Command]) -> Result<(), Failure> {
    // When the module is loaded a second time they are there already, and the same.
    let _ = DESCRIBED.set(commands);
    commands.iter().try_for_each(|command| describe_one(ctx, command))
}

/// For the commands that have a number of keys among their arguments: its position, and what the flags of the module API
/// say is done with the keys.
pub(super) fn numbered_keys(command: &[u8]) -> Option<(usize, u32)> {
    let same = |described: &&Command| described.name.to_bytes().eq_ignore_ascii_case(command);
    let keys = DESCRIBED.get()?.iter().find(same)?.keys.iter().find(|keys| keys.count == Count::Numkeys)?;
    Some((keys.at.into(), keys.access.flags()))
}

/// What [`describe`] got.
static DESCRIBED: OnceLock<&'static [Command]> = OnceLock::new();

fn describe_one(ctx: &Context, command: &Command) -> Result<(), Failure> {
    let failed = |what| Failure::internal(format!("{what} of the command {}", command.name.to_string_lossy()));
    let (Some(find), Some(set_info), Some(set_categories)) =
        (api!(RedisModule_GetCommand), api!(RedisModule_SetCommandInfo), api!(RedisModule_SetCommandACLCategories))
    else {
        return Err(failed("this server takes no description"));
    };
    // SAFETY: ctx is the live context of OnLoad; the name is NUL-terminated.
    let handle = unsafe { find(ctx.ctx, command.name.as_ptr()) };
    if handle.is_null() {
        return Err(failed("the server knows nothing"));
    }
    let mut key_specs: Vec<raw::RedisModuleCommandKeySpec> = command.keys.iter().map(Keys::spec).collect();
    key_specs.push(no_key_spec());
    let mut lists = Lists::default();
    let mut info = raw::RedisModuleCommandInfo {
        version: &raw const VERSION,
        summary: command.summary.as_ptr(),
        complexity: command.complexity.as_ptr(),
        since: command.since.as_ptr(),
        history: ptr::null_mut(),
        tips: pointer_unless_empty(command.tips),
        arity: command.arity,
        key_specs: key_specs.as_mut_ptr(),
        args: lists.of(command.arguments.iter().copied().flatten()),
    };
    // SAFETY: the handle is live; everything that `info` points to outlives the call, both lists end with an empty
    // entry, and Redis copies all of it.
    if unsafe { set_info(handle, &raw mut info) } != 0 {
        return Err(failed("the server refused the description"));
    }
    // Servers before 7.4 have no categories of modules.
    for categories in [format!("{} infer", command.categories), command.categories.to_owned()] {
        let Ok(categories) = CString::new(categories) else { continue };
        // SAFETY: the handle is live and the module is being loaded; the text is NUL-terminated.
        if unsafe { set_categories(handle, categories.as_ptr()) } == 0 {
            return Ok(());
        }
    }
    Err(failed("the server refused the ACL categories"))
}

/// Layout of the structures, from the module API's `REDISMODULE_COMMAND_INFO_VERSION`.
static VERSION: raw::RedisModuleCommandInfoVersion = raw::RedisModuleCommandInfoVersion {
    version: 1,
    sizeof_historyentry: size_of::<raw::RedisModuleCommandHistoryEntry>(),
    sizeof_keyspec: size_of::<raw::RedisModuleCommandKeySpec>(),
    sizeof_arg: size_of::<raw::RedisModuleCommandArg>(),
};

impl Access {
    fn flags(self) -> u32 {
        match self {
            Self::Read => raw::REDISMODULE_CMD_KEY_RO | raw::REDISMODULE_CMD_KEY_ACCESS,
            Self::ReadOrInsert => {
                raw::REDISMODULE_CMD_KEY_RW | raw::REDISMODULE_CMD_KEY_ACCESS | raw::REDISMODULE_CMD_KEY_INSERT
            }
            Self::ReadUpdate => {
                raw::REDISMODULE_CMD_KEY_RW | raw::REDISMODULE_CMD_KEY_ACCESS | raw::REDISMODULE_CMD_KEY_UPDATE
            }
            Self::ReadRemove => {
                raw::REDISMODULE_CMD_KEY_RW | raw::REDISMODULE_CMD_KEY_ACCESS | raw::REDISMODULE_CMD_KEY_DELETE
            }
            Self::Overwrite => raw::REDISMODULE_CMD_KEY_OW | raw::REDISMODULE_CMD_KEY_UPDATE,
        }
    }
}

impl Keys {
    fn spec(&self) -> raw::RedisModuleCommandKeySpec {
        let mut spec = no_key_spec();
        spec.notes = pointer_unless_empty(self.notes);
        spec.flags = self.access.flags().into();
        spec.begin_search_type = raw::RedisModuleKeySpecBeginSearchType_REDISMODULE_KSPEC_BS_INDEX;
        spec.bs.index = raw::RedisModuleCommandKeySpec__bindgen_ty_1__bindgen_ty_1 { pos: self.at.into() };
        match self.count {
            Count::One => {
                spec.find_keys_type = raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_RANGE;
                spec.fk.range =
                    raw::RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_1 { lastkey: 0, keystep: 1, limit: 0 };
            }
            Count::Numkeys => {
                spec.find_keys_type = raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_KEYNUM;
                spec.fk.keynum = raw::RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_2 {
                    keynumidx: 0,
                    firstkey: 1,
                    keystep: 1,
                };
            }
        }
        spec
    }
}

/// Redis would show an empty text as one that is there.
fn pointer_unless_empty(text: &'static CStr) -> *const c_char {
    if text.is_empty() { ptr::null() } else { text.as_ptr() }
}

/// What ends a list of key specs.
fn no_key_spec() -> raw::RedisModuleCommandKeySpec {
    // SAFETY: plain C data for which all-zero is valid; Redis takes it for the end of the list.
    unsafe { std::mem::zeroed() }
}

/// Argument lists in the form of the module API. They point to each other and live as long as this.
#[derive(Default)]
struct Lists {
    lists: Vec<Vec<raw::RedisModuleCommandArg>>,
    summaries: Vec<CString>,
}

impl Lists {
    fn of(&mut self, arguments: impl Iterator<Item = &'static Argument>) -> *mut raw::RedisModuleCommandArg {
        let mut list: Vec<_> = arguments.map(|argument| self.one(argument)).collect();
        if list.is_empty() {
            return ptr::null_mut();
        }
        // SAFETY: plain C data for which all-zero is valid; Redis takes it for the end of the list.
        list.push(unsafe { std::mem::zeroed() });
        let start = list.as_mut_ptr();
        // Moving a Vec leaves its elements where they are.
        self.lists.push(list);
        start
    }

    fn summary(&mut self, limit: Limit) -> *const c_char {
        let Some(Ok(summary)) = limit.summary().map(CString::new) else { return ptr::null() };
        let start = summary.as_ptr();
        // Moving a CString leaves its bytes where they are.
        self.summaries.push(summary);
        start
    }

    fn one(&mut self, argument: &'static Argument) -> raw::RedisModuleCommandArg {
        use raw::{
            RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_BLOCK as BLOCK,
            RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_DOUBLE as DOUBLE,
            RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_INTEGER as INTEGER,
            RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_KEY as KEY,
            RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_ONEOF as ONEOF,
            RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_PURE_TOKEN as PURE_TOKEN,
            RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_STRING as STRING,
        };
        let (type_, subargs) = match argument.kind {
            Kind::Text => (STRING, ptr::null_mut()),
            Kind::Integer => (INTEGER, ptr::null_mut()),
            Kind::Double => (DOUBLE, ptr::null_mut()),
            Kind::Key => (KEY, ptr::null_mut()),
            Kind::Word => (PURE_TOKEN, ptr::null_mut()),
            Kind::OneOf(choices) => (ONEOF, self.of(choices.iter())),
            Kind::Block(parts) => (BLOCK, self.of(parts.iter())),
        };
        let optional = if argument.optional { raw::REDISMODULE_CMD_ARG_OPTIONAL } else { 0 };
        let repeat = match argument.repeat {
            Repeat::Once => 0,
            Repeat::Values => raw::REDISMODULE_CMD_ARG_MULTIPLE,
            Repeat::Words => raw::REDISMODULE_CMD_ARG_MULTIPLE | raw::REDISMODULE_CMD_ARG_MULTIPLE_TOKEN,
        };
        raw::RedisModuleCommandArg {
            name: argument.name.as_ptr(),
            type_,
            key_spec_index: if type_ == KEY { 0 } else { -1 },
            token: argument.token.map_or(ptr::null(), CStr::as_ptr),
            summary: self.summary(argument.limit),
            since: ptr::null(),
            // Three bits; they fit.
            flags: c_int::try_from(optional | repeat).unwrap_or_default(),
            deprecated_since: ptr::null(),
            subargs,
            display_text: ptr::null(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_said_in_the_unit_that_people_use() {
        for (limit, said) in [
            (Limit::Bytes(8 << 20), "at most 8 MiB"),
            (Limit::Bytes(64 << 10), "at most 64 KiB"),
            (Limit::Bytes(1024), "at most 1024 bytes"),
            (Limit::Integers(-1, 1024), "-1 to 1024"),
            (Limit::Numbers(0.0, 1.0), "0 to 1"),
            (Limit::Numbers(0.0625, 16.0), "0.0625 to 16"),
        ] {
            assert_eq!(limit.summary().as_deref(), Some(said));
        }
        assert_eq!(Limit::None.summary(), None);
    }
}
