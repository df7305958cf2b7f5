//! Popularity of late: interactions count less the older they are.

use slmrec_core::ItemIndex;
use slmrec_core::dataset::{Dataset, Split};

use super::{EvaluateError, Scorer, validation_ndcg_of};
use crate::prior::counting::sequences_before;

/// Half-lives that are tried, as parts of the time from the first to the last training interaction.
const HALF_LIVES: [f64; 8] = [0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002];

/// Scores an item by the interactions before the targets, each worth `0.5^(age / half-life)`.
#[derive(Clone, Debug)]
pub struct RecentPopularity {
    scores: Vec<f32>,
}

impl RecentPopularity {
    /// Counts what is known before the targets of a split, with the half-life that ranks the
    /// validation targets best. `None` for a dataset without times, or with one time only.
    ///
    /// # Errors
    /// A dataset without validation targets.
    pub fn fit(
        dataset: &Dataset,
        split: Split,
        users: Option<&[usize]>,
    ) -> Result<Option<Self>, EvaluateError> {
        let Some((first, last)) = span(dataset, Split::Validation) else {
            return Ok(None);
        };
        let half_life = |part: f64| part * (last - first) as f64;
        let mut best: Option<(f64, f64)> = None;
        for part in HALF_LIVES {
            let mut candidate =
                Self::with_half_life(dataset, Split::Validation, last, half_life(part));
            let ndcg = validation_ndcg_of(&mut candidate, dataset, users)?;
            if best.is_none_or(|(known, _)| ndcg > known) {
                best = Some((ndcg, part));
            }
        }
        let last = span(dataset, split).map_or(last, |(_, last)| last);
        let fitted = |(_, part)| Self::with_half_life(dataset, split, last, half_life(part));
        Ok(best.map(fitted))
    }

    fn with_half_life(dataset: &Dataset, split: Split, last: i64, half_life: f64) -> Self {
        let mut scores = vec![0f64; dataset.num_items()];
        for (item, time) in times_before(dataset, split) {
            let age = (last - time) as f64;
            scores[item.row() - 1] += (-age / half_life).exp2();
        }
        Self {
            scores: scores.into_iter().map(|score| score as f32).collect(),
        }
    }
}

/// Every interaction before the targets with its time; nothing without times.
fn times_before(dataset: &Dataset, split: Split) -> impl Iterator<Item = (ItemIndex, i64)> {
    let times = dataset.times.as_deref().unwrap_or_default();
    let sequences = sequences_before(dataset, split);
    (sequences.into_iter().enumerate()).flat_map(move |(user, sequence)| {
        let times = times.get(dataset.offsets[user]..).unwrap_or_default();
        sequence.items.iter().copied().zip(times.iter().copied())
    })
}

/// First and last time before the targets, where they differ.
fn span(dataset: &Dataset, split: Split) -> Option<(i64, i64)> {
    let first = times_before(dataset, split).map(|(_, time)| time).min()?;
    let last = times_before(dataset, split).map(|(_, time)| time).max()?;
    (first < last).then_some((first, last))
}

impl Scorer for RecentPopularity {
    fn name(&self) -> &'static str {
        "popularity of late"
    }

    fn scores(&mut self, histories: &[&[ItemIndex]]) -> Result<Vec<Vec<f32>>, EvaluateError> {
        Ok(vec![self.scores.clone(); histories.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testing::dataset;

    #[test]
    fn a_half_life_halves() {
        let mut data = dataset(3, &[&[1, 2, 3, 3], &[1, 3, 3]]);
        data.times = Some(vec![0, 10, 90, 90, 20, 90, 90]);
        // Training: 1 at 0, 2 at 10; 1 at 20.
        assert_eq!(span(&data, Split::Validation), Some((0, 20)));
        let floor = RecentPopularity::with_half_life(&data, Split::Validation, 20, 10.0);
        assert_eq!(floor.scores, [0.25 + 1.0, 0.5, 0.0]);
    }

    #[test]
    fn chooses_by_validation_and_needs_times() {
        // Item 1 was popular once, item 2 is popular now; whoever has 3 and 4 takes 2 next.
        let mut sequences = vec![vec![1u32, 1]; 20];
        sequences.extend(vec![vec![2, 2]; 3]);
        sequences.extend(vec![vec![3, 4, 2, 3]; 5]);
        let borrowed: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let mut data = dataset(5, &borrowed);
        assert!(
            RecentPopularity::fit(&data, Split::Validation, None)
                .expect("fits")
                .is_none()
        );
        let old = (0..20).flat_map(|_| [0, 1]);
        let new = (0..3).flat_map(|_| [899, 899]);
        let asked = (0..5).flat_map(|_| [880, 890, 900, 901]);
        data.times = Some(old.chain(new).chain(asked).collect());
        let floor = RecentPopularity::fit(&data, Split::Validation, None)
            .expect("fits")
            .expect("times");
        assert!(floor.scores[1] > floor.scores[0], "{:?}", floor.scores);
    }
}
