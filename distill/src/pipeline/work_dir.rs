//! Where each stage reads and writes.

use std::path::{Path, PathBuf};

use super::PipelineError;
use super::settings::Baseline;
use super::stage::RECORD_FILE;

/// Default name of the work directory.
pub const DEFAULT_WORK_DIR: &str = "slmrec-work";

/// Folder of a teacher that learned beside its student, in the student's.
pub const ONLINE_TEACHER: &str = "teacher";

/// A work directory and the folders of its stages.
#[derive(Clone, Debug)]
pub struct WorkDir {
    root: PathBuf,
    /// One output that lies elsewhere; everything else is shared.
    variant: Option<Variant>,
    /// Where the models lie that are trained again, if they are meant.
    again: Option<PathBuf>,
}

/// An output of which several are made, and where this one lies.
#[derive(Clone, Debug)]
struct Variant {
    of: Output,
    dir: PathBuf,
}

/// What studies and searches make more than one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The output of `pretrain`.
    SasRec,
    /// That of `baselines`.
    Baseline(Baseline),
    /// That of `teach`.
    Teacher,
    /// Those of `distill`.
    Students,
}

impl WorkDir {
    /// The work directory at `root`; nothing is created yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            variant: None,
            again: None,
        }
    }

    /// The same work directory, but for the students of a study's variant.
    #[must_use]
    pub fn study(&self, study: &str, variant: &str) -> Self {
        Self {
            root: self.root.clone(),
            variant: Some(Variant {
                of: Output::Students,
                dir: self.studies().join(study).join(variant),
            }),
            again: None,
        }
    }

    /// The same work directory, but for the SASRecs, the blend and the student that are made again.
    #[must_use]
    pub fn refit(&self) -> Self {
        Self {
            again: Some(self.root.join("refit")),
            ..self.clone()
        }
    }

    /// The same work directory, but for one output that is made in `dir`.
    #[must_use]
    pub fn trial(&self, of: Output, dir: PathBuf) -> Self {
        Self {
            root: self.root.clone(),
            variant: Some(Variant { of, dir }),
            again: None,
        }
    }

    /// Searches of `tune`.
    #[must_use]
    pub fn tuning(&self) -> PathBuf {
        self.root.join("tuning")
    }

    /// Outputs of `study`.
    #[must_use]
    pub fn studies(&self) -> PathBuf {
        self.root.join("studies")
    }

    /// Where an output is made.
    fn place(&self, of: Output) -> &Path {
        match &self.variant {
            Some(variant) if variant.of == of => &variant.dir,
            _ if matches!(of, Output::SasRec | Output::Students) => self.again(),
            _ => &self.root,
        }
    }

    /// Where what is trained again lies, the other places otherwise.
    #[must_use]
    pub fn again(&self) -> &Path {
        self.again.as_ref().unwrap_or(&self.root)
    }

    fn students(&self) -> &Path {
        self.place(Output::Students)
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The settings that `run` chose for data alone.
    #[must_use]
    pub fn chosen_settings(&self) -> PathBuf {
        self.root.join("pipeline.toml")
    }

    /// Output of `prepare`.
    #[must_use]
    pub fn dataset(&self) -> PathBuf {
        self.root.join("dataset")
    }

    /// Output of `prior fit`.
    #[must_use]
    pub fn prior(&self) -> PathBuf {
        self.root.join("prior")
    }

    /// Output of `pretrain`.
    #[must_use]
    pub fn sasrec(&self) -> PathBuf {
        self.place(Output::SasRec).join("sasrec")
    }

    /// Vectors of the items' titles.
    #[must_use]
    pub fn titles(&self) -> PathBuf {
        self.root.join("titles")
    }

    /// SASRec with titles, the other output of `pretrain`.
    #[must_use]
    pub fn sasrec_titles(&self) -> PathBuf {
        self.again().join("sasrec-titles")
    }

    /// Output of `teach`.
    #[must_use]
    pub fn teacher(&self) -> PathBuf {
        self.place(Output::Teacher).join("teacher")
    }

    /// Output of `blend`.
    #[must_use]
    pub fn blend(&self) -> PathBuf {
        self.again().join("blend")
    }

    /// A model that `baselines` trained.
    #[must_use]
    pub fn baseline(&self, baseline: Baseline) -> PathBuf {
        self.place(Output::Baseline(baseline))
            .join(baseline.folder())
    }

    /// A decoder that is trained for the blend, by its number from 1.
    #[must_use]
    pub fn blend_decoder(&self, number: usize) -> PathBuf {
        self.again().join(format!("blend-decoder-{number}"))
    }

    /// A SASRec that is trained for the blend, by its number from 1.
    #[must_use]
    pub fn blend_sasrec(&self, number: usize) -> PathBuf {
        self.again().join(format!("blend-sasrec-{number}"))
    }

    /// A SASRec with titles that is trained for the blend, by its number from 1.
    #[must_use]
    pub fn blend_sasrec_titles(&self, number: usize) -> PathBuf {
        self.again().join(format!("blend-sasrec-titles-{number}"))
    }

    /// The teacher's states, unless `distill.cache_dir` names another place.
    #[must_use]
    pub fn teacher_states(&self) -> PathBuf {
        self.again().join("teacher-states")
    }

    /// The student's shape trained without the teacher.
    #[must_use]
    pub fn ce_only(&self) -> PathBuf {
        self.students().join("ce-only")
    }

    /// Output of `distill`.
    #[must_use]
    pub fn student(&self) -> PathBuf {
        self.students().join("student")
    }

    /// The teacher that learned beside the student, within the output of `distill`.
    #[must_use]
    pub fn online_teacher(&self) -> PathBuf {
        self.student().join(ONLINE_TEACHER)
    }

    /// Output of `cold`.
    #[must_use]
    pub fn cold(&self) -> PathBuf {
        self.root.join("cold")
    }

    /// The SASRec that is trained without the items that `cold` keeps out.
    #[must_use]
    pub fn cold_sasrec(&self) -> PathBuf {
        self.cold().join("sasrec")
    }

    /// Output of `evaluate`.
    #[must_use]
    pub fn evaluation(&self) -> PathBuf {
        self.root.join("evaluation")
    }

    /// `dir` if a stage finished there.
    ///
    /// # Errors
    /// [`PipelineError::MissingStage`] naming the stage that has to run first.
    pub fn finished(dir: PathBuf, stage: &'static str) -> Result<PathBuf, PipelineError> {
        if dir.join(RECORD_FILE).is_file() {
            return Ok(dir);
        }
        Err(PipelineError::MissingStage { path: dir, stage })
    }
}
