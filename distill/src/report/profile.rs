//! What the data are like: how popularity is spread, and what could leak.

use slmrec_core::Dataset;
use slmrec_core::dataset::Split;

use crate::evaluate::PopularItems;

/// Figures of a dataset that `prepare` does not report.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Share of the training interactions that the most popular 1, 10 and 20 % of items have.
    pub top_shares: [(u32, f64); 3],
    /// Gini coefficient of the training interactions over items: 0 all alike, 1 all on one.
    pub gini: f64,
    /// The fewest items that have half of the training interactions.
    pub half_items: usize,
    /// Items without a training interaction.
    pub unseen_items: usize,
    /// Number of items N.
    pub items: usize,
    /// Users with a test target.
    pub test_users: usize,
    /// Test targets that training never saw.
    pub unseen_targets: usize,
    /// Test targets that the user had before.
    pub repeated_targets: usize,
    /// Share of interactions (down) against share of items (across), most popular first.
    pub lorenz: Vec<(f64, f64)>,
}

/// Points of the curve.
const POINTS: usize = 60;

impl Profile {
    /// Counts.
    #[must_use]
    pub fn of(dataset: &Dataset) -> Self {
        let popular = PopularItems::of(dataset);
        let mut counts: Vec<u32> = dataset.training_counts().into_iter().skip(1).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let mut profile = Self {
            top_shares: [1, 10, 20].map(|percent| (percent, top_share(&counts, percent))),
            gini: gini(&counts),
            half_items: popular.len(),
            unseen_items: counts.iter().filter(|&&count| count == 0).count(),
            items: counts.len(),
            test_users: 0,
            unseen_targets: 0,
            repeated_targets: 0,
            lorenz: lorenz(&counts),
        };
        for user in 0..dataset.num_users() {
            let Some((history, target)) = dataset.held_out(user, Split::Test) else {
                continue;
            };
            profile.test_users += 1;
            profile.unseen_targets += usize::from(popular.count(target) == 0);
            profile.repeated_targets += usize::from(history.contains(&target));
        }
        profile
    }
}

fn total(counts: &[u32]) -> f64 {
    counts.iter().map(|&count| f64::from(count)).sum()
}

/// `counts` descending.
fn top_share(counts: &[u32], percent: u32) -> f64 {
    let top = (counts.len() * percent as usize).div_ceil(100);
    total(&counts[..top]) / total(counts).max(1.0)
}

/// `counts` descending.
fn gini(counts: &[u32]) -> f64 {
    let n = counts.len() as f64;
    let weighted: f64 = (counts.iter().rev().zip(1u32..))
        .map(|(&count, place)| f64::from(place) * f64::from(count))
        .sum();
    match total(counts) {
        0.0 => 0.0,
        total => (2.0 * weighted / (n * total)) - (n + 1.0) / n,
    }
}

fn lorenz(counts: &[u32]) -> Vec<(f64, f64)> {
    let total = total(counts).max(1.0);
    let mut points = vec![(0.0, 0.0)];
    let mut covered = 0.0;
    let step = counts.len().div_ceil(POINTS).max(1);
    for (at, chunk) in counts.chunks(step).enumerate() {
        covered += self::total(chunk);
        let items = (at * step + chunk.len()) as f64 / counts.len() as f64;
        points.push((items, covered / total));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testing::dataset;

    #[test]
    fn figures_by_hand() {
        let data = dataset(4, &[&[1, 1, 1, 2, 3], &[1, 2, 3, 3], &[2, 3]]);
        // Training: item 1 four times, item 2 twice (the short user trains only), item 3 once.
        let profile = Profile::of(&data);
        assert_eq!((profile.items, profile.unseen_items), (4, 1));
        assert_eq!((profile.test_users, profile.repeated_targets), (2, 1));
        assert_eq!(profile.unseen_targets, 0);
        assert_eq!(profile.half_items, 1);
        assert_eq!(profile.lorenz.last(), Some(&(1.0, 1.0)));
        // Mean absolute difference of 4, 2, 1, 0 over twice the mean: 26 / 16 / (2 * 7 / 4).
        assert!(
            (profile.gini - 26.0 / 56.0).abs() < 1e-12,
            "{}",
            profile.gini
        );
        assert!((top_share(&[4, 2, 1, 0], 20) - 4.0 / 7.0).abs() < 1e-12);
    }
}
