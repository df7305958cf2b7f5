//! The other parts of the page.

use std::collections::BTreeSet;

use maud::{Markup, PreEscaped, html};
use slmrec_core::ItemIndex;

use super::curves::Chart;
use super::gather::{StageOutput, Training};
use super::groups::GroupTable;
use super::profile::Profile;
use super::{Gathered, ReportError};
use crate::data::PrepareReport;
use crate::evaluate::compare::label;
use crate::evaluate::held_out_cases;

/// Items shown of a history, and of a list.
const SHOWN: usize = 6;
/// What a dataset is missing for.
const NO_DATA: &str = "The data of the evaluation are not there.";

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn section(id: &str, title: &str, body: Markup) -> Markup {
    html! { section id=(id) { h2 { (title) } (body) } }
}

fn facts(lines: &[(&str, String)]) -> Markup {
    html! { dl.facts { @for (name, value) in lines { dt { (name) } dd { (value) } } } }
}

pub(super) fn groups(gathered: &Gathered, systems: &[String]) -> Result<Markup, ReportError> {
    let body = match &gathered.dataset {
        Some(dataset) if !gathered.evaluations.is_empty() => {
            let tables = super::groups::of(gathered, dataset, systems)?;
            html! { @for table in &tables { (group_table(table)) } }
        }
        _ => html! { p.note { (NO_DATA) } },
    };
    Ok(section("groups", "Groups of users", body))
}

fn group_table(table: &GroupTable) -> Markup {
    let head = |(name, users): &(String, usize)| format!("{name}, {users} users");
    let heads: Vec<String> = table.groups.iter().map(head).collect();
    html! {
        h3 { (table.title) }
        p.note { (table.note) " NDCG@10, and HR@10 in brackets, with 95 % intervals of NDCG@10." }
        table.stack {
            thead { tr { th { "System" } @for head in &heads { th { (head) } } } }
            tbody {
                @for (system, figures) in &table.rows {
                    tr {
                        td { (system) }
                        @for ((head, (_, users)), [hr_10, ndcg_10]) in heads.iter().zip(&table.groups).zip(figures) {
                            td data-label=(head) {
                                @if *users == 0 { "no users" } @else {
                                    span {
                                        (format!("{:.4} ({:.4})", ndcg_10.mean, hr_10.mean))
                                        span.ci { (format!("{:.4} to {:.4}", ndcg_10.low, ndcg_10.high)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn exposure(gathered: &Gathered) -> Result<Markup, ReportError> {
    let Some(recommendations) = &gathered.recommendations else {
        let text = "The evaluation did not keep what the systems recommend.";
        return Ok(section(
            "exposure",
            "What is recommended",
            html! { p.note { (text) } },
        ));
    };
    let measured: BTreeSet<&str> = (recommendations.systems.iter())
        .map(|s| s.system.as_str())
        .collect();
    let others = (gathered.evaluations.iter()).filter(|e| !measured.contains(e.name.as_str()));
    let others: Vec<&str> = others.map(|e| e.name.as_str()).collect();
    let body = html! {
        p.note {
            "The best " (recommendations.list) " items of every user, seen items removed. Coverage: share of "
            "the catalog that stands in at least one list. Popular: share of the places that go to the most "
            "popular items, the fewest that have half of the training interactions; what people chose next "
            "themselves is in the first line."
        }
        table.stack {
            thead { tr {
                th { "System" } th { "Items shown" } th { "Coverage" } th { "Popular" } th { "Mean training interactions" }
            } }
            tbody {
                (targets_line(gathered)?)
                @for system in &recommendations.systems {
                    tr {
                        td { (system.system) }
                        td data-label="Items shown" { (system.distinct_items) }
                        td data-label="Coverage" { (percent(system.coverage)) }
                        td data-label="Popular" { (percent(system.popular_share)) }
                        td data-label="Mean training interactions" { (format!("{:.1}", system.mean_popularity)) }
                    }
                }
            }
        }
        @if !others.is_empty() { p.note { "Not measured: " (others.join("; ")) "." } }
    };
    Ok(section("exposure", "What is recommended", body))
}

/// The targets themselves, as if they were lists of one item.
fn targets_line(gathered: &Gathered) -> Result<Markup, ReportError> {
    let (Some(dataset), Some(first)) = (&gathered.dataset, gathered.evaluations.first()) else {
        return Ok(html! {});
    };
    let users: Vec<usize> = first.users.iter().map(|&user| user as usize).collect();
    let cases = held_out_cases(dataset, first.split, Some(&users))?;
    let popular = crate::evaluate::PopularItems::of(dataset);
    let distinct: BTreeSet<u32> = cases.iter().map(|case| case.target.0).collect();
    let share = cases
        .iter()
        .filter(|case| popular.contains(case.target))
        .count();
    let mean: f64 = cases
        .iter()
        .map(|case| f64::from(popular.count(case.target)))
        .sum();
    let users = cases.len() as f64;
    Ok(html! {
        tr {
            td { "the targets themselves" }
            td data-label="Items shown" { (distinct.len()) }
            td data-label="Coverage" { (percent(distinct.len() as f64 / dataset.num_items() as f64)) }
            td data-label="Popular" { (percent(share as f64 / users)) }
            td data-label="Mean training interactions" { (format!("{:.1}", mean / users)) }
        }
    })
}

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
                "Validation NDCG@10 " (format!("{:.4}", training.fit.best_metric)) " after epoch "
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
    let metric = epochs.iter().map(|e| (e.epoch as f64, e.metric)).collect();
    let mut charts = vec![("validation NDCG@10".to_owned(), chart(metric)?)];
    for term in terms {
        let value = |e: &crate::train::EpochReport| Some((e.epoch as f64, *e.losses.get(term)?));
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

pub(super) fn examples(gathered: &Gathered, systems: &[String]) -> Markup {
    let (Some(dataset), Some(recommendations)) = (&gathered.dataset, &gathered.recommendations)
    else {
        let text = "Needs the data and what the systems recommend.";
        return section("examples", "Examples", html! { p.note { (text) } });
    };
    let split = gathered.evaluations.first().map(|e| e.split);
    let cards = recommendations.example_users.iter().enumerate().filter_map(|(at, &user)| {
        let known = (user as usize) < dataset.num_users();
        let (history, target) = known.then(|| dataset.held_out(user as usize, split?))??;
        let newest = &history[history.len().saturating_sub(SHOWN)..];
        let rank = |system: &str| {
            let evaluation = gathered.ranks_of(system)?;
            let place = evaluation.users.binary_search(&user).ok()?;
            evaluation.ranks.seen_removed.get(place).copied()
        };
        let lists = (recommendations.systems.iter()).filter(|s| systems.contains(&s.system));
        Some(html! {
            div.card {
                p {
                    strong { "User " (dataset.users[user as usize]) } " after "
                    @if newest.len() < history.len() { "… | " }
                    (newest.iter().map(|&item| label(dataset, item)).collect::<Vec<_>>().join(" | "))
                }
                p { "took " span.target { (label(dataset, target)) } "." }
                @for exposure in lists {
                    @if let Some(list) = exposure.examples.get(at) {
                        p.soft {
                            (exposure.system)
                            @if let Some(rank) = rank(&exposure.system) { ", rank of the target " (rank) }
                        }
                        ol { @for &item in list.iter().take(SHOWN) { (list_entry(item, target, &label(dataset, item))) } }
                    }
                }
            }
        })
    });
    let cards: Vec<Markup> = cards.collect();
    let body = html! {
        p.note { "Users spread evenly over the data, not chosen by result. The bundle ranks as the student that it was made from." }
        div.cards { @for card in &cards { (card) } }
    };
    section("examples", "Examples", body)
}

fn list_entry(item: ItemIndex, target: ItemIndex, label: &str) -> Markup {
    let class = (item == target).then_some("target");
    html! { li class=[class] { (label) } }
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
    let hashes = |map: &std::collections::BTreeMap<String, String>| -> String {
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
