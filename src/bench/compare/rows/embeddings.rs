//! F7: embeddings of many short texts.

use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};

use crate::compare::Bench;
use crate::compare::best::words as flags;
use crate::compare::ours::Ours;
use crate::compare::peer::Peer;
use crate::compare::report::{Goal, Section, Table, Verdict};
use crate::compare::stats::Sample;
use crate::compare::text::words;

/// Texts of a request.
const BATCH: usize = 32;

/// Clients that send at once.
const CLIENTS: usize = 4;

/// Words of a text, a sentence's.
const WORDS: usize = 12;

pub fn run(bench: &Bench) -> Result<Section> {
    let (number, rounds) = (bench.pick(1000, 256), bench.pick(5, 2));
    let ours = bench.ours(&[])?;
    ours.load("embed", &bench.arguments.embed_model, &[])?;
    let model = &bench.arguments.embed_model;
    let mut settings = vec!["-np 32 -c 8192 -b 2048 -ub 2048", "-np 8 -c 4096 -b 2048 -ub 2048"];
    if !bench.arguments.quick {
        settings.extend([
            "-np 64 -c 8192 -b 2048 -ub 2048",
            "-np 32 -c 8192 -b 512 -ub 512",
            "-np 32 -c 8192 -b 2048 -ub 2048 -fa off",
            "",
        ]);
    }
    let mut tried = Table::new(&["llama-server --embeddings, tried once", "texts/s"]);
    let mut best: Option<(f64, &str)> = None;
    for &setting in &settings {
        let peer = bench.peer(model, &flags(&format!("--embeddings {setting}")))?;
        by_peer(&peer, 0, BATCH * CLIENTS)?;
        let rate = by_peer(&peer, 1, number / 2)?;
        tried.row([format!("`{setting}`"), format!("{rate:.0}")]);
        if best.is_none_or(|(most, _)| rate > most) {
            best = Some((rate, setting));
        }
    }
    let (_, setting) = best.context("no settings")?;
    let peer = bench.peer(model, &flags(&format!("--embeddings {setting}")))?;
    same_vectors(&ours, &peer)?;
    let mut rates = [const { Vec::new() }; 3];
    for round in 0..=rounds {
        let figures = [
            by_module(&ours, 2 + round, number, BATCH)?,
            by_peer(&peer, 2 + round, number)?,
            by_module(&ours, 2 + round, number, number / 2)?,
        ];
        if round > 0 {
            rates.iter_mut().zip(figures).for_each(|(rates, figure)| rates.push(figure));
        }
    }
    let [own, other, packed] = rates.map(|rates| rates.into_iter().collect::<Sample>());
    let mut table = Table::new(&["embeddings", "texts/s", "p10", "p90", "redis-infer to this"]);
    let names = [
        "redis-infer, defaults".to_owned(),
        format!("llama-server, best: `{setting}`"),
        "redis-infer, all texts in two requests".to_owned(),
    ];
    for (name, rate) in names.into_iter().zip([&own, &other, &packed]) {
        let ratio = format!("{:.2}", own.median() / rate.median());
        table.row([name].into_iter().chain(rate.cells(0)).chain([ratio]));
    }
    Ok(Section {
        title: "F7: embeddings",
        text: vec![format!(
            "{number} different texts of {WORDS} words by all-MiniLM-L6-v2, {BATCH} in a request, {CLIENTS} clients at once; {rounds} \
             rounds. Vectors of both sides were compared first: they are the same but for rounding."
        )],
        tables: vec![table, tried],
        verdicts: vec![Verdict {
            id: "F7",
            what: "embeddings per second of short texts, to llama-server's best".into(),
            goal: Goal::AtLeast(1.5),
            value: Some(own.median() / other.median()),
            cause: format!(
                "Both sides compute the same with the same kernels; what there is to gain is how texts are packed, and HTTP. Of that \
                 nothing is left here: all texts in two requests are embedded {:.2} times as fast.",
                packed.median() / own.median()
            ),
        }],
        ..Section::default()
    })
}

fn texts(round: u64, number: usize) -> Vec<String> {
    (0..number as u64).map(|at| words(round * 100_000 + at, WORDS)).collect()
}

/// Texts per second when [`CLIENTS`] clients, each made by `client`, send batches of `size` texts.
fn rate<C: FnMut(&[String]) -> Result<()> + Send>(
    round: u64,
    number: usize,
    size: usize,
    client: impl Fn() -> Result<C>,
) -> Result<f64> {
    let texts = texts(round, number);
    let clients = (0..CLIENTS).map(|_| client()).collect::<Result<Vec<_>>>()?;
    let batches = Mutex::new(texts.chunks(size));
    let start = Instant::now();
    thread::scope(|scope| {
        let send = |mut client: C| {
            let batches = &batches;
            scope.spawn(move || -> Result<()> {
                loop {
                    // A poisoned lock guards a sound iterator all the same.
                    let next = batches.lock().unwrap_or_else(|e| e.into_inner()).next();
                    let Some(batch) = next else { return Ok(()) };
                    client(batch)?;
                }
            })
        };
        let running: Vec<_> = clients.into_iter().map(send).collect();
        running.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
    })?;
    Ok(number as f64 / start.elapsed().as_secs_f64())
}

fn by_module(ours: &Ours, round: u64, number: usize, size: usize) -> Result<f64> {
    rate(round, number, size, || {
        let mut connection = ours.connection()?;
        Ok(move |batch: &[String]| -> Result<()> {
            let vectors: Vec<Vec<u8>> =
                redis::cmd("INFER.EMBED").arg("embed").arg(batch.len()).arg(batch).query(&mut connection)?;
            ensure!(vectors.len() == batch.len(), "{} vectors for {} texts", vectors.len(), batch.len());
            Ok(())
        })
    })
}

fn by_peer(peer: &Peer, round: u64, number: usize) -> Result<f64> {
    rate(round, number, BATCH, || {
        let http = peer.http();
        Ok(move |batch: &[String]| http.embed(batch).map(|_| ()))
    })
}

/// Fails when the two sides do not compute the same vector.
fn same_vectors(ours: &Ours, peer: &Peer) -> Result<()> {
    let text = words(1, WORDS);
    let mut command = redis::cmd("INFER.EMBED");
    let own: Vec<Vec<u8>> = command.arg("embed").arg(1).arg(&text).query(&mut ours.connection()?)?;
    let own: Vec<f32> = own
        .concat()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    let other = peer.http().embed(&[text])?.concat();
    ensure!(own.len() == other.len(), "vectors of {} and of {} numbers", own.len(), other.len());
    // Both have length 1.
    let cosine: f32 = own.iter().zip(&other).map(|(a, b)| a * b).sum();
    ensure!(cosine > 0.999, "the vectors of the two sides differ: cosine {cosine}");
    Ok(())
}
