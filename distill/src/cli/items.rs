//! `items`: its arguments and what is printed.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::args::OutputFormat;
use super::print;
use crate::cold::item_pack::{Catalog, WrittenPack};
use crate::pipeline::PipelineError;
use crate::pipeline::stages::Context;
use crate::pipeline::stages::items::{AddReport, NewItemsRequest, add};

/// `items`.
#[derive(Debug, Args)]
pub struct Items {
    /// What to do.
    #[command(subcommand)]
    pub command: ItemsCommand,
}

/// What can be done with the items of a bundle.
#[derive(Debug, Subcommand)]
pub enum ItemsCommand {
    /// Give new items rows by their titles, as a pack of a bundle; the model stays as it is
    Add(AddItems),
    /// Write a pack after which items are no longer recommended
    Retire(RetireItems),
}

/// `items add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    slmrec-distill cold --titles minilm         # fits the map, once a student\n  \
    slmrec-distill items add new.csv --bundle student.slmrec -o student.delta\n  \
    slmrec-run history.json --pack student.delta\n\n\
    The file is read as `prepare --items` reads one; its settings apply ([prepare.read]). Items that \
    the bundle has already are left out.")]
pub struct AddItems {
    /// File of ids and titles, with categories where it has them
    pub items: PathBuf,
    /// The bundle; it is not changed
    #[arg(long, value_name = "FILE")]
    pub bundle: PathBuf,
    /// A pack that devices have applied before; can be given several times, in order
    #[arg(long, value_name = "FILE")]
    pub pack: Vec<PathBuf>,
    /// The text encoder of the map [default: minilm]
    #[arg(long, value_name = "ENCODER")]
    pub titles: Option<PathBuf>,
    /// Where to write the pack
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

/// `items retire`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    slmrec-distill items retire 1042 77 --bundle student.slmrec -o retired.delta")]
pub struct RetireItems {
    /// Ids of the items
    #[arg(value_name = "ID", required_unless_present = "file")]
    pub ids: Vec<String>,
    /// File with more of them, one id a line
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The bundle; it is not changed
    #[arg(long, value_name = "FILE")]
    pub bundle: PathBuf,
    /// A pack that devices have applied before; can be given several times, in order
    #[arg(long, value_name = "FILE")]
    pub pack: Vec<PathBuf>,
    /// Where to write the pack
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

pub(super) fn run(args: &Items, context: &Context<'_>) -> anyhow::Result<()> {
    match &args.command {
        ItemsCommand::Add(args) => {
            let request = NewItemsRequest {
                file: args.items.clone(),
                bundle: args.bundle.clone(),
                packs: args.pack.clone(),
                output: args.output.clone(),
            };
            let report = add(context, &request)?;
            match args.format {
                OutputFormat::Json => print::json(&report),
                OutputFormat::Table => print::out(&added(&report)),
            }
        }
        ItemsCommand::Retire(args) => {
            let mut ids = args.ids.clone();
            if let Some(file) = &args.file {
                let text = std::fs::read_to_string(file);
                let text = text.with_context(|| file.display().to_string())?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                ids.extend(lines.map(str::to_owned));
            }
            let pack = Catalog::open(&args.bundle, &args.pack)
                .and_then(|catalog| catalog.write_retired(&ids, &args.output))
                .map_err(PipelineError::from)?;
            match args.format {
                OutputFormat::Json => print::json(&pack),
                OutputFormat::Table => print::out(&retired(&pack)),
            }
        }
    }
}

fn added(report: &AddReport) -> String {
    let mut text = format!(
        "{}: {} new items by their titles ({}); {:.2} MB",
        report.pack.path.display(),
        report.pack.added,
        report.map,
        report.pack.bytes as f64 / 1e6
    );
    for (number, why) in [
        (report.known, "are there already"),
        (report.without_title, "have no title"),
    ] {
        if number > 0 {
            text.push_str(&format!("\n{number} items {why} and were left out"));
        }
    }
    text
}

fn retired(pack: &WrittenPack) -> String {
    format!(
        "{}: {} items are no longer recommended",
        pack.path.display(),
        pack.retired
    )
}
