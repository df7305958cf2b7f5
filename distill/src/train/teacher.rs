//! Where the student's examples come from: a live teacher, or a cache of its states
//! ([`super::teacher_cache`]).

use candle_core::Tensor;
use slmrec_core::ItemIndex;

use super::objective::rows_at;
use super::top_scores::TopScores;
use super::{TrainError, TrainingBatch};
use crate::model::{HistoryBatch, Mode, SequentialModel};

/// What the teacher says about some positions of a batch. Nothing here carries a gradient.
#[derive(Debug)]
pub struct TeacherOutput {
    /// Hidden states `[R, H]`, one per layer that was asked for.
    pub states: Vec<Tensor>,
    /// User vectors `[R, D]`.
    pub user_vectors: Tensor,
    /// The best items and their scores, where they are remembered; they follow from the user vectors.
    pub top: Option<TopScores>,
}

/// A frozen teacher, run or remembered.
pub trait TeacherStates: Sync {
    /// Number of decoder layers M.
    fn num_layers(&self) -> usize;

    /// Hidden size H.
    fn hidden_size(&self) -> usize;

    /// Number of items N.
    fn num_items(&self) -> usize;

    /// Item embeddings `[N + 1, D]` that its user vectors are scored against.
    ///
    /// # Errors
    /// A cache that was opened without them.
    fn item_embeddings(&self) -> Result<Tensor, TrainError>;

    /// Names the teacher's weights in the hash that a resumed run is checked by.
    fn fingerprint(&self) -> &str;

    /// User vectors `[R, D]` read from states `[R, H]` after an inner layer, as if the layers ended there.
    ///
    /// # Errors
    /// A teacher that does not read inner states out.
    fn read_out(&self, state: &Tensor) -> Result<Tensor, TrainError>;

    /// States after `layers` (`1..=M`, M after the final norm) and user vectors at the flat
    /// `positions` of the batch. `batch.windows` are keys that stay the same from epoch to epoch.
    ///
    /// # Errors
    /// Whatever running or reading the teacher gives.
    fn at(
        &self,
        batch: &TrainingBatch,
        positions: &[u32],
        layers: &[usize],
    ) -> Result<TeacherOutput, TrainError>;
}

/// A teacher that runs on every batch, without dropout.
pub struct LiveTeacher<'a> {
    model: &'a dyn SequentialModel,
    hidden_size: usize,
    num_items: usize,
    fingerprint: String,
}

impl<'a> LiveTeacher<'a> {
    /// Wraps a model; `fingerprint` names its weights (for example the hash of its checkpoint).
    ///
    /// # Errors
    /// A model that does not run.
    pub fn new(
        model: &'a dyn SequentialModel,
        fingerprint: impl Into<String>,
    ) -> Result<Self, TrainError> {
        Ok(Self {
            model,
            hidden_size: hidden_size(model)?,
            num_items: model.item_table().dims()?.0.saturating_sub(1),
            fingerprint: fingerprint.into(),
        })
    }
}

impl TeacherStates for LiveTeacher<'_> {
    fn num_layers(&self) -> usize {
        self.model.num_layers()
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn num_items(&self) -> usize {
        self.num_items
    }

    fn item_embeddings(&self) -> Result<Tensor, TrainError> {
        Ok(self.model.item_embeddings()?.detach())
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn read_out(&self, state: &Tensor) -> Result<Tensor, TrainError> {
        Ok(self.model.read_out(state)?.detach())
    }

    fn at(
        &self,
        batch: &TrainingBatch,
        positions: &[u32],
        layers: &[usize],
    ) -> Result<TeacherOutput, TrainError> {
        let output = self.model.forward(&batch.histories, Mode::Eval, layers)?;
        let at = |values: &Tensor| rows_at(&values.detach(), batch, positions);
        Ok(TeacherOutput {
            states: output.states.iter().map(at).collect::<Result<_, _>>()?,
            user_vectors: at(&output.user_vectors)?,
            top: None,
        })
    }
}

/// Width of a model's hidden states, found by running it on one item.
///
/// # Errors
/// A model that does not run.
pub fn hidden_size(model: &dyn SequentialModel) -> Result<usize, TrainError> {
    let device = model.item_table().device().clone();
    let probe = HistoryBatch::new(&[&[ItemIndex(1)]], &device)?;
    let output = model.forward(&probe, Mode::Eval, &[model.num_layers()])?;
    match output.states.as_slice() {
        [state] => Ok(state.dims3()?.2),
        other => Err(candle_core::Error::Msg(format!(
            "asked for the state of one layer, got {}",
            other.len()
        ))
        .into()),
    }
}
