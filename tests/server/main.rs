//! The module inside a real redis-server: one file per area, one behaviour per test.
//!
//! `make test-redis` runs them; it sets the `REDIS_INFER_…` variables that say where the servers, the module and
//! the models are. Every test starts a server of its own and loads tiny random models, which takes milliseconds.
//! Nothing here waits for a fixed time: conditions are polled, with a deadline.
// What Clippy allows in tests (`unwrap`, `panic!`) is allowed in this whole target, which is nothing but tests.
#![cfg(test)]

mod arguments;
mod background;
mod busy;
mod cache;
mod cache_refusals;
mod changed;
mod chat;
mod chunk_kv;
mod cluster;
mod command_table;
mod contexts;
mod converted;
mod copies;
mod cpus;
mod crash;
mod cross_encoder;
mod damaged;
mod default_model;
mod details;
mod documents;
mod embed;
mod embedding_lifecycle;
mod examples;
mod exports;
mod extremes;
mod faults;
mod form;
mod generate;
mod harness;
mod hostile;
mod index;
mod info;
mod isolation;
mod keeping;
mod lifecycle;
mod load;
mod logging;
mod lora;
mod lost_keys;
mod main_thread;
mod memory;
mod migration;
mod minilm;
mod paths;
mod persistence;
mod preprocess;
mod program;
mod races;
mod rag;
mod rag_cache;
mod rag_cache_refusals;
mod rag_sources;
mod redacted;
mod remaking;
mod replicas;
mod requests;
mod rerank;
mod rights;
mod sampling;
mod search;
mod second_look;
mod secrets;
mod servers;
mod settings;
mod smollm;
mod speculation;
mod split;
mod startup;
mod statistics;
mod stopping;
mod storm;
mod threads;
mod tokens;
mod unload_early;
mod unloading;
mod visible_paths;
mod warnings;

mod dropping;
mod reindex;
mod replacing;
