//! `redis-infer search INDEX QUERY`: the chunks that are nearest to a query.

use clap::Args;
use serde_json::Value as Json;

use crate::connection::Server;
use crate::failure::{Ending, Failure};
use crate::output;
use crate::reply::{ask, elements, place, text};

/// Arguments of `redis-infer search`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The index.
    index: String,
    /// What to look for.
    query: String,
    #[command(flatten)]
    choice: Choice,
    /// Show the text of the chunks.
    #[arg(long)]
    text: bool,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Which chunks a query finds: the options that INFER.SEARCH and INFER.RAG share.
#[derive(Clone, Debug, Args)]
pub struct Choice {
    /// Most chunks to find [default: the server's, 5].
    #[arg(long)]
    k: Option<u32>,
    /// Only chunks whose attributes match, for instance '.ext == "md" and .year > 2020'.
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Only chunks of this score or more; 0 to 1, 0.5 means unrelated.
    #[arg(long, value_name = "SCORE")]
    min_score: Option<f64>,
    /// Have this cross-encoder, a model of the server, choose among more chunks. Their scores are then its own.
    #[arg(long, value_name = "MODEL")]
    rerank: Option<String>,
}

/// Searches and prints what was found, best first.
///
/// # Errors
/// When the server cannot be reached or refuses.
pub fn run(arguments: &Arguments) -> Result<Ending, Failure> {
    let mut command = redis::cmd("INFER.SEARCH");
    command.arg(&arguments.index).arg(&arguments.query);
    arguments.choice.narrow(&mut command);
    if arguments.text {
        command.arg("WITHTEXT");
    }
    let hits = ask(&mut arguments.server.client()?.connect()?, &command)?;
    let found = elements(&hits);
    if arguments.json {
        output::print(&hits.to_string())?;
    } else if !found.is_empty() {
        output::print(&shown(found))?;
    }
    if found.is_empty() {
        if !arguments.json {
            eprintln!("redis-infer: nothing found");
        }
        return Ok(Ending::NothingFound);
    }
    Ok(Ending::Fine)
}

impl Choice {
    /// Adds the options to a command.
    pub fn narrow(&self, command: &mut redis::Cmd) {
        if let Some(k) = self.k {
            command.arg("K").arg(k);
        }
        if let Some(filter) = &self.filter {
            command.arg("FILTER").arg(filter);
        }
        if let Some(min_score) = self.min_score {
            command.arg("MINSCORE").arg(min_score);
        }
        if let Some(model) = &self.rerank {
            command.arg("RERANK").arg(model);
        }
    }
}

fn shown(hits: &[Json]) -> String {
    let mut parts = Vec::new();
    for hit in hits {
        let (place, score) = place(hit);
        let chunk = output::wrapped(&text(&hit["text"]), "       ");
        parts.push(if chunk.is_empty() { format!("{score}  {place}") } else { format!("{score}  {place}\n{chunk}\n") });
    }
    parts.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hits_are_a_line_each_with_their_text_below() {
        let hits = [
            json!({ "path": "a.md", "lines": [1, 2], "score": 0.9, "text": "one\n  two" }),
            json!({ "path": "b.md", "lines": [3, 3], "score": 0.25 }),
        ];
        assert_eq!(shown(&hits), "0.900  a.md:1-2\n       one\n         two\n\n0.250  b.md:3-3");
    }
}
