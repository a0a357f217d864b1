//! Bytes that break protocols, terminals and C strings, in every argument of every command.

use redis::Cmd;

use crate::harness::{CHAT, Client, EMBED, RANK, Refusal, Server, cmd, text};

/// Error codes that clients may see, of ours and of Redis.
const CODES: [&str; 16] = [
    "ERR",
    "WRONGTYPE",
    "NOPERM",
    "NOMODEL",
    "MODELLOADING",
    "LOADFAIL",
    "QUEUEFULL",
    "TIMEOUT",
    "CANCELLED",
    "CTXLIMIT",
    "BADTOKENS",
    "MISMATCH",
    "NOINDEX",
    "NOCACHE",
    "OOM",
    "NOVECTORSETS",
];

/// A command that works, for each command and each kind of argument.
fn working_commands() -> Vec<Cmd> {
    let path = CHAT.path().to_str().unwrap();
    vec![
        cmd!["INFER.LOAD", "chat", path, "TYPE", "AUTO", "CTX", 256, "WORKERS", 1, "THREADS", "AUTO", "KVTYPE", "F16"],
        cmd!["INFER.UNLOAD", "nobody"],
        cmd!["INFER.MODELS"],
        cmd!["INFER.MODEL", "chat"],
        cmd!["INFER.TOKENIZE", "chat", "text", "NOSPECIAL"],
        cmd!["INFER.TOKENIZESTORE", "k2", "chat", "text", "EX", 100],
        cmd!["INFER.DETOKENIZE", "chat", 1, "k", "BLOB", "abcd"],
        cmd!["INFER.GENERATE", "chat", 1, "k", "TEXT", "t", "RAW", "MAXTOKENS", 2, "TEMP", 0.5, "STOP", 1, "s"],
        cmd![
            "INFER.GENERATE",
            "chat",
            0,
            "BLOB",
            "a\0\0\0",
            "MAXTOKENS",
            2,
            "TOPK",
            3,
            "TOPP",
            1,
            "SEED",
            1,
            "WITHSTATS"
        ],
        cmd!["INFER.CHAT", "chat", 1, "k", "MESSAGE", "system", "s", "MESSAGE", "user", "u", "MAXTOKENS", 2, "TEMP", 0],
        cmd!["INFER.PS"],
        cmd!["INFER.CANCEL", 1],
        cmd!["INFER.RERANK", "rank", "q", 2, "a", "b", "TOP", 1],
        cmd!["INFER.EMBED", "embed", 2, "a", "b", "FORMAT", "VALUES", "DIM", 8, "NONORM", "PREFIX", "p"],
        cmd![
            "INFER.INDEX",
            "docs",
            "EMBEDMODEL",
            "embed",
            "GENMODEL",
            "chat",
            "MAXTOKENS",
            64,
            "OVERLAP",
            1,
            "QUANT",
            "Q8"
        ],
        cmd!["INFER.INGEST", "docs", "path", "some text"],
        cmd!["INFER.SEARCH", "docs", "query", "K", 2, "WITHTEXT"],
        cmd![
            "INFER.RAG",
            "docs",
            "query",
            "K",
            1,
            "SYSTEM",
            "be brief",
            "WITHSOURCES",
            "MAXTOKENS",
            2,
            "TIMEOUT",
            60_000
        ],
        cmd!["INFER.CACHESET", "faq", "some prompt", "answer", "TTL", 100, "SCOPE", "s", "EMBEDMODEL", "embed"],
        cmd!["INFER.CACHEGET", "faq", "some text", "THRESHOLD", 0.5, "SCOPE", "s", "WITHSTATS"],
        cmd!["INFER.CACHEINFO", "faq"],
        cmd!["INFER.CACHEDEL", "faq", "SCOPE", "s"],
        cmd!["INFER.DEBUG", "PANIC", "nobody"],
    ]
}

/// `command` with its argument `place` replaced.
fn with_argument(command: &Cmd, place: usize, bytes: &[u8]) -> Cmd {
    let mut changed = Cmd::new();
    for (i, arg) in command.args_iter().enumerate() {
        match arg {
            redis::Arg::Simple(_) if i == place => changed.arg(bytes),
            redis::Arg::Simple(same) => changed.arg(same),
            _ => panic!("an argument of an unknown kind"),
        };
    }
    changed
}

/// One reply came, and if it is an error it has a known code and a text that cannot harm a terminal or a log.
#[track_caller]
fn assert_proper(client: &mut Client, command: &Cmd) {
    if let Err(Refusal { code, text }) = client.call(command) {
        assert!(CODES.contains(&code.as_str()), "{code} {text}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    client.assert_in_step();
}

#[test]
fn hostile_bytes_in_any_argument_of_any_command_get_one_proper_reply() {
    let mut server = Server::with(&[CHAT, EMBED, RANK]);
    let hostile: [&[u8]; 9] = [
        b"a\0b",
        b"\0",
        b"\r\n",
        b"x\r\n+OK\r\n$-1\r\n",
        b"\xff\xfe",
        b"%s%s%n",
        "\u{1f980}\u{202e}".as_bytes(),
        b"",
        &[b'x'; 5000],
    ];
    for mut client in [server.client(), server.resp3()] {
        client.ok(&cmd!["INFER.TOKENIZESTORE", "k", "chat", "text"]);
        for command in working_commands() {
            for place in 1..command.args_iter().count() {
                for bytes in hostile {
                    assert_proper(&mut client, &with_argument(&command, place, bytes));
                }
            }
            assert_proper(&mut client, &command);
        }
        assert_eq!(text(&client.ok(&cmd!["INFER.DETOKENIZE", "chat", 1, "k"])), "text");
    }
    server.assert_alive();
}
