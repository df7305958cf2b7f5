//! `study`: its arguments, which variants they mean, and what is printed of them.

use std::num::NonZeroUsize;

use clap::Args;
use slmrec_core::Split;

use super::args::OutputFormat;
use super::print;
use crate::pipeline::stages::Context;
use crate::pipeline::stages::study::{self, Study};

/// `study`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  slmrec-distill study depth --values 1,2,4\n  slmrec-distill study losses\n  slmrec-distill study blocks --values 2,4 --format json\n\nThe earlier stages must have run. A study that was cut goes on with the same command."
)]
pub struct StudyArgs {
    /// The question
    #[arg(value_enum)]
    pub question: StudyQuestion,
    /// Depths or numbers of blocks to try [default: 1,2,4]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub values: Vec<NonZeroUsize>,
    /// Which targets are ranked. The test targets are for the last table, not for choices
    #[arg(long, value_enum, default_value_t = StudySplit::Validation)]
    pub split: StudySplit,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

/// What a study asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StudyQuestion {
    /// How deep must the student be?
    Depth,
    /// What does each term of the objective add?
    Losses,
    /// How many blocks should be aligned?
    Blocks,
    /// Who should teach by logits: nobody, the decoder, or the blend?
    Teacher,
}

/// The targets of a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StudySplit {
    /// The item before the last of each user.
    Validation,
    /// The last item of each user.
    Test,
}

/// What is tried of a number when nothing is asked for.
const VALUES: [usize; 3] = [1, 2, 4];

pub(super) fn run(args: &StudyArgs, context: &Context<'_>) -> anyhow::Result<()> {
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
