//! Bootstrap over users: 95 % intervals of a mean and of a paired difference.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::metrics::Metric;

/// Resamples drawn for an interval.
pub const RESAMPLES: usize = 2000;

/// A mean with its 95 % percentile interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// The mean itself.
    pub mean: f64,
    /// 2.5 % quantile of the resampled means.
    pub low: f64,
    /// 97.5 % quantile of the resampled means.
    pub high: f64,
}

impl Interval {
    /// Whether the interval lies on one side of zero.
    #[must_use]
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// The interval of a metric over users with these ranks.
#[must_use]
pub fn interval(ranks: &[u32], metric: Metric, seed: u64) -> Interval {
    let values: Vec<f64> = ranks.iter().map(|&r| metric.of_rank(r as usize)).collect();
    interval_of_mean(&values, seed)
}

/// The interval of `metric(a) - metric(b)`, resampling users, where `a[i]` and `b[i]` are ranks of
/// the same user. `None` when the lists differ in length.
#[must_use]
pub fn paired_difference(a: &[u32], b: &[u32], metric: Metric, seed: u64) -> Option<Interval> {
    if a.len() != b.len() {
        return None;
    }
    let values: Vec<f64> = a
        .iter()
        .zip(b)
        .map(|(&a, &b)| metric.of_rank(a as usize) - metric.of_rank(b as usize))
        .collect();
    Some(interval_of_mean(&values, seed))
}

/// The 95 % percentile bootstrap interval of a mean; all zero without values.
#[must_use]
pub fn interval_of_mean(values: &[f64], seed: u64) -> Interval {
    let n = values.len();
    if n == 0 {
        return Interval {
            mean: 0.0,
            low: 0.0,
            high: 0.0,
        };
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sum: f64 = (0..n).map(|_| values[below(&mut rng, n)]).sum();
            sum / n as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    Interval {
        mean: values.iter().sum::<f64>() / n as f64,
        low: means[RESAMPLES / 40],
        high: means[RESAMPLES - 1 - RESAMPLES / 40],
    }
}

/// A uniform index below `n` by multiply-shift; the bias of n / 2^32 is far below the noise here.
pub(crate) fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_normal_interval_of_a_proportion() {
        let ranks: Vec<u32> = (0..1000).map(|i| if i % 5 == 0 { 1 } else { 99 }).collect();
        let got = interval(&ranks, Metric::HitRate(10), 7);
        let half = 1.96 * (0.2_f64 * 0.8 / 1000.0).sqrt();
        assert!((got.mean - 0.2).abs() < 1e-12);
        assert!((got.low - (0.2 - half)).abs() < 0.004, "{got:?}");
        assert!((got.high - (0.2 + half)).abs() < 0.004, "{got:?}");
    }

    #[test]
    fn a_constant_gain_excludes_zero_and_none_does_not() {
        let b: Vec<u32> = (1..200).collect();
        let same = paired_difference(&b, &b, Metric::Mrr, 1).expect("same length");
        assert!(!same.excludes_zero());
        let a: Vec<u32> = b.iter().map(|r| r.div_ceil(2)).collect();
        let gain = paired_difference(&a, &b, Metric::Mrr, 1).expect("same length");
        assert!(gain.excludes_zero() && gain.low > 0.0);
        assert!(paired_difference(&a, &b[1..], Metric::Mrr, 1).is_none());
    }
}
