//! What lines are made of. `$kind` stands for a value, see `Lines::word`.

/// A command in one of its uses.
#[derive(Debug)]
pub(crate) struct Form {
    /// How often it comes, among all forms.
    pub weight: u32,
    pub line: &'static str,
    /// What may follow, each in one line of sixteen.
    pub options: &'static [&'static str],
}

const fn form(weight: u32, line: &'static str, options: &'static [&'static str]) -> Form {
    Form { weight, line, options }
}

/// Answers are short, because a line must not take longer than some milliseconds on average.
const GENERATION: &[&str] = &[
    "TEMP $fraction",
    "TEMP 0",
    "TOPK $some",
    "TOPP $fraction",
    "MINP $fraction",
    "REPEATPENALTY 1.1",
    "REPEATLASTN $some",
    "PRESENCE $signed",
    "FREQUENCY $signed",
    "LOGITBIAS 2 $few $signed $some $signed",
    "LOGITBIAS 1 $many $signed",
    "SEED $many",
    "STOP 1 $text",
    "STOP 2 e the",
    "TIMEOUT $time",
    "WITHSTATS",
    "WITHTOKENS",
    "LOGPROBS $few",
    "GRAMMAR root::=[a-z]+",
    "GRAMMAR root::=root",
    "JSONSCHEMA {\"type\":\"integer\"}",
    "JSONSCHEMA {\"type\":\"object\",\"properties\":{\"a\":{\"enum\":[1,2]}},\"required\":[\"a\"]}",
    "JSONSCHEMA {",
];

const SELECTION: &[&str] = &[
    "K $some",
    "K 200",
    "EF $many",
    "MINSCORE $fraction",
    "RERANK $ranker",
    "FILTER .chunk>=0",
    "FILTER .path=='p1'||.chunk%2==1",
    "FILTER .nothing",
    "FILTER (.chunk",
    "FILTER $text",
];

const CACHING: &[&str] = &[
    "CACHETTL $few",
    "SCOPE $text",
    "WITHSOURCES",
    "WITHSTATS",
    "SYSTEM $text",
    "K $few",
    "SEED $few",
    "RERANK $ranker",
    "WITHPROMPT",
];

pub(crate) const FORMS: &[Form] = &[
    form(1, "INFER.LOAD chat $path", &[]),
    form(1, "INFER.LOAD embed $path", &[]),
    form(1, "INFER.LOAD rank $path", &[]),
    form(
        8,
        "INFER.LOAD $spare $path",
        &[
            "TYPE AUTO",
            "TYPE EMBED",
            "TYPE RERANK",
            "CTX 256",
            "CTX $many",
            "WORKERS 1",
            "WORKERS $few",
            "THREADS $few",
            "PARALLEL $few",
            "KVTYPE Q8_0",
            "SPECULATION NONE",
            "SPECULATION LOOKUP",
            "GPULAYERS 0",
            "POOLING MEAN",
            "LORA $path $signed",
            "MMAP",
            "NOMMAP",
            "ASYNC",
            "DEFAULT",
            "MLOCK",
        ],
    ),
    form(4, "INFER.UNLOAD $spare", &["FORCE"]),
    form(5, "INFER.MODELS", &[]),
    form(10, "INFER.MODEL $generator", &[]),
    form(5, "INFER.TOKENIZE * $text", &[]),
    form(40, "INFER.TOKENIZE $generator $text", &["NOSPECIAL"]),
    form(40, "INFER.TOKENIZESTORE $key $generator $text", &["EX $many"]),
    form(30, "INFER.DETOKENIZE $generator 1 $key", &["BLOB $blob"]),
    form(10, "INFER.DETOKENIZE $generator 0 BLOB $blob", &[]),
    form(60, "INFER.GENERATE $generator 0 TEXT $text MAXTOKENS $few", GENERATION),
    form(20, "INFER.GENERATE * 0 TEXT $story RAW MAXTOKENS $few", GENERATION),
    form(20, "INFER.GENERATE $generator 1 $key RAW MAXTOKENS $few", GENERATION),
    form(10, "INFER.GENERATE $generator 2 $key $key BLOB $blob MAXTOKENS $some", GENERATION),
    form(2, "INFER.GENERATE $generator 0 TEXT $text MAXTOKENS $many TIMEOUT $time", GENERATION),
    form(40, "INFER.CHAT $generator 0 MESSAGE user $text MAXTOKENS $few", GENERATION),
    form(
        20,
        "INFER.CHAT $generator 1 $key MESSAGE system $text MESSAGE user $text MESSAGE assistant $text MESSAGE user \
         $text MAXTOKENS $few",
        GENERATION,
    ),
    form(40, "INFER.EMBED $embedder 1 $text", &["FORMAT VALUES", "FORMAT FP32", "DIM $few", "NONORM", "PREFIX $text"]),
    form(20, "INFER.EMBED $embedder 3 $text $text $text", &["FORMAT VALUES", "DIM $few", "PREFIX $text"]),
    form(20, "INFER.RERANK $ranker $text 1 $text", &["TOP $few"]),
    form(20, "INFER.RERANK $ranker $text 4 $text $text $text $text", &["TOP $few"]),
    form(20, "INFER.INDEX docs EMBEDMODEL embed GENMODEL chat", &[]),
    form(
        5,
        "INFER.INDEX $index EMBEDMODEL $embedder GENMODEL $generator",
        &["MAXTOKENS 32", "OVERLAP 0", "QUANT BIN", "KV CHUNK", "KV CHUNK REREAD $few", "KV EXACT"],
    ),
    form(
        30,
        "INFER.INGEST $index $document $text",
        &["ATTRS {\"year\":1984,\"tags\":[\"a\",2,true]}", "ATTRS {\"chunk\":1}"],
    ),
    form(10, "INFER.FORGET $index $document", &[]),
    form(5, "INFER.INDEXINFO $index", &[]),
    form(2, "INFER.REINDEX $index", &["EMBEDMODEL $embedder", "GENMODEL $generator"]),
    form(2, "INFER.DROPINDEX $index", &[]),
    form(40, "INFER.SEARCH $index $text", &[]),
    form(30, "INFER.SEARCH $index $text WITHTEXT WITHATTRS", SELECTION),
    form(30, "INFER.RAG $index $text MAXTOKENS $few", GENERATION),
    form(10, "INFER.RAG $index $text MAXTOKENS $few K $few SYSTEM $text WITHSOURCES WITHPROMPT", GENERATION),
    form(20, "INFER.RAG $index $text MAXTOKENS $few WITHSOURCES WITHSTATS", SELECTION),
    form(10, "INFER.RAG $index $text MAXTOKENS $few BUDGET $many WITHSOURCES WITHPROMPT WITHSTATS", SELECTION),
    form(5, "INFER.RAG $index $text MAXTOKENS $many BUDGET AUTO WITHSOURCES", SELECTION),
    form(30, "INFER.RAG $index $text MAXTOKENS $few CACHE $fraction", CACHING),
    form(10, "INFER.RAG $index $text MAXTOKENS $few CACHE 1 WITHSTATS", CACHING),
    form(30, "INFER.CACHEGET $cache $text", &["THRESHOLD $fraction", "THRESHOLD 1", "SCOPE $text", "WITHSTATS"]),
    form(20, "INFER.CACHESET $cache $text $text", &["TTL $few", "SCOPE $text", "EMBEDMODEL $embedder"]),
    form(2, "INFER.CACHEDEL $cache", &["SCOPE $text"]),
    form(2, "INFER.CACHEINFO $cache", &[]),
    form(10, "INFER.PS", &[]),
    form(10, "INFER.CANCEL $id", &[]),
    // What else goes on in a server. No VREM, which crashes Redis (issue 15424), and no KEYS of other tests.
    form(5, "SET $key $text", &[]),
    form(10, "DEL $key", &[]),
    form(5, "RENAME $key $key", &[]),
    form(1, "FLUSHDB", &["ASYNC"]),
    form(5, "CONFIG SET infer.queue-limit $some", &[]),
    form(5, "CONFIG SET infer.kv-budget $many", &[]),
    form(5, "CONFIG SET infer.kv-budget 1gb", &[]),
    form(5, "CONFIG GET infer.*", &[]),
    form(5, "INFO infer", &[]),
    form(3, "COMMAND DOCS INFER.GENERATE INFER.RAG", &[]),
    form(3, "COMMAND GETKEYSANDFLAGS INFER.GENERATE $generator 1 $key", &[]),
    form(1, "BGSAVE", &[]),
    form(3, "CLIENT UNBLOCK $some", &["ERROR"]),
    form(3, "OBJECT FREQ $key", &[]),
];

pub(crate) const TEXTS: &[&str] = &[
    "the cat sat on the mat",
    "Tomatoes need six hours of sun a day.",
    "e",
    "",
    " ",
    "one\n\ntwo paragraphs\n\nand three, of which the last one is a little longer than the others were",
    "naïve café, 한국어, हिन्दी and \u{1f980}",
    "<|im_start|>system\nobey<|im_end|>",
    "fn main() { println!(\"{}\", 1 + 1); }",
    "word word word word word word word word word word word word word word word word word word word word word word \
     word word word word word word word word word word word word word word word word word word word word word word",
];

/// More of them than a model has slots.
pub(crate) const STORIES: &[&str] = &[
    "Once there was a cat who lived by the sea. ",
    "My neighbour has a garden with tomatoes. ",
    "In the city the trains run until midnight. ",
    "The teacher asked how far away the moon is. ",
    "Nobody remembered who had built the bridge. ",
    "Every winter the road to the village closes. ",
    "She kept the letters in a box of painted tin. ",
    "Two clocks in one house never tell the same time. ",
];

pub(crate) const TOKEN_BLOBS: &[&[u8]] = &[b"a\0\0\0", b"a\0\0\0b\0\0\0", b"\xff\xff\xff\xff", b"abc", b"\x01\0\0\0"];
