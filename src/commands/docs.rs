//! What `COMMAND INFO`, `COMMAND DOCS` and `COMMAND GETKEYS` tell about each command, and its ACL categories.
//!
//! One row per command of `lib.rs`, in the same order; a command without a row is noticed by a test, and a row without a
//! command keeps the module from being loaded. The handlers in this folder have the same syntax as a comment.

use std::ffi::CStr;

use crate::logic::limits;
use crate::redis_api::command_info::{Access, Argument, Command, Count, Keys};

/// The version of the module that all commands came with.
const FIRST: &CStr = c"0.1.0";

const MODEL: Argument = Argument::text(c"model").bytes(limits::NAME_MAX);
const NUMKEYS: Argument = Argument::integer(c"numkeys").between(0, limits::KEYS_MAX as i64);
const PROMPT_KEYS: Argument = Argument::key(c"key").optional().multiple();
const INDEX: Argument = Argument::key(c"index").bytes(limits::NAME_MAX);

/// The token keys after a model's name.
const TOKEN_KEYS: Keys =
    Keys { at: 2, count: Count::Numkeys, access: Access::Read, notes: c"Each is checked again when it is read" };
/// The settings of an index that is only asked.
const ASKED_INDEX: Keys = Keys::first(Access::Read, c"Reads vec:{index} and tokens:{index}:* too, as the calling user");

/// The same, with answers that are kept.
const CACHED_INDEX: Keys = Keys::first(
    Access::Read,
    c"Reads vec:{index}, tokens:{index}:* and stats:{index} too, and with CACHE writes cache-settings:{index}, answer:{index}:*, \
    answers:{index} and cache:{index}*, as the calling user",
);

/// The settings of an index whose documents are changed.
const WRITTEN_INDEX: Keys = Keys::first(
    Access::Read,
    c"Writes vec:{index}, tokens:{index}:*, doc:{index}:*, stats:{index} and paths:{index}, as the calling user",
);

const CACHE: Argument = Argument::key(c"cache").bytes(limits::NAME_MAX);
const SCOPE: Argument = Argument::text(c"scope").after(c"SCOPE").bytes(limits::SCOPE_MAX).optional();

/// Which chunks of an index are wanted.
const SELECTION: &[Argument] = &[
    Argument::integer(c"k").after(c"K").between(limits::K_MIN as i64, limits::K_MAX as i64).optional(),
    Argument::text(c"expression").after(c"FILTER").bytes(limits::FILTER_MAX).optional(),
    Argument::integer(c"exploration-factor")
        .after(c"EF")
        .between(limits::EF_MIN as i64, limits::EF_MAX as i64)
        .optional(),
    Argument::double(c"min-score").after(c"MINSCORE").within(limits::MINSCORE_MIN, limits::MINSCORE_MAX).optional(),
    Argument::text(c"reranking-model").after(c"RERANK").optional(),
];

/// The options of every command that generates.
const GENERATION: &[Argument] = &[
    Argument::integer(c"max-tokens")
        .after(c"MAXTOKENS")
        .between(limits::MAX_TOKENS_MIN as i64, limits::MAX_TOKENS_MAX as i64)
        .optional(),
    Argument::double(c"temperature").after(c"TEMP").within(limits::TEMP_MIN as f64, limits::TEMP_MAX as f64).optional(),
    Argument::integer(c"top-k").after(c"TOPK").between(limits::TOPK_MIN as i64, limits::TOPK_MAX as i64).optional(),
    Argument::double(c"top-p").after(c"TOPP").within(limits::TOPP_MIN as f64, limits::TOPP_MAX as f64).optional(),
    Argument::double(c"min-p").after(c"MINP").within(limits::MINP_MIN as f64, limits::MINP_MAX as f64).optional(),
    Argument::double(c"repeat-penalty")
        .after(c"REPEATPENALTY")
        .within(limits::REPEAT_PENALTY_MIN as f64, limits::REPEAT_PENALTY_MAX as f64)
        .optional(),
    Argument::integer(c"repeat-last-n")
        .after(c"REPEATLASTN")
        .between(limits::REPEAT_LAST_N_MIN as i64, limits::REPEAT_LAST_N_MAX as i64)
        .optional(),
    Argument::double(c"presence")
        .after(c"PRESENCE")
        .within(limits::PENALTY_MIN as f64, limits::PENALTY_MAX as f64)
        .optional(),
    Argument::double(c"frequency")
        .after(c"FREQUENCY")
        .within(limits::PENALTY_MIN as f64, limits::PENALTY_MAX as f64)
        .optional(),
    Argument::block(
        c"logit-bias",
        &[
            Argument::integer(c"count")
                .between(limits::LOGIT_BIAS_COUNT_MIN as i64, limits::LOGIT_BIAS_COUNT_MAX as i64),
            Argument::block(
                c"bias",
                &[
                    Argument::integer(c"token"),
                    Argument::double(c"value").within(limits::LOGIT_BIAS_MIN as f64, limits::LOGIT_BIAS_MAX as f64),
                ],
            )
            .multiple(),
        ],
    )
    .after(c"LOGITBIAS")
    .optional(),
    Argument::one_of(
        c"form",
        &[
            Argument::text(c"gbnf").after(c"GRAMMAR").bytes(limits::GRAMMAR_BYTES_MAX),
            Argument::text(c"schema").after(c"JSONSCHEMA").bytes(limits::GRAMMAR_BYTES_MAX),
        ],
    )
    .optional(),
    Argument::integer(c"seed").after(c"SEED").between(limits::SEED_MIN as i64, limits::SEED_MAX as i64).optional(),
    Argument::block(
        c"stop",
        &[
            Argument::integer(c"count").between(limits::STOP_COUNT_MIN as i64, limits::STOP_COUNT_MAX as i64),
            Argument::text(c"text").bytes(limits::STOP_BYTES_MAX).multiple(),
        ],
    )
    .after(c"STOP")
    .optional(),
    Argument::integer(c"milliseconds")
        .after(c"TIMEOUT")
        .between(limits::TIMEOUT_MS_MIN as i64, limits::TIMEOUT_MS_MAX as i64)
        .optional(),
    Argument::word(c"with-tokens", c"WITHTOKENS").optional(),
    Argument::integer(c"top-count")
        .after(c"LOGPROBS")
        .between(limits::LOGPROBS_MIN as i64, limits::LOGPROBS_MAX as i64)
        .optional(),
    Argument::word(c"with-stats", c"WITHSTATS").optional(),
];

/// All commands.
pub const COMMANDS: &[Command] = &[
    Command {
        name: c"infer.load",
        summary: c"Loads a model from a GGUF file",
        complexity: c"O(N) where N is the size of the file; other clients go on meanwhile",
        since: FIRST,
        arity: -2,
        tips: c"",
        categories: "admin dangerous slow blocking",
        keys: &[],
        arguments: &[&[
            Argument::text(c"name").bytes(limits::NAME_MAX).optional(),
            Argument::text(c"path").bytes(limits::MODEL_PATH_MAX),
            Argument::one_of(
                c"type",
                &[
                    Argument::word(c"auto", c"AUTO"),
                    Argument::word(c"generate", c"GENERATE"),
                    Argument::word(c"embed", c"EMBED"),
                    Argument::word(c"rerank", c"RERANK"),
                ],
            )
            .after(c"TYPE")
            .optional(),
            Argument::integer(c"context-tokens").after(c"CTX").between(limits::CTX_MIN as i64, limits::CTX_MAX as i64).optional(),
            Argument::integer(c"requests-per-worker").after(c"PARALLEL").between(limits::PARALLEL_MIN as i64, limits::PARALLEL_MAX as i64).optional(),
            Argument::one_of(c"workers", &[Argument::integer(c"count").between(limits::WORKERS_MIN as i64, limits::WORKERS_MAX as i64), Argument::word(c"auto", c"AUTO")])
                .after(c"WORKERS")
                .optional(),
            Argument::one_of(c"threads", &[Argument::integer(c"count").between(limits::THREADS_MIN as i64, limits::THREADS_MAX as i64), Argument::word(c"auto", c"AUTO")])
                .after(c"THREADS")
                .optional(),
            Argument::one_of(c"kv-type", &[Argument::word(c"f16", c"F16"), Argument::word(c"q8-0", c"Q8_0")])
                .after(c"KVTYPE")
                .optional(),
            Argument::one_of(c"speculation", &[Argument::word(c"lookup", c"LOOKUP"), Argument::word(c"none", c"NONE")])
                .after(c"SPECULATION")
                .optional(),
            Argument::integer(c"layers").after(c"GPULAYERS").between(limits::GPU_LAYERS_MIN as i64, limits::GPU_LAYERS_MAX as i64).optional(),
            Argument::one_of(
                c"pooling",
                &[Argument::word(c"mean", c"MEAN"), Argument::word(c"cls", c"CLS"), Argument::word(c"last", c"LAST")],
            )
            .after(c"POOLING")
            .optional(),
            Argument::block(c"lora", &[Argument::text(c"path").bytes(limits::MODEL_PATH_MAX), Argument::double(c"scale").within(limits::LORA_SCALE_MIN as f64, limits::LORA_SCALE_MAX as f64)]).after(c"LORA").optional(),
            Argument::one_of(c"mapping", &[Argument::word(c"mmap", c"MMAP"), Argument::word(c"no-mmap", c"NOMMAP")])
                .optional(),
            Argument::word(c"mlock", c"MLOCK").optional(),
            Argument::word(c"default", c"DEFAULT").optional(),
            Argument::word(c"async", c"ASYNC").optional(),
        ]],
    },
    Command {
        name: c"infer.unload",
        summary: c"Takes a model out of service when its requests are answered, and frees its memory",
        complexity: c"O(N) where N is the number of tokens its requests still generate; O(1) with FORCE",
        since: FIRST,
        arity: -2,
        tips: c"",
        categories: "admin dangerous slow blocking",
        keys: &[],
        arguments: &[&[Argument::text(c"name").bytes(limits::NAME_MAX), Argument::word(c"force", c"FORCE").optional()]],
    },
    Command {
        name: c"infer.models",
        summary: c"Lists the models that are loaded or loading",
        complexity: c"O(N) where N is the number of models",
        since: FIRST,
        arity: 1,
        tips: c"nondeterministic_output",
        categories: "fast",
        keys: &[],
        arguments: &[],
    },
    Command {
        name: c"infer.model",
        summary: c"Describes one model",
        complexity: c"O(N) where N is the number of models",
        since: FIRST,
        arity: 2,
        tips: c"nondeterministic_output",
        categories: "fast",
        keys: &[],
        arguments: &[&[Argument::text(c"name").bytes(limits::NAME_MAX)]],
    },
    Command {
        name: c"infer.tokenize",
        summary: c"Returns the token ids of a text",
        complexity: c"O(N) where N is the length of the text",
        since: FIRST,
        arity: -3,
        tips: c"",
        categories: "slow blocking",
        keys: &[],
        arguments: &[&[MODEL, Argument::text(c"text").bytes(limits::TEXT_MAX), Argument::word(c"no-special", c"NOSPECIAL").optional()]],
    },
    Command {
        name: c"infer.tokenizestore",
        summary: c"Stores the token ids of a text in a key and returns their number",
        complexity: c"O(N) where N is the length of the text",
        since: FIRST,
        arity: -4,
        tips: c"",
        categories: "write slow blocking",
        keys: &[Keys::first(Access::Overwrite, c"")],
        arguments: &[&[
            Argument::key(c"key"),
            MODEL,
            Argument::text(c"text").bytes(limits::TEXT_MAX),
            Argument::integer(c"seconds").after(c"EX").between(limits::EXPIRE_SECONDS_MIN as i64, limits::EXPIRE_SECONDS_MAX as i64).optional(),
        ]],
    },
    Command {
        name: c"infer.detokenize",
        summary: c"Returns the text of stored token ids",
        complexity: c"O(N) where N is the number of tokens",
        since: FIRST,
        arity: -4,
        tips: c"",
        categories: "read slow blocking",
        keys: &[TOKEN_KEYS],
        arguments: &[&[MODEL, NUMKEYS, PROMPT_KEYS, Argument::text(c"tokens").after(c"BLOB").bytes(4 * limits::KEY_TOKENS_MAX).optional()]],
    },
    Command {
        name: c"infer.generate",
        summary: c"Generates text that continues a prompt",
        complexity: c"O(P*(P+N)+N*(P+N)) where P is the number of tokens of the prompt and N that of the answer",
        since: FIRST,
        arity: -4,
        tips: c"nondeterministic_output",
        categories: "read slow blocking",
        keys: &[TOKEN_KEYS],
        arguments: &[
            &[
                MODEL,
                NUMKEYS,
                PROMPT_KEYS,
                Argument::one_of(
                    c"prompt",
                    &[Argument::text(c"text").after(c"TEXT").bytes(limits::TEXT_MAX), Argument::text(c"tokens").after(c"BLOB").bytes(4 * limits::KEY_TOKENS_MAX)],
                )
                .optional(),
                Argument::word(c"raw", c"RAW").optional(),
            ],
            GENERATION,
        ],
    },
    Command {
        name: c"infer.chat",
        summary: c"Generates the next message of a conversation",
        complexity: c"That of INFER.GENERATE with the conversation as prompt",
        since: FIRST,
        arity: -6,
        tips: c"nondeterministic_output",
        categories: "read slow blocking",
        keys: &[TOKEN_KEYS],
        arguments: &[
            &[
                MODEL,
                NUMKEYS,
                PROMPT_KEYS,
                Argument::block(
                    c"message",
                    &[
                        Argument::one_of(
                            c"role",
                            &[
                                Argument::word(c"system", c"system"),
                                Argument::word(c"user", c"user"),
                                Argument::word(c"assistant", c"assistant"),
                            ],
                        ),
                        Argument::text(c"content").bytes(limits::TEXT_MAX),
                    ],
                )
                .after(c"MESSAGE")
                .each(),
            ],
            GENERATION,
        ],
    },
    Command {
        name: c"infer.embed",
        summary: c"Returns the vectors of texts",
        complexity: c"O(N*L^2) where N is the number of texts and L their tokens",
        since: FIRST,
        arity: -4,
        tips: c"",
        categories: "slow blocking",
        keys: &[],
        arguments: &[&[
            MODEL,
            Argument::integer(c"count").between(limits::EMBED_COUNT_MIN as i64, limits::EMBED_COUNT_MAX as i64),
            Argument::text(c"text").bytes(limits::TEXT_MAX).multiple(),
            Argument::one_of(c"format", &[Argument::word(c"fp32", c"FP32"), Argument::word(c"values", c"VALUES")])
                .after(c"FORMAT")
                .optional(),
            Argument::integer(c"dimensions").after(c"DIM").between(limits::DIM_MIN as i64, limits::DIM_MAX as i64).optional(),
            Argument::word(c"no-norm", c"NONORM").optional(),
            Argument::text(c"prefix").after(c"PREFIX").bytes(limits::TEXT_MAX).optional(),
        ]],
    },
    Command {
        name: c"infer.rerank",
        summary: c"Orders texts by how well they fit a query",
        complexity: c"O(N*L^2) where N is the number of texts and L the tokens of the query and one of them",
        since: FIRST,
        arity: -5,
        tips: c"",
        categories: "slow blocking",
        keys: &[],
        arguments: &[&[
            MODEL,
            Argument::text(c"query").bytes(limits::TEXT_MAX),
            Argument::integer(c"count").between(limits::RERANK_COUNT_MIN as i64, limits::RERANK_COUNT_MAX as i64),
            Argument::text(c"text").bytes(limits::TEXT_MAX).multiple(),
            Argument::integer(c"top").after(c"TOP").between(limits::RERANK_COUNT_MIN as i64, limits::RERANK_COUNT_MAX as i64).optional(),
        ]],
    },
    Command {
        name: c"infer.index",
        summary: c"Creates a retrieval index",
        complexity: c"O(1)",
        since: FIRST,
        arity: -6,
        tips: c"",
        categories: "write slow",
        keys: &[Keys::first(Access::ReadOrInsert, c"")],
        arguments: &[&[
            INDEX,
            Argument::text(c"embedding-model").after(c"EMBEDMODEL"),
            Argument::text(c"generation-model").after(c"GENMODEL"),
            Argument::integer(c"max-tokens").after(c"MAXTOKENS").between(limits::CHUNK_TOKENS_MIN as i64, limits::CHUNK_TOKENS_MAX as i64).optional(),
            Argument::integer(c"paragraphs").after(c"OVERLAP").between(limits::OVERLAP_MIN as i64, limits::OVERLAP_MAX as i64).optional(),
            Argument::one_of(
                c"quantization",
                &[Argument::word(c"noquant", c"NOQUANT"), Argument::word(c"q8", c"Q8"), Argument::word(c"bin", c"BIN")],
            )
            .after(c"QUANT")
            .optional(),
            Argument::one_of(c"kv", &[Argument::word(c"exact", c"EXACT"), Argument::word(c"chunk", c"CHUNK")])
                .after(c"KV")
                .optional(),
            Argument::integer(c"reread-tokens").after(c"REREAD").between(limits::REREAD_MIN as i64, limits::REREAD_MAX as i64).optional(),
        ]],
    },
    Command {
        name: c"infer.indexinfo",
        summary: c"Describes an index: what it holds, its settings, and what is being done with it",
        complexity: c"O(1)",
        since: FIRST,
        arity: 2,
        tips: c"nondeterministic_output",
        categories: "read slow",
        keys: &[Keys::first(Access::Read, c"Reads vec:{index}, stats:{index} and paths:{index} too, as the calling user")],
        arguments: &[&[INDEX]],
    },
    Command {
        name: c"infer.reindex",
        summary: c"Begins to make an index anew in the background, with the same or other models",
        complexity: c"O(1); in the background O(N*log(N)) where N is the number of chunks",
        since: FIRST,
        arity: -2,
        tips: c"",
        categories: "write slow",
        keys: &[Keys::first(Access::ReadUpdate, c"Writes all keys of the next generation, such as vec:{index}@2, as the calling user")],
        arguments: &[&[
            INDEX,
            Argument::text(c"embedding-model").after(c"EMBEDMODEL").optional(),
            Argument::text(c"generation-model").after(c"GENMODEL").optional(),
        ]],
    },
    Command {
        name: c"infer.dropindex",
        summary: c"Removes an index with all its documents",
        complexity: c"O(N) where N is the number of chunks; other clients go on meanwhile",
        since: FIRST,
        arity: 2,
        tips: c"",
        categories: "write slow blocking",
        keys: &[Keys::first(Access::ReadRemove, c"Renames it to drop:{index}, and removes that and all other keys of the index, as the calling user")],
        arguments: &[&[INDEX]],
    },
    Command {
        name: c"infer.ingest",
        summary: c"Puts a document into an index, or replaces it",
        complexity: c"O(N*log(M)) where N is the number of changed chunks and M that of all chunks",
        since: FIRST,
        arity: -4,
        tips: c"",
        categories: "write slow blocking",
        keys: &[WRITTEN_INDEX],
        arguments: &[&[
            INDEX,
            Argument::text(c"path").bytes(limits::PATH_MAX),
            Argument::text(c"text").bytes(limits::DOCUMENT_MAX),
            Argument::text(c"json").after(c"ATTRS").bytes(limits::ATTRS_MAX).optional(),
        ]],
    },
    Command {
        name: c"infer.forget",
        summary: c"Removes a document from an index",
        complexity: c"O(N) where N is the number of its chunks",
        since: FIRST,
        arity: 3,
        tips: c"",
        categories: "write slow",
        keys: &[WRITTEN_INDEX],
        arguments: &[&[INDEX, Argument::text(c"path").bytes(limits::PATH_MAX)]],
    },
    Command {
        name: c"infer.search",
        summary: c"Returns the chunks of an index that are nearest to a query",
        complexity: c"O(log(M)+K) where M is the number of chunks and K that of the results",
        since: FIRST,
        arity: -3,
        tips: c"",
        categories: "read slow blocking",
        keys: &[ASKED_INDEX],
        arguments: &[
            &[INDEX, Argument::text(c"query").bytes(limits::QUERY_MAX)],
            SELECTION,
            &[
                Argument::word(c"with-text", c"WITHTEXT").optional(),
                Argument::word(c"with-attrs", c"WITHATTRS").optional(),
            ],
        ],
    },
    Command {
        name: c"infer.rag",
        summary: c"Answers a question from the chunks of an index",
        complexity: c"That of INFER.SEARCH and of INFER.GENERATE with the chunks as prompt",
        since: FIRST,
        arity: -3,
        tips: c"nondeterministic_output",
        categories: "read slow blocking",
        keys: &[CACHED_INDEX],
        arguments: &[
            &[INDEX, Argument::text(c"query").bytes(limits::QUERY_MAX)],
            SELECTION,
            &[
                Argument::one_of(c"budget", &[Argument::integer(c"tokens").between(limits::BUDGET_MIN as i64, limits::BUDGET_MAX as i64), Argument::word(c"auto", c"AUTO")])
                    .after(c"BUDGET")
                    .optional(),
                Argument::text(c"system").after(c"SYSTEM").bytes(limits::TEXT_MAX).optional(),
                Argument::double(c"threshold").after(c"CACHE").within(limits::MINSCORE_MIN, limits::MINSCORE_MAX).optional(),
                Argument::integer(c"seconds").after(c"CACHETTL").between(limits::EXPIRE_SECONDS_MIN as i64, limits::EXPIRE_SECONDS_MAX as i64).optional(),
                SCOPE,
                Argument::word(c"with-sources", c"WITHSOURCES").optional(),
                Argument::word(c"with-prompt", c"WITHPROMPT").optional(),
            ],
            GENERATION,
        ],
    },
    Command {
        name: c"infer.cacheget",
        summary: c"Returns the stored answer to a prompt, or to one that is nearly the same",
        complexity: c"O(1) for the very prompt; else that of embedding it, and O(log(N)) where N is the number of entries",
        since: FIRST,
        arity: -3,
        tips: c"",
        categories: "read slow blocking",
        keys: &[Keys::first(Access::Read, c"Reads answer:{cache}:* and cache:{cache} too, as the calling user")],
        arguments: &[&[
            CACHE,
            Argument::text(c"prompt").bytes(limits::QUERY_MAX),
            Argument::double(c"threshold").after(c"THRESHOLD").within(limits::MINSCORE_MIN, limits::MINSCORE_MAX).optional(),
            SCOPE,
            Argument::word(c"with-stats", c"WITHSTATS").optional(),
        ]],
    },
    Command {
        name: c"infer.cacheset",
        summary: c"Stores the answer to a prompt",
        complexity: c"That of embedding the prompt, and O(log(N)) where N is the number of entries",
        since: FIRST,
        arity: -4,
        tips: c"",
        categories: "write slow blocking",
        keys: &[Keys::first(Access::ReadOrInsert, c"Writes answer:{cache}:*, answers:{cache} and cache:{cache}* too, as the calling user")],
        arguments: &[&[
            CACHE,
            Argument::text(c"prompt").bytes(limits::QUERY_MAX),
            Argument::text(c"answer").bytes(limits::TEXT_MAX),
            Argument::text(c"embedding-model").after(c"EMBEDMODEL").optional(),
            Argument::integer(c"seconds").after(c"TTL").between(limits::EXPIRE_SECONDS_MIN as i64, limits::EXPIRE_SECONDS_MAX as i64).optional(),
            SCOPE,
        ]],
    },
    Command {
        name: c"infer.cachedel",
        summary: c"Removes the entries of a cache, or of one scope in it",
        complexity: c"O(N) where N is the number of entries; other clients go on meanwhile",
        since: FIRST,
        arity: -2,
        tips: c"",
        categories: "write slow blocking",
        keys: &[Keys::first(Access::ReadRemove, c"Removes answer:{cache}:*, answers:{cache}, drop-answers:{cache} and cache:{cache}* too, as the calling user")],
        arguments: &[&[CACHE, SCOPE]],
    },
    Command {
        name: c"infer.cacheinfo",
        summary: c"Describes a cache: what it holds, and its model",
        complexity: c"O(log(N)) where N is the number of entries",
        since: FIRST,
        arity: 2,
        tips: c"nondeterministic_output",
        categories: "read slow",
        keys: &[Keys::first(Access::Read, c"Reads answer:{cache}:*, answers:{cache} and cache:{cache} too, as the calling user")],
        arguments: &[&[CACHE]],
    },
    Command {
        name: c"infer.ps",
        summary: c"Lists the requests that wait or run",
        complexity: c"O(N) where N is the number of requests",
        since: FIRST,
        arity: 1,
        tips: c"nondeterministic_output",
        categories: "fast",
        keys: &[],
        arguments: &[],
    },
    Command {
        name: c"infer.cancel",
        summary: c"Ends a request that waits or runs",
        complexity: c"O(N) where N is the number of requests",
        since: FIRST,
        arity: 2,
        tips: c"nondeterministic_output",
        categories: "fast",
        keys: &[],
        arguments: &[&[Argument::integer(c"id")]],
    },
    Command {
        name: c"infer.debug",
        summary: c"Makes faults happen, or holds what works; for tests",
        complexity: c"O(1)",
        since: FIRST,
        arity: -2,
        tips: c"",
        categories: "admin dangerous slow",
        keys: &[],
        arguments: &[&[Argument::one_of(
            c"fault",
            &[
                MODEL.after(c"PANIC"),
                Argument::block(c"assertion", &[MODEL, Argument::word(c"twice", c"TWICE").optional()]).after(c"ASSERT"),
                MODEL.after(c"STALL"),
                MODEL.after(c"KEEP"),
                Argument::word(c"hold", c"HOLD"),
                Argument::word(c"release", c"RELEASE"),
            ],
        )]],
    },
];
