//! The worst that a client can say for each argument of each command, at the documented limits and far beyond them.
//!
//! A line is made of parts, each named as COMMAND DOCS names the argument: by its token, else by its name. A command or an
//! argument without an entry here fails the test, and so does an entry for an argument that is not there.

use redis_infer_stress::{Line, hostile};

use super::{BIG, TOKENS};
use crate::harness::CHAT;

/// A line in parts.
pub type Parts = Vec<(&'static str, Line)>;

/// Bytes of a text argument that is taken.
const TEXT: usize = 8 << 20;
/// Bytes of a query or document that is taken.
const QUERY: usize = 1 << 20;
/// More bytes than any argument may have.
const TOO_MANY: usize = 64 << 20;

fn words(text: &str) -> Line {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn part(name: &'static str, text: &str) -> Parts {
    vec![(name, words(text))]
}

fn value(name: &'static str, bytes: Vec<u8>) -> Parts {
    vec![(name, vec![bytes])]
}

/// A part that is a token with its value.
fn option(token: &'static str, bytes: Vec<u8>) -> Parts {
    vec![(token, vec![token.as_bytes().to_vec(), bytes])]
}

fn prose(bytes: usize) -> Vec<u8> {
    b"the cat sat on the mat and ".iter().copied().cycle().take(bytes).collect()
}

fn paragraphs(bytes: usize) -> Vec<u8> {
    b"the cat\n\n".iter().copied().cycle().take(bytes).collect()
}

fn solid(bytes: usize) -> Vec<u8> {
    vec![b'x'; bytes]
}

/// A text that is taken, one without white space, and one that is refused.
fn texts(most: usize) -> Vec<Vec<u8>> {
    vec![prose(most), solid(most), prose(TOO_MANY)]
}

fn blobs() -> Vec<Vec<u8>> {
    let tokens = |count| b"a\0\0\0".repeat(count);
    vec![tokens(1 << 20), tokens(TOO_MANY / 4), solid(TOO_MANY - 1)]
}

/// A name that is taken, and one that is refused.
fn names() -> Vec<Vec<u8>> {
    vec![vec![b'n'; 128], vec![b'n'; 1 << 20]]
}

fn each(values: Vec<Vec<u8>>, of: impl Fn(Vec<u8>) -> Parts) -> Vec<Parts> {
    values.into_iter().map(of).collect()
}

/// The parts that a line of `command` needs to work.
pub fn base(command: &str) -> Option<Parts> {
    let path = CHAT.path().to_str().unwrap();
    let parts: &[(&'static str, &str)] = match command {
        "infer.load" => &[("name", "spare"), ("path", path), ("WORKERS", "WORKERS 1"), ("THREADS", "THREADS 1")],
        "infer.unload" => &[("name", "spare")],
        "infer.models" | "infer.ps" => &[],
        "infer.model" => &[("name", "chat")],
        "infer.tokenize" => &[("model", "chat"), ("text", "cat")],
        "infer.tokenizestore" => &[("key", "stored"), ("model", "chat"), ("text", "cat")],
        "infer.detokenize" => &[("model", "chat"), ("numkeys", "1"), ("key", "k0")],
        "infer.generate" => {
            &[("model", "chat"), ("numkeys", "0"), ("key", ""), ("TEXT", "TEXT cat"), ("MAXTOKENS", "MAXTOKENS 4")]
        }
        "infer.chat" => &[
            ("model", "chat"),
            ("numkeys", "0"),
            ("key", ""),
            ("MESSAGE", "MESSAGE user cat"),
            ("MAXTOKENS", "MAXTOKENS 4"),
        ],
        "infer.embed" => &[("model", "embed"), ("count", "1"), ("text", "cat")],
        "infer.rerank" => &[("model", "rank"), ("query", "cat"), ("count", "1"), ("text", "cat")],
        "infer.index" => &[("index", "other"), ("EMBEDMODEL", "EMBEDMODEL embed"), ("GENMODEL", "GENMODEL chat")],
        "infer.ingest" => &[("index", "docs"), ("path", "path"), ("text", "cat")],
        "infer.forget" => &[("index", "docs"), ("path", "long.md")],
        "infer.indexinfo" | "infer.reindex" | "infer.dropindex" => &[("index", "docs")],
        "infer.search" => &[("index", "docs"), ("query", "cat")],
        "infer.rag" => &[("index", "docs"), ("query", "cat"), ("MAXTOKENS", "MAXTOKENS 4")],
        "infer.cacheget" => &[("cache", "faq"), ("prompt", "cat")],
        "infer.cacheset" => {
            &[("cache", "faq"), ("prompt", "cat"), ("answer", "mat"), ("EMBEDMODEL", "EMBEDMODEL embed")]
        }
        "infer.cachedel" | "infer.cacheinfo" => &[("cache", "faq")],
        "infer.cancel" => &[("id", "1")],
        "infer.debug" => &[("RELEASE", "RELEASE")],
        _ => return None,
    };
    Some(parts.iter().map(|&(name, text)| (name, if text.is_empty() { Line::new() } else { words(text) })).collect())
}

/// The worst for one argument; each replaces parts of [`base`] or comes behind them. Nothing for an argument that is not
/// known here.
pub fn worst(command: &str, argument: &str) -> Vec<Parts> {
    let known = of_command(command, argument);
    if known.is_empty() { of_any_command(argument) } else { known }
}

fn of_command(command: &str, argument: &str) -> Vec<Parts> {
    match (command, argument) {
        ("infer.load", "path") => {
            let path = |bytes| value("path", [b"/".to_vec(), vec![b'p'; bytes]].concat());
            vec![path(4095), path(1 << 20), part("path", "/"), part("path", "/dev/zero")]
        }
        ("infer.load", "LORA") => {
            let adapter = vec![b'l'; 4095];
            vec![vec![("LORA", vec![b"LORA".to_vec(), adapter, b"1".to_vec()])]]
        }
        ("infer.load", option) => load(option),
        ("infer.tokenize" | "infer.tokenizestore", "text") => each(texts(TEXT), |text| value("text", text)),
        ("infer.generate" | "infer.chat" | "infer.detokenize", "numkeys") => {
            vec![part("numkeys", "1024"), part("numkeys", "1000000000")]
        }
        ("infer.generate" | "infer.chat" | "infer.detokenize", "key") => keys(),
        ("infer.detokenize", "BLOB") => each(blobs(), |blob| option("BLOB", blob)),
        ("infer.chat", "BLOB") => each(blobs(), |blob| option("BLOB", blob)),
        ("infer.embed", "count") => vec![part("count", "1024"), part("count", "1000000000")],
        ("infer.embed", "text") => {
            vec![many("text", 1024, prose(8 << 10)), many("text", 16, prose(TEXT)), many("text", 200_000, solid(1))]
        }
        ("infer.embed", "PREFIX") => {
            let mut long = many("text", 1024, solid(1));
            long.extend(option("PREFIX", prose(TEXT)));
            vec![option("PREFIX", prose(TEXT)), option("PREFIX", prose(TOO_MANY)), long]
        }
        ("infer.embed", "FORMAT") => {
            let mut numbers = many("text", 1024, solid(3));
            numbers.extend(part("FORMAT", "FORMAT VALUES"));
            vec![numbers]
        }
        ("infer.rerank", "query") => {
            let mut long = many("text", 1024, solid(1));
            long.extend(value("query", prose(TEXT)));
            let mut all = each(texts(TEXT), |text| value("query", text));
            all.push(long);
            all
        }
        ("infer.rerank", "count") => vec![part("count", "1024"), part("count", "1000000000")],
        ("infer.rerank", "text") => {
            vec![many("text", 1024, prose(8 << 10)), many("text", 16, prose(TEXT)), many("text", 200_000, solid(1))]
        }
        ("infer.chat", "MESSAGE") => messages(),
        ("infer.ingest", "text") => {
            let texts = vec![prose(QUERY), solid(QUERY), paragraphs(QUERY), paragraphs(12_000), prose(TOO_MANY)];
            each(texts, |text| value("text", text))
        }
        ("infer.ingest", "ATTRS") => {
            let nested = format!("{{\"a\":{}1{}}}", "[".repeat(2000), "]".repeat(2000));
            let many: Vec<String> = (0..340).map(|number| format!("\"a{number}\":{number}")).collect();
            let values = vec![nested.into_bytes(), format!("{{{}}}", many.join(",")).into_bytes(), solid(TOO_MANY)];
            each(values, |json| option("ATTRS", json))
        }
        ("infer.search" | "infer.rag", "query") => each(texts(QUERY), |text| value("query", text)),
        ("infer.cacheget" | "infer.cacheset", "prompt") => each(texts(QUERY), |text| value("prompt", text)),
        ("infer.rag", "SCOPE" | "CACHETTL") => {
            let values = if argument == "SCOPE" { vec![solid(1024), solid(TOO_MANY)] } else { vec![b"1".to_vec()] };
            let token = if argument == "SCOPE" { "SCOPE" } else { "CACHETTL" };
            each(values, |value| [option(token, value), part("CACHE", "CACHE 0.5")].concat())
        }
        ("infer.cacheset", "answer") => each(texts(TEXT), |text| value("answer", text)),
        ("infer.index", "MAXTOKENS") => vec![part("MAXTOKENS", "MAXTOKENS 8192"), part("MAXTOKENS", "MAXTOKENS 16")],
        ("infer.index", "OVERLAP") => vec![part("OVERLAP", "OVERLAP 8")],
        ("infer.index", "QUANT") => vec![part("QUANT", "QUANT NOQUANT"), part("QUANT", "QUANT BIN")],
        ("infer.index", "KV") => vec![part("KV", "KV CHUNK")],
        ("infer.index", "REREAD") => vec![part("KV", "KV CHUNK REREAD 8192")]
            .into_iter()
            .map(|mut parts| {
                parts.push(("REREAD", Line::new()));
                parts
            })
            .collect(),
        ("infer.cancel", "id") => vec![part("id", "18446744073709551615"), value("id", vec![b'9'; 1 << 20])],
        // For a model that is there they would be what they are for.
        ("infer.debug", "RELEASE") => vec![part("RELEASE", "RELEASE")],
        ("infer.debug", "HOLD") => vec![[vec![("RELEASE", Line::new())], part("HOLD", "HOLD")].concat()],
        ("infer.debug", "PANIC" | "ASSERT" | "STALL" | "KEEP") => {
            let token = ["PANIC", "ASSERT", "STALL", "KEEP"].into_iter().find(|token| *token == argument).unwrap();
            each(names(), |name| [vec![("RELEASE", Line::new())], option(token, name)].concat())
        }
        ("infer.debug", "TWICE") => {
            vec![[vec![("RELEASE", Line::new())], part("ASSERT", "ASSERT nobody"), part("TWICE", "TWICE")].concat()]
        }
        _ => Vec::new(),
    }
}

fn load(option: &str) -> Vec<Parts> {
    let line = match option {
        "TYPE" => "TYPE RERANK",
        "CTX" => "CTX 1048576",
        "PARALLEL" => "PARALLEL 64",
        "WORKERS" => "WORKERS 256",
        "THREADS" => "THREADS 256",
        "KVTYPE" => "KVTYPE Q8_0",
        "SPECULATION" => "SPECULATION LOOKUP",
        "GPULAYERS" => "GPULAYERS 65536",
        "POOLING" => "POOLING CLS",
        "MMAP" => "MMAP",
        "NOMMAP" => "NOMMAP",
        "MLOCK" => "MLOCK",
        "DEFAULT" => "DEFAULT",
        "ASYNC" => "ASYNC",
        _ => return Vec::new(),
    };
    let name = line.split(' ').next().unwrap();
    vec![part(name, line)]
}

fn of_any_command(argument: &str) -> Vec<Parts> {
    match argument {
        "name" => each(names(), |name| value("name", name)),
        "model" => each(names(), |name| value("model", name)),
        "index" => each(names(), |name| value("index", name)),
        "cache" => each(names(), |name| value("cache", name)),
        "EMBEDMODEL" => each(names(), |name| option("EMBEDMODEL", name)),
        "GENMODEL" => each(names(), |name| option("GENMODEL", name)),
        "key" => each(vec![vec![b'k'; 1 << 20], BIG.as_bytes().to_vec()], |name| value("key", name)),
        "path" => each(vec![vec![b'p'; 1024], vec![b'p'; 1 << 20]], |path| value("path", path)),
        "TEXT" => each(texts(TEXT), |text| option("TEXT", text)),
        "BLOB" => each(blobs(), |blob| [vec![("TEXT", Line::new())], option("BLOB", blob)].concat()),
        "SYSTEM" => each(texts(TEXT), |text| option("SYSTEM", text)),
        "SCOPE" => each(vec![solid(1024), solid(TOO_MANY)], |scope| option("SCOPE", scope)),
        "FILTER" => filters(),
        "GRAMMAR" => grammars(),
        "JSONSCHEMA" => schemas(),
        "LOGITBIAS" => vec![pairs("LOGITBIAS", 1024), pairs("LOGITBIAS", 100_000)],
        "STOP" => vec![stops(64, 256), stops(64, 1 << 20), stops(100_000, 1)],
        "LOGPROBS" => vec![part("LOGPROBS", "LOGPROBS 20"), {
            let mut parts = part("LOGPROBS", "LOGPROBS 20 WITHTOKENS WITHSTATS");
            parts.extend(part("MAXTOKENS", "MAXTOKENS 1900"));
            parts
        }],
        _ => simple(argument),
    }
}

/// Options whose worst is the end of a range.
fn simple(argument: &str) -> Vec<Parts> {
    const ENDS: [(&str, &str); 33] = [
        ("MAXTOKENS", "1900"),
        ("TEMP", "100"),
        ("TOPK", "1000000"),
        ("TOPP", "1"),
        ("MINP", "1"),
        ("REPEATPENALTY", "16"),
        ("REPEATLASTN", "1048576"),
        ("PRESENCE", "100"),
        ("FREQUENCY", "100"),
        ("SEED", "4294967294"),
        ("TIMEOUT", "1"),
        ("K", "200"),
        ("EF", "1000"),
        ("MINSCORE", "1"),
        ("RERANK", "rank"),
        ("BUDGET", "1048576"),
        ("CACHE", "0.5"),
        ("THRESHOLD", "0"),
        ("TTL", "1"),
        ("EX", "315360000"),
        ("DIM", "65536"),
        ("TOP", "1024"),
        ("FORCE", ""),
        ("WITHTEXT", ""),
        ("WITHATTRS", ""),
        ("WITHSOURCES", ""),
        ("WITHPROMPT", ""),
        ("WITHSTATS", ""),
        ("WITHTOKENS", ""),
        ("NOSPECIAL", ""),
        ("RAW", ""),
        ("NONORM", ""),
        ("FORMAT", "FP32"),
    ];
    let found = ENDS.iter().find(|(token, _)| *token == argument);
    found.map_or(Vec::new(), |(token, end)| vec![part(token, format!("{token} {end}").trim_end())])
}

/// `count` times the same text, with the number before it.
fn many(name: &'static str, count: usize, text: Vec<u8>) -> Parts {
    vec![("count", words(&count.to_string())), (name, vec![text; count])]
}

fn keys() -> Vec<Parts> {
    let with = |names: Vec<String>| {
        let names: Line = names.into_iter().map(String::into_bytes).collect();
        vec![("numkeys", words(&names.len().to_string())), ("key", names)]
    };
    vec![
        with((0..1024).map(|number| format!("k{number}")).collect()),
        with(vec![TOKENS.to_owned()]),
        with(vec![BIG.to_owned()]),
        with(vec![TOKENS.to_owned(); 1024]),
        with(vec!["k0".to_owned(); 200_000]),
    ]
}

fn messages() -> Vec<Parts> {
    let of = |count: usize, content: Vec<u8>| {
        let one = [b"MESSAGE".to_vec(), b"user".to_vec(), content];
        vec![("MESSAGE", one.iter().cycle().take(3 * count).cloned().collect())]
    };
    vec![
        of(1024, prose(8 << 10)),
        of(1, prose(TEXT)),
        of(16, prose(TEXT)),
        of(1, prose(TOO_MANY)),
        of(300_000, solid(2)),
    ]
}

fn filters() -> Vec<Parts> {
    let fitting = |one: &str, between: &str| {
        let count = (1024 + between.len()) / (one.len() + between.len());
        vec![one; count].join(between).into_bytes()
    };
    let values = vec![
        fitting(".chunk>=0", "&&"),
        fitting(".a==1", "||"),
        ["(".repeat(500), ".a".to_owned(), ")".repeat(500)].concat().into_bytes(),
        solid(TOO_MANY),
    ];
    each(values, |filter| option("FILTER", filter))
}

/// The value of the option of a line that was made elsewhere.
fn last(line: Line) -> Vec<u8> {
    line.last().cloned().unwrap_or_default()
}

fn grammars() -> Vec<Parts> {
    const MOST: usize = 64 << 10;
    let signs = |sign: &str| format!("root::=\"a\"{}", sign.repeat((MOST - 16) / sign.len()));
    let groups = format!("root::={}\"a\"{}", "(".repeat(30_000), ")".repeat(30_000));
    let alternatives = format!("root::=\"a\"{}", "|\"a\"".repeat((MOST - 16) / 4));
    let values = vec![
        last(hostile::chain_of_rules()),
        last(hostile::signs_without_end()),
        signs("+").into_bytes(),
        signs("*").into_bytes(),
        signs("{2}").into_bytes(),
        b"root::=a{0,2000}\na::=b{0,2000}\nb::=\"c\"".to_vec(),
        groups.into_bytes(),
        alternatives.into_bytes(),
        solid(MOST),
        solid(TOO_MANY),
    ];
    each(values, |grammar| option("GRAMMAR", grammar))
}

fn schemas() -> Vec<Parts> {
    let nested = format!("{}{}{}", r#"{"items":"#.repeat(6000), "{}", "}".repeat(6000));
    let choices: Vec<String> = (0..5000).map(|number| format!("\"v{number}\"")).collect();
    let values = vec![
        last(hostile::schema_that_multiplies()),
        last(hostile::pattern_that_is_no_text()),
        nested.into_bytes(),
        format!("{{\"enum\":[{}]}}", choices.join(",")).into_bytes(),
        br#"{"type":"string","pattern":"^((((a{1,99}){1,99}){1,99}){1,99})$"}"#.to_vec(),
        br#"{"type":"integer","multipleOf":9999991}"#.to_vec(),
        br#"{"type":"string","allOf":[{"pattern":".*a.{8}.*"},{"pattern":".*b.{8}.*"}]}"#.to_vec(),
        br#"{"type":"array","minItems":100000000}"#.to_vec(),
        br#"{"type":"string","minLength":100000000}"#.to_vec(),
        solid(TOO_MANY),
    ];
    each(values, |schema| option("JSONSCHEMA", schema))
}

fn pairs(token: &'static str, count: usize) -> Parts {
    let mut line = words(&format!("{token} {count}"));
    for pair in 0..count {
        line.extend([(pair % 250).to_string().into_bytes(), b"1".to_vec()]);
    }
    vec![(token, line)]
}

fn stops(count: usize, bytes: usize) -> Parts {
    let mut line = words(&format!("STOP {count}"));
    line.extend(std::iter::repeat_n(solid(bytes), count));
    vec![("STOP", line)]
}
