//! F9: resident memory beside the weights.

use std::fs;

use anyhow::Result;

use super::clients::{CLIENTS, CONTEXT, our_side};
use crate::compare::Bench;
use crate::compare::answers::{Server, together};
use crate::compare::best::words;
use crate::compare::report::{Goal, Section, Table, Verdict};

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

pub fn run(bench: &Bench) -> Result<Section> {
    let model = bench.chat_model();
    let weights = fs::metadata(&model.path)?.len() as f64;
    let ours = our_side(bench, &model)?;
    let flags = format!("-np {CLIENTS} -c {}", CLIENTS * CONTEXT);
    let mut variants = vec![flags.clone(), format!("{flags} -fa off")];
    if !bench.arguments.quick {
        variants.push(format!("{flags} -fa off --cache-ram 0"));
    }
    let peers = variants.iter().map(|flags| bench.peer(&model.path, &words(flags))).collect::<Result<Vec<_>>>()?;
    let prompts = ours.prompts()?;

    // The memory of a KV cache is resident once it was used: each client fills half of its context.
    let fill = |server: &dyn Server| together(server, &prompts.several(1, CLIENTS, CONTEXT / 2), 16);
    let mut table = Table::new(&["after 8 clients", "RSS, MiB", "without the weights, MiB", "redis-infer to this"]);
    fill(&ours)?;
    let own = ours.resident()? - weights;
    let mut row = |name: String, resident: f64| {
        let beside = resident - weights;
        let cells = [resident / MIB, beside / MIB].map(|value| format!("{value:.0}"));
        table.row([name].into_iter().chain(cells).chain([format!("{:.2}", own / beside)]));
        beside
    };
    row(format!("redis-infer ({}), Redis included", ours.layout()?), own + weights);
    let mut others = Vec::new();
    for (flags, peer) in variants.iter().zip(&peers) {
        fill(peer)?;
        others.push(row(format!("llama-server `{flags}`"), peer.resident()?));
    }
    let least = others.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(Section {
        title: "F9: memory",
        text: vec![format!(
            "VmRSS after {CLIENTS} clients have filled half of their {CONTEXT} tokens, less the {:.0} MiB of the model file; the \
             same sequences and context on both sides.",
            weights / MIB
        )],
        tables: vec![table],
        verdicts: vec![Verdict {
            id: "F9",
            what: "memory beside the weights, to the smallest llama-server".into(),
            goal: Goal::AtMost(1.0),
            value: Some(own / least),
            cause: "Both sides keep as many cells; ours has redis-server in it.".into(),
        }],
        ..Section::default()
    })
}
