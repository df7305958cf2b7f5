//! The stages under one work directory, each skipped when nothing that it depends on has changed.
//!
//! ```text
//! slmrec-work/
//!   dataset/      prepare      sequences, vocabulary
//!   prior/        prior fit    which items stand near which
//!   sasrec/       pretrain     SASRec and its item embeddings
//!   titles/       pretrain     vectors of the items' titles, where they are asked for
//!   sasrec-titles/ pretrain    SASRec with titles
//!   teacher/      teach        checkpoint
//!   teacher-states/            what the teacher says about every training example
//!   gru4rec/      baselines    GRU4Rec; BERT4Rec in bert4rec/
//!   ce-only/      distill      the student's shape trained without the teacher
//!   student/      distill      checkpoint; in teacher/ that of a teacher that learned beside it
//!   studies/      study        students of other settings
//!   cold/         cold         what titles say about items that training never saw
//!   evaluation/   evaluate     comparison.json, comparison.txt
//!   pipeline.toml run DATA     the settings that were chosen for the data
//! ```
//! Beside its output every stage leaves `stage.json`: settings, seed, input hashes, output hashes,
//! figures, time and peak memory ([`stage`]).

pub mod recipe;
pub mod resources;
pub mod settings;
pub mod stage;
pub mod stages;
pub mod work_dir;

use std::path::PathBuf;

pub use settings::PipelineSettings;
pub use stage::{Outcome, StageRecord};
pub use work_dir::WorkDir;

use crate::train::TrainObserver;

/// What stages tell while they run.
pub trait Reporter {
    /// One line of news.
    fn say(&self, line: &str);

    /// A counter from 0 to `total`; it ends when dropped.
    fn counter(&self, label: &str, total: u64) -> Box<dyn Counter + '_>;

    /// Someone who watches a training run.
    fn training(&self, label: &str) -> Box<dyn TrainObserver + '_>;
}

/// Progress of something that can be counted.
pub trait Counter {
    /// How much is done so far.
    fn set(&self, done: u64);
}

/// Why a stage did not finish.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A file or folder that cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An earlier stage has not run.
    #[error(
        "{path}: expected the output of `slmrec-distill {stage}`, found none\nhint: run `slmrec-distill {stage}` first, or `slmrec-distill run pipeline.toml` for all stages"
    )]
    MissingStage {
        /// Where it was looked for.
        path: PathBuf,
        /// The stage that writes it.
        stage: &'static str,
    },
    /// A file of ours with the wrong content.
    #[error("{path}: expected {expected}, found {found}\nhint: {hint}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
        /// What to do.
        hint: String,
    },
    /// Settings that do not work together.
    #[error("{0}")]
    Settings(String),
    /// A run that the machine has no room for.
    #[error("{0}\nhint: --force runs it all the same")]
    DoesNotFit(String),
    /// Ctrl-C: what was done so far is saved.
    #[error("interrupted; the state is saved\nhint: the same command goes on from there")]
    Interrupted,
    /// Reading or writing a dataset directory failed.
    #[error(transparent)]
    Dataset(#[from] slmrec_core::DatasetError),
    /// Reading the source data failed.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// Fetched data or weights are missing or damaged.
    #[error(transparent)]
    Fetch(#[from] crate::fetch::FetchError),
    /// Loading or saving a language model failed.
    #[error(transparent)]
    Model(#[from] crate::model::ModelFileError),
    /// A pretrained body that cannot be cut to the widths that were asked for.
    #[error(transparent)]
    Cut(#[from] crate::model::CutError),
    /// Loading or saving SASRec failed.
    #[error(transparent)]
    SasRec(#[from] crate::model::sasrec::SasRecError),
    /// Training failed.
    #[error(transparent)]
    Train(crate::train::TrainError),
    /// Evaluation failed.
    #[error(transparent)]
    Evaluate(#[from] crate::evaluate::EvaluateError),
    /// Systems that cannot stand in one table.
    #[error(transparent)]
    Compare(#[from] crate::evaluate::ComparisonError),
    /// The output of an evaluation that cannot be read.
    #[error(transparent)]
    RankFiles(#[from] crate::evaluate::rank_files::RankFileError),
    /// Counting the transition prior failed.
    #[error(transparent)]
    Prior(#[from] slmrec_core::PriorError),
    /// Refreshing the prior of a bundle failed.
    #[error(transparent)]
    UpdatePrior(#[from] crate::prior::update::UpdateError),
    /// Cold items could not be measured.
    #[error(transparent)]
    Cold(#[from] crate::cold::ColdError),
    /// New or retired items could not be packed.
    #[error(transparent)]
    ItemPack(#[from] crate::cold::item_pack::ItemPackError),
    /// Export failed.
    #[error(transparent)]
    Export(#[from] slmrec_export::ExportError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// No form of eight bits ranks well enough.
    #[error(
        "expected a quantized bundle that loses at most {:.1} % of NDCG@10 on the validation targets, \
         found none:\n{table}\nhint: --fp16, or allow more with --max-ndcg-drop",
        max * 100.0
    )]
    Quantization {
        /// What was measured, a line each.
        table: String,
        /// The share that may be lost.
        max: f64,
    },
    /// `slmrec-run` failed.
    #[error("slmrec-run failed: {0}")]
    Runner(String),
}

impl From<crate::train::TrainError> for PipelineError {
    fn from(error: crate::train::TrainError) -> Self {
        match error {
            crate::train::TrainError::Interrupted { .. }
            | crate::train::TrainError::TeacherCache(
                crate::train::teacher_cache::CacheError::Interrupted,
            ) => Self::Interrupted,
            other => Self::Train(other),
        }
    }
}
