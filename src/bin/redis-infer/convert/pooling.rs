//! How the token vectors of a text become one: what the model's authors say, in the forms that
//! sentence-transformers has used.

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde_json::Value;

use super::config::Json;

/// A pooling that llama.cpp computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pooling {
    /// The mean of all token vectors.
    Mean,
    /// The vector of the first token.
    Cls,
    /// The vector of the last token.
    Last,
    /// A score in place of a vector: what a cross-encoder makes.
    #[value(skip)]
    Rank,
}

impl Pooling {
    /// Its number in llama.cpp's `enum llama_pooling_type`.
    pub fn number(self) -> u32 {
        match self {
            Self::Mean => 1,
            Self::Cls => 2,
            Self::Last => 3,
            Self::Rank => 4,
        }
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Last => "last",
            Self::Rank => "rank",
        }
    }
}

/// The pooling of the model: `asked` if given, else its configuration, else the mean with a note.
///
/// # Errors
/// When the model does more to its vectors than llama.cpp can.
pub fn choose(json: &Json, asked: Option<Pooling>, notes: &mut Vec<String>) -> Result<Pooling> {
    let modules = json.optional("modules.json")?;
    let folder = pooling_folder(modules.as_ref())?;
    if let Some(asked) = asked {
        return Ok(asked);
    }
    let name = format!("{folder}/config.json");
    match json.optional(&name)? {
        Some(config) => configured(&config, &name),
        None => {
            notes.push(format!(
                "{name} is missing, so mean pooling is assumed; pass --pooling if the model wants another"
            ));
            Ok(Pooling::Mean)
        }
    }
}

/// The folder of the pooling module. Every module must be one that llama.cpp reproduces: a dense layer behind
/// the pooling would be lost without a word.
fn pooling_folder(modules: Option<&Value>) -> Result<String> {
    let mut folder = "1_Pooling".to_owned();
    for module in modules.and_then(Value::as_array).into_iter().flatten() {
        let kind = module["type"].as_str().unwrap_or_default();
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" | "Normalize" => {}
            "Pooling" => folder = module["path"].as_str().unwrap_or(&folder).to_owned(),
            other => bail!("modules.json: the model has a module '{other}', which llama.cpp does not compute"),
        }
    }
    Ok(folder)
}

fn configured(config: &Value, name: &str) -> Result<Pooling> {
    // Newer files have one string, older ones a truth value for each kind.
    if let Some(mode) = config["pooling_mode"].as_str() {
        return by_name(mode, name);
    }
    const KEY: &str = "pooling_mode_";
    let chosen: Vec<&str> = config
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, on)| on.as_bool() == Some(true))
        .filter_map(|(key, _)| key.strip_prefix(KEY))
        .collect();
    match chosen.as_slice() {
        [one] => by_name(one, name),
        [] => bail!("{name} chooses no pooling; pass --pooling"),
        _ => bail!("{name} joins several poolings, which llama.cpp does not compute"),
    }
}

fn by_name(mode: &str, name: &str) -> Result<Pooling> {
    match mode {
        "mean" | "mean_tokens" => Ok(Pooling::Mean),
        "cls" | "cls_token" => Ok(Pooling::Cls),
        "lasttoken" => Ok(Pooling::Last),
        other => bail!("{name}: pooling '{other}' is not supported; llama.cpp knows mean, cls and last"),
    }
}
