//! Several systems on the same targets, and whether their differences are more than noise.

use std::collections::HashSet;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use slmrec_core::Evaluation;
use slmrec_core::bootstrap::{Interval, paired_differences};
use slmrec_core::dataset::Split;
use slmrec_core::evaluation::{MetricIntervals, PerRanking, Protocol, Ranking};
use slmrec_core::metrics::Metric;

/// Why evaluations could not be compared.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ComparisonError {
    /// Nothing to compare.
    #[error("no evaluation was given")]
    Empty,
    /// Two systems of one name.
    #[error("two systems are called {name:?}\nhint: rename one of the evaluations")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A reference that is not among the systems.
    #[error("the reference {name:?} is not among the systems: {systems}")]
    UnknownReference {
        /// The name.
        name: String,
        /// What there is.
        systems: String,
    },
    /// Evaluations of different data, targets or settings.
    #[error(
        "{system:?} cannot be compared with {first:?}: {field} should be {expected}, found {found}"
    )]
    Different {
        /// The system that differs.
        system: String,
        /// The first system.
        first: String,
        /// In what.
        field: &'static str,
        /// What the first system has.
        expected: String,
        /// What this one has.
        found: String,
    },
}

/// One system's metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The system.
    pub system: String,
    /// Its metrics with 95 % intervals, per ranking.
    pub metrics: PerRanking<MetricIntervals>,
}

/// The differences of two systems on the same users, system minus reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedDifference {
    /// Of HR@10, with its 95 % interval from resampling users.
    pub hr_10: Interval,
    /// Of NDCG@10, with its 95 % interval from resampling users.
    pub ndcg_10: Interval,
    /// Whether the interval of HR@10 excludes zero.
    pub hr_10_differs: bool,
    /// Whether the interval of NDCG@10 excludes zero.
    pub ndcg_10_differs: bool,
}

/// One system against one reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedRow {
    /// The system.
    pub system: String,
    /// What it is compared with.
    pub reference: String,
    /// System minus reference, per ranking.
    pub difference: PerRanking<PairedDifference>,
}

/// One table of systems: for machines as serde JSON, for people by its `Display`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// What a person calls the dataset.
    pub dataset: String,
    /// Fingerprint of the sequences that every system was evaluated on.
    pub sequences_sha256: String,
    /// Number of items N.
    pub items: usize,
    /// Which targets were asked for.
    pub split: Split,
    /// The settings of the protocol.
    pub protocol: Protocol,
    /// Number of evaluated users.
    pub users: usize,
    /// Users without a target.
    pub skipped_users: usize,
    /// The systems, in the order given.
    pub rows: Vec<Row>,
    /// Every system against every reference.
    pub paired: Vec<PairedRow>,
    /// What the figures mean.
    pub definitions: Vec<String>,
}

impl Comparison {
    /// Puts evaluations of the same targets into one table and compares every system with every
    /// one of `references`, which are names of systems.
    ///
    /// # Errors
    /// Different data, split, users or protocol; a name twice; an unknown reference.
    pub fn new(evaluations: &[Evaluation], references: &[&str]) -> Result<Self, ComparisonError> {
        let first = evaluations.first().ok_or(ComparisonError::Empty)?;
        let mut names = HashSet::new();
        for evaluation in evaluations {
            same_targets(first, evaluation)?;
            if !names.insert(evaluation.name.as_str()) {
                return Err(ComparisonError::DuplicateName {
                    name: evaluation.name.clone(),
                });
            }
        }
        let references = references
            .iter()
            .map(|name| find(evaluations, name))
            .collect::<Result<Vec<_>, _>>()?;
        let row = |evaluation: &Evaluation| Row {
            system: evaluation.name.clone(),
            metrics: evaluation.metrics.clone(),
        };
        Ok(Self {
            dataset: first.dataset.clone(),
            sequences_sha256: first.sequences_sha256.clone(),
            items: first.items,
            split: first.split,
            protocol: first.protocol,
            users: first.users.len(),
            skipped_users: first.skipped_users,
            rows: evaluations.iter().map(row).collect(),
            paired: paired_rows(evaluations, &references),
            definitions: super::table::definitions(first.split, first.protocol),
        })
    }

    /// The comparison of one system with one reference, where it was asked for.
    #[must_use]
    pub fn difference(
        &self,
        system: &str,
        reference: &str,
        ranking: Ranking,
    ) -> Option<&PairedDifference> {
        let is = |row: &&PairedRow| row.system == system && row.reference == reference;
        let row = self.paired.iter().find(is)?;
        Some(row.difference.get(ranking))
    }
}

fn find<'a>(evaluations: &'a [Evaluation], name: &str) -> Result<&'a Evaluation, ComparisonError> {
    let names = || {
        let names: Vec<&str> = evaluations.iter().map(|e| e.name.as_str()).collect();
        names.join(", ")
    };
    evaluations
        .iter()
        .find(|evaluation| evaluation.name == name)
        .ok_or_else(|| ComparisonError::UnknownReference {
            name: name.to_owned(),
            systems: names(),
        })
}

fn paired_rows(evaluations: &[Evaluation], references: &[&Evaluation]) -> Vec<PairedRow> {
    let pairs: Vec<(&Evaluation, &Evaluation)> = references
        .iter()
        .flat_map(|&reference| evaluations.iter().map(move |system| (system, reference)))
        .filter(|(system, reference)| system.name != reference.name)
        .collect();
    pairs
        .into_par_iter()
        .filter_map(|(system, reference)| paired_row(system, reference))
        .collect()
}

/// System minus reference on the same users. `None` only for lists of different lengths, which
/// [`same_targets`] refuses.
pub(crate) fn paired_row(system: &Evaluation, reference: &Evaluation) -> Option<PairedRow> {
    let difference = |ranking| {
        let (a, b) = (system.ranks.get(ranking), reference.ranks.get(ranking));
        let metrics = [Metric::HitRate(10), Metric::Ndcg(10)];
        let [hr_10, ndcg_10] = paired_differences(a, b, metrics, system.protocol.seed)?;
        Some(PairedDifference {
            hr_10,
            ndcg_10,
            hr_10_differs: hr_10.excludes_zero(),
            ndcg_10_differs: ndcg_10.excludes_zero(),
        })
    };
    Some(PairedRow {
        system: system.name.clone(),
        reference: reference.name.clone(),
        difference: PerRanking {
            seen_removed: difference(Ranking::SeenRemoved)?,
            seen_kept: difference(Ranking::SeenKept)?,
            sampled: difference(Ranking::Sampled)?,
        },
    })
}

pub(crate) fn same_targets(first: &Evaluation, other: &Evaluation) -> Result<(), ComparisonError> {
    let describe = |e: &Evaluation| {
        [
            ("the sequences' SHA-256", e.sequences_sha256.clone()),
            ("the number of items", e.items.to_string()),
            ("the split", format!("{:?}", e.split)),
            ("the number of negatives", e.protocol.negatives.to_string()),
            ("the seed", e.protocol.seed.to_string()),
            ("the number of users", e.users.len().to_string()),
            (
                "the number of ranks",
                format!("{:?}", e.ranks.map(Vec::len)),
            ),
        ]
    };
    let different = |field, expected: String, found: String| ComparisonError::Different {
        system: other.name.clone(),
        first: first.name.clone(),
        field,
        expected,
        found,
    };
    for ((field, expected), (_, found)) in describe(first).into_iter().zip(describe(other)) {
        if expected != found {
            return Err(different(field, expected, found));
        }
    }
    match first.users.iter().zip(&other.users).find(|(a, b)| a != b) {
        Some((a, b)) => Err(different("a user's place", a.to_string(), b.to_string())),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::evaluate::testing::dataset;
    use slmrec_core::evaluation::Ranks;

    /// Twenty users of three items each; the ranks are the same under every protocol.
    pub(crate) fn evaluation(name: &str, rank_of: impl Fn(u32) -> u32) -> Evaluation {
        let sequences: Vec<&[u32]> = (0..20).map(|_| &[1, 2, 3][..]).collect();
        let data = dataset(30, &sequences);
        let users: Vec<u32> = (0..20).collect();
        let ranks: Vec<u32> = users.iter().map(|&user| rank_of(user)).collect();
        let ranks = Ranks {
            seen_removed: ranks.clone(),
            seen_kept: ranks.clone(),
            sampled: ranks,
        };
        Evaluation::new(name, &data, Split::Test, Protocol::default(), users, ranks)
            .expect("consistent")
    }

    #[test]
    fn every_system_against_every_reference() {
        let all = [
            evaluation("good", |_| 1),
            evaluation("level", |user| 1 + user),
            evaluation("base", |user| 20 - user),
        ];
        let table = Comparison::new(&all, &["base", "level"]).expect("same targets");
        let systems: Vec<&str> = table.rows.iter().map(|row| row.system.as_str()).collect();
        assert_eq!(systems, ["good", "level", "base"]);
        assert_eq!(table.paired.len(), 4);
        let of = |a, b| {
            *table
                .difference(a, b, Ranking::SeenRemoved)
                .expect("was asked for")
        };
        // The same ranks in another order: no difference in the mean, and not "significant".
        let level = of("level", "base");
        assert!(level.ndcg_10.mean.abs() < 1e-12 && !level.ndcg_10_differs);
        let good = of("good", "base");
        assert!((good.hr_10.mean - 0.5).abs() < 1e-12);
        assert!(good.hr_10_differs && good.ndcg_10_differs);
        assert_eq!(
            of("base", "level").hr_10.mean,
            -of("level", "base").hr_10.mean
        );
        assert!(table.difference("base", "base", Ranking::Sampled).is_none());
    }

    #[test]
    fn json_round_trip() {
        let all = [evaluation("a", |_| 1), evaluation("b", |_| 2)];
        let table = Comparison::new(&all, &["a"]).expect("same targets");
        let json = serde_json::to_string(&table).expect("json");
        let back: Comparison = serde_json::from_str(&json).expect("reads");
        assert_eq!(back.rows.len(), 2);
        assert_eq!(back.definitions, table.definitions);
    }

    #[test]
    fn refuses_what_cannot_be_compared() {
        let a = evaluation("a", |_| 1);
        assert_eq!(Comparison::new(&[], &[]), Err(ComparisonError::Empty));
        assert!(matches!(
            Comparison::new(&[a.clone(), a.clone()], &[]),
            Err(ComparisonError::DuplicateName { .. })
        ));
        let error = Comparison::new(std::slice::from_ref(&a), &["z"]).expect_err("unknown");
        assert!(error.to_string().ends_with("systems: a"), "{error}");
        type Change = fn(&mut Evaluation);
        let changes: [(&str, Change); 6] = [
            ("SHA-256", |e| e.sequences_sha256 = "0".into()),
            ("the split", |e| e.split = Split::Validation),
            ("the seed", |e| e.protocol.seed = 1),
            ("negatives", |e| e.protocol.negatives = 99),
            ("a user's place", |e| e.users[19] = 50),
            ("the number of ranks", |e| e.ranks.sampled.truncate(3)),
        ];
        for (part, change) in changes {
            let mut b = evaluation("b", |_| 1);
            change(&mut b);
            let error = Comparison::new(&[a.clone(), b], &[]).expect_err("differs");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
