//! F8: the semantic cache, beside embedding its prompt and beside a fresh answer.

use std::time::Instant;

use anyhow::{Result, ensure};
use redis::{Cmd, Connection, FromRedisValue};

use crate::client::pipelined;
use crate::compare::Bench;
use crate::compare::report::{Goal, Section, Table, Verdict};
use crate::compare::stats::Sample;
use crate::compare::text::words;

/// Words of a prompt, a question's.
const WORDS: usize = 12;

/// Tokens of a fresh answer.
const TOKENS: u64 = 64;

/// The times of one kind, in ms.
#[derive(Default)]
struct Times {
    ping: Vec<f64>,
    exact: Vec<f64>,
    similar: Vec<f64>,
    embed: Vec<f64>,
    miss: Vec<f64>,
    fresh: Vec<f64>,
    /// Of each round, what the similar hit took longer than embedding its prompt.
    more: Vec<f64>,
}

pub fn run(bench: &Bench) -> Result<Section> {
    let (entries, rounds, answers) = (bench.pick(10_000, 500), bench.pick(300, 50), bench.pick(20, 3));
    let model = bench.chat_model();
    let ours = bench.ours_with(&model, &[])?;
    ours.load("embed", &bench.arguments.embed_model, &[])?;
    let mut connection = ours.connection()?;
    // Prompts of one seed begin with its number, so those of near seeds are still far from each other in words.
    let prompt = |entry: u64| words(10_000 + entry, WORDS);
    let set = |entry| cmd("INFER.CACHESET", &["faq", &prompt(entry), &format!("answer {entry}")]);
    let stored: Vec<String> = pipelined(&mut connection, (0..entries).map(set))?;
    ensure!(stored.iter().all(|reply| reply == "OK"), "an entry was not stored");

    let mut times = Times::default();
    let mut random = fastrand::Rng::with_seed(8);
    for round in 0..rounds {
        let entry = random.u64(0..entries);
        let asked = prompt(entry);
        // One more word makes it another prompt, for a hit from the threshold 0 on.
        let like = format!("{asked} water");
        let (_, ping) = timed::<String>(&mut connection, &cmd("PING", &[]))?;
        let (answer, exact) = timed::<Option<String>>(&mut connection, &cmd("INFER.CACHEGET", &["faq", &asked]))?;
        ensure!(answer == Some(format!("answer {entry}")), "the prompt of entry {entry} was answered {answer:?}");
        let embed_command = cmd("INFER.EMBED", &["embed", "1", &like]);
        let similar_command = cmd("INFER.CACHEGET", &["faq", &like, "THRESHOLD", "0"]);
        // In turn, so that neither is always the second one.
        let (embed, (answer, similar)) = if round % 2 == 0 {
            let embed = timed::<Vec<Vec<u8>>>(&mut connection, &embed_command)?.1;
            (embed, timed::<Option<String>>(&mut connection, &similar_command)?)
        } else {
            let found = timed::<Option<String>>(&mut connection, &similar_command)?;
            (timed::<Vec<Vec<u8>>>(&mut connection, &embed_command)?.1, found)
        };
        ensure!(answer.is_some(), "nothing was found for a prompt like that of entry {entry}");
        let other = words(5_000_000 + round, WORDS);
        let miss_command = cmd("INFER.CACHEGET", &["faq", &other, "THRESHOLD", "0.9999"]);
        let (answer, miss) = timed::<Option<String>>(&mut connection, &miss_command)?;
        ensure!(answer.is_none(), "a prompt that nobody has asked was answered {answer:?}");
        times.ping.push(ping);
        times.exact.push(exact);
        times.similar.push(similar);
        times.embed.push(embed);
        times.miss.push(miss);
        times.more.push(similar - embed);
    }
    for round in 0..answers {
        let answer = ours.drawn(&prompt(entries + round), TOKENS, round)?;
        times.fresh.push(answer.wall.as_secs_f64() * 1e3);
    }
    Ok(section(times, entries, rounds))
}

fn section(times: Times, entries: u64, rounds: u64) -> Section {
    let mut table = Table::new(&["ms", "median", "p10", "p90"]);
    let mut row = |name: &str, times: Vec<f64>, decimals: usize| -> f64 {
        let sample: Sample = times.into_iter().collect();
        table.row([name.to_owned()].into_iter().chain(sample.cells(decimals)));
        sample.median()
    };
    row("`PING`, the way there and back", times.ping, 3);
    let exact = row("`INFER.CACHEGET`, the very prompt", times.exact, 3);
    row("`INFER.EMBED` of a similar prompt", times.embed, 2);
    row("`INFER.CACHEGET` of that, a hit", times.similar, 2);
    let more = row("the hit less embedding, by pairs", times.more, 2);
    row("`INFER.CACHEGET`, a miss", times.miss, 2);
    row(&format!("`INFER.GENERATE`, {TOKENS} tokens"), times.fresh, 0);
    let verdict = |what: &str, bound, value, cause: &str| Verdict {
        id: "F8",
        what: what.into(),
        goal: Goal::AtMost(bound),
        value: Some(value),
        cause: cause.into(),
    };
    Section {
        title: "F8: semantic cache",
        text: vec![format!(
            "A cache of {entries} prompts of {WORDS} words, one client over loopback, the client's times; {rounds} rounds, in each of \
             which every kind of question is asked once. The prompts are embedded by all-MiniLM-L6-v2."
        )],
        verdicts: vec![
            verdict(
                "a hit of the semantic cache by the very prompt, ms",
                0.5,
                exact,
                "The way there and back is part of it.",
            ),
            verdict(
                "a hit by a similar prompt, ms more than embedding it",
                1.0,
                more,
                "Embedding varies more from one time to the next than the search takes.",
            ),
        ],
        tables: vec![table],
        ..Section::default()
    }
}

fn cmd(name: &str, args: &[&str]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(args);
    command
}

/// The reply, and how many ms it took.
fn timed<T: FromRedisValue>(connection: &mut Connection, command: &Cmd) -> Result<(T, f64)> {
    let start = Instant::now();
    let reply = command.query(connection)?;
    Ok((reply, start.elapsed().as_secs_f64() * 1e3))
}
