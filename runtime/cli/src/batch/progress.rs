//! How far a run is: a bar on a terminal, else a line now and then.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::say;

/// Least time between two lines.
const EVERY: Duration = Duration::from_secs(10);

/// Counts histories.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    done: u64,
    /// Of an earlier run.
    before: u64,
    started: Instant,
    said: Instant,
}

impl Progress {
    /// Of `total` histories an earlier run has done `before`.
    pub(crate) fn new(total: u64, before: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let template = "{bar:40} {human_pos}/{human_len} histories, {per_sec}, {eta} left";
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(total).with_style(style);
            bar.set_position(before);
            bar.reset_eta();
            bar
        });
        Self {
            bar,
            total,
            done: before,
            before,
            started: Instant::now(),
            said: Instant::now(),
        }
    }

    /// Counts more of them.
    pub(crate) fn add(&mut self, histories: u64) {
        self.done += histories;
        match &self.bar {
            Some(bar) => bar.set_position(self.done),
            None if self.said.elapsed() >= EVERY => {
                self.said = Instant::now();
                say(&self.line());
            }
            None => {}
        }
    }

    fn line(&self) -> String {
        let speed = self.speed();
        let left = (self.total - self.done.min(self.total)) as f64 / speed.max(f64::MIN_POSITIVE);
        format!(
            "{} of {} histories, {speed:.0} a second, {left:.0} s left",
            self.done, self.total
        )
    }

    /// Histories a second in this run.
    pub(crate) fn speed(&self) -> f64 {
        (self.done - self.before) as f64 / self.started.elapsed().as_secs_f64()
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
