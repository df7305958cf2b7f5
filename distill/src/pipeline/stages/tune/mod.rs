//! `tune`: settings of one model, searched on the validation targets within a budget of training
//! time. The same search for ours and for the baselines, so that nobody is compared untuned.

mod halving;
mod journal;
mod space;

use std::time::{Duration, Instant};

use serde::Serialize;

use super::super::settings::Baseline;
use super::super::work_dir::Output;
use super::super::{PipelineError, PipelineSettings, StageRecord};
use super::{Context, baselines, distill, pretrain, teach};
use crate::train::TrainError;
use halving::Run;
use journal::Journal;
pub use journal::Trial;

/// What is tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Subject {
    /// The SASRec of `pretrain`
    Sasrec,
    /// The recurrent baseline
    Gru4rec,
    /// The baseline that fills in masked items
    Bert4rec,
    /// The language model of `teach`
    Teacher,
    /// The student of `distill`
    Student,
    /// The same student without a teacher
    CeOnly,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Sasrec,
        Self::Gru4rec,
        Self::Bert4rec,
        Self::Teacher,
        Self::Student,
        Self::CeOnly,
    ];

    /// As typed, and its folder.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sasrec => "sasrec",
            Self::Gru4rec => "gru4rec",
            Self::Bert4rec => "bert4rec",
            Self::Teacher => "teacher",
            Self::Student => "student",
            Self::CeOnly => "ce-only",
        }
    }

    fn output(self) -> Output {
        match self {
            Self::Sasrec => Output::SasRec,
            Self::Gru4rec => Output::Baseline(Baseline::Gru4Rec),
            Self::Bert4rec => Output::Baseline(Baseline::Bert4Rec),
            Self::Teacher => Output::Teacher,
            Self::Student | Self::CeOnly => Output::Students,
        }
    }

    fn epochs(self, settings: &PipelineSettings) -> usize {
        let train = match self {
            Self::Sasrec => &settings.pretrain.train,
            Self::Gru4rec => &settings.baselines.gru4rec.train,
            Self::Bert4rec => &settings.baselines.bert4rec.train,
            Self::Teacher => &settings.teach.train,
            Self::Student | Self::CeOnly => &settings.distill.train,
        };
        train.epochs
    }
}

/// What a search found.
#[derive(Clone, Debug, Serialize)]
pub struct TuneReport {
    /// What was tuned.
    pub subject: &'static str,
    /// Every training, in the order in which they were made.
    pub trials: Vec<Trial>,
    /// The best of those that were trained to the end, by its place in `trials`.
    pub best: Option<usize>,
    /// The settings as they were, by their place in `trials`, when they were trained.
    pub start: Option<usize>,
    /// Seconds of training, those of earlier runs of the same search included.
    pub seconds: f64,
    /// The settings with those of the best trial.
    #[serde(skip)]
    pub settings: PipelineSettings,
}

/// Trains until `budget` of training time is spent; what an interrupted search trained before counts.
///
/// # Errors
/// Missing earlier stages, or training that fails.
pub fn run(
    context: &Context<'_>,
    subject: Subject,
    budget: Duration,
) -> Result<TuneReport, PipelineError> {
    let space = space::space(subject, &context.settings);
    let epochs = subject.epochs(&context.settings);
    let folder = context.work.tuning().join(subject.name());
    let mut journal = Journal::open(context, subject, &folder)?;
    while journal.seconds() < budget.as_secs_f64() {
        let run = halving::next(epochs, &|run| journal.metric(run));
        let changes = space::draw(&space, context.settings.seed, run.trial);
        say(context, subject, run, &changes);
        let dir = folder.join(format!("trial-{}-epochs-{}", run.trial, run.epochs));
        let start = Instant::now();
        let own = trial_context(context, subject, &changes, run, dir.clone())?;
        match train(&own, subject) {
            Ok(record) => journal.add(run, &changes, &record)?,
            // A rate that is too high is an answer, too: the search goes on without it.
            Err(PipelineError::Train(error @ TrainError::NonFinite { .. })) if run.trial > 0 => {
                let line = format!("tune {}: counts as the worst: {error}", subject.name());
                context.reporter.say(&line);
                journal.add_failed(run, &changes, start.elapsed().as_secs_f64())?;
            }
            Err(error) => return Err(error),
        }
        // The figures are kept; the weights of a trial are not.
        std::fs::remove_dir_all(&dir).map_err(|e| super::super::stage::io_error(&dir, e))?;
    }
    report(context, subject, &journal, epochs)
}

fn say(context: &Context<'_>, subject: Subject, run: Run, changes: &[(String, toml::Value)]) {
    let values: Vec<String> = (changes.iter())
        .map(|(setting, value)| format!("{}={value}", short(subject, setting)))
        .collect();
    let what = match values.is_empty() {
        true => "the settings as they are".to_owned(),
        false => values.join(" "),
    };
    context.reporter.say(&format!(
        "tune {}: trial {}, {} epochs: {what}",
        subject.name(),
        run.trial,
        run.epochs
    ));
}

/// A setting without the section that all of a search's settings share.
#[must_use]
pub fn short(subject: Subject, setting: &str) -> &str {
    let section = space::section(subject);
    let rest = setting.strip_prefix(section).unwrap_or(setting);
    rest.trim_start_matches('.')
}

fn trial_context<'a>(
    context: &Context<'a>,
    subject: Subject,
    changes: &[(String, toml::Value)],
    run: Run,
    dir: std::path::PathBuf,
) -> Result<Context<'a>, PipelineError> {
    let epochs = format!("{}.train.epochs", space::section(subject));
    let epochs = (
        epochs,
        toml::Value::from(i64::try_from(run.epochs).unwrap_or(i64::MAX)),
    );
    let changes: Vec<_> = changes.iter().cloned().chain([epochs]).collect();
    let settings = context.settings.changed(&changes)?;
    Ok(context.with(settings, context.work.trial(subject.output(), dir)))
}

fn train(context: &Context<'_>, subject: Subject) -> Result<StageRecord, PipelineError> {
    let outcome = match subject {
        Subject::Sasrec => pretrain::run(context)?,
        Subject::Gru4rec => baselines::run_one(context, Baseline::Gru4Rec)?,
        Subject::Bert4rec => baselines::run_one(context, Baseline::Bert4Rec)?,
        Subject::Teacher => teach::run(context)?,
        Subject::Student => distill::run(context)?,
        Subject::CeOnly => distill::run_ce_only(context)?.ok_or_else(|| {
            PipelineError::Settings(
                "setting distill.ce_only: expected true to tune it, found false".to_owned(),
            )
        })?,
    };
    Ok(outcome.record)
}

fn report(
    context: &Context<'_>,
    subject: Subject,
    journal: &Journal,
    epochs: usize,
) -> Result<TuneReport, PipelineError> {
    let trials = journal.trials().to_vec();
    let to_the_end = (trials.iter().enumerate()).filter(|(_, trial)| trial.epochs == epochs);
    let best = to_the_end
        .clone()
        .max_by(|a, b| (a.1.ndcg_10.total_cmp(&b.1.ndcg_10)).then(b.0.cmp(&a.0)))
        .map(|(at, _)| at);
    let start = to_the_end.clone().find(|(_, trial)| trial.number == 0);
    let start = start.map(|(at, _)| at);
    let changes = best.map(|at| trials[at].changes()).unwrap_or_default();
    Ok(TuneReport {
        subject: subject.name(),
        best,
        start,
        seconds: journal.seconds(),
        settings: context.settings.changed(&changes)?,
        trials,
    })
}
