//! Our side: a redis-server with the module.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use redis::{Connection, FromRedisValue, Value};

use super::answers::{Answer, Client, Server};
use super::process::{Process, free_port};
use super::text::{Prompts, words};
use crate::client::connect;

/// A model file, and how the comparison makes its answers equally long.
#[derive(Clone, Debug)]
pub struct Model {
    pub path: PathBuf,
    /// Special tokens, which no answer may contain: some of them would end it.
    pub ends: Vec<u32>,
}

/// A redis-server with the module. Its models are `chat` and, where an embedding model was loaded, `embed`.
#[derive(Debug)]
pub struct Ours {
    pub url: String,
    /// Special tokens of the model `chat`.
    ends: Vec<u32>,
    process: Process,
}

impl Ours {
    /// Starts a server without models; `options` are redis-server's.
    pub fn start(redis_server: &Path, module: &Path, work: &Path, options: &[&str]) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(redis_server);
        // Without GGML_NO_BACKTRACE an abort in ggml would start a debugger.
        command.env("GGML_NO_BACKTRACE", "1").current_dir(work);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.arg("--loadmodule").arg(module).args(options);
        let process = Process::start(&mut command, &work.join(format!("redis-{port}.log")))?;
        let url = format!("redis://127.0.0.1:{port}/");
        process.wait_until(|| connect(&url).is_ok_and(|mut c| redis::cmd("PING").exec(&mut c).is_ok()))?;
        Ok(Self { url, ends: Vec::new(), process })
    }

    /// Loads a generating model as `chat`; `options` are those of INFER.LOAD.
    pub fn load_chat(&mut self, model: &Model, options: &[&str]) -> Result<()> {
        self.ends.clone_from(&model.ends);
        self.load("chat", &model.path, options)
    }

    /// Loads a model under a name.
    pub fn load(&self, name: &str, path: &Path, options: &[&str]) -> Result<()> {
        let mut command = redis::cmd("INFER.LOAD");
        command.arg(name).arg(path.display().to_string()).arg(options);
        command.exec(&mut self.connection()?).with_context(|| format!("loading {}", path.display()))
    }

    /// An answer of exactly `tokens` tokens to the message of a user, drawn with `seed` instead of greedily.
    pub fn drawn(&self, message: &str, tokens: u64, seed: u64) -> Result<Answer> {
        let mut command = redis::cmd("INFER.GENERATE");
        command.arg("chat").arg(0).arg("TEXT").arg(message).arg("SEED").arg(seed);
        timed(&mut self.connection()?, command, tokens, &self.ends)
    }

    /// A new connection.
    pub fn connection(&self) -> Result<Connection> {
        connect(&self.url)
    }

    /// The port it listens on.
    pub fn port(&self) -> &str {
        self.url.trim_end_matches('/').rsplit(':').next().unwrap_or_default()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> Result<f64> {
        self.process.resident()
    }

    /// Prompts measured in tokens of the model `chat`.
    pub fn prompts(&self) -> Result<Prompts> {
        let mut command = redis::cmd("INFER.TOKENIZE");
        command.arg("chat").arg(words(0, Prompts::SAMPLE_WORDS)).arg("NOSPECIAL");
        let tokens: Vec<u32> = command.query(&mut self.connection()?)?;
        Ok(Prompts::new(tokens.len()))
    }

    /// A field of INFO.
    pub fn info(&self, section: &str, name: &str) -> Result<String> {
        let text: String = redis::cmd("INFO").arg(section).query(&mut self.connection()?)?;
        info_field(&text, name).with_context(|| format!("INFO has no {name}"))
    }

    /// Workers of the model `chat`, and requests that each advances together.
    pub fn workers(&self) -> Result<(usize, usize)> {
        let fields = Fields::of(redis::cmd("INFER.MODEL").arg("chat").query(&mut self.connection()?)?)?;
        Ok((usize::try_from(fields.number("workers")?)?, usize::try_from(fields.number("parallel")?)?))
    }

    /// Options of INFER.LOAD for as many requests in the layout that AUTO has not chosen, where there are CPUs for it.
    pub fn other_layout(&self, cpus: usize) -> Result<String> {
        let (workers, parallel) = self.workers()?;
        Ok(match (workers, cpus) {
            (1, 2..) => format!("WORKERS 2 PARALLEL {}", parallel.div_ceil(2)),
            _ => format!("WORKERS 1 PARALLEL {}", workers * parallel),
        })
    }

    /// How the model `chat` is laid out: its workers and threads.
    pub fn layout(&self) -> Result<String> {
        let fields = Fields::of(redis::cmd("INFER.MODEL").arg("chat").query(&mut self.connection()?)?)?;
        Ok(format!(
            "{} workers x {} threads, PARALLEL {}, CTX {}",
            fields.number("workers")?,
            fields.number("threads")?,
            fields.number("parallel")?,
            fields.number("context")?
        ))
    }
}

/// What stands behind `name:` in the text of INFO.
fn info_field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.to_owned()))
}

impl Server for Ours {
    fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(Generating { connection: self.connection()?, ends: self.ends.clone() }))
    }
}

/// A client that generates.
struct Generating {
    connection: Connection,
    ends: Vec<u32>,
}

impl Client for Generating {
    fn answer(&mut self, prompt: &str, tokens: u64) -> Result<Answer> {
        let mut command = redis::cmd("INFER.GENERATE");
        command.arg("chat").arg(0).arg("TEXT").arg(prompt).arg("RAW").arg("TEMP").arg(0);
        timed(&mut self.connection, command, tokens, &self.ends)
    }
}

/// The answer to `command`, of exactly `tokens` tokens, none of them in `ends`.
fn timed(connection: &mut Connection, mut command: redis::Cmd, tokens: u64, ends: &[u32]) -> Result<Answer> {
    command.arg("MAXTOKENS").arg(tokens).arg("WITHSTATS").arg("LOGITBIAS").arg(ends.len());
    for id in ends {
        command.arg(id).arg(-100);
    }
    let start = Instant::now();
    let reply: Value = command.query(connection)?;
    let wall = start.elapsed();
    Fields::of(reply)?.answer(wall, tokens)
}

/// A reply that is a map, in RESP2 a flat array.
#[derive(Debug)]
pub struct Fields(HashMap<String, Value>);

impl Fields {
    pub fn of(reply: Value) -> Result<Self> {
        Ok(Self(HashMap::from_redis_value(reply).context("a reply is not a map")?))
    }

    pub fn value(&self, name: &str) -> Result<&Value> {
        self.0.get(name).with_context(|| format!("a reply has no '{name}'"))
    }

    pub fn text(&self, name: &str) -> Result<String> {
        Ok(String::from_redis_value(self.value(name)?.clone())?)
    }

    pub fn number(&self, name: &str) -> Result<u64> {
        self.text(name)?.parse().with_context(|| format!("'{name}' of a reply is no number"))
    }

    pub fn micros(&self, name: &str) -> Result<Duration> {
        Ok(Duration::from_micros(self.number(name)?))
    }

    /// What WITHSTATS tells of an answer of `tokens` tokens.
    pub fn answer(&self, wall: Duration, tokens: u64) -> Result<Answer> {
        let answer = Answer {
            prompt: self.number("prompt_tokens")?,
            cached: self.number("cached_tokens")?,
            tokens: self.number("completion_tokens")?,
            wall,
            prefill: self.micros("prefill_us")?,
            decode: self.micros("decode_us")?,
        };
        ensure!(answer.tokens == tokens, "the module generated {} tokens, not {tokens}", answer.tokens);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_info_is_found_by_its_whole_name() {
        let text = "# infer_latency\r\ninfer_gap_long:p50=1,max=2\r\ninfer_gap:7\r\n";
        assert_eq!(info_field(text, "infer_gap").as_deref(), Some("7"));
        assert_eq!(info_field(text, "infer_gap_long").as_deref(), Some("p50=1,max=2"));
        assert_eq!(info_field(text, "infer"), None);
    }
}
