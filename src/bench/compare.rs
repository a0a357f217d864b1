//! `make bench`: this module beside llama-server, on the same machine with the same model file. Runs of the two sides
//! alternate, and the figures are medians. Writes a document with goals, ratios and verdicts, and its plots.

mod answers;
mod best;
mod machine;
mod ours;
mod peer;
mod plot;
mod process;
mod report;
mod rows;
mod sidecar;
mod stats;
mod text;

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

pub use self::process::burn;

use self::best::Best;
use self::ours::{Model, Ours};
use self::peer::Peer;
use self::report::{Section, document};
use self::rows::{ROWS, names};

/// Special tokens of SmolLM2: the lowest ids of its vocabulary.
const SMOLLM2_SPECIALS: u32 = 17;

/// What to measure, and with what.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The redis-server to start.
    #[arg(long)]
    redis_server: PathBuf,
    /// The module that it loads.
    #[arg(long)]
    module: PathBuf,
    /// The llama-server to compare with.
    #[arg(long)]
    llama_server: PathBuf,
    /// The llama-batched-bench of the same build.
    #[arg(long)]
    batched_bench: Option<PathBuf>,
    /// SmolLM2-135M, a GGUF file.
    #[arg(long)]
    chat_model: PathBuf,
    /// A sentence encoder, a GGUF file.
    #[arg(long)]
    embed_model: PathBuf,
    /// A larger model with random weights; made when it is not there.
    #[arg(long)]
    shape_model: PathBuf,
    /// A folder for logs.
    #[arg(long)]
    work: PathBuf,
    /// The folder that gets BENCHMARKS.md and the plots.
    #[arg(long)]
    out: PathBuf,
    /// Fewer and shorter runs.
    #[arg(long)]
    quick: bool,
    /// The rows to measure; all when not given.
    #[arg(long, value_delimiter = ',', ignore_case = true)]
    rows: Vec<String>,
    /// Lines for the document about versions: "name: value".
    #[arg(long)]
    about: Vec<String>,
}

/// What every row needs.
#[derive(Debug)]
pub struct Bench {
    arguments: Arguments,
    cpus: usize,
    /// llama-server's best settings for several clients, once they were looked for.
    for_clients: OnceCell<Best>,
}

impl Bench {
    /// Our side, without models.
    fn ours(&self, options: &[&str]) -> Result<Ours> {
        let Arguments { redis_server, module, work, .. } = &self.arguments;
        Ours::start(redis_server, module, work, options)
    }

    /// Our side with the model `chat`.
    fn ours_with(&self, model: &Model, options: &[&str]) -> Result<Ours> {
        let mut ours = self.ours(&[])?;
        ours.load_chat(model, options)?;
        Ok(ours)
    }

    /// The same with more options, without guessing ahead: how much that gains depends on the text, see the row `copies`.
    fn ours_plain(&self, model: &Model, options: &[&str]) -> Result<Ours> {
        self.ours_with(model, &[options, &["SPECULATION", "NONE"]].concat())
    }

    /// The other side.
    fn peer(&self, model: &Path, flags: &[String]) -> Result<Peer> {
        Peer::start(&self.arguments.llama_server, model, flags, &self.arguments.work)
    }

    fn chat_model(&self) -> Model {
        Model { path: self.arguments.chat_model.clone(), ends: (0..SMOLLM2_SPECIALS).collect() }
    }

    /// `full`, or `quick` in the quick mode.
    fn pick<T>(&self, full: T, quick: T) -> T {
        if self.arguments.quick { quick } else { full }
    }
}

/// Measures, prints, writes the document.
pub fn run(arguments: Arguments) -> Result<()> {
    process::kill_all_on_signal()?;
    let wanted =
        |name: &str| arguments.rows.is_empty() || arguments.rows.iter().any(|row| row.eq_ignore_ascii_case(name));
    for row in &arguments.rows {
        ensure!(
            names().iter().any(|name| name.eq_ignore_ascii_case(row)),
            "no row {row}; there are: {}",
            names().join(", ")
        );
    }
    let rows: Vec<_> = ROWS.iter().filter(|(name, _)| wanted(name)).collect();
    let introduction = machine::introduction(&arguments)?;
    println!("{introduction}");
    let cpus = std::thread::available_parallelism().context("cannot count the CPUs")?.get();
    let bench = Bench { arguments, cpus, for_clients: OnceCell::new() };
    let start = Instant::now();
    let (mut sections, mut failed) = (Vec::new(), Vec::new());
    for (name, row) in rows {
        eprintln!("redis-infer: measuring {name} ({:.0} s since the start)", start.elapsed().as_secs_f64());
        match row(&bench) {
            Ok(section) => {
                println!("{}", section.markdown());
                sections.push(section);
            }
            Err(error) => {
                eprintln!("redis-infer: {name} failed: {error:#}");
                failed.push(*name);
            }
        }
    }
    let out = &bench.arguments.out;
    write(out, &introduction, &sections)?;
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    eprintln!("redis-infer: wrote {} after {minutes:.1} minutes", out.join("BENCHMARKS.md").display());
    if !failed.is_empty() {
        bail!("could not be measured: {}", failed.join(", "));
    }
    Ok(())
}

fn write(out: &Path, introduction: &str, sections: &[Section]) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    for plot in sections.iter().flat_map(|section| &section.plots) {
        plot::draw(out, plot)?;
    }
    let path = out.join("BENCHMARKS.md");
    fs::write(&path, document(introduction, sections)).with_context(|| format!("cannot write {}", path.display()))
}
