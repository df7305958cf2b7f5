//! Who is served how: groups of users, what they are shown, and a few of them.

use std::collections::BTreeSet;

use maud::{Markup, html};
use slmrec_core::ItemIndex;

use super::groups::GroupTable;
use super::{Gathered, ReportError};
use crate::evaluate::compare::label;
use crate::evaluate::{PopularItems, held_out_cases};

/// Items shown of a history, and of a list.
const SHOWN: usize = 6;
/// What a part is missing for.
pub(super) const NO_DATA: &str = "The data of the evaluation are not there.";

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

pub(super) fn section(id: &str, title: &str, body: Markup) -> Markup {
    html! { section id=(id) { h2 { (title) } (body) } }
}

pub(super) fn facts(lines: &[(&str, String)]) -> Markup {
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
    let popular = PopularItems::of(dataset);
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
