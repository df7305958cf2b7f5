//! What goes to stdout: tables for people, JSON for programs.

use std::io::Write;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::Value;
use slmrec_core::Certificate;

use super::args::OutputFormat;
use crate::evaluate::Comparison;
use crate::pipeline::stages::Context;
use crate::pipeline::{Outcome, StageRecord};
use crate::plan::machine::Free;
use crate::plan::{self, StagePlan};

/// Writes to stdout; a reader that went away is no error.
pub(super) fn out(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| {
        if text.ends_with('\n') {
            Ok(())
        } else {
            stdout.write_all(b"\n")
        }
    });
    match written {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

pub(super) fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    out(&serde_json::to_string_pretty(value)?)
}

/// The report of what was read and dropped.
pub(super) fn prepared(outcome: &Outcome) -> anyhow::Result<()> {
    let report: crate::data::PrepareReport =
        serde_json::from_value(outcome.record.figures.clone())?;
    out(&report.to_string())
}

/// Epochs of a training run.
pub(super) fn trained(what: &str, outcome: &Outcome) -> anyhow::Result<()> {
    let report: crate::train::FitReport = serde_json::from_value(outcome.record.figures.clone())?;
    let (epoch, epochs) = (report.best_epoch, report.epochs.len());
    out(&match report.best_metric {
        Some(metric) => {
            format!("{what}: validation NDCG@10 {metric:.4} after epoch {epoch} of {epochs}")
        }
        None => format!("{what}: {epochs} epochs, not validated"),
    })
}

/// The members of a blend and their weights.
pub(super) fn blended(outcome: &Outcome, format: OutputFormat) -> anyhow::Result<()> {
    let figures = &outcome.record.figures;
    if format == OutputFormat::Json {
        return json(figures);
    }
    let mut table = table(&["member", "weight", "validation NDCG@10"]);
    let figure = |value: &Value| format!("{:.4}", value.as_f64().unwrap_or(f64::NAN));
    for member in figures["members"].as_array().into_iter().flatten() {
        table.add_row([
            member["folder"].as_str().unwrap_or_default().to_owned(),
            figure(&member["weight"]),
            figure(&member["validation_ndcg_10"]),
        ]);
    }
    table.add_row([
        "the blend".to_owned(),
        String::new(),
        figure(&figures["validation_ndcg_10"]),
    ]);
    if let Some(prior) = figures.get("prior") {
        let weights = &prior["weights"];
        table.add_row([
            "the blend and the prior".to_owned(),
            format!("alpha {}, beta {}", weights["alpha"], weights["beta"]),
            figure(&prior["ndcg_10_with"]),
        ]);
    }
    right_align(&mut table, 1);
    out(&table.to_string())
}

pub(super) fn comparison(comparison: &Comparison, format: OutputFormat) -> anyhow::Result<()> {
    match format {
        OutputFormat::Json => json(comparison),
        OutputFormat::Table => out(&comparison.to_string()),
    }
}

/// Where the bundle is and what is in it.
pub(super) fn exported(outcome: &Outcome, format: OutputFormat) -> anyhow::Result<()> {
    let figures = &outcome.record.figures;
    if format == OutputFormat::Json {
        return json(figures);
    }
    let mut table = table(&["member", "MB"]);
    let megabytes = |value: &Value| format!("{:.2}", value.as_f64().unwrap_or(0.0) / 1e6);
    if let Some(members) = figures["members"].as_object() {
        for (name, bytes) in members {
            table.add_row([name.clone(), megabytes(bytes)]);
        }
    }
    table.add_row([
        "the file (compressed)".to_owned(),
        megabytes(&figures["bytes"]),
    ]);
    right_align(&mut table, 1);
    let path = figures["path"].as_str().unwrap_or_default();
    let certificate: Option<Certificate> =
        serde_json::from_value(figures["certificate"].clone()).unwrap_or_default();
    match certificate {
        Some(certificate) => out(&format!("{path}\n{table}\n{}", forms(&certificate))),
        None => out(&format!("{path}\n{table}")),
    }
}

/// What was measured before the bundle was written; the first line is what is in it.
fn forms(certificate: &Certificate) -> Table {
    let mut table = table(&[
        "encoder",
        "item rows",
        "NDCG@10",
        "lost",
        "difference, 95 %",
        "top-10 overlap",
        "worst tenth",
        "MB",
        "ms",
    ]);
    let all = std::iter::once(&certificate.chosen).chain(&certificate.others);
    for form in all {
        table.add_row([
            form.quantization.to_string(),
            form.item_rows.to_string(),
            format!("{:.4}", form.ndcg_10),
            format!("{:.2} %", 100.0 * form.drop(certificate.reference_ndcg_10)),
            format!(
                "{:+.4} .. {:+.4}",
                form.difference.low, form.difference.high
            ),
            format!("{:.3}", form.overlap_10),
            format!("{:+.4}", form.worst_tenth),
            format!("{:.2}", form.bytes as f64 / 1e6),
            format!("{:.2}", form.ms),
        ]);
    }
    table.add_row([
        "fp32".to_owned(),
        String::new(),
        format!("{:.4}", certificate.reference_ndcg_10),
        String::new(),
        format!("{} users", certificate.users),
        String::new(),
        String::new(),
        String::new(),
        format!("{:.2}", certificate.reference_ms),
    ]);
    right_align(&mut table, 2);
    table
}

/// Time and memory of each stage.
pub(super) fn costs(records: &[StageRecord]) -> anyhow::Result<()> {
    let mut table = table(&["stage", "seconds", "peak memory, MB"]);
    for record in records {
        let memory = record.peak_memory.map_or_else(
            || "not known here".to_owned(),
            |b| (b / 1_000_000).to_string(),
        );
        table.add_row([
            record.stage.clone(),
            format!("{:.1}", record.seconds),
            memory,
        ]);
    }
    let total: f64 = records.iter().map(|record| record.seconds).sum();
    let most = records.iter().filter_map(|record| record.peak_memory).max();
    table.add_row([
        "total, most".to_owned(),
        format!("{total:.1}"),
        most.map_or_else(String::new, |b| (b / 1_000_000).to_string()),
    ]);
    right_align(&mut table, 1);
    out(&table.to_string())
}

/// What each training stage will take.
pub(super) fn plans(
    plans: &[StagePlan],
    context: &Context<'_>,
    format: OutputFormat,
) -> anyhow::Result<()> {
    let free = Free::now(context.work().root());
    if format == OutputFormat::Json {
        let peak = |plan: &StagePlan| plan.memory.peak();
        let peaks: Vec<u64> = plans.iter().map(peak).collect();
        return json(&serde_json::json!({ "stages": plans, "peak_memory": peaks, "free": free }));
    }
    let mut header = vec!["plan"];
    header.extend(plans.iter().map(|plan| plan.stage));
    let mut table = table(&header);
    let mut row = |name: &str, value: &dyn Fn(&StagePlan) -> String| {
        let values = plans.iter().map(value);
        table.add_row(std::iter::once(name.to_owned()).chain(values));
    };
    row("parameters", &|p| plan::count(p.parameters.total));
    row("trained", &|p| plan::count(p.parameters.trainable));
    row("steps", &|p| p.work.steps.to_string());
    row("items of a step, mean", &|p| {
        format!("{:.0}", p.work.mean_items)
    });
    row("weights", &|p| plan::bytes(p.memory.weights));
    row("optimizer", &|p| plan::bytes(p.memory.optimizer));
    row("teacher", &|p| plan::bytes(p.memory.teacher));
    row("activations of a step", &|p| {
        plan::bytes(p.memory.activations)
    });
    row("scores of the loss", &|p| plan::bytes(p.memory.loss));
    row("validation", &|p| plan::bytes(p.memory.validation));
    row("peak memory", &|p| plan::bytes(p.memory.peak()));
    row("states on disk", &|p| plan::bytes(p.disk.states));
    row("checkpoint on disk", &|p| plan::bytes(p.disk.checkpoint));
    row("teacher cache, if kept", &|p| {
        p.disk.teacher_cache.map_or_else(String::new, plan::bytes)
    });
    row("step", &|p| {
        p.time
            .map_or_else(String::new, |t| format!("{:.3} s", t.step_seconds))
    });
    row("all epochs, at most", &|p| {
        p.time
            .map_or_else(String::new, |t| plan::duration(t.total_seconds))
    });
    right_align(&mut table, 1);
    let told = |bytes: Option<u64>| bytes.map_or_else(|| "not known here".to_owned(), plan::bytes);
    out(&format!(
        "{table}\nfree: memory {}, disk {}",
        told(free.memory),
        told(free.disk)
    ))
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header(header.to_vec());
    table
}

pub(super) fn right_align(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
