//! `redis-infer`: the companion program of the module. It prepares models and fills indexes; it is an
//! ordinary client of Redis and links nothing of the module.
#![forbid(unsafe_code)]

mod convert;
mod ingest;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Prepares models for redis-infer and fills its indexes.
#[derive(Debug, Parser)]
#[command(name = "redis-infer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Convert a BERT-family sentence encoder from Hugging Face layout to GGUF.
    Convert(convert::Arguments),
    /// Ingest the text files below directories into an index (INFER.INGEST).
    Ingest(ingest::Arguments),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Ingest(arguments) => ingest::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("redis-infer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
