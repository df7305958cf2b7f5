//! The parts that several JSON results share.

use serde::Serialize;
use slmrec_core::Manifest;
use slmrec_core::manifest::{Precision, Readout};
use slmrec_runtime::{EngineInfo, Timing};

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
        crate::output::say(&format!(
            "engine: {} {} ({}), {} encoder, {} thread{}",
            self.name,
            self.version,
            self.provider,
            self.precision,
            self.threads,
            if self.threads == 1 { "" } else { "s" },
        ));
    }
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
