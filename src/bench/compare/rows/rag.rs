//! F4 and F5: the way from a question to the first token of its answer.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::client::Document;
use crate::compare::Bench;
use crate::compare::best::words as flags;
use crate::compare::ours::Ours;
use crate::compare::peer::Peer;
use crate::compare::report::{Goal, Section, Table, Verdict};
use crate::compare::sidecar::{Asked, K, Librarian, Module, Sidecar};
use crate::compare::stats::Sample;
use crate::compare::text::words;

/// Words of a document: about 200 tokens, which is one chunk.
const DOCUMENT: usize = 195;

/// Questions that one side is asked before it is the other's turn, where microseconds count.
const IN_A_ROW: usize = 10;

/// Between the two: threads of a llama-server go on spinning for a while when they have nothing to do, and would take the
/// CPUs from the other side.
const REST: Duration = Duration::from_millis(200);

/// Flags of the llama-server that embeds questions.
const EMBEDDER: &str = "--embeddings -c 512 -np 1";

/// Documents that no other call with another `set` makes.
fn documents(set: u64, number: usize) -> Vec<Document> {
    let document = |at| {
        let seed = set * 10_000 + at;
        Document { path: format!("{seed}.txt"), text: words(seed, DOCUMENT) }
    };
    (0..number as u64).map(document).collect()
}

/// Questions, all different.
fn question(number: u64) -> String {
    format!("{}?", words(900_000 + number, 12))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Our side with both models.
fn ours(bench: &Bench, options: &[&str]) -> Result<Ours> {
    let ours = bench.ours_with(&bench.chat_model(), options)?;
    ours.load("embed", &bench.arguments.embed_model, &[])?;
    Ok(ours)
}

fn peers(bench: &Bench, generator: &str) -> Result<(Peer, Peer)> {
    let embedder = bench.peer(&bench.arguments.embed_model, &flags(EMBEDDER))?;
    Ok((embedder, bench.peer(&bench.chat_model().path, &flags(generator))?))
}

/// F4: documents that were in a prompt before, in another order.
pub fn first_token(bench: &Bench) -> Result<Section> {
    let (sets, again) = (bench.pick(2, 1), bench.pick(2, 1));
    let threads = bench.cpus.to_string();
    let plain = ours(bench, &[])?;
    let whole = ours(bench, &["WORKERS", "1", "THREADS", &threads])?;
    let peer_flags = format!("-np 1 -c 4096 -t {threads}");
    let reuse_flags = format!("{peer_flags} --cache-reuse 64");
    let (embedder, peer) = peers(bench, &peer_flags)?;
    let reuse = bench.peer(&bench.chat_model().path, &flags(&reuse_flags))?;

    let mut sides: Vec<(String, Box<dyn Librarian>)> = vec![
        (format!("redis-infer, defaults ({})", plain.layout()?), Box::new(Module::new(&plain, &[])?)),
        (format!("redis-infer, `WORKERS 1 THREADS {threads}`"), Box::new(Module::new(&whole, &[])?)),
        (format!("llama-server `{peer_flags}`"), Box::new(Sidecar::new(&plain, &embedder, &peer)?)),
        (format!("llama-server `{reuse_flags}`"), Box::new(Sidecar::new(&plain, &embedder, &reuse)?)),
    ];
    let mut chunked = Module::new(&plain, &["KV", "CHUNK"])?;
    let has_chunks = chunked.can();
    if has_chunks {
        sides.push(("redis-infer, index with `KV CHUNK`".into(), Box::new(chunked)));
    }
    let (mut cold, mut warm) = (vec![Vec::new(); sides.len()], vec![Vec::<Asked>::new(); sides.len()]);
    for set in 0..sets {
        for (at, (_, side)) in sides.iter_mut().enumerate() {
            // Documents of their own, so that no side profits from another.
            let shelf = format!("first-{set}-{at}");
            side.store(&shelf, &documents(1 + set * 10 + at as u64, K))?;
            for number in 0..=again {
                let asked = side.ask(&shelf, &question(set * 100 + number))?;
                if number == 0 { cold[at].push(asked) } else { warm[at].push(asked) }
            }
        }
    }
    let time = |asked: &[Asked]| asked.iter().map(|asked| millis(asked.wall)).collect::<Sample>();
    let mut table = Table::new(&[
        "to the first token, ms",
        "never seen",
        "p10",
        "p90",
        "seen, other order",
        "p10",
        "p90",
        "prompt",
        "cached",
    ]);
    let (mut cold_medians, mut warm_medians) = (Vec::new(), Vec::new());
    for (at, (name, _)) in sides.iter().enumerate() {
        let (cold, warm_times) = (time(&cold[at]), time(&warm[at]));
        cold_medians.push(cold.median());
        warm_medians.push(warm_times.median());
        let tokens = |of: fn(&Asked) -> u64| {
            let sample: Sample = warm[at].iter().map(|asked| of(asked) as f64).collect();
            format!("{:.0}", sample.median())
        };
        let cells = cold.cells(0).into_iter().chain(warm_times.cells(0));
        table.row([name.clone()].into_iter().chain(cells).chain([tokens(|a| a.prompt), tokens(|a| a.cached)]));
    }
    let orders: HashSet<Vec<String>> = warm.iter().flatten().map(|asked| asked.sources.clone()).collect();
    let best = |medians: &[f64]| medians[2].min(medians[3]);
    let chunk_ratio = has_chunks.then(|| warm_medians.last().map(|ours| best(&warm_medians) / ours)).flatten();
    let to_exact = warm_medians.last().map_or(0.0, |ours| warm_medians[2] / ours);
    let last = warm.last().map_or(&[][..], |asked| asked);
    let read = last.iter().map(|asked| (asked.prompt - asked.cached) as f64).collect::<Sample>().median();
    let prompt = |at: usize| warm[at].iter().map(|asked| asked.prompt as f64).collect::<Sample>().median();
    Ok(Section {
        title: "F4: first token of INFER.RAG",
        text: vec![format!(
            "{K} documents of about 200 tokens each, all of which go into every prompt; what differs from question to question is \
             their order ({} orders occurred). *Never seen* is the first question about new documents, *seen, other order* are the \
             {again} questions after it; {sets} sets of documents. The time is the client's, from the question to the reply with one token. \
             The client of llama-server has the question embedded by a second llama-server, searches a vector set \
             (`VSIM`), reads the texts (`MGET`), writes the same prompt and posts it. `KV CHUNK` and `--cache-reuse` are both approximate: \
             text was computed beside other text than the present.",
            orders.len()
        )],
        tables: vec![table],
        verdicts: vec![
            Verdict {
                id: "F4",
                what: "documents seen before in another order: llama-server's time to the first token, to `KV CHUNK`'s"
                    .into(),
                goal: Goal::AtLeast(10.0),
                value: chunk_ratio,
                cause: format!(
                    "To llama-server without `--cache-reuse`, which is approximate too, the ratio is {to_exact:.2}. What is left \
                     is embedding the question, and reading it and the end of the template: {read:.0} tokens that see all of the \
                     prompt."
                ),
            },
            Verdict {
                id: "F4",
                what: "documents never seen: llama-server's time to the first token, to ours".into(),
                goal: Goal::AtLeast(1.0),
                value: Some(best(&cold_medians) / cold_medians[0]),
                cause: format!(
                    "Both sides compute the same {:.0} tokens with the same library. With `WORKERS 1 THREADS {threads}` the \
                     ratio is {:.2}.",
                    prompt(0),
                    best(&cold_medians) / cold_medians[1]
                ),
            },
        ],
        ..Section::default()
    })
}

/// The same question several times, after a rest and once to wake up.
fn asked_in_a_row(librarian: &mut dyn Librarian, question: &str) -> Result<Vec<Asked>> {
    thread::sleep(REST);
    librarian.ask("assembly", question)?;
    let mut asked = Vec::new();
    for _ in 0..IN_A_ROW {
        asked.push(librarian.ask("assembly", question)?);
    }
    Ok(asked)
}

/// F5: what retrieval costs besides the models; and tokenizing.
pub fn assembly(bench: &Bench) -> Result<Section> {
    let (number, asks) = (bench.pick(100, 20), bench.pick(60_usize, 20));
    let plain = ours(bench, &[])?;
    let (embedder, peer) = peers(bench, "-np 1 -c 4096")?;
    let mut module = Module::new(&plain, &[])?;
    let mut sidecar = Sidecar::new(&plain, &embedder, &peer)?;
    let documents = documents(500, number);
    module.store("assembly", &documents)?;
    sidecar.store("assembly", &documents)?;
    let (mut of_module, mut of_sidecar) = (Vec::new(), Vec::new());
    // One question, so that the model has next to nothing to compute and the rest is seen clearly.
    let question = question(1000);
    for _ in 0..asks.div_ceil(IN_A_ROW) {
        of_module.append(&mut asked_in_a_row(&mut module, &question)?);
        of_sidecar.append(&mut asked_in_a_row(&mut sidecar, &question)?);
    }
    let head = ["ms", "context assembly", "p10", "p90", "of it search and reading", "and embedding", "prompt tokens"];
    let mut table = Table::new(&head);
    let mut medians = Vec::new();
    for (name, asked) in
        [("INFER.RAG", &of_module), ("client with VSIM, MGET, a prompt as text, POST to llama-server", &of_sidecar)]
    {
        let times = |of: fn(&Asked) -> Duration| asked.iter().map(|asked| millis(of(asked))).collect::<Sample>();
        let assembly = times(Asked::assembly);
        let [lookup, embedded] =
            [times(|a| a.lookup), times(|a| a.assembly() + a.embedding)].map(|times| times.median());
        let prompt = asked.last().map_or(0, |asked| asked.prompt).to_string();
        let rest = [format!("{lookup:.2}"), format!("{embedded:.2}"), prompt];
        table.row([name.to_owned()].into_iter().chain(assembly.cells(2)).chain(rest));
        medians.push([assembly.median(), embedded, lookup]);
    }
    let (tokens, tokenizing) = tokenizing(bench, &plain, &peer)?;
    let ratio = |at: usize| medians[1][at] / medians[0][at];
    Ok(Section {
        title: "F5: context assembly",
        text: vec![
            format!(
                "From the question's vector to a prompt of {K} chunks that is ready for the first decode: search, texts or tokens, the \
                 prompt, tokenizing, and all ways between. On both sides it is the client's time from the question to the first \
                 token, less the time until the question has its vector and less what the server says it computed for prompt and \
                 token. {number} documents, the same question {asks} times, so that llama-server too has the prompt in its cache; \
                 {IN_A_ROW} times in a row on each side, in turn. After a rest, because threads of a llama-server spin for a while \
                 when they have nothing to do."
            ),
            format!(
                "Tokens of chunks are stored, so that nobody tokenizes them again: the second table shows what that saves, measured \
                 with {tokens} tokens. Those of headings, of the system message and of the chat template are kept in memory; the \
                 question is tokenized while it is embedded."
            ),
        ],
        tables: vec![table, tokenizing],
        verdicts: vec![
            Verdict {
                id: "F5",
                what: "context assembly: the sidecar's time, to ours".into(),
                goal: Goal::AtLeast(5.0),
                value: Some(ratio(0)),
                cause: format!(
                    "Of our {:.2} ms, {:.2} are search and reading tokens; the rest is the prompt, four threads that are woken one \
                     after another (keys, desk, worker, main), and what a step of the model takes besides computing. Of the client's {:.2} ms, {:.2} are search and reading.",
                    medians[0][0], medians[0][2], medians[1][0], medians[1][2]
                ),
            },
            Verdict {
                id: "F5",
                what: "context assembly, embedding included: share of the sidecar's time that is saved".into(),
                goal: Goal::AtLeast(0.3),
                value: Some(1.0 - medians[0][1] / medians[1][1]),
                cause: "Embedding the question is most of it, and the same on both sides.".into(),
            },
        ],
        ..Section::default()
    })
}

/// What tokenizing a text costs, beside reading its tokens.
fn tokenizing(bench: &Bench, ours: &Ours, peer: &Peer) -> Result<(usize, Table)> {
    let text = words(77, 1000);
    let mut connection = ours.connection()?;
    let http = peer.http();
    let mut store = redis::cmd("INFER.TOKENIZESTORE");
    store.arg("bench:tokens").arg("chat").arg(&text);
    let mut get = redis::cmd("GET");
    get.arg("bench:tokens");
    let tokens: usize = store.query(&mut connection)?;
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..bench.pick(50, 10) {
        let start = Instant::now();
        store.exec(&mut connection)?;
        times[0].push(start.elapsed());
        let start = Instant::now();
        http.tokenize(&text).context("tokenizing by llama-server")?;
        times[1].push(start.elapsed());
        let start = Instant::now();
        get.exec(&mut connection)?;
        times[2].push(start.elapsed());
    }
    let mut table = Table::new(&["a text of 1,000 tokens, ms", "median", "p10", "p90"]);
    let names = ["tokenized by the module", "tokenized by llama-server, HTTP included", "read as stored tokens"];
    for (name, times) in names.into_iter().zip(times) {
        let sample: Sample = times.into_iter().map(|time| millis(time) * 1e3 / tokens as f64).collect();
        table.row([name.to_owned()].into_iter().chain(sample.cells(3)));
    }
    Ok((tokens, table))
}
