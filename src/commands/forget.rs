//! `INFER.FORGET`: a document out of an index.

use redis_module::Context;

use super::document::Document;
use super::index_work;
use super::replace::{Replacement, Switch};
use super::retrieval::require_settings;
use crate::logic::keys::IndexKeys;
use crate::logic::options::Forget;
use crate::redis_api::caller::Caller;
use crate::redis_api::entry::Outcome;
use crate::redis_api::keyspace::Keyspace;
use crate::redis_api::keyspace_thread;
use crate::redis_api::reply::{Failure, Value};
use crate::redis_api::vset;

/* INFER.FORGET index path */
/// Removes a document; the number of chunks it had. Needs no model.
pub fn forget(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let request = Forget::parse(args)?;
    vset::require(ctx)?;
    keyspace_thread::start(ctx)?;
    let (keyspace, keys) = (Keyspace::of(ctx).above_maxmemory(), IndexKeys::new(request.index));
    let settings = require_settings(&keyspace, &keys)?;
    let data = keys.data(settings.generation);
    let before = Document::read(&keyspace, &data.document(request.path))?;
    let replacement = Replacement::by_nothing(data, request.path, settings.quant.name(), before);
    match replacement.switch(&keyspace)? {
        Switch::Done(counts, aftermath) => {
            let caller = Caller::of(ctx, "INFER.FORGET").with_key(ctx, keys.settings());
            index_work::changed(caller.db, request.index, request.path);
            replacement.follow_up(aftermath, &caller, &keys);
            Ok(Outcome::Reply(Value::from(counts.removed)))
        }
        Switch::Overtaken => Err(Failure::internal("a document changed while the lock was held")),
    }
}
