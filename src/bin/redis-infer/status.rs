//! `redis-infer status [INDEX]`: what the server has loaded, what it does, and what an index holds.

use clap::Args;
use redis::{Connection, cmd};
use serde_json::{Map, Value as Json, json};

use crate::connection::Server;
use crate::failure::{Ending, Failure};
use crate::output;
use crate::reply::{ask, elements, text};

/// What the names of INFO's fields and sections begin with.
const PREFIX: &str = "infer_";

/// What the names of latencies begin with, whose parts are times in microseconds.
const LATENCY: &str = "latency_usec_";

/// Arguments of `redis-infer status`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Show this index instead of the server.
    index: Option<String>,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Asks the server and prints what it tells.
///
/// # Errors
/// When the server cannot be reached or refuses.
pub fn run(arguments: &Arguments) -> Result<Ending, Failure> {
    let mut connection = arguments.server.client()?.connect()?;
    let (found, shown) = match &arguments.index {
        Some(index) => {
            let found = ask(&mut connection, cmd("INFER.INDEXINFO").arg(index))?;
            let shown = output::columns(&fields(&found, ""));
            (found, shown)
        }
        None => {
            let found = server(&mut connection)?;
            let shown = shown(&found);
            (found, shown)
        }
    };
    output::print(&if arguments.json { found.to_string() } else { shown })?;
    Ok(Ending::Fine)
}

/// The models with their details, and the sections of INFO.
fn server(connection: &mut Connection) -> Result<Json, Failure> {
    let mut models = Vec::new();
    for model in elements(&ask(connection, &cmd("INFER.MODELS"))?) {
        let detailed = ask(connection, cmd("INFER.MODEL").arg(text(&model["name"])));
        // It may have been unloaded since; then what the list said is all there is to say.
        models.push(detailed.unwrap_or_else(|_| model.clone()));
    }
    let info = sections(&text(&ask(connection, cmd("INFO").arg("infer"))?));
    Ok(json!({ "models": models, "info": info }))
}

/// The sections of INFO but that of the models, which is told better elsewhere. `infer_` is left out of names.
fn sections(info: &str) -> Json {
    let mut sections = Map::new();
    let mut section = String::new();
    for line in info.lines() {
        if let Some(title) = line.strip_prefix("# ") {
            section = title.strip_prefix(PREFIX).unwrap_or(title).to_owned();
        } else if let Some((name, value)) = line.split_once(':')
            && section != "models"
        {
            let fields = sections.entry(&section).or_insert_with(|| json!({}));
            fields[name.strip_prefix(PREFIX).unwrap_or(name)] = field(value);
        }
    }
    Json::Object(sections)
}

/// A number, a text, or `name=value,…` as an object.
fn field(value: &str) -> Json {
    let one = |value: &str| value.parse::<u64>().map_or_else(|_| value.into(), Json::from);
    if !value.contains('=') {
        return one(value);
    }
    let parts = value.split(',').filter_map(|part| part.split_once('='));
    Json::Object(parts.map(|(name, value)| (name.to_owned(), one(value))).collect())
}

fn shown(server: &Json) -> String {
    let mut rows = vec![["model", "type", "state", "context", "requests", "memory", ""].map(str::to_owned).to_vec()];
    rows.extend(elements(&server["models"]).iter().map(model));
    let mut parts = vec![if rows.len() == 1 {
        "no model is loaded; INFER.LOAD loads one".to_owned()
    } else {
        output::columns(&rows)
    }];
    for (section, values) in server["info"].as_object().into_iter().flatten() {
        parts.push(format!("{section}\n{}", output::columns(&fields(values, "  "))));
    }
    parts.join("\n\n")
}

fn model(model: &Json) -> Vec<String> {
    let memory: u64 = ["size_bytes", "kv_bytes", "compute_bytes"].iter().filter_map(|part| model[part].as_u64()).sum();
    let note = match text(&model["state"]).as_str() {
        "loading" => format!("{} %", text(&model["progress"])),
        "failed" => text(&model["error"]),
        _ if model["default"] == "yes" => "default".to_owned(),
        _ => String::new(),
    };
    let words = ["name", "type", "state", "context", "requests"].map(|part| text(&model[part]));
    let mut row = words.to_vec();
    row.push(if memory > 0 { output::bytes(memory) } else { String::new() });
    row.push(note);
    row.iter().map(|cell| output::clean(cell)).collect()
}

/// A line for each field, those of objects in it below their names.
fn fields(values: &Json, margin: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (name, value) in values.as_object().into_iter().flatten() {
        let shown = match value {
            Json::Null => "-".to_owned(),
            Json::Object(parts) if name.starts_with(LATENCY) => {
                let part = |(name, value): (&String, &Json)| match value.as_u64() {
                    Some(time) if name != "samples" => format!("{name} {}", output::microseconds(time)),
                    _ => format!("{name} {}", text(value)),
                };
                parts.iter().map(part).collect::<Vec<_>>().join(", ")
            }
            Json::Object(_) => {
                rows.push(vec![format!("{margin}{name}")]);
                rows.extend(fields(value, &format!("{margin}  ")));
                continue;
            }
            Json::Number(number) if name.contains("bytes") => output::bytes(number.as_u64().unwrap_or(0)),
            other => output::clean(&text(other)),
        };
        rows.push(vec![format!("{margin}{}", name.strip_prefix(LATENCY).unwrap_or(name)), shown]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read_by_sections_without_its_prefix() {
        let info = "# infer_models\r\ninfer_model0:name=chat,state=ready\r\n\r\n# infer_queue\r\ninfer_requests:2\r\n\
                    # infer_latency\r\ninfer_latency_usec_queue:p50=10,p99=20\r\n";
        let expected =
            json!({ "queue": { "requests": 2 }, "latency": { "latency_usec_queue": { "p50": 10, "p99": 20 } } });
        assert_eq!(sections(info), expected);
    }

    #[test]
    fn the_server_is_shown_as_a_table_of_models_and_its_counters() {
        let server = json!({
            "models": [
                { "name": "chat", "type": "generation", "state": "ready", "default": "yes", "requests": 1,
                  "context": 4096, "size_bytes": 90_000_000, "kv_bytes": 10_000_000 },
                { "name": "new", "type": "embedding", "state": "loading", "progress": 40 },
            ],
            "info": { "queue": { "requests": 1 }, "latency": { "latency_usec_queue": { "p50": 10, "samples": 20 } } },
        });
        let expected = "model  type        state    context  requests  memory\n\
                        chat   generation  ready    4096     1         100.0 MB  default\n\
                        new    embedding   loading                               40 %\n\n\
                        queue\n  requests  1\n\nlatency\n  queue  p50 0.0 ms, samples 20";
        assert_eq!(shown(&server), expected);
        let none = shown(&json!({ "models": [], "info": {} }));
        assert!(none.contains("INFER.LOAD loads one"), "{none}");
    }

    #[test]
    fn an_index_is_shown_field_by_field() {
        let index = json!({ "documents": 3, "vector_bytes": 1500, "reindex": { "done": 1 }, "pending": null });
        let expected = "documents     3\nvector_bytes  1.5 KB\nreindex\n  done        1\npending       -";
        assert_eq!(output::columns(&fields(&index, "")), expected);
    }
}
