//! `cold`: its arguments and what is printed.

use std::path::PathBuf;

use clap::Args;
use slmrec_core::bootstrap::Interval;

use super::args::OutputFormat;
use super::print;
use crate::cold::{ColdReport, ColdRow};
use crate::pipeline::stages::{self, Context};

/// `cold`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  slmrec-distill fetch minilm\n  slmrec-distill cold --titles minilm\n\nSASRec is trained once more, without some of the items."
)]
pub struct Cold {
    /// The text encoder: the folder of a BERT, or a fetched name such as minilm
    #[arg(long, value_name = "ENCODER")]
    pub titles: Option<PathBuf>,
    /// Share of the items that are kept out of training; at least 20 items [default: 0.05]
    #[arg(long, value_name = "SHARE")]
    pub held_out: Option<f64>,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

/// Maps shown of those that were tried.
const SHOWN: usize = 5;

pub(super) fn run(args: &Cold, context: &Context<'_>) -> anyhow::Result<()> {
    let (report, _) = stages::cold::run(context)?;
    match args.format {
        OutputFormat::Json => print::json(&report),
        OutputFormat::Table => print::out(&text(&report)),
    }
}

fn text(report: &ColdReport) -> String {
    let mut table = print::table(&[
        "system",
        "HR@10, all items",
        "HR@50, all items",
        "HR@10, cold items",
        "HR@50, cold items",
    ]);
    let rows = report.systems.iter().chain([&report.difference]);
    for row in rows {
        let ColdRow {
            system,
            all_10,
            all_50,
            cold_10,
            cold_50,
        } = row;
        let figures = [all_10, all_50, cold_10, cold_50].map(figure);
        table.add_row(std::iter::once(system.clone()).chain(figures));
    }
    print::right_align(&mut table, 1);
    let mut tried = print::table(&["best of the maps", "HR@10, all items", "mean cosine"]);
    for map in report.tried.iter().take(SHOWN) {
        tried.add_row([
            map.choice.to_string(),
            format!("{:.4}", map.hr_10),
            format!("{:.4}", map.cosine),
        ]);
    }
    print::right_align(&mut tried, 1);
    let [items, targets] = report.choosing;
    format!(
        "{}\n{table}\n{} maps, chosen on {targets} targets of {items} trained items\n{tried}\n\
         for use: {}, fitted on {} items of {}",
        report.summary(),
        report.tried.len(),
        report
            .tried
            .first()
            .map_or_else(String::new, |map| map.choice.to_string()),
        report.shipped.items,
        report.shipped.table,
    )
}

fn figure(interval: &Interval) -> String {
    let Interval { mean, low, high } = interval;
    format!("{mean:.4}\n[{low:.4}, {high:.4}]")
}
