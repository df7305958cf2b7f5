//! What `prepare` read, kept and dropped, and why.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::Fault;
use super::{Duplicates, Format, time};

/// What became of a file. `rows` is the sum of `bad_lines.count`, `below_min_rating`,
/// `duplicates.dropped`, what the rounds of `k_core` dropped, and `kept.interactions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareReport {
    /// The source and how it was read.
    pub source: FileReport,
    /// The items file, if there was one.
    pub items: Option<FileReport>,
    /// Rows that could not be read.
    pub bad_lines: BadLines,
    /// Rows rated lower than asked for.
    pub below_min_rating: u64,
    /// Repeated items of a user.
    pub duplicates: DuplicateReport,
    /// The `k` asked for.
    pub k_core: usize,
    /// What each round of k-core filtering dropped.
    pub k_core_rounds: Vec<KCoreRound>,
    /// What is in the dataset.
    pub kept: Counts,
    /// Users with fewer than three interactions: for training, never for evaluation.
    pub users_for_training_only: u64,
    /// Items without a title.
    pub items_without_title: u64,
    /// Items with a category.
    #[serde(default)]
    pub items_with_category: u64,
    /// Different categories.
    #[serde(default)]
    pub categories: u64,
    /// Lengths of the users' sequences.
    pub lengths: LengthQuantiles,
    /// Equal times; `None` where the source has no times and its order is the order in time.
    pub ties: Option<Ties>,
    /// First and last time; `None` as for `ties`.
    pub times: Option<TimeSpan>,
}

/// A file and how it was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileReport {
    /// Its name, without the folder.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
    /// The format, recognised or asked for.
    pub format: Format,
    /// Rows, the header not counted; for sequences, interactions.
    pub rows: u64,
    /// The column of each meaning.
    pub columns: BTreeMap<String, String>,
    /// What was recognised or assumed.
    pub notes: Vec<String>,
}

/// Rows left out because they could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BadLines {
    /// How many.
    pub count: u64,
    /// The first of them, with line numbers.
    pub examples: Vec<String>,
}

impl BadLines {
    const EXAMPLES: usize = 5;

    pub(super) fn add(&mut self, line: u64, fault: &Fault) {
        self.count += 1;
        if self.examples.len() < Self::EXAMPLES {
            self.examples.push(format!("line {line}: {fault}"));
        }
    }
}

/// Interactions with an item that the user had before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DuplicateReport {
    /// The rule.
    pub rule: Duplicates,
    /// How many there were.
    pub found: u64,
    /// How many were dropped.
    pub dropped: u64,
}

/// What one round of k-core filtering dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KCoreRound {
    /// Users with too few interactions.
    pub users: u64,
    /// Items with too few interactions.
    pub items: u64,
    /// Interactions of these users and items.
    pub interactions: u64,
}

/// Sizes of a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Users.
    pub users: u64,
    /// Items.
    pub items: u64,
    /// Interactions.
    pub interactions: u64,
}

/// Interactions of one user at the same time; they stay in the order of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ties {
    /// Pairs of neighbouring interactions of one user.
    pub neighbours: u64,
    /// Such pairs with the same time.
    pub neighbours_tied: u64,
    /// Users whose last two interactions have the same time, so that the order of the file alone
    /// says which is the test target.
    pub users_last_two_tied: u64,
}

/// How the lengths of the sequences are spread (nearest rank).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthQuantiles {
    /// The shortest.
    pub min: usize,
    /// 5 % are no longer.
    pub p5: usize,
    /// 25 % are no longer.
    pub p25: usize,
    /// Half are no longer.
    pub median: usize,
    /// 75 % are no longer.
    pub p75: usize,
    /// 95 % are no longer.
    pub p95: usize,
    /// The longest.
    pub max: usize,
    /// The mean.
    pub mean: f64,
}

/// The time that the interactions cover, in the unit of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeSpan {
    /// The oldest.
    pub first: i64,
    /// The newest.
    pub last: i64,
    /// Their days, where the numbers look like seconds or milliseconds since 1970.
    pub days: Option<[String; 2]>,
}

impl TimeSpan {
    pub(super) fn of(times: &[i64]) -> Option<Self> {
        let (&first, &last) = (times.iter().min()?, times.iter().max()?);
        // Seconds from 1973 to 5138; milliseconds of the same years are a thousand times that.
        const SECONDS: std::ops::Range<i64> = 100_000_000..100_000_000_000;
        let unit = [1, 1000]
            .into_iter()
            .find(|unit| SECONDS.contains(&(first / unit)) && SECONDS.contains(&(last / unit)));
        let days =
            unit.and_then(|unit| Some([time::day_of(first / unit)?, time::day_of(last / unit)?]));
        Some(Self { first, last, days })
    }
}

impl fmt::Display for PrepareReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, file) in [
            ("source", Some(&self.source)),
            ("items", self.items.as_ref()),
        ] {
            if let Some(file) = file {
                file.describe(f, what)?;
            }
        }
        self.describe_dropped(f)?;
        self.describe_kept(f)
    }
}

/// One line of the report: what, and how much or which.
fn line(f: &mut fmt::Formatter<'_>, what: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{what:<22} {value}")
}

impl FileReport {
    fn describe(&self, f: &mut fmt::Formatter<'_>, what: &str) -> fmt::Result {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|(role, column)| format!("{role} = {column:?}"))
            .collect();
        let format = format!("{:?}", self.format).to_lowercase();
        line(
            f,
            what,
            format_args!("{} ({format}, {} bytes)", self.file, self.bytes),
        )?;
        line(f, "  columns", columns.join(", "))?;
        for note in &self.notes {
            line(f, "  note", note)?;
        }
        line(f, "  rows read", self.rows)
    }
}

impl PrepareReport {
    fn describe_dropped(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bad_lines.count > 0 {
            line(f, "dropped: bad lines", self.bad_lines.count)?;
            for example in &self.bad_lines.examples {
                line(f, "  for example", example)?;
            }
        }
        line(f, "dropped: low rating", self.below_min_rating)?;
        let DuplicateReport {
            rule,
            found,
            dropped,
        } = self.duplicates;
        let rule = match rule {
            Duplicates::Keep => "all are kept",
            Duplicates::First => "the oldest is kept",
            Duplicates::Last => "the newest is kept",
        };
        line(
            f,
            "dropped: repeats",
            format_args!("{dropped} ({found} found; {rule})"),
        )?;
        for (round, at) in self.k_core_rounds.iter().zip(1..) {
            line(
                f,
                &format!("dropped: {}-core, {at}", self.k_core),
                format_args!(
                    "{} interactions ({} users, {} items)",
                    round.interactions, round.users, round.items
                ),
            )?;
        }
        Ok(())
    }

    fn describe_kept(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            users,
            items,
            interactions,
        } = self.kept;
        line(
            f,
            "kept",
            format_args!("{users} users, {items} items, {interactions} interactions"),
        )?;
        line(
            f,
            "  for training only",
            format_args!(
                "{} users with fewer than 3 interactions",
                self.users_for_training_only
            ),
        )?;
        line(
            f,
            "  without title",
            format_args!("{} items", self.items_without_title),
        )?;
        line(
            f,
            "  with a category",
            format_args!(
                "{} items, {} different categories",
                self.items_with_category, self.categories
            ),
        )?;
        let l = &self.lengths;
        line(
            f,
            "sequence length",
            format_args!(
                "min {}, 5% {}, 25% {}, median {}, 75% {}, 95% {}, max {}, mean {:.1}",
                l.min, l.p5, l.p25, l.median, l.p75, l.p95, l.max, l.mean
            ),
        )?;
        match &self.times {
            Some(TimeSpan {
                days: Some([first, last]),
                ..
            }) => {
                line(f, "time", format_args!("{first} to {last}"))?;
            }
            Some(TimeSpan { first, last, .. }) => {
                line(f, "time", format_args!("{first} to {last}"))?
            }
            None => line(f, "time", "none: the order of the file")?,
        }
        let Some(ties) = &self.ties else {
            return Ok(());
        };
        let share = 100.0 * ties.neighbours_tied as f64 / ties.neighbours.max(1) as f64;
        line(
            f,
            "ties (in file order)",
            format_args!(
                "{share:.1} % of neighbouring interactions; the last two of {} users",
                ties.users_last_two_tied
            ),
        )
    }
}
