//! What a work directory holds, what it lacks, and what in it is out of date.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use slmrec_core::{Dataset, Evaluation};

use super::ReportError;
use crate::cold::ColdReport;
use crate::data::PrepareReport;
use crate::evaluate::compare::{CompareError, read_dataset};
use crate::evaluate::names::{CE_ONLY, SASREC, STUDENT, refitted};
use crate::evaluate::rank_files::{read_comparison, read_run};
use crate::evaluate::{Comparison, RECOMMENDATIONS_FILE, Recommendations};
use crate::pipeline::stages::study::{Question, Study, StudyReport};
use crate::pipeline::work_dir::DEFAULT_WORK_DIR;
use crate::pipeline::{StageRecord, WorkDir};
use crate::train::FitReport;

/// A finished stage.
#[derive(Clone, Debug)]
pub struct StageOutput {
    /// The folder in the work directory.
    pub folder: String,
    /// Its record.
    pub record: StageRecord,
}

/// Something that is not there or out of date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToDo {
    /// What.
    pub what: String,
    /// The command that makes it.
    pub command: String,
}

/// A trained model's curves.
#[derive(Clone, Debug)]
pub struct Training {
    /// The folder in the work directory.
    pub folder: String,
    /// Its epochs.
    pub fit: FitReport,
}

/// A study.
#[derive(Clone, Debug)]
pub struct StudyOutput {
    /// The folder in the work directory.
    pub folder: String,
    /// What it asks.
    pub question: &'static str,
    /// What it found.
    pub report: StudyReport,
}

/// The figures of `export`, as far as the page shows them.
#[derive(Clone, Debug, Deserialize)]
pub struct ExportFigures {
    /// The bundle.
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: u64,
    /// Uncompressed size of each member.
    pub members: BTreeMap<String, u64>,
    /// Precision of the encoder.
    pub precision: String,
    /// Weights of the encoder, without item and prompt embeddings.
    pub parameters: u64,
    /// SHA-256 of the file.
    pub file_sha256: String,
}

/// Milliseconds of one recommendation through `slmrec-run`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half are no slower.
    pub median: f64,
    /// 90 % are no slower.
    pub p90: f64,
}

/// Everything that the page is made of.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// The finished stages, in their order.
    pub stages: Vec<StageOutput>,
    /// What `prepare` read and dropped.
    pub prepare: Option<PrepareReport>,
    /// The data, where they are those of the evaluation.
    pub dataset: Option<Dataset>,
    /// The table.
    pub comparison: Option<Comparison>,
    /// The ranks behind the table.
    pub evaluations: Vec<Evaluation>,
    /// What the systems show to people.
    pub recommendations: Option<Recommendations>,
    /// The trainings.
    pub trainings: Vec<Training>,
    /// The bundle.
    pub export: Option<ExportFigures>,
    /// Items that training never saw, where they were measured.
    pub cold: Option<ColdReport>,
    /// Questions about the student that were answered by training it several times.
    pub studies: Vec<StudyOutput>,
    /// Such questions that were not asked, in words, and the command of each.
    pub unasked: Vec<ToDo>,
    /// How fast the bundle answers.
    pub latency: Option<Latency>,
    /// Parts that are not there.
    pub missing: Vec<ToDo>,
    /// Outputs that are older than what they were made of.
    pub stale: Vec<ToDo>,
}

/// Folders, what they are, and the command that makes them, in the order of the pipeline.
const PARTS: [(&str, &str, &str); 8] = [
    ("dataset", "the data", "prepare FILE"),
    ("prior", "the transition prior", "prior fit"),
    ("sasrec", "SASRec", "pretrain"),
    ("teacher", "the teacher", "teach --base smollm2-135m"),
    ("ce-only", "the student without a teacher", "distill"),
    ("student", "the distilled student", "distill"),
    ("export", "the bundle", "export"),
    ("evaluation", "the comparison", "evaluate"),
];
/// The folder of `cold`, which data without titles cannot have; its section names the command.
const COLD: &str = "cold";
/// Folders of studies, each of which is asked for by name, begin so.
const STUDIES: &str = "studies/";
/// The stages that train.
const TRAINED: [&str; 4] = ["sasrec", "teacher", "ce-only", "student"];
/// What `refit` trains, where it does.
const REFIT: [&str; 3] = ["refit/sasrec", "refit/sasrec-titles", "refit/student"];
/// Trainings that a run may do without.
const MAY_BE: [&str; 4] = ["sasrec-titles", "gru4rec", "bert4rec", "sasrec-prior"];

/// Reads a work directory.
///
/// # Errors
/// No output of any stage, or an output that is damaged.
pub fn gather(work: &WorkDir) -> Result<Gathered, ReportError> {
    let mut gathered = Gathered::default();
    gathered.stages(work)?;
    if gathered.stages.is_empty() {
        return Err(ReportError::NothingThere {
            path: work.root().to_owned(),
        });
    }
    gathered.figures(work)?;
    gathered.studies(work)?;
    gathered.evaluation(work)?;
    gathered.stale = stale(work, &gathered);
    Ok(gathered)
}

impl Gathered {
    /// The record of a folder.
    #[must_use]
    pub fn stage(&self, folder: &str) -> Option<&StageRecord> {
        let found = self.stages.iter().find(|stage| stage.folder == folder);
        found.map(|stage| &stage.record)
    }

    /// The ranks of a system.
    #[must_use]
    pub fn ranks_of(&self, system: &str) -> Option<&Evaluation> {
        self.evaluations.iter().find(|e| e.name == system)
    }

    /// The name of a system as it would be shipped: refitted where it was.
    #[must_use]
    pub fn served(&self, system: &str) -> String {
        let refit = refitted(system);
        match self.ranks_of(&refit) {
            Some(_) => refit,
            None => system.to_owned(),
        }
    }

    fn stages(&mut self, work: &WorkDir) -> Result<(), ReportError> {
        for (folder, part, command) in PARTS {
            match StageRecord::read(&work.root().join(folder))? {
                Some(record) => self.stages.push(StageOutput {
                    folder: folder.to_owned(),
                    record,
                }),
                None => self.missing.push(to_do(work, part, command)),
            }
            if folder == "sasrec" {
                self.optional(
                    work.root(),
                    MAY_BE.iter().map(|folder| work.root().join(folder)),
                )?;
            }
            if folder == "teacher" {
                self.blend(work)?;
            }
            if folder == "student" {
                self.optional(
                    work.root(),
                    REFIT.iter().map(|folder| work.root().join(folder)),
                )?;
                self.blend(&work.refit())?;
            }
        }
        if let Some(record) = StageRecord::read(&work.cold())? {
            let folder = COLD.to_owned();
            self.stages.push(StageOutput { folder, record });
        }
        let by_blend = |record: &StageRecord| record.settings["teacher"] == "blend";
        if self.stage("student").is_some_and(by_blend) && self.stage("blend").is_none() {
            self.missing
                .push(to_do(work, "the blended teacher", "blend"));
        }
        Ok(())
    }

    /// The blend and its own members, where there are any.
    fn blend(&mut self, work: &WorkDir) -> Result<(), ReportError> {
        let there = |place: fn(&WorkDir, usize) -> PathBuf| {
            (1..)
                .map(move |number| place(work, number))
                .take_while(|dir| dir.is_dir())
        };
        let decoders = there(WorkDir::blend_decoder);
        let plain = there(WorkDir::blend_sasrec);
        let with_titles = there(WorkDir::blend_sasrec_titles);
        self.optional(
            work.root(),
            (decoders.chain(plain))
                .chain(with_titles)
                .chain([work.blend()]),
        )
    }

    /// Folders that may be missing.
    fn optional(
        &mut self,
        root: &Path,
        dirs: impl Iterator<Item = PathBuf>,
    ) -> Result<(), ReportError> {
        for dir in dirs {
            if let Some(record) = StageRecord::read(&dir)? {
                let folder = dir.strip_prefix(root).unwrap_or(&dir);
                let folder = folder.to_string_lossy().into_owned();
                self.stages.push(StageOutput { folder, record });
            }
        }
        Ok(())
    }

    fn figures(&mut self, work: &WorkDir) -> Result<(), ReportError> {
        for StageOutput { folder, record } in &self.stages {
            let mut trained = TRAINED.iter().chain(&MAY_BE).chain(&REFIT);
            let known = trained.any(|name| name == folder);
            let member = folder.strip_prefix("refit/").unwrap_or(folder);
            if known || member.starts_with("blend-") {
                let (folder, fit) = (folder.clone(), figures(work, folder, record)?);
                self.trainings.push(Training { folder, fit });
            }
        }
        if let Some(record) = self.stage("dataset") {
            self.prepare = Some(figures(work, "dataset", record)?);
        }
        if let Some(record) = self.stage("export") {
            self.export = Some(figures(work, "export", record)?);
        }
        if let Some(record) = self.stage(COLD) {
            self.cold = Some(figures(work, COLD, record)?);
        }
        Ok(())
    }

    fn studies(&mut self, work: &WorkDir) -> Result<(), ReportError> {
        for question in Study::QUESTIONS {
            let folder = format!("{STUDIES}{}", question.folder);
            match StageRecord::read(&work.root().join(&folder))? {
                Some(record) => {
                    let report = figures(work, &folder, &record)?;
                    self.studies.push(StudyOutput {
                        folder: folder.clone(),
                        question: question.words,
                        report,
                    });
                    self.stages.push(StageOutput { folder, record });
                }
                None => {
                    let command = to_do(work, question.words, question.command);
                    self.unasked.push(command);
                }
            }
        }
        Ok(())
    }

    fn evaluation(&mut self, work: &WorkDir) -> Result<(), ReportError> {
        let Some(record) = self.stage("evaluation") else {
            self.dataset = self.data_alone(work)?;
            return Ok(());
        };
        self.latency = serde_json::from_value(record.figures["bundle_latency_ms"].clone()).ok();
        self.comparison = Some(read_comparison(&work.evaluation())?);
        self.evaluations = read_run(&work.evaluation())?.evaluations;
        self.dataset = match self.evaluations.first() {
            Some(evaluation) if self.prepare.is_some() => {
                match read_dataset(&work.dataset(), evaluation) {
                    Ok(dataset) => Some(dataset),
                    // Said as an output that is out of date.
                    Err(CompareError::OtherDataset { .. }) => None,
                    Err(other) => return Err(other.into()),
                }
            }
            _ => None,
        };
        self.read_recommendations(work)
    }

    fn data_alone(&self, work: &WorkDir) -> Result<Option<Dataset>, ReportError> {
        let read = || Dataset::read(&work.dataset());
        let dataset = self.prepare.is_some().then(read).transpose();
        dataset.map_err(|source| CompareError::from(source).into())
    }

    /// Evaluations of earlier versions have none.
    fn read_recommendations(&mut self, work: &WorkDir) -> Result<(), ReportError> {
        let path = work.evaluation().join(RECOMMENDATIONS_FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let part = "what the systems recommend (coverage, popularity, examples)";
                self.missing.push(to_do(work, part, "evaluate --force"));
                return Ok(());
            }
            Err(source) => return Err(ReportError::Io { path, source }),
        };
        let read = serde_json::from_slice(&bytes).map_err(|e| ReportError::Figures {
            path,
            stage: "evaluate".into(),
            found: e.to_string(),
        });
        self.recommendations = Some(read?);
        Ok(())
    }
}

fn to_do(work: &WorkDir, what: &str, command: &str) -> ToDo {
    let mut command = format!("slmrec-distill {command}");
    if work.root() != std::path::Path::new(DEFAULT_WORK_DIR) {
        command.push_str(&format!(" --work-dir {}", work.root().display()));
    }
    ToDo {
        what: what.to_owned(),
        command,
    }
}

fn figures<T: for<'a> Deserialize<'a>>(
    work: &WorkDir,
    folder: &str,
    record: &StageRecord,
) -> Result<T, ReportError> {
    serde_json::from_value(record.figures.clone()).map_err(|e| ReportError::Figures {
        path: work
            .root()
            .join(folder)
            .join(crate::pipeline::stage::RECORD_FILE),
        stage: record.stage.clone(),
        found: e.to_string(),
    })
}

/// Which stages were made of something else than what lies there now.
fn stale(work: &WorkDir, gathered: &Gathered) -> Vec<ToDo> {
    let mut found = Vec::new();
    for StageOutput { folder, record } in &gathered.stages {
        for (input, hash) in &record.inputs {
            let now: Vec<String> = match input.ends_with(" bundle") {
                true => gathered
                    .export
                    .iter()
                    .map(|e| e.file_sha256.clone())
                    .collect(),
                false => (folders_of(record, input).iter())
                    .filter_map(|source| Some(gathered.stage(source)?.output_hash()))
                    .collect(),
            };
            if !now.is_empty() && !now.contains(hash) {
                let what = format!("{folder} was made of another “{input}” than the one there now");
                found.push(to_do(work, &what, command_of(folder)));
            }
        }
    }
    found
}

/// The folders that an input of a record may stand for.
fn folders_of<'a>(record: &StageRecord, input: &'a str) -> Vec<&'a str> {
    match input {
        SASREC => vec!["sasrec"],
        CE_ONLY => vec!["ce-only"],
        STUDENT | "validated student" => vec!["student"],
        // Whoever taught, the student's record calls it so.
        "teacher" if record.settings["teacher"] == "blend" => vec!["blend", "refit/blend"],
        // The one whose items a language model has, and the student that is shipped.
        "sasrec" => vec!["sasrec", "sasrec-titles", REFIT[0], REFIT[1]],
        "student" => vec!["student", REFIT[2]],
        "dataset" | "prior" | "teacher" | "blend" => vec![input],
        member if member.starts_with("blend-sasrec-") || member.starts_with("refit/") => {
            vec![member]
        }
        _ => Vec::new(),
    }
}

fn command_of(folder: &str) -> &str {
    if let Some(study) = folder.strip_prefix(STUDIES) {
        let of = |question: &&Question| question.folder == study;
        let found = Study::QUESTIONS.iter().find(of);
        return found.map_or("study", |question| question.command);
    }
    match PARTS.iter().find(|(name, ..)| *name == folder) {
        Some((_, _, command)) => command.split(" --").next().unwrap_or(command),
        None if folder == COLD => "cold",
        None if folder == "sasrec-titles" => "pretrain",
        None if folder.starts_with("refit/") => "refit",
        None if MAY_BE.contains(&folder) => "baselines",
        None => "blend",
    }
}
