//! `INFER.MODELS` and `INFER.MODEL`: what is loaded.

use redis_module::Context;

use super::runtime::engine;
use crate::engine::{EngineError, Listing, Purpose, Served};
use crate::logic::args::Args;
use crate::logic::file_names::{file_name, without_folders};
use crate::logic::options::{LoadOptions, ModelName, Speculation};
use crate::redis_api::acl::may_run;
use crate::redis_api::entry::Outcome;
use crate::redis_api::reply::{Failure, Value};

/* INFER.MODELS */
/// All models, loading, ready and failed, in the order of their names.
pub fn models(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    Args::new("INFER.MODELS", args).end()?;
    let engine = engine()?;
    let (defaults, eyes) = (engine.defaults(), Eyes::of(ctx));
    let summary = |(name, listing): &(String, Listing)| Value::Map(summary(name, listing, &defaults, eyes));
    Ok(Outcome::Reply(Value::Array(engine.list().iter().map(summary).collect())))
}

/* INFER.MODEL name */
/// Everything known about one model.
pub fn model(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let ModelName { name } = ModelName::parse(args)?;
    let engine = engine()?;
    let name = engine.real_name(name)?;
    let found = engine.list().into_iter().find(|(listed, _)| *listed == name);
    let (name, listing) = found.ok_or(EngineError::NoModel(name))?;
    let mut fields = summary(&name, &listing, &engine.defaults(), Eyes::of(ctx));
    if let Listing::Ready(served) = &listing {
        fields.extend(details(served));
    }
    Ok(Outcome::Reply(Value::Map(fields)))
}

/// What the caller may see of the places of files.
#[derive(Debug, Clone, Copy)]
enum Eyes {
    /// May load files, and sees where they are.
    Paths,
    /// Sees their names.
    Names,
}

impl Eyes {
    fn of(ctx: &Context) -> Self {
        if may_run(ctx, "INFER.LOAD") { Self::Paths } else { Self::Names }
    }

    fn path(self, path: &str) -> Value {
        Value::from(match self {
            Self::Paths => path,
            Self::Names => file_name(path),
        })
    }

    fn error(self, error: &EngineError, options: &LoadOptions) -> Value {
        let text = format!("{} {error}", error.code());
        Value::from(match self {
            Self::Paths => text,
            Self::Names => without_folders(&text, options.paths()),
        })
    }
}

fn summary(name: &str, listing: &Listing, defaults: &[String], eyes: Eyes) -> Vec<(&'static str, Value)> {
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
        ("path", eyes.path(&options.path)),
    ];
    if let Some(lora) = &options.lora {
        fields.push(("lora", eyes.path(&lora.path)));
        fields.push(("lora_scale", Value::Double(lora.scale.into())));
    }
    match listing {
        Listing::Loading(load) => {
            fields.push(("progress", Value::from(load.percent())));
            fields.push(("loading_seconds", Value::Double(load.since.elapsed().as_secs_f64())));
        }
        Listing::Failed(failed) => fields.push(("error", eyes.error(&failed.error, options))),
        Listing::Ready(served) => {
            fields.extend(served.failure().map(|failure| ("error", eyes.error(failure, options))));
            let default = if defaults.iter().any(|listed| listed == name) { "yes" } else { "no" };
            fields.push(("default", Value::from(default)));
            fields.push(("requests", Value::from(served.requests())));
        }
    }
    fields
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
