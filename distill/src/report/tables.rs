//! The comparison: every system under every ranking, and the paired differences.

use maud::{Markup, html};
use slmrec_core::Split;
use slmrec_core::bootstrap::Interval;
use slmrec_core::evaluation::Ranking;
use slmrec_core::metrics::Metric;

use super::Gathered;
use super::verdict::Standing;
use crate::evaluate::{Comparison, Row};

/// A mean with its interval below it.
pub(super) fn cell(interval: Interval) -> Markup {
    let Interval { mean, low, high } = interval;
    html! { (format!("{mean:.4}")) span.ci { (format!("{low:.4} to {high:.4}")) } }
}

/// `+0.0123 [+0.0010, +0.0250] *`, starred where the interval excludes zero.
pub(super) fn signed(interval: Interval) -> String {
    let mark = if interval.excludes_zero() { " *" } else { "" };
    let Interval { mean, low, high } = interval;
    format!("{mean:+.4} [{low:+.4}, {high:+.4}]{mark}")
}

pub(super) fn comparison(gathered: &Gathered, shipped: Option<&str>) -> Markup {
    let Some(comparison) = &gathered.comparison else {
        return html! {
            section id="comparison" {
                h2 { "Comparison" }
                p.note { "Nothing was evaluated." }
            }
        };
    };
    let target = match comparison.split {
        Split::Validation => "validation",
        Split::Test => "test",
    };
    html! {
        section id="comparison" {
            h2 { "Comparison" }
            p {
                (comparison.dataset) ": " (target) " targets of " (comparison.users) " users, "
                (comparison.items) " items; " (comparison.skipped_users) " users too short to have one."
            }
            h3 { "Full ranking, seen items removed: the headline" }
            (headline(comparison, shipped))
        }
    }
}

/// Every pair and every metric: long, so it stands behind what most readers look for.
pub(super) fn figures(gathered: &Gathered, shipped: Option<&str>) -> Markup {
    html! {
        section id="figures" {
            h2 { "All figures" }
            @match &gathered.comparison {
                Some(comparison) => {
                    (paired(comparison, shipped))
                    @for ranking in Ranking::ALL { (all_metrics(comparison, ranking, shipped)) }
                }
                None => p.note { "Nothing was evaluated." }
            }
        }
    }
}

fn row_class(row: &str, shipped: Option<&str>) -> Option<&'static str> {
    (Some(row) == shipped).then_some("shipped")
}

/// HR@10 and NDCG@10 with the interval drawn.
fn headline(comparison: &Comparison, shipped: Option<&str>) -> Markup {
    let ndcg = |row: &Row| row.metrics.get(Ranking::SeenRemoved).ndcg_10;
    let most = comparison.rows.iter().map(|row| ndcg(row).high);
    let most = most.fold(f64::MIN_POSITIVE, f64::max);
    html! {
        table.stack {
            thead { tr {
                th { "System" } th { "HR@10" } th { "NDCG@10" }
                th.text { "NDCG@10, 95 % interval from 0 to " (format!("{most:.3}")) }
            } }
            tbody {
                @for row in &comparison.rows {
                    tr class=[row_class(&row.system, shipped)] {
                        td { (row.system) }
                        td data-label="HR@10" { span { (cell(row.metrics.get(Ranking::SeenRemoved).hr_10)) } }
                        td data-label="NDCG@10" { span { (cell(ndcg(row))) } }
                        td.text.wide data-label="NDCG@10, 95 % interval" { (span_of(ndcg(row), 0.0, most)) }
                    }
                }
            }
        }
    }
}

/// An interval as a line with its mean as a mark; `from` and `to` are the ends of the drawing. Zero is
/// marked where it lies between them.
pub(super) fn span_of(interval: Interval, from: f64, to: f64) -> Markup {
    let percent = |value: f64| 100.0 * (value - from) / (to - from);
    let at = |value: f64| format!("{:.2}", percent(value));
    html! {
        svg.span viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
            @if from < 0.0 { rect.zero x=(at(0.0)) y="0" width="0.2" height="10" {} }
            line x1=(at(interval.low)) x2=(at(interval.high)) y1="5" y2="5" {}
            rect x=(at(interval.mean)) y="1" width="0.8" height="8" {}
        }
    }
}

fn all_metrics(comparison: &Comparison, ranking: Ranking, shipped: Option<&str>) -> Markup {
    let title = match ranking {
        Ranking::SeenRemoved => "All metrics: full ranking, seen items removed".to_owned(),
        Ranking::SeenKept => "All metrics: full ranking, seen items kept".to_owned(),
        Ranking::Sampled => format!(
            "All metrics: 1 target + {} sampled negatives (not comparable with full ranking)",
            comparison.protocol.negatives
        ),
    };
    let metrics = Metric::REPORTED.map(|metric| metric.to_string());
    html! {
        h3 { (title) }
        table.stack {
            thead { tr { th { "System" } @for metric in &metrics { th { (metric) } } } }
            tbody {
                @for row in &comparison.rows {
                    tr class=[row_class(&row.system, shipped)] {
                        td { (row.system) }
                        @for (metric, value) in metrics.iter().zip(row.metrics.get(ranking).reported()) {
                            td data-label=(metric) { span { (cell(value)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Every pair once, the later system against the earlier one.
fn paired(comparison: &Comparison, shipped: Option<&str>) -> Markup {
    let place = |name: &str| comparison.rows.iter().position(|row| row.system == name);
    let once = |row: &&crate::evaluate::PairedRow| place(&row.system) > place(&row.reference);
    html! {
        @if !comparison.paired.is_empty() {
            h3 { "Differences on the same users, full ranking, seen items removed" }
            p.note {
                "System minus reference, 95 % paired bootstrap interval; * where it excludes zero."
            }
            table.stack {
                thead { tr {
                    th { "System" } th.text { "Reference" } th { "HR@10" } th { "NDCG@10" } th.text { "by NDCG@10" }
                } }
                tbody {
                    @for row in comparison.paired.iter().filter(once) {
                        @let difference = row.difference.get(Ranking::SeenRemoved);
                        @let standing = Standing::of(difference.ndcg_10).word();
                        tr class=[row_class(&row.system, shipped)] {
                            td { (row.system) }
                            td.text data-label="Reference" { (row.reference) }
                            td data-label="HR@10" { (signed(difference.hr_10)) }
                            td data-label="NDCG@10" { (signed(difference.ndcg_10)) }
                            td.text data-label="by NDCG@10" { span class=(standing) { (standing) } }
                        }
                    }
                }
            }
        }
    }
}
