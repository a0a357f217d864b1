//! `INFER.DEBUG`: faults and standstills on purpose, for tests. Refused unless the server's environment has `REDIS_INFER_DEBUG=1`.

use redis_module::Context;

use super::runtime::{debug_commands_enabled, engine};
use crate::logic::args::Args;
use crate::redis_api::entry::Outcome;
use crate::redis_api::reply::{Failure, Value};

/// What is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Panic,
    Stall,
    Hold,
    Release,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Panic, Self::Stall, Self::Hold, Self::Release];

    fn name(self) -> &'static str {
        match self {
            Self::Panic => "PANIC",
            Self::Stall => "STALL",
            Self::Hold => "HOLD",
            Self::Release => "RELEASE",
        }
    }
}

/* INFER.DEBUG PANIC model | STALL model | HOLD | RELEASE */
/// PANIC makes the next step of one of the model's workers panic, and STALL that of all of them never end. After HOLD no preprocess thread begins anything until RELEASE.
pub fn debug(_ctx: &Context, args: &[&[u8]]) -> Result<Outcome, Failure> {
    if !debug_commands_enabled() {
        return Err(Failure::err(
            "INFER.DEBUG is for tests: start redis-server with REDIS_INFER_DEBUG=1 in its environment to allow it",
        ));
    }
    let mut args = Args::new("INFER.DEBUG", args);
    match args.word("subcommand", &Fault::ALL, Fault::name)? {
        fault @ (Fault::Panic | Fault::Stall) => {
            let name = args.model("model")?;
            args.end()?;
            let served = engine()?.find(name)?;
            if fault == Fault::Panic { served.panic_next() } else { served.stall_next() }
        }
        hold @ (Fault::Hold | Fault::Release) => {
            args.end()?;
            engine()?.hold_preprocessing(hold == Fault::Hold);
        }
    }
    Ok(Outcome::Reply(Value::OK))
}
