//! The second floor: what most often came right after the last item.

use slmrec_core::ItemIndex;
use slmrec_core::dataset::{Dataset, Split};
use slmrec_core::prior::{Direction, PriorError, PriorSettings, TransitionPrior};

use super::popularity::tie_breaker;
use super::{EvaluateError, Scorer};
use crate::prior::counting::{count, sequences_before};

/// A first-order Markov chain: the score of an item is how often it came directly after the last
/// item of the history before the targets. Popularity orders equal counts, and so the items
/// that never followed.
#[derive(Clone, Debug)]
pub struct MarkovChain {
    successors: TransitionPrior,
    backoff: Vec<f32>,
}

impl MarkovChain {
    /// Counts what is known before the targets of a split.
    ///
    /// # Errors
    /// Only what counting a checked dataset gives, which is nothing.
    pub fn fit(dataset: &Dataset, split: Split) -> Result<Self, PriorError> {
        let settings = PriorSettings {
            window: 1,
            direction: Direction::Later,
            last_items: 1,
            ..PriorSettings::WINDOW_5
        };
        let sequences = sequences_before(dataset, split);
        Ok(Self {
            successors: count(&sequences, dataset.num_items(), settings, usize::MAX)?,
            backoff: tie_breaker(dataset),
        })
    }
}

impl Scorer for MarkovChain {
    fn name(&self) -> &'static str {
        "Markov, order 1"
    }

    fn scores(&mut self, histories: &[&[ItemIndex]]) -> Result<Vec<Vec<f32>>, EvaluateError> {
        let score = |history: &&[ItemIndex]| {
            let mut scores = self.backoff.clone();
            let last = history.last().copied().unwrap_or(ItemIndex::PADDING);
            for (item, count) in self.successors.row(last) {
                scores[item.row() - 1] += count;
            }
            scores
        };
        Ok(histories.iter().map(score).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testing::{dataset, order};

    #[test]
    fn successors_first_then_popularity() {
        // Training parts: 1 2 1 3 1 3 | 4 4 4 | 5 1 4.
        let data = dataset(
            5,
            &[
                &[1, 2, 1, 3, 1, 3, 5, 5],
                &[4, 4, 4, 5, 5],
                &[5, 1, 4, 2, 2],
            ],
        );
        let mut floor = MarkovChain::fit(&data, Split::Validation).expect("counts");
        let scores = floor
            .scores(&[&[4, 1].map(ItemIndex), &[1, 2].map(ItemIndex)])
            .expect("counts");
        // After 1: 3 twice, 2 and 4 once (4 is more popular); then by popularity 1, 5.
        assert_eq!(order(&scores[0]), [3, 4, 2, 1, 5]);
        // After 2: 1 once; then 4 (4), 3 (2), and 2 before 5, which tie at one.
        assert_eq!(order(&scores[1]), [1, 4, 3, 2, 5]);
        assert_eq!(scores[1][1], scores[1][4]);
    }
}
