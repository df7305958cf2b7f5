//! `compare`: two runs on the same users.

use std::path::PathBuf;

use clap::Args;
use slmrec_core::bootstrap::Interval;

use super::args::OutputFormat;
use super::print;
use crate::evaluate::compare::{
    CompareError, ExampleUser, Examples, RunComparison, Selection, SystemPair, compare_runs,
};
use crate::evaluate::rank_files::read_run;

/// `compare`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    slmrec-distill compare old-work slmrec-work\n  \
    slmrec-distill compare slmrec-work slmrec-work --system \"student, distilled\" --against SASRec\n  \
    slmrec-distill compare a/evaluation/ranks/SASRec.json b/evaluation/ranks/SASRec.json --format json\n\n\
    A run is a work directory, the folder of an evaluation, or a rank file of evaluation/ranks.\n\
    Differences are B - A, paired over users, with 95 % bootstrap intervals.")]
pub struct Compare {
    /// The first run A
    #[arg(value_name = "A")]
    pub first: PathBuf,
    /// The second run B
    #[arg(value_name = "B")]
    pub second: PathBuf,
    /// The system of B [default: each that both have]
    #[arg(long, value_name = "NAME")]
    pub system: Option<String>,
    /// The system of A [default: that of the same name]
    #[arg(long, value_name = "NAME")]
    pub against: Option<String>,
    /// The dataset, for the titles of the examples [default: beside the evaluation]
    #[arg(long, value_name = "DIR")]
    pub dataset: Option<PathBuf>,
    /// How many users are shown who gained, and how many who lost
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub examples: usize,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

pub(super) fn run(args: &Compare) -> anyhow::Result<()> {
    let first = read_run(&args.first).map_err(CompareError::from)?;
    let second = read_run(&args.second).map_err(CompareError::from)?;
    let selection = Selection {
        system: args.system.clone(),
        against: args.against.clone(),
        examples: args.examples,
    };
    let beside = || second.dataset.as_deref().or(first.dataset.as_deref());
    let dataset = args.dataset.as_deref().or_else(beside);
    let comparison = compare_runs(&first, &second, &selection, dataset)?;
    match args.format {
        OutputFormat::Json => print::json(&comparison),
        OutputFormat::Table => print::out(&text(&comparison)),
    }
}

fn text(comparison: &RunComparison) -> String {
    let RunComparison {
        first,
        second,
        dataset,
        split,
        users,
        ..
    } = comparison;
    let split = format!("{split:?}").to_lowercase();
    let head = format!(
        "A {}\nB {}\n{dataset}: {split} targets of {users} users, full ranking, seen items removed",
        first.display(),
        second.display()
    );
    format!(
        "{head}\n\n{}\n{DEFINITION}\n{}",
        table(&comparison.pairs),
        examples(&comparison.examples)
    )
}

const DEFINITION: &str = "B - A: paired bootstrap over the same users; * where the 95 % interval \
    excludes zero. gained, lost: users whose target stands nearer to the top in B, or farther; in \
    brackets those of them who entered or left the first 10.";

fn table(pairs: &[SystemPair]) -> String {
    let header = [
        "system",
        "HR@10 A",
        "HR@10 B",
        "B - A",
        "NDCG@10 A",
        "NDCG@10 B",
        "B - A",
        "gained",
        "lost",
        "same",
    ];
    let mut table = print::table(&header);
    for pair in pairs {
        let name = match pair.first == pair.second {
            true => pair.second.clone(),
            false => format!("{}\nagainst {}", pair.second, pair.first),
        };
        let mean = |interval: Interval| format!("{:.4}", interval.mean);
        let changes = pair.changes;
        table.add_row([
            name,
            mean(pair.first_metrics.hr_10),
            mean(pair.second_metrics.hr_10),
            difference(pair.difference.hr_10),
            mean(pair.first_metrics.ndcg_10),
            mean(pair.second_metrics.ndcg_10),
            difference(pair.difference.ndcg_10),
            format!("{} ({})", changes.gained, changes.entered_top_10),
            format!("{} ({})", changes.lost, changes.left_top_10),
            changes.unchanged.to_string(),
        ]);
    }
    print::right_align(&mut table, 1);
    table.to_string()
}

fn difference(interval: Interval) -> String {
    let mark = if interval.excludes_zero() { '*' } else { ' ' };
    let Interval { mean, low, high } = interval;
    format!("{mean:+.4} {mark}\n[{low:+.4}, {high:+.4}]")
}

fn examples(examples: &Examples) -> String {
    let mut text = String::new();
    for (what, users) in [("gained", &examples.gained), ("lost", &examples.lost)] {
        if users.is_empty() {
            continue;
        }
        let names = match examples.first == examples.second {
            true => examples.second.clone(),
            false => format!("{} against {}", examples.second, examples.first),
        };
        text.push_str(&format!("\nUsers who {what} ({names})\n"));
        users.iter().for_each(|user| text.push_str(&example(user)));
    }
    text
}

fn example(user: &ExampleUser) -> String {
    let ranks = format!("rank {} -> {}", user.first_rank, user.second_rank);
    let Some(data) = &user.data else {
        return format!(
            "  user {} of the dataset: {ranks} (no dataset found: --dataset names it)\n",
            user.place
        );
    };
    let left_out = match data.history_length > data.history.len() {
        true => "... | ",
        false => "",
    };
    format!(
        "  {}: {ranks} of {}\n    after {left_out}{}\n",
        data.user,
        data.target,
        data.history.join(" | ")
    )
}
