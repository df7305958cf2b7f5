//! `export`: the student as a bundle.

use std::collections::BTreeMap;
use std::path::Path;

use slmrec_core::hash;
use slmrec_export::ExportOptions;

use super::super::stage::{Stage, StageRecord, hash_input};
use super::super::{Outcome, PipelineError, WorkDir};
use super::{Context, input_hash, to_json};

/// Runs the stage. The bundle lies outside the work directory, so its hash is part of the figures
/// and checked here.
///
/// # Errors
/// No student, or an export that fails.
pub fn run(context: &Context<'_>) -> Result<Outcome, PipelineError> {
    let section = &context.settings.export;
    let student = WorkDir::finished(context.work.student(), "distill")?;
    let dataset = WorkDir::finished(context.work.dataset(), "prepare")?;
    let stage = Stage {
        name: "export",
        dir: context.work.root().join("export"),
        settings: to_json(section)?,
        inputs: BTreeMap::from([
            ("student".to_owned(), input_hash(&student)?),
            ("dataset".to_owned(), input_hash(&dataset)?),
        ]),
    };
    let intact = bundle_is_intact(&stage.dir, &section.output)?;
    stage.run(context.force || !intact, context.reporter, |_dir| {
        let options = ExportOptions {
            precision: section.precision,
            portable: section.portable,
            ..ExportOptions::default()
        };
        let report = slmrec_export::export(&student, &dataset, &options, &section.output)?;
        let mut figures = to_json(&report)?;
        figures["file_sha256"] = hash_input(&section.output)?.into();
        Ok(figures)
    })
}

/// Whether the bundle is still the file that the record speaks of.
fn bundle_is_intact(dir: &Path, output: &Path) -> Result<bool, PipelineError> {
    let Some(record) = StageRecord::read(dir)? else {
        return Ok(false);
    };
    let found = hash::sha256_file(output).ok();
    let recorded = record.figures["file_sha256"].as_str();
    Ok(found.is_some() && found.as_deref() == recorded)
}
