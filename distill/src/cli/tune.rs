//! `tune`: its arguments, and what is printed of a search.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use slmrec_core::atomic;

use super::args::OutputFormat;
use super::print;
use crate::pipeline::stages::Context;
use crate::pipeline::stages::tune::{self, Subject, Trial, TuneReport, short};

/// `tune`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  slmrec-distill tune sasrec --minutes 20\n  slmrec-distill tune gru4rec --minutes 20\n  slmrec-distill tune student --config pipeline.toml --minutes 60 -o tuned.toml\n\nThe stages before the one that is tuned must have run. The same command goes on where a search was\ncut; give more minutes to search on. Then: slmrec-distill run tuned.toml"
)]
pub struct Tune {
    /// What is tuned
    #[arg(value_enum)]
    pub subject: Subject,
    /// Minutes of training, those of earlier runs of the same search included
    #[arg(long, default_value_t = 30.0, value_name = "MINUTES")]
    pub minutes: f64,
    /// Where to write all settings with the best ones [default: settings.toml in the search's folder]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// table or json
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

pub(super) fn run(args: &Tune, context: &Context<'_>) -> anyhow::Result<()> {
    let budget = Duration::try_from_secs_f64(args.minutes * 60.0).map_err(|_| {
        anyhow::anyhow!(
            "--minutes: expected a number above 0, found {}",
            args.minutes
        )
    })?;
    let report = tune::run(context, args.subject, budget)?;
    let folder = context.work().tuning().join(args.subject.name());
    let output = (args.output.clone()).unwrap_or_else(|| folder.join("settings.toml"));
    if report.best.is_some() {
        let text = toml::to_string(&report.settings).context("settings as TOML")?;
        atomic::write(&output, text.as_bytes()).with_context(|| output.display().to_string())?;
        let line = format!("the settings with the best of them: {}", output.display());
        context.reporter.say(&line);
    } else {
        let line = "no trial was trained to the end: give more minutes";
        context.reporter.say(line);
    }
    match args.format {
        OutputFormat::Json => print::json(&report),
        OutputFormat::Table => print::out(&table(args.subject, &report)),
    }
}

/// The trials, the best first; those of more epochs before those of fewer.
fn table(subject: Subject, report: &TuneReport) -> String {
    let mut table = print::table(&[
        "trial",
        "epochs",
        "validation NDCG@10",
        "seconds",
        "settings",
    ]);
    let mut trials: Vec<&Trial> = report.trials.iter().collect();
    trials.sort_by(|a, b| (b.epochs.cmp(&a.epochs)).then(b.ndcg_10.total_cmp(&a.ndcg_10)));
    for trial in trials {
        let settings: Vec<String> = (trial.settings.iter())
            .map(|(setting, value)| format!("{}={value}", short(subject, setting)))
            .collect();
        table.add_row([
            trial.number.to_string(),
            trial.epochs.to_string(),
            format!("{:.4}", trial.ndcg_10),
            format!("{:.0}", trial.seconds),
            match settings.is_empty() {
                true => "as they were".to_owned(),
                false => settings.join(" "),
            },
        ]);
    }
    let figure = |at: Option<usize>| {
        at.map_or_else(
            || "none was trained to the end".to_owned(),
            |at| format!("{:.4}", report.trials[at].ndcg_10),
        )
    };
    format!(
        "{table}\nas they were {}, best {}, {} trainings in {:.0} s\n\
         The best of many is best by chance, too: the test targets decide.",
        figure(report.start),
        figure(report.best),
        report.trials.len(),
        report.seconds
    )
}
