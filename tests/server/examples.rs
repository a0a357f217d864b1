//! The examples of the documents, run in their order by redis-cli, as a reader would.
//!
//! An example is a line `> COMMAND` in a code block and the lines below it, its reply. Numbers may be others, generated
//! text too, and `…` stands for anything. A line `other> COMMAND` is sent by another client and not waited for. Model
//! files lie in `/models`.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::harness::{PATIENCE, RANK, Server, cmd, required};

struct Example {
    /// Where it stands.
    place: String,
    /// Sent by another client.
    aside: bool,
    command: String,
    reply: Vec<String>,
}

/// The examples of a document below the top folder.
fn examples(document: &str) -> Vec<Example> {
    let text = std::fs::read_to_string(format!("{}/{document}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut found: Vec<Example> = Vec::new();
    let (mut in_block, mut in_example) = (false, false);
    for (line, number) in text.lines().zip(1..) {
        if line.starts_with("```") {
            (in_block, in_example) = (!in_block, false);
            continue;
        }
        let command = |marker| line.strip_prefix(marker).filter(|_| in_block);
        if let Some(command) = command("> ").or(command("other> ")) {
            let (place, aside) = (format!("{document}:{number}"), line.starts_with("other"));
            found.push(Example { place, aside, command: command.to_owned(), reply: Vec::new() });
            in_example = true;
        } else if in_example && let Some(example) = found.last_mut() {
            example.reply.push(line.to_owned());
        }
    }
    for example in &mut found {
        // Blank lines part examples from each other.
        while example.reply.last().is_some_and(String::is_empty) {
            example.reply.pop();
        }
    }
    found
}

/// The folder of the models here, as text.
fn models() -> String {
    let chat = required("REDIS_INFER_CHAT_MODEL");
    chat.parent().and_then(Path::to_str).unwrap().to_owned()
}

fn redis_cli(server: &Server, command: &str) -> Child {
    let command = command.replace("/models", &models());
    let mut cli = Command::new("redis-cli")
        .args(["-p", &server.port.to_string(), "--no-raw"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-cli runs; make setup installs it");
    writeln!(cli.stdin.take().unwrap(), "{command}").unwrap();
    cli
}

/// What redis-cli prints.
fn printed(server: &Server, command: &str) -> Vec<String> {
    let output = redis_cli(server, command).wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap().replace(&models(), "/models");
    // It adds how long a slow command took.
    let is_time = |line: &str| {
        let seconds = line.strip_prefix('(').and_then(|line| line.strip_suffix("s)"));
        seconds.is_some_and(|seconds| seconds.parse::<f64>().is_ok())
    };
    text.trim_end().lines().filter(|line| !is_time(line)).map(str::to_owned).collect()
}

/// As [`printed`], but INFER.PS is asked until there is a request, and INFER.CANCEL gets the id of that one.
fn run(server: &Server, example: &Example, last: &[String]) -> Vec<String> {
    if example.command == "INFER.PS" && example.reply != ["(empty array)"] {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = printed(server, "INFER.PS");
            if lines.iter().any(|line| line.contains("\"decoding\"")) || Instant::now() > deadline {
                return lines;
            }
        }
    }
    if example.command.starts_with("INFER.CANCEL") {
        let id = last.iter().find_map(|line| line.rsplit_once("(integer) ")).expect("an id in what INFER.PS printed").1;
        return printed(server, &format!("INFER.CANCEL {id}"));
    }
    printed(server, &example.command)
}

/// A line with `0` in the place of each number.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for char in line.chars() {
        let char = if char.is_ascii_digit() { '0' } else { char };
        if char != '0' || !shape.ends_with('0') {
            shape.push(char);
        }
    }
    // Redis prints a double as short as it can.
    shape.replace("0.0", "0")
}

fn line_is_like(expected: &str, printed: &str) -> bool {
    let (expected, printed) = (shape(expected), shape(printed));
    match expected.split_once('…') {
        Some((begin, end)) => printed.starts_with(begin) && printed.ends_with(end),
        None => expected == printed,
    }
}

/// Leaves out the texts of answers: the same model may choose other words on another CPU.
fn without_answers(lines: &mut [String]) {
    for at in 1..lines.len() {
        if lines[at - 1].ends_with(") \"text\"") {
            lines[at] = lines[at].split('"').next().unwrap_or_default().to_owned();
        }
    }
}

fn is_like(example: &Example, printed: &[String]) -> bool {
    let generates = ["INFER.GENERATE", "INFER.CHAT", "INFER.RAG"].iter().any(|name| example.command.starts_with(name));
    if let ([expected], [printed]) = (example.reply.as_slice(), printed)
        && generates
        && expected.starts_with('"')
    {
        return printed.starts_with('"');
    }
    let (mut expected, mut printed) = (example.reply.clone(), printed.to_vec());
    if generates {
        [&mut expected, &mut printed].into_iter().for_each(|lines| without_answers(lines));
    }
    if example.command.starts_with("KEYS") {
        for lines in [&mut expected, &mut printed] {
            lines.sort_by_key(|line| line.split_once(')').map(|(_, key)| key.to_owned()));
        }
    }
    let expected_rest = expected.iter().position(|line| line == "…");
    let compared = expected_rest.unwrap_or(expected.len());
    (expected_rest.is_some() || expected.len() == printed.len())
        && expected.iter().take(compared).zip(&printed).all(|(expected, printed)| line_is_like(expected, printed))
}

/// Runs all examples of a document in a server with the models of the demo and a reranker.
fn the_examples_hold(document: &str) {
    let server = Server::start();
    for (name, model) in [("chat", "REDIS_INFER_CHAT_MODEL"), ("embed", "REDIS_INFER_EMBED_MODEL")] {
        server.client().ok(&cmd!["INFER.LOAD", name, required(model).to_str().unwrap()]);
    }
    server.client().ok(&RANK.load());
    let (mut aside, mut last, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    let examples = examples(document);
    assert!(!examples.is_empty(), "{document} has examples");
    for example in &examples {
        if example.aside {
            aside.push(redis_cli(&server, &example.command));
            continue;
        }
        let printed = run(&server, example, &last);
        if !is_like(example, &printed) {
            let (place, command) = (&example.place, &example.command);
            wrong.push(format!("{place}: {command}\n{}\n", printed.join("\n")));
        }
        last = printed;
    }
    for mut client in aside {
        client.wait().unwrap();
    }
    assert!(wrong.is_empty(), "redis-cli prints something else than the document:\n{}", wrong.join("\n"));
}

#[test]
fn the_examples_of_the_readme_hold() {
    the_examples_hold("README.md");
}

#[test]
fn the_examples_of_the_reference_hold() {
    the_examples_hold("docs/REFERENCE.md");
}

#[test]
fn the_examples_about_indexes_hold() {
    the_examples_hold("docs/INDEXES.md");
}

#[test]
fn the_examples_about_the_cache_hold() {
    the_examples_hold("docs/CACHE.md");
}

#[test]
fn the_examples_of_the_command_reference_hold() {
    the_examples_hold("docs/COMMANDS.md");
}
