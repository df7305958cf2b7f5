//! The first floor: every user is shown what is bought most.

use slmrec_core::ItemIndex;
use slmrec_core::dataset::Dataset;

use super::{EvaluateError, Scorer};

/// Scores an item by how often it occurs in the training sequences.
#[derive(Clone, Debug)]
pub struct Popularity {
    counts: Vec<f32>,
}

impl Popularity {
    /// Counts the training sequences.
    #[must_use]
    pub fn fit(dataset: &Dataset) -> Self {
        let counts = dataset.training_counts();
        Self {
            counts: counts.iter().skip(1).map(|&n| n as f32).collect(),
        }
    }
}

impl Scorer for Popularity {
    fn name(&self) -> &'static str {
        "popularity"
    }

    fn scores(&mut self, histories: &[&[ItemIndex]]) -> Result<Vec<Vec<f32>>, EvaluateError> {
        Ok(vec![self.counts.clone(); histories.len()])
    }
}

/// Popularity squeezed into `[0, 1)` for breaking ties: equal values exactly where the counts are
/// equal, greater where they are greater; entry `i` belongs to row `i + 1`.
///
/// The values are multiples of a power of two, so an integer added to one stays exact in f32 and
/// the integer always decides first.
pub(super) fn tie_breaker(dataset: &Dataset) -> Vec<f32> {
    let counts = dataset.training_counts();
    let counts = counts.get(1..).unwrap_or_default();
    let mut distinct = counts.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let step = 1.0 / distinct.len().max(1).next_power_of_two() as f32;
    counts
        .iter()
        .map(|count| distinct.partition_point(|c| c < count) as f32 * step)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testing::dataset;

    #[test]
    fn counts_training_items_only() {
        // The last two items of each user are held out.
        let data = dataset(4, &[&[1, 2, 2, 4, 4], &[2, 3, 4], &[3, 3]]);
        let mut floor = Popularity::fit(&data);
        let scores = floor.scores(&[&[ItemIndex(1)]]).expect("counts");
        assert_eq!(scores, [vec![1.0, 3.0, 2.0, 0.0]]);
    }

    #[test]
    fn the_tie_breaker_orders_as_popularity_and_stays_below_one() {
        let data = dataset(5, &[&[1, 2, 2, 4, 4], &[2, 3, 4], &[3, 3]]);
        assert_eq!(tie_breaker(&data), [0.25, 0.75, 0.5, 0.0, 0.0]);
        assert!(tie_breaker(&dataset(0, &[])).is_empty());
    }
}
