//! The sections of `INFO infer`: models, queue, throughput, latency, locks.
//!
//! Numbers count from the load of the module. In a crash report there are only those that need no lock and no memory.

use super::runtime::{engine, kv_budget, max_memory, queue_limit, try_metrics};
use crate::engine::{Engine, Listing, Metrics, Percentiles};
use crate::redis_api::call_apart;
use crate::redis_api::info::{Occasion, Writer};
use crate::redis_api::lock_times;
use crate::redis_api::set_removal::freed_apart;

/// Writes all sections.
pub fn info(writer: &mut Writer, occasion: Occasion) {
    match occasion {
        Occasion::Command => {
            if let Ok(engine) = engine() {
                models(writer, &engine);
                throughput(writer, &engine.metrics);
                latency(writer, &engine.metrics);
            }
        }
        Occasion::Crash => {
            try_metrics(|metrics| throughput(writer, metrics));
        }
    }
    locks(writer);
}

fn models(writer: &mut Writer, engine: &Engine) {
    let models = engine.list();
    let ready = || models.iter().filter_map(|(_, m)| if let Listing::Ready(served) = m { Some(served) } else { None });
    let loading = models.iter().filter(|(_, listing)| matches!(listing, Listing::Loading(_))).count();
    let loaded = ready().filter(|served| served.failure().is_none()).count();
    writer.section(c"models");
    writer.number(c"models_loaded", loaded as u64);
    writer.number(c"models_loading", loading as u64);
    writer.number(c"models_failed", (models.len() - loaded - loading) as u64);
    writer.number(c"weights_bytes", ready().map(|served| served.memory().weights).sum());
    writer.number(c"kv_bytes", ready().map(|served| served.memory().kv).sum());
    writer.number(c"compute_bytes", ready().map(|served| served.memory().compute).sum());
    let kept = engine.kept();
    writer.number(c"kv_chunks", kept.blocks);
    writer.number(c"kv_chunk_bytes", kept.block_bytes);
    writer.number(c"kv_sequences", kept.sequences);
    writer.number(c"kv_sequence_bytes", kept.sequence_bytes);
    writer.number(c"kv_budget", kv_budget());
    writer.number(c"estimated_bytes", engine.reserved_bytes());
    writer.number(c"max_memory", max_memory());
    for (i, (name, listing)) in models.iter().enumerate() {
        let name = ("name", name.clone());
        let parts = match listing {
            Listing::Loading(load) => {
                vec![name, ("state", "loading".to_owned()), ("progress", load.percent().to_string())]
            }
            Listing::Failed(failed) => {
                vec![name, ("state", "failed".to_owned()), ("error", failed.error.code().to_owned())]
            }
            Listing::Ready(served) => vec![
                name,
                ("state", if served.failure().is_some() { "failed" } else { "ready" }.to_owned()),
                ("type", served.model.purpose.name().to_owned()),
                ("workers", served.layout.workers.to_string()),
                ("threads", served.threads().to_string()),
                ("context", served.context.to_string()),
                ("requests", served.requests().to_string()),
                ("weights_bytes", served.memory().weights.to_string()),
                ("kv_bytes", served.memory().kv.to_string()),
                ("compute_bytes", served.memory().compute.to_string()),
                ("estimated_bytes", served.estimate().total().to_string()),
            ],
        };
        writer.parts(&format!("model{i}"), &parts);
    }
    let (cpus, allowed) = engine.cpus();
    writer.section(c"cpus");
    writer.number(c"cpus", cpus.into());
    writer.number(c"threads_allowed", allowed.into());
    writer.section(c"queue");
    writer.number(c"requests", ready().map(|served| served.requests() as u64).sum());
    writer.number(c"waiting", ready().map(|served| served.waiting() as u64).sum());
    writer.number(c"queue_limit", queue_limit() as u64);
    let preprocessing = engine.preprocessing();
    writer.number(c"preprocess_waiting", preprocessing.waiting as u64);
    writer.number(c"preprocess_bytes", preprocessing.bytes as u64);
}

fn throughput(writer: &mut Writer, metrics: &Metrics) {
    writer.section(c"throughput");
    for (name, counter) in [
        (c"requests_done", &metrics.done),
        (c"prompt_tokens", &metrics.prompt_tokens),
        (c"cached_tokens", &metrics.cached_tokens),
        (c"generated_tokens", &metrics.generated_tokens),
        (c"drafted_tokens", &metrics.drafted_tokens),
        (c"accepted_tokens", &metrics.accepted_tokens),
        (c"embedded_texts", &metrics.embedded_texts),
        (c"embedded_tokens", &metrics.embedded_tokens),
        (c"reranked_texts", &metrics.reranked_texts),
        (c"reranked_tokens", &metrics.reranked_tokens),
        (c"rejected_queuefull", &metrics.rejected),
        (c"timeouts", &metrics.timeouts),
        (c"cancelled", &metrics.cancelled),
        (c"preprocess_skipped", &metrics.skipped),
        (c"errors", &metrics.errors),
        (c"missing_chunks", &metrics.missing_chunks),
        (c"passes", &metrics.passes),
        (c"wide_passes", &metrics.wide_passes),
        (c"crowded_passes", &metrics.crowded_passes),
        (c"kv_hits", &metrics.kv_hits),
        (c"kv_misses", &metrics.kv_misses),
        (c"saved_sequences", &metrics.saved_sequences),
        (c"restored_sequences", &metrics.restored_sequences),
        (c"cache_hits_exact", &metrics.cache_exact),
        (c"cache_hits_similar", &metrics.cache_similar),
        (c"cache_misses", &metrics.cache_misses),
    ] {
        writer.number(name, counter.get());
    }
}

/// In the form of Redis' own `latency_percentiles_usec_…`.
fn latency(writer: &mut Writer, metrics: &Metrics) {
    if !writer.section(c"latency") {
        return;
    }
    let times = metrics.latencies();
    for (name, of) in [
        ("latency_usec_queue", times.queue),
        ("latency_usec_ttft", times.first_token),
        ("latency_usec_decode_token", times.decode),
        ("latency_usec_token_gap", times.gap),
        ("latency_usec_embed", times.embed),
        ("latency_usec_rerank", times.rerank),
    ] {
        let Percentiles { samples, p50, p99, max } = of;
        let parts = [("p50", p50), ("p99", p99), ("max", max), ("samples", samples)];
        writer.parts(name, &parts.map(|(name, value)| (name, value.to_string())));
    }
}

fn locks(writer: &mut Writer) {
    writer.section(c"locks");
    let (keys, replies) = (&lock_times::KEYSPACE_THREAD, &lock_times::REPLIES);
    writer.number(c"longest_lock_hold_usec", keys.longest_us());
    writer.number(c"lock_holds", keys.count());
    writer.number(c"lock_hold_usec", keys.sum_us());
    writer.number(c"searches_apart", call_apart::begun());
    writer.number(c"sets_freed_apart", freed_apart());
    writer.number(c"longest_reply_usec", replies.longest_us());
    writer.number(c"replies", replies.count());
    writer.number(c"reply_usec", replies.sum_us());
    writer.number(c"lock_violations", redis_infer_sync::violations());
}
