//! Progress on stderr: bars with an estimate on a terminal, plain lines elsewhere.

use std::cell::Cell;
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::pipeline::{Counter, Reporter};
use crate::train::{EpochReport, StepReport, TrainError, TrainObserver};

/// Pause between two plain lines of one counter.
const PLAIN_INTERVAL: Duration = Duration::from_secs(15);

/// The reporter of the command line.
#[derive(Debug)]
pub(super) struct TerminalReporter {
    terminal: bool,
    quiet: bool,
}

impl TerminalReporter {
    /// Bars if stderr is a terminal; nothing at all if `quiet`.
    #[must_use]
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            quiet,
        }
    }

    fn bar(&self, label: &str, total: u64) -> ProgressBar {
        if self.quiet || !self.terminal {
            return ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let template = "{prefix:<10} [{bar:30}] {percent:>3}% {elapsed} (ETA {eta}) {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(label.to_owned());
        bar
    }

    fn plain(&self) -> bool {
        !self.quiet && !self.terminal
    }
}

impl Reporter for TerminalReporter {
    fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    fn counter(&self, label: &str, total: u64) -> Box<dyn Counter + '_> {
        Box::new(BarCounter {
            bar: self.bar(label, total),
            label: label.to_owned(),
            total,
            plain: self.plain().then(|| Cell::new(Instant::now())),
        })
    }

    fn training(&self, label: &str) -> Box<dyn TrainObserver + '_> {
        Box::new(TrainingProgress {
            reporter: self,
            label: label.to_owned(),
            bar: None,
            last_line: Instant::now(),
        })
    }
}

struct BarCounter {
    bar: ProgressBar,
    label: String,
    total: u64,
    /// When the last plain line was printed, where plain lines are printed.
    plain: Option<Cell<Instant>>,
}

impl Counter for BarCounter {
    fn set(&self, done: u64) {
        self.bar.set_position(done);
        if let Some(last) = &self.plain
            && last.get().elapsed() >= PLAIN_INTERVAL
        {
            last.set(Instant::now());
            let percent = 100 * done / self.total.max(1);
            eprintln!("{}: {percent}%", self.label);
        }
    }
}

impl Drop for BarCounter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Bars and lines of a training run.
struct TrainingProgress<'a> {
    reporter: &'a TerminalReporter,
    label: String,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl TrainingProgress<'_> {
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) if !bar.is_hidden() => bar.suspend(|| eprintln!("{text}")),
            _ => self.reporter.say(text),
        }
    }
}

impl TrainObserver for TrainingProgress<'_> {
    fn on_step(&mut self, report: &StepReport<'_>) {
        let losses = terms(report.losses.iter().map(|(name, value)| (*name, *value)));
        let bar = self
            .bar
            .get_or_insert_with(|| self.reporter.bar(&self.label, report.steps_total));
        bar.set_position(report.step);
        bar.set_message(format!("epoch {} {losses}", report.epoch));
        if self.reporter.plain() && self.last_line.elapsed() >= PLAIN_INTERVAL {
            self.last_line = Instant::now();
            eprintln!(
                "{}: epoch {}, step {} of {}, {losses}, {:.0} examples/s",
                self.label,
                report.epoch,
                report.step,
                report.steps_total,
                report.examples_per_second,
            );
        }
    }

    fn on_epoch(&mut self, report: &EpochReport) {
        let losses = terms(
            report
                .losses
                .iter()
                .map(|(name, value)| (name.as_str(), *value)),
        );
        let (label, epoch, train_seconds) = (&self.label, report.epoch, report.train_seconds);
        let Some(metric) = report.metric else {
            return self.line(&format!(
                "{label}: epoch {epoch}: {losses} ({train_seconds:.0} s)"
            ));
        };
        let best = if report.best { " best" } else { "" };
        self.line(&format!(
            "{label}: epoch {epoch}: {losses}, validation NDCG@10 {metric:.4}{best} \
             ({train_seconds:.0} s + {:.0} s validation)",
            report.validation_seconds,
        ));
    }

    fn on_checkpoint(&mut self, _path: &Path, _step: u64) {}

    fn on_save_failed(&mut self, error: &TrainError, step: u64) {
        let error = super::indent_hint(&error.to_string());
        self.line(&format!(
            "{}: warning: step {step}: {error}\n  training goes on, the next save tries again",
            self.label
        ));
    }

    fn on_fallback(&mut self, error: &TrainError, step: u64) {
        let error = error.to_string();
        let what = error.lines().next().unwrap_or_default();
        self.line(&format!(
            "{}: warning: {what}\n  going on from the state before it, step {step}",
            self.label
        ));
    }
}

impl Drop for TrainingProgress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn terms<'a>(losses: impl Iterator<Item = (&'a str, f64)>) -> String {
    let parts: Vec<String> = losses
        .map(|(name, value)| format!("{name} {value:.4}"))
        .collect();
    parts.join(", ")
}
