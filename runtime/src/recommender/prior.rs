//! The transition prior beside the model.

use slmrec_core::ItemIndex;
use slmrec_core::prior::{PriorWeights, SparseSums, TransitionPrior};

/// Counts that are added to the model's scores.
pub(super) struct Prior {
    counts: TransitionPrior,
    weights: PriorWeights,
    /// Used again for each history.
    sums: SparseSums,
}

impl Prior {
    /// `None` without counts or without weights.
    pub(super) fn new(
        counts: Option<TransitionPrior>,
        weights: Option<PriorWeights>,
    ) -> Option<Self> {
        Some(Self {
            counts: counts?,
            weights: weights?,
            sums: SparseSums::default(),
        })
    }

    /// What is added after a history, in ascending order of items.
    pub(super) fn additions(&mut self, seen: &[ItemIndex]) -> Vec<(ItemIndex, f32)> {
        (self.counts).additions(seen, self.weights, &mut self.sums)
    }

    /// Adds it to the scores of the catalog.
    pub(super) fn add_to(&mut self, history: &[ItemIndex], scores: &mut [f32]) {
        self.counts
            .add_to(history, self.weights, &mut self.sums, scores);
    }
}
