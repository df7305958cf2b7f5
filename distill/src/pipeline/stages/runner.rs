//! `slmrec-run evaluate`: a bundle measured by the code that a device runs, in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use slmrec_core::evaluation::{Protocol, Ranks};
use slmrec_core::{Dataset, Evaluation, Split};

use super::super::PipelineError;
use super::{Context, to_json};

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct BundleRun<'a> {
    pub(super) bundle: &'a Path,
    pub(super) split: Split,
    /// Leave its prior out.
    pub(super) without_prior: bool,
    /// Only so many users; 0 for all.
    pub(super) users: usize,
    /// Also the ten best items of every user.
    pub(super) lists: bool,
}

impl Default for BundleRun<'_> {
    fn default() -> Self {
        Self {
            bundle: Path::new(""),
            split: Split::Test,
            without_prior: false,
            users: 0,
            lists: false,
        }
    }
}

/// The part of `slmrec-run evaluate --format json` that is used here.
#[derive(Debug, Deserialize)]
pub(super) struct MeasuredBundle {
    user_indices: Vec<u32>,
    /// Ranks of the targets, 1-based, in the order of the users.
    pub(super) ranks: Ranks,
    pub(super) latency_ms: Latency,
    /// Ids of the best items, where they were asked for, in the order of the users.
    #[serde(default)]
    pub(super) lists: Vec<Vec<String>>,
}

/// Milliseconds of one recommendation.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Latency {
    pub(super) median: f64,
    pub(super) p90: f64,
}

impl BundleRun<'_> {
    pub(super) fn measure(&self, context: &Context<'_>) -> Result<MeasuredBundle, PipelineError> {
        let split = to_json(&self.split)?;
        let mut command = Command::new(path(context)?);
        command
            .args(["evaluate", "--format", "json", "--bundle"])
            .arg(self.bundle)
            .arg("--dataset")
            .arg(context.work().dataset())
            .args(["--split", split.as_str().unwrap_or_default()]);
        if self.without_prior {
            command.arg("--no-prior");
        }
        if self.users > 0 {
            command.args(["--limit", &self.users.to_string()]);
        }
        if self.lists {
            command.arg("--lists");
        }
        let output = command.output().map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(failed(format!("{}\n{said}", output.status)));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|e| failed(format!("its JSON is not an evaluation: {e}")))
    }
}

impl MeasuredBundle {
    pub(super) fn evaluation(
        self,
        name: &str,
        dataset: &Dataset,
        split: Split,
    ) -> Result<Evaluation, PipelineError> {
        let protocol = Protocol::default();
        Evaluation::new(
            name,
            dataset,
            split,
            protocol,
            self.user_indices,
            self.ranks,
        )
        .map_err(|e| failed(e.to_string()))
    }
}

/// The program: the one in the settings, or the one beside this program.
pub(super) fn path(context: &Context<'_>) -> Result<PathBuf, PipelineError> {
    if let Some(runner) = &context.settings.evaluate.runner {
        return Ok(runner.clone());
    }
    let name = format!("slmrec-run{}", std::env::consts::EXE_SUFFIX);
    let beside = context.program_dir.join(name);
    if beside.is_file() {
        return Ok(beside);
    }
    Err(failed(format!(
        "{}: expected the program that measures bundles, found none\n\
         hint: build it (cargo build -p slmrec-run), name it (--runner), or go without it \
         (evaluate --no-bundle, export --no-certificate)",
        beside.display()
    )))
}

fn failed(text: String) -> PipelineError {
    PipelineError::Runner(text)
}
