//! A larger model: random weights in the shape of Qwen3-0.6B. For speed only; the answers mean nothing.

use std::path::Path;

use anyhow::{Context, Result};
use redis_infer_gguf::synthetic::{LlamaShape, write_llama};

use crate::compare::Bench;
use crate::compare::answers::{Server, together};
use crate::compare::best::words;
use crate::compare::ours::Model;
use crate::compare::report::{Section, Table};
use crate::compare::stats::Sample;

/// Clients of the second measurement, and sequences that each side has room for.
const CLIENTS: usize = 4;

pub fn run(bench: &Bench) -> Result<Section> {
    let model = made(&bench.arguments.shape_model)?;
    let (rounds, tokens, prompt) = (bench.pick(2, 1), bench.pick(24, 6), bench.pick(64, 16));
    let cpus = bench.cpus;
    let ours = bench.ours_plain(&model, &["PARALLEL", "2", "CTX", "1024"])?;
    let options = words(&format!("{} CTX 1024", ours.other_layout(cpus)?));
    let other = bench.ours_plain(&model, &options.iter().map(String::as_str).collect::<Vec<_>>())?;
    let flags = format!("-np {CLIENTS} -c 4096 -t {cpus}");
    let off = format!("{flags} -fa off");
    let peers = [bench.peer(&model.path, &words(&flags))?, bench.peer(&model.path, &words(&off))?];
    let prompts = ours.prompts()?;
    let sides: [(String, &dyn Server); 4] = [
        (format!("redis-infer, defaults ({})", ours.layout()?), &ours),
        (format!("redis-infer ({})", other.layout()?), &other),
        (format!("llama-server `{flags}`"), &peers[0]),
        (format!("llama-server `{off}`"), &peers[1]),
    ];
    let mut figures = [const { [const { Vec::new() }; 3] }; 4];
    for round in 0..=rounds {
        for ((_, server), [decode, prefill, total]) in sides.iter().zip(&mut figures) {
            let answer = server.client()?.answer(&prompts.prompt(600 + round, prompt), tokens)?;
            // The first round reads the weights from the disk.
            if round > 0 {
                decode.push(answer.decode_rate());
                prefill.push(answer.prefill_rate());
                total.push(together(*server, &prompts.several(60 + round, CLIENTS, prompt), tokens)?.rate());
            }
        }
    }
    let medians = figures.map(|side| side.map(|values| values.into_iter().collect::<Sample>().median()));
    let best = |at: usize| medians[2][at].max(medians[3][at]);
    let mut table = Table::new(&[
        "tok/s",
        "decode, 1 client",
        "to the best",
        "prefill",
        "to the best",
        "total, 4 clients",
        "to the best",
    ]);
    for ((name, _), figures) in sides.into_iter().zip(medians) {
        let cells = figures
            .into_iter()
            .enumerate()
            .flat_map(|(at, figure)| [format!("{figure:.1}"), format!("{:.2}", figure / best(at))]);
        table.row([name].into_iter().chain(cells));
    }
    Ok(Section {
        title: "A larger model",
        text: vec![format!(
            "Random weights in the shape of Qwen3-0.6B (Q4_0, {:.0} MB), for speed only. Prompts of about {prompt} tokens, {tokens} tokens \
             generated, {rounds} rounds. Without guessing ahead. *To the best* is the ratio to the better llama-server.",
            std::fs::metadata(&model.path)?.len() as f64 / 1e6
        )],
        tables: vec![table],
        ..Section::default()
    })
}

/// The model file, made when it is not there: it takes seconds.
fn made(path: &Path) -> Result<Model> {
    let shape = LlamaShape::like_qwen3_0_6b();
    if !path.exists() {
        eprintln!("redis-infer: writing {}", path.display());
        write_llama(path, &shape, 1).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(Model { path: path.to_owned(), ends: shape.special_ids() })
}
