//! F2, F3: several clients at once, alone on the machine and beside a busy neighbour.

use anyhow::Result;

use crate::compare::Bench;
use crate::compare::answers::{Server, together};
use crate::compare::best::{Best, best, words};
use crate::compare::ours::{Model, Ours};
use crate::compare::peer::Peer;
use crate::compare::process::neighbours as start_neighbours;
use crate::compare::report::{Curve, Goal, Plot, Section, Table, Verdict};
use crate::compare::stats::Sample;
use crate::compare::text::Prompts;

/// Clients, and sequences that each side has room for.
pub const CLIENTS: usize = 8;

/// Tokens of context for each sequence, on both sides.
pub const CONTEXT: usize = 1024;

/// Tokens of a short prompt, and of one beside busy neighbours.
const SHORT: usize = 64;
const SHORTEST: usize = 16;

/// Our side with room for [`CLIENTS`] sequences and everything else at its default.
pub fn our_side(bench: &Bench, model: &Model) -> Result<Ours> {
    // How many requests PARALLEL 1 is: one or two, by the number of CPUs.
    let (workers, parallel) = bench.ours_with(model, &["PARALLEL", "1", "CTX", "64"])?.workers()?;
    let options = words(&format!("PARALLEL {} CTX {CONTEXT}", CLIENTS.div_ceil((workers * parallel).max(1))));
    bench.ours_plain(model, &options.iter().map(String::as_str).collect::<Vec<_>>())
}

/// llama-server's total context for [`CLIENTS`] sequences.
fn total() -> usize {
    CLIENTS * CONTEXT
}

/// llama-server's settings for several clients.
fn best_for_clients(bench: &Bench, model: &Model, prompts: Prompts) -> Result<Best> {
    if let Some(best) = bench.for_clients.get() {
        return Ok(best.clone());
    }
    let total = total();
    let mut settings = vec![format!("-np {CLIENTS} -c {total}"), format!("-np {CLIENTS} -c {total} -fa off")];
    if !bench.arguments.quick {
        settings.extend([
            format!("-np {CLIENTS} -c {total} -kvu"),
            format!("-np {CLIENTS} -c {total} -fa off -kvu"),
            format!("-np {CLIENTS} -c {total} -fa off -ub 128"),
            format!("-np {CLIENTS} -c {total} -fa off -t 1"),
        ]);
    }
    let mut round = 0..;
    let best = best(bench, model, &settings, "total tok/s", |peer| {
        let prompts = prompts.several(1000 + round.next().unwrap_or(0), CLIENTS, SHORT);
        Ok(together(peer, &prompts, bench.pick(32, 16))?.rate())
    })?;
    Ok(bench.for_clients.get_or_init(|| best).clone())
}

/// The two sides of these rows, with the same room.
struct Sides {
    ours: Ours,
    best: Peer,
    defaults: Peer,
    /// Ours in another layout, to tell what the default one gains or loses.
    other: Option<Ours>,
    prompts: Prompts,
    /// Names for tables, in the order above.
    names: Vec<String>,
    tried: Table,
}

impl Sides {
    /// `other` gives the beginning of INFER.LOAD's options for ours in another layout.
    fn start(bench: &Bench, other: impl FnOnce(&Ours) -> Result<Option<String>>) -> Result<Self> {
        let model = bench.chat_model();
        let ours = our_side(bench, &model)?;
        let (prompts, other) = (ours.prompts()?, other(&ours)?);
        let settings = best_for_clients(bench, &model, prompts)?;
        let defaults = format!("-c {}", total());
        let mut names = vec![
            format!("redis-infer ({})", ours.layout()?),
            format!("llama-server, best: `{}`", settings.flags.join(" ")),
            format!("llama-server, defaults: `{defaults}`"),
        ];
        names.extend(other.as_ref().map(|other| format!("redis-infer, `{other}`")));
        let other = other.map(|other| {
            let options = words(&format!("{other} CTX {CONTEXT}"));
            bench.ours_plain(&model, &options.iter().map(String::as_str).collect::<Vec<_>>())
        });
        Ok(Self {
            ours,
            best: bench.peer(&model.path, &settings.flags)?,
            defaults: bench.peer(&model.path, &words(&defaults))?,
            other: other.transpose()?,
            prompts,
            names,
            tried: settings.tried,
        })
    }

    fn servers(&self) -> impl Iterator<Item = &dyn Server> {
        let three: [&dyn Server; 3] = [&self.ours, &self.best, &self.defaults];
        three.into_iter().chain(self.other.iter().map(|other| other as &dyn Server))
    }

    /// Tokens per second of all clients together, of each side, runs alternating. `prompts` are those of a round.
    fn rates(&self, rounds: u64, tokens: u64, prompts: impl Fn(u64) -> Vec<String>) -> Result<Vec<Sample>> {
        let mut rates = vec![Vec::new(); self.names.len()];
        for round in 0..rounds {
            for (server, rates) in self.servers().zip(&mut rates) {
                rates.push(together(server, &prompts(round), tokens)?.rate());
            }
        }
        Ok(rates.into_iter().map(|rates| rates.into_iter().collect()).collect())
    }
}

/// Ours to llama-server's best, which may turn out to be its defaults.
fn to_best(rates: &[f64]) -> f64 {
    rates[0] / rates[1].max(rates[2])
}

/// F2.
pub fn eight(bench: &Bench) -> Result<Section> {
    let sides = Sides::start(bench, |ours| ours.other_layout(bench.cpus).map(Some))?;
    let tokens = bench.pick(64, 24);
    let context = bench.pick(768, 256);
    let prompts = sides.prompts;
    let short = |round: u64| prompts.several(10 + round, CLIENTS, SHORT);
    // A document that all ask about, and a question of each: the document is read before the measurement.
    let document = prompts.prompt(9, context - 48);
    let long = |round: u64| -> Vec<String> {
        let questions = prompts.several(30 + round, CLIENTS, 32);
        questions.iter().map(|question| format!("{document} {question}")).collect()
    };
    let unseen = |round: u64| prompts.several(50 + round, CLIENTS, context);
    let rounds = [bench.pick(4, 1), bench.pick(3, 1), 1];
    sides.rates(1, 8, |_| short(90))?;
    let of_short = sides.rates(rounds[0], tokens, short)?;
    sides.rates(1, 2, |_| long(90))?;
    let of_long = sides.rates(rounds[1], tokens, long)?;
    let measured = [
        (format!("prompts of {SHORT} tokens"), of_short),
        (format!("{context} tokens, all but a question read before"), of_long),
        (format!("{context} tokens, never seen"), sides.rates(rounds[2], tokens, unseen)?),
    ];
    let mut table = Table::new(&["8 clients", "side", "total tok/s", "p10", "p90", "redis-infer to this"]);
    for (what, rates) in &measured {
        for (name, rate) in sides.names.iter().zip(rates) {
            let ratio = format!("{:.2}", rates[0].median() / rate.median());
            table.row([what.clone(), name.clone()].into_iter().chain(rate.cells(1)).chain([ratio]));
        }
    }
    let mut verdicts = Vec::new();
    let is_one = sides.ours.workers()?.0 == 1;
    for (what, rates) in &measured[..2] {
        let medians: Vec<f64> = rates.iter().map(Sample::median).collect();
        let (one, two) = if is_one { (medians[0], medians[3]) } else { (medians[3], medians[0]) };
        for (against, goal, value) in [("best", 1.3, to_best(&medians)), ("defaults", 2.0, medians[0] / medians[2])] {
            verdicts.push(Verdict {
                id: "F2",
                what: format!("total tok/s of 8 clients, {what}, to llama-server's {against}"),
                goal: Goal::AtLeast(goal),
                value: Some(value),
                cause: format!(
                    "Both sides compute the same with the same library: one worker with all CPUs, which is what llama-server is, \
                     reaches {:.2} of it. Two workers make {:.2} times as many tokens as one here.",
                    one / medians[1].max(medians[2]),
                    two / one
                ),
            });
        }
    }
    Ok(Section {
        title: "F2: eight clients",
        text: vec![format!(
            "Eight clients send their prompts at the same moment, and each gets {tokens} tokens; {}, {} and {} rounds. The figure is all \
             generated tokens by the time from the first prompt to the last answer, prompts included. Both sides have {CLIENTS} \
             sequences of {CONTEXT} tokens, llama-server's defaults excepted: they have 4 slots.",
            rounds[0], rounds[1], rounds[2]
        )],
        tables: vec![table, sides.tried],
        verdicts,
        ..Section::default()
    })
}

/// Throughput by the number of clients.
pub fn curve(bench: &Bench) -> Result<Section> {
    let sides = Sides::start(bench, |_| Ok(None))?;
    let (rounds, tokens) = (bench.pick(2, 1), bench.pick(24, 12));
    let numbers: &[usize] = bench.pick(&[1, 2, 4, 8, 16, 32], &[1, 4, 16]);
    let prompts = sides.prompts;
    sides.rates(1, 8, |_| prompts.several(92, CLIENTS, SHORT))?;
    let names = ["redis-infer", "llama-server, best", "llama-server, defaults"];
    let mut table =
        Table::new(&["total tok/s with clients", names[0], names[1], names[2], "redis-infer to the better"]);
    let mut curves = [const { Vec::new() }; 3];
    for &clients in numbers {
        let round = |round: u64| prompts.several(300 + 50 * clients as u64 + round, clients, 32);
        let medians: Vec<f64> = sides.rates(rounds, tokens, round)?.iter().map(Sample::median).collect();
        curves.iter_mut().zip(&medians).for_each(|(curve, median)| curve.push((clients as f64, *median)));
        let cells = medians.iter().map(|median| format!("{median:.1}"));
        table.row([clients.to_string()].into_iter().chain(cells).chain([format!("{:.2}", to_best(&medians))]));
    }
    Ok(Section {
        title: "Throughput by number of clients",
        text: vec![format!("As F2 with prompts of 32 tokens and {tokens} tokens for each client; {rounds} rounds.")],
        tables: vec![table],
        plots: vec![Plot {
            file: "bench-clients",
            title: "Clients at once, prompts included",
            x: "clients",
            y: "total tok/s",
            log_x: true,
            curves: names.into_iter().zip(curves).map(|(name, points)| Curve { name, points }).collect(),
        }],
        ..Section::default()
    })
}

/// F3.
pub fn neighbours(bench: &Bench) -> Result<Section> {
    let sides = Sides::start(bench, |_| Ok(Some(format!("WORKERS 1 THREADS 1 PARALLEL {CLIENTS}"))))?;
    let (rounds, tokens, most) = (bench.pick(2, 1), bench.pick(24, 12), bench.pick(2, 1));
    let prompts = sides.prompts;
    sides.rates(1, 8, |_| prompts.several(91, CLIENTS, SHORTEST))?;
    let mut table = Table::new(&["busy", "side", "total tok/s", "p10", "p90", "kept", "redis-infer to this"]);
    let mut medians: [Vec<f64>; 4] = [const { Vec::new() }; 4];
    for busy in 0..=most {
        let burning = start_neighbours(busy, &bench.arguments.work)?;
        let rates =
            sides.rates(rounds, tokens, |round| prompts.several(100 + 10 * busy as u64 + round, CLIENTS, SHORTEST))?;
        drop(burning);
        for ((name, rate), medians) in sides.names.iter().zip(&rates).zip(&mut medians) {
            medians.push(rate.median());
            let kept = format!("{:.0} %", 100.0 * rate.median() / medians[0]);
            let ratio = format!("{:.2}", rates[0].median() / rate.median());
            table.row([busy.to_string(), name.clone()].into_iter().chain(rate.cells(1)).chain([kept, ratio]));
        }
    }
    let [ours, best, defaults, one] = &medians;
    let ratio = |busy: usize| to_best(&[ours[busy], best[busy], defaults[busy]]);
    let curve =
        |name, values: &[f64]| Curve { name, points: (0..).map(f64::from).zip(values.iter().copied()).collect() };
    Ok(Section {
        title: "F3: beside busy neighbours",
        text: vec![format!(
            "As F2 with prompts of {SHORTEST} tokens and {tokens} tokens for each client, while other processes of normal priority \
             keep one CPU each busy; {rounds} runs."
        )],
        tables: vec![table],
        plots: vec![Plot {
            file: "bench-neighbours",
            title: "8 clients beside busy processes",
            x: "processes that keep a CPU busy",
            y: "total tok/s",
            log_x: false,
            curves: vec![
                curve("redis-infer", ours),
                curve("llama-server, best", best),
                curve("llama-server, defaults", defaults),
            ],
        }],
        verdicts: vec![Verdict {
            id: "F3",
            what: "total tok/s of 8 clients beside one busy process, to llama-server's best".into(),
            goal: Goal::AtLeast(2.5),
            value: Some(ratio(1)),
            cause: format!(
                "Beside one busy process the module keeps {:.0} % and llama-server {:.0} % of what each reaches alone; alone the \
                 ratio is {:.2}. What the CPU that is left can do is a thread alone without neighbours: {:.2} of llama-server \
                 beside one.",
                100.0 * ours[1] / ours[0],
                100.0 * best[1] / best[0],
                ratio(0),
                one[0] / best[1].max(defaults[1])
            ),
        }],
    })
}
