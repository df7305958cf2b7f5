//! What was found by training the student several times: depth, terms of the objective, and so on.

use maud::{Markup, PreEscaped, html};
use slmrec_core::Split;
use slmrec_core::bootstrap::Interval;
use slmrec_core::evaluation::Ranking;

use super::curves::IntervalChart;
use super::gather::StudyOutput;
use super::sections::section;
use super::tables::{cell, signed, span_of};
use super::verdict::Standing;
use super::{Gathered, ReportError};
use crate::evaluate::names::with_prior;
use crate::evaluate::{PairedRow, Row};
use crate::pipeline::stages::study::{Curves, StudyReport};

/// Classes of the lines of a chart, for the words that name them.
const LINES: [&str; 2] = ["line-1", "line-2"];

pub(super) fn studies(gathered: &Gathered) -> Result<Markup, ReportError> {
    let mut made = Vec::new();
    for output in &gathered.studies {
        made.push(study(output)?);
    }
    let body = html! {
        @if !made.is_empty() {
            p.note {
                "Students that differ in one thing, alone and with the prior, whose weights the validation "
                "targets chose for each. Full ranking, seen items removed; 95 % intervals, differences on the "
                "same users; * where zero is excluded."
            }
        }
        @for study in &made { (study) }
        @if !gathered.unasked.is_empty() {
            p.note { @if made.is_empty() { "Nothing was studied." } @else { "Not studied:" } }
            ul.soft {
                @for line in &gathered.unasked { li { (line.what) " " code { (line.command) } } }
            }
        }
    };
    Ok(section("studies", "Studies", body))
}

fn study(output: &StudyOutput) -> Result<Markup, ReportError> {
    let StudyReport {
        comparison,
        trainings,
        curves,
    } = &output.report;
    let charts = match curves {
        Some(curves) => charts(curves, &output.report)?,
        None => Vec::new(),
    };
    let widest = (comparison.paired.iter())
        .map(ndcg_10)
        .fold(f64::MIN_POSITIVE, |most, i| {
            most.max(i.low.abs()).max(i.high.abs())
        });
    let target = match comparison.split {
        Split::Validation => "Validation",
        Split::Test => "Test",
    };
    let line = |row: &Row| {
        let pair = comparison.paired.iter().find(|p| p.system == row.system);
        let training = trainings.get(&row.system);
        html! {
            tr {
                td { (row.system) }
                td data-label="NDCG@10" { span { (cell(row.metrics.get(Ranking::SeenRemoved).ndcg_10)) } }
                td.text data-label="Difference" {
                    @match pair {
                        Some(pair) => span { (difference(pair)) },
                        None => "what others are compared with",
                    }
                }
                td.text.wide data-label="Difference, 95 % interval" {
                    @if let Some(pair) = pair { (span_of(ndcg_10(pair), -widest, widest)) }
                }
                td data-label="Training" {
                    @match training {
                        Some(training) => {
                            (format!("{:.0} s", training.seconds))
                            @if let ([_, _, ..], Some(rate)) = (training.tried.as_slice(), training.learning_rate) {
                                ", rate " (rate)
                            }
                        },
                        None => "–",
                    }
                }
            }
        }
    };
    Ok(html! {
        h3 { (output.question) }
        p.soft { (target) " targets of " (comparison.users) " users." }
        @if !charts.is_empty() { div.charts { @for chart in &charts { (chart) } } }
        table.stack {
            thead { tr {
                th { "Student" } th { "NDCG@10" } th.text { "Difference" }
                th.text { "from " (format!("{:+.4} to {widest:+.4}", -widest)) } th { "Training" }
            } }
            tbody { @for row in &comparison.rows { (line(row)) } }
        }
    })
}

fn ndcg_10(row: &PairedRow) -> Interval {
    row.difference.get(Ranking::SeenRemoved).ndcg_10
}

fn difference(pair: &PairedRow) -> Markup {
    let standing = Standing::of(ndcg_10(pair)).word();
    html! {
        (signed(ndcg_10(pair))) " "
        span.soft { span class=(standing) { (standing) } ", minus “" (pair.reference) "”" }
    }
}

/// Every line over the number that was varied: alone, and with the prior where that was measured.
fn charts(curves: &Curves, report: &StudyReport) -> Result<Vec<Markup>, ReportError> {
    let rows = &report.comparison.rows;
    let measured = |system: &str| {
        let row = rows.iter().find(|row| row.system == system)?;
        Some(row.metrics.get(Ranking::SeenRemoved).ndcg_10)
    };
    let mut drawn = Vec::new();
    let alone: fn(&str) -> String = str::to_owned;
    for (kind, name) in [("", alone), (", with the prior", with_prior)] {
        let line = |points: &Vec<(f64, String)>| -> Vec<(f64, Interval)> {
            let point = |(at, system): &(f64, String)| Some((*at, measured(&name(system))?));
            points.iter().filter_map(point).collect()
        };
        let lines: Vec<_> = curves.lines.values().map(line).collect();
        if lines.iter().all(Vec::is_empty) {
            continue;
        }
        let x_label = curves.axis.clone();
        let svg = IntervalChart { lines, x_label }.svg()?;
        drawn.push(html! {
            figure {
                (PreEscaped(svg))
                figcaption {
                    "NDCG@10 by " (curves.axis) (kind) ": "
                    @for (number, (line, class)) in curves.lines.keys().zip(LINES).enumerate() {
                        @if number > 0 { ", " }
                        span class=(class) { "● " (line) }
                    }
                }
            }
        });
    }
    Ok(drawn)
}
