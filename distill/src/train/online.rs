//! A teacher that is trained together with its student.

use candle_core::Tensor;

use super::losses::sampled::Candidates;
use super::objective::{rows_at, run_histories, target_loss};
use super::teacher::{LiveTeacher, TeacherOutput, TeacherStates};
use super::{TrainError, TrainingBatch};
use crate::model::{MaskRng, Parameters, SequentialModel};

/// A model that learns by its own cross-entropy while the student learns from it.
///
/// Detached, no gradient of the student's terms reaches it; joint, they pull both towards each other.
pub struct OnlineTeacher<'a> {
    model: &'a dyn SequentialModel,
    live: LiveTeacher<'a>,
    joint: bool,
}

impl<'a> OnlineTeacher<'a> {
    /// Wraps a model that training changes; `fingerprint` names what it begins with.
    ///
    /// # Errors
    /// A model that does not run.
    pub fn new(
        model: &'a dyn SequentialModel,
        fingerprint: impl Into<String>,
        joint: bool,
    ) -> Result<Self, TrainError> {
        Ok(Self {
            model,
            live: LiveTeacher::new(model, fingerprint)?,
            joint,
        })
    }

    /// Whether gradients of the student's terms reach it.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.joint
    }

    /// `detached` or `joint`.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        if self.joint { "joint" } else { "detached" }
    }

    /// What is trained of it.
    #[must_use]
    pub fn parameters(&self) -> &'a Parameters {
        self.model.parameters()
    }

    /// States after `layers` and user vectors at the flat `positions`, and its cross-entropy over all
    /// targets of the batch. Dropout and negatives come from `rng`.
    pub(super) fn learn(
        &self,
        batch: &TrainingBatch,
        positions: &[u32],
        layers: &[usize],
        rng: &mut MaskRng,
    ) -> Result<(TeacherOutput, Tensor), TrainError> {
        let output = run_histories(self.model, batch, layers, rng)?;
        let items = self.model.item_table().with(batch.lookups());
        let users = rows_at(&output.user_vectors, batch, &batch.target_positions)?;
        let candidates = Candidates::of_step(batch, rng);
        let loss = target_loss(batch, &candidates, &users, items, None)?;
        let at = |values: &Tensor| match self.joint {
            true => rows_at(values, batch, positions),
            false => rows_at(&values.detach(), batch, positions),
        };
        let told = TeacherOutput {
            states: output.states.iter().map(at).collect::<Result<_, _>>()?,
            user_vectors: at(&output.user_vectors)?,
            top: None,
        };
        Ok((told, loss))
    }
}

impl TeacherStates for OnlineTeacher<'_> {
    fn num_layers(&self) -> usize {
        self.live.num_layers()
    }

    fn hidden_size(&self) -> usize {
        self.live.hidden_size()
    }

    fn num_items(&self) -> usize {
        self.live.num_items()
    }

    fn item_embeddings(&self) -> Result<Tensor, TrainError> {
        match self.joint {
            true => Ok(self.model.item_embeddings()?),
            false => self.live.item_embeddings(),
        }
    }

    fn fingerprint(&self) -> &str {
        self.live.fingerprint()
    }

    fn read_out(&self, state: &Tensor) -> Result<Tensor, TrainError> {
        match self.joint {
            true => Ok(self.model.read_out(state)?),
            false => self.live.read_out(state),
        }
    }

    fn at(
        &self,
        batch: &TrainingBatch,
        positions: &[u32],
        layers: &[usize],
    ) -> Result<TeacherOutput, TrainError> {
        self.live.at(batch, positions, layers)
    }
}
