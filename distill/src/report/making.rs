//! What the run was made of: data, trainings, bundle, settings.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, PreEscaped, html};

use super::curves::Chart;
use super::gather::{StageOutput, Training};
use super::profile::Profile;
use super::sections::{NO_DATA, facts, percent, section};
use super::{Gathered, ReportError};
use crate::data::PrepareReport;
use crate::train::EpochReport;

pub(super) fn profile(gathered: &Gathered) -> Result<Markup, ReportError> {
    let prepared = gathered.prepare.as_ref().map(prepare_facts);
    let counted = match &gathered.dataset {
        Some(dataset) => {
            let profile = Profile::of(dataset);
            let chart = Chart {
                points: profile.lorenz.clone(),
                x_label: "share of items, most popular first",
                ..Chart::default()
            };
            Some((profile_facts(&profile), chart.svg()?))
        }
        None => None,
    };
    let body = html! {
        @match &prepared {
            Some(lines) => (facts(lines)),
            None => p.note { "No output of prepare." },
        }
        @match &counted {
            Some((lines, chart)) => {
                (facts(lines))
                div.charts {
                    figure {
                        (PreEscaped(chart))
                        figcaption { "Share of the training interactions" }
                    }
                }
            }
            None => p.note { (NO_DATA) },
        }
    };
    Ok(section("data", "Data", body))
}

fn prepare_facts(report: &PrepareReport) -> Vec<(&'static str, String)> {
    let kept = report.kept;
    let core: u64 = report
        .k_core_rounds
        .iter()
        .map(|round| round.interactions)
        .sum();
    let times = match &report.times {
        Some(span) => match &span.days {
            Some([first, last]) => format!("{first} to {last}"),
            None => format!("{} to {}", span.first, span.last),
        },
        None => "none: the order of the file".to_owned(),
    };
    let ties = report.ties.map_or_else(
        || "not known, there are no times".to_owned(),
        |ties| {
            let share = ties.neighbours_tied as f64 / ties.neighbours.max(1) as f64;
            format!(
                "{} of neighbouring interactions have the same time; for {} users the order of the file alone says which is the test target",
                percent(share),
                ties.users_last_two_tied
            )
        },
    );
    let l = &report.lengths;
    let mut lines = vec![
        (
            "Source",
            format!(
                "{} ({} rows, SHA-256 {})",
                report.source.file, report.source.rows, report.source.sha256
            ),
        ),
        (
            "Kept",
            format!(
                "{} users, {} items, {} interactions",
                kept.users, kept.items, kept.interactions
            ),
        ),
        ("Dropped: bad lines", report.bad_lines.count.to_string()),
        ("Dropped: low rating", report.below_min_rating.to_string()),
        (
            "Dropped: repeats",
            format!(
                "{} of {} found",
                report.duplicates.dropped, report.duplicates.found
            ),
        ),
        (
            "Dropped: k-core",
            format!(
                "{core} interactions (k {}, {} rounds)",
                report.k_core,
                report.k_core_rounds.len()
            ),
        ),
        (
            "For training only",
            format!(
                "{} users with fewer than 3 interactions",
                report.users_for_training_only
            ),
        ),
        (
            "Without a title",
            format!("{} items", report.items_without_title),
        ),
        (
            "With a category",
            format!(
                "{} items, {} different categories",
                report.items_with_category, report.categories
            ),
        ),
        (
            "Sequence length",
            format!(
                "min {}, median {}, mean {:.1}, 95 % {}, max {}",
                l.min, l.median, l.mean, l.p95, l.max
            ),
        ),
        ("Time", times),
        ("Ties", ties),
    ];
    let examples = report.bad_lines.examples.iter();
    lines.extend(examples.map(|example| ("A bad line", example.clone())));
    lines
}

fn profile_facts(profile: &Profile) -> Vec<(&'static str, String)> {
    let shares: Vec<String> = (profile.top_shares.iter())
        .map(|(top, share)| format!("{} on the most popular {top} % of items", percent(*share)))
        .collect();
    vec![
        (
            "Popularity",
            format!(
                "{}; half on {} items; Gini {:.2}",
                shares.join(", "),
                profile.half_items,
                profile.gini
            ),
        ),
        (
            "Never in training",
            format!("{} of {} items", profile.unseen_items, profile.items),
        ),
        (
            "Test targets",
            format!(
                "{} users; {} targets that training never saw; {} that the user had before",
                profile.test_users, profile.unseen_targets, profile.repeated_targets
            ),
        ),
    ]
}

pub(super) fn curves(gathered: &Gathered) -> Result<Markup, ReportError> {
    let mut drawn = Vec::new();
    for training in &gathered.trainings {
        drawn.push((training, training_charts(training)?));
    }
    let body = html! {
        @if drawn.is_empty() { p.note { "No training has finished." } }
        @else { p.note { "Each loss term unweighted, its mean over the steps of an epoch; the dot is the epoch whose weights were kept." } }
        @for (training, charts) in &drawn {
            h3 { (training.folder) }
            p.soft {
                @match training.fit.best_metric {
                    Some(metric) => { "Validation NDCG@10 " (format!("{metric:.4}")) " after epoch " },
                    None => { "Not validated; the weights are those of epoch " },
                }
                (training.fit.best_epoch) " of " (training.fit.epochs.len()) ", " (training.fit.steps) " steps"
                @if training.fit.stopped_early { "; stopped early" }
            }
            div.charts {
                @for (name, svg) in charts {
                    figure { (PreEscaped(svg)) figcaption { (training.folder) ": " (name) } }
                }
            }
        }
    };
    Ok(section("curves", "Training", body))
}

/// The metric and every loss term over the epochs.
fn training_charts(training: &Training) -> Result<Vec<(String, String)>, ReportError> {
    let epochs = &training.fit.epochs;
    let terms: BTreeSet<&String> = epochs
        .iter()
        .flat_map(|epoch| epoch.losses.keys())
        .collect();
    let chart = |points: Vec<(f64, f64)>| {
        let best = training.fit.best_epoch as f64;
        Chart {
            marked: points.iter().copied().find(|point| point.0 == best),
            points,
            x_label: "epoch",
            whole_x: true,
        }
        .svg()
    };
    let metric = |e: &EpochReport| Some((e.epoch as f64, e.metric?));
    let metric: Vec<(f64, f64)> = epochs.iter().filter_map(metric).collect();
    let mut charts = Vec::new();
    if !metric.is_empty() {
        charts.push(("validation NDCG@10".to_owned(), chart(metric)?));
    }
    for term in terms {
        let value = |e: &EpochReport| Some((e.epoch as f64, *e.losses.get(term)?));
        let points = epochs.iter().filter_map(value).collect();
        charts.push((format!("loss {term}"), chart(points)?));
    }
    Ok(charts)
}

pub(super) fn bundle(gathered: &Gathered) -> Markup {
    let Some(export) = &gathered.export else {
        return section(
            "bundle",
            "Bundle",
            html! { p.note { "Nothing was exported." } },
        );
    };
    let megabytes = |bytes: u64| format!("{:.2} MB", bytes as f64 / 1e6);
    let mut lines = vec![
        ("File", export.path.display().to_string()),
        ("Size", megabytes(export.bytes)),
        ("Precision", export.precision.clone()),
        ("Weights of the encoder", export.parameters.to_string()),
        ("SHA-256", export.file_sha256.clone()),
    ];
    if let Some(latency) = gathered.latency {
        let text = format!(
            "median {:.2} ms, 90 % within {:.2} ms, on the machine that evaluated",
            latency.median, latency.p90
        );
        lines.push(("One recommendation", text));
    }
    let body = html! {
        (facts(&lines))
        table {
            thead { tr { th { "Member (uncompressed)" } th { "Size" } } }
            tbody { @for (name, bytes) in &export.members { tr { td { (name) } td { (megabytes(*bytes)) } } } }
        }
    };
    section("bundle", "Bundle", body)
}

pub(super) fn repeat(gathered: &Gathered) -> Markup {
    let body = html! {
        p.note {
            "Each stage ran with these settings on inputs with these SHA-256; with the same settings, seed, "
            "inputs and program it gives the same again. As one file: " code { "slmrec-distill settings" } "."
        }
        @for stage in &gathered.stages { (stage_facts(stage)) }
    };
    section("repeat", "Settings and hashes", body)
}

fn stage_facts(stage: &StageOutput) -> Markup {
    let record = &stage.record;
    let mut settings = Vec::new();
    flatten("", &record.settings, &mut settings);
    let hashes = |map: &BTreeMap<String, String>| -> String {
        let lines: Vec<String> = map
            .iter()
            .map(|(name, hash)| format!("{name} {hash}"))
            .collect();
        lines.join("; ")
    };
    let cost = match record.peak_memory {
        Some(bytes) => format!(
            "{:.1} s, at most {} MB of memory",
            record.seconds,
            bytes / 1_000_000
        ),
        None => format!("{:.1} s", record.seconds),
    };
    html! {
        div.stage {
            h3 { (stage.folder) span.soft { " (" (record.stage) ", " (record.created_by) ")" } }
            dl.facts {
                dt { "Cost" } dd { (cost) }
                dt { "Settings" } dd { code { (settings.join("; ")) } }
                @if !record.inputs.is_empty() { dt { "Inputs" } dd { code { (hashes(&record.inputs)) } } }
                @if !record.outputs.is_empty() { dt { "Outputs" } dd { code { (hashes(&record.outputs)) } } }
            }
        }
    }
}

/// `pretrain.train.epochs=40`, one a setting.
fn flatten(path: &str, value: &serde_json::Value, out: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                let path = match path.is_empty() {
                    true => name.clone(),
                    false => format!("{path}.{name}"),
                };
                flatten(&path, value, out);
            }
        }
        other => out.push(format!("{path}={other}")),
    }
}
