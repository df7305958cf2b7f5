//! What an evaluation is: the rank of every user's target under three protocols, and the file that
//! holds them.
//!
//! Both sides write this one type: training evaluates its models and floors with it, the device
//! command evaluates a bundle with it, and a comparison reads either. The ranks are kept, not only
//! the means, because a paired comparison of two systems needs them.
//!
//! The three protocols are ways of ranking the same scores:
//!
//! - *seen removed*: the whole catalog without the items of the user's history;
//! - *seen kept*: the whole catalog;
//! - *sampled*: the target among negatives that the user never had (see [`crate::sampled`]).

use serde::{Deserialize, Serialize};

use crate::bootstrap::{Interval, intervals};
use crate::dataset::{Dataset, Split};
use crate::hash;
use crate::metrics::Metric;
use crate::ranking::{ItemMask, RankingError, rank_of};
use crate::sampled::{self, rank_among, sampled_negatives};
use crate::vocabulary::ItemIndex;

/// Version of the evaluation file.
pub const FORMAT_VERSION: u32 = 1;

/// Why an evaluation cannot be built or read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EvaluationError {
    /// Not the JSON of an evaluation.
    #[error("not an evaluation: {0}")]
    Json(String),
    /// A field that contradicts the others.
    #[error("{field}: expected {expected}, found {found}")]
    Content {
        /// The field.
        field: &'static str,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
}

/// The settings that two evaluations must share before they may be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// Negatives beside each target in the sampled ranking.
    pub negatives: usize,
    /// Seed of the negatives and of the bootstrap.
    pub seed: u64,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            negatives: sampled::NEGATIVES,
            seed: sampled::SEED,
        }
    }
}

/// The rank of one user's target under each protocol: 1-based, ties against the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserRanks {
    /// In the catalog without the user's history.
    pub seen_removed: u32,
    /// In the whole catalog.
    pub seen_kept: u32,
    /// Among the sampled negatives.
    pub sampled: u32,
}

impl Protocol {
    /// Ranks one user's target. `user` is the user's place in the dataset, `history` everything
    /// before the target, `scores[i]` the score of row `i + 1`.
    ///
    /// A target that is also in the history (a repeat) stays a candidate, so it can be ranked.
    ///
    /// # Errors
    /// A NaN anywhere in `scores`, whether or not it would decide a place; a target outside the
    /// catalog.
    pub fn rank_user(
        &self,
        user: usize,
        history: &[ItemIndex],
        target: ItemIndex,
        scores: &[f32],
    ) -> Result<UserRanks, RankingError> {
        if let Some(i) = scores.iter().position(|score| score.is_nan()) {
            return Err(RankingError::NotANumber { row: i as u32 + 1 });
        }
        let items = scores.len();
        let none = ItemMask::none(items);
        let mut seen = none.clone();
        history.iter().for_each(|&item| seen.exclude(item));
        // Kept first: it is what refuses a target outside the catalog.
        let seen_kept = rank_of(scores, target, &none)? as u32;
        let negatives = sampled_negatives(user, target, history, items, self.negatives, self.seed);
        Ok(UserRanks {
            seen_removed: rank_of(scores, target, &seen)? as u32,
            seen_kept,
            sampled: rank_among(scores, target, &negatives)? as u32,
        })
    }
}

/// Which of the three rankings is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ranking {
    /// The whole catalog without the user's history: the headline.
    SeenRemoved,
    /// The whole catalog.
    SeenKept,
    /// One target among sampled negatives.
    Sampled,
}

impl Ranking {
    /// All three, in the order of a report.
    pub const ALL: [Self; 3] = [Self::SeenRemoved, Self::SeenKept, Self::Sampled];
}

/// One value per ranking.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerRanking<T> {
    /// In the whole catalog without the user's history.
    pub seen_removed: T,
    /// In the whole catalog.
    pub seen_kept: T,
    /// Among the sampled negatives.
    pub sampled: T,
}

impl<T> PerRanking<T> {
    /// The value of one ranking.
    #[must_use]
    pub fn get(&self, ranking: Ranking) -> &T {
        match ranking {
            Ranking::SeenRemoved => &self.seen_removed,
            Ranking::SeenKept => &self.seen_kept,
            Ranking::Sampled => &self.sampled,
        }
    }

    /// Applies `f` to every value.
    pub fn map<U>(&self, f: impl Fn(&T) -> U) -> PerRanking<U> {
        PerRanking {
            seen_removed: f(&self.seen_removed),
            seen_kept: f(&self.seen_kept),
            sampled: f(&self.sampled),
        }
    }
}

/// 1-based ranks of the evaluated users' targets, in the order of [`Evaluation::users`].
pub type Ranks = PerRanking<Vec<u32>>;

impl Ranks {
    /// Appends one user.
    pub fn push(&mut self, user: UserRanks) {
        self.seen_removed.push(user.seen_removed);
        self.seen_kept.push(user.seen_kept);
        self.sampled.push(user.sampled);
    }
}

/// The reported metrics with their 95 % bootstrap intervals over users.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricIntervals {
    /// HR@1.
    pub hr_1: Interval,
    /// HR@5.
    pub hr_5: Interval,
    /// HR@10.
    pub hr_10: Interval,
    /// HR@20.
    pub hr_20: Interval,
    /// NDCG@5.
    pub ndcg_5: Interval,
    /// NDCG@10.
    pub ndcg_10: Interval,
    /// NDCG@20.
    pub ndcg_20: Interval,
    /// MRR.
    pub mrr: Interval,
}

impl MetricIntervals {
    /// The reported metrics of these ranks.
    #[must_use]
    pub fn of_ranks(ranks: &[u32], seed: u64) -> Self {
        let [hr_1, hr_5, hr_10, hr_20, ndcg_5, ndcg_10, ndcg_20, mrr] =
            intervals(ranks, Metric::REPORTED, seed);
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

    /// The intervals in the order of [`Metric::REPORTED`].
    #[must_use]
    pub fn reported(&self) -> [Interval; 8] {
        [
            self.hr_1,
            self.hr_5,
            self.hr_10,
            self.hr_20,
            self.ndcg_5,
            self.ndcg_10,
            self.ndcg_20,
            self.mrr,
        ]
    }
}

/// One system on one dataset and split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Version of this file, [`FORMAT_VERSION`].
    pub format_version: u32,
    /// What a person calls the system.
    pub name: String,
    /// What a person calls the dataset.
    pub dataset: String,
    /// [`fingerprint`] of the dataset's sequences.
    pub sequences_sha256: String,
    /// Number of items N in the catalog.
    pub items: usize,
    /// Which targets were asked for.
    pub split: Split,
    /// The settings of the protocol.
    pub protocol: Protocol,
    /// Places of the evaluated users in the dataset, ascending.
    pub users: Vec<u32>,
    /// Users without a target (fewer than three items).
    pub skipped_users: usize,
    /// Metrics with intervals, per ranking.
    pub metrics: PerRanking<MetricIntervals>,
    /// Ranks, per ranking; entry i belongs to `users[i]`.
    pub ranks: Ranks,
}

impl Evaluation {
    /// Sums up the ranks of `users` (places in `dataset`, ascending).
    ///
    /// # Errors
    /// Lists of different lengths, ranks outside the catalog, users out of order.
    pub fn new(
        name: impl Into<String>,
        dataset: &Dataset,
        split: Split,
        protocol: Protocol,
        users: Vec<u32>,
        ranks: Ranks,
    ) -> Result<Self, EvaluationError> {
        let skipped = |&user: &usize| dataset.held_out(user, split).is_none();
        let evaluation = Self {
            format_version: FORMAT_VERSION,
            name: name.into(),
            dataset: dataset.name.clone(),
            sequences_sha256: fingerprint(dataset),
            items: dataset.num_items(),
            split,
            protocol,
            users,
            skipped_users: (0..dataset.num_users()).filter(skipped).count(),
            metrics: ranks.map(|ranks| MetricIntervals::of_ranks(ranks, protocol.seed)),
            ranks,
        };
        evaluation.check()?;
        Ok(evaluation)
    }

    /// Reads the JSON that either command writes and checks it.
    ///
    /// # Errors
    /// Other JSON, another version, or ranks that no evaluation could have given.
    pub fn from_json(bytes: &[u8]) -> Result<Self, EvaluationError> {
        let evaluation: Self =
            serde_json::from_slice(bytes).map_err(|e| EvaluationError::Json(e.to_string()))?;
        evaluation.check()?;
        Ok(evaluation)
    }

    /// The JSON form.
    ///
    /// # Errors
    /// Only what `serde_json` reports for plain numbers and strings, which is nothing.
    pub fn to_json(&self) -> Result<Vec<u8>, EvaluationError> {
        serde_json::to_vec(self).map_err(|e| EvaluationError::Json(e.to_string()))
    }

    fn check(&self) -> Result<(), EvaluationError> {
        if self.format_version != FORMAT_VERSION {
            return Err(content(
                "format_version",
                FORMAT_VERSION,
                self.format_version,
            ));
        }
        if !self.users.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(content("users", "ascending places", "another order"));
        }
        for (field, ranks, most) in [
            ("ranks.seen_removed", &self.ranks.seen_removed, self.items),
            ("ranks.seen_kept", &self.ranks.seen_kept, self.items),
            (
                "ranks.sampled",
                &self.ranks.sampled,
                self.protocol.negatives.saturating_add(1).min(self.items),
            ),
        ] {
            if ranks.len() != self.users.len() {
                let expected = format!("{} ranks, one a user", self.users.len());
                return Err(content(field, expected, ranks.len()));
            }
            if let Some(rank) = ranks.iter().find(|r| !(1..=most).contains(&(**r as usize))) {
                return Err(content(field, format!("ranks in 1..={most}"), rank));
            }
        }
        Ok(())
    }
}

/// SHA-256 over the number of items, the offsets and the item rows: equal for equal sequences,
/// whatever the dataset is called.
#[must_use]
pub fn fingerprint(dataset: &Dataset) -> String {
    let mut bytes = Vec::with_capacity(8 + 8 * dataset.offsets.len() + 4 * dataset.items.len());
    bytes.extend((dataset.num_items() as u64).to_le_bytes());
    for &offset in &dataset.offsets {
        bytes.extend((offset as u64).to_le_bytes());
    }
    for item in &dataset.items {
        bytes.extend(item.0.to_le_bytes());
    }
    hash::sha256_hex(&bytes)
}

fn content(field: &'static str, expected: impl ToString, found: impl ToString) -> EvaluationError {
    EvaluationError::Content {
        field,
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::{Item, ItemVocabulary};
    use proptest::prelude::*;

    fn dataset() -> Dataset {
        let items = (1..=5).map(|i| Item::new(i.to_string())).collect();
        Dataset {
            name: "tiny".into(),
            vocabulary: ItemVocabulary::new(items).expect("valid"),
            users: vec!["u".into(), "v".into(), "w".into()],
            items: [1, 2, 3, 4, 2, 1, 5, 1, 3].map(ItemIndex).to_vec(),
            offsets: vec![0, 4, 6, 9],
            times: None,
            provenance: serde_json::Value::Null,
        }
    }

    fn evaluation() -> Evaluation {
        let ranks = Ranks {
            seen_removed: vec![1, 2],
            seen_kept: vec![1, 4],
            sampled: vec![1, 2],
        };
        let (users, protocol) = (vec![0, 2], Protocol::default());
        Evaluation::new("s", &dataset(), Split::Test, protocol, users, ranks).expect("consistent")
    }

    #[test]
    fn ranks_by_hand() {
        let protocol = Protocol::default();
        let history = [2, 5].map(ItemIndex);
        let rank =
            |target, scores: &[f32]| protocol.rank_user(0, &history, ItemIndex(target), scores);
        // Row 4 ties with row 1; rows 2 and 5 are seen.
        let ranks = rank(4, &[2.0, 9.0, 1.0, 2.0, 9.0]).expect("ranked");
        assert_eq!((ranks.seen_removed, ranks.seen_kept), (2, 4));
        assert_eq!(ranks.sampled, 2, "a small catalog: all unseen items");
        // A repeated target stays a candidate.
        let ranks = rank(2, &[2.0, 9.0, 1.0, 2.0, 9.0]).expect("ranked");
        assert_eq!((ranks.seen_removed, ranks.seen_kept), (1, 2));
        // A NaN is refused even at a seen item that could never be recommended.
        assert_eq!(
            rank(4, &[2.0, f32::NAN, 1.0, 2.0, 9.0]),
            Err(RankingError::NotANumber { row: 2 })
        );
        assert!(matches!(
            rank(6, &[0.0; 5]),
            Err(RankingError::OutOfRange { row: 6, items: 5 })
        ));
    }

    #[test]
    fn counts_the_skipped_and_survives_a_file() {
        let evaluation = evaluation();
        assert_eq!(evaluation.skipped_users, 1);
        let hr_1 = evaluation.metrics.get(Ranking::SeenRemoved).hr_1.mean;
        assert!((hr_1 - 0.5).abs() < 1e-12);
        let json = evaluation.to_json().expect("json");
        let back = Evaluation::from_json(&json).expect("reads its own file");
        assert_eq!(back.ranks, evaluation.ranks);
        assert_eq!(back.sequences_sha256, fingerprint(&dataset()));
    }

    #[test]
    fn refuses_what_no_evaluation_gives() {
        let good = serde_json::to_value(evaluation()).expect("json");
        for (pointer, value, part) in [
            ("/format_version", serde_json::json!(9), "format_version"),
            ("/ranks/seen_kept", serde_json::json!([1]), "2 ranks"),
            ("/ranks/seen_kept", serde_json::json!([1, 6]), "1..=5"),
            ("/ranks/sampled", serde_json::json!([0, 1]), "found 0"),
            ("/users", serde_json::json!([2, 0]), "ascending"),
            ("/split", serde_json::json!("train"), "not an evaluation"),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).expect("field") = value;
            let error = Evaluation::from_json(bad.to_string().as_bytes()).expect_err("refused");
            assert!(error.to_string().contains(part), "{error} for {pointer}");
        }
    }

    #[test]
    fn the_fingerprint_sees_order_and_borders() {
        let mut other = dataset();
        other.items.swap(0, 1);
        assert_ne!(fingerprint(&other), fingerprint(&dataset()));
        let mut other = dataset();
        other.offsets[1] = 3;
        assert_ne!(fingerprint(&other), fingerprint(&dataset()));
    }

    proptest! {
        #[test]
        fn the_three_ranks_agree_with_each_other(
            scores in prop::collection::vec((-5i8..5).prop_map(f32::from), 1..60),
            history in prop::collection::vec(1u32..60, 0..20),
            pick in any::<prop::sample::Index>(),
            negatives in 0usize..80,
        ) {
            let target = ItemIndex(pick.index(scores.len()) as u32 + 1);
            let history: Vec<ItemIndex> = history.into_iter().map(ItemIndex).collect();
            let protocol = Protocol { negatives, seed: 1 };
            let r = protocol.rank_user(3, &history, target, &scores).expect("no NaN");
            prop_assert!(1 <= r.sampled && r.sampled <= r.seen_removed);
            prop_assert!(r.seen_removed <= r.seen_kept && r.seen_kept as usize <= scores.len());
            prop_assert!(r.sampled as usize <= negatives + 1);
            if negatives >= scores.len() {
                prop_assert_eq!(r.sampled, r.seen_removed);
            }
        }
    }
}
