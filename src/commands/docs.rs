//! What `COMMAND INFO`, `COMMAND DOCS` and `COMMAND GETKEYS` tell about each command, and its ACL categories.
//!
//! One row per command of `lib.rs`, in the same order; a command without a row is noticed by a test, and a row without a
//! command keeps the module from being loaded. The handlers in this folder have the same syntax as a comment.

use std::ffi::CStr;

use crate::redis_api::command_info::{Access, Argument, Command, Count, Keys};

/// The version of the module that all commands came with.
const FIRST: &CStr = c"0.1.0";

const MODEL: Argument = Argument::text(c"model");
const NUMKEYS: Argument = Argument::integer(c"numkeys");
const PROMPT_KEYS: Argument = Argument::key(c"key").optional().multiple();
const INDEX: Argument = Argument::key(c"index");

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

const CACHE: Argument = Argument::key(c"cache");
const SCOPE: Argument = Argument::text(c"scope").after(c"SCOPE").optional();

/// Which chunks of an index are wanted.
const SELECTION: &[Argument] = &[
    Argument::integer(c"k").after(c"K").optional(),
    Argument::text(c"expression").after(c"FILTER").optional(),
    Argument::integer(c"exploration-factor").after(c"EF").optional(),
    Argument::double(c"min-score").after(c"MINSCORE").optional(),
    Argument::text(c"reranking-model").after(c"RERANK").optional(),
];

/// The options of every command that generates.
const GENERATION: &[Argument] = &[
    Argument::integer(c"max-tokens").after(c"MAXTOKENS").optional(),
    Argument::double(c"temperature").after(c"TEMP").optional(),
    Argument::integer(c"top-k").after(c"TOPK").optional(),
    Argument::double(c"top-p").after(c"TOPP").optional(),
    Argument::double(c"min-p").after(c"MINP").optional(),
    Argument::double(c"repeat-penalty").after(c"REPEATPENALTY").optional(),
    Argument::integer(c"repeat-last-n").after(c"REPEATLASTN").optional(),
    Argument::double(c"presence").after(c"PRESENCE").optional(),
    Argument::double(c"frequency").after(c"FREQUENCY").optional(),
    Argument::block(
        c"logit-bias",
        &[
            Argument::integer(c"count"),
            Argument::block(c"bias", &[Argument::integer(c"token"), Argument::double(c"value")]).multiple(),
        ],
    )
    .after(c"LOGITBIAS")
    .optional(),
    Argument::one_of(
        c"form",
        &[Argument::text(c"gbnf").after(c"GRAMMAR"), Argument::text(c"schema").after(c"JSONSCHEMA")],
    )
    .optional(),
    Argument::integer(c"seed").after(c"SEED").optional(),
    Argument::block(c"stop", &[Argument::integer(c"count"), Argument::text(c"text").multiple()])
        .after(c"STOP")
        .optional(),
    Argument::integer(c"milliseconds").after(c"TIMEOUT").optional(),
    Argument::word(c"with-tokens", c"WITHTOKENS").optional(),
    Argument::integer(c"top-count").after(c"LOGPROBS").optional(),
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
            Argument::text(c"name").optional(),
            Argument::text(c"path"),
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
            Argument::integer(c"context-tokens").after(c"CTX").optional(),
            Argument::integer(c"requests-per-worker").after(c"PARALLEL").optional(),
            Argument::one_of(c"workers", &[Argument::integer(c"count"), Argument::word(c"auto", c"AUTO")])
                .after(c"WORKERS")
                .optional(),
            Argument::one_of(c"threads", &[Argument::integer(c"count"), Argument::word(c"auto", c"AUTO")])
                .after(c"THREADS")
                .optional(),
            Argument::one_of(c"kv-type", &[Argument::word(c"f16", c"F16"), Argument::word(c"q8-0", c"Q8_0")])
                .after(c"KVTYPE")
                .optional(),
            Argument::one_of(c"speculation", &[Argument::word(c"lookup", c"LOOKUP"), Argument::word(c"none", c"NONE")])
                .after(c"SPECULATION")
                .optional(),
            Argument::integer(c"layers").after(c"GPULAYERS").optional(),
            Argument::one_of(
                c"pooling",
                &[Argument::word(c"mean", c"MEAN"), Argument::word(c"cls", c"CLS"), Argument::word(c"last", c"LAST")],
            )
            .after(c"POOLING")
            .optional(),
            Argument::block(c"lora", &[Argument::text(c"path"), Argument::double(c"scale")]).after(c"LORA").optional(),
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
        arguments: &[&[Argument::text(c"name"), Argument::word(c"force", c"FORCE").optional()]],
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
        arguments: &[&[Argument::text(c"name")]],
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
        arguments: &[&[MODEL, Argument::text(c"text"), Argument::word(c"no-special", c"NOSPECIAL").optional()]],
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
            Argument::text(c"text"),
            Argument::integer(c"seconds").after(c"EX").optional(),
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
        arguments: &[&[MODEL, NUMKEYS, PROMPT_KEYS, Argument::text(c"tokens").after(c"BLOB").optional()]],
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
                    &[Argument::text(c"text").after(c"TEXT"), Argument::text(c"tokens").after(c"BLOB")],
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
                        Argument::text(c"content"),
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
            Argument::integer(c"count"),
            Argument::text(c"text").multiple(),
            Argument::one_of(c"format", &[Argument::word(c"fp32", c"FP32"), Argument::word(c"values", c"VALUES")])
                .after(c"FORMAT")
                .optional(),
            Argument::integer(c"dimensions").after(c"DIM").optional(),
            Argument::word(c"no-norm", c"NONORM").optional(),
            Argument::text(c"prefix").after(c"PREFIX").optional(),
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
            Argument::text(c"query"),
            Argument::integer(c"count"),
            Argument::text(c"text").multiple(),
            Argument::integer(c"top").after(c"TOP").optional(),
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
            Argument::integer(c"max-tokens").after(c"MAXTOKENS").optional(),
            Argument::integer(c"paragraphs").after(c"OVERLAP").optional(),
            Argument::one_of(
                c"quantization",
                &[Argument::word(c"noquant", c"NOQUANT"), Argument::word(c"q8", c"Q8"), Argument::word(c"bin", c"BIN")],
            )
            .after(c"QUANT")
            .optional(),
            Argument::one_of(c"kv", &[Argument::word(c"exact", c"EXACT"), Argument::word(c"chunk", c"CHUNK")])
                .after(c"KV")
                .optional(),
            Argument::integer(c"reread-tokens").after(c"REREAD").optional(),
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
            Argument::text(c"path"),
            Argument::text(c"text"),
            Argument::text(c"json").after(c"ATTRS").optional(),
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
        arguments: &[&[INDEX, Argument::text(c"path")]],
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
            &[INDEX, Argument::text(c"query")],
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
            &[INDEX, Argument::text(c"query")],
            SELECTION,
            &[
                Argument::one_of(c"budget", &[Argument::integer(c"tokens"), Argument::word(c"auto", c"AUTO")])
                    .after(c"BUDGET")
                    .optional(),
                Argument::text(c"system").after(c"SYSTEM").optional(),
                Argument::double(c"threshold").after(c"CACHE").optional(),
                Argument::integer(c"seconds").after(c"CACHETTL").optional(),
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
            Argument::text(c"prompt"),
            Argument::double(c"threshold").after(c"THRESHOLD").optional(),
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
            Argument::text(c"prompt"),
            Argument::text(c"answer"),
            Argument::text(c"embedding-model").after(c"EMBEDMODEL").optional(),
            Argument::integer(c"seconds").after(c"TTL").optional(),
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
        summary: c"Makes a worker panic or fail, or holds a model; for tests",
        complexity: c"O(1)",
        since: FIRST,
        arity: -2,
        tips: c"",
        categories: "admin dangerous slow",
        keys: &[],
        arguments: &[&[Argument::one_of(
            c"fault",
            &[
                Argument::block(c"panic", &[Argument::word(c"panic", c"PANIC"), MODEL]),
                Argument::block(
                    c"assertion",
                    &[Argument::word(c"assert", c"ASSERT"), MODEL, Argument::word(c"twice", c"TWICE").optional()],
                ),
                Argument::block(c"hold", &[Argument::word(c"hold", c"HOLD"), MODEL]),
                Argument::word(c"release", c"RELEASE"),
            ],
        )]],
    },
];
