//! Why an export failed.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use slmrec_core::{
    BundleError, DatasetError, ItemTableError, PriorError, RankingError, VocabularyError,
};

/// Why a checkpoint could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the checkpoint with the wrong content.
    #[error("{path}: expected {expected}, found {found}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The checkpoint was trained on another vocabulary than the dataset's.
    #[error(
        "{checkpoint}: trained on the vocabulary {expected}, but {dataset} has {found}; \
         hint: export with the dataset directory that the checkpoint was trained on"
    )]
    OtherDataset {
        /// The checkpoint directory.
        checkpoint: PathBuf,
        /// The dataset directory.
        dataset: PathBuf,
        /// SHA-256 of the vocabulary in `recommender.json`.
        expected: String,
        /// SHA-256 of the dataset's vocabulary.
        found: String,
    },
    /// A weight that the precision cannot hold.
    #[error("the weight {name} does not fit {precision}: {found}; hint: export with --fp32")]
    Range {
        /// Name in the graph.
        name: String,
        /// Precision asked for.
        precision: &'static str,
        /// The value.
        found: f32,
    },
    /// A graph that the ONNX format cannot hold in one file.
    #[error(
        "the graph needs {found} bytes, an ONNX file holds at most {limit}; \
         hint: export fewer layers, or with --int8"
    )]
    TooLarge {
        /// Bytes needed.
        found: usize,
        /// Bytes that fit.
        limit: usize,
    },
    /// No training sequence leaves anything to recommend, so there is no sample history.
    #[error("{dataset}: no user has a training sequence that leaves an item to recommend")]
    NoHistories {
        /// The dataset directory.
        dataset: PathBuf,
    },
    /// The model gives results that are not finite, so nobody could recommend with it.
    #[error("the model's user vector for a history of {dataset} is not finite")]
    NotFinite {
        /// The dataset directory.
        dataset: PathBuf,
    },
    /// The dataset directory cannot be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The bundle cannot be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The item embeddings do not fit an item table.
    #[error("item embeddings: {0}")]
    ItemTable(#[from] ItemTableError),
    /// The transition prior does not fit.
    #[error(transparent)]
    Prior(#[from] PriorError),
    /// Scores could not be ranked.
    #[error("sample histories: {0}")]
    Ranking(#[from] RankingError),
    /// The vocabulary cannot be written.
    #[error("vocabulary: {0}")]
    Vocabulary(#[from] VocabularyError),
}

pub(crate) fn io_error(path: &Path, source: io::Error) -> ExportError {
    ExportError::Io {
        path: path.to_owned(),
        source,
    }
}

pub(crate) fn content(
    path: &Path,
    expected: impl Into<String>,
    found: impl Display,
) -> ExportError {
    ExportError::Content {
        path: path.to_owned(),
        expected: expected.into(),
        found: found.to_string(),
    }
}
