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
use redis_api::config::{CPU_LIST, KV_BUDGET, MAX_MEMORY, MODEL_DIR, MODELS, NICE, QUEUE_LIMIT, REDACT};
use redis_api::preflight::PREFLIGHT;
use redis_api::{command_info, entry, events, guard, info, log, warnings};

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
    chat,
    embed,
    rerank,
    index,
    index_info,
    reindex,
    drop_index,
    ingest,
    forget,
    search,
    rag,
    cache_get,
    cache_set,
    cache_del,
    cache_info,
    ps,
    cancel,
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
        command_info::describe(ctx, commands::COMMANDS)?;
        info::register(ctx, commands::info)?;
        events::on_shutdown(ctx, commands::stop)?;
        warnings::begin(ctx)?;
        commands::start()
    });
    if matches!(started, Some(Ok(()))) { Status::Ok } else { Status::Err }
}

fn kv_budget_changed() {
    guard::guarded("a new infer.kv-budget", commands::kv_budget_changed);
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
        // name, handler, flags; keys and ACL categories are in commands::docs. getkeys-api where the number of keys is an
        // argument: see redis_api::key_positions
        ["infer.load", load, "admin blocking", 0, 0, 0, ""],
        ["infer.unload", unload, "admin blocking", 0, 0, 0, ""],
        ["infer.models", models, "fast", 0, 0, 0, ""],
        ["infer.model", model, "fast", 0, 0, 0, ""],
        ["infer.tokenize", tokenize, "blocking", 0, 0, 0, ""],
        ["infer.tokenizestore", tokenize_store, "write deny-oom blocking", 0, 0, 0, ""],
        ["infer.detokenize", detokenize, "readonly blocking no-mandatory-keys getkeys-api", 0, 0, 0, ""],
        ["infer.generate", generate, "readonly blocking no-mandatory-keys getkeys-api", 0, 0, 0, ""],
        ["infer.chat", chat, "readonly blocking no-mandatory-keys getkeys-api", 0, 0, 0, ""],
        ["infer.embed", embed, "blocking", 0, 0, 0, ""],
        ["infer.rerank", rerank, "blocking", 0, 0, 0, ""],
        ["infer.index", index, "write deny-oom", 0, 0, 0, ""],
        ["infer.indexinfo", index_info, "readonly", 0, 0, 0, ""],
        ["infer.reindex", reindex, "write deny-oom", 0, 0, 0, ""],
        ["infer.dropindex", drop_index, "write blocking", 0, 0, 0, ""],
        ["infer.ingest", ingest, "write deny-oom blocking", 0, 0, 0, ""],
        ["infer.forget", forget, "write", 0, 0, 0, ""],
        ["infer.search", search, "readonly blocking", 0, 0, 0, ""],
        ["infer.rag", rag, "readonly blocking", 0, 0, 0, ""],
        ["infer.cacheget", cache_get, "readonly blocking", 0, 0, 0, ""],
        ["infer.cacheset", cache_set, "write deny-oom blocking", 0, 0, 0, ""],
        ["infer.cachedel", cache_del, "write blocking", 0, 0, 0, ""],
        ["infer.cacheinfo", cache_info, "readonly", 0, 0, 0, ""],
        ["infer.ps", ps, "fast", 0, 0, 0, ""],
        ["infer.cancel", cancel, "fast", 0, 0, 0, ""],
        ["infer.debug", debug, "admin", 0, 0, 0, ""],
    ],
    configurations: [
        i64: [
            ["kv-budget", &KV_BUDGET, limits::KV_BUDGET_DEFAULT, limits::KV_BUDGET_MIN, limits::KV_BUDGET_MAX, ConfigurationFlags::MEMORY, Some(Box::new(|_, _, _| kv_budget_changed()))],
            ["max-memory", &MAX_MEMORY, limits::MAX_MEMORY_DEFAULT, limits::MAX_MEMORY_MIN, limits::MAX_MEMORY_MAX, ConfigurationFlags::MEMORY, None],
            ["nice", &NICE, limits::NICE_DEFAULT, limits::NICE_MIN, limits::NICE_MAX, ConfigurationFlags::IMMUTABLE, None],
            ["queue-limit", &QUEUE_LIMIT, limits::QUEUE_LIMIT_DEFAULT, limits::QUEUE_LIMIT_MIN, limits::QUEUE_LIMIT_MAX, ConfigurationFlags::DEFAULT, None],
        ],
        string: [
            ["cpulist", &CPU_LIST, "", ConfigurationFlags::IMMUTABLE, None],
            ["model-dir", &MODEL_DIR, "", ConfigurationFlags::IMMUTABLE, None],
            ["models", &MODELS, "", ConfigurationFlags::IMMUTABLE, None],
        ],
        bool: [
            ["redact", &REDACT, false, ConfigurationFlags::DEFAULT, None],
        ],
        enum: [],
        module_args_as_configuration: false,
    ]
}
