//! Ranking metrics from 1-based ranks: HR@K, NDCG@K, MRR (one relevant item a user).
//!
//! With a single relevant item HR@K is the share of users whose rank is at most K, NDCG@K the mean
//! of `1 / log2(rank + 1)` for ranks up to K (0 past it), MRR the mean of `1 / rank` over the
//! whole catalog.

use serde::{Deserialize, Serialize};

/// One metric and its cut-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Hit rate at K.
    HitRate(usize),
    /// Normalised discounted cumulative gain at K.
    Ndcg(usize),
    /// Mean reciprocal rank.
    Mrr,
}

impl Metric {
    /// Every metric that a report shows, in its order.
    pub const REPORTED: [Self; 8] = [
        Self::HitRate(1),
        Self::HitRate(5),
        Self::HitRate(10),
        Self::HitRate(20),
        Self::Ndcg(5),
        Self::Ndcg(10),
        Self::Ndcg(20),
        Self::Mrr,
    ];

    /// What one user with this 1-based rank contributes.
    #[must_use]
    pub fn of_rank(self, rank: usize) -> f64 {
        let rank_f = rank as f64;
        match self {
            Self::HitRate(k) if rank <= k => 1.0,
            Self::Ndcg(k) if rank <= k => 1.0 / (rank_f + 1.0).log2(),
            Self::HitRate(_) | Self::Ndcg(_) => 0.0,
            Self::Mrr => 1.0 / rank_f,
        }
    }

    /// Mean over users; 0 without users.
    #[must_use]
    pub fn mean(self, ranks: &[u32]) -> f64 {
        if ranks.is_empty() {
            return 0.0;
        }
        let sum: f64 = ranks.iter().map(|&r| self.of_rank(r as usize)).sum();
        sum / ranks.len() as f64
    }
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::HitRate(k) => write!(f, "HR@{k}"),
            Self::Ndcg(k) => write!(f, "NDCG@{k}"),
            Self::Mrr => write!(f, "MRR"),
        }
    }
}

/// The reported metrics of one system under one protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricSet {
    /// HR@1.
    pub hr_1: f64,
    /// HR@5.
    pub hr_5: f64,
    /// HR@10.
    pub hr_10: f64,
    /// HR@20.
    pub hr_20: f64,
    /// NDCG@5.
    pub ndcg_5: f64,
    /// NDCG@10.
    pub ndcg_10: f64,
    /// NDCG@20.
    pub ndcg_20: f64,
    /// MRR.
    pub mrr: f64,
}

impl MetricSet {
    /// The reported metrics of these 1-based ranks, one a user.
    #[must_use]
    pub fn of_ranks(ranks: &[u32]) -> Self {
        let [hr_1, hr_5, hr_10, hr_20, ndcg_5, ndcg_10, ndcg_20, mrr] =
            Metric::REPORTED.map(|metric| metric.mean(ranks));
        Self {
            hr_1,
            hr_5,
            hr_10,
            hr_20,
            ndcg_5,
            ndcg_10,
            ndcg_20,
            mrr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let set = MetricSet::of_ranks(&[1, 3, 11]);
        assert!((set.hr_1 - 1.0 / 3.0).abs() < 1e-12);
        assert!((set.hr_10 - 2.0 / 3.0).abs() < 1e-12);
        assert!((set.ndcg_10 - (1.0 + 0.5) / 3.0).abs() < 1e-12);
        assert!((set.mrr - (1.0 + 1.0 / 3.0 + 1.0 / 11.0) / 3.0).abs() < 1e-12);
        assert_eq!(MetricSet::of_ranks(&[]).mrr, 0.0);
    }
}
