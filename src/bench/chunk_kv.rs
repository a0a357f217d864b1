//! `make chunk-kv`: what `KV CHUNK` saves, and what it costs in answers. The labelled questions of `make quality` about the files
//! that hold their answers; the same prompts once read as a whole, then put together, with more and more tokens read again.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use clap::Args;
use redis::{Cmd, Connection, FromRedisValue, Value};

use crate::client::{connect, ingest};
use crate::quality::corpus::Subject;

const INDEX: &str = "blocks";

/// How to measure.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Of the questions every so many is asked.
    #[arg(long, default_value_t = 2)]
    every: usize,
    /// Tokens of each chunk that are read again, one table row each.
    #[arg(long, value_delimiter = ',', default_value = "0,8,16,32")]
    reread: Vec<u32>,
    /// Longest answer, in tokens.
    #[arg(long, default_value_t = 48)]
    max_tokens: usize,
}

/// An answer, as the server tells it.
struct Answer {
    text: String,
    tokens: Vec<u32>,
    log_likelihood: f64,
    ttft_ms: f64,
    prompt: u64,
    spliced: u64,
}

/// Answers of one way to read prompts, against those of prompts that were read as a whole.
#[derive(Default)]
struct Row {
    ttft_ms: Vec<f64>,
    same: usize,
    agreeing: f64,
    log_likelihood: f64,
    spliced: f64,
}

/// Makes the index, asks all questions in all ways and prints the table.
pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.every > 0, "--every counts from 1");
    let set = arguments.subject.questions()?;
    let mut documents = set.documents(&arguments.subject.crate_folders()?)?;
    let mut questions = set.questions(&documents)?;
    let mut number = 0;
    questions.retain(|_| {
        number += 1;
        number % arguments.every == 0
    });
    let is_answer =
        |path: &str| questions.iter().flat_map(|question| &question.answers).any(|place| place.path == path);
    documents.retain(|document| is_answer(&document.path));
    let mut connection = connect(&arguments.subject.url)?;
    let mut index = redis::cmd("INFER.INDEX");
    index.arg(INDEX).arg(&["EMBEDMODEL", "embed", "GENMODEL", "chat", "KV", "CHUNK"]).exec(&mut connection)?;

    // Nothing is read ahead, and prompts are read as a whole.
    set_budget(&mut connection, "0")?;
    let added = ingest(&arguments.subject.url, INDEX, &documents)?.added;
    println!("{} questions, {} files, {added} chunks, 5 in each prompt", questions.len(), documents.len());
    let mut asker = Asker { connection, max_tokens: arguments.max_tokens };
    let mut whole = Row::default();
    let mut references = Vec::new();
    for question in &questions {
        let answer = asker.ask(&question.text, None)?;
        whole.ttft_ms.push(answer.ttft_ms);
        whole.add(&answer, &answer, answer.log_likelihood);
        references.push(answer);
    }

    set_budget(&mut asker.connection, "4gb")?;
    let mut cold = Row::default();
    let mut rows: Vec<Row> = arguments.reread.iter().map(|_| Row::default()).collect();
    for (question, reference) in questions.iter().zip(&references) {
        cold.ttft_ms.push(asker.ask(&question.text, None)?.ttft_ms);
        for (reread, row) in arguments.reread.iter().zip(&mut rows) {
            redis::cmd("HSET").arg(INDEX).arg("reread").arg(reread).exec(&mut asker.connection)?;
            let answer = asker.ask(&question.text, None)?;
            ensure!(answer.spliced > 0, "nothing was put together; is infer.kv-budget too small?");
            row.ttft_ms.push(answer.ttft_ms);
            row.add(&answer, reference, asker.ask(&question.text, Some(&reference.text))?.log_likelihood);
        }
        redis::cmd("HSET").arg(INDEX).arg("reread").arg(0).exec(&mut asker.connection)?;
    }
    let prompt = references.iter().map(|answer| answer.prompt).sum::<u64>() / references.len().max(1) as u64;
    println!("prompts have {prompt} tokens on average, answers at most {}\n", arguments.max_tokens);
    print(&whole, &cold, &arguments.reread, rows);
    Ok(())
}

fn set_budget(connection: &mut Connection, bytes: &str) -> Result<()> {
    redis::cmd("CONFIG").arg("SET").arg("infer.kv-budget").arg(bytes).exec(connection).context("setting the budget")
}

fn print(whole: &Row, cold: &Row, reread: &[u32], rows: Vec<Row>) {
    println!(
        "{:<22} {:>9} {:>7} {:>8} {:>8} {:>8} {:>8}",
        "", "ttft_ms", "faster", "spliced", "same", "agree", "loglik"
    );
    let base = median(&whole.ttft_ms);
    let line = |name: &str, row: &Row| {
        let n = row.ttft_ms.len().max(1) as f64;
        let ttft = median(&row.ttft_ms);
        println!(
            "{name:<22} {ttft:>9.0} {:>6.1}x {:>7.0}% {:>7.0}% {:>7.0}% {:>8.3}",
            base / ttft,
            100.0 * row.spliced / n,
            100.0 * row.same as f64 / n,
            100.0 * row.agreeing / n,
            row.log_likelihood / n
        );
    };
    line("read as a whole", whole);
    println!("{:<22} {:>9.0} {:>6.1}x", "the first time", median(&cold.ttft_ms), base / median(&cold.ttft_ms));
    rows.iter().zip(reread).for_each(|(row, reread)| line(&format!("REREAD {reread}"), row));
    println!(
        "\nttft: median time to the first token, retrieval included; spliced: tokens of the prompt that were not read;\n\
         same: answers equal to that of the prompt read as a whole; agree: share of its tokens up to the first difference;\n\
         loglik: mean log-likelihood per token of that answer"
    );
}

impl Row {
    /// `log_likelihood` is that of the reference behind this prompt.
    fn add(&mut self, answer: &Answer, reference: &Answer, log_likelihood: f64) {
        let common = answer.tokens.iter().zip(&reference.tokens).take_while(|(one, other)| one == other).count();
        let tokens = reference.tokens.len().max(1) as f64;
        self.same += usize::from(answer.tokens == reference.tokens);
        self.agreeing += common as f64 / tokens;
        self.log_likelihood += log_likelihood / tokens;
        self.spliced += answer.spliced as f64 / answer.prompt.max(1) as f64;
    }
}

struct Asker {
    connection: Connection,
    max_tokens: usize,
}

impl Asker {
    /// Asks, greedily; with `forced` this text is the answer, and its likelihood is told.
    fn ask(&mut self, question: &str, forced: Option<&str>) -> Result<Answer> {
        let mut command: Cmd = redis::cmd("INFER.RAG");
        command.arg(INDEX).arg(question).arg(&["TEMP", "0", "WITHSTATS", "WITHTOKENS", "LOGPROBS", "1"]);
        match forced {
            // Another tokenization of the text can be longer.
            Some(text) => command.arg("MAXTOKENS").arg(4 * self.max_tokens).arg("GRAMMAR").arg(literal(text)),
            None => command.arg("MAXTOKENS").arg(self.max_tokens),
        };
        let mut reply: HashMap<String, Value> =
            command.query(&mut self.connection).with_context(|| format!("asking {question:?}"))?;
        let logprobs: Vec<HashMap<String, Value>> = take(&mut reply, "logprobs")?;
        let logprobs = logprobs.into_iter().map(|mut token| take::<f64>(&mut token, "logprob"));
        Ok(Answer {
            text: take(&mut reply, "text")?,
            tokens: take(&mut reply, "tokens")?,
            log_likelihood: logprobs.sum::<Result<f64>>()?,
            ttft_ms: take::<f64>(&mut reply, "ttft_us")? / 1e3,
            prompt: take(&mut reply, "prompt_tokens")?,
            spliced: take(&mut reply, "spliced_tokens")?,
        })
    }
}

fn take<T: FromRedisValue>(reply: &mut HashMap<String, Value>, name: &str) -> Result<T> {
    let value = reply.remove(name).with_context(|| format!("a reply has no '{name}'"))?;
    redis::from_redis_value(value).with_context(|| format!("'{name}' is of another kind"))
}

/// A grammar for `text` alone.
fn literal(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        c => c.to_string(),
    });
    format!("root ::= \"{}\"", escaped.collect::<String>())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(tokens: &[u32], spliced: u64) -> Answer {
        let (text, log_likelihood, ttft_ms, prompt) = (String::new(), 0.0, 0.0, 10);
        Answer { text, tokens: tokens.to_vec(), log_likelihood, ttft_ms, prompt, spliced }
    }

    #[test]
    fn answers_are_compared_up_to_their_first_difference() {
        let reference = answer(&[1, 2, 3, 4], 0);
        let mut row = Row::default();
        row.add(&answer(&[1, 2, 9, 4], 5), &reference, -2.0);
        row.add(&answer(&[1, 2, 3, 4], 10), &reference, -1.0);
        assert_eq!((row.same, row.agreeing, row.log_likelihood, row.spliced), (1, 1.5, -0.75, 1.5));
    }

    #[test]
    fn a_grammar_of_a_text_has_its_quotes_and_line_ends_escaped() {
        assert_eq!(literal("a \"b\"\\\n"), r#"root ::= "a \"b\"\\\n""#);
    }
}
