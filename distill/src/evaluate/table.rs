//! The comparison as text.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use slmrec_core::bootstrap::{Interval, RESAMPLES};
use slmrec_core::dataset::Split;
use slmrec_core::evaluation::{Protocol, Ranking};
use slmrec_core::metrics::Metric;

use super::Comparison;

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = match self.split {
            Split::Validation => "validation",
            Split::Test => "test",
        };
        writeln!(
            f,
            "{}: {target} targets of {} users, {} items ({} users too short to have one)",
            self.dataset, self.users, self.items, self.skipped_users
        )?;
        for ranking in Ranking::ALL {
            writeln!(f, "\n{}", title(ranking, self.protocol))?;
            writeln!(f, "{}", self.metrics_table(ranking))?;
        }
        if !self.paired.is_empty() {
            writeln!(
                f,
                "\nDifferences on the same users (system - reference), full ranking, seen items removed"
            )?;
            writeln!(f, "{}", self.paired_table())?;
        }
        writeln!(f)?;
        for definition in &self.definitions {
            writeln!(f, "{definition}")?;
        }
        Ok(())
    }
}

impl Comparison {
    fn metrics_table(&self, ranking: Ranking) -> Table {
        let mut header = vec!["system".to_owned()];
        header.extend(Metric::REPORTED.map(|metric| metric.to_string()));
        let mut table = new_table(header, 1);
        for row in &self.rows {
            let intervals = row.metrics.get(ranking).reported();
            let mut cells = vec![row.system.clone()];
            cells.extend(intervals.map(|interval| {
                let half = (interval.high - interval.low) / 2.0;
                format!("{:.4}\n±{half:.3}", interval.mean)
            }));
            table.add_row(cells);
        }
        table
    }

    /// The headline ranking, each pair once, the later system against the earlier one. The other
    /// rankings and directions are in the JSON.
    fn paired_table(&self) -> Table {
        let place = |name: &str| self.rows.iter().position(|row| row.system == name);
        let mut table = new_table(
            ["system", "reference", "HR@10", "NDCG@10"]
                .map(str::to_owned)
                .to_vec(),
            2,
        );
        table.load_style(presets::UTF8_FULL_CONDENSED);
        for row in &self.paired {
            if place(&row.system) < place(&row.reference) {
                continue;
            }
            let difference = row.difference.get(Ranking::SeenRemoved);
            table.add_row([
                row.system.clone(),
                row.reference.clone(),
                difference_cell(difference.hr_10),
                difference_cell(difference.ndcg_10),
            ]);
        }
        table
    }
}

/// A table whose first `names` columns are text and the rest figures.
fn new_table(header: Vec<String>, names: usize) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .force_no_tty()
        .set_header(header);
    for column in table.column_iter_mut().skip(names) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn difference_cell(interval: Interval) -> String {
    let mark = if interval.excludes_zero() { '*' } else { ' ' };
    format!(
        "{:+.4} [{:+.4}, {:+.4}] {mark}",
        interval.mean, interval.low, interval.high
    )
}

fn title(ranking: Ranking, protocol: Protocol) -> String {
    match ranking {
        Ranking::SeenRemoved => "Full ranking, seen items removed".into(),
        Ranking::SeenKept => "Full ranking, seen items kept".into(),
        Ranking::Sampled => format!(
            "1 target + {} sampled negatives (seed {})",
            protocol.negatives, protocol.seed
        ),
    }
}

/// What stands under the table.
pub(super) fn definitions(split: Split, protocol: Protocol) -> Vec<String> {
    let target = match split {
        Split::Validation => "Target: the last item but one of each user by time",
        Split::Test => "Target: the last item of each user by time",
    };
    vec![
        format!("{target}; the history is everything before it."),
        "Rank: 1-based, ties count against the target. HR@K: share of users with a rank of at most K. \
         NDCG@K: mean of 1 / log2(rank + 1) for ranks up to K, 0 past it. MRR: mean of 1 / rank, without a cut-off."
            .into(),
        "Seen removed: items of the history are no candidates (a target that repeats one stays). \
         Seen kept: the whole catalog."
            .into(),
        format!(
            "Sampled: {} different items, drawn uniformly per user with seed {} from those neither in the \
             history nor the target (all of them in a small catalog); figures are not comparable with full ranking.",
            protocol.negatives, protocol.seed
        ),
        format!(
            "±: half the width of the 95 % percentile bootstrap interval over users ({RESAMPLES} resamples). \
             Differences: paired bootstrap over the same users; * where the 95 % interval excludes zero \
             (each comparison by itself, not corrected for their number)."
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::comparison::tests::evaluation;

    #[test]
    fn shows_systems_blocks_marks_and_definitions() {
        let all = [
            evaluation("base", |user| 20 - user),
            evaluation("good", |_| 1),
        ];
        let comparison = Comparison::new(&all, &["base"]).expect("same targets");
        insta::assert_snapshot!(comparison.to_string());
    }
}
