//! `INFER.MODELS` and `INFER.MODEL`: what is loaded.

use redis_module::Context;

use super::runtime::engine;
use crate::engine::{EngineError, Listing, Purpose, Served};
use crate::logic::args::Args;
use crate::logic::options::{ModelName, Speculation};
use crate::redis_api::entry::Outcome;
use crate::redis_api::reply::{Failure, Value};

/* INFER.MODELS */
/// All models, loading, ready and failed, in the order of their names.
pub fn models(_ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    Args::new("INFER.MODELS", args).end()?;
    let engine = engine()?;
    let defaults = engine.defaults();
    let models = engine.list().iter().map(|(name, listing)| Value::Map(summary(name, listing, &defaults))).collect();
    Ok(Outcome::Reply(Value::Array(models)))
}

/* INFER.MODEL name */
/// Everything known about one model.
pub fn model(_ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let ModelName { name } = ModelName::parse(args)?;
    let engine = engine()?;
    let name = engine.real_name(name)?;
    let found = engine.list().into_iter().find(|(listed, _)| *listed == name);
    let (name, listing) = found.ok_or(EngineError::NoModel(name))?;
    let mut fields = summary(&name, &listing, &engine.defaults());
    if let Listing::Ready(served) = &listing {
        fields.extend(details(served));
    }
    Ok(Outcome::Reply(Value::Map(fields)))
}

fn summary(name: &str, listing: &Listing, defaults: &[String]) -> Vec<(&'static str, Value)> {
    let (kind, state, options) = match listing {
        Listing::Loading(load) => (load.options.kind.name(), "loading", &load.options),
        Listing::Ready(served) => {
            let state = if served.failure().is_some() { "failed" } else { "ready" };
            (served.model.purpose.name(), state, &served.options)
        }
        Listing::Failed(failed) => (failed.options.kind.name(), "failed", &failed.options),
    };
    let mut fields = vec![
        ("name", Value::from(name)),
        ("type", Value::from(kind)),
        ("state", Value::from(state)),
        ("path", Value::from(options.path.as_str())),
    ];
    if let Some(lora) = &options.lora {
        fields.push(("lora", Value::from(lora.path.as_str())));
        fields.push(("lora_scale", Value::Double(lora.scale.into())));
    }
    match listing {
        Listing::Loading(load) => {
            fields.push(("progress", Value::from(load.percent())));
            fields.push(("loading_seconds", Value::Double(load.since.elapsed().as_secs_f64())));
        }
        Listing::Failed(failed) => fields.push(("error", with_code(&failed.error))),
        Listing::Ready(served) => {
            fields.extend(served.failure().map(|failure| ("error", with_code(failure))));
            let default = if defaults.iter().any(|listed| listed == name) { "yes" } else { "no" };
            fields.push(("default", Value::from(default)));
            fields.push(("requests", Value::from(served.requests())));
        }
    }
    fields
}

fn with_code(error: &EngineError) -> Value {
    Value::from(format!("{} {error}", error.code()))
}

/// An option that may be left to the server.
fn auto_or(asked: Option<u32>) -> String {
    asked.map_or_else(|| "AUTO".to_owned(), |number| number.to_string())
}

fn details(served: &Served) -> Vec<(&'static str, Value)> {
    let (facts, estimate) = (&served.model.facts, served.estimate());
    let mut fields = vec![
        ("architecture", Value::from(facts.architecture.as_str())),
        ("parameters", Value::from(facts.parameters)),
        ("size_bytes", Value::from(facts.size_bytes)),
        ("kv_bytes", Value::from(served.memory().kv)),
        ("compute_bytes", Value::from(served.memory().compute)),
        ("estimated_bytes", Value::from(estimate.total())),
        ("estimated_kv_bytes", Value::from(estimate.kv)),
        ("estimated_compute_bytes", Value::from(estimate.compute)),
        ("train_context", Value::from(facts.train_context)),
        ("context", Value::from(served.context)),
        ("workers", Value::from(served.layout.workers)),
        ("workers_option", Value::from(auto_or(served.options.workers))),
        ("threads", Value::from(served.threads())),
        ("threads_option", Value::from(auto_or(served.options.threads))),
        ("latest_threads", Value::from(served.latest_threads())),
        ("renewed_contexts", Value::from(served.renewed())),
        ("vocabulary", Value::from(facts.vocabulary)),
        ("tokenizer", Value::from(facts.tokenizer.as_str())),
    ];
    match served.model.purpose {
        Purpose::Generation => {
            fields.push(("parallel", Value::from(served.layout.slots)));
            fields.push(("kv_type", Value::from(served.options.cache_type().name())));
            let speculation = if served.speculates() { Speculation::Lookup } else { Speculation::None };
            fields.push(("speculation", Value::from(speculation.name())));
            fields.push(("chat_template", Value::from(if served.model.has_template() { "yes" } else { "no" })));
        }
        Purpose::Embedding => fields.push(("dimensions", Value::from(facts.embedding_dim))),
        Purpose::Reranking => {}
    }
    fields
}
