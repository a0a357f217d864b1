//! F1: one client alone.

use anyhow::{Result, ensure};

use crate::compare::Bench;
use crate::compare::answers::{Answer, Server};
use crate::compare::best::{best, thread_counts, words};
use crate::compare::report::{Goal, Section, Table, Verdict};
use crate::compare::stats::Sample;

/// Tokens of the prompt.
const PROMPT: usize = 64;

pub fn run(bench: &Bench) -> Result<Section> {
    let (repeats, tokens) = (bench.pick(7, 2), bench.pick(128, 48));
    let model = bench.chat_model();
    let ours = bench.ours_plain(&model, &[])?;
    let mapped = bench.ours_plain(&model, &["MMAP"])?;
    let prompts = ours.prompts()?;
    let mut settings = vec![String::new()];
    for count in thread_counts(bench.cpus) {
        settings.extend([
            format!("-np 1 -t {count}"),
            format!("-np 1 -t {count} -fa off"),
            format!("-np 1 -t {count} -lm none"),
        ]);
    }
    let best = best(bench, &model, &settings, "decode tok/s", |peer| {
        Ok(peer.client()?.answer(&prompts.prompt(1, PROMPT), tokens)?.decode_rate())
    })?;
    let peer = bench.peer(&model.path, &best.flags)?;
    let defaults = bench.peer(&model.path, &words(""))?;

    let sides: [(String, &dyn Server); 4] = [
        (format!("redis-infer, defaults ({})", ours.layout()?), &ours),
        ("redis-infer, `MMAP`: weights not on huge pages".into(), &mapped),
        (format!("llama-server, best of those below: `{}`", best.flags.join(" ")), &peer),
        ("llama-server, defaults".into(), &defaults),
    ];
    let mut answers = [const { Vec::<Answer>::new() }; 4];
    for round in 0..=repeats {
        for ((_, server), answers) in sides.iter().zip(&mut answers) {
            let answer = server.client()?.answer(&prompts.prompt(100 + round, PROMPT), tokens)?;
            // The first round warms up.
            if round > 0 {
                answers.push(answer);
            }
        }
        let lengths: Vec<u64> = answers.iter().filter_map(|all| all.last()).map(|answer| answer.prompt).collect();
        ensure!(lengths.iter().all(|&length| length == lengths[0]), "prompts differ in tokens: {lengths:?}");
    }
    let rates = |of: fn(&Answer) -> f64| answers.each_ref().map(|all| all.iter().map(of).collect::<Sample>());
    let (decode, prefill) = (rates(Answer::decode_rate), rates(Answer::prefill_rate));
    let peers_best = decode[2].median().max(decode[3].median());
    let mut table =
        Table::new(&["one client", "decode tok/s", "p10", "p90", "to llama-server's best", "prefill tok/s"]);
    for (((name, _), decode_rate), prefill_rate) in sides.iter().zip(&decode).zip(&prefill) {
        let [median, p10, p90] = decode_rate.cells(1);
        let ratio = format!("{:.2}", decode_rate.median() / peers_best);
        table.row([name.clone(), median, p10, p90, ratio, format!("{:.0}", prefill_rate.median())]);
    }
    let verdict = Verdict {
        id: "F1",
        what: "decode tok/s of one stream, to llama-server's best".into(),
        goal: Goal::AtLeast(1.0),
        value: Some(decode[0].median() / peers_best),
        cause: format!(
            "Both sides compute the same with the same library, but our weights lie on huge pages. Mapped from the file, as \
             llama-server's, it is {:.2}.",
            decode[1].median() / peers_best
        ),
    };
    Ok(Section {
        title: "F1: one stream",
        text: vec![format!(
            "A prompt of about {PROMPT} tokens, {tokens} tokens generated, {repeats} runs of each. Decode tok/s are those after the \
             first token, as each server tells. Neither side guesses ahead here (`SPECULATION NONE`); *Copies* below shows what that gains."
        )],
        tables: vec![table, best.tried],
        verdicts: vec![verdict],
        ..Section::default()
    })
}
