//! `INFER.DEBUG`: faults and standstills on purpose, for tests. Refused unless the server's environment has `REDIS_INFER_DEBUG=1`.

use std::sync::Arc;

use redis_infer_sync::MainLock;
use redis_module::Context;

use super::runtime::{debug_commands_enabled, engine};
use crate::engine::Served;
use crate::logic::args::Args;
use crate::redis_api::entry::Outcome;
use crate::redis_api::reply::{Failure, Value};

/// What KEEP keeps.
static KEPT: MainLock<Vec<Arc<Served>>> = MainLock::new(Vec::new());

/// What is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Panic,
    Assert,
    Stall,
    Keep,
    Hold,
    Release,
}

impl Fault {
    const ALL: [Self; 6] = [Self::Panic, Self::Assert, Self::Stall, Self::Keep, Self::Hold, Self::Release];

    fn name(self) -> &'static str {
        match self {
            Self::Panic => "PANIC",
            Self::Assert => "ASSERT",
            Self::Stall => "STALL",
            Self::Keep => "KEEP",
            Self::Hold => "HOLD",
            Self::Release => "RELEASE",
        }
    }
}

/* INFER.DEBUG PANIC model | ASSERT model [TWICE] | STALL model | KEEP model | HOLD | RELEASE */
/// PANIC makes the next step of one of the model's workers panic, ASSERT has an assertion of ggml fail in it (TWICE also in the
/// context that the worker makes then), and STALL has that of all of them never end. KEEP holds the model as a command does that
/// reads tokens, and after HOLD no preprocess thread begins anything, both until RELEASE.
pub fn debug(_ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    if !debug_commands_enabled() {
        return Err(Failure::err(
            "INFER.DEBUG is for tests: start redis-server with REDIS_INFER_DEBUG=1 in its environment to allow it",
        ));
    }
    let mut args = Args::new("INFER.DEBUG", args);
    let fault = args.word("subcommand", &Fault::ALL, Fault::name)?;
    if matches!(fault, Fault::Hold | Fault::Release) {
        args.end()?;
        engine()?.hold_preprocessing(fault == Fault::Hold);
        if fault == Fault::Release {
            let kept = std::mem::take(&mut *KEPT.lock());
            drop(kept);
        }
        return Ok(Outcome::Reply(Value::OK));
    }
    let name = args.model("model")?;
    let twice = match args.option()? {
        None => false,
        Some(option) if fault == Fault::Assert && option.as_str() == "TWICE" => true,
        Some(option) => return Err(option.unknown().into()),
    };
    args.end()?;
    let served = engine()?.find(name)?;
    match fault {
        Fault::Panic => served.panic_next(),
        Fault::Assert => served.fail_next(if twice { 2 } else { 1 }),
        Fault::Stall => served.stall_next(),
        Fault::Keep => KEPT.lock().push(served),
        Fault::Hold | Fault::Release => {}
    }
    Ok(Outcome::Reply(Value::OK))
}
