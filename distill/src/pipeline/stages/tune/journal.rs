//! What a search has trained so far, so that it goes on where it was cut.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use slmrec_core::{atomic, hash};
use toml::Value;

use super::super::super::stage::{StageRecord, io_error};
use super::super::super::{PipelineError, WorkDir};
use super::super::{Context, input_hash, to_json};
use super::Subject;
use super::halving::Run;

const FORMAT_VERSION: u32 = 1;
const FILE: &str = "trials.json";

/// One training of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Its number; 0 has the settings as they were.
    pub number: usize,
    /// Epochs that it was allowed.
    pub epochs: usize,
    /// What it changed, by dotted names.
    pub settings: BTreeMap<String, Value>,
    /// Best NDCG@10 on the validation targets.
    pub ndcg_10: f64,
    /// The epoch that had it.
    pub best_epoch: u64,
    /// Seconds of the training.
    pub seconds: f64,
}

impl Trial {
    pub(super) fn changes(&self) -> Vec<(String, Value)> {
        let pairs = self.settings.iter();
        pairs
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format_version: u32,
    /// Over settings and data: another search begins anew.
    identity: String,
    trials: Vec<Trial>,
}

/// The trials of one search, on disk after each.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    pub(super) fn open(
        context: &Context<'_>,
        subject: Subject,
        folder: &Path,
    ) -> Result<Self, PipelineError> {
        let path = folder.join(FILE);
        std::fs::create_dir_all(folder).map_err(|e| io_error(folder, e))?;
        let identity = identity(context, subject)?;
        let empty = File {
            format_version: FORMAT_VERSION,
            identity,
            trials: Vec::new(),
        };
        // What is begun anew on purpose need not be readable.
        let there = if context.force { None } else { read(&path)? };
        let file = match there {
            Some(found) if found.identity == empty.identity => found,
            Some(_) => {
                context.reporter.say(&format!(
                    "tune {}: other settings or data than those of {}, the search begins anew",
                    subject.name(),
                    path.display()
                ));
                empty
            }
            None => empty,
        };
        Ok(Self { path, file })
    }

    pub(super) fn trials(&self) -> &[Trial] {
        &self.file.trials
    }

    /// Training time so far.
    pub(super) fn seconds(&self) -> f64 {
        self.file.trials.iter().map(|trial| trial.seconds).sum()
    }

    /// What a training gave, if it was made.
    pub(super) fn metric(&self, run: Run) -> Option<f64> {
        let same = |t: &&Trial| t.number == run.trial && t.epochs == run.epochs;
        self.file
            .trials
            .iter()
            .find(same)
            .map(|trial| trial.ndcg_10)
    }

    pub(super) fn add(
        &mut self,
        run: Run,
        changes: &[(String, Value)],
        record: &StageRecord,
    ) -> Result<(), PipelineError> {
        self.push(Trial {
            number: run.trial,
            epochs: run.epochs,
            settings: changes.iter().cloned().collect(),
            // A training that never ranked anything counts as the worst.
            ndcg_10: record.figures["best_metric"].as_f64().unwrap_or(0.0),
            best_epoch: record.figures["best_epoch"].as_u64().unwrap_or(0),
            seconds: record.seconds,
        })
    }

    /// A training that ended in numbers that are none.
    pub(super) fn add_failed(
        &mut self,
        run: Run,
        changes: &[(String, Value)],
        seconds: f64,
    ) -> Result<(), PipelineError> {
        self.push(Trial {
            number: run.trial,
            epochs: run.epochs,
            settings: changes.iter().cloned().collect(),
            ndcg_10: 0.0,
            best_epoch: 0,
            seconds,
        })
    }

    fn push(&mut self, trial: Trial) -> Result<(), PipelineError> {
        self.file.trials.push(trial);
        let json = to_json(&self.file)?.to_string();
        atomic::write(&self.path, json.as_bytes()).map_err(|e| io_error(&self.path, e))
    }
}

fn read(path: &Path) -> Result<Option<File>, PipelineError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error(path, e)),
    };
    let wrong = |found: String| PipelineError::Content {
        path: path.to_owned(),
        expected: format!("the trials of a search, format {FORMAT_VERSION}"),
        found,
        hint: "remove the file to begin anew".into(),
    };
    let file: File = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
    match file.format_version {
        FORMAT_VERSION => Ok(Some(file)),
        other => Err(wrong(format!("format {other}"))),
    }
}

/// Everything that trials depend on besides their own changes.
fn identity(context: &Context<'_>, subject: Subject) -> Result<String, PipelineError> {
    let dataset = WorkDir::finished(context.work.dataset(), "prepare")?;
    let mut settings = context.settings.clone();
    // Where things lie, and what comes after, is not part of a training.
    settings.work_dir = PathBuf::new();
    settings.export = Default::default();
    settings.evaluate = Default::default();
    let text = format!("{} {}", subject.name(), to_json(&settings)?);
    Ok(hash::sha256_hex(
        format!("{text} {}", input_hash(&dataset)?).as_bytes(),
    ))
}
