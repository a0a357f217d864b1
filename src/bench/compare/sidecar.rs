//! Retrieval on both sides. Without the module it is a client that has the question embedded by one llama-server, searches
//! a vector set, reads the texts, writes the prompt and posts it to another llama-server.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use redis::{Connection, FromRedisValue, Value};

use super::answers::Client as _;
use super::ours::{Fields, Ours};
use super::peer::{Http, Peer};
use crate::client::{Document, ingest};

/// Chunks in a prompt.
pub const K: usize = 5;

/// The system message that INFER.RAG has by default.
const SYSTEM: &str =
    "Answer the question using only the given text. If the answer is not in the text, say that you do not know.";

/// A question that got its first token.
#[derive(Clone, Debug)]
pub struct Asked {
    /// From the question to the first token, by the clock of the client.
    pub wall: Duration,
    /// Until the question has its vector: from the question on, on our side from the arrival of the command.
    pub embedding: Duration,
    /// Searching the vector set and getting texts or tokens; part of what [`Asked::assembly`] tells.
    pub lookup: Duration,
    /// Computing the prompt and the token, as the server of the model tells.
    pub model: Duration,
    /// Tokens of the prompt.
    pub prompt: u64,
    /// How many of them were not computed again.
    pub cached: u64,
    /// The documents in the prompt, in their order.
    pub sources: Vec<String>,
}

impl Asked {
    /// Everything but the models: search, texts or tokens, the prompt, and the ways between.
    pub fn assembly(&self) -> Duration {
        self.wall.saturating_sub(self.embedding + self.model)
    }
}

/// Something that answers questions about documents.
pub trait Librarian {
    /// Stores documents under a name; each becomes one chunk.
    fn store(&mut self, shelf: &str, documents: &[Document]) -> Result<()>;

    /// Asks for one token about the documents stored under a name.
    fn ask(&mut self, shelf: &str, question: &str) -> Result<Asked>;
}

/// The client without the module, with its connections, which are kept open.
pub struct Sidecar {
    redis: Connection,
    embedder: Http,
    generator: Http,
}

impl Sidecar {
    /// `redis` is used for its vector sets and strings alone.
    pub fn new(redis: &Ours, embedder: &Peer, generator: &Peer) -> Result<Self> {
        Ok(Self { redis: redis.connection()?, embedder: embedder.http(), generator: generator.http() })
    }
}

impl Librarian for Sidecar {
    fn store(&mut self, shelf: &str, documents: &[Document]) -> Result<()> {
        for document in documents {
            let vectors = self.embedder.embed(std::slice::from_ref(&document.text))?;
            let vector = vectors.first().context("no vector")?;
            let set = format!("sidecar:vectors:{shelf}");
            let mut add = redis::cmd("VADD");
            add.arg(set).arg("FP32").arg(bytemuck::cast_slice::<f32, u8>(vector)).arg(&document.path);
            add.exec(&mut self.redis)?;
            let key = format!("sidecar:text:{shelf}:{}", document.path);
            redis::cmd("SET").arg(key).arg(&document.text).exec(&mut self.redis)?;
        }
        Ok(())
    }

    fn ask(&mut self, shelf: &str, question: &str) -> Result<Asked> {
        let start = Instant::now();
        let vectors = self.embedder.embed(&[question.to_owned()])?;
        let embedding = start.elapsed();
        let vector = vectors.first().context("no vector")?;
        let mut search = redis::cmd("VSIM");
        search.arg(format!("sidecar:vectors:{shelf}")).arg("FP32").arg(bytemuck::cast_slice::<f32, u8>(vector));
        let sources: Vec<String> = search.arg("COUNT").arg(K).query(&mut self.redis)?;
        let mut get = redis::cmd("MGET");
        for source in &sources {
            get.arg(format!("sidecar:text:{shelf}:{source}"));
        }
        let texts: Vec<String> = get.query(&mut self.redis)?;
        let lookup = start.elapsed() - embedding;
        let prompt = prompt(&sources, &texts, question);
        let answer = self.generator.answer(&prompt, 1)?;
        Ok(Asked {
            wall: start.elapsed(),
            embedding,
            lookup,
            model: answer.prefill + answer.decode,
            prompt: answer.prompt,
            cached: answer.cached,
            sources,
        })
    }
}

/// The prompt that INFER.RAG makes of documents of one line, in the chat format of SmolLM2 and Qwen.
fn prompt(paths: &[String], texts: &[String], question: &str) -> String {
    let passages: Vec<String> =
        paths.iter().zip(texts).map(|(path, text)| format!("{path} lines 1-1\n{text}")).collect();
    let texts = passages.join("\n\n");
    format!(
        "<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{texts}\n\nQuestion: {question}<|im_end|>\n\
         <|im_start|>assistant\n"
    )
}

/// The module, with the models `chat` and `embed`.
pub struct Module {
    url: String,
    connection: Connection,
    /// More words for INFER.INDEX.
    options: Vec<String>,
}

impl Module {
    /// `options` are those of INFER.INDEX.
    pub fn new(ours: &Ours, options: &[&str]) -> Result<Self> {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Ok(Self { url: ours.url.clone(), connection: ours.connection()?, options })
    }

    /// Whether INFER.INDEX knows these options.
    pub fn can(&mut self) -> bool {
        let made = self.index("probe");
        made.is_ok() && redis::cmd("INFER.DROPINDEX").arg("probe").exec(&mut self.connection).is_ok()
    }

    fn index(&mut self, shelf: &str) -> redis::RedisResult<()> {
        let mut index = redis::cmd("INFER.INDEX");
        index.arg(shelf).arg("EMBEDMODEL").arg("embed").arg("GENMODEL").arg("chat").arg(&self.options);
        index.exec(&mut self.connection)
    }
}

impl Librarian for Module {
    fn store(&mut self, shelf: &str, documents: &[Document]) -> Result<()> {
        self.index(shelf)?;
        let ingested = ingest(&self.url, shelf, documents)?;
        ensure!(ingested.added == documents.len() as u64, "{} chunks of {} documents", ingested.added, documents.len());
        Ok(())
    }

    fn ask(&mut self, shelf: &str, question: &str) -> Result<Asked> {
        let mut rag = redis::cmd("INFER.RAG");
        rag.arg(shelf).arg(question).arg("K").arg(K).arg("MAXTOKENS").arg(1).arg("TEMP").arg(0);
        rag.arg("WITHSTATS").arg("WITHSOURCES");
        let start = Instant::now();
        let reply: Value = rag.query(&mut self.connection)?;
        let wall = start.elapsed();
        let fields = Fields::of(reply)?;
        let answer = fields.answer(wall, 1)?;
        Ok(Asked {
            wall,
            embedding: fields.micros("embed_us")?,
            lookup: fields.micros("search_us")? + fields.micros("copy_us")?,
            model: answer.prefill + answer.decode,
            prompt: answer.prompt,
            // Only an index with KV CHUNK tells of such.
            cached: answer.cached + fields.number("spliced_tokens").unwrap_or(0),
            sources: paths(fields.value("sources")?)?,
        })
    }
}

/// The paths in the reply of WITHSOURCES.
fn paths(sources: &Value) -> Result<Vec<String>> {
    let sources = Vec::<HashMap<String, Value>>::from_redis_value(sources.clone())?;
    let path = |source: HashMap<String, Value>| {
        let path = source.get("path").cloned().context("a source has no path")?;
        Ok(String::from_redis_value(path)?)
    };
    sources.into_iter().map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assembly_is_what_the_models_do_not_take() {
        let millis = Duration::from_millis;
        let asked = Asked {
            wall: millis(100),
            embedding: millis(10),
            lookup: millis(5),
            model: millis(70),
            prompt: 1,
            cached: 0,
            sources: Vec::new(),
        };
        assert_eq!(asked.assembly(), millis(20));
    }

    #[test]
    fn a_prompt_has_the_texts_below_their_names_and_then_the_question() {
        let prompt = prompt(&["a".into(), "b".into()], &["one".into(), "two".into()], "why?");
        assert!(prompt.contains("user\na lines 1-1\none\n\nb lines 1-1\ntwo\n\nQuestion: why?<|im_end|>"));
    }
}
