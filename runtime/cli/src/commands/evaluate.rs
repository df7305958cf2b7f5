//! `slmrec-run evaluate`: the metrics of a bundle, by the code that recommends.
//!
//! Histories and targets go through item ids, because a dataset's rows need not be the bundle's.
//! What the bundle does not know cannot be recommended: a user whose target or whole history is
//! unknown counts as a miss below every item, and is counted in the report.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use comfy_table::Cell;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use slmrec_core::bootstrap::{self, Interval};
use slmrec_core::metrics::{Metric, MetricSet};
use slmrec_core::sampled::{self, NEGATIVES, SEED};
use slmrec_core::{Dataset, History, HistoryError, ItemIndex, ItemMask, Split, ranking};
use slmrec_runtime::{FilterOptions, Recommender, RuntimeError, Scores};

use crate::arguments::{EvaluateArguments, Format};
use crate::output::{self, number, say};
use crate::report::{BundleReport, EngineReport, milliseconds};

/// Length of the list whose time is measured.
const LIST: usize = 10;
/// The metrics that get an interval.
const WITH_INTERVAL: [(&str, Metric); 3] = [
    ("hr_10", Metric::HitRate(10)),
    ("ndcg_10", Metric::Ndcg(10)),
    ("mrr", Metric::Mrr),
];

#[derive(Serialize)]
struct Report {
    bundle: BundleReport,
    engine: EngineReport,
    dataset: DatasetReport,
    evaluated_users: usize,
    unknown: Unknown,
    protocols: BTreeMap<&'static str, Protocol>,
    latency_ms: Latency,
    /// Position in the dataset of the user that each rank belongs to.
    user_indices: Vec<usize>,
    ranks: Ranks,
    /// Ids of the best items of each user, seen items removed; nothing where the history is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    lists: Option<Vec<Vec<String>>>,
}

#[derive(Serialize)]
struct DatasetReport {
    name: String,
    users: usize,
    items: usize,
    split: Split,
    /// Most negatives beside a target; fewer where a user has seen much of a small catalog.
    negatives: usize,
    seed: u64,
}

/// What the bundle does not know of the dataset.
#[derive(Default, Serialize)]
struct Unknown {
    /// Items of the dataset.
    items: usize,
    /// Users whose target it does not have: misses.
    targets: usize,
    /// Users of whose history it has nothing: misses.
    histories: usize,
}

#[derive(Serialize)]
struct Protocol {
    metrics: MetricSet,
    intervals: BTreeMap<&'static str, Interval>,
}

#[derive(Serialize)]
struct Latency {
    median: f64,
    p90: f64,
}

/// 1-based ranks of the targets, one a user, for each protocol.
#[derive(Default, Serialize)]
struct Ranks {
    seen_removed: Vec<u32>,
    seen_kept: Vec<u32>,
    sampled: Vec<u32>,
}

pub(crate) fn run(arguments: &EvaluateArguments) -> anyhow::Result<bool> {
    let dataset = Dataset::read(&arguments.dataset)?;
    let split = Split::from(arguments.split);
    let all: Vec<usize> = (0..dataset.num_users())
        .filter(|&user| dataset.held_out(user, split).is_some())
        .collect();
    let users = evenly(&all, arguments.limit.map_or(usize::MAX, usize::from));
    anyhow::ensure!(
        !users.is_empty(),
        "{}: expected users with a held-out item, found none; hint: a user needs three interactions",
        arguments.dataset.display()
    );
    let (recommender, engine, _) = super::open(&arguments.bundle, &arguments.engine)?;
    refuse_known_targets(&recommender, split)?;
    let mut evaluation = Evaluation::new(recommender, &dataset, split);
    evaluation.lists = arguments.lists.then(Vec::new);
    let bar = progress_bar(users.len());
    for &user in bar.wrap_iter(users.iter()) {
        evaluation.user(user)?;
    }
    bar.finish_and_clear();
    let report = evaluation.report(engine, users);
    report.warn();
    let text = match arguments.format.format {
        Format::Json => output::json(&report)?,
        Format::Table => report.table(),
    };
    output::print_or_save(&text, arguments.output.as_deref())?;
    Ok(true)
}

/// At most `limit` of the users, from the first to the last at even distances: who comes first in a
/// file often differs from the rest.
fn evenly(users: &[usize], limit: usize) -> Vec<usize> {
    let count = limit.min(users.len());
    (0..count)
        .map(|at| users[at * users.len() / count])
        .collect()
}

/// A model that was trained on the targets knows them by heart, and a prior that has counted them
/// would find them by looking them up.
fn refuse_known_targets(recommender: &Recommender, split: Split) -> anyhow::Result<()> {
    anyhow::ensure!(
        recommender.manifest().model.may_rank(split),
        "expected a model that was not trained on the validation items that it is to rank, found one \
         that was\nhint: measure the test targets (--split test)"
    );
    let counted = (recommender.manifest().prior.as_ref()).filter(|p| !p.may_rank(split));
    anyhow::ensure!(
        !recommender.has_prior() || counted.is_none(),
        "expected a prior that has not counted the validation items that it is to rank, found one \
         that has\nhint: leave it out (--no-prior), or measure the test targets (--split test)"
    );
    Ok(())
}

/// Drawn on a terminal only.
fn progress_bar(users: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} users, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(users as u64).with_style(style)
}

struct Evaluation<'a> {
    recommender: Recommender,
    dataset: &'a Dataset,
    split: Split,
    /// The bundle's row of each row of the dataset; entry 0 is the padding.
    rows: Vec<Option<ItemIndex>>,
    ranks: Ranks,
    unknown: Unknown,
    latencies: Vec<Duration>,
    lists: Option<Vec<Vec<String>>>,
}

impl<'a> Evaluation<'a> {
    fn new(recommender: Recommender, dataset: &'a Dataset, split: Split) -> Self {
        let catalog = recommender.vocabulary();
        let known = dataset.vocabulary.items().iter();
        let known = known.map(|item| catalog.index_of(&item.id));
        let rows: Vec<_> = std::iter::once(None).chain(known).collect();
        let unknown = Unknown {
            items: rows.iter().skip(1).filter(|row| row.is_none()).count(),
            ..Unknown::default()
        };
        Self {
            recommender,
            dataset,
            split,
            rows,
            ranks: Ranks::default(),
            unknown,
            latencies: Vec::new(),
            lists: None,
        }
    }

    /// Ranks the target of one user under every protocol.
    fn user(&mut self, user: usize) -> anyhow::Result<()> {
        let Some((seen, target)) = self.dataset.held_out(user, self.split) else {
            return Ok(());
        };
        let num_items = self.dataset.num_items();
        let negatives = sampled::sampled_negatives(user, target, seen, num_items, NEGATIVES, SEED);
        let scores = self.scores(seen)?;
        let target = self.rows[target.row()];
        self.unknown.histories += usize::from(scores.is_none());
        self.unknown.targets += usize::from(target.is_none());
        let (Some(scores), Some(target)) = (scores, target) else {
            let last = self.recommender.vocabulary().len() + 1;
            self.push(last, last, negatives.len() + 1);
            self.lists.iter_mut().for_each(|lists| lists.push(vec![]));
            return Ok(());
        };
        let ranked = self
            .recommender
            .rank(&scores, LIST, &FilterOptions::default())?;
        self.latencies.push(ranked.timing.total());
        if let Some(lists) = &mut self.lists {
            lists.push(ranked.items.iter().map(|item| item.id.clone()).collect());
        }
        let none = ItemMask::none(scores.values.len());
        let mut mask = none.clone();
        scores.history.seen.iter().for_each(|&i| mask.exclude(i));
        let negatives: Vec<ItemIndex> = negatives
            .iter()
            .filter_map(|item| self.rows[item.row()])
            .collect();
        self.push(
            ranking::rank_of(&scores.values, target, &mask)?,
            ranking::rank_of(&scores.values, target, &none)?,
            sampled::rank_among(&scores.values, target, &negatives)?,
        );
        Ok(())
    }

    /// `None` for a history of which the bundle knows nothing.
    fn scores(&mut self, seen: &[ItemIndex]) -> anyhow::Result<Option<Scores>> {
        let items = seen.iter().filter_map(|&i| self.dataset.vocabulary.get(i));
        let history = History::from_items(items.map(|item| item.id.clone()));
        match self.recommender.scores(&history) {
            Ok(scores) => Ok(Some(scores)),
            Err(RuntimeError::History(HistoryError::AllUnknown { .. })) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn push(&mut self, seen_removed: usize, seen_kept: usize, sampled: usize) {
        self.ranks.seen_removed.push(seen_removed as u32);
        self.ranks.seen_kept.push(seen_kept as u32);
        self.ranks.sampled.push(sampled as u32);
    }

    fn report(mut self, engine: EngineReport, users: Vec<usize>) -> Report {
        self.latencies.sort_unstable();
        let quantile = |q: usize| {
            let last = self.latencies.len().saturating_sub(1);
            milliseconds(
                self.latencies
                    .get(last * q / 100)
                    .copied()
                    .unwrap_or_default(),
            )
        };
        let protocols = [
            ("seen_removed", &self.ranks.seen_removed),
            ("seen_kept", &self.ranks.seen_kept),
            ("sampled", &self.ranks.sampled),
        ];
        Report {
            bundle: BundleReport::from(self.recommender.manifest()),
            engine,
            dataset: DatasetReport {
                name: self.dataset.name.clone(),
                users: self.dataset.num_users(),
                items: self.dataset.num_items(),
                split: self.split,
                negatives: NEGATIVES.min(self.dataset.num_items().saturating_sub(1)),
                seed: SEED,
            },
            evaluated_users: users.len(),
            unknown: self.unknown,
            protocols: protocols
                .map(|(name, ranks)| (name, Protocol::of(ranks)))
                .into(),
            latency_ms: Latency {
                median: quantile(50),
                p90: quantile(90),
            },
            user_indices: users,
            ranks: self.ranks,
            lists: self.lists,
        }
    }
}

impl Protocol {
    fn of(ranks: &[u32]) -> Self {
        let interval = |(name, metric)| (name, bootstrap::interval(ranks, metric, SEED));
        Self {
            metrics: MetricSet::of_ranks(ranks),
            intervals: WITH_INTERVAL.map(interval).into(),
        }
    }
}

impl Report {
    fn warn(&self) {
        let Unknown {
            items,
            targets,
            histories,
        } = self.unknown;
        if items + targets + histories > 0 {
            say(&format!(
                "warning: the bundle does not know {items} items of the dataset; {targets} targets \
                 and {histories} whole histories of users are unknown and count as misses"
            ));
        }
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} ({} split), {} users, {} items in the bundle",
            output::printable(&self.dataset.name),
            match self.dataset.split {
                Split::Test => "test",
                Split::Validation => "validation",
            },
            self.evaluated_users,
            self.bundle.items,
        );
        let mut header = vec!["Ranking"];
        let names = Metric::REPORTED.map(|metric| metric.to_string());
        header.extend(names.iter().map(String::as_str));
        header.push("NDCG@10, 95 %");
        let mut table = output::table(&header);
        for (key, name) in [
            ("seen_removed", "full, seen removed".to_owned()),
            ("seen_kept", "full, seen kept".to_owned()),
            ("sampled", format!("1 + {} sampled", self.dataset.negatives)),
        ] {
            let Some(protocol) = self.protocols.get(key) else {
                continue;
            };
            let mut row = vec![Cell::new(name)];
            row.extend(protocol.values().map(|value| number(format!("{value:.4}"))));
            let interval = &protocol.intervals["ndcg_10"];
            row.push(number(format!(
                "{:.4} – {:.4}",
                interval.low, interval.high
            )));
            table.add_row(row);
        }
        let _ = writeln!(text, "{table}");
        let Latency { median, p90 } = self.latency_ms;
        let _ = writeln!(
            text,
            "One recommendation: median {median:.2} ms, 90 % within {p90:.2} ms"
        );
        text
    }
}

impl Protocol {
    /// In the order of [`Metric::REPORTED`].
    fn values(&self) -> [f64; 8] {
        let m = &self.metrics;
        [
            m.hr_1, m.hr_5, m.hr_10, m.hr_20, m.ndcg_5, m.ndcg_10, m.ndcg_20, m.mrr,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::evenly;

    #[test]
    fn some_users_stand_for_all() {
        let users: Vec<usize> = (0..10).map(|user| 3 * user).collect();
        assert_eq!(evenly(&users, 4), [0, 6, 15, 21]);
        assert_eq!(evenly(&users, 10), users);
        assert_eq!(evenly(&users, usize::MAX), users);
        assert_eq!(evenly(&[], 3), [0; 0]);
    }
}
