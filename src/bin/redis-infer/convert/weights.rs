//! The tensors of model.safetensors under the names of llama.cpp's `bert` architecture.
//!
//! A safetensors shape lists the slowest dimension first and a ggml shape the fastest, so shapes are turned
//! around and the bytes stay in order.
//!
//! A cross-encoder tells its two texts apart by token types, and llama.cpp knows type 0 only. The difference of the two
//! types is therefore added to a copy of each token, for the second text: the module uses the copies, other programs do
//! not see them.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};
use half::{bf16, f16};
use redis_infer_gguf::{TensorData, Writer};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::Format;
use super::config::Config;

/// The modules of a layer: Hugging Face's name below `encoder.layer.N.`, llama.cpp's below `blk.N.`, and the
/// dimensions of the weight, slowest first.
const LAYER: [(&str, &str, Shape); 8] = [
    ("attention.self.query", "attn_q", Shape::Matrix(Side::Width, Side::Width)),
    ("attention.self.key", "attn_k", Shape::Matrix(Side::Width, Side::Width)),
    ("attention.self.value", "attn_v", Shape::Matrix(Side::Width, Side::Width)),
    ("attention.output.dense", "attn_output", Shape::Matrix(Side::Width, Side::Width)),
    ("attention.output.LayerNorm", "attn_output_norm", Shape::Vector),
    ("intermediate.dense", "ffn_up", Shape::Matrix(Side::FeedForward, Side::Width)),
    ("output.dense", "ffn_down", Shape::Matrix(Side::Width, Side::FeedForward)),
    ("output.LayerNorm", "layer_output_norm", Shape::Vector),
];

#[derive(Clone, Copy)]
enum Side {
    Width,
    FeedForward,
    One,
}

#[derive(Clone, Copy)]
enum Shape {
    Matrix(Side, Side),
    Vector,
}

/// Adds all tensors of the model in the file at `path` to `writer`. The pooler of a sentence encoder and the heads of
/// pre-training are left behind: they are not used.
pub fn copy(path: &Path, config: &Config, format: Format, writer: &mut Writer) -> Result<()> {
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!(
            "{} is missing; a model in another format must be saved as safetensors first",
            path.display()
        ),
        _ => anyhow::Error::new(error).context(format!("cannot read {}", path.display())),
    })?;
    let tensors = SafeTensors::deserialize(&bytes)
        .with_context(|| format!("{} is not a sound safetensors file", path.display()))?;
    let mut copy = Copy { prefix: prefix(&tensors)?, tensors, config, format, writer };
    copy.embeddings()?;
    (0..config.layers).try_for_each(|layer| copy.layer(layer))?;
    if config.cross_encoder { copy.head() } else { Ok(()) }
}

/// Models saved with a pre-training head have their encoder below `bert.`.
fn prefix(tensors: &SafeTensors) -> Result<&'static str> {
    ["", "bert."]
        .into_iter()
        .find(|prefix| tensors.tensor(&format!("{prefix}{WORDS}")).is_ok())
        .with_context(|| format!("model.safetensors: the tensor {WORDS} is missing"))
}

const WORDS: &str = "embeddings.word_embeddings.weight";
const TYPES: &str = "embeddings.token_type_embeddings.weight";

struct Copy<'a> {
    tensors: SafeTensors<'a>,
    prefix: &'static str,
    config: &'a Config,
    format: Format,
    writer: &'a mut Writer,
}

impl Copy<'_> {
    fn embeddings(&mut self) -> Result<()> {
        let config = self.config;
        let width = config.width;
        let mut words = self.read(WORDS, &[config.vocab_size, width])?;
        let mut rows = config.vocab_size;
        if config.has_second_segment() {
            let types = self.read(TYPES, &[config.token_types, width])?;
            let (first, second) = types.split_at(width as usize);
            let difference = first.iter().zip(second).map(|(first, second)| second - first).cycle();
            let copies: Vec<f32> = words.iter().zip(difference).map(|(word, difference)| word + difference).collect();
            words.extend(copies);
            rows *= 2;
        }
        self.write(WORDS, "token_embd.weight", &[rows, width], words, self.format)?;
        self.tensor(
            "embeddings.position_embeddings.weight",
            "position_embd.weight",
            &[config.positions, width],
            Format::F32,
        )?;
        self.tensor(TYPES, "token_types.weight", &[config.token_types, width], Format::F32)?;
        self.module("embeddings.LayerNorm", "token_embd_norm", Shape::Vector)
    }

    fn layer(&mut self, layer: u32) -> Result<()> {
        LAYER.into_iter().try_for_each(|(source, target, shape)| {
            self.module(&format!("encoder.layer.{layer}.{source}"), &format!("blk.{layer}.{target}"), shape)
        })
    }

    /// What makes the score: the pooler, and the classifier, which stands beside the encoder.
    fn head(&mut self) -> Result<()> {
        self.module("pooler.dense", "cls", Shape::Matrix(Side::Width, Side::Width))?;
        self.prefix = "";
        if let &[labels, _] = self.find("classifier.weight")?.shape()
            && labels != 1
        {
            bail!("model.safetensors: it is a classifier with {labels} labels; a cross-encoder has one");
        }
        self.module("classifier", "cls.output", Shape::Matrix(Side::One, Side::Width))
    }

    /// A weight and its bias.
    fn module(&mut self, source: &str, target: &str, shape: Shape) -> Result<()> {
        let length = |side| match side {
            Side::Width => self.config.width,
            Side::FeedForward => self.config.feed_forward,
            Side::One => 1,
        };
        let (weight, bias, format) = match shape {
            Shape::Matrix(rows, columns) => (vec![length(rows), length(columns)], length(rows), self.format),
            Shape::Vector => (vec![self.config.width], self.config.width, Format::F32),
        };
        let target = |part: &str| format!("{target}.{part}");
        self.tensor(&format!("{source}.weight"), &target("weight"), &weight, format)?;
        self.tensor(&format!("{source}.bias"), &target("bias"), &[bias], Format::F32)
    }

    fn tensor(&mut self, source: &str, target: &str, shape: &[u32], format: Format) -> Result<()> {
        let values = self.read(source, shape)?;
        self.write(source, target, shape, values, format)
    }

    fn read(&self, source: &str, shape: &[u32]) -> Result<Vec<f32>> {
        let view = self.find(source)?;
        let expected: Vec<usize> = shape.iter().map(|&side| side as usize).collect();
        if view.shape() != expected {
            bail!(
                "model.safetensors: {source} has the shape {:?}, but config.json asks for {expected:?}",
                view.shape()
            );
        }
        let values = floats(&view).with_context(|| format!("model.safetensors: {source}"))?;
        if values.iter().any(|value| !value.is_finite()) {
            bail!("model.safetensors: {source} holds a value that is not a finite number");
        }
        Ok(values)
    }

    fn write(&mut self, source: &str, target: &str, shape: &[u32], values: Vec<f32>, format: Format) -> Result<()> {
        let data = match format {
            Format::F32 => TensorData::F32(values),
            Format::F16 => {
                if values.iter().any(|value| value.abs() > f16::MAX.to_f32()) {
                    bail!("model.safetensors: {source} holds a value too large for F16; pass --format f32");
                }
                TensorData::to_f16(&values)
            }
        };
        let dims: Vec<u64> = shape.iter().rev().map(|&side| side.into()).collect();
        self.writer.tensor(target, &dims, data);
        Ok(())
    }

    fn find(&self, name: &str) -> Result<TensorView<'_>> {
        // Models from before 2019 call the two halves of a norm gamma and beta.
        let old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        [name, &old]
            .into_iter()
            .find_map(|name| self.tensors.tensor(&format!("{}{name}", self.prefix)).ok())
            .with_context(|| format!("model.safetensors: the tensor {name} is missing"))
    }
}

/// The elements of a tensor as 32-bit floats. The bytes of safetensors are little-endian and need not be
/// aligned.
fn floats(view: &TensorView) -> Result<Vec<f32>> {
    let bytes = view.data();
    Ok(match view.dtype() {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        other => bail!("elements of type {other:?} are not supported, only F32, F16 and BF16"),
    })
}
