//! `report`: one HTML page about a work directory.

use std::path::PathBuf;

use clap::Args;

use super::args::OutputFormat;
use super::print;
use crate::pipeline::WorkDir;
use crate::report::gather::ToDo;
use crate::report::{Summary, write};

/// `report`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    slmrec-distill report                           # slmrec-work/report.html\n  \
    slmrec-distill report --work-dir other-work -o report.html\n\n\
    The page needs no network and no scripts. What was not made is listed on it with the command that makes it.")]
pub struct Report {
    /// Where to write [default: report.html in the work directory]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

pub(super) fn run(args: &Report, work: &WorkDir) -> anyhow::Result<()> {
    let summary = write(work, args.output.as_deref())?;
    match args.format {
        OutputFormat::Json => print::json(&summary),
        OutputFormat::Table => print::out(&text(&summary)),
    }
}

fn text(summary: &Summary) -> String {
    let mut lines = vec![format!(
        "{}: {:.0} kB",
        summary.path.display(),
        summary.bytes as f64 / 1e3
    )];
    lines.push(format!(
        "is the distilled student worth shipping? {}",
        summary.verdict.sentence
    ));
    if let Some(dir) = &summary.tensorboard {
        lines.push(format!("{}: the curves for TensorBoard", dir.display()));
    }
    for (what, list) in [
        ("missing", &summary.missing),
        ("out of date", &summary.stale),
    ] {
        let line = |to_do: &ToDo| format!("{what}: {} ({})", to_do.what, to_do.command);
        lines.extend(list.iter().map(line));
    }
    lines.join("\n")
}
