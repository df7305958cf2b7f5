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

#[cfg(test)]
mod tests {
    use slmrec_core::bootstrap::Interval;
    use slmrec_core::dataset::Split;

    use super::*;
    use crate::evaluate::seeds::{SeedsDifference, SeedsRow};

    fn figure(mean: f64, half: f64, each: &[f64]) -> OverRuns {
        OverRuns {
            mean: Interval {
                mean,
                low: mean - half,
                high: mean + half,
            },
            each: each.to_vec(),
        }
    }

    #[test]
    fn means_single_runs_marks_and_what_is_missing_are_shown() {
        let above = SeedsDifference {
            hr_10: figure(0.02, 0.03, &[-0.01, 0.05]),
            ndcg_10: figure(0.02, 0.01, &[0.015, 0.025]),
        };
        let row = |system: &str, mean: f64, difference| SeedsRow {
            system: system.to_owned(),
            hr_10: figure(mean, 0.01, &[mean - 0.001, mean + 0.001]),
            ndcg_10: figure(mean / 2.0, 0.01, &[mean / 2.0; 2]),
            difference,
        };
        let said = text(&SeedsTable {
            runs: ["work42", "work43"].map(PathBuf::from).to_vec(),
            dataset: "films".to_owned(),
            split: Split::Test,
            users: 20,
            system: "student".to_owned(),
            rows: vec![row("SASRec", 0.2, Some(above)), row("student", 0.22, None)],
            left_out: vec!["GRU4Rec".to_owned()],
        });
        for part in [
            "films: test targets of 20 users",
            "means of 2 runs: work42, work43",
            "0.2000 ±0.010",
            "(0.1990, 0.2010)",
            "+0.0200 [-0.0100, +0.0500]  ",
            "+0.0200 [+0.0100, +0.0300] *",
            "(+0.0150, +0.0250)",
            "not in every run, left out: GRU4Rec",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
