//! Memory and parameters of SASRec in training, counted along `model::sasrec`: its fused blocks keep
//! what their backward pass needs. Items are packed without padding.

use super::{
    Disk, F32, Memory, ParameterCount, Work, catalog_loss_bytes, optimizer_bytes, target_positions,
};
use crate::model::{SasRecSettings, Scores};
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
    /// Size of the vectors of titles, where it has them.
    pub title_size: Option<u64>,
    /// Windows of a batch.
    pub batch_size: u64,
    /// Which positions are targets.
    pub targets: Targets,
    /// The work.
    pub work: Work,
}

impl SasRecRun<'_> {
    fn sizes(&self) -> (u64, u64, u64) {
        let s = self.settings;
        (
            s.hidden_size as u64,
            s.intermediate_size as u64,
            s.num_hidden_layers as u64,
        )
    }

    /// Numbers of values; all but the vectors of titles are trained.
    #[must_use]
    pub fn parameters(&self) -> ParameterCount {
        let (d, inner, layers) = self.sizes();
        let layer = 4 * d + 4 * d * d + 2 * inner * d + inner + d;
        let tables = (self.items + 1 + self.settings.max_history as u64).saturating_mul(d);
        let titles = self.title_size.unwrap_or(0);
        let trainable = tables + layers * layer + 2 * d + titles * d;
        ParameterCount {
            total: trainable + titles * (self.items + 1),
            trainable,
        }
    }

    /// Bytes at the peak.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let (d, _, _) = self.sizes();
        let count = self.parameters();
        let (rows, items) = (self.batch_size, self.work.most_items);
        let targets = target_positions(self.targets, items, rows);
        let read = match self.targets {
            Targets::All => rows * self.work.longest,
            Targets::Last => rows,
        };
        let validated = EVALUATED_AT_ONCE * (self.work.longest + 1);
        Memory {
            weights: F32 * count.total,
            optimizer: optimizer_bytes(count.trainable, self.work.parts),
            teacher: 0,
            activations: F32 * (self.kept(items) + (read + targets) * d + self.backward(items))
                + self.titles(items)
                + self.directions(items, read),
            loss: catalog_loss_bytes(
                (targets, self.work.parts),
                self.work.candidates(self.items, targets),
                d,
                true,
            ),
            validation: F32
                * (self.held_in_evaluation(validated) + self.items * d + 256 * self.items),
        }
    }

    /// Bytes that titles add to a step over so many items: vectors and rows of the history, and the
    /// same of the candidates.
    fn titles(&self, items: u64) -> u64 {
        let (d, _, _) = self.sizes();
        let of_rows = |size: u64| items * (size + 2 * d) + 3 * (self.items + 1) * d;
        F32 * self.title_size.map_or(0, of_rows)
    }

    /// Bytes that cosine scores add: the items of the history and of the catalog and the user vectors
    /// as they were, their squares, and in the backward pass the gradients of each.
    fn directions(&self, items: u64, read: u64) -> u64 {
        let (d, _, _) = self.sizes();
        match self.settings.scores {
            Scores::Dot => 0,
            Scores::Cosine => F32 * 6 * (items + read + self.items + 1) * d,
        }
    }

    /// Values that a fused block keeps of an item: its output, query, key, value, attention's result,
    /// the residual stream after attention, and what the MLP's first product gave.
    fn kept_by_block(&self) -> u64 {
        let (d, inner, _) = self.sizes();
        6 * d + inner
    }

    /// Values that a training forward pass keeps of so many items: those of the blocks, the
    /// embeddings and the final norm.
    fn kept(&self, items: u64) -> u64 {
        let (d, _, layers) = self.sizes();
        items * (layers * self.kept_by_block() + 2 * d)
    }

    /// Values that the backward pass adds: a block's on their way, through attention or through the
    /// MLP, and two more of each parameter's (a gradient and what it is added to); those of the item
    /// table are counted with the loss.
    fn backward(&self, items: u64) -> u64 {
        let (d, inner, _) = self.sizes();
        let table = (self.items + 1).saturating_mul(d);
        let others = self.parameters().trainable - table;
        items * (8 * d).max(4 * d + 2 * inner) + 2 * others
    }

    /// Values that an evaluating forward pass holds of so many items: one block's at a time.
    fn held_in_evaluation(&self, items: u64) -> u64 {
        let (d, inner, _) = self.sizes();
        items * (self.kept_by_block() + inner + 2 * d)
    }

    /// Bytes on disk.
    #[must_use]
    pub fn disk(&self) -> Disk {
        let count = self.parameters();
        Disk::of(count.trainable, count.total)
    }
}
