//! `redis-infer ask INDEX QUESTION`: an answer and the sources it was made from.

use std::fmt::Write;

use clap::Args;
use serde_json::Value as Json;

use crate::connection::Server;
use crate::failure::{Ending, Failure};
use crate::reply::{ask, elements, place, text};
use crate::search::Choice;
use crate::{output, reply};

/// Arguments of `redis-infer ask`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The index.
    index: String,
    /// The question.
    question: String,
    #[command(flatten)]
    choice: Choice,
    /// Most tokens of chunks in the prompt; auto for as many as the model's context has room for.
    #[arg(long, value_name = "TOKENS", default_value = "auto")]
    budget: String,
    /// What the model is told before the chunks, instead of the server's instruction.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of the answer [default: the server's, 256].
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u32>,
    /// Temperature; 0 takes the likeliest word each time [default: the server's, 0.8].
    #[arg(long, value_name = "NUMBER")]
    temp: Option<f64>,
    /// Show counts of tokens and times too.
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Asks and prints the answer, its sources, and with `--stats` what it took.
///
/// # Errors
/// When the server cannot be reached or refuses.
pub fn run(arguments: &Arguments) -> Result<Ending, Failure> {
    let reply = ask(&mut arguments.server.client()?.connect()?, &arguments.command())?;
    let answered = !elements(&reply["sources"]).is_empty();
    if arguments.json {
        output::print(&reply.to_string())?;
    } else if answered {
        output::print(&shown(&reply))?;
    } else {
        eprintln!("redis-infer: nothing found in the index that the question could be answered from");
    }
    Ok(if answered { Ending::Fine } else { Ending::NothingFound })
}

impl Arguments {
    fn command(&self) -> redis::Cmd {
        let mut command = redis::cmd("INFER.RAG");
        command.arg(&self.index).arg(&self.question);
        self.choice.narrow(&mut command);
        command.arg("BUDGET").arg(&self.budget);
        if let Some(system) = &self.system {
            command.arg("SYSTEM").arg(system);
        }
        if let Some(max_tokens) = self.max_tokens {
            command.arg("MAXTOKENS").arg(max_tokens);
        }
        if let Some(temp) = self.temp {
            command.arg("TEMP").arg(temp);
        }
        command.arg("WITHSOURCES");
        if self.stats {
            command.arg("WITHSTATS");
        }
        command
    }
}

fn shown(reply: &Json) -> String {
    let mut shown = output::wrapped(&text(&reply["text"]), "");
    shown.push_str("\n\nsources\n");
    let rows: Vec<Vec<String>> = elements(&reply["sources"]).iter().map(source).collect();
    shown.push_str(&output::columns(&rows));
    let stats = stats(reply);
    if !stats.is_empty() {
        let _ = write!(shown, "\n\nstatistics\n{}", output::columns(&stats));
    }
    shown
}

fn source(source: &Json) -> Vec<String> {
    let (place, score) = place(source);
    let unused = source["used"].as_bool() == Some(false) || source["used"] == 0;
    let note = if unused { "not used: no room" } else { "" };
    vec![format!("  {score}"), place, note.into()]
}

/// Everything in the reply but the answer and its sources, one line each.
fn stats(reply: &Json) -> Vec<Vec<String>> {
    let fields = reply.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, value)| *name != "text" && !value.is_array() && !value.is_object());
    let line = |(name, value): (&String, &Json)| match (name.strip_suffix("_us"), value.as_u64()) {
        (Some(name), Some(time)) => vec![format!("  {name}"), output::microseconds(time)],
        _ => vec![format!("  {name}"), output::clean(&reply::text(value))],
    };
    fields.map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_followed_by_its_sources_and_statistics() {
        let reply = json!({
            "text": "Six hours.\n",
            "sources": [
                { "path": "garden.md", "lines": [1, 2], "score": 0.9, "used": true },
                { "path": "house.md", "lines": [3, 4], "score": 0.5, "used": false },
            ],
            "finish_reason": "stop",
            "prefill_us": 4_720_000,
        });
        let expected = "Six hours.\n\nsources\n  0.900  garden.md:1-2\n  0.500  house.md:3-4   not used: no room\n\n\
                        statistics\n  finish_reason  stop\n  prefill        4.72 s";
        assert_eq!(shown(&reply), expected);
    }
}
