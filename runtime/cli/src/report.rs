//! The parts that several JSON results share.

use std::fmt;

use comfy_table::Cell;
use serde::Serialize;
use slmrec_core::Manifest;
use slmrec_core::manifest::{Precision, Readout};
use slmrec_runtime::{EngineInfo, ProviderChoice, Timing, TrialOutcome};

use crate::output;

/// What was opened.
#[derive(Debug, Serialize)]
pub(crate) struct BundleReport {
    format_version: u32,
    pub(crate) items: usize,
    precision: Precision,
    readout: Readout,
    max_history: usize,
    base: String,
    data: String,
    created_by: String,
}

impl From<&Manifest> for BundleReport {
    fn from(manifest: &Manifest) -> Self {
        Self {
            format_version: manifest.format_version,
            items: manifest.items.count,
            precision: manifest.precision,
            readout: manifest.model.readout,
            max_history: manifest.model.max_history,
            base: manifest.model.base.clone(),
            data: manifest.data.name.clone(),
            created_by: manifest.created_by.clone(),
        }
    }
}

/// What really ran.
#[derive(Debug, Serialize)]
pub(crate) struct EngineReport {
    name: String,
    version: String,
    provider: String,
    threads: usize,
    encoder: String,
    precision: Precision,
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
}

impl From<&EngineInfo> for EngineReport {
    fn from(info: &EngineInfo) -> Self {
        Self {
            name: info.name.clone(),
            version: info.version.clone(),
            provider: info.provider.to_string(),
            threads: info.threads,
            encoder: info.encoder.clone(),
            precision: info.precision,
            notice: info.notice.clone(),
        }
    }
}

impl EngineReport {
    /// One line for stderr, with the notice on a second one.
    pub(crate) fn say(&self) {
        if let Some(notice) = &self.notice {
            crate::output::say(&format!("notice: {notice}"));
        }
        crate::output::say(&format!("engine: {self}"));
    }
}

impl fmt::Display for EngineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} ({}), {} encoder, {} thread{}",
            self.name,
            self.version,
            self.provider,
            self.precision,
            self.threads,
            if self.threads == 1 { "" } else { "s" },
        )
    }
}

/// Which providers were tried on this machine, and how they did.
pub(crate) fn provider_table(choice: &ProviderChoice) -> String {
    let when = if choice.remembered {
        "remembered"
    } else {
        "tried now"
    };
    let head = format!("ONNX Runtime {}, {when}", choice.library);
    let mut table = output::table(&["Provider", &head, "ms a sample", ""]);
    for trial in &choice.trials {
        let (found, time) = match &trial.outcome {
            TrialOutcome::Right { median_ms } => ("right".into(), format!("{median_ms:.2}")),
            TrialOutcome::Wrong {
                worst_cosine,
                mean_overlap,
            } => {
                let cosine = worst_cosine.map_or("no number".into(), |c| format!("{c:.5}"));
                (
                    format!("wrong: cosine {cosine}, overlap {mean_overlap:.5}"),
                    String::new(),
                )
            }
            TrialOutcome::Failed { reason } => (output::printable(reason), String::new()),
        };
        let chosen = if trial.provider == choice.chosen {
            "chosen"
        } else {
            ""
        };
        table.add_row([
            Cell::new(trial.provider),
            Cell::new(found),
            output::number(time),
            Cell::new(chosen),
        ]);
    }
    format!("{table}\n")
}

/// Milliseconds, to a thousandth.
pub(crate) fn milliseconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Milliseconds over all histories of a run.
#[derive(Debug, Serialize)]
pub(crate) struct TimingReport {
    pub(crate) open: f64,
    pub(crate) recommend: f64,
    lookup: f64,
    encode: f64,
    score: f64,
    rank: f64,
}

impl TimingReport {
    pub(crate) fn new(open: std::time::Duration, timing: &Timing) -> Self {
        Self {
            open: milliseconds(open),
            recommend: milliseconds(timing.total()),
            lookup: milliseconds(timing.lookup),
            encode: milliseconds(timing.encode),
            score: milliseconds(timing.score),
            rank: milliseconds(timing.rank),
        }
    }
}
