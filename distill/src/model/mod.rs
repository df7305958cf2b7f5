//! Sequential recommenders: what a trainer, an evaluator and an exporter may ask of any of them.

pub mod base;
pub mod baseline;
pub mod batch;
pub mod bert;
pub mod blend;
pub mod checkpoint;
mod decoder_layer;
pub mod dropout;
#[cfg(test)]
mod dropout_tests;
pub mod file_error;
#[cfg(test)]
mod file_tests;
pub(crate) mod init;
pub mod item_lookups;
pub mod llama;
pub mod lora;
#[cfg(test)]
mod narrow_tests;
pub mod ops;
pub mod parameters;
pub mod read_after;
pub mod recommender;
pub mod remembered;
pub mod sasrec;
pub mod state_readout;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod text_encoder;
pub mod title_projection;
pub mod weights_file;

use candle_core::{Result, Tensor};

pub use base::cut::{CutError, Widths};
pub use base::{LayerSelection, PretrainedBase, PromptText};
pub use batch::{HistoryBatch, ReadAt};
pub use blend::{Blend, Member};
pub use checkpoint::{CheckpointInfo, read_recommender_config, write_checkpoint};
pub use dropout::MaskRng;
pub use file_error::ModelFileError;
pub use item_lookups::{ItemLookups, ItemTable, RowGradient, unit_rows};
pub use lora::{BodyTraining, LoraSettings, TargetModule};
pub use parameters::Parameters;
pub use read_after::ReadAfter;
pub use recommender::{BodyDtype, LlmRecommender, LlmSettings};
pub use remembered::Remembered;
pub use sasrec::{SasRec, SasRecError, SasRecSettings, Scores};
pub use state_readout::StateReadout;
pub use text_encoder::TextEncoder;
pub use title_projection::TitleProjection;

/// What a forward pass leaves behind.
#[derive(Debug)]
pub struct ModelOutput {
    /// User vectors `[B, S, D]` at item positions (`item` readout, SASRec), or `[B, 1, D]` at the
    /// last suffix token (`response` readout) or at the last item ([`ReadAt::LastItem`]). At padded
    /// positions the values mean nothing.
    pub user_vectors: Tensor,
    /// Hidden states at the same positions, `[B, S or 1, H]`, one per entry of the `state_layers`
    /// that were asked for, in that order.
    pub states: Vec<Tensor>,
}

/// Whether a forward pass drops out, and from which random stream.
pub enum Mode<'a> {
    /// Dropout on; masks come from this stream.
    Train(&'a mut MaskRng),
    /// No dropout, and no gradient is promised: fused layers keep nothing for a backward pass.
    Eval,
}

/// A model that turns histories into user vectors.
pub trait SequentialModel: Sync {
    /// Runs a batch. `state_layers` are numbers of layers already passed (`1..=L`): state `l` is the
    /// residual stream after layer `l`, except `L`, which is taken after the final norm.
    ///
    /// # Errors
    /// Shapes that do not fit, or a layer number outside `1..=L`.
    fn forward(
        &self,
        batch: &HistoryBatch,
        mode: Mode<'_>,
        state_layers: &[usize],
    ) -> Result<ModelOutput>;

    /// User vectors `[R, D]` read from states `[R, H]` after an inner layer, as if the layers ended
    /// there; with gradients where the model has any.
    ///
    /// # Errors
    /// A model that cannot, or shapes that do not fit.
    fn read_out(&self, state: &Tensor) -> Result<Tensor> {
        candle_core::bail!(
            "a model that reads no user vectors from inner states, here of {:?}",
            state.dims()
        )
    }

    /// What its item embeddings are made of, for the loss of a training step and for their shape.
    fn item_table(&self) -> ItemTable<'_>;

    /// Item embeddings `[N + 1, D]`, row 0 for the padding. The score of item i is the dot product
    /// of row i and a user vector.
    ///
    /// # Errors
    /// Only what candle reports.
    fn item_embeddings(&self) -> Result<Tensor> {
        self.item_table().all()
    }

    /// Everything that training changes.
    fn parameters(&self) -> &Parameters;

    /// Number of decoder layers L.
    fn num_layers(&self) -> usize;

    /// Longest history S that the model takes.
    fn max_history(&self) -> usize;
}
