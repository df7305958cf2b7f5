//! The first floor: every user is shown what is bought most.

use slmrec_core::ItemIndex;
use slmrec_core::dataset::{Dataset, Split};

use super::{EvaluateError, Scorer};
use crate::prior::counting::sequences_before;

/// Scores an item by how often it occurs before the targets.
#[derive(Clone, Debug)]
pub struct Popularity {
    counts: Vec<f32>,
}

impl Popularity {
    /// Counts what is known before the targets of a split.
    #[must_use]
    pub fn fit(dataset: &Dataset, split: Split) -> Self {
        let mut counts = vec![0.0; dataset.num_items()];
        let sequences = sequences_before(dataset, split);
        for item in sequences.iter().flat_map(|sequence| sequence.items) {
            counts[item.row() - 1] += 1.0;
        }
        Self { counts }
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
    fn counts_what_comes_before_the_targets() {
        // The last two items of each user are held out.
        let data = dataset(4, &[&[1, 2, 2, 4, 4], &[2, 3, 4], &[3, 3]]);
        let scores = |split| {
            let mut floor = Popularity::fit(&data, split);
            floor.scores(&[&[ItemIndex(1)]]).expect("counts")
        };
        assert_eq!(scores(Split::Validation), [vec![1.0, 3.0, 2.0, 0.0]]);
        assert_eq!(scores(Split::Test), [vec![1.0, 3.0, 3.0, 1.0]]);
    }

    #[test]
    fn the_tie_breaker_orders_as_popularity_and_stays_below_one() {
        let data = dataset(5, &[&[1, 2, 2, 4, 4], &[2, 3, 4], &[3, 3]]);
        assert_eq!(tie_breaker(&data), [0.25, 0.75, 0.5, 0.0, 0.0]);
        assert!(tie_breaker(&dataset(0, &[])).is_empty());
    }
}
