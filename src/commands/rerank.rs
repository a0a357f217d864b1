//! `INFER.RERANK`: texts in the order in which they fit a query.

use redis_module::Context;

use super::runtime::{engine, queue_limit};
use super::waiting::{Reranking, block_for_model};
use crate::engine::{Errand, Purpose};
use crate::logic::options::Rerank;
use crate::logic::ranking::best_first;
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::entry::Outcome;
use crate::redis_api::reply::{Failure, Value};

/* INFER.RERANK model query count text [text ...] [TOP n] */
/// Pairs of a text's place in the call, from 0, and its score, best first. The score is what the model makes: llama.cpp's
/// server answers the same number.
pub fn rerank(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = Rerank::parse(args)?;
    refuse_blocking(ctx, "INFER.RERANK")?;
    let served = engine()?.find_for(request.model, Purpose::Reranking)?;
    let top = request.top.map_or(usize::MAX, |top| top as usize);
    let query = request.query.to_owned();
    let texts: Vec<String> = request.texts.iter().map(|&text| text.to_owned()).collect();

    let permit = served.permit(queue_limit())?;
    let (pending, ticket) = block_for_model(ctx, "INFER.RERANK", &served)?;
    let reranking = Reranking { served, permit, ticket };
    let bytes = query.len() + texts.iter().map(String::len).sum::<usize>();
    engine()?.run(Errand::of(pending.client_id(), &reranking.ticket, bytes), move || {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        reranking.run(&query, &texts, move |scores| {
            pending.finish(scores.map(|scores| ranking(&scores, top)).map_err(Failure::from));
        });
    })?;
    Ok(Outcome::Pending)
}

fn ranking(scores: &[f32], top: usize) -> Value {
    let pair = |place: usize| Value::Array(vec![Value::from(place), Value::Double(f64::from(scores[place]))]);
    Value::Array(best_first(scores, top).into_iter().map(pair).collect())
}
