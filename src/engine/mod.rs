//! Everything about llama.cpp, and nothing about Redis.
//!
//! # Threads
//!
//! | thread | number | owns | waits for |
//! |---|---|---|---|
//! | `infer-gen-N` | WORKERS of each generation model | one `llama_context`, a scheduler, the requests in its slots | its model's queue, when it has no request |
//! | `infer-emb-N` | WORKERS of each embedding model | one `llama_context` | its model's queue |
//! | `infer-rank-N` | WORKERS of each reranking model | one `llama_context` | its model's queue |
//! | `infer-desk-N` | 3 | nothing | texts to tokenize, prompts to assemble |
//! | `infer-form` | one of each generation model that was asked for an answer of a form | nothing | requests with a form, then a place ahead of the workers |
//! | (named as their worker) | a worker's threads for one forward pass, less one | nothing | the next pass (`team.cpp`) |
//! | `infer-trim` | 1, not niced | nothing | freed memory to give back |
//! | `infer-load` | one per load or unload that runs, two while layouts are compared | the model until it is ready, and the contexts that are measured | the file, or the workers to end |
//!
//! The weights (`Model`) are shared and never change; contexts are not shared. A request is plain owned data that
//! moves: command -> desk -> queue -> worker -> its sink. Its sink is called exactly once or dropped, and a dropped
//! sink answers by itself, so no path can leave a client waiting.
//!
//! Races, and what settles them:
//! - *A client leaves while its request waits or runs.* One atomic flag per request, set by the main thread, read
//!   before the request starts, before each step, and inside a step by llama.cpp's abort callback when every request of
//!   the batch has it set.
//! - *A model is unloaded while requests come in.* The name disappears first; its queue is closed when no request has a
//!   place any more, also none that is still at a desk. The weights go with the last holder.
//! - *A model is unloaded while it loads.* Its name disappears and its flag (`stop`) is set; the
//!   load ends at llama.cpp's next report of progress, and puts nothing into the list any more.
//! - *The main thread and a niced thread meet.* Never at a lock, which the niced one could hold for seconds without a CPU: in
//!   atomics, in a snapshot of the list of models, in mailboxes (`redis_infer_sync`). What both would have to lock is done on a thread of
//!   the main thread's priority.
//! - *A model is unloaded by force, or the server stops.* A flag (`stop`) ends all steps through the abort callbacks; the
//!   workers answer what they hold and what is queued, and end. When the server stops, threads that take longer than the
//!   deadline are left behind, and the process ends without destructors, which they could meet (`exit`).
//! - *A busy worker takes a job that an idle one was about to take.* Busy workers leave as many jobs in the queue as
//!   there are idle workers. Which idle one takes which job is worked out by each of them in the same way (`queue`).
//! - *Workers wait for what others have read.* A worker lends what a slot holds, or will hold without the help of another
//!   worker; so no circle can close. Whoever fails or ends drops what it was asked for, and the other reads it itself.
//!
//! - *A sequence is let go while a worker is about to restore it.* What is kept is shared: the worker has it until it is done.
//!
//! Workers of a model keep in memory what their slots lose (`worker/keeping`, `kv_store`), for each other and for themselves. Its lock is held
//! to compare tokens, never to copy or free keys and values; `INFO` and `CONFIG SET` do without it.
//!
//! How many workers a generation model has is measured when it is loaded, unless WORKERS says it: see `measure`. They answer
//! as many requests at once either way.
//!
//! Rejected: a context shared behind a lock (one long prompt would stop everybody), a thread per request (memory of a
//! context each), calling Redis from workers (they run niced, and would hold up the main thread while holding its
//! lock).

mod adapter;
mod block_reads;
mod budget;
mod catalogue;
mod chat_template;
mod confine;
mod constraint;
mod context;
mod cpu;
mod decoder;
mod desk;
mod embedder;
mod error;
mod exit;
mod forms;
mod free_memory;
mod huge_pages;
mod job;
mod kv_store;
mod llama_log;
mod mapped;
mod measure;
mod memory;
mod metrics;
mod model;
mod pool;
mod queue;
mod registry;
mod reranker;
mod rope;
mod sampler;
mod served;
mod source;
mod stop;
#[cfg(test)]
mod tests;
mod threads;
mod trampoline;
mod trim;
mod weights;
mod worker;

pub use catalogue::Listing;
pub use cpu::{missing_instructions, system_info};
pub use desk::Errand;
pub use error::EngineError;
pub use exit::{at_exit, end_without_destructors};
pub use job::{Block, EmbedJob, GenerateJob, Generation, Permit, ReadJob, RerankJob, Splice, Ticket};
pub use metrics::{Metrics, Percentiles};
pub use model::{Model, Purpose, Special};
pub use registry::{Engine, EngineSettings, Requests};
pub use served::Served;
pub use threads::{Manners, available_cpus};
