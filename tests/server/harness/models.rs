//! Random models that are made once per run, and how tests load them.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use redis::Cmd;
use redis_infer_gguf::synthetic::{BertShape, LlamaShape, Summary, write_bert, write_llama};

use super::cmd;

/// A model that tests load.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// The name it is loaded under.
    pub name: &'static str,
    file: &'static LazyLock<PathBuf>,
    /// Options of INFER.LOAD. One thread each, because several servers run at once.
    options: &'static [&'static str],
}

/// Generates; answers hundreds of tokens before anybody notices.
pub const CHAT: Model = Model { name: "chat", file: &CHAT_FILE, options: &["WORKERS", "1", "THREADS", "1"] };

/// Generates slowly and without end in sight: for what happens while something runs. One request at a time.
pub const SLOW: Model = Model {
    name: "slow",
    file: &SLOW_FILE,
    options: &["WORKERS", "1", "THREADS", "1", "PARALLEL", "1", "CTX", "16384"],
};

/// As [`SLOW`], which answers a question that it has read with the same words each time: guesses change how many tokens are
/// computed at once, and with that the last digits.
pub const STEADY: Model = Model {
    options: &["WORKERS", "1", "THREADS", "1", "PARALLEL", "1", "CTX", "16384", "SPECULATION", "NONE"],
    ..SLOW
};

/// As [`CHAT`], with a chat template that knows no system messages and refuses two of one role in a row.
pub const STRICT: Model = Model { name: "strict", file: &STRICT_FILE, options: &["WORKERS", "1", "THREADS", "1"] };

/// As [`CHAT`], but a base model, which has no chat template.
pub const BASE: Model = Model { name: "base", file: &BASE_FILE, options: CHAT.options };

/// Embeds; texts that share words have similar vectors.
pub const EMBED: Model = Model { name: "embed", file: &EMBED_FILE, options: &["WORKERS", "1", "THREADS", "1"] };

/// As [`EMBED`], but takes seconds for a text as long as it reads, 2046 words: for what happens meanwhile.
pub const SLOW_EMBED: Model = Model { name: "slow-embed", file: &SLOW_EMBED_FILE, options: EMBED.options };

/// Scores texts for a query; the scores mean nothing.
pub const RANK: Model = Model { name: "rank", file: &RANK_FILE, options: EMBED.options };

/// As [`RANK`], but takes a tenth of a second for a text as long as it reads: for what happens meanwhile.
pub const SLOW_RANK: Model = Model { file: &SLOW_RANK_FILE, ..RANK };

/// A small file whose cache, with these options, is larger than any machine: terabytes.
pub const HUGE: Model = Model {
    name: "huge",
    file: &HUGE_FILE,
    options: &["WORKERS", "1", "THREADS", "1", "PARALLEL", "64", "CTX", "1048576"],
};

static HUGE_FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let shape = LlamaShape { layers: 64, kv_heads: 2, ff: 32, ctx_train: 1 << 20, ..LlamaShape::default() };
    made("huge-chat", |path| write_llama(path, &shape, 4).unwrap())
});

static CHAT_FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let shape = LlamaShape { ctx_train: 2048, ..LlamaShape::default() };
    made("tiny-chat", |path| write_llama(path, &shape, 1).unwrap())
});

/// The part of the templates of Gemma and Mistral that raises errors.
const STRICT_TEMPLATE: &str = "{% for message in messages %}{% if message.role == 'system' or (message.role == 'user') != \
    (loop.index0 % 2 == 0) %}{{ raise_exception('roles must\r\nalternate') }}{% endif %}<|im_start|>\
    {{ message.content }}<|im_end|>{% endfor %}";

static STRICT_FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let shape = LlamaShape { chat_template: Some(STRICT_TEMPLATE.into()), ..LlamaShape::default() };
    made("strict-chat", |path| write_llama(path, &shape, 1).unwrap())
});

static BASE_FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let shape = LlamaShape { chat_template: None, ..LlamaShape::default() };
    made("tiny-base", |path| write_llama(path, &shape, 1).unwrap())
});

static SLOW_FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let shape = LlamaShape {
        layers: 8,
        embd: 256,
        heads: 4,
        kv_heads: 1,
        ff: 1024,
        ctx_train: 16_384,
        ..LlamaShape::default()
    };
    made("slow-chat", |path| write_llama(path, &shape, 2).unwrap())
});

static EMBED_FILE: LazyLock<PathBuf> =
    LazyLock::new(|| made("tiny-embed", |path| write_bert(path, &BertShape::default(), 3).unwrap()));

static SLOW_EMBED_FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let shape = BertShape { layers: 24, embd: 256, heads: 4, ff: 1024, ctx_train: 2048, ..BertShape::default() };
    made("slow-embed", |path| write_bert(path, &shape, 5).unwrap())
});

static RANK_FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let shape = BertShape { labels: 1, ..BertShape::default() };
    made("tiny-rank", |path| write_bert(path, &shape, 5).unwrap())
});

static SLOW_RANK_FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let shape = BertShape { labels: 1, layers: 24, embd: 256, heads: 4, ff: 1024, ..BertShape::default() };
    made("slow-rank", |path| write_bert(path, &shape, 5).unwrap())
});

impl Model {
    /// The file.
    pub fn path(&self) -> &'static Path {
        self.file
    }

    /// INFER.LOAD of it, under its own name.
    pub fn load(&self) -> Cmd {
        self.load_as(self.name)
    }

    /// INFER.LOAD of it under another name.
    pub fn load_as(&self, name: &str) -> Cmd {
        let mut command = cmd!["INFER.LOAD", name, self.path().to_str().unwrap()];
        command.arg(self.options);
        command
    }
}

/// A folder for files of these tests that cargo keeps inside its target folder.
fn scratch() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("server");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes a model anew in each run, because the code that writes it may have changed. The file appears all at once:
/// servers of another run may have the old one in memory.
fn made(name: &str, write: impl FnOnce(&Path) -> Summary) -> PathBuf {
    let path = scratch().join(format!("{name}.gguf"));
    let draft = scratch().join(format!("{name}.{}", std::process::id()));
    write(&draft);
    std::fs::rename(&draft, &path).unwrap();
    path
}
