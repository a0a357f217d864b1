//! More conversations than slots, in turn: how soon the next turn of each begins.

use anyhow::{Result, ensure};

use crate::compare::Bench;
use crate::compare::answers::{Answer, Server};
use crate::compare::best::words as flags;
use crate::compare::report::{Section, Table};
use crate::compare::stats::Sample;

/// Requests that each side holds in its cache, by default.
const SLOTS: usize = 4;

/// Tokens of context of each.
const CONTEXT: usize = 2048;

/// Tokens that somebody says in a turn after the first.
const TURN: usize = 50;

pub fn run(bench: &Bench) -> Result<Section> {
    let (people, length, turns) = (2 * SLOTS, bench.pick(1000, 300), bench.pick(3, 2));
    let model = bench.chat_model();
    let context = CONTEXT.to_string();
    // How many requests PARALLEL 1 is: one or two, by the number of CPUs.
    let (workers, parallel) = bench.ours_with(&model, &["PARALLEL", "1", "CTX", "64"])?.workers()?;
    let parallel = SLOTS.div_ceil((workers * parallel).max(1)).to_string();
    let options = ["CTX", &context, "PARALLEL", &parallel];
    let ours = bench.ours_with(&model, &options)?;
    let mut reading = bench.ours(&["--infer.kv-budget", "0"])?;
    reading.load_chat(&model, &options)?;
    let peer_flags = format!("-np {SLOTS} -c {}", SLOTS * CONTEXT);
    let peer = bench.peer(&model.path, &flags(&peer_flags))?;
    let sides: [(String, &dyn Server); 3] = [
        (format!("redis-infer ({})", ours.layout()?), &ours),
        (format!("llama-server `{peer_flags}`"), &peer),
        ("redis-infer, `infer.kv-budget 0`".to_owned(), &reading),
    ];
    let prompts = ours.prompts()?;
    let mut conversations = prompts.several(600, people, length);
    let mut later = [const { Vec::<Answer>::new() }; 3];
    for turn in 0..turns {
        for (person, conversation) in conversations.iter_mut().enumerate() {
            if turn > 0 {
                conversation.push(' ');
                conversation.push_str(&prompts.prompt((700 + 100 * turn + person) as u64, TURN));
            }
            for ((_, server), later) in sides.iter().zip(&mut later) {
                let answer = server.client()?.answer(conversation, 1)?;
                if turn > 0 {
                    later.push(answer);
                }
            }
        }
    }
    let mut table = Table::new(&[
        "turns after the first",
        "first token, ms",
        "p10",
        "p90",
        "tokens of the prompt",
        "of them not read again",
    ]);
    let expected: Vec<u64> = later[0].iter().map(|answer| answer.prompt).collect();
    for ((name, _), answers) in sides.iter().zip(&later) {
        ensure!(answers.iter().map(|answer| answer.prompt).eq(expected.iter().copied()), "prompts differ in tokens");
        let sample = |of: fn(&Answer) -> f64| answers.iter().map(of).collect::<Sample>();
        let times = sample(|answer| answer.wall.as_secs_f64() * 1e3).cells(0);
        let tokens = [sample(|answer| answer.prompt as f64), sample(|answer| answer.cached as f64)];
        let tokens = tokens.map(|sample| format!("{:.0}", sample.median()));
        table.row([name.clone()].into_iter().chain(times).chain(tokens));
    }
    Ok(Section {
        title: "More conversations than slots",
        text: vec![format!(
            "{people} conversations of {length} tokens in rotation, one client, {turns} turns, each after the first {TURN} tokens longer; both sides hold {SLOTS} \
             requests in their caches and keep what these lose in memory, up to their defaults (`infer.kv-budget`, 1 GB, and \
             `--cache-ram`, 8 GB). The last row keeps nothing. The client's time to a reply with one token; medians of the tokens."
        )],
        tables: vec![table],
        ..Section::default()
    })
}
