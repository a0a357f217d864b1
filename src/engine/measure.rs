//! Measures, when a model is loaded with THREADS AUTO, how many threads make its answers faster. Reading a prompt
//! gains from every CPU; the next token of an answer reads all weights for little work, and from some number of threads
//! on the memory is the limit, or, with small models, the threads wait for each other more than they compute.

use std::time::{Duration, Instant};

use super::context::{Batch, Context, Decoded};
use super::error::EngineError;
use crate::logic::crowd::{candidates, useful_threads};

/// Longest time of a measurement. A model that is too large for it, or not in memory yet, gets all CPUs.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Passes for each number of threads; the fastest counts.
const ROUNDS: u32 = 3;

/// Finds how many threads the passes of `context`, which has nothing to do yet, are to have for few tokens, unless that is
/// known or not to be chosen. When others use the CPUs meanwhile there is no result.
///
/// # Errors
/// `LOADFAIL` when llama.cpp cannot compute the model at all.
pub(super) fn measure_threads(context: &mut Context) -> Result<(), EngineError> {
    let cpus = context.share().budget().cpus();
    if !context.share().is_auto() || cpus < 2 {
        return Ok(());
    }
    let fingerprint = context.fingerprint().to_owned();
    let known = context.share().budget().measured(&fingerprint);
    let useful = match known {
        Some(threads) => Some(threads),
        None => {
            let measured = measure(context, &candidates(cpus));
            context.rest();
            measured?
        }
    };
    if let Some(threads) = useful {
        context.share().budget().remember(&fingerprint, threads);
        context.share().of_model().set_useful(threads);
    }
    Ok(())
}

fn measure(context: &mut Context, widths: &[u32]) -> Result<Option<u32>, EngineError> {
    let deadline = Instant::now() + PATIENCE;
    let mut best: Vec<(u32, Duration)> = widths.iter().map(|&threads| (threads, Duration::MAX)).collect();
    // The first pass brings the weights into memory.
    if one_token(context, 1, deadline)?.is_none() {
        return Ok(None);
    }
    for _ in 0..ROUNDS {
        for (threads, fastest) in &mut best {
            let Some(took) = one_token(context, *threads, deadline)? else { return Ok(None) };
            *fastest = took.min(*fastest);
        }
    }
    Ok(useful_threads(&best))
}

/// Time of a pass over one token; `None` when there was no time or there were no CPUs for it.
fn one_token(context: &mut Context, threads: u32, deadline: Instant) -> Result<Option<Duration>, EngineError> {
    let mut batch = Batch::default();
    batch.push(0, 0, 0, true);
    context.clear();
    let decoded = context.decode_until(deadline, threads, &mut batch);
    context.clear();
    match decoded {
        Ok((Decoded::Done(took), given)) if given == threads => Ok(Some(took)),
        Ok(_) => Ok(None),
        Err(error @ (EngineError::Assertion(_) | EngineError::Internal(_))) => {
            Err(EngineError::LoadFailed(format!("llama.cpp cannot compute this model: {error}")))
        }
        Err(error) => Err(error),
    }
}
