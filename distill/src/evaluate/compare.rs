//! Two runs on the same users: how far apart they are, and which users gained and lost.
//!
//! Every difference is the second run minus the first, so a gain is one of the second.

use std::path::{Path, PathBuf};

use serde::Serialize;
use slmrec_core::bootstrap::Interval;
use slmrec_core::dataset::{Dataset, DatasetError, Split};
use slmrec_core::evaluation::{Ranking, fingerprint};
use slmrec_core::metrics::Metric;
use slmrec_core::{Evaluation, ItemIndex};

use super::comparison::{PairedDifference, paired_row, same_targets};
use super::rank_files::{RankFileError, RankedRun};
use super::{ComparisonError, headline};

/// Where a list ends: entering it is a hit of HR@10.
const LIST: u32 = 10;
/// Most items of a history that an example shows.
const SHOWN_HISTORY: usize = 8;

/// Why two runs could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Ranks that cannot be read.
    #[error(transparent)]
    Ranks(#[from] RankFileError),
    /// Runs on other data, targets or users.
    #[error(
        "{path}: {source} (of {first_path})\n\
         hint: both runs need the same dataset, split and protocol: evaluate both on one `prepare`"
    )]
    Different {
        /// The second run.
        path: PathBuf,
        /// The first run.
        first_path: PathBuf,
        /// What differs.
        source: Box<ComparisonError>,
    },
    /// A system that a run does not have.
    #[error(
        "{path}: expected the system {name:?}, found {systems}\n\
         hint: name one of these with {flag}"
    )]
    UnknownSystem {
        /// The run.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// What there is.
        systems: String,
        /// The flag that names one.
        flag: &'static str,
    },
    /// No system of one name in both runs.
    #[error(
        "{path}: expected a system that {first_path} has, too ({first}), found {second}\n\
         hint: name one system of each run with --system and --against"
    )]
    NothingInCommon {
        /// The second run.
        path: PathBuf,
        /// The first run.
        first_path: PathBuf,
        /// Systems of the first run.
        first: String,
        /// Systems of the second run.
        second: String,
    },
    /// Too few runs for a mean.
    #[error(
        "expected at least 2 runs, found {found}\nhint: run once more with another --seed and --work-dir"
    )]
    OneRun {
        /// How many were given.
        found: usize,
    },
    /// A run that would be counted twice.
    #[error(
        "{path}: expected another run than {first_path}, found the same ranks in every system\n\
         hint: name each run once, and give each its own --seed"
    )]
    SameRun {
        /// The later run.
        path: PathBuf,
        /// The earlier run.
        first_path: PathBuf,
    },
    /// Data that are not those of the ranks.
    #[error(
        "{path}: expected sequences with the SHA-256 {expected}, found {found}\n\
         hint: name the dataset that was evaluated with --dataset, or evaluate again"
    )]
    OtherDataset {
        /// The dataset directory.
        path: PathBuf,
        /// What the ranks were made on.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A dataset that cannot be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

/// Which systems of two runs are set against each other.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The system of the second run; by default every system that both have.
    pub system: Option<String>,
    /// The system of the first run; by default that of the same name.
    pub against: Option<String>,
    /// Most users shown for each direction.
    pub examples: usize,
}

/// Two runs side by side.
#[derive(Clone, Debug, Serialize)]
pub struct RunComparison {
    /// The first run.
    pub first: PathBuf,
    /// The second run.
    pub second: PathBuf,
    /// What a person calls the dataset.
    pub dataset: String,
    /// Which targets were asked for.
    pub split: Split,
    /// Number of users.
    pub users: usize,
    /// Second minus first, one a pair of systems.
    pub pairs: Vec<SystemPair>,
    /// Users of one pair.
    pub examples: Examples,
}

/// One system of each run.
#[derive(Clone, Debug, Serialize)]
pub struct SystemPair {
    /// The system of the first run.
    pub first: String,
    /// The system of the second run.
    pub second: String,
    /// HR@10 and NDCG@10 of the first, full ranking, seen items removed.
    pub first_metrics: Headline,
    /// The same of the second.
    pub second_metrics: Headline,
    /// Second minus first on the same users, full ranking, seen items removed.
    pub difference: PairedDifference,
    /// Whose target moved.
    pub changes: Changes,
}

/// The two metrics that a comparison goes by, with 95 % intervals over users.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Headline {
    /// HR@10.
    pub hr_10: Interval,
    /// NDCG@10.
    pub ndcg_10: Interval,
}

/// Users by what became of the rank of their target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Nearer to the top.
    pub gained: usize,
    /// Farther from the top.
    pub lost: usize,
    /// The same rank.
    pub unchanged: usize,
    /// Those who gained and entered the first 10.
    pub entered_top_10: usize,
    /// Those who lost and left the first 10.
    pub left_top_10: usize,
}

/// A few users, those with the largest change of 1 / rank first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Examples {
    /// The system of the first run.
    pub first: String,
    /// The system of the second run.
    pub second: String,
    /// Users who gained.
    pub gained: Vec<ExampleUser>,
    /// Users who lost.
    pub lost: Vec<ExampleUser>,
}

/// One user.
#[derive(Clone, Debug, Serialize)]
pub struct ExampleUser {
    /// The place in the dataset.
    pub place: u32,
    /// Rank of the target in the first run.
    pub first_rank: u32,
    /// Rank of the target in the second run.
    pub second_rank: u32,
    /// Who it is and what was asked, where the dataset was found.
    pub data: Option<ExampleData>,
}

/// What the dataset says about a user.
#[derive(Clone, Debug, Serialize)]
pub struct ExampleData {
    /// The user's id.
    pub user: String,
    /// Titles (or ids) of the newest items of the history, oldest first.
    pub history: Vec<String>,
    /// Length of the whole history.
    pub history_length: usize,
    /// Title (or id) of the target.
    pub target: String,
}

/// Compares two runs. `dataset` gives the examples their titles.
///
/// # Errors
/// Other data, targets or users; a system that is not there; a dataset of other sequences.
pub fn compare_runs(
    first: &RankedRun,
    second: &RankedRun,
    selection: &Selection,
    dataset: Option<&Path>,
) -> Result<RunComparison, CompareError> {
    let chosen = choose(first, second, selection)?;
    let mut pairs = Vec::with_capacity(chosen.len());
    for &(a, b) in &chosen {
        same_targets(a, b).map_err(|source| CompareError::Different {
            path: second.path.clone(),
            first_path: first.path.clone(),
            source: Box::new(source),
        })?;
        pairs.extend(system_pair(a, b));
    }
    let names: Vec<&str> = chosen.iter().map(|(_, b)| b.name.as_str()).collect();
    let shown = headline(&names).unwrap_or(0);
    let (a, b) = chosen[shown];
    let dataset = dataset.map(|dir| read_dataset(dir, a)).transpose()?;
    Ok(RunComparison {
        first: first.path.clone(),
        second: second.path.clone(),
        dataset: a.dataset.clone(),
        split: a.split,
        users: a.users.len(),
        pairs,
        examples: examples(a, b, selection.examples, dataset.as_ref()),
    })
}

/// Pairs of systems, never none.
fn choose<'a>(
    first: &'a RankedRun,
    second: &'a RankedRun,
    selection: &Selection,
) -> Result<Vec<(&'a Evaluation, &'a Evaluation)>, CompareError> {
    let system = selection.system.as_deref();
    let against = selection.against.as_deref();
    if let Some(name) = system.or(against) {
        let a = find(first, against.unwrap_or(name), "--against")?;
        let b = find(second, system.unwrap_or(name), "--system")?;
        return Ok(vec![(a, b)]);
    }
    if let ([a], [b]) = (&first.evaluations[..], &second.evaluations[..]) {
        return Ok(vec![(a, b)]);
    }
    let same = |b: &'a Evaluation| {
        let a = first.evaluations.iter().find(|a| a.name == b.name)?;
        Some((a, b))
    };
    let pairs: Vec<_> = second.evaluations.iter().filter_map(same).collect();
    if pairs.is_empty() {
        return Err(CompareError::NothingInCommon {
            path: second.path.clone(),
            first_path: first.path.clone(),
            first: names(first),
            second: names(second),
        });
    }
    Ok(pairs)
}

pub(super) fn find<'a>(
    run: &'a RankedRun,
    name: &str,
    flag: &'static str,
) -> Result<&'a Evaluation, CompareError> {
    let found = run.evaluations.iter().find(|e| e.name == name);
    found.ok_or_else(|| CompareError::UnknownSystem {
        path: run.path.clone(),
        name: name.to_owned(),
        systems: names(run),
        flag,
    })
}

pub(super) fn names(run: &RankedRun) -> String {
    let quoted: Vec<String> = (run.evaluations.iter())
        .map(|e| format!("{:?}", e.name))
        .collect();
    quoted.join(", ")
}

/// `None` only for lists of different lengths, which [`same_targets`] has refused.
fn system_pair(first: &Evaluation, second: &Evaluation) -> Option<SystemPair> {
    let of = |evaluation: &Evaluation| {
        let metrics = evaluation.metrics.get(Ranking::SeenRemoved);
        Headline {
            hr_10: metrics.hr_10,
            ndcg_10: metrics.ndcg_10,
        }
    };
    Some(SystemPair {
        first: first.name.clone(),
        second: second.name.clone(),
        first_metrics: of(first),
        second_metrics: of(second),
        difference: *paired_row(second, first)?
            .difference
            .get(Ranking::SeenRemoved),
        changes: changes(first, second),
    })
}

fn changes(first: &Evaluation, second: &Evaluation) -> Changes {
    let mut changes = Changes::default();
    for (&a, &b) in first
        .ranks
        .seen_removed
        .iter()
        .zip(&second.ranks.seen_removed)
    {
        changes.gained += usize::from(b < a);
        changes.lost += usize::from(b > a);
        changes.unchanged += usize::from(b == a);
        changes.entered_top_10 += usize::from(a > LIST && b <= LIST);
        changes.left_top_10 += usize::from(a <= LIST && b > LIST);
    }
    changes
}

fn examples(
    first: &Evaluation,
    second: &Evaluation,
    most: usize,
    dataset: Option<&Dataset>,
) -> Examples {
    let ranks = first
        .ranks
        .seen_removed
        .iter()
        .zip(&second.ranks.seen_removed);
    let mut moved: Vec<(f64, u32, u32, u32)> = (first.users.iter().zip(ranks))
        .map(|(&place, (&a, &b))| {
            let worth = |rank: u32| Metric::Mrr.of_rank(rank as usize);
            (worth(b) - worth(a), place, a, b)
        })
        .collect();
    let example = |&(_, place, first_rank, second_rank): &(f64, u32, u32, u32)| ExampleUser {
        place,
        first_rank,
        second_rank,
        data: dataset.and_then(|dataset| example_data(dataset, place as usize, first.split)),
    };
    // A stable sort: among equals the user that stands first in the dataset.
    moved.sort_by(|x, y| y.0.total_cmp(&x.0));
    let gained = moved.iter().filter(|user| user.0 > 0.0);
    let gained = gained.take(most).map(example).collect();
    moved.sort_by(|x, y| x.0.total_cmp(&y.0));
    let lost = moved.iter().filter(|user| user.0 < 0.0);
    Examples {
        first: first.name.clone(),
        second: second.name.clone(),
        gained,
        lost: lost.take(most).map(example).collect(),
    }
}

fn example_data(dataset: &Dataset, user: usize, split: Split) -> Option<ExampleData> {
    let (history, target) = dataset.held_out(user, split)?;
    let newest = &history[history.len().saturating_sub(SHOWN_HISTORY)..];
    Some(ExampleData {
        user: dataset.users.get(user)?.clone(),
        history: newest.iter().map(|&item| label(dataset, item)).collect(),
        history_length: history.len(),
        target: label(dataset, target),
    })
}

/// The title of an item, or its id where it has none.
pub(crate) fn label(dataset: &Dataset, item: ItemIndex) -> String {
    dataset.vocabulary.get(item).map_or_else(
        || format!("row {item}"),
        |item| item.title.clone().unwrap_or_else(|| item.id.clone()),
    )
}

/// The dataset in `dir`, if it is the one that `evaluation` was made on.
///
/// # Errors
/// A dataset that cannot be read, or of other sequences.
pub fn read_dataset(dir: &Path, evaluation: &Evaluation) -> Result<Dataset, CompareError> {
    let dataset = Dataset::read(dir)?;
    let found = fingerprint(&dataset);
    if found != evaluation.sequences_sha256 {
        return Err(CompareError::OtherDataset {
            path: dir.to_owned(),
            expected: evaluation.sequences_sha256.clone(),
            found,
        });
    }
    Ok(dataset)
}

#[cfg(test)]
mod tests;
