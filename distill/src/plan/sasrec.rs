//! Memory and parameters of SASRec in training, counted along `model::sasrec`: every tensor
//! operation keeps its result. Rows are padded to the longest history of the batch.

use super::{
    Disk, F32, Memory, ParameterCount, Work, catalog_loss_bytes, optimizer_bytes, target_positions,
};
use crate::model::SasRecSettings;
use crate::train::Targets;

/// Histories of one forward pass of the evaluation.
const EVALUATED_AT_ONCE: u64 = 64;

/// A SASRec and its training.
#[derive(Clone, Debug)]
pub struct SasRecRun<'a> {
    /// Its shape.
    pub settings: &'a SasRecSettings,
    /// Items N.
    pub items: u64,
    /// Windows of a batch.
    pub batch_size: u64,
    /// Which positions are targets.
    pub targets: Targets,
    /// The work.
    pub work: Work,
}

impl SasRecRun<'_> {
    fn sizes(&self) -> (u64, u64, u64, u64) {
        let s = self.settings;
        (
            s.hidden_size as u64,
            s.intermediate_size as u64,
            s.num_attention_heads as u64,
            s.num_hidden_layers as u64,
        )
    }

    /// Numbers of values; all are trained.
    #[must_use]
    pub fn parameters(&self) -> ParameterCount {
        let (d, inner, _, layers) = self.sizes();
        let layer = 4 * d + 4 * d * d + 2 * inner * d + inner + d;
        let tables = (self.items + 1 + self.settings.max_history as u64).saturating_mul(d);
        let total = tables + layers * layer + 2 * d;
        ParameterCount {
            total,
            trainable: total,
        }
    }

    /// Bytes at the peak.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let (d, _, _, _) = self.sizes();
        let count = self.parameters();
        let rows = self.batch_size;
        let targets = target_positions(self.targets, self.work.most_items, rows);
        // A gradient is added to zeros, and both stay beside the sum.
        let gradients = 2 * count.trainable + self.kept_by_masks(rows);
        Memory {
            weights: F32 * count.total,
            optimizer: optimizer_bytes(count.trainable),
            teacher: 0,
            activations: F32 * (self.kept(rows, true) + targets * d + gradients),
            loss: catalog_loss_bytes(targets, self.items, d, true),
            validation: F32
                * (self.kept(EVALUATED_AT_ONCE, false) + self.items * d + 256 * self.items),
        }
    }

    /// Values that the gradients of dropout masks keep, which nobody reads: four of each.
    fn kept_by_masks(&self, rows: u64) -> u64 {
        let (d, inner, heads, layers) = self.sizes();
        if self.settings.dropout <= 0.0 {
            return 0;
        }
        let length = self.work.longest.max(1);
        4 * rows * length * (layers * (heads * length + inner + 2 * d) + d)
    }

    /// Values that a forward pass keeps of so many histories of the greatest length.
    fn kept(&self, rows: u64, training: bool) -> u64 {
        let (d, inner, heads, layers) = self.sizes();
        let length = self.work.longest.max(1);
        let dropout = u64::from(training && self.settings.dropout > 0.0);
        let drop = |width: u64| 2 * dropout * width;
        let norm = 5 * d;
        // Scores, scaled, masked, and softmax in three steps.
        let weights = 6 * heads * length + drop(heads * length);
        let attention = 6 * d + weights + 3 * d;
        let mlp = 3 * inner + drop(inner) + 2 * d;
        let layer = 2 * norm + attention + mlp + 2 * drop(d) + 2 * d;
        let around = 3 * d + drop(d) + norm;
        rows * length * (layers * layer + around)
    }

    /// Bytes on disk.
    #[must_use]
    pub fn disk(&self) -> Disk {
        let count = self.parameters();
        Disk::of(count.trainable, count.total)
    }
}
