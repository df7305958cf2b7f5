//! `seeds`: runs with other seeds as one.

use std::path::PathBuf;

use clap::Args;

use super::args::OutputFormat;
use super::print;
use crate::evaluate::compare::CompareError;
use crate::evaluate::rank_files::read_run;
use crate::evaluate::seeds::{OverRuns, SeedsTable, over_seeds};

/// `seeds`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    slmrec-distill run ratings.csv --seed 42 --work-dir work42\n  \
    slmrec-distill run ratings.csv --seed 43 --work-dir work43\n  \
    slmrec-distill run ratings.csv --seed 44 --work-dir work44\n  \
    slmrec-distill seeds work42 work43 work44\n\n\
    A run is what `compare` takes: a work directory, the folder of an evaluation, or a rank file.")]
pub struct Seeds {
    /// Runs of the same data and settings, each with another seed
    #[arg(value_name = "RUN", required = true, num_args = 2..)]
    pub runs: Vec<PathBuf>,
    /// The system that the others are compared with [default: the one to ship]
    #[arg(long, value_name = "NAME")]
    pub system: Option<String>,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

pub(super) fn run(args: &Seeds) -> anyhow::Result<()> {
    let runs = (args.runs.iter())
        .map(|path| read_run(path).map_err(CompareError::from))
        .collect::<Result<Vec<_>, _>>()?;
    let table = over_seeds(&runs, args.system.as_deref())?;
    match args.format {
        OutputFormat::Json => print::json(&table),
        OutputFormat::Table => print::out(&text(&table)),
    }
}

fn text(seeds: &SeedsTable) -> String {
    let SeedsTable {
        runs,
        dataset,
        split,
        users,
        system,
        ..
    } = seeds;
    let split = format!("{split:?}").to_lowercase();
    let paths: Vec<String> = runs.iter().map(|run| run.display().to_string()).collect();
    let mut text = format!(
        "{dataset}: {split} targets of {users} users, full ranking, seen items removed\n\
         means of {} runs: {}\n\n{}\n\
         {system} minus each system, on the same users. A user's metric is the mean over the runs; 95 % \
         bootstrap intervals over users; * where one excludes zero. In brackets: each run alone.\n",
        runs.len(),
        paths.join(", "),
        table(seeds),
    );
    if !seeds.left_out.is_empty() {
        let names = seeds.left_out.join("; ");
        text.push_str(&format!("not in every run, left out: {names}\n"));
    }
    text
}

fn table(seeds: &SeedsTable) -> String {
    let difference = format!("{}\nminus it", seeds.system);
    let header = ["system", "HR@10", &difference, "NDCG@10", &difference];
    let mut table = print::table(&header);
    for row in &seeds.rows {
        let [hr_10, ndcg_10] = match &row.difference {
            Some(of) => [&of.hr_10, &of.ndcg_10].map(signed),
            None => [String::new(), String::new()],
        };
        table.add_row([
            row.system.clone(),
            plain(&row.hr_10),
            hr_10,
            plain(&row.ndcg_10),
            ndcg_10,
        ]);
    }
    print::right_align(&mut table, 1);
    table.to_string()
}

/// `.1357 ±.010` over `(.1355, .1354, .1365)`
fn plain(figure: &OverRuns) -> String {
    let half = (figure.mean.high - figure.mean.low) / 2.0;
    let each: Vec<String> = figure.each.iter().map(|one| format!("{one:.4}")).collect();
    format!("{:.4} ±{half:.3}\n({})", figure.mean.mean, each.join(", "))
}

fn signed(figure: &OverRuns) -> String {
    let mark = match figure.mean.excludes_zero() {
        true => '*',
        false => ' ',
    };
    let each: Vec<String> = figure.each.iter().map(|one| format!("{one:+.4}")).collect();
    format!(
        "{:+.4} [{:+.4}, {:+.4}] {mark}\n({})",
        figure.mean.mean,
        figure.mean.low,
        figure.mean.high,
        each.join(", ")
    )
}
