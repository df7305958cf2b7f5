//! The third floor, and the hardest to beat: what stood near the last items. These are the counts of
//! the transition prior ([`crate::prior`]), ranked by alone.

use slmrec_core::ItemIndex;
use slmrec_core::dataset::{Dataset, Split};
use slmrec_core::prior::{PriorError, PriorSettings, SparseSums, TransitionPrior};

use super::popularity::tie_breaker;
use super::{EvaluateError, Scorer};
use crate::prior::counting::{count, sequences_before};

/// Scores an item by how often it stood near the newest items of the history in the training
/// sequences; popularity orders equal scores and the items that no recent item co-occurred with.
#[derive(Clone, Debug)]
pub struct Cooccurrence {
    name: String,
    pairs: TransitionPrior,
    backoff: Vec<f32>,
    sums: SparseSums,
}

impl Cooccurrence {
    /// Ranks by `pairs`. Popularity adds less than `backoff` to a score: choose it no larger than
    /// the smallest step between scores.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        dataset: &Dataset,
        pairs: TransitionPrior,
        backoff: f32,
    ) -> Self {
        Self {
            name: name.into(),
            pairs,
            backoff: (tie_breaker(dataset).into_iter())
                .map(|value| value * backoff)
                .collect(),
            sums: SparseSums::default(),
        }
    }

    /// The co-occurrence row of the comparison table, [`PriorSettings::WINDOW_5`], of what is known
    /// before the targets of a split.
    ///
    /// # Errors
    /// Only what counting a checked dataset gives, which is nothing.
    pub fn window_5(dataset: &Dataset, split: Split) -> Result<Self, PriorError> {
        let settings = PriorSettings::WINDOW_5;
        let sequences = sequences_before(dataset, split);
        let pairs = count(&sequences, dataset.num_items(), settings, usize::MAX)?;
        // Scores are whole numbers of decay^4.
        let step = settings.decay.powi(4);
        Ok(Self::new("co-occurrence, window 5", dataset, pairs, step))
    }

    /// The harder row: the counts of a transition prior, whose settings were tuned on the validation
    /// targets.
    #[must_use]
    pub fn tuned(dataset: &Dataset, prior: &TransitionPrior) -> Self {
        // Below what a single pair of the largest rows weighs.
        Self::new(
            super::names::COOCCURRENCE_TUNED,
            dataset,
            prior.clone(),
            1e-6,
        )
    }

    fn score(&mut self, history: &[ItemIndex]) -> Vec<f32> {
        let mut scores = self.backoff.clone();
        self.pairs.sum(history, &mut self.sums);
        for (item, sum) in self.sums.iter() {
            scores[item.row() - 1] += sum;
        }
        scores
    }
}

impl Scorer for Cooccurrence {
    fn name(&self) -> &str {
        &self.name
    }

    fn scores(&mut self, histories: &[&[ItemIndex]]) -> Result<Vec<Vec<f32>>, EvaluateError> {
        Ok(histories
            .iter()
            .map(|history| self.score(history))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testing::{dataset, order};

    fn near(got: &[f32], expected: &[f32]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 2e-6, "{got} is not {expected}");
        }
    }

    fn fit(data: &Dataset, settings: PriorSettings) -> Cooccurrence {
        let pairs = count(
            &sequences_before(data, Split::Validation),
            data.num_items(),
            settings,
            99,
        );
        Cooccurrence::new("test", data, pairs.expect("counts"), 1e-6)
    }

    #[test]
    fn adds_decayed_neighbours_by_hand() {
        // Training parts: 1 2 3 | 2 4.
        let data = dataset(5, &[&[1, 2, 3, 5, 5], &[2, 4, 5, 5]]);
        let settings = PriorSettings {
            last_items: 2,
            ..PriorSettings::WINDOW_5
        };
        // 3 has 1 and 2; 2 has 1, 3 and 4. The older 4 is past the last two.
        let scores = fit(&data, settings).score(&[4, 2, 3].map(ItemIndex));
        near(&scores, &[1.0 + 0.5, 1.0, 0.5, 0.5, 0.0]);
    }

    #[test]
    fn weights_distance_popularity_and_rows_by_hand() {
        let data = dataset(5, &[&[1, 2, 3, 5, 5], &[2, 4, 5, 5]]);
        let settings = PriorSettings {
            window: 20,
            distance_power: 1.0,
            popularity_power: 1.0,
            normalise_rows: true,
            last_items: 10,
            ..PriorSettings::WINDOW_5
        };
        // Row of 1: 2 at distance 1 over its count 2, 3 at distance 2 over its count 1; both 1/2.
        let scores = fit(&data, settings).score(&[ItemIndex(1)]);
        near(&scores, &[0.0, 0.5, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn popularity_orders_the_rest() {
        let data = dataset(5, &[&[1, 2, 5, 5], &[3, 4, 4, 5, 5]]);
        let mut floor = Cooccurrence::window_5(&data, Split::Validation).expect("counts");
        let scores = floor.scores(&[&[ItemIndex(1)]]).expect("counts");
        assert_eq!(order(&scores[0]), [2, 4, 1, 3, 5]);
    }

    #[test]
    fn popularity_orders_equal_scores_and_never_more() {
        // Training parts: 1 2 3 | 3 | 3. After 1, items 2 and 3 tie at one; 3 is more popular.
        let data = dataset(5, &[&[1, 2, 3, 5, 5], &[3, 5, 5], &[3, 5, 5]]);
        let mut floor = Cooccurrence::window_5(&data, Split::Validation).expect("counts");
        let scores = floor.score(&[ItemIndex(1)]);
        assert!(scores[2] > scores[1] && scores[1] >= 1.0, "{scores:?}");
        assert!(scores[2] < 1.0 + 0.0625);
    }
}
