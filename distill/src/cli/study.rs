//! `study`: which variants, and what is printed of them.

use slmrec_core::Split;

use super::args::{OutputFormat, Study as Arguments, StudyQuestion, StudySplit};
use super::print;
use crate::pipeline::stages::Context;
use crate::pipeline::stages::study::{self, Study};

/// What is tried of a number when nothing is asked for.
const VALUES: [usize; 3] = [1, 2, 4];

pub(super) fn run(args: &Arguments, context: &Context<'_>) -> anyhow::Result<()> {
    let values = || match args.values.as_slice() {
        [] => VALUES.to_vec(),
        asked => asked.iter().map(|value| value.get()).collect(),
    };
    let study = match args.question {
        StudyQuestion::Depth => Study::Depth(values()),
        StudyQuestion::Blocks => Study::Blocks(values()),
        StudyQuestion::Losses => Study::Losses,
        StudyQuestion::Teacher => Study::Teacher,
    };
    if matches!(study, Study::Losses | Study::Teacher) && !args.values.is_empty() {
        anyhow::bail!(
            "--values: expected none for `study {}`, which has no number to vary",
            study.name()
        );
    }
    let split = match args.split {
        StudySplit::Validation => Split::Validation,
        StudySplit::Test => Split::Test,
    };
    let report = study::run(context, &study, split)?;
    if args.format == OutputFormat::Json {
        return print::json(&report);
    }
    let mut table = print::table(&["student", "seconds of training", "validation NDCG@10"]);
    for row in &report.comparison.rows {
        if let Some(training) = report.trainings.get(&row.system) {
            table.add_row([
                row.system.clone(),
                format!("{:.0}", training.seconds),
                format!("{:.4}", training.validation_ndcg_10),
            ]);
        }
    }
    print::out(&format!("{}\n{table}", report.comparison))
}
