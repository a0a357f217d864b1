//! The other side: llama-server.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use ureq::Agent;

use super::answers::{Answer, Client, Server};
use super::process::{Process, free_port};

/// Longer than any answer takes here.
const PATIENCE: Duration = Duration::from_secs(600);

/// A llama-server.
#[derive(Debug)]
pub struct Peer {
    url: String,
    process: Process,
}

impl Peer {
    /// Starts it with the model and `flags`, and waits until it answers.
    pub fn start(llama_server: &Path, model: &Path, flags: &[String], work: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(llama_server);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--no-webui", "-m"]).arg(model).args(flags);
        let process = Process::start(&mut command, &work.join(format!("llama-server-{port}.log")))?;
        let url = format!("http://127.0.0.1:{port}");
        let agent = agent();
        process.wait_until(|| agent.get(format!("{url}/health")).call().is_ok())?;
        Ok(Self { url, process })
    }

    /// A client whose connection is kept open between requests.
    pub fn http(&self) -> Http {
        Http { agent: agent(), url: self.url.clone() }
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> Result<f64> {
        self.process.resident()
    }
}

fn agent() -> Agent {
    Agent::config_builder().timeout_global(Some(PATIENCE)).build().new_agent()
}

impl Server for Peer {
    fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(self.http()))
    }
}

/// A client of a llama-server.
#[derive(Debug)]
pub struct Http {
    agent: Agent,
    url: String,
}

impl Http {
    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let mut reply = self.agent.post(format!("{}{path}", self.url)).send_json(body)?;
        Ok(reply.body_mut().read_json()?)
    }

    /// One vector for each text.
    pub fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let reply = self.post("/v1/embeddings", &json!({ "input": texts }))?;
        let data = reply["data"].as_array().context("a reply of /v1/embeddings has no data")?;
        ensure!(data.len() == texts.len(), "{} vectors for {} texts", data.len(), texts.len());
        data.iter().map(|one| Ok(serde_json::from_value(one["embedding"].clone())?)).collect()
    }

    /// Number of tokens of a text.
    pub fn tokenize(&self, text: &str) -> Result<usize> {
        let reply = self.post("/tokenize", &json!({ "content": text }))?;
        Ok(reply["tokens"].as_array().context("a reply of /tokenize has no tokens")?.len())
    }

    /// Generates as [`Client::answer`] does, and tells when each token came.
    pub fn stream(&self, prompt: &str, tokens: u64) -> Result<Vec<Instant>> {
        let mut body = request(prompt, tokens);
        body["stream"] = json!(true);
        let reply = self.agent.post(format!("{}/completion", self.url)).send_json(&body)?;
        let mut times = Vec::new();
        for line in BufReader::new(reply.into_body().into_reader()).lines() {
            let line = line?;
            let Some(event) = line.strip_prefix("data: ") else { continue };
            let event: Value = serde_json::from_str(event)?;
            if event["stop"] == json!(false) {
                times.push(Instant::now());
            }
        }
        ensure!(!times.is_empty(), "llama-server streamed no tokens");
        Ok(times)
    }
}

fn request(prompt: &str, tokens: u64) -> Value {
    json!({ "prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": true, "cache_prompt": true })
}

impl Client for Http {
    fn answer(&mut self, prompt: &str, tokens: u64) -> Result<Answer> {
        let body = request(prompt, tokens);
        let start = Instant::now();
        let reply = self.post("/completion", &body)?;
        let wall = start.elapsed();
        let timings = &reply["timings"];
        let number =
            |name: &str| timings[name].as_f64().with_context(|| format!("the timings of llama-server have no {name}"));
        let [computed, cached, generated] = [number("prompt_n")?, number("cache_n")?, number("predicted_n")?];
        let millis = |millis: f64| Duration::from_secs_f64(millis.max(0.0) / 1e3);
        let answer = Answer {
            prompt: (computed + cached) as u64,
            cached: cached as u64,
            tokens: generated as u64,
            wall,
            prefill: millis(number("prompt_ms")?),
            decode: millis(number("predicted_ms")?),
        };
        ensure!(answer.tokens == tokens, "llama-server generated {} tokens, not {tokens}", answer.tokens);
        Ok(answer)
    }
}
