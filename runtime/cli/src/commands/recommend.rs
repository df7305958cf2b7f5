//! `slmrec-run history.json`

use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use comfy_table::Cell;
use serde::Serialize;
use slmrec_core::history::parse_histories;
use slmrec_core::{History, HistoryError};
use slmrec_runtime::{
    ExplainOptions, FilterOptions, RankedCandidates, Recommendation, Recommendations, Recommender,
    RuntimeError, Timing,
};

use super::filter::{self, named};
use crate::arguments::{Format, RecommendArguments};
use crate::output::{self, number, printable, say};
use crate::report::{BundleReport, EngineReport, TimingReport};

#[derive(Serialize)]
struct Report {
    bundle: BundleReport,
    engine: EngineReport,
    results: Vec<UserResult>,
    timing_ms: TimingReport,
}

#[derive(Serialize)]
struct UserResult {
    user: Option<String>,
    recommendations: Vec<Row>,
    unknown_items: Vec<String>,
    used_items: usize,
    /// The list is the popularity list and not this person's.
    #[serde(skip_serializing_if = "is_false")]
    popular: bool,
    #[serde(skip_serializing_if = "is_zero")]
    shortfall: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_filter_items: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_categories: Vec<String>,
    /// Of the items to rank.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_candidates: Vec<String>,
}

#[derive(Serialize)]
struct Row {
    rank: usize,
    item: String,
    title: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<String>,
    score: Option<f32>,
    /// What speaks for it, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<Vec<ReasonRow>>,
}

#[derive(Serialize)]
struct ReasonRow {
    item: String,
    title: Option<String>,
    /// 1 for the newest item of the history.
    age: usize,
    /// By how much the score is lower without it.
    drop: f32,
}

pub(crate) fn run(arguments: &RecommendArguments) -> anyhow::Result<bool> {
    let path = arguments.history.as_deref().unwrap_or(Path::new("-"));
    let score = &arguments.score;
    let question = Question {
        k: arguments.top.get(),
        filter: filter::given(&arguments.filter)?,
        candidates: filter::ids(&score.score, score.score_file.as_deref())?,
        popular: arguments.popular,
    };
    let histories =
        parse_histories(&super::read_file(path)?).with_context(|| path.display().to_string())?;
    let (mut recommender, engine, open) = super::open(&arguments.bundle, &arguments.engine)?;
    let mut timing = Timing::default();
    let mut results = Vec::with_capacity(histories.len());
    for (position, history) in histories.iter().enumerate() {
        let result = answer(&mut recommender, history, &question, &mut timing)
            .and_then(|mut result| {
                name_categories(&recommender, &mut result);
                if arguments.explain {
                    explain(&mut recommender, history, &mut result, &mut timing)?;
                }
                Ok(result)
            })
            .with_context(|| place(path, history, position, histories.len()))?;
        warn(&result);
        results.push(result);
    }
    let report = Report {
        bundle: BundleReport::from(recommender.manifest()),
        engine,
        results,
        timing_ms: TimingReport::new(open, &timing),
    };
    let text = match arguments.format.format {
        Format::Json => output::json(&report)?,
        Format::Table => tables(&report.results),
    };
    output::print(&text)?;
    say_time(&report, timing.total());
    Ok(true)
}

/// What is asked about every history.
struct Question {
    k: usize,
    filter: FilterOptions,
    /// The items to rank, where it is not the catalog.
    candidates: Option<Vec<String>>,
    popular: bool,
}

fn answer(
    recommender: &mut Recommender,
    history: &History,
    question: &Question,
    timing: &mut Timing,
) -> anyhow::Result<UserResult> {
    if let Some(candidates) = &question.candidates {
        let found = recommender.score(history, candidates)?;
        *timing += found.timing;
        return Ok(from_candidates(history, found));
    }
    match recommender.recommend(history, question.k, &question.filter) {
        Ok(found) => {
            *timing += found.timing;
            Ok(from_model(history, found))
        }
        Err(RuntimeError::History(HistoryError::Empty | HistoryError::AllUnknown { .. }))
            if question.popular =>
        {
            from_popularity(recommender, history, question.k, &question.filter)
        }
        Err(RuntimeError::History(
            error @ (HistoryError::Empty | HistoryError::AllUnknown { .. }),
        )) => Err(anyhow::anyhow!(
            "{error}; hint: --popular offers popular items instead"
        )),
        Err(error) => Err(error.into()),
    }
}

/// Adds the categories of the items.
fn name_categories(recommender: &Recommender, result: &mut UserResult) {
    let catalog = recommender.vocabulary();
    for row in &mut result.recommendations {
        let item = catalog.index_of(&row.item).and_then(|at| catalog.get(at));
        row.categories = item.map(|item| item.categories.clone()).unwrap_or_default();
    }
}

/// Adds the reasons; popular items have none.
fn explain(
    recommender: &mut Recommender,
    history: &History,
    result: &mut UserResult,
    timing: &mut Timing,
) -> anyhow::Result<()> {
    if result.popular {
        return Ok(());
    }
    let rows = &mut result.recommendations;
    let ids: Vec<&str> = rows.iter().map(|row| row.item.as_str()).collect();
    let found = recommender.explain(history, &ids, &ExplainOptions::default())?;
    *timing += found.timing;
    for (row, reasons) in rows.iter_mut().zip(found.reasons) {
        let reasons = reasons.into_iter().map(|reason| ReasonRow {
            item: reason.id,
            title: reason.title,
            age: reason.age,
            drop: reason.drop,
        });
        row.reasons = Some(reasons.collect());
    }
    Ok(())
}

fn row(item: Recommendation) -> Row {
    Row {
        rank: item.rank,
        item: item.id,
        title: item.title,
        categories: Vec::new(),
        score: Some(item.score),
        reasons: None,
    }
}

fn from_candidates(history: &History, found: RankedCandidates) -> UserResult {
    UserResult {
        user: history.user.clone(),
        recommendations: found.items.into_iter().map(row).collect(),
        unknown_items: found.unknown_items,
        used_items: found.used_items,
        popular: false,
        shortfall: 0,
        unknown_filter_items: Vec::new(),
        unknown_categories: Vec::new(),
        unknown_candidates: found.unknown_candidates,
    }
}

fn from_model(history: &History, found: Recommendations) -> UserResult {
    UserResult {
        user: history.user.clone(),
        recommendations: found.items.into_iter().map(row).collect(),
        unknown_items: found.unknown_items,
        used_items: found.used_items,
        popular: false,
        shortfall: found.shortfall,
        unknown_filter_items: found.unknown_filter_items,
        unknown_categories: found.unknown_categories,
        unknown_candidates: Vec::new(),
    }
}

/// For a history of which nothing is known: every id of it is unknown.
fn from_popularity(
    recommender: &mut Recommender,
    history: &History,
    k: usize,
    filter: &FilterOptions,
) -> anyhow::Result<UserResult> {
    let mut named = HashSet::new();
    let ids = history.entries.iter().map(|entry| &entry.item);
    let unknown_items = ids.filter(|id| named.insert(*id)).cloned().collect();
    let found = recommender.popular(k, filter)?;
    let rows = found.items.into_iter().map(|item| Row {
        rank: item.rank,
        item: item.id,
        title: item.title,
        categories: Vec::new(),
        score: None,
        reasons: None,
    });
    Ok(UserResult {
        user: history.user.clone(),
        recommendations: rows.collect(),
        unknown_items,
        used_items: 0,
        popular: true,
        shortfall: found.shortfall,
        unknown_filter_items: found.unknown_filter_items,
        unknown_categories: found.unknown_categories,
        unknown_candidates: Vec::new(),
    })
}

/// Names a history in an error: the file, and of several histories which one.
fn place(path: &Path, history: &History, position: usize, of: usize) -> String {
    match &history.user {
        Some(user) => format!("{}: user {user:?}", path.display()),
        None if of > 1 => format!("{}: history [{position}]", path.display()),
        None => path.display().to_string(),
    }
}

fn warn(result: &UserResult) {
    let whose = match &result.user {
        Some(user) => format!("user {user:?}: "),
        None => String::new(),
    };
    if !result.unknown_items.is_empty() {
        let list = named(&result.unknown_items);
        say(&format!(
            "warning: {whose}skipped items that the catalog does not have: {list}"
        ));
    }
    filter::warn(
        &whose,
        &result.unknown_filter_items,
        &result.unknown_categories,
    );
    if !result.unknown_candidates.is_empty() {
        let list = named(&result.unknown_candidates);
        say(&format!(
            "warning: {whose}the catalog does not have these items to rank: {list}"
        ));
    }
    if result.shortfall > 0 {
        say(&format!(
            "warning: {whose}{} fewer items than asked for: no more are left",
            result.shortfall
        ));
    }
    if result.popular {
        say(&format!(
            "notice: {whose}nothing in the history is known; these are popular items"
        ));
    }
}

fn tables(results: &[UserResult]) -> String {
    let mut text = String::new();
    for (position, result) in results.iter().enumerate() {
        if position > 0 {
            text.push('\n');
        }
        if let Some(user) = &result.user {
            let _ = writeln!(text, "User {}", printable(user));
        }
        if result.popular {
            text.push_str("Popular items\n");
        }
        let explained = result.recommendations.iter().any(|r| r.reasons.is_some());
        let header = ["Rank", "Item", "Title", "Score", "Because of"];
        let mut table = output::table(if explained { &header } else { &header[..4] });
        for row in &result.recommendations {
            let mut cells = vec![
                number(row.rank),
                Cell::new(printable(&row.item)),
                Cell::new(row.title.as_deref().map(printable).unwrap_or_default()),
                number(row.score.map(|s| format!("{s:.3}")).unwrap_or_default()),
            ];
            if let Some(reasons) = &row.reasons {
                cells.push(Cell::new(because_of(reasons)));
            }
            table.add_row(cells);
        }
        let _ = writeln!(text, "{table}");
    }
    text
}

/// Titles, or ids where there is none, with what they are worth.
fn because_of(reasons: &[ReasonRow]) -> String {
    let named = reasons.iter().map(|reason| {
        let name = reason.title.as_ref().unwrap_or(&reason.item);
        format!("{} (+{:.3})", printable(name), reason.drop)
    });
    named.collect::<Vec<_>>().join("\n")
}

fn say_time(report: &Report, total: Duration) {
    let used: usize = report.results.iter().map(|r| r.used_items).sum();
    say(&format!(
        "time: {:.1} ms to open, {:.1} ms for {} {} of {used} items together",
        report.timing_ms.open,
        total.as_secs_f64() * 1e3,
        report.results.len(),
        if report.results.len() == 1 {
            "history"
        } else {
            "histories"
        },
    ));
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}
