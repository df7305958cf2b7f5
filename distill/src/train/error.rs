//! What can go wrong in training.

use std::io;
use std::path::PathBuf;

/// Why training stopped without a result.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting outside its range.
    #[error("setting {name}: expected {expected}, found {found}")]
    Setting {
        /// Field of the settings.
        name: &'static str,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Layers that do not divide into blocks of equal size.
    #[error(
        "the {layers} layers of the {who} do not divide into {blocks} blocks\n\
         hint: choose blocks that divide the layers of the teacher and of the student"
    )]
    Blocks {
        /// `teacher` or `student`.
        who: &'static str,
        /// Its number of layers.
        layers: usize,
        /// The setting `blocks`.
        blocks: usize,
    },
    /// Teacher and student whose outputs cannot be compared.
    #[error("the teacher cannot teach this student: expected {expected}, found {found}")]
    Mismatch {
        /// What the student needs.
        expected: String,
        /// What the teacher has.
        found: String,
    },
    /// Nothing to train on.
    #[error("no user has two or more items in the training split, so there is no target to learn")]
    NoData,
    /// A model that reads one vector a history was asked for one target a position.
    #[error(
        "targets = \"all\" needs a user vector at each of the {positions} positions, this model has {found}\n\
         hint: the `response` readout trains with targets = \"last\": --set teach.train.targets=last, \
         --set distill.train.targets=last"
    )]
    Readout {
        /// Positions of the batch.
        positions: usize,
        /// User vectors of the model.
        found: usize,
    },
    /// A loss or a gradient that is not a number, or not a finite one.
    #[error(
        "step {step}: {what} is not finite\n\
         hint: a smaller learning_rate or clip_norm, or a longer warm-up"
    )]
    NonFinite {
        /// The optimizer step, from 1.
        step: u64,
        /// The loss term, or the gradient of a named parameter, or the validation metric.
        what: String,
    },
    /// A trainable tensor that the loss does not reach: training would silently leave it as it is.
    #[error("step {step}: the parameter {name} gets no gradient")]
    NoGradient {
        /// The optimizer step, from 1.
        step: u64,
        /// The parameter.
        name: String,
    },
    /// The stop flag was raised. The state is saved where there is a place for it.
    #[error("interrupted after step {step}")]
    Interrupted {
        /// Steps done so far.
        step: u64,
    },
    /// A saved state of another run.
    #[error(
        "{path}: expected the state of settings {expected}, found {found}\n\
         hint: go on with the settings of before, or remove the folder of the file to train from the \
         beginning"
    )]
    OtherSettings {
        /// The state file.
        path: PathBuf,
        /// Hash of the settings of this run.
        expected: String,
        /// Hash in the file.
        found: String,
    },
    /// A state file that is cut, changed or of another format.
    #[error(
        "{path}: expected {expected}, found {found}\n\
         hint: remove the file to train from the beginning"
    )]
    CorruptState {
        /// The state file.
        path: PathBuf,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Both generations of the state are damaged.
    #[error(
        "{newest}, and the state before it is damaged, too: {previous}\n\
         hint: remove both files to train from the beginning"
    )]
    BothCorrupt {
        /// What is wrong with the newest state, without a hint.
        newest: String,
        /// What is wrong with the one before it.
        previous: String,
    },
    /// The state could not be written, for want of space or right.
    #[error(
        "{path}: the state cannot be saved: {source}\n\
         hint: make room or give the right to write there (or move the work directory); what was \
         saved before is still there"
    )]
    SaveState {
        /// The state file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Remembered teacher states that cannot be made or read.
    #[error(transparent)]
    TeacherCache(#[from] super::teacher_cache::CacheError),
    /// The caller's validation failed.
    #[error("validation failed: {0}")]
    Validation(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
