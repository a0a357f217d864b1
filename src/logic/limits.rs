//! Every default, lower and upper bound of a command option or configuration value, once.
//!
//! Bounds are inclusive. Where no source is named the number is our own choice, with its reason.

/// `TEMP`: the default of llama.cpp's `common_params_sampling`.
pub const TEMP_DEFAULT: f32 = 0.8;
/// `TEMP`: 0 takes the most likely token.
pub const TEMP_MIN: f32 = 0.0;
/// `TEMP`: above this every model draws almost evenly from its vocabulary.
pub const TEMP_MAX: f32 = 100.0;
/// A `TEMP` below this is taken as 0: logits divided by it could leave the range of `f32`.
pub const TEMP_GREEDY_BELOW: f32 = 1e-6;

/// `TOPK`: the default of llama.cpp's `common_params_sampling`.
pub const TOPK_DEFAULT: i32 = 40;
/// `TOPK`: 0 switches the filter off.
pub const TOPK_MIN: i32 = 0;
/// `TOPK`: above the vocabulary of any known model, which is where the filter ends anyway.
pub const TOPK_MAX: i32 = 1_000_000;

/// `TOPP`: the default of llama.cpp's `common_params_sampling`.
pub const TOPP_DEFAULT: f32 = 0.95;
/// `TOPP`: a probability; 0 keeps one token.
pub const TOPP_MIN: f32 = 0.0;
/// `TOPP`: a probability; 1 switches the filter off.
pub const TOPP_MAX: f32 = 1.0;

/// `MINP`: the default of llama.cpp's `common_params_sampling`.
pub const MINP_DEFAULT: f32 = 0.05;
/// `MINP`: a share of the highest probability; 0 switches the filter off.
pub const MINP_MIN: f32 = 0.0;
/// `MINP`: a share of the highest probability; 1 keeps one token.
pub const MINP_MAX: f32 = 1.0;

/// `MAXTOKENS` of a generation, in tokens: a few paragraphs.
pub const MAX_TOKENS_DEFAULT: u32 = 256;
/// `MAXTOKENS` of a generation, in tokens.
pub const MAX_TOKENS_MIN: u32 = 1;
/// `MAXTOKENS` of a generation, in tokens: the largest context, see [`CTX_MAX`].
pub const MAX_TOKENS_MAX: u32 = CTX_MAX;

/// `REPEATPENALTY`: off, the default of llama.cpp's `common_params_sampling`.
pub const REPEAT_PENALTY_DEFAULT: f32 = 1.0;
/// `REPEATPENALTY`: above 0, as llama.cpp demands; below 1 it favours repetition.
pub const REPEAT_PENALTY_MIN: f32 = 0.0625;
/// `REPEATPENALTY`: far above useful values, which are below 2.
pub const REPEAT_PENALTY_MAX: f32 = 16.0;

/// `REPEATLASTN`, in tokens: the default of llama.cpp's `common_params_sampling`.
pub const REPEAT_LAST_N_DEFAULT: i32 = 64;
/// `REPEATLASTN`: -1 looks at all tokens of the request, 0 at none.
pub const REPEAT_LAST_N_MIN: i32 = -1;
/// `REPEATLASTN`, in tokens: the largest context, see [`CTX_MAX`].
pub const REPEAT_LAST_N_MAX: i32 = CTX_MAX as i32;

/// `PRESENCE` and `FREQUENCY`: off, the default of llama.cpp's `common_params_sampling`.
pub const PENALTY_DEFAULT: f32 = 0.0;
/// `PRESENCE` and `FREQUENCY`: below 0 they favour repetition.
pub const PENALTY_MIN: f32 = -100.0;
/// `PRESENCE` and `FREQUENCY`: logits differ by less.
pub const PENALTY_MAX: f32 = 100.0;

/// `LOGITBIAS`: number of pairs.
pub const LOGIT_BIAS_COUNT_MIN: u32 = 1;
/// `LOGITBIAS`: number of pairs; each costs one addition per token.
pub const LOGIT_BIAS_COUNT_MAX: u32 = 1024;
/// `LOGITBIAS`: a token id; the model's vocabulary is checked later.
pub const LOGIT_BIAS_ID_MIN: u32 = 0;
/// `LOGITBIAS`: a token id; llama.cpp's ids are not negative 32-bit numbers.
pub const LOGIT_BIAS_ID_MAX: u32 = i32::MAX as u32;
/// `LOGITBIAS`: in effect forbids the token.
pub const LOGIT_BIAS_MIN: f32 = -100.0;
/// `LOGITBIAS`: in effect allows no other token.
pub const LOGIT_BIAS_MAX: f32 = 100.0;

/// `GRAMMAR` and `JSONSCHEMA`, in bytes.
pub const GRAMMAR_BYTES_MAX: usize = 64 << 10;
/// `GRAMMAR` and `JSONSCHEMA`: levels of nesting.
pub const GRAMMAR_DEPTH_MAX: usize = 64;
/// `GRAMMAR`: items, repetitions multiplied with each other, also through the names of rules. An ambiguous one of four million held a
/// worker for seconds at a token, one of this size for tens of milliseconds.
pub const GRAMMAR_ITEMS_MAX: usize = 100_000;
/// `GRAMMAR`: the numbers in `{m,n}`, as in llama.cpp (`MAX_REPETITION_THRESHOLD`).
pub const GRAMMAR_REPEAT_MAX: u32 = 2000;
/// `GRAMMAR`: rules; the grammar of a programming language has some hundreds. Some passes over a grammar take the square of it.
pub const GRAMMAR_RULES_MAX: usize = 2048;
/// `GRAMMAR`: levels of rules that lead to others, with the parentheses and repetitions on the way. The compiler recurses for each,
/// with less than 8 KiB of stack.
pub const GRAMMAR_REFERENCE_DEPTH_MAX: usize = 512;
/// `GRAMMAR`: symbols when repetitions are multiplied out. llguidance numbers them with 16 bits.
pub const GRAMMAR_SYMBOLS_MAX: usize = 40_000;
/// `GRAMMAR`: different characters and classes. Each is an expression of the lexer.
pub const GRAMMAR_TERMINALS_MAX: usize = 4096;
/// `JSONSCHEMA`: schemas, with those that are needed twice (closed, and open to what they are combined with).
pub const JSON_SCHEMAS_MAX: usize = 10_000;
/// `JSONSCHEMA`: steps to find out which properties stand together; what a schema of the longest text needs is far below.
pub const JSON_STEPS_MAX: usize = 200_000;
/// `JSONSCHEMA`: levels of schemas, through references. The compiler recurses for each, with less than 32 KiB of stack.
pub const JSON_REFERENCE_DEPTH_MAX: usize = 256;
/// `JSONSCHEMA`: `properties` of one object, those of what it is combined with included. The compiler recurses for each, with less
/// than 8 KiB of stack.
pub const JSON_PROPERTIES_MAX: usize = 1024;
/// `JSONSCHEMA`: `patternProperties` of one object; each is compared with each other one.
pub const JSON_PATTERN_PROPERTIES_MAX: usize = 16;
/// `JSONSCHEMA`: values of `pattern` and `format`, each an expression of the lexer.
pub const JSON_PATTERNS_MAX: usize = 512;
/// `JSONSCHEMA`: the digits of all `multipleOf`, point aside, as numbers: 60,000 take 0.1 s to compile, 500,000 more than 6 s and 95 MiB.
pub const JSON_MULTIPLES_MAX: usize = 50_000;
/// `JSONSCHEMA`: choices of a `oneOf`; each is compared with each other one.
pub const JSON_ONE_OF_MAX: usize = 256;
/// `JSONSCHEMA`: schemas that combining makes, by `allOf`, `anyOf`, `oneOf` and `$ref` beside other keywords: 20 MB of them.
pub const JSON_COMBINED_MAX: usize = 20_000;
/// `JSONSCHEMA`: levels of combined schemas; llguidance stops at 128 by itself.
pub const JSON_COMBINED_DEPTH_MAX: usize = 128;
/// `JSONSCHEMA`: the value of `minLength`, `minItems` and `minProperties`. `maxLength` and so on above it mean nothing: no answer
/// is as long.
pub const JSON_COUNT_MAX: u64 = 1 << 24;

/// `LOGPROBS`: 0 tells only about the generated tokens.
pub const LOGPROBS_MIN: u32 = 0;
/// `LOGPROBS`: as in the API that made the word known.
pub const LOGPROBS_MAX: u32 = 20;

/// `SEED`: any 32-bit number.
pub const SEED_MIN: u32 = 0;
/// `SEED`: any 32-bit number but the last, which means a random one to llama.cpp.
pub const SEED_MAX: u32 = u32::MAX - 1;

/// `STOP`: number of strings.
pub const STOP_COUNT_MIN: u32 = 1;
/// `STOP`: number of strings; each is compared with the text after every token.
pub const STOP_COUNT_MAX: u32 = 64;
/// `STOP`: bytes of one string; that much text is held back until it cannot be the string any more.
pub const STOP_BYTES_MAX: usize = 256;

/// `TIMEOUT` in milliseconds.
pub const TIMEOUT_MS_MIN: u32 = 1;
/// `TIMEOUT` in milliseconds: one day.
pub const TIMEOUT_MS_MAX: u32 = 86_400_000;

/// `K` of a search: chunks returned; about what a context of [`CTX_DEFAULT`] holds beside the answer.
pub const K_DEFAULT: u32 = 5;
/// `K` of a search: chunks returned.
pub const K_MIN: u32 = 1;
/// `K` of a search: chunks returned.
pub const K_MAX: u32 = 200;

/// `RERANK`: chunks that the reranker reads for each that is kept, so that there is something to choose from.
pub const RERANK_CANDIDATES_PER_K: u32 = 4;
/// `RERANK`: chunks that the reranker reads, whatever `K` is.
pub const RERANK_CANDIDATES_MIN: u32 = 20;
/// `RERANK`: chunks that the reranker reads, as many as `K` may be.
pub const RERANK_CANDIDATES_MAX: u32 = K_MAX;

/// `EF` of a search: candidates kept at hand while the graph is walked.
pub const EF_MIN: u32 = 1;
/// `EF` of a search: it takes 1.4 ms with the default of `VSIM`, 100, and 14 to 19 ms with this one (100,000 vectors of 384
/// numbers, Q8, one core; ten times as much takes 0.1 s), in which other searches and documents wait, and in a small index all clients.
pub const EF_MAX: u32 = 1000;
/// `FILTER`, in bytes: some dozens of conditions, each of which is tried on every element that is looked at.
pub const FILTER_MAX: usize = 1024;
/// `FILTER-EF` of a search with a short `FILTER`: nodes whose neighbours are looked at before it gives up, after 20 to 30
/// ms when nearly nothing meets the filter; about 25,000 elements are tried (measured as [`EF_MAX`], where ten times as much took 0.2 s). `options::filter_effort` lowers it for longer ones.
pub const FILTER_EFFORT_MAX: u32 = 1000;
/// The part of that which is tried first, and which is enough unless next to nothing meets the filter.
pub const FILTER_NEAR_PART: u32 = 8;
/// `FILTER-EF` of the longest: still 1000 elements.
pub const FILTER_EFFORT_MIN: u32 = 50;
/// `MINSCORE`: every chunk.
pub const MINSCORE_MIN: f64 = 0.0;
/// `MINSCORE`: only vectors of the query's very direction.
pub const MINSCORE_MAX: f64 = 1.0;

/// `THRESHOLD` of a cache: prompts that mean the same with all-MiniLM-L6-v2, most of the time; docs/CACHE.md has examples. Its bounds are those of
/// `MINSCORE`.
pub const THRESHOLD_DEFAULT: f64 = 0.95;
/// `CACHETTL`, in seconds: an hour, after which what was asked about documents that have changed since takes no memory any more.
pub const CACHE_TTL_DEFAULT: u32 = 3600;
/// Nearest prompts that are looked at in a cache: the answers of some may have expired.
pub const CACHE_CANDIDATES: u32 = 8;
/// Vectors of a cache that lead nowhere any more and may stay in any case; more of them than of the others are too many.
pub const CACHE_HIDDEN_MAX: i64 = 1000;
/// `SCOPE` of a cache, in bytes; stored with each of its entries.
pub const SCOPE_MAX: usize = 1024;
/// `SYSTEM` together with `CACHE`, in bytes: it is stored with each answer, too.
pub const CACHED_SYSTEM_MAX: usize = 64 << 10;

/// Keys of a database that `INFER.DROPINDEX` looks through for what may be left of an index although nothing speaks for that: half a second of
/// short steps. In a larger one only where something does.
pub const SWEEP_KEYS_MAX: i64 = 1_000_000;
/// Generations of an earlier index that `INFER.INDEX` asks for: three keys each, in some hundredths of a millisecond.
pub const GENERATIONS_ASKED: u32 = 64;

/// Hits that a search looks at when vectors that lead nowhere stand before those that do: as many as `EF` may be.
pub const HITS_MAX: u32 = EF_MAX;
/// Chunks of an index that searches have missed and that `INFER.INDEXINFO` counts, and indexes that have such.
pub const LOSSES_MAX: usize = 1000;

/// `BUDGET`, in tokens of the answering model.
pub const BUDGET_MIN: u32 = 1;
/// `BUDGET`, in tokens of the answering model: the largest context, see [`CTX_MAX`].
pub const BUDGET_MAX: u32 = CTX_MAX;

/// Bytes of the text arguments of one command together (prompt, messages, texts to embed): one text may have all of them.
pub const TEXT_MAX: usize = 8 << 20;
/// Bytes that `INFER.DETOKENIZE` answers: the reply is copied on the main thread. No text that can be given has so many.
pub const DETOKENIZED_MAX: usize = 2 * TEXT_MAX;
/// Commands whose texts may wait for a preprocess thread; half of them while theirs is large, see [`PREPROCESS_SMALL_MAX`].
pub const PREPROCESS_WAITING_MAX: usize = 1024;
/// Bytes of all texts that wait for a preprocess thread or are at one, where a large one comes: eight commands of the largest size, some seconds of
/// work. Small ones are bounded by their number.
pub const PREPROCESS_BYTES_MAX: usize = 8 * TEXT_MAX;
/// Bytes up to which a text is small for the preprocess threads, one of which is always left for such: some milliseconds of work.
pub const PREPROCESS_SMALL_MAX: usize = 64 << 10;
/// Bytes of a query to an index: far more than any embedding model reads at once, and counted in some tenths of a second,
/// so that what is too long is told with its number of tokens.
pub const QUERY_MAX: usize = 1 << 20;
/// Messages of one conversation: more than any model follows, and few enough for a template to go through.
pub const MESSAGES_MAX: usize = 1024;
/// Bytes of a document given to `INFER.INGEST`.
pub const DOCUMENT_MAX: usize = 1 << 20;
/// Chunks of a document: all take their places in one lock scope, so that no reader sees half of it.
pub const DOCUMENT_CHUNKS_MAX: usize = 1024;
/// Characters without white space that a tokenizer which recurses for each of them takes: a kilobyte of stack each
/// fits twice into the stack of an engine thread.
pub const RECURSIVE_RUN_MAX: usize = 32 << 10;
/// What each model keeps of the tokens of headings, system messages and questions, and as much again of those of its template: some
/// thousands of them.
pub const TOKEN_MEMO_BYTES: usize = 1 << 20;
/// Keys with tokens in one command.
pub const KEYS_MAX: u32 = 1024;
/// Tokens of the keys and the `BLOB` of one command: the largest context, see [`CTX_MAX`].
pub const KEY_TOKENS_MAX: usize = CTX_MAX as usize;
/// Elements of a reply that lists tokens or numbers: rendering them is work for the main thread.
pub const REPLY_ELEMENTS_MAX: usize = 100_000;
/// Bytes of a document's path inside an index.
pub const PATH_MAX: usize = 1024;
/// Bytes of the `ATTRS` of a document, which are stored with each of its chunks.
pub const ATTRS_MAX: usize = 4 << 10;
/// Bytes of a model file's path: `PATH_MAX` of Linux.
pub const MODEL_PATH_MAX: usize = 4096;
/// Bytes of a model or index name.
pub const NAME_MAX: usize = 128;

/// `CTX`, in tokens per request: room for a question with its chunks, without the memory of a model's full context.
pub const CTX_DEFAULT: u32 = 4096;
/// `CTX`, in tokens per request.
pub const CTX_MIN: u32 = 64;
/// `CTX`, in tokens per request: the longest context of published models.
pub const CTX_MAX: u32 = 1 << 20;

/// `PARALLEL`: requests that one worker advances together.
pub const PARALLEL_DEFAULT: u32 = 2;
/// `PARALLEL`: requests that one worker advances together.
pub const PARALLEL_MIN: u32 = 1;
/// `PARALLEL`: requests that one worker advances together; each needs its own KV cache.
pub const PARALLEL_MAX: u32 = 64;

/// `WORKERS`: threads that each own one llama.cpp context.
pub const WORKERS_MIN: u32 = 1;
/// `WORKERS`: threads that each own one llama.cpp context.
pub const WORKERS_MAX: u32 = 256;

/// `THREADS`: compute threads of one worker.
pub const THREADS_MIN: u32 = 1;
/// `THREADS`: compute threads of one worker; below `GGML_MAX_N_THREADS` of llama.cpp, 512.
pub const THREADS_MAX: u32 = 256;

/// `GPULAYERS`: none, the default build is for CPUs.
pub const GPU_LAYERS_DEFAULT: u32 = 0;
/// `GPULAYERS`: layers of the model kept on the GPU.
pub const GPU_LAYERS_MIN: u32 = 0;
/// `GPULAYERS`: above the layers of any model, where it means all; the usual way to write that is 999.
pub const GPU_LAYERS_MAX: u32 = 65_536;

/// `LORA`: the least that the change of an adapter is multiplied with; negative numbers turn it around.
pub const LORA_SCALE_MIN: f32 = -100.0;
/// `LORA`: the most; adapters are trained for 1, and a few times that is already noise.
pub const LORA_SCALE_MAX: f32 = 100.0;

/// `EX` of a stored key, in seconds.
pub const EXPIRE_SECONDS_MIN: u32 = 1;
/// `EX` of a stored key, in seconds: ten years of 365 days.
pub const EXPIRE_SECONDS_MAX: u32 = 10 * 365 * 86_400;

/// Texts in one `INFER.EMBED`.
pub const EMBED_COUNT_MIN: u32 = 1;
/// Texts in one `INFER.EMBED`; each is one entry of the reply.
pub const EMBED_COUNT_MAX: u32 = 1024;
/// Texts in one `INFER.RERANK`, and `TOP` of them.
pub const RERANK_COUNT_MIN: u32 = 1;
/// Texts in one `INFER.RERANK`, and `TOP` of them: far more than a search finds.
pub const RERANK_COUNT_MAX: u32 = 1024;
/// `DIM`, in values of a vector.
pub const DIM_MIN: u32 = 1;
/// `DIM`, in values of a vector; vector sets refuse more than 65 536.
pub const DIM_MAX: u32 = 65_536;

/// `MAXTOKENS` of a chunk, in tokens of the embedding model: fits the 512 of common embedding models.
pub const CHUNK_TOKENS_DEFAULT: u32 = 256;
/// `MAXTOKENS` of a chunk, in tokens of the embedding model.
pub const CHUNK_TOKENS_MIN: u32 = 16;
/// `MAXTOKENS` of a chunk, in tokens of the embedding model: the context of long-context embedding models.
pub const CHUNK_TOKENS_MAX: u32 = 8192;

/// `OVERLAP`: pieces of a chunk's end repeated at the start of the next.
pub const OVERLAP_DEFAULT: u32 = 1;
/// `OVERLAP`: pieces of a chunk's end repeated at the start of the next.
pub const OVERLAP_MIN: u32 = 0;
/// `OVERLAP`: pieces of a chunk's end repeated at the start of the next; more would be the same text twice.
pub const OVERLAP_MAX: u32 = 8;

/// `REREAD`, in tokens: the fastest; what is gained by more is measured by `make chunk-kv`.
pub const REREAD_DEFAULT: u32 = 0;
/// `REREAD`, in tokens.
pub const REREAD_MIN: u32 = 0;
/// `REREAD`, in tokens: the longest chunk.
pub const REREAD_MAX: u32 = CHUNK_TOKENS_MAX;

/// Models whose load in the background failed and that are still listed: enough to see what went wrong, and few beside the models
/// in service.
pub const FAILED_LOADS: usize = 16;

/// `infer.kv-budget`, in bytes: with a model of a hundred million parameters 45,000 tokens.
pub const KV_BUDGET_DEFAULT: i64 = 1 << 30;
/// `infer.kv-budget`: 0 keeps nothing.
pub const KV_BUDGET_MIN: i64 = 0;
/// `infer.kv-budget`: more than any machine has.
pub const KV_BUDGET_MAX: i64 = 1 << 50;

/// `infer.queue-limit`: requests that may wait for one model.
pub const QUEUE_LIMIT_DEFAULT: i64 = 128;
/// `infer.queue-limit`: requests that may wait for one model.
pub const QUEUE_LIMIT_MIN: i64 = 1;
/// `infer.queue-limit`: requests that may wait for one model.
pub const QUEUE_LIMIT_MAX: i64 = 65_536;

/// `infer.max-memory`: any number of bytes.
pub const MAX_MEMORY_DEFAULT: i64 = 0;
/// `infer.max-memory`: 0 is for any number.
pub const MAX_MEMORY_MIN: i64 = 0;
/// `infer.max-memory`: more than any machine has.
pub const MAX_MEMORY_MAX: i64 = 1 << 50;

/// `infer.nice`: worker threads give way to the thread that answers plain commands.
pub const NICE_DEFAULT: i64 = 10;
/// `infer.nice`: the nice value of an ordinary thread; less needs privileges.
pub const NICE_MIN: i64 = 0;
/// `infer.nice`: one more than the highest nice value of Linux, for threads that run only while no others want the CPU.
pub const NICE_MAX: i64 = 20;

#[cfg(test)]
mod table;
