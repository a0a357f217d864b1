//! Decisions without machinery: what a command asks for, what may run next, how texts are cut, joined and named.
//!
//! Everything here is a plain function or value over bytes and numbers. No Redis, no llama.cpp, no threads, no clock,
//! no files and no globals, so that every rule has a test which needs neither a server nor a model. The other rooms use
//! this one; it uses none of them.

pub mod adjust;
pub mod args;
pub mod assign;
pub mod attributes;
pub mod cache;
pub mod chunk;
pub mod cpu_list;
pub mod crowd;
pub mod draft;
pub mod fair;
pub mod file_names;
pub mod gbnf;
pub mod hangul;
pub mod index;
pub mod json_schema;
pub mod kept;
pub mod kept_answer;
pub mod keys;
pub mod kv_rows;
pub mod layout;
pub mod limits;
pub mod logprobs;
pub mod memo;
pub mod nesting;
pub mod options;
pub mod packing;
pub mod pair;
pub mod passages;
pub mod payoff;
pub mod prefix;
pub mod prompt;
pub mod ranking;
pub mod sched;
pub mod server_fixes;
pub mod slots;
mod speed;
pub mod stop;
pub mod token_blob;
pub mod top;
pub mod utf8;
pub mod vector;
pub mod version;
