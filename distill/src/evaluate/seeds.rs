//! Runs that differ by their seed alone, as one: what is claimed should not hang on one seed.
//!
//! A user's metric is the mean over the runs, and users are resampled. So the intervals are those of
//! other users, with less of the noise of training in them than one run has; how far the runs lie
//! apart stands beside them.

use std::path::PathBuf;

use serde::Serialize;
use slmrec_core::Evaluation;
use slmrec_core::bootstrap::{Interval, intervals_of_means};
use slmrec_core::dataset::Split;
use slmrec_core::metrics::Metric;

use super::compare::{CompareError, find, names};
use super::comparison::same_targets;
use super::headline;
use super::rank_files::RankedRun;

const METRICS: [Metric; 2] = [Metric::HitRate(10), Metric::Ndcg(10)];

/// All runs in one table: full ranking, seen items removed.
#[derive(Clone, Debug, Serialize)]
pub struct SeedsTable {
    /// The runs, as given.
    pub runs: Vec<PathBuf>,
    /// What a person calls the dataset.
    pub dataset: String,
    /// Which targets were asked for.
    pub split: Split,
    /// Number of users.
    pub users: usize,
    /// The system that the others are compared with: the one to ship, or the one asked for.
    pub system: String,
    /// Every system that all runs have, in the order of the first run.
    pub rows: Vec<SeedsRow>,
    /// Systems that some runs lack.
    pub left_out: Vec<String>,
}

/// One system.
#[derive(Clone, Debug, Serialize)]
pub struct SeedsRow {
    /// Its name.
    pub system: String,
    /// HR@10.
    pub hr_10: OverRuns,
    /// NDCG@10.
    pub ndcg_10: OverRuns,
    /// [`SeedsTable::system`] minus this one on the same users; none for itself.
    pub difference: Option<SeedsDifference>,
}

/// How far [`SeedsTable::system`] is above a row; below where negative.
#[derive(Clone, Debug, Serialize)]
pub struct SeedsDifference {
    /// Of HR@10.
    pub hr_10: OverRuns,
    /// Of NDCG@10.
    pub ndcg_10: OverRuns,
}

/// A figure of several runs.
#[derive(Clone, Debug, Serialize)]
pub struct OverRuns {
    /// Its mean over runs and users, with the 95 % interval from resampling users.
    pub mean: Interval,
    /// Its mean over users in each run.
    pub each: Vec<f64>,
}

/// Puts runs into one table. `system` is what the others are compared with; by default the system
/// that would be shipped, or the last one of the first run.
///
/// # Errors
/// A run given twice; other data, targets or users; no system that all runs have; an unknown one.
pub fn over_seeds(runs: &[RankedRun], system: Option<&str>) -> Result<SeedsTable, CompareError> {
    let [first, others @ ..] = runs else {
        return Err(CompareError::OneRun { found: 0 });
    };
    if others.is_empty() {
        return Err(CompareError::OneRun { found: 1 });
    }
    let (shared, left_out) = shared_systems(first, others)?;
    same_everywhere(runs, &shared)?;
    each_once(runs, &shared)?;
    let compared = compared_with(runs, &shared, system)?;
    let asked = shared[0][0];
    let seed = asked.protocol.seed;
    let values: Vec<Vec<UserMetrics>> = shared.iter().map(|of| of_runs(of)).collect();
    let row = |place: usize| {
        let [hr_10, ndcg_10] = over_runs(&values[place], seed);
        SeedsRow {
            system: shared[place][0].name.clone(),
            hr_10,
            ndcg_10,
            difference: (place != compared).then(|| {
                let [hr_10, ndcg_10] = over_runs(&minus(&values[compared], &values[place]), seed);
                SeedsDifference { hr_10, ndcg_10 }
            }),
        }
    };
    Ok(SeedsTable {
        runs: runs.iter().map(|run| run.path.clone()).collect(),
        dataset: asked.dataset.clone(),
        split: asked.split,
        users: asked.users.len(),
        system: shared[compared][0].name.clone(),
        rows: (0..shared.len()).map(row).collect(),
        left_out,
    })
}

/// Every system of every run was asked for the same targets.
fn same_everywhere(runs: &[RankedRun], shared: &[Vec<&Evaluation>]) -> Result<(), CompareError> {
    let asked = shared[0][0];
    for of in shared {
        for (run, evaluation) in runs.iter().zip(of) {
            same_targets(asked, evaluation).map_err(|source| CompareError::Different {
                path: run.path.clone(),
                first_path: runs[0].path.clone(),
                source: Box::new(source),
            })?;
        }
    }
    Ok(())
}

/// Place of the system that the others are compared with.
fn compared_with(
    runs: &[RankedRun],
    shared: &[Vec<&Evaluation>],
    system: Option<&str>,
) -> Result<usize, CompareError> {
    let found = match system {
        Some(name) => {
            for run in runs {
                find(run, name, "--system")?;
            }
            shared.iter().position(|of| of[0].name == name)
        }
        None => headline(&shared.iter().map(|of| &*of[0].name).collect::<Vec<_>>()),
    };
    Ok(found.unwrap_or(shared.len() - 1))
}

/// A run that is counted twice would make intervals look better founded than they are. Counts have no
/// seed, so one system may be equal in two runs; all of them are in one and the same.
fn each_once(runs: &[RankedRun], shared: &[Vec<&Evaluation>]) -> Result<(), CompareError> {
    let same = |a: usize, b: usize| shared.iter().all(|of| of[a].ranks == of[b].ranks);
    for (run, path) in runs.iter().enumerate() {
        if let Some(earlier) = (0..run).find(|&earlier| same(earlier, run)) {
            return Err(CompareError::SameRun {
                path: path.path.clone(),
                first_path: runs[earlier].path.clone(),
            });
        }
    }
    Ok(())
}

/// One evaluation a run of each system that all have (never none), and the names of the others.
type Shared<'a> = (Vec<Vec<&'a Evaluation>>, Vec<String>);

fn shared_systems<'a>(
    first: &'a RankedRun,
    others: &'a [RankedRun],
) -> Result<Shared<'a>, CompareError> {
    let mut shared = Vec::new();
    let mut left_out: Vec<String> = Vec::new();
    for system in &first.evaluations {
        let in_others: Option<Vec<&Evaluation>> = (others.iter())
            .map(|run| run.evaluations.iter().find(|e| e.name == system.name))
            .collect();
        match in_others {
            Some(in_others) => shared.push([vec![system], in_others].concat()),
            None => left_out.push(system.name.clone()),
        }
    }
    for system in others.iter().flat_map(|run| &run.evaluations) {
        let known = first.evaluations.iter().any(|e| e.name == system.name);
        if !known && !left_out.contains(&system.name) {
            left_out.push(system.name.clone());
        }
    }
    if let (true, Some(other)) = (shared.is_empty(), others.first()) {
        return Err(CompareError::NothingInCommon {
            path: other.path.clone(),
            first_path: first.path.clone(),
            first: names(first),
            second: names(other),
        });
    }
    Ok((shared, left_out))
}

/// [`METRICS`] of every user in one run.
type UserMetrics = Vec<[f64; 2]>;

fn of_runs(evaluations: &[&Evaluation]) -> Vec<UserMetrics> {
    let metrics = |&rank: &u32| METRICS.map(|metric| metric.of_rank(rank as usize));
    let of = |e: &&Evaluation| e.ranks.seen_removed.iter().map(metrics).collect();
    evaluations.iter().map(of).collect()
}

fn minus(a: &[UserMetrics], b: &[UserMetrics]) -> Vec<UserMetrics> {
    let users = |(a, b): (&UserMetrics, &UserMetrics)| {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| [a[0] - b[0], a[1] - b[1]]).collect()
    };
    a.iter().zip(b).map(users).collect()
}

fn over_runs(runs: &[UserMetrics], seed: u64) -> [OverRuns; 2] {
    let users = runs.first().map_or(0, Vec::len);
    let mean_of = |user: usize| {
        [0, 1]
            .map(|metric| runs.iter().map(|run| run[user][metric]).sum::<f64>() / runs.len() as f64)
    };
    let means: UserMetrics = (0..users).map(mean_of).collect();
    let intervals = intervals_of_means(&means, seed);
    [0, 1].map(|metric| OverRuns {
        mean: intervals[metric],
        each: (runs.iter())
            .map(|run| run.iter().map(|user| user[metric]).sum::<f64>() / users.max(1) as f64)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::comparison::tests::evaluation;

    fn run(path: &str, evaluations: Vec<Evaluation>) -> RankedRun {
        RankedRun {
            path: path.into(),
            evaluations,
            dataset: None,
        }
    }

    /// Half of the users are hits of "a" in the first run, the other half in the second.
    fn two() -> [RankedRun; 2] {
        let base = || evaluation("base", |_| 11);
        [
            run(
                "one",
                vec![
                    base(),
                    evaluation("a", |user| if user < 10 { 1 } else { 11 }),
                    evaluation("x", |_| 1),
                ],
            ),
            run(
                "two",
                vec![
                    evaluation("a", |user| if user < 10 { 11 } else { 1 }),
                    base(),
                    evaluation("y", |_| 1),
                ],
            ),
        ]
    }

    #[test]
    fn users_are_averaged_before_they_are_resampled() {
        let table = over_seeds(&two(), Some("a")).expect("a table");
        assert_eq!((table.users, table.system.as_str()), (20, "a"));
        assert_eq!(table.left_out, ["x", "y"]);
        let [base, a] = &table.rows[..] else {
            panic!("two systems are in both: {:?}", table.rows);
        };
        // Every user has .5 in the mean of the runs, so that resampling users changes nothing.
        let half = Interval {
            mean: 0.5,
            low: 0.5,
            high: 0.5,
        };
        assert_eq!(a.hr_10.mean, half);
        assert_eq!(a.hr_10.each, [0.5, 0.5]);
        assert!(a.difference.is_none());
        let difference = base.difference.as_ref().expect("a - base");
        assert_eq!(difference.hr_10.mean, half);
        assert_eq!(difference.ndcg_10.each, [0.5, 0.5]);
    }

    #[test]
    fn one_run_or_the_same_run_twice_is_no_mean() {
        let [one, two] = two();
        let refused = |runs: &[RankedRun], part: &str| {
            let error = over_seeds(runs, None).expect_err("refused").to_string();
            assert!(error.contains(part) && error.contains("hint:"), "{error}");
        };
        refused(&[], "found 0");
        refused(std::slice::from_ref(&one), "found 1");
        let again = RankedRun {
            path: "again".into(),
            ..one.clone()
        };
        refused(&[one.clone(), two.clone(), again], "again: ");
        let strange = run("three", vec![evaluation("z", |_| 1)]);
        refused(&[one.clone(), strange], "three: ");
        let error = over_seeds(&[one.clone(), two.clone()], Some("x")).expect_err("not in both");
        assert!(error.to_string().starts_with("two: "), "{error}");
        let mut other = two;
        other.evaluations[0].users[19] = 50;
        refused(&[one, other], "two: ");
    }
}
