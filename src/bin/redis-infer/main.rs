//! `redis-infer`: the companion program of the module. It prepares models, fills indexes and asks them; it is an
//! ordinary client of Redis and links nothing of the module.
#![forbid(unsafe_code)]

mod ask;
mod connection;
mod convert;
mod failure;
#[cfg(test)]
mod fake_server;
mod ingest;
mod output;
mod reply;
mod search;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::{Ending, Failure};

const EXIT_STATUS: &str = "Exit status: 0 all is well, 1 something failed, 2 wrong usage, 3 no connection to the \
    server, 4 search or ask found nothing, 130 ended by Ctrl-C or SIGTERM.";

/// Prepares models for redis-infer, fills its indexes and asks them.
#[derive(Debug, Parser)]
#[command(name = "redis-infer", version, after_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Convert a BERT-family sentence encoder or cross-encoder from Hugging Face layout to GGUF.
    #[command(after_help = EXIT_STATUS)]
    Convert(convert::Arguments),
    /// Ingest the text files below directories into an index.
    #[command(after_help = EXIT_STATUS)]
    Ingest(ingest::Arguments),
    /// Find the chunks of an index that are nearest to a query.
    #[command(after_help = EXIT_STATUS)]
    Search(search::Arguments),
    /// Have a question answered from an index.
    #[command(after_help = EXIT_STATUS)]
    Ask(ask::Arguments),
    /// Show the models and the work of the server, or an index.
    #[command(after_help = EXIT_STATUS)]
    Status(status::Arguments),
}

impl Command {
    fn run(&self) -> Result<Ending, Failure> {
        match self {
            Self::Convert(arguments) => Ok(convert::run(arguments).map(|()| Ending::Fine)?),
            Self::Ingest(arguments) => ingest::run(arguments),
            Self::Search(arguments) => search::run(arguments),
            Self::Ask(arguments) => ask::run(arguments),
            Self::Status(arguments) => status::run(arguments),
        }
    }

    /// Whether errors are told as JSON too.
    fn json(&self) -> bool {
        match self {
            Self::Convert(_) => false,
            Self::Ingest(arguments) => arguments.json,
            Self::Search(arguments) => arguments.json,
            Self::Ask(arguments) => arguments.json,
            Self::Status(arguments) => arguments.json,
        }
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    match command.run() {
        Ok(ending) => ending.into(),
        Err(failure) => {
            eprintln!("{}", failure.shown(command.json()));
            (&failure).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
