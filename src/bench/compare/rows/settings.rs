//! How llama.cpp runs best on this machine: flash attention, KV buffers, physical batch, KV type, repacking. Measured with
//! llama-batched-bench of the same build as llama-server, without a server around it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::compare::Bench;
use crate::compare::best::words;
use crate::compare::report::{Section, Table};

/// The settings that the module uses, then one thing changed at a time.
const SETTINGS: [(&str, &str); 8] = [
    ("what the module uses", "-fa on -ub 128"),
    ("larger physical batch", "-fa on -ub 512"),
    ("smaller physical batch", "-fa on -ub 64"),
    ("one buffer for all sequences", "-fa on -ub 128 -kvu"),
    ("no flash attention", "-fa off -ub 128"),
    ("no flash attention, one buffer", "-fa off -ub 128 -kvu"),
    ("KV in 8 bits", "-fa on -ub 128 -ctk q8_0 -ctv q8_0"),
    ("no repacking of weights", "-fa on -ub 128 -nr"),
];

/// Sequences in one context.
const SEQUENCES: [u64; 2] = [1, 4];

pub fn run(bench: &Bench) -> Result<Section> {
    let depths: [u64; 2] = bench.pick([64, 512], [32, 128]);
    let program = bench.arguments.batched_bench.as_ref().context("there is no llama-batched-bench")?;
    let mut head = vec!["setting".to_owned(), "flags".to_owned(), format!("prefill, {} tokens", depths[1])];
    for depth in depths {
        head.extend(SEQUENCES.map(|sequences| format!("decode at {depth}, {sequences} seq.")));
    }
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for (what, flags) in SETTINGS {
        let mut command = Command::new(program);
        command.arg("-m").arg(&bench.arguments.chat_model).args(words(flags));
        command.args(["-t", "1", "-c", "4096", "-ntg", bench.pick("16", "8"), "--output-format", "jsonl"]);
        command.args(["-npp", &depths.map(|depth| depth.to_string()).join(",")]);
        command.args(["-npl", &SEQUENCES.map(|sequences| sequences.to_string()).join(",")]);
        let output = command.output().with_context(|| format!("cannot start {}", program.display()))?;
        ensure!(output.status.success(), "llama-batched-bench {flags}: {}", String::from_utf8_lossy(&output.stderr));
        let runs = runs(&String::from_utf8_lossy(&output.stdout))?;
        let figure = |depth: u64, sequences: u64, name: &str| {
            let run = runs.iter().find(|run| run["pp"] == depth && run["pl"] == sequences);
            let value = run.and_then(|run| run[name].as_f64());
            value.map(|value| format!("{value:.0}")).with_context(|| format!("llama-batched-bench told no {name}"))
        };
        let mut cells = vec![what.to_owned(), format!("`{flags}`"), figure(depths[1], 1, "speed_pp")?];
        for depth in depths {
            for sequences in SEQUENCES {
                cells.push(figure(depth, sequences, "speed_tg")?);
            }
        }
        table.row(cells);
    }
    Ok(Section {
        title: "Settings of llama.cpp",
        text: vec![
            "Tokens per second of one context with one thread, as each of two workers has it on two CPUs, by \
             llama-batched-bench: no server, no module. The first row is what the module uses; each other row changes something. One run \
             each."
                .into(),
        ],
        tables: vec![table],
        ..Section::default()
    })
}

/// The lines of `--output-format jsonl`, among which others may stand.
fn runs(output: &str) -> Result<Vec<Value>> {
    let lines = output.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_the_lines_with_objects() {
        let runs = runs("main: n_kv_max\n\n{\"pp\": 64, \"pl\": 4, \"speed_tg\": 32.5}\n").unwrap();
        assert_eq!(runs.len(), 1);
        assert!(runs[0]["pp"] == 64 && runs[0]["pl"] == 4 && runs[0]["speed_tg"] == 32.5);
    }
}
