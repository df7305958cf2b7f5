//! A system and its prior as one system.

use slmrec_core::ItemIndex;
use slmrec_core::prior::{PriorWeights, SparseSums, TransitionPrior};

use crate::evaluate::{EvaluateError, Scorer};

/// Adds a prior to the scores of another system.
pub struct WithPrior<'a> {
    name: String,
    inner: &'a mut dyn Scorer,
    prior: &'a TransitionPrior,
    weights: PriorWeights,
    sums: SparseSums,
}

impl<'a> WithPrior<'a> {
    /// `inner` with `prior` at these weights.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        inner: &'a mut dyn Scorer,
        prior: &'a TransitionPrior,
        weights: PriorWeights,
    ) -> Self {
        Self {
            name: name.into(),
            inner,
            prior,
            weights,
            sums: SparseSums::default(),
        }
    }
}

impl Scorer for WithPrior<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn scores(&mut self, histories: &[&[ItemIndex]]) -> Result<Vec<Vec<f32>>, EvaluateError> {
        let mut scores = self.inner.scores(histories)?;
        for (history, scores) in histories.iter().zip(&mut scores) {
            (self.prior).add_to(history, self.weights, &mut self.sums, scores);
        }
        Ok(scores)
    }
}
