//! `prior`: the counts beside the model, fitted on a dataset or refreshed in a bundle.

use serde::Deserialize;
use slmrec_core::PriorSettings;

use super::args::{OutputFormat, Prior, PriorCommand, PriorUpdate};
use super::print;
use crate::pipeline::stages::{self, Context};
use crate::pipeline::{Outcome, PipelineError};
use crate::prior::update::{UpdateReport, update};

pub(super) fn run(args: &Prior, context: &Context<'_>) -> anyhow::Result<()> {
    match &args.command {
        PriorCommand::Fit(fit) => fitted(&stages::prior::run(context)?, fit.format),
        PriorCommand::Update(update) => refresh(update, context),
    }
}

/// The figures of `prior fit`.
#[derive(Deserialize)]
struct Fitted {
    settings: PriorSettings,
    pairs: usize,
    interactions: usize,
    validation_ndcg_10: Option<f64>,
    settings_compared: Option<usize>,
}

fn fitted(outcome: &Outcome, format: OutputFormat) -> anyhow::Result<()> {
    let figures = &outcome.record.figures;
    if format == OutputFormat::Json {
        return print::json(figures);
    }
    let fitted: Fitted = serde_json::from_value(figures.clone())?;
    let PriorSettings {
        window,
        distance_power,
        direction,
        popularity_power,
        normalise_rows,
        last_items,
        decay,
    } = fitted.settings;
    let mut table = print::table(&["transition prior", ""]);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("interactions", fitted.interactions.to_string());
    row("pairs", fitted.pairs.to_string());
    row("window", window.to_string());
    row("distance power", distance_power.to_string());
    row("direction", format!("{direction:?}").to_lowercase());
    row("popularity power", popularity_power.to_string());
    row("rows sum to one", normalise_rows.to_string());
    row("last items", last_items.to_string());
    row("decay", decay.to_string());
    if let Some(ndcg) = fitted.validation_ndcg_10 {
        row("validation NDCG@10, counts alone", format!("{ndcg:.4}"));
    }
    if let Some(compared) = fitted.settings_compared {
        row("settings compared", compared.to_string());
    }
    print::right_align(&mut table, 1);
    print::out(&table.to_string())
}

fn refresh(args: &PriorUpdate, context: &Context<'_>) -> anyhow::Result<()> {
    let report = update(
        &args.bundle,
        &args.interactions,
        &context.settings.prepare.read,
        args.since,
        context.settings.prior.neighbours,
        &args.output,
    )
    .map_err(PipelineError::from)?;
    match args.format {
        OutputFormat::Json => print::json(&report),
        OutputFormat::Table => print::out(&updated(&report)),
    }
}

fn updated(report: &UpdateReport) -> String {
    let UpdateReport {
        path,
        bytes,
        new_interactions,
        interactions,
        pairs: (pairs, before),
        unknown_items,
        ..
    } = report;
    let mut text = format!(
        "{}: {new_interactions} new interactions, {interactions} in all; {pairs} pairs, {before} \
         before; {:.2} MB",
        path.display(),
        *bytes as f64 / 1e6
    );
    if *unknown_items > 0 {
        text.push_str(&format!(
            "\n{unknown_items} items that the bundle does not have were left out"
        ));
    }
    text
}
