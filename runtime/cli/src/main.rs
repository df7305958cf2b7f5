//! `slmrec-run`: recommendations from a bundle.

mod arguments;
mod batch;
mod bundle_search;
mod commands;
mod failure;
mod machine;
mod output;
mod report;
mod telemetry;
mod watch;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match arguments::Cli::try_parse() {
        Ok(cli) => failure::exit_code(commands::run(cli)),
        Err(error) => failure::usage(&error),
    }
}
