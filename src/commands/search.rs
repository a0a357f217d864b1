//! `INFER.SEARCH`: the chunks of an index that are nearest to a query.

use std::sync::Arc;
use std::time::Instant;

use redis_module::Context;

use super::find::{Findings, Question};
use super::retrieval::{index_models, require_settings};
use super::runtime::{engine, queue_limit};
use super::second_look::SecondLook;
use super::waiting::{Embedding, block_for_model};
use crate::engine::{Errand, Served};
use crate::logic::keys::IndexKeys;
use crate::logic::options::Search;
use crate::logic::passages::Found;
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::keyspace_thread;
use crate::redis_api::pending::PendingReply;
use crate::redis_api::reply::{Answer, Failure, Value};
use crate::redis_api::vset;

/// What is told of each chunk besides where it is.
#[derive(Debug)]
struct Detail {
    /// The model whose tokens the chunks are, when their text is wanted.
    text: Option<Arc<Served>>,
    attributes: bool,
}

/* INFER.SEARCH index query [K n] [FILTER expr] [EF n] [MINSCORE f] [RERANK model] [WITHTEXT] [WITHATTRS] */
/// The K nearest chunks, best first.
pub fn search(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = Search::parse(args)?;
    refuse_blocking(ctx, "INFER.SEARCH")?;
    vset::require(ctx)?;
    keyspace_thread::start(ctx)?;
    let keys = IndexKeys::new(request.index);
    let settings = require_settings(&Keyspace::of(ctx), &keys)?;
    let models = index_models(&settings)?;
    let permit = models.embedder.permit(queue_limit())?;
    let second_look = SecondLook::begin(&request.selection, &models.generator)?;
    let (pending, ticket) = block_for_model(ctx, "INFER.SEARCH", &models.embedder)?;
    let embedding = Embedding { served: models.embedder, permit, ticket };
    let detail = Detail { text: request.with_text.then_some(models.generator), attributes: request.with_attributes };
    let question = Question {
        arrived: Instant::now(),
        text: request.query.into(),
        caller: Caller::of(ctx, "INFER.SEARCH").with_key(ctx, keys.settings()),
        keys,
        settings,
        selection: request.selection,
        second_look,
    };
    let errand = Errand::of(pending.client_id(), &embedding.ticket, question.text.len());
    engine()?.run(errand, move || question.find(embedding, move |findings| hand_on(pending, findings, detail)))?;
    Ok(Outcome::Pending)
}

/// Leaves the lock scope: turning tokens back into text is not for the thread that holds Redis' lock.
fn hand_on(pending: PendingReply, findings: Result<Findings, Failure>, detail: Detail) {
    let findings = match findings {
        Ok(findings) => findings,
        Err(failure) => return pending.finish(Err(failure)),
    };
    let handed = engine().and_then(|engine| {
        engine.metrics.missing_chunks.add(findings.missing);
        let bytes = findings.chunks.iter().map(|chunk| size_of_val(chunk.tokens.as_slice())).sum();
        engine.go_on(Errand::anyway(pending.client_id(), bytes), move || pending.finish(detail.hits(&findings.chunks)))
    });
    if let Err(error) = handed {
        log::warn!("INFER.SEARCH: {error}");
    }
}

impl Detail {
    fn hits(&self, found: &[Found]) -> Answer {
        found.iter().map(|hit| self.hit(hit)).collect::<Result<_, _>>().map(Value::Array)
    }

    fn hit(&self, hit: &Found) -> Answer {
        let (first, last) = hit.lines();
        let mut fields = vec![
            ("id", Value::from(hit.id.as_str())),
            ("path", Value::from(hit.attributes.path.as_str())),
            ("chunk", Value::from(hit.attributes.chunk)),
            ("lines", Value::Array(vec![Value::from(first), Value::from(last)])),
            ("score", Value::Double(hit.score)),
        ];
        fields.extend(hit.rerank_score.map(|score| ("rerank_score", Value::Double(score.into()))));
        if let Some(generator) = &self.text {
            fields.push(("text", Value::from(generator.model.detokenize(&hit.tokens)?)));
        }
        if self.attributes {
            fields.push(("attrs", Value::from(hit.json.clone())));
        }
        Ok(Value::Map(fields))
    }
}
