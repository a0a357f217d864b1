//! `INFER.EMBED`: texts to vectors.

use redis_module::Context;

use super::runtime::{engine, queue_limit};
use super::waiting::{Embedding, block_for_model};
use crate::engine::{EngineError, Errand, Purpose};
use crate::logic::options::{Embed, EmbedFormat};
use crate::logic::{limits, vector};
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::entry::Outcome;
use crate::redis_api::reply::{Failure, Value};

/// How a vector is cut, scaled and rendered.
#[derive(Clone, Copy)]
struct Shape {
    format: EmbedFormat,
    dim: usize,
    normalize: bool,
}

/* INFER.EMBED model count text [text ...] [FORMAT FP32|VALUES] [DIM n] [NONORM] [PREFIX s] */
/// One vector per text, L2-normalised; FP32 blobs are what VADD and VSIM take as FP32.
pub fn embed(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = Embed::parse(args)?;
    refuse_blocking(ctx, "INFER.EMBED")?;
    let served = engine()?.find_for(request.model, Purpose::Embedding)?;
    let has = served.model.facts.embedding_dim as usize;
    let dim = request.dim.map_or(has, |dim| dim as usize);
    if dim > has {
        return Err(EngineError::TooManyDimensions { name: served.model.name.clone(), asked: dim, has }.into());
    }
    let numbers = dim.saturating_mul(request.texts.len());
    if request.format == EmbedFormat::Values && numbers > limits::REPLY_ELEMENTS_MAX {
        return Err(Failure::err(format!(
            "FORMAT VALUES would answer {numbers} numbers, more than the {} of one reply; use FP32 or fewer texts",
            limits::REPLY_ELEMENTS_MAX
        )));
    }
    let shape = Shape { format: request.format, dim, normalize: request.normalize };
    let prefix = request.prefix.unwrap_or_default();
    let texts: Vec<String> = request.texts.iter().map(|text| format!("{prefix}{text}")).collect();

    let permit = served.permit(queue_limit())?;
    let (pending, ticket) = block_for_model(ctx, "INFER.EMBED", &served)?;
    let embedding = Embedding { served, permit, ticket };
    let bytes = texts.iter().map(String::len).sum();
    engine()?.run(Errand::of(pending.client_id(), &embedding.ticket, bytes), move || {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        embedding.run(&texts, move |vectors| {
            let reply = vectors.map(|vectors| Value::Array(vectors.into_iter().map(|v| shape.render(v)).collect()));
            pending.finish(reply.map_err(Failure::from));
        });
    })?;
    Ok(Outcome::Pending)
}

impl Shape {
    /// Cut first, then scale: that is how models trained for shorter vectors are meant to be used.
    fn render(self, mut vector: Vec<f32>) -> Value {
        vector.truncate(self.dim);
        if self.normalize {
            vector::l2_normalize(&mut vector);
        }
        match self.format {
            EmbedFormat::Fp32 => Value::Bulk(vector::to_fp32(&vector)),
            EmbedFormat::Values => Value::Array(vector.into_iter().map(|x| Value::Double(f64::from(x))).collect()),
        }
    }
}
