//! One file per command: its syntax, what it checks on the main thread, which engine steps it takes, and the shape of
//! its reply.
//!
//! A handler runs under Redis' lock and may only copy and check; everything that takes longer than that happens on
//! engine threads, which hand the result to the `PendingReply` of the blocked client.

mod cache_del;
mod cache_entry;
mod cache_get;
mod cache_info;
mod cache_lookup;
mod cache_rebuild;
mod cache_set;
mod cancel;
mod chat;
mod chunk_prompt;
mod chunk_rows;
mod clearing;
mod debug;
mod docs;
mod document;
mod drop_index;
mod embed;
mod failure;
mod find;
mod forget;
mod generate;
mod index;
mod index_info;
mod index_work;
mod info;
mod ingest;
mod live;
mod load;
mod models;
mod ps;
mod rag;
mod rag_cache;
mod rag_prompt;
mod rag_reply;
mod reindex;
mod replace;
mod rerank;
mod retrieval;
mod runtime;
mod search;
mod second_look;
mod text_reply;
mod tokens;
mod waiting;
mod writing;

pub use cache_del::cache_del;
pub use cache_get::cache_get;
pub use cache_info::cache_info;
pub use cache_set::cache_set;
pub use cancel::cancel;
pub use chat::chat;
pub use debug::debug;
pub use docs::COMMANDS;
pub use drop_index::drop_index;
pub use embed::embed;
pub use forget::forget;
pub use generate::generate;
pub use index::index;
pub use index_info::index_info;
pub use info::info;
pub use ingest::ingest;
pub use load::{load, unload};
pub use models::{model, models};
pub use ps::ps;
pub use rag::rag;
pub use reindex::reindex;
pub use rerank::rerank;
pub use runtime::{kv_budget_changed, start, stop};
pub use search::search;
pub use tokens::{detokenize, tokenize, tokenize_store};
