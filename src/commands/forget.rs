//! `INFER.FORGET`: a document out of an index.

use redis_module::Context;

use super::document::Writer;
use super::retrieval::require_settings;
use crate::logic::keys::IndexKeys;
use crate::logic::options::Forget;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::reply::{Failure, Value};
use crate::redis_api::vset;

/* INFER.FORGET index path */
/// Removes a document; the number of chunks it had. Needs no model.
pub fn forget(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = Forget::parse(args)?;
    vset::require(ctx)?;
    let (keyspace, keys) = (Keyspace::of(ctx).above_maxmemory(), IndexKeys::new(request.index));
    let settings = require_settings(&keyspace, &keys)?;
    let data = keys.data(settings.generation);
    let writer = Writer { keys: &data, path: request.path, quant: settings.quant.name() };
    Ok(Outcome::Reply(Value::from(writer.forget(&keyspace)?)))
}
