//! Answers that repeat what stands in the prompt, where guessing ahead gains most, and answers that repeat nothing, where
//! it must not cost anything.

use anyhow::Result;

use crate::compare::Bench;
use crate::compare::answers::{Answer, Server};
use crate::compare::best::words as flags;
use crate::compare::ours::Ours;
use crate::compare::report::{Goal, Section, Table, Verdict};
use crate::compare::stats::Sample;
use crate::compare::text::words;

/// Words of the text that is copied.
const TEXT: usize = 100;

/// Words of its beginning that stand at the end of the prompt: from there on the model copies.
const BEGINNING: usize = 12;

/// Messages whose answers copy nothing.
const MESSAGES: [&str; 4] = [
    "Tell me a story about a lighthouse keeper.",
    "Explain to a child how plants live from light.",
    "Write a letter to a friend about a journey by the sea.",
    "Describe a market on a summer morning.",
];

pub fn run(bench: &Bench) -> Result<Section> {
    let (rounds, tokens) = (bench.pick(5, 1), bench.pick(64, 32));
    let model = bench.chat_model();
    let threads = bench.cpus.to_string();
    let one = ["WORKERS", "1", "THREADS", &threads];
    let [guessing, plain] = [bench.ours_with(&model, &one)?, bench.ours_plain(&model, &one)?];
    let plain_flags = format!("-np 1 -t {threads}");
    let guessing_flags = format!("{plain_flags} --spec-type ngram-simple");
    let peers = [bench.peer(&model.path, &flags(&guessing_flags))?, bench.peer(&model.path, &flags(&plain_flags))?];
    let sides: [(String, &dyn Server); 4] = [
        ("redis-infer, `SPECULATION LOOKUP`, the default".into(), &guessing),
        ("redis-infer, `SPECULATION NONE`".into(), &plain),
        (format!("llama-server `{guessing_flags}`"), &peers[0]),
        (format!("llama-server `{plain_flags}`"), &peers[1]),
    ];
    let mut rates = [const { Vec::new() }; 4];
    for round in 0..=rounds {
        let text = words(4000 + round, TEXT);
        let beginning: Vec<&str> = text.split(' ').take(BEGINNING).collect();
        let prompt = format!("{text}\n\n{text}\n\n{}", beginning.join(" "));
        for ((_, server), rates) in sides.iter().zip(&mut rates) {
            let answer: Answer = server.client()?.answer(&prompt, tokens)?;
            // The first round warms up.
            if round > 0 {
                rates.push(answer.decode_rate());
            }
        }
    }
    let samples = rates.map(|rates| rates.into_iter().collect::<Sample>());
    let mut table = Table::new(&["one client, an answer that copies", "decode tok/s", "p10", "p90", "to the last"]);
    for ((name, _), sample) in sides.into_iter().zip(&samples) {
        let ratio = format!("{:.2}", sample.median() / samples[3].median());
        table.row([name].into_iter().chain(sample.cells(1)).chain([ratio]));
    }
    let free = free_text(&guessing, &plain, bench.pick(5, 1), bench.pick(96, 48))?;
    Ok(Section {
        title: "Copies",
        text: vec![format!(
            "A text of {TEXT} words stands twice in the prompt, and then begins once more; the answer goes on with it, {tokens} tokens, \
             {rounds} rounds. One context over all CPUs on both sides. This is the best case for guessing ahead. The second table is about \
             {} messages with answers that copy nothing, drawn with TEMP 0.8 and the same seeds on both sides, in turn; pairs of answers \
             are compared.",
            MESSAGES.len()
        )],
        verdicts: vec![Verdict {
            id: "copies",
            what: "decode rate with guessing, of that without, where nothing is copied".into(),
            goal: Goal::AtLeast(0.97),
            value: Some(free.median()),
            cause: "Guesses that were wrong cost more than the account of the worker lends.".into(),
        }],
        tables: vec![table, free_table(&free)],
        ..Section::default()
    })
}

/// Decode rates with guessing, of those without, of answers to the same message.
fn free_text(guessing: &Ours, plain: &Ours, rounds: u64, tokens: u64) -> Result<Sample> {
    let mut ratios = Vec::new();
    for round in 0..rounds {
        for (message, seed) in MESSAGES.iter().zip(round * 100..) {
            let rate = |side: &Ours| side.drawn(message, tokens, seed).map(|answer| answer.decode_rate());
            // In turn, so that neither is always the second one.
            let (with, without) = if seed % 2 == 0 {
                let with = rate(guessing)?;
                (with, rate(plain)?)
            } else {
                let without = rate(plain)?;
                (rate(guessing)?, without)
            };
            ratios.push(with / without);
        }
    }
    Ok(ratios.into_iter().collect())
}

fn free_table(ratios: &Sample) -> Table {
    let mut table = Table::new(&["one client, an answer that copies nothing", "median", "p10", "p90"]);
    let name = "decode rate, `SPECULATION LOOKUP` to `NONE`".to_owned();
    table.row([name].into_iter().chain(ratios.cells(3)));
    table
}
