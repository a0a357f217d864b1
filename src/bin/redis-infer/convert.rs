//! `redis-infer convert <model-dir> <out.gguf>`: a BERT-family sentence encoder or cross-encoder from Hugging Face
//! layout to GGUF, under the names that llama.cpp's `bert` architecture reads. Matrices become F16 unless asked
//! otherwise; norms, biases, position and token-type embeddings stay F32, as llama.cpp expects them.

mod config;
mod pooling;
mod vocabulary;
mod weights;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use redis_infer_gguf::{Header, Writer, check_file};

use config::{Config, Json};
use pooling::Pooling;
use vocabulary::Vocabulary;

/// The metadata key for the number of tokens that the encoder's authors cut texts at. llama.cpp does not read
/// it; `bert.context_length` is the number of positions, which can be larger.
const MAX_SEQ_LENGTH: &str = "redis_infer.max_seq_length";

/// The metadata key for the distance of a token's copy in the second segment from the token, see [`weights`].
const SECOND_SEGMENT: &str = "redis_infer.second_segment";

/// Arguments of `redis-infer convert`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Directory with config.json, model.safetensors and tokenizer.json or vocab.txt.
    model_dir: PathBuf,
    /// GGUF file to write.
    out: PathBuf,
    /// Replace the GGUF file if it exists.
    #[arg(long)]
    force: bool,
    /// Name of the model in the file [default: the name of the directory].
    #[arg(long)]
    name: Option<String>,
    /// How token vectors become one vector [default: what the model's pooling configuration says].
    #[arg(long, value_enum)]
    pooling: Option<Pooling>,
    /// Format of the weight matrices.
    #[arg(long, value_enum, default_value_t = Format::F16)]
    format: Format,
}

/// The format of the weight matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    F16,
    F32,
}

impl Format {
    /// Number of a file of this format in llama.cpp's `enum llama_ftype`.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
        }
    }
}

/// What was written, and what the user should know about it.
#[derive(Debug)]
struct Outcome {
    header: Header,
    pooling: Pooling,
    notes: Vec<String>,
}

/// Converts and prints a summary.
///
/// # Errors
/// What is missing or not supported, with the file it is about. Nothing is written then.
pub fn run(arguments: &Arguments) -> Result<()> {
    let outcome = convert(arguments)?;
    for note in &outcome.notes {
        eprintln!("note: {note}");
    }
    let header = &outcome.header;
    let number = |key| header.arch_u32(key).unwrap_or(0);
    println!(
        "wrote {}: {} layers, {} dimensions, {} positions, {:.1} million weights, {} pooling, {:.1} MiB",
        arguments.out.display(),
        number("block_count"),
        number("embedding_length"),
        number("context_length"),
        header.parameters() as f64 / 1e6,
        outcome.pooling.name(),
        header.file_size as f64 / f64::from(1 << 20),
    );
    Ok(())
}

fn convert(arguments: &Arguments) -> Result<Outcome> {
    let dir = &arguments.model_dir;
    let kind = fs::metadata(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    if !kind.is_dir() {
        bail!("{} is not a directory; give the directory that holds config.json and model.safetensors", dir.display());
    }
    if arguments.out.exists() && !arguments.force {
        bail!("{} exists; pass --force to replace it", arguments.out.display());
    }
    let json = Json::new(dir);
    let config = Config::read(&json)?;
    let mut notes = Vec::new();
    let pooling = match (config.cross_encoder, arguments.pooling) {
        (true, Some(_)) => bail!("this is a cross-encoder, which makes a score and no vector; leave out --pooling"),
        (true, None) => Pooling::Rank,
        (false, asked) => pooling::choose(&json, asked, &mut notes)?,
    };
    let mut vocabulary = Vocabulary::read(&json, config.vocab_size, &mut notes)?;

    let mut writer = Writer::new("bert");
    metadata(&mut writer, arguments, &config, pooling);
    if let Some(length) = max_seq_length(&json)? {
        writer.u32(MAX_SEQ_LENGTH, length.min(config.positions));
    }
    if config.cross_encoder {
        vocabulary.write_pairs(&mut writer);
    }
    if config.has_second_segment() {
        vocabulary.double();
        writer.u32(SECOND_SEGMENT, config.vocab_size);
    }
    vocabulary.write(&mut writer, config.token_types);
    weights::copy(&dir.join("model.safetensors"), &config, arguments.format, &mut writer)?;
    writer.write(&arguments.out).with_context(|| format!("cannot write {}", arguments.out.display()))?;
    let header = check_file(&arguments.out).context("the file just written does not pass the module's check")?;
    Ok(Outcome { header, pooling, notes })
}

fn metadata(writer: &mut Writer, arguments: &Arguments, config: &Config, pooling: Pooling) {
    let name = arguments.name.clone().unwrap_or_else(|| directory_name(&arguments.model_dir));
    writer
        .string("general.type", "model")
        .string("general.name", &name)
        .u32("general.file_type", arguments.format.file_type())
        .u32("general.quantization_version", 2)
        .u32("bert.block_count", config.layers)
        .u32("bert.context_length", config.positions)
        .u32("bert.embedding_length", config.width)
        .u32("bert.feed_forward_length", config.feed_forward)
        .u32("bert.attention.head_count", config.heads)
        .f32("bert.attention.layer_norm_epsilon", config.norm_epsilon)
        .bool("bert.attention.causal", false)
        .u32("bert.pooling_type", pooling.number());
}

/// The last component of the directory, also when it is given as `.`.
fn directory_name(dir: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    name(dir)
        .or_else(|| fs::canonicalize(dir).ok().as_deref().and_then(name))
        .unwrap_or_else(|| "sentence encoder".into())
}

/// Where sentence-transformers cuts texts, in tokens.
fn max_seq_length(json: &Json) -> Result<Option<u32>> {
    let Some(config) = json.optional("sentence_bert_config.json")? else {
        return Ok(None);
    };
    Ok(config["max_seq_length"].as_u64().and_then(|n| u32::try_from(n).ok()))
}
