//! `study`: its arguments, which variants they mean, and what is printed of them.

use std::num::NonZeroUsize;

use clap::Args;
use slmrec_core::Split;

use super::args::OutputFormat;
use super::print;
use crate::pipeline::stages::Context;
use crate::pipeline::stages::study::{self, Study, TrainingFigures, TriedRate};
use crate::train::BlockMap;

/// `study`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  slmrec-distill study depth --values 1,2,4\n  slmrec-distill study depth --readout\n  slmrec-distill study losses --rates 5e-4,1e-3,2e-3\n  slmrec-distill study blocks --values 2,4 --map 2:1,8:4 --format json\n  slmrec-distill study data-size --shares 0.25,0.5,1\n  slmrec-distill study items --config slmrec-work/pipeline.toml\n\nThe earlier stages must have run. A study that was cut goes on with the same command."
)]
pub struct StudyArgs {
    /// The question
    #[arg(value_enum)]
    pub question: StudyQuestion,
    /// Depths or numbers of blocks to try [default: 1,2,4]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub values: Vec<NonZeroUsize>,
    /// With `blocks`: layers to align, as pairs of a teacher's and a student's; may be given again
    #[arg(long, value_name = "PAIRS")]
    pub map: Vec<BlockMap>,
    /// With `data-size`: shares of the users to train on [default: 0.25,0.5,1]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub shares: Vec<f64>,
    /// Train every student at each of these learning rates, and keep the one that the validation targets
    /// like best [default: the one rate of the settings]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub rates: Vec<f64>,
    /// With `depth`: train nothing, read the teacher after each of its layers instead
    #[arg(long)]
    pub readout: bool,
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
    /// How many blocks should be aligned, or which layers?
    Blocks,
    /// Who should teach by logits: nobody, the decoder, or the blend?
    Teacher,
    /// Should the teacher be finished, or learn beside the student?
    Online,
    /// How many users does the student need?
    DataSize,
    /// What should the student begin as: which pretrained layers, or random weights?
    Start,
    /// What item embeddings should it begin with: SASRec's, of titles, or random ones?
    Items,
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

/// Shares of the users that are tried when nothing is asked for.
const SHARES: [f64; 3] = [0.25, 0.5, 1.0];

fn question(args: &StudyArgs) -> anyhow::Result<Study> {
    let values = match args.values.as_slice() {
        // Who asks for maps only gets maps only.
        [] if !args.map.is_empty() => Vec::new(),
        [] => VALUES.to_vec(),
        asked => asked.iter().map(|value| value.get()).collect(),
    };
    let study = match args.question {
        StudyQuestion::Depth if args.readout => Study::Readout,
        StudyQuestion::Depth => Study::Depth(values),
        StudyQuestion::Blocks => Study::Blocks(values, args.map.clone()),
        StudyQuestion::Losses => Study::Losses,
        StudyQuestion::Teacher => Study::Teacher,
        StudyQuestion::Online => Study::Online,
        StudyQuestion::Start => Study::Start,
        StudyQuestion::Items => Study::Items,
        StudyQuestion::DataSize if args.shares.is_empty() => Study::DataSize(SHARES.to_vec()),
        StudyQuestion::DataSize => Study::DataSize(args.shares.clone()),
    };
    let numbers = matches!(study, Study::Depth(_) | Study::Blocks(..));
    let strangers = [
        ("--values", !args.values.is_empty() && !numbers),
        (
            "--map",
            !args.map.is_empty() && !matches!(study, Study::Blocks(..)),
        ),
        (
            "--shares",
            !args.shares.is_empty() && !matches!(study, Study::DataSize(_)),
        ),
        ("--readout", args.readout && study != Study::Readout),
        ("--rates", !args.rates.is_empty() && study == Study::Readout),
    ];
    if let Some(rate) = args
        .rates
        .iter()
        .find(|rate| !(**rate > 0.0 && **rate < 1.0))
    {
        anyhow::bail!("--rates: expected numbers above 0 and below 1, found {rate}");
    }
    match strangers.iter().find(|(_, given)| *given) {
        Some((flag, _)) => {
            anyhow::bail!(
                "{flag}: expected none for `study {}`, which does not vary it",
                study.name()
            )
        }
        None => Ok(study),
    }
}

pub(super) fn run(args: &StudyArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let study = question(args)?;
    let split = match args.split {
        StudySplit::Validation => Split::Validation,
        StudySplit::Test => Split::Test,
    };
    let report = study::run(context, &study, &args.rates, split)?;
    if args.format == OutputFormat::Json {
        return print::json(&report);
    }
    let mut table = print::table(&[
        "student",
        "seconds of training",
        "rate",
        "validation NDCG@10",
        "at other rates",
    ]);
    for row in &report.comparison.rows {
        if let Some(training) = report.trainings.get(&row.system) {
            table.add_row([
                row.system.clone(),
                format!("{:.0}", training.seconds),
                (training.learning_rate).map_or_else(String::new, |rate| rate.to_string()),
                metric(training.validation_ndcg_10),
                others(training),
            ]);
        }
    }
    if report.trainings.is_empty() {
        return print::out(&report.comparison.to_string());
    }
    print::out(&format!("{}\n{table}", report.comparison))
}

fn metric(found: Option<f64>) -> String {
    found.map_or_else(String::new, |metric| format!("{metric:.4}"))
}

/// What the rates gave that were tried and not taken.
fn others(training: &TrainingFigures) -> String {
    let other = |tried: &&TriedRate| Some(tried.learning_rate) != training.learning_rate;
    let shown = (training.tried.iter().filter(other)).map(|tried| {
        format!(
            "{}: {}",
            tried.learning_rate,
            metric(tried.validation_ndcg_10)
        )
    });
    shown.collect::<Vec<_>>().join(", ")
}
