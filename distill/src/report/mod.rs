//! One page about a work directory: is the distilled student worth shipping, and what says so.
//!
//! [`gather()`] reads what the stages left behind and says what is missing; [`verdict`], [`profile`],
//! [`groups`] and [`curves`] make figures of it, and [`page`] makes one HTML file without outside
//! references. Nothing is trained, and nothing is filled in: a part without its stage is a line that
//! names the command.

mod cold;
pub mod curves;
pub mod gather;
pub mod groups;
mod making;
mod page;
pub mod profile;
mod sections;
mod studies;
mod tables;
mod tensorboard;
pub mod verdict;

use std::path::{Path, PathBuf};

use serde::Serialize;
use slmrec_core::atomic;

use crate::evaluate::EvaluateError;
use crate::evaluate::compare::CompareError;
use crate::evaluate::rank_files::RankFileError;
use crate::pipeline::{PipelineError, WorkDir};

pub use gather::{Gathered, gather};
pub use page::html;
pub use verdict::{Decision, Verdict};

/// Name of the page in the work directory, unless another is asked for.
pub const REPORT_FILE: &str = "report.html";

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No work directory.
    #[error(
        "{path}: expected a work directory with the output of a stage, found none\n\
         hint: run `slmrec-distill prepare FILE` first, or name the directory with --work-dir"
    )]
    NothingThere {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A record of a stage that cannot be read.
    #[error(transparent)]
    Pipeline(Box<PipelineError>),
    /// Figures of a stage in another form.
    #[error(
        "{path}: expected the figures of `slmrec-distill {stage}`, found {found}\n\
         hint: `slmrec-distill {stage} --force` writes them again"
    )]
    Figures {
        /// The record.
        path: PathBuf,
        /// The stage.
        stage: String,
        /// What was wrong.
        found: String,
    },
    /// The output of an evaluation that cannot be read.
    #[error(transparent)]
    Ranks(#[from] RankFileError),
    /// Ranks that do not belong together.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// Targets that cannot be found in the data.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// A chart that could not be drawn.
    #[error("a chart could not be drawn: {0}")]
    Chart(String),
    /// A page that cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl From<PipelineError> for ReportError {
    fn from(error: PipelineError) -> Self {
        Self::Pipeline(Box::new(error))
    }
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The page.
    pub path: PathBuf,
    /// Its size.
    pub bytes: usize,
    /// Event files of every training for TensorBoard, where anything was trained.
    pub tensorboard: Option<PathBuf>,
    /// What it says on top.
    pub verdict: Verdict,
    /// Parts that are not there, and what makes them.
    pub missing: Vec<gather::ToDo>,
    /// Outputs that are older than what they were made of.
    pub stale: Vec<gather::ToDo>,
}

/// Writes the page about a work directory, whole or not at all, and event files for TensorBoard in
/// the work directory.
///
/// # Errors
/// No output of any stage, an output that is damaged, or a page that cannot be written.
pub fn write(work: &WorkDir, output: Option<&Path>) -> Result<Summary, ReportError> {
    let gathered = gather(work)?;
    let verdict = verdict::of(&gathered);
    let text = html(&gathered, &verdict)?;
    let path = output.map_or_else(|| work.root().join(REPORT_FILE), Path::to_path_buf);
    atomic::write(&path, text.as_bytes()).map_err(|source| ReportError::Io {
        path: path.clone(),
        source,
    })?;
    Ok(Summary {
        tensorboard: tensorboard::write(work.root(), &gathered.trainings)?,
        path,
        bytes: text.len(),
        verdict,
        missing: gathered.missing,
        stale: gathered.stale,
    })
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
