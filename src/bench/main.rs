//! `redis-infer-bench`: measures a server with the module, as an ordinary client. The scripts that start such a server
//! call it: `make bench`, `make quality`, `make scale`.
#![forbid(unsafe_code)]

mod chunk_kv;
mod client;
mod compare;
mod quality;
mod scale;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures a server with the redis-infer module.
#[derive(Debug, Parser)]
#[command(name = "redis-infer-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What KV CHUNK saves, and what it costs in answers.
    ChunkKv(chunk_kv::Arguments),
    /// How often INFER.SEARCH finds what was asked for, beside an exact search and BM25.
    Quality(quality::Arguments),
    /// What INFER.SEARCH and INFER.INGEST cost as an index grows.
    Scale(scale::Arguments),
    /// The module beside llama-server.
    Compare(Box<compare::Arguments>),
    /// Keeps one CPU busy until it is killed: a neighbour for the others.
    #[command(hide = true)]
    Burn,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::ChunkKv(arguments) => chunk_kv::run(&arguments),
        Command::Quality(arguments) => quality::run(&arguments),
        Command::Scale(arguments) => scale::run(&arguments),
        Command::Compare(arguments) => compare::run(*arguments),
        Command::Burn => compare::burn(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("redis-infer-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
