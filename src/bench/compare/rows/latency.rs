//! How long one waits: for the first token by the length of the prompt, and for the next one while a long prompt arrives.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::compare::Bench;
use crate::compare::answers::Server;
use crate::compare::best::words as flags;
use crate::compare::ours::Ours;
use crate::compare::peer::Peer;
use crate::compare::report::{Curve, Plot, Section, Table};
use crate::compare::stats::Sample;
use crate::compare::text::Prompts;

/// Answers that run while the prompt arrives.
const RUNNING: usize = 3;

/// Tokens of that prompt.
const LONG: usize = 3000;

/// The first token, by the length of the prompt.
pub fn first_token(bench: &Bench) -> Result<Section> {
    let lengths: &[usize] = bench.pick(&[64, 256, 1024, 3072], &[64, 256, 1024]);
    let rounds = bench.pick(2, 1);
    let model = bench.chat_model();
    let ours = bench.ours_with(&model, &[])?;
    let peer_flags = format!("-np 1 -c 4096 -t {}", bench.cpus);
    let peer = bench.peer(&model.path, &flags(&peer_flags))?;
    let prompts = ours.prompts()?;
    let names = [format!("redis-infer, defaults ({})", ours.layout()?), format!("llama-server `{peer_flags}`")];
    let servers: [&dyn Server; 2] = [&ours, &peer];
    let mut table =
        Table::new(&["prompt tokens", "side", "first token, ms", "p10", "p90", "llama-server's time to ours"]);
    let mut curves = [const { Vec::new() }; 2];
    for &length in lengths {
        let mut times = [const { Vec::new() }; 2];
        for round in 0..rounds {
            for (server, times) in servers.into_iter().zip(&mut times) {
                let answer = server.client()?.answer(&prompts.prompt(7000 + length as u64 + round, length), 1)?;
                times.push(answer.wall.as_secs_f64() * 1e3);
            }
        }
        let samples = times.map(|times| times.into_iter().collect::<Sample>());
        for ((name, sample), curve) in names.iter().zip(&samples).zip(&mut curves) {
            curve.push((length as f64, sample.median() / 1e3));
            let ratio = format!("{:.2}", samples[1].median() / sample.median());
            table.row([length.to_string(), name.clone()].into_iter().chain(sample.cells(0)).chain([ratio]));
        }
    }
    let [own, other] = curves;
    Ok(Section {
        title: "First token by length of the prompt",
        text: vec![format!(
            "One client, prompts never seen; {rounds} rounds. The client's time to a reply with one token."
        )],
        tables: vec![table],
        plots: vec![Plot {
            file: "bench-first-token",
            title: "Time to the first token",
            x: "tokens of the prompt",
            y: "seconds",
            log_x: true,
            curves: vec![Curve { name: "redis-infer", points: own }, Curve { name: "llama-server", points: other }],
        }],
        ..Section::default()
    })
}

/// What running answers notice of a long prompt.
pub fn gaps(bench: &Bench) -> Result<Section> {
    let (rounds, tokens) = (bench.pick(2, 1), bench.pick(200, 60));
    let length = bench.pick(LONG, LONG / 3);
    let model = bench.chat_model();
    let mut found = [const { Vec::new() }; 2];
    for round in 0..rounds {
        // A fresh server each time: INFO tells percentiles since its start.
        let ours = bench.ours_with(&model, &["PARALLEL", "4", "CTX", "4096"])?;
        let prompts = ours.prompts()?;
        found[0].push(our_gaps(&ours, prompts, round, tokens, length)?);
        drop(ours);
        let peer = bench.peer(&model.path, &flags("-np 4 -c 16384"))?;
        found[1].push(peer_gaps(&peer, prompts, round, tokens, length)?);
    }
    let mut table = Table::new(&["between two tokens, ms", "p50", "p99", "longest"]);
    for (name, found) in ["redis-infer `PARALLEL 4`", "llama-server `-np 4`"].into_iter().zip(found) {
        let column = |at: usize| format!("{:.0}", found.iter().map(|gaps| gaps[at]).collect::<Sample>().median());
        table.row([name.to_owned(), column(0), column(1), column(2)]);
    }
    Ok(Section {
        title: "Running answers while a long prompt arrives",
        text: vec![format!(
            "{RUNNING} answers of {tokens} tokens run, and a prompt of {length} tokens arrives among them; medians of {rounds} rounds. Of the \
             module, the times are those in INFO (the end of one step to the end of the next), of llama-server those at \
             which a streaming client gets the tokens."
        )],
        tables: vec![table],
        ..Section::default()
    })
}

/// Starts the answers, then the prompt; returns what each answer told.
fn beside_a_prompt<T: Send>(
    server: &dyn Server,
    prompts: Prompts,
    [round, length]: [u64; 2],
    answer: impl Fn(&str) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let mut late = server.client()?;
    thread::scope(|scope| {
        let texts = prompts.several(200 + round, RUNNING, 32);
        let start = |text: String| {
            let answer = &answer;
            scope.spawn(move || answer(&text))
        };
        let running: Vec<_> = texts.into_iter().map(start).collect();
        thread::sleep(Duration::from_millis(500));
        late.answer(&prompts.prompt(8000 + round, length as usize), 1)?;
        running.into_iter().map(|answer| answer.join().map_err(|_| anyhow!("a client panicked"))?).collect()
    })
}

/// Median, 99th percentile and longest gap, in ms.
fn our_gaps(ours: &Ours, prompts: Prompts, round: u64, tokens: u64, length: usize) -> Result<[f64; 3]> {
    beside_a_prompt(ours, prompts, [round, length as u64], |text| ours.client()?.answer(text, tokens))?;
    let gaps = ours.info("infer_latency", "infer_latency_usec_token_gap")?;
    let part = |name: &str| {
        let value = gaps.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse::<f64>().ok()).map(|micros| micros / 1e3)
    };
    let all = || Some([part("p50")?, part("p99")?, part("max")?]);
    all().with_context(|| format!("INFO does not tell the gaps: {gaps}"))
}

fn peer_gaps(peer: &Peer, prompts: Prompts, round: u64, tokens: u64, length: usize) -> Result<[f64; 3]> {
    let times = beside_a_prompt(peer, prompts, [round, length as u64], |text| peer.http().stream(text, tokens))?;
    let gaps = times.iter().flat_map(|times| times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3));
    let sample: Sample = gaps.collect();
    Ok([sample.median(), sample.percentile(0.99), sample.highest()])
}
