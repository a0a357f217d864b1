//! redis-infer: LLM inference, embeddings and retrieval inside redis-server. This file is the table
//! of commands and settings, and nothing else.
//!
//! Rooms, and who may use whom: `commands` -> `redis_api`, `engine` -> `logic`. `redis_api` holds
//! every call into Redis, `engine` every call into llama.cpp; they do not know each other.
//! `tests/layering.rs` holds it.

#![expect(
    missing_docs,
    reason = "redis_module! makes the two entry points without documentation; nothing else is public"
)]

mod commands;
mod engine;
mod logic;
mod redis_api;

use redis_module::configuration::ConfigurationFlags;
use redis_module::{Context, RedisResult, RedisString, Status, redis_module};

use logic::limits;
use redis_api::acl::CATEGORY;
use redis_api::config::{NICE, QUEUE_LIMIT};
use redis_api::preflight::PREFLIGHT;
use redis_api::{entry, events, guard, log};

/// What Redis calls for each command: the handler of the same name in `commands`.
macro_rules! handlers {
    ($($name:ident),* $(,)?) => {
        $(fn $name(ctx: &Context, args: Vec<RedisString>) -> RedisResult {
            entry::dispatch(ctx, &args, commands::$name)
        })*
    };
}
handlers!(
    load,
    unload,
    models,
    model,
    tokenize,
    tokenize_store,
    detokenize,
    generate,
    embed,
    index,
    ingest,
    search,
    rag,
    debug
);

fn init(ctx: &Context, args: &[RedisString]) -> Status {
    log::install(::log::LevelFilter::Info);
    if !args.is_empty() {
        ::log::error!(
            "the module takes no arguments: write infer.nice and the like into redis.conf, or --infer.nice 5 on the \
             command line of redis-server"
        );
        return Status::Err;
    }
    guard::install_panic_hook();
    let started = guard::guarded("the start of the module", || {
        events::on_shutdown(ctx, commands::stop)?;
        commands::start();
        Ok::<(), redis_api::reply::Failure>(())
    });
    if matches!(started, Some(Ok(()))) { Status::Ok } else { Status::Err }
}

fn deinit(_ctx: &Context) -> Status {
    // An error would abort the server if Redis unloads the module because its own start failed. What
    // could not end in time stays behind: the library is never unmapped.
    guard::guarded("the end of the module", commands::stop);
    Status::Ok
}

redis_module! {
    name: "infer",
    version: 1,
    // Redis' own allocator has no realloc and no zeroed allocation, and does not exist in tests.
    allocator: (std::alloc::System, std::alloc::System),
    // Not types: the earliest hook there is. See redis_api::preflight and redis_api::acl.
    data_types: [PREFLIGHT, CATEGORY],
    init: init,
    deinit: deinit,
    commands: [
        // name, handler, flags, first key, last key, step, categories
        ["infer.load", load, "", 0, 0, 0, "admin dangerous", "infer"],
        ["infer.unload", unload, "", 0, 0, 0, "admin dangerous", "infer"],
        ["infer.models", models, "fast", 0, 0, 0, "", "infer"],
        ["infer.model", model, "fast", 0, 0, 0, "", "infer"],
        ["infer.tokenize", tokenize, "", 0, 0, 0, "", "infer"],
        ["infer.tokenizestore", tokenize_store, "write deny-oom", 1, 1, 1, "", "infer"],
        ["infer.detokenize", detokenize, "readonly", 0, 0, 0, "", "infer"],
        ["infer.generate", generate, "readonly", 0, 0, 0, "", "infer"],
        ["infer.embed", embed, "", 0, 0, 0, "", "infer"],
        ["infer.index", index, "write deny-oom", 1, 1, 1, "", "infer"],
        ["infer.ingest", ingest, "write deny-oom", 1, 1, 1, "", "infer"],
        ["infer.search", search, "readonly", 1, 1, 1, "", "infer"],
        ["infer.rag", rag, "readonly", 1, 1, 1, "", "infer"],
        ["infer.debug", debug, "", 0, 0, 0, "admin dangerous", "infer"],
    ],
    configurations: [
        i64: [
            ["nice", &NICE, limits::NICE_DEFAULT, limits::NICE_MIN, limits::NICE_MAX, ConfigurationFlags::IMMUTABLE, None],
            ["queue-limit", &QUEUE_LIMIT, limits::QUEUE_LIMIT_DEFAULT, limits::QUEUE_LIMIT_MIN, limits::QUEUE_LIMIT_MAX, ConfigurationFlags::DEFAULT, None],
        ],
        string: [],
        bool: [],
        enum: [],
        module_args_as_configuration: false,
    ]
}
