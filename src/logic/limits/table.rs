//! The table of docs/LIMITS.md, made of the limits: the page cannot say another number than the code.

use std::fmt::Display;

use super::*;

/// Where the table stands.
const PAGE: &str = include_str!("../../../docs/LIMITS.md");

fn bytes(count: usize) -> String {
    match count {
        _ if count >= 1 << 20 => format!("{} MiB", count >> 20),
        _ if count >= 4 << 10 => format!("{} KiB", count >> 10),
        _ => format!("{count} bytes"),
    }
}

fn between(least: impl Display, most: impl Display) -> String {
    format!("{least} to {most}")
}

/// What, its limit, and what is answered beyond it.
fn rows() -> Vec<(&'static str, String, &'static str)> {
    let at_most = |what: &str, number: usize| format!("{number} {what}");
    vec![
        (
            "all texts of one command together: `TEXT`, `MESSAGE`, the texts of `EMBED` and `RERANK`, `SYSTEM`, an answer",
            bytes(TEXT_MAX),
            "`ERR`",
        ),
        ("a query, a prompt of a cache", bytes(QUERY_MAX), "`ERR`"),
        ("a document of `INGEST`", format!("{}, {DOCUMENT_CHUNKS_MAX} chunks", bytes(DOCUMENT_MAX)), "`ERR`"),
        ("`SYSTEM` with `CACHE`", bytes(CACHED_SYSTEM_MAX), "`ERR`"),
        ("`MESSAGE`", at_most("messages", MESSAGES_MAX), "`ERR`"),
        (
            "tokens of all keys and the `BLOB`, tokens that `TOKENIZESTORE` stores",
            at_most("tokens", KEY_TOKENS_MAX),
            "`CTXLIMIT`",
        ),
        ("keys of one command", at_most("keys", KEYS_MAX as usize), "`ERR`"),
        ("the text that `DETOKENIZE` answers", bytes(DETOKENIZED_MAX), "`CTXLIMIT`"),
        (
            "elements of a reply of `TOKENIZE`, `EMBED … FORMAT VALUES`",
            at_most("elements", REPLY_ELEMENTS_MAX),
            "`ERR`",
        ),
        ("texts of one `EMBED`", at_most("texts", EMBED_COUNT_MAX as usize), "`ERR`"),
        ("texts of one `RERANK`", at_most("texts", RERANK_COUNT_MAX as usize), "`ERR`"),
        ("name of a model, an index or a cache", bytes(NAME_MAX), "`ERR`"),
        ("path of a document", bytes(PATH_MAX), "`ERR`"),
        ("path of a model file", bytes(MODEL_PATH_MAX), "`ERR`"),
        ("`ATTRS`", bytes(ATTRS_MAX), "`ERR`"),
        ("`FILTER`", bytes(FILTER_MAX), "`ERR`"),
        ("`SCOPE`", bytes(SCOPE_MAX), "`ERR`"),
        ("`STOP`", format!("{STOP_COUNT_MAX} texts of {}", bytes(STOP_BYTES_MAX)), "`ERR`"),
        ("`LOGITBIAS`", format!("{LOGIT_BIAS_COUNT_MAX} tokens"), "`ERR`"),
        ("`LOGPROBS`", between(LOGPROBS_MIN, LOGPROBS_MAX), "`ERR`"),
        ("`GRAMMAR`, `JSONSCHEMA`", bytes(GRAMMAR_BYTES_MAX), "`ERR`"),
        ("`GRAMMAR`: rules", GRAMMAR_RULES_MAX.to_string(), "`ERR`"),
        (
            "`GRAMMAR`: parentheses and repetitions inside each other in one rule",
            GRAMMAR_DEPTH_MAX.to_string(),
            "`ERR`",
        ),
        ("`GRAMMAR`: the same through the names of rules", GRAMMAR_REFERENCE_DEPTH_MAX.to_string(), "`ERR`"),
        ("`GRAMMAR`: symbols, repetitions multiplied out", GRAMMAR_SYMBOLS_MAX.to_string(), "`ERR`"),
        (
            "`GRAMMAR`: items, repetitions inside repetitions multiplied, also through names",
            GRAMMAR_ITEMS_MAX.to_string(),
            "`ERR`",
        ),
        ("`GRAMMAR`: the numbers of a repetition", GRAMMAR_REPEAT_MAX.to_string(), "`ERR`"),
        ("`JSONSCHEMA`: levels of nesting", GRAMMAR_DEPTH_MAX.to_string(), "`ERR`"),
        ("`JSONSCHEMA`: levels through references", JSON_REFERENCE_DEPTH_MAX.to_string(), "`ERR`"),
        ("`JSONSCHEMA`: schemas in it", JSON_SCHEMAS_MAX.to_string(), "`ERR`"),
        ("`JSONSCHEMA`: steps to put combined schemas together", JSON_COMBINED_MAX.to_string(), "`ERR`"),
        ("`JSONSCHEMA`: properties of one object", JSON_PROPERTIES_MAX.to_string(), "`ERR`"),
        ("`JSONSCHEMA`: the digits of all `multipleOf` as numbers, together", JSON_MULTIPLES_MAX.to_string(), "`ERR`"),
        ("`MAXTOKENS` of an answer", between(MAX_TOKENS_MIN, MAX_TOKENS_MAX), "`ERR`"),
        ("`TIMEOUT`, in milliseconds", between(TIMEOUT_MS_MIN, TIMEOUT_MS_MAX), "`ERR`"),
        ("`K`", between(K_MIN, K_MAX), "`ERR`"),
        ("`EF`", between(EF_MIN, EF_MAX), "`ERR`"),
        ("`MAXTOKENS` of a chunk", between(CHUNK_TOKENS_MIN, CHUNK_TOKENS_MAX), "`ERR`"),
        ("`EX`, `TTL`, `CACHETTL`, in seconds", between(EXPIRE_SECONDS_MIN, EXPIRE_SECONDS_MAX), "`ERR`"),
        ("`CTX`, in tokens", between(CTX_MIN, CTX_MAX), "`ERR`"),
        ("requests that wait for one model", "`infer.queue-limit`".to_owned(), "`QUEUEFULL`"),
        (
            "texts that wait to be tokenized, of all clients",
            format!(
                "{PREPROCESS_WAITING_MAX} commands; of texts above {} half as many with {}",
                bytes(PREPROCESS_SMALL_MAX),
                bytes(PREPROCESS_BYTES_MAX)
            ),
            "`QUEUEFULL`",
        ),
    ]
}

#[test]
fn the_page_of_limits_has_the_numbers_of_the_code() {
    let lines = rows().into_iter().map(|(what, limit, answer)| format!("| {what} | {limit} | {answer} |\n"));
    let table: String =
        ["| what | at most | beyond it |\n|---|---|---|\n".to_owned()].into_iter().chain(lines).collect();
    assert!(PAGE.ends_with(&table), "docs/LIMITS.md should end with\n{table}");
}
