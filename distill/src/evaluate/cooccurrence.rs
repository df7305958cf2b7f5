//! The third floor, and the hardest to beat: what stood near the last items.

use slmrec_core::ItemIndex;
use slmrec_core::dataset::Dataset;
use slmrec_core::history::newest;

use super::item_pairs::{Direction, ItemPairs};
use super::popularity::tie_breaker;
use super::{EvaluateError, Scorer};

/// How pairs are counted and how a history adds them up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CooccurrenceSettings {
    /// Largest distance of a counted pair.
    pub window: usize,
    /// A pair at distance d counts d^-distance_power.
    pub distance_power: f64,
    /// Each pair is divided by (training count of the scored item)^popularity_power.
    pub popularity_power: f32,
    /// Whether the weights of each item's neighbours are then made to sum to one.
    pub normalise_rows: bool,
    /// How many of the newest items of the history are added up.
    pub last_items: usize,
    /// Weight of an item relative to the item after it.
    pub decay: f32,
    /// Popularity adds less than this to a score, so it orders equal scores and the items that no
    /// recent item co-occurred with. Choose it no larger than the smallest step between scores.
    pub backoff: f32,
}

impl CooccurrenceSettings {
    /// Plain counts within five places on either side, halved per step back in the history. Set
    /// beforehand, as in an earlier trial on other data.
    pub const WINDOW_5: Self = Self {
        window: 5,
        distance_power: 0.0,
        popularity_power: 0.0,
        normalise_rows: false,
        last_items: 5,
        decay: 0.5,
        // Scores are whole numbers of decay^4.
        backoff: 0.0625,
    };
    /// The settings that did best on MovieLens-100K's validation targets.
    pub const TUNED: Self = Self {
        window: 20,
        distance_power: 0.7,
        popularity_power: 0.3,
        normalise_rows: true,
        last_items: 10,
        decay: 0.8,
        backoff: 1e-6,
    };
}

/// Scores an item by how often it stood near the newest items of the history, on either side of
/// them, in the training sequences.
#[derive(Clone, Debug)]
pub struct Cooccurrence {
    name: String,
    settings: CooccurrenceSettings,
    pairs: ItemPairs,
    backoff: Vec<f32>,
}

impl Cooccurrence {
    /// Counts the training sequences.
    #[must_use]
    pub fn fit(name: impl Into<String>, dataset: &Dataset, settings: CooccurrenceSettings) -> Self {
        let weight = |distance: usize| (distance as f64).powf(-settings.distance_power);
        let mut pairs = ItemPairs::count(dataset, settings.window, Direction::Both, weight);
        if settings.popularity_power != 0.0 {
            let counts = dataset.training_counts();
            pairs
                .scale_columns(|item| (counts[item.row()] as f32).powf(-settings.popularity_power));
        }
        if settings.normalise_rows {
            pairs.normalise_rows();
        }
        let mut backoff = tie_breaker(dataset);
        backoff
            .iter_mut()
            .for_each(|value| *value *= settings.backoff);
        Self {
            name: name.into(),
            settings,
            pairs,
            backoff,
        }
    }

    /// The co-occurrence row of the comparison table, [`CooccurrenceSettings::WINDOW_5`].
    #[must_use]
    pub fn window_5(dataset: &Dataset) -> Self {
        let settings = CooccurrenceSettings::WINDOW_5;
        Self::fit("co-occurrence, window 5", dataset, settings)
    }

    /// The harder row, [`CooccurrenceSettings::TUNED`].
    #[must_use]
    pub fn tuned(dataset: &Dataset) -> Self {
        let settings = CooccurrenceSettings::TUNED;
        Self::fit("co-occurrence, tuned", dataset, settings)
    }

    fn score(&self, history: &[ItemIndex]) -> Vec<f32> {
        let mut scores = self.backoff.clone();
        let mut weight = 1.0;
        for &seen in newest(history, self.settings.last_items).iter().rev() {
            for &(item, value) in self.pairs.row(seen) {
                scores[item.row() - 1] += weight * value;
            }
            weight *= self.settings.decay;
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

    #[test]
    fn adds_decayed_neighbours_by_hand() {
        // Training parts: 1 2 3 | 2 4.
        let data = dataset(5, &[&[1, 2, 3, 5, 5], &[2, 4, 5, 5]]);
        let settings = CooccurrenceSettings {
            last_items: 2,
            backoff: 1e-6,
            ..CooccurrenceSettings::WINDOW_5
        };
        let floor = Cooccurrence::fit("test", &data, settings);
        // 3 has 1 and 2; 2 has 1, 3 and 4. The older 4 is past the last two.
        let scores = floor.score(&[4, 2, 3].map(ItemIndex));
        near(&scores, &[1.0 + 0.5, 1.0, 0.5, 0.5, 0.0]);
    }

    #[test]
    fn weights_distance_popularity_and_rows_by_hand() {
        let data = dataset(5, &[&[1, 2, 3, 5, 5], &[2, 4, 5, 5]]);
        let settings = CooccurrenceSettings {
            window: 20,
            distance_power: 1.0,
            popularity_power: 1.0,
            normalise_rows: true,
            last_items: 10,
            decay: 0.5,
            backoff: 1e-6,
        };
        let floor = Cooccurrence::fit("test", &data, settings);
        // Row of 1: 2 at distance 1 over its count 2, 3 at distance 2 over its count 1; both 1/2.
        near(&floor.score(&[ItemIndex(1)]), &[0.0, 0.5, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn popularity_orders_the_rest() {
        let data = dataset(5, &[&[1, 2, 5, 5], &[3, 4, 4, 5, 5]]);
        let mut floor = Cooccurrence::window_5(&data);
        let scores = floor.scores(&[&[ItemIndex(1)]]).expect("counts");
        assert_eq!(order(&scores[0]), [2, 4, 1, 3, 5]);
    }

    #[test]
    fn popularity_orders_equal_scores_and_never_more() {
        // Training parts: 1 2 3 | 3 | 3. After 1, items 2 and 3 tie at one; 3 is more popular.
        let data = dataset(5, &[&[1, 2, 3, 5, 5], &[3, 5, 5], &[3, 5, 5]]);
        let scores = Cooccurrence::window_5(&data).score(&[ItemIndex(1)]);
        assert!(scores[2] > scores[1] && scores[1] >= 1.0, "{scores:?}");
        assert!(scores[2] < 1.0 + CooccurrenceSettings::WINDOW_5.backoff);
    }
}
