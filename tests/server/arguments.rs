//! Wrong arguments, for every command.

use redis::Cmd;

use crate::harness::{CHAT, EMBED, Server, cmd};

/// The words of a line, separated by spaces; `_` is an empty one.
fn line(words: &str) -> Cmd {
    let mut command = Cmd::new();
    for word in words.split(' ') {
        command.arg(if word == "_" { "" } else { word });
    }
    command
}

#[test]
fn wrong_arguments_are_refused_with_the_reason() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    for (words, reason) in [
        // Too few and too many.
        ("INFER.LOAD", "wrong number of arguments"),
        ("INFER.UNLOAD", "wrong number of arguments"),
        ("INFER.UNLOAD a b", "unknown option 'B'"),
        ("INFER.UNLOAD a FORCE force", "option FORCE is given twice"),
        ("INFER.MODEL", "wrong number of arguments"),
        ("INFER.MODELS x", "wrong number of arguments"),
        ("INFER.TOKENIZE chat", "wrong number of arguments"),
        ("INFER.TOKENIZESTORE k", "wrong number of arguments"),
        ("INFER.TOKENIZESTORE k chat", "wrong number of arguments"),
        ("INFER.DETOKENIZE chat", "wrong number of arguments"),
        ("INFER.DETOKENIZE chat 0", "wrong number of arguments"),
        ("INFER.DETOKENIZE chat 0 BLOB", "option BLOB needs a value"),
        ("INFER.GENERATE", "wrong number of arguments"),
        ("INFER.GENERATE chat", "wrong number of arguments"),
        ("INFER.GENERATE chat 0", "wrong number of arguments"),
        ("INFER.GENERATE chat 0 RAW", "a prompt (a key, TEXT or BLOB) is required"),
        ("INFER.CHAT chat", "wrong number of arguments"),
        ("INFER.CHAT chat 0", "wrong number of arguments"),
        ("INFER.CHAT chat 0 MESSAGE user", "wrong number of arguments"),
        ("INFER.CHAT chat 0 TEMP 0 TOPK", "option TOPK needs a value"),
        ("INFER.CHAT chat 0 TEMP 0 WITHSTATS", "a conversation (MESSAGE role content) is required"),
        ("INFER.EMBED embed", "wrong number of arguments"),
        ("INFER.RERANK rank query", "wrong number of arguments"),
        ("INFER.INDEX docs", "wrong number of arguments"),
        ("INFER.INDEX docs EMBEDMODEL embed", "wrong number of arguments"),
        ("INFER.INDEX docs EMBEDMODEL embed OVERLAP 1", "GENMODEL is required"),
        ("INFER.INDEX docs GENMODEL chat OVERLAP 1", "EMBEDMODEL is required"),
        ("INFER.INGEST docs path", "wrong number of arguments"),
        ("INFER.INGEST docs path text more", "unknown option 'MORE'"),
        ("INFER.FORGET docs path more", "wrong number of arguments"),
        ("INFER.DROPINDEX docs more", "wrong number of arguments"),
        ("INFER.REINDEX docs MAXTOKENS 64", "unknown option 'MAXTOKENS'"),
        ("INFER.SEARCH docs", "wrong number of arguments"),
        ("INFER.RAG docs", "wrong number of arguments"),
        // Unknown options.
        ("INFER.LOAD m /m FAST", "unknown option 'FAST'"),
        ("INFER.TOKENIZE chat t SPECIAL", "unknown option 'SPECIAL'"),
        ("INFER.TOKENIZESTORE k chat t PX 5", "unknown option 'PX'"),
        ("INFER.DETOKENIZE chat 1 k RAW", "unknown option 'RAW'"),
        ("INFER.GENERATE chat 0 TEXT t TEMPERATURE 1", "unknown option 'TEMPERATURE'"),
        ("INFER.EMBED embed 1 t EXTRA", "unknown option 'EXTRA'"),
        ("INFER.INDEX docs EMBEDMODEL e GENMODEL g K 3", "unknown option 'K'"),
        ("INFER.SEARCH docs q TEMP 0", "unknown option 'TEMP'"),
        ("INFER.RAG docs q RAW", "unknown option 'RAW'"),
        // Options without their value.
        ("INFER.LOAD m /m CTX", "option CTX needs a value"),
        ("INFER.TOKENIZESTORE k chat t EX", "option EX needs a value"),
        ("INFER.GENERATE chat 0 TEXT", "option TEXT needs a value"),
        ("INFER.GENERATE chat 0 TEXT t STOP 2 a", "STOP is 2, but the number of arguments after it is 1"),
        ("INFER.EMBED embed 1 t PREFIX", "option PREFIX needs a value"),
        ("INFER.INDEX docs EMBEDMODEL e GENMODEL", "wrong number of arguments"),
        ("INFER.INDEX docs EMBEDMODEL e GENMODEL g QUANT", "option QUANT needs a value"),
        ("INFER.SEARCH docs q K", "option K needs a value"),
        ("INFER.RAG docs q SYSTEM", "option SYSTEM needs a value"),
        // Options given twice.
        ("INFER.LOAD m /m CTX 512 CTX 512", "option CTX is given twice"),
        ("INFER.GENERATE chat 0 TEXT t temp 0 TEMP 0", "option TEMP is given twice"),
        ("INFER.EMBED embed 1 t NONORM NONORM", "option NONORM is given twice"),
        ("INFER.RAG docs q K 1 K 2", "option K is given twice"),
        // No numbers, and numbers out of range.
        ("INFER.GENERATE chat 0 TEXT t TEMP nan", "TEMP is not a number"),
        ("INFER.GENERATE chat 0 TEXT t TEMP -nan", "TEMP is not a number"),
        ("INFER.GENERATE chat 0 TEXT t TOPP inf", "TOPP is not a number"),
        ("INFER.GENERATE chat 0 TEXT t MINP 1e999", "MINP is not a number"),
        ("INFER.GENERATE chat 0 TEXT t TEMP -1", "TEMP must be from 0 to 100"),
        ("INFER.GENERATE chat 0 TEXT t MAXTOKENS 0", "MAXTOKENS must be from 1 to"),
        ("INFER.GENERATE chat 0 TEXT t MAXTOKENS 1.5", "MAXTOKENS is not an integer"),
        ("INFER.GENERATE chat 0 TEXT t SEED 4294967296", "SEED must be from 0 to 4294967294"),
        ("INFER.GENERATE chat 0 TEXT t TIMEOUT 0", "TIMEOUT must be from 1 to"),
        ("INFER.LOAD m /m CTX 99999999999999999999", "CTX must be from 64 to"),
        ("INFER.LOAD m /m CTX 63", "CTX must be from 64 to"),
        ("INFER.LOAD m /m WORKERS 0", "WORKERS must be from 1 to 256"),
        ("INFER.LOAD m /m THREADS 257", "THREADS must be from 1 to 256"),
        ("INFER.LOAD m /m TYPE CHAT", "TYPE must be one of AUTO, GENERATE, EMBED, RERANK"),
        ("INFER.LOAD m /m KVTYPE Q4", "KVTYPE must be one of F16, Q8_0"),
        ("INFER.LOAD m /m SPECULATION ON", "SPECULATION must be one of LOOKUP, NONE"),
        ("INFER.TOKENIZESTORE k chat t EX 0", "EX must be from 1 to"),
        ("INFER.EMBED embed 1 t DIM 0", "DIM must be from 1 to"),
        ("INFER.INDEX docs EMBEDMODEL e GENMODEL g MAXTOKENS 15", "MAXTOKENS must be from 16 to"),
        ("INFER.INDEX docs EMBEDMODEL e GENMODEL g QUANT Q4", "QUANT must be one of NOQUANT, Q8, BIN"),
        ("INFER.SEARCH docs q K 0", "K must be from 1 to 200"),
        // Counts.
        ("INFER.GENERATE chat -1 k", "numkeys is negative"),
        ("INFER.GENERATE chat two k", "numkeys is not a number"),
        ("INFER.GENERATE chat 1.0 k", "numkeys is not a number"),
        ("INFER.GENERATE chat _ k", "numkeys is not a number"),
        ("INFER.GENERATE chat 2 k", "numkeys is 2, but the number of arguments after it is 1"),
        ("INFER.GENERATE chat 2147483648 k", "numkeys is 2147483648, but the number of arguments after it is 1"),
        ("INFER.GENERATE chat 99999999999999999999 k", "numkeys is 9223372036854775807, but"),
        ("INFER.DETOKENIZE chat -5 k", "numkeys is negative"),
        ("INFER.DETOKENIZE chat 3 k", "numkeys is 3, but the number of arguments after it is 1"),
        ("INFER.EMBED embed -1 t", "count is negative"),
        ("INFER.EMBED embed 0 t", "count must be from 1 to 1024"),
        ("INFER.EMBED embed 5 t", "count is 5, but the number of arguments after it is 1"),
        ("INFER.RERANK rank q 5 t", "count is 5, but the number of arguments after it is 1"),
        ("INFER.RERANK rank q 1 t TOP 0", "TOP must be from 1 to 1024"),
        ("INFER.RERANK rank _ 1 t", "query must not be empty"),
        // Names and empty texts.
        ("INFER.MODEL _", "model name must not be empty"),
        ("INFER.MODEL {m}", "must not contain control characters or braces"),
        ("INFER.LOAD a{b} /m", "must not contain control characters or braces"),
        ("INFER.LOAD m _", "path must not be empty"),
        ("INFER.GENERATE chat 0 TEXT _", "TEXT must not be empty"),
        ("INFER.GENERATE chat 0 TEXT t BLOB abcd", "TEXT and BLOB cannot be used together"),
        ("INFER.INGEST docs _ text", "path must not be empty"),
        ("INFER.CHAT chat 0 MESSAGE tool t", "role of a MESSAGE must be one of system, user, assistant"),
        ("INFER.CHAT chat 0 MESSAGE user _", "content of a MESSAGE must not be empty"),
        ("INFER.CHAT chat 0 MESSAGE system s", "the last message must have the role user"),
        ("INFER.SEARCH docs _", "query must not be empty"),
    ] {
        client.refused(&line(words), "ERR", reason);
    }
    client.assert_in_step();
}

#[test]
fn a_model_that_is_not_loaded_is_nomodel_in_every_command() {
    let server = Server::start();
    let mut client = server.client();
    for words in [
        "INFER.UNLOAD m",
        "INFER.MODEL m",
        "INFER.TOKENIZE m t",
        "INFER.TOKENIZESTORE k m t",
        "INFER.DETOKENIZE m 1 k",
        "INFER.GENERATE m 0 TEXT t",
        "INFER.CHAT m 0 MESSAGE user t",
        "INFER.EMBED m 1 t",
        "INFER.RERANK m q 1 t",
        "INFER.INDEX docs EMBEDMODEL m GENMODEL m",
    ] {
        client.refused(&line(words), "NOMODEL", "no model 'm' is loaded; INFER.MODELS lists the loaded ones");
    }
}

#[test]
fn a_text_longer_than_the_limit_is_refused() {
    let server = Server::with(&[CHAT]);
    let mut client = server.client();
    let text = "x".repeat((8 << 20) + 1);
    client.refused(&cmd!["INFER.TOKENIZE", "chat", &text], "ERR", "text is longer than 8388608 bytes");
    client.refused(&cmd!["INFER.GENERATE", "chat", 0, "TEXT", &text], "ERR", "TEXT is longer than 8388608 bytes");
    client.assert_in_step();
}

#[test]
fn text_that_is_not_utf8_is_refused_with_the_place() {
    let server = Server::with(&[CHAT, EMBED]);
    let mut client = server.client();
    let bad: &[u8] = b"twelve bytes\xff and more";
    for (command, what) in [
        (cmd!["INFER.TOKENIZE", "chat", bad], "text"),
        (cmd!["INFER.TOKENIZESTORE", "k", "chat", bad], "text"),
        (cmd!["INFER.GENERATE", "chat", 0, "TEXT", bad], "TEXT"),
        (cmd!["INFER.GENERATE", "chat", 0, "TEXT", "t", "STOP", 1, bad], "STOP string"),
        (cmd!["INFER.CHAT", "chat", 0, "MESSAGE", "user", bad], "content of a MESSAGE"),
        (cmd!["INFER.EMBED", "embed", 1, bad], "text"),
        (cmd!["INFER.EMBED", "embed", 1, "t", "PREFIX", bad], "PREFIX"),
        (cmd!["INFER.RERANK", "rank", bad, 1, "t"], "query"),
        (cmd!["INFER.RERANK", "rank", "q", 2, "t", bad], "text"),
        (cmd!["INFER.INGEST", "docs", bad, "t"], "path"),
        (cmd!["INFER.INGEST", "docs", "path", bad], "text"),
        (cmd!["INFER.SEARCH", "docs", bad], "query"),
        (cmd!["INFER.RAG", "docs", bad], "query"),
        (cmd!["INFER.RAG", "docs", "q", "SYSTEM", bad], "SYSTEM"),
        (cmd!["INFER.MODEL", bad], "model name"),
        (cmd!["INFER.LOAD", "m", bad], "path"),
    ] {
        client.refused(&command, "ERR", &format!("{what} is not valid UTF-8 at byte 12"));
    }
}

#[test]
fn a_path_with_a_nul_is_refused_instead_of_cut_off() {
    let server = Server::start();
    let path = format!("{}\0.bak", CHAT.path().display());
    server.client().refused(&cmd!["INFER.LOAD", "m", path], "ERR", "path must not contain a NUL byte");
}
