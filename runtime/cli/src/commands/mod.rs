//! One file per command. Every command answers whether its check passed.

mod batch;
mod evaluate;
mod filter;
mod inspect;
mod recommend;
mod verify;
mod watch;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::CommandFactory;
use slmrec_runtime::Recommender;

use crate::arguments::{BundleArguments, Cli, Command, EngineArguments};
use crate::report::EngineReport;
use crate::{bundle_search, output, telemetry};

/// Largest text file that is read.
const MAX_FILE_BYTES: u64 = 64 << 20;

pub(crate) fn run(cli: Cli) -> anyhow::Result<bool> {
    let runs_an_engine = match &cli.command {
        None
        | Some(Command::Batch(_) | Command::Evaluate(_) | Command::Verify(_) | Command::Watch(_)) => {
            true
        }
        Some(Command::Inspect(_) | Command::Completions { .. }) => false,
    };
    if runs_an_engine {
        // Before anything is read: standard input cannot be read twice.
        telemetry::disable()?;
    }
    match cli.command {
        None => recommend::run(&cli.recommend),
        Some(Command::Batch(arguments)) => batch::run(&arguments),
        Some(Command::Evaluate(arguments)) => evaluate::run(&arguments),
        Some(Command::Inspect(arguments)) => inspect::run(&arguments),
        Some(Command::Verify(arguments)) => verify::run(&arguments),
        Some(Command::Watch(arguments)) => watch::run(&arguments),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "slmrec-run", &mut script);
            output::print(&String::from_utf8_lossy(&script)).map(|()| true)
        }
    }
}

/// Opens the bundle that is meant with the engine that is asked for, and says which one runs.
fn open(
    bundle: &BundleArguments,
    engine: &EngineArguments,
) -> anyhow::Result<(Recommender, EngineReport, Duration)> {
    let started = Instant::now();
    let mut recommender = open_without_packs(bundle, engine)?;
    apply_packs(&mut recommender, engine)?;
    let took = started.elapsed();
    let report = EngineReport::from(recommender.engine());
    report.say();
    Ok((recommender, report, took))
}

fn open_without_packs(
    bundle: &BundleArguments,
    engine: &EngineArguments,
) -> anyhow::Result<Recommender> {
    let path = bundle_search::find(bundle.bundle.as_deref())?;
    Ok(Recommender::open(&path, &engine.options())?)
}

fn apply_packs(recommender: &mut Recommender, engine: &EngineArguments) -> anyhow::Result<()> {
    let mut packs = engine.pack.iter();
    packs.try_for_each(|pack| Ok(recommender.apply_pack(pack)?))
}

/// Reads a file of at most [`MAX_FILE_BYTES`]; `-` is standard input.
fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let source: io::Result<Box<dyn Read>> = if path == Path::new("-") {
        Ok(Box::new(io::stdin()))
    } else {
        File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let mut bytes = Vec::new();
    source
        .and_then(|source| source.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .with_context(|| path.display().to_string())?;
    anyhow::ensure!(
        bytes.len() as u64 <= MAX_FILE_BYTES,
        "{}: expected at most {MAX_FILE_BYTES} bytes, found more",
        path.display()
    );
    Ok(bytes)
}
