//! `INFER.LOAD` and `INFER.UNLOAD`: models in and out of memory.

use redis_module::Context;

use super::runtime::{engine, max_memory};
use super::waiting::block;
use crate::engine::{EngineError, Requests};
use crate::logic::options::{LoadOptions, Unload};
use crate::redis_api::blocking::refuse_blocking;
use crate::redis_api::entry::Outcome;
use crate::redis_api::reply::{Failure, Value};

/* INFER.LOAD path | INFER.LOAD name path [TYPE AUTO|GENERATE|EMBED|RERANK] [CTX n] [PARALLEL n] [WORKERS n|AUTO]
[THREADS n|AUTO] [KVTYPE F16|Q8_0] [SPECULATION LOOKUP|NONE] [GPULAYERS n] [POOLING MEAN|CLS|LAST] [LORA path scale] [MMAP|NOMMAP] [MLOCK]
[DEFAULT] [ASYNC] */
/// Loads a GGUF file; the client waits until the model can be used, other clients do not. With ASYNC it does not wait
/// either, and INFER.MODELS tells how the load goes.
pub fn load(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let options = LoadOptions::parse(args)?;
    if options.background {
        engine()?.load_in_background(options, max_memory())?;
        return Ok(Outcome::Reply(Value::OK));
    }
    refuse_blocking(ctx, "INFER.LOAD")?;
    let engine = engine()?;
    let pending = block(ctx, "INFER.LOAD")?;
    engine.load(
        options,
        max_memory(),
        Box::new(move |loaded| pending.finish(loaded.map(|()| Value::OK).map_err(Failure::from))),
    );
    Ok(Outcome::Pending)
}

/* INFER.UNLOAD name [FORCE] */
/// Takes a model out of service; answers when its requests are answered and its memory is free. FORCE ends the requests.
/// A load that is under way ends early, and its client gets CANCELLED.
pub fn unload(ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    let Unload { name, force } = Unload::parse(args)?;
    refuse_blocking(ctx, "INFER.UNLOAD")?;
    let engine = engine()?;
    let pending = block(ctx, "INFER.UNLOAD")?;
    let done = Box::new(move |unloaded: Result<(), EngineError>| {
        pending.finish(unloaded.map(|()| Value::OK).map_err(Failure::from));
    });
    engine.unload(name, if force { Requests::Cancel } else { Requests::Finish }, done);
    Ok(Outcome::Pending)
}
