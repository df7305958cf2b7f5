//! One stage: its record, and the decision whether it has to run.
//!
//! A stage is up to date when its record names the same settings, the same input hashes and the
//! same program version, and every output file still has the recorded hash. The record is removed
//! before a run and written last, so a cut run never looks finished.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use slmrec_core::{atomic, hash};

use super::resources;
use super::{PipelineError, Reporter};

/// Name of the record beside a stage's output.
pub const RECORD_FILE: &str = "stage.json";
/// Folder of a training run's resumable state, no part of the output.
pub const STATE_DIR: &str = "state";
const FORMAT_VERSION: u32 = 1;

/// `stage.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageRecord {
    /// Layout version.
    pub format_version: u32,
    /// The stage.
    pub stage: String,
    /// Program and version.
    pub created_by: String,
    /// Everything that a person chose, seed included.
    pub settings: serde_json::Value,
    /// SHA-256 of each input, by name.
    pub inputs: BTreeMap<String, String>,
    /// SHA-256 of each output file, by path relative to the stage's folder.
    pub outputs: BTreeMap<String, String>,
    /// What was measured.
    pub figures: serde_json::Value,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Peak resident memory in bytes, where the system tells it.
    pub peak_memory: Option<u64>,
}

impl StageRecord {
    /// Reads the record in a stage's folder; `None` when there is none.
    ///
    /// # Errors
    /// A file that cannot be read or is not a record.
    pub fn read(dir: &Path) -> Result<Option<Self>, PipelineError> {
        let path = dir.join(RECORD_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PipelineError::Io { path, source }),
        };
        match serde_json::from_slice(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(e) => Err(PipelineError::Content {
                path,
                expected: "the record of a stage".into(),
                found: e.to_string(),
                hint: "remove the file to run the stage again".into(),
            }),
        }
    }

    /// The record of something that is put together from the outputs of stages and begins now.
    pub(super) fn begin(stage: &str, settings: serde_json::Value) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            stage: stage.to_owned(),
            created_by: created_by(),
            settings,
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
            figures: serde_json::Value::Null,
            seconds: 0.0,
            peak_memory: None,
        }
    }

    /// Writes the record into a folder, whole or not at all.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(super) fn write(&self, dir: &Path) -> Result<(), PipelineError> {
        let path = dir.join(RECORD_FILE);
        let json = serde_json::to_vec_pretty(self).map_err(|e| io_error(&path, e.into()))?;
        fs::create_dir_all(dir).map_err(|e| io_error(dir, e))?;
        atomic::write(&path, &json).map_err(|e| io_error(&path, e))
    }

    /// One hash over all output files: what a later stage takes as its input.
    #[must_use]
    pub fn output_hash(&self) -> String {
        let lines: String = (self.outputs.iter())
            .map(|(name, hash)| format!("{hash}  {name}\n"))
            .collect();
        hash::sha256_hex(lines.as_bytes())
    }
}

/// A stage that is about to run.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its name, as typed.
    pub name: &'static str,
    /// Where it writes.
    pub dir: PathBuf,
    /// Everything that a person chose.
    pub settings: serde_json::Value,
    /// Hashes of what it reads.
    pub inputs: BTreeMap<String, String>,
}

/// What became of a stage.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The record, new or old.
    pub record: StageRecord,
    /// Whether the stage ran.
    pub ran: bool,
}

impl Stage {
    /// Runs `work` unless the stage is up to date, and records it. `work` gets the folder, which
    /// exists, and gives the figures.
    ///
    /// # Errors
    /// Whatever `work` gives, or a folder that cannot be read or written.
    pub fn run(
        &self,
        force: bool,
        reporter: &dyn Reporter,
        work: impl FnOnce(&Path) -> Result<serde_json::Value, PipelineError>,
    ) -> Result<Outcome, PipelineError> {
        if !force && let Some(record) = self.up_to_date()? {
            reporter.say(&format!(
                "{}: up to date ({})",
                self.name,
                self.dir.display()
            ));
            return Ok(Outcome { record, ran: false });
        }
        self.begin()?;
        reporter.say(&format!("{}: begins", self.name));
        resources::reset_peak_memory();
        let start = Instant::now();
        let figures = work(&self.dir)?;
        let record = StageRecord {
            format_version: FORMAT_VERSION,
            stage: self.name.to_owned(),
            created_by: created_by(),
            settings: self.settings.clone(),
            inputs: self.inputs.clone(),
            outputs: hash_outputs(&self.dir)?,
            figures,
            seconds: start.elapsed().as_secs_f64(),
            peak_memory: resources::peak_memory(),
        };
        self.finish(&record)?;
        reporter.say(&format!(
            "{}: done in {:.0} s{} ({})",
            self.name,
            record.seconds,
            record.peak_memory.map_or_else(String::new, |b| format!(
                ", peak memory {} MB",
                b / 1_000_000
            )),
            self.dir.display(),
        ));
        Ok(Outcome { record, ran: true })
    }

    fn up_to_date(&self) -> Result<Option<StageRecord>, PipelineError> {
        let Some(record) = StageRecord::read(&self.dir)? else {
            return Ok(None);
        };
        let same = record.format_version == FORMAT_VERSION
            && record.created_by == created_by()
            && record.settings == self.settings
            && record.inputs == self.inputs;
        let same = same && hash_outputs(&self.dir)? == record.outputs;
        if same {
            // A run that was killed just after its record was written.
            self.remove_state()?;
        }
        Ok(same.then_some(record))
    }

    fn begin(&self) -> Result<(), PipelineError> {
        fs::create_dir_all(&self.dir).map_err(|e| io_error(&self.dir, e))?;
        atomic::remove_leftovers(&self.dir).map_err(|e| io_error(&self.dir, e))?;
        let path = self.dir.join(RECORD_FILE);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io_error(&path, e)),
            _ => Ok(()),
        }
    }

    fn finish(&self, record: &StageRecord) -> Result<(), PipelineError> {
        record.write(&self.dir)?;
        self.remove_state()
    }

    fn remove_state(&self) -> Result<(), PipelineError> {
        let state = self.dir.join(STATE_DIR);
        match fs::remove_dir_all(&state) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io_error(&state, e)),
            _ => Ok(()),
        }
    }
}

fn created_by() -> String {
    format!("slmrec-distill {}", env!("CARGO_PKG_VERSION"))
}

/// Hashes of the files of a folder and its subfolders, without the record, hidden files and the
/// resumable state.
fn hash_outputs(dir: &Path) -> Result<BTreeMap<String, String>, PipelineError> {
    let mut outputs = BTreeMap::new();
    hash_folder(dir, "", &mut outputs)?;
    Ok(outputs)
}

fn hash_folder(
    dir: &Path,
    prefix: &str,
    outputs: &mut BTreeMap<String, String>,
) -> Result<(), PipelineError> {
    for entry in fs::read_dir(dir).map_err(|e| io_error(dir, e))? {
        let path = entry.map_err(|e| io_error(dir, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == RECORD_FILE || name.starts_with('.') {
            continue;
        }
        if path.is_file() {
            outputs.insert(format!("{prefix}{name}"), hash_input(&path)?);
        } else if path.is_dir() && name != STATE_DIR {
            hash_folder(&path, &format!("{prefix}{name}/"), outputs)?;
        }
    }
    Ok(())
}

/// SHA-256 of an input file.
///
/// # Errors
/// A file that cannot be read.
pub fn hash_input(path: &Path) -> Result<String, PipelineError> {
    hash::sha256_file(path).map_err(|e| io_error(path, e))
}

pub(super) fn io_error(path: &Path, source: std::io::Error) -> PipelineError {
    PipelineError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Counter;
    use crate::train::TrainObserver;

    struct Silent;

    impl Reporter for Silent {
        fn say(&self, _line: &str) {}
        fn counter(&self, _label: &str, _total: u64) -> Box<dyn Counter + '_> {
            unreachable!("no counter in these tests")
        }
        fn training(&self, _label: &str) -> Box<dyn TrainObserver + '_> {
            unreachable!("no training in these tests")
        }
    }

    fn stage(dir: &Path, setting: u32) -> Stage {
        Stage {
            name: "test",
            dir: dir.to_owned(),
            settings: serde_json::json!({ "n": setting }),
            inputs: BTreeMap::from([("in".to_owned(), "hash".to_owned())]),
        }
    }

    fn run(stage: &Stage) -> bool {
        let outcome = stage.run(false, &Silent, |dir| {
            fs::write(dir.join("out"), b"result").map_err(|e| io_error(dir, e))?;
            Ok(serde_json::json!({}))
        });
        outcome.expect("runs").ran
    }

    #[test]
    fn runs_again_only_when_something_changed() {
        let dir = tempfile::tempdir().expect("temporary folder");
        assert!(run(&stage(dir.path(), 1)));
        assert!(!run(&stage(dir.path(), 1)));
        assert!(run(&stage(dir.path(), 2)), "other settings");
        let mut other = stage(dir.path(), 2);
        other.inputs.insert("in".into(), "other".into());
        assert!(run(&other), "other input");
        fs::write(dir.path().join("out"), b"damaged").expect("damage");
        assert!(run(&other), "damaged output");
        fs::remove_file(dir.path().join("out")).expect("remove");
        assert!(run(&other), "missing output");
        fs::create_dir(dir.path().join("state")).expect("state");
        assert!(!run(&other), "a state is no output");
        fs::create_dir(dir.path().join("part")).expect("part");
        fs::write(dir.path().join("part/more"), b"more").expect("more");
        assert!(
            run(&other),
            "an output in a folder that the record does not know"
        );
        assert!(!run(&other));
        fs::write(dir.path().join("part/more"), b"other").expect("damage");
        assert!(run(&other), "damaged output in a folder");
        assert!(!run(&other));
    }

    #[test]
    fn a_failed_run_leaves_no_record() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let stage = stage(dir.path(), 1);
        assert!(run(&stage));
        let failed = stage.run(true, &Silent, |_| Err(PipelineError::Interrupted));
        assert!(failed.is_err());
        assert!(StageRecord::read(dir.path()).expect("readable").is_none());
        assert!(run(&stage), "must run again");
    }
}
