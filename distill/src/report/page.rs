//! The page itself: what stands where.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::cold::cold;
use super::studies::studies;
use super::verdict::{Line, Standing};
use super::{Decision, Gathered, ReportError, Verdict, groups, making, sections, tables};

const STYLE: &str = include_str!("page.css");

/// The whole page. Every text of the data is escaped by the template; what is not is the style
/// sheet and the charts, which are made here and hold numbers only.
///
/// # Errors
/// A chart that cannot be drawn, or ranks of users that the dataset does not have.
pub fn html(gathered: &Gathered, verdict: &Verdict) -> Result<String, ReportError> {
    let name = name_of(gathered);
    let shipped = verdict.system.as_deref();
    let systems = groups::main_systems(gathered, shipped);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "SLMRec report: " (name) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Is the distilled student worth shipping? " span.soft { (name) } }
                    (contents())
                }
                main {
                    (verdict_box(verdict))
                    (warnings(gathered))
                    (tables::comparison(gathered, shipped))
                    (studies(gathered)?)
                    (sections::groups(gathered, &systems)?)
                    (sections::exposure(gathered)?)
                    (cold(gathered))
                    (making::profile(gathered)?)
                    (making::curves(gathered)?)
                    (making::bundle(gathered))
                    (sections::examples(gathered, &systems))
                    (tables::figures(gathered, shipped))
                    (making::repeat(gathered))
                    (definitions(gathered))
                }
            }
        }
    };
    Ok(page.into_string())
}

fn name_of(gathered: &Gathered) -> String {
    let compared = gathered.comparison.as_ref().map(|c| c.dataset.clone());
    let dataset = || gathered.dataset.as_ref().map(|d| d.name.clone());
    let file = || gathered.prepare.as_ref().map(|p| p.source.file.clone());
    compared.or_else(dataset).or_else(file).unwrap_or_default()
}

fn contents() -> Markup {
    let parts = [
        ("comparison", "Comparison"),
        ("studies", "Studies"),
        ("groups", "Groups"),
        ("exposure", "What is recommended"),
        ("cold", "Cold items"),
        ("data", "Data"),
        ("curves", "Training"),
        ("bundle", "Bundle"),
        ("examples", "Examples"),
        ("figures", "All figures"),
        ("repeat", "Settings and hashes"),
        ("definitions", "Definitions"),
    ];
    html! {
        nav aria-label="Contents" {
            ul { @for (id, text) in parts { li { a href={ "#" (id) } { (text) } } } }
        }
    }
}

fn verdict_box(verdict: &Verdict) -> Markup {
    let class = match verdict.decision {
        Decision::Ship => "verdict ship",
        Decision::DoNotShip => "verdict no",
        Decision::NotShown | Decision::Unknown => "verdict",
    };
    html! {
        section id="verdict" class=(class) {
            p.decision { (verdict.sentence) }
            @if let Some(system) = &verdict.system {
                p.soft {
                    "Judged: “" (system) "”, by NDCG@10 on the same users, full ranking, seen items removed; "
                    "differences are “" (system) "” minus the reference, with 95 % intervals."
                }
                ul { @for line in &verdict.lines { li { (reason(line, system)) } } }
            }
            @for caveat in &verdict.caveats { p.note { (caveat) } }
        }
    }
}

fn reason(line: &Line, shipped: &str) -> Markup {
    let class = line.measured.map_or("unmeasured", |m| m.standing.word());
    html! {
        @if line.system != shipped { "“" (line.system) "”: " }
        @match line.measured {
            Some(measured) => {
                strong class=(class) { (measured.standing.word()) }
                @if measured.standing == Standing::Level { " with " } @else { " than " }
                "“" (line.reference) "” (" (line.question) "): NDCG@10 "
                (tables::signed(measured.ndcg_10)) ", HR@10 " (tables::signed(measured.hr_10))
            }
            None => {
                strong class=(class) { "not measured" }
                " against “" (line.reference) "” (" (line.question) ")"
            }
        }
    }
}

fn warnings(gathered: &Gathered) -> Markup {
    let boxes = [
        (
            "missing",
            "Not in this report, because it was not made:",
            &gathered.missing,
        ),
        ("stale", "Out of date:", &gathered.stale),
    ];
    html! {
        @for (id, title, lines) in boxes {
            @if !lines.is_empty() {
                section.warning id=(id) {
                    p { (title) }
                    ul { @for line in lines { li { (line.what) ": " code { (line.command) } } } }
                }
            }
        }
    }
}

fn definitions(gathered: &Gathered) -> Markup {
    html! {
        section id="definitions" {
            h2 { "Definitions" }
            @match &gathered.comparison {
                Some(comparison) => ul { @for line in &comparison.definitions { li { (line) } } },
                None => p.note { "No evaluation, so nothing to define." },
            }
        }
    }
}
