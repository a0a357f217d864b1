//! `make quality`: labelled questions about real source files, asked through INFER.SEARCH.
//!
//! Beside it, in the same run and over the same chunks: an exact search among the same vectors (what the graph of the
//! vector set loses), BM25 (a floor), and both kinds fused (what a hybrid search would gain).

pub mod corpus;
mod lexical;
mod ranking;

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use clap::Args;
use redis::{Connection, Value};
use serde::Deserialize;

use self::corpus::{Place, Question, Subject};
use self::lexical::Lexical;
use self::ranking::{Ranking, Score, chunk_place, document_place, fuse, nearest};
use crate::client::{Document, connect, ingest, pipelined};

/// The index that is made and searched.
const INDEX: &str = "quality";

/// Length of the rankings that are compared.
const DEPTH: usize = 100;

/// How to measure.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Options for INFER.INDEX, as `MAXTOKENS 128`.
    #[arg(long, default_value = "")]
    index_options: String,
    /// Print each question with the place of the right chunk and the chunk that came first.
    #[arg(long)]
    each: bool,
}

/// The chunks of the index, in the order of their numbers here.
struct Chunks {
    ids: HashMap<String, usize>,
    places: Vec<Place>,
    vectors: Vec<Vec<f32>>,
    texts: Vec<String>,
}

/// The attributes of a chunk that matter here.
#[derive(Debug, Deserialize)]
struct Attributes {
    path: String,
    chunk: u32,
    first_line: u32,
    last_line: u32,
}

/// One way to search, and what it found for each question.
struct Method {
    name: &'static str,
    rankings: Vec<Ranking>,
}

/// Makes the index, asks all questions and prints the table.
pub fn run(arguments: &Arguments) -> Result<()> {
    let set = arguments.subject.questions()?;
    let documents = set.documents(&arguments.subject.crate_folders()?)?;
    let questions = set.questions(&documents)?;
    let mut connection = connect(&arguments.subject.url)?;
    let mut index = redis::cmd("INFER.INDEX");
    index.arg(INDEX).arg("EMBEDMODEL").arg("embed").arg("GENMODEL").arg("chat");
    index.arg(arguments.index_options.split_whitespace().collect::<Vec<_>>()).exec(&mut connection)?;

    let bytes: usize = documents.iter().map(|document| document.text.len()).sum();
    println!("{} files of {} crates, {:.1} MB", documents.len(), set.crates.len(), bytes as f64 / 1e6);
    let ingested = ingest(&arguments.subject.url, INDEX, &documents)?;
    let seconds = ingested.time.as_secs_f64();
    println!("{} chunks, ingested in {seconds:.0} s: {:.1} chunks/s", ingested.added, ingested.added as f64 / seconds);

    let chunks = Chunks::read(&mut connection, &documents)?;
    let methods = rank(&mut connection, &chunks, &questions)?;
    print_table(&methods, &chunks, &questions);
    if arguments.each {
        print_each(&methods, &chunks, &questions);
    }
    Ok(())
}

impl Chunks {
    /// What the index holds.
    fn read(connection: &mut Connection, documents: &[Document]) -> Result<Self> {
        let key = format!("vec:{{{INDEX}}}");
        let count: usize = redis::cmd("VCARD").arg(&key).query(connection)?;
        let mut elements: Vec<String> = redis::cmd("VRANDMEMBER").arg(&key).arg(count).query(connection)?;
        ensure!(elements.len() == count, "VRANDMEMBER gave {} of {count} elements", elements.len());
        elements.sort();
        let about = |command: &'static str| {
            let key = &key;
            elements.iter().map(move |element| redis::cmd(command).arg(key).arg(element).clone())
        };
        let attributes: Vec<String> = pipelined(connection, about("VGETATTR"))?;
        let vectors = pipelined(connection, about("VEMB"))?;
        let files: HashMap<&str, Vec<&str>> =
            documents.iter().map(|document| (document.path.as_str(), document.text.lines().collect())).collect();
        let mut chunks = Self { ids: HashMap::new(), places: Vec::new(), vectors, texts: Vec::new() };
        for json in attributes {
            let chunk: Attributes = serde_json::from_str(&json).context("a chunk has attributes of another kind")?;
            let (first, last) = (chunk.first_line as usize, chunk.last_line as usize);
            let lines = files.get(chunk.path.as_str()).and_then(|lines| lines.get(first.checked_sub(1)?..last));
            let lines = lines.with_context(|| format!("{} has no lines {first} to {last}", chunk.path))?;
            chunks.texts.push(lines.join("\n"));
            chunks.ids.insert(format!("{}:chunk_{}", chunk.path, chunk.chunk), chunks.places.len());
            chunks.places.push(Place { path: chunk.path, lines: (chunk.first_line, chunk.last_line) });
        }
        Ok(chunks)
    }

    /// What INFER.SEARCH finds.
    fn search(&self, connection: &mut Connection, question: &str) -> Result<Ranking> {
        let hits: Vec<HashMap<String, Value>> =
            redis::cmd("INFER.SEARCH").arg(INDEX).arg(question).arg("K").arg(DEPTH).query(connection)?;
        let number = |hit: &HashMap<String, Value>| {
            let id: String = redis::from_redis_value(hit.get("id").cloned().context("a hit has no id")?)?;
            self.ids.get(&id).copied().with_context(|| format!("{id} is not in the index"))
        };
        hits.iter().map(number).collect()
    }
}

/// Asks all questions in every way.
fn rank(connection: &mut Connection, chunks: &Chunks, questions: &[Question]) -> Result<[Method; 4]> {
    let lexical = Lexical::new(&chunks.texts);
    let method = |name| Method { name, rankings: Vec::new() };
    let mut methods = [method("INFER.SEARCH"), method("exact search"), method("BM25"), method("SEARCH + BM25")];
    for question in questions {
        let found = chunks.search(connection, &question.text)?;
        let mut embed = redis::cmd("INFER.EMBED");
        let vectors: Vec<Vec<f32>> =
            embed.arg("embed").arg(1).arg(&question.text).arg("FORMAT").arg("VALUES").query(connection)?;
        let vector = vectors.first().context("INFER.EMBED gave no vector")?;
        let exact = nearest(&chunks.vectors, vector, DEPTH);
        let words = lexical.search(&question.text, DEPTH);
        let both = fuse(&[&found, &words]);
        for (method, ranking) in methods.iter_mut().zip([found, exact, words, both]) {
            method.rankings.push(ranking);
        }
    }
    Ok(methods)
}

fn print_table(methods: &[Method], chunks: &Chunks, questions: &[Question]) {
    println!("\n{} questions; the first {DEPTH} chunks of each ranking count\n", questions.len());
    println!("{:<15} {:^29}   {:^29}", "", "document", "chunk");
    let columns = format!("{:>9} {:>9} {:>9}", "recall@1", "recall@5", "MRR");
    println!("{:<15} {columns}   {columns}", "");
    for method in methods {
        let columns = [document_place, chunk_place].map(|place| {
            let answered = method.rankings.iter().zip(questions);
            let places = answered.map(|(ranking, question)| place(ranking, &chunks.places, &question.answers));
            let score = Score::of(&places.collect::<Vec<_>>());
            format!("{:>9.3} {:>9.3} {:>9.3}", score.recall_at_1, score.recall_at_5, score.mrr)
        });
        println!("{:<15} {}", method.name, columns.join("   "));
    }
    if let [found, exact, ..] = methods {
        let top = |ranking: &Ranking| ranking.iter().take(5).copied().collect::<HashSet<_>>();
        let pairs = found.rankings.iter().zip(&exact.rankings);
        let (same, all) = pairs.fold((0, 0), |(same, all), (found, exact)| {
            (same + top(found).intersection(&top(exact)).count(), all + top(exact).len())
        });
        println!("\nof the first five chunks of the exact search, INFER.SEARCH has {same} of {all}");
    }
}

/// For whoever wants to know why: where the first right chunk was, and what stood first.
fn print_each(methods: &[Method], chunks: &Chunks, questions: &[Question]) {
    println!("\nplace of the right chunk by {}", methods.iter().map(|m| m.name).collect::<Vec<_>>().join(", "));
    for (number, question) in questions.iter().enumerate() {
        let rankings = methods.iter().filter_map(|method| method.rankings.get(number));
        let places = rankings.map(|ranking| chunk_place(ranking, &chunks.places, &question.answers));
        let places: Vec<String> = places.map(|place| place.map_or("-".into(), |place| place.to_string())).collect();
        println!("{:<20} {}", places.join(" "), question.text);
        let first = methods.first().and_then(|search| chunks.places.get(*search.rankings.get(number)?.first()?));
        if let Some(first) = first {
            println!("{:<20} first: {} {}-{}", "", first.path, first.lines.0, first.lines.1);
        }
    }
}
