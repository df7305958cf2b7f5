//! What can be wrong with a model's files.

use std::path::{Path, PathBuf};

/// A pretrained model or a checkpoint directory that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A JSON file that does not say what it should.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A file that is cut off, corrupt, or of another kind.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A tensor that is not there.
    #[error("{}: expected the tensor {tensor}, found none\nhint: {hint}", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in that file.
        tensor: String,
        /// What may help.
        hint: &'static str,
    },
    /// A tensor of another shape.
    #[error("{}: expected {tensor} to be {expected:?}, found {found:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor's name in that file.
        tensor: String,
        /// What the configuration asks for.
        expected: Vec<usize>,
        /// What the file has.
        found: Vec<usize>,
    },
    /// NaN or infinity among the weights.
    #[error("{}: {tensor} holds NaN or infinity\nhint: the run that wrote it may have diverged", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// A kind of model or option that is not supported.
    #[error("{}: {what} is not supported\nhint: {hint}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
        /// What may help.
        hint: &'static str,
    },
    /// Layers that the base does not have.
    #[error("{}: layer {wanted} was asked for, the model has layers 0 to {last}", path.display())]
    NoSuchLayer {
        /// The file.
        path: PathBuf,
        /// The layer that was asked for.
        wanted: usize,
        /// The last layer there is.
        last: usize,
    },
    /// A prompt that the tokenizer or the checkpoint cannot give.
    #[error("{}: the prompt cannot be made: {reason}", path.display())]
    Prompt {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A tokenizer that is not there or cannot be read.
    #[error(
        "{}: expected a tokenizer that reads texts, beside the weights, found {reason}\n\
         hint: a prompt and words of titles need the one that is published with the weights",
        path.display()
    )]
    Tokenizer {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A tensor operation failed.
    #[error("{}: {source}", path.display())]
    Tensor {
        /// The file at hand.
        path: PathBuf,
        /// What candle said.
        source: candle_core::Error,
    },
}

impl ModelFileError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Json {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn tensor(path: &Path) -> impl FnOnce(candle_core::Error) -> Self {
        move |source| Self::Tensor {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn malformed(
        path: &Path,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

/// Reads and parses a small JSON file.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ModelFileError> {
    const LIMIT: u64 = 64 << 20;
    let size = std::fs::metadata(path)
        .map_err(ModelFileError::io(path))?
        .len();
    if size > LIMIT {
        return Err(ModelFileError::malformed(
            path,
            format!("at most {LIMIT} bytes"),
            size,
        ));
    }
    let bytes = std::fs::read(path).map_err(ModelFileError::io(path))?;
    serde_json::from_slice(&bytes).map_err(ModelFileError::json(path))
}
