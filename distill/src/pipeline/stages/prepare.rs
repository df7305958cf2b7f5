//! `prepare`: interaction files to a dataset directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::stage::{Stage, hash_input};
use super::super::{Outcome, PipelineError};
use super::{Context, to_json};
use crate::data;
use crate::fetch;

/// Runs the stage.
///
/// # Errors
/// No source, or one that cannot be read.
pub fn run(context: &Context<'_>) -> Result<Outcome, PipelineError> {
    let section = &context.settings.prepare;
    let Some(asked) = &section.source else {
        return Err(PipelineError::Settings(
            "prepare needs a file of interactions\n\
             hint: slmrec-distill prepare ratings.csv, or [prepare] source = \"..\" in the settings file"
                .into(),
        ));
    };
    let source = resolve(asked, &context.cache_dir)?;
    let mut inputs = BTreeMap::from([("source".to_owned(), hash_input(&source)?)]);
    if let Some(items) = &section.read.items {
        inputs.insert("items".to_owned(), hash_input(items)?);
    }
    let stage = Stage {
        name: "prepare",
        dir: context.work.dataset(),
        settings: to_json(section)?,
        inputs,
    };
    stage.run(context.force, context.reporter, |dir| {
        let size = std::fs::metadata(&source).map_or(0, |meta| meta.len());
        let counter = context.reporter.counter("prepare", size);
        let (dataset, report) =
            data::prepare(&source, &section.read, &|done, _total| counter.set(done))?;
        dataset.write(dir)?;
        to_json(&report)
    })
}

/// A file as it is, or the interactions of a fetched set.
fn resolve(asked: &Path, cache_dir: &Path) -> Result<PathBuf, PipelineError> {
    match asked
        .to_str()
        .and_then(|name| name.parse::<fetch::Artifact>().ok())
    {
        Some(artifact) if !asked.exists() => Ok(fetch::cached(artifact, cache_dir)?),
        _ => Ok(asked.to_owned()),
    }
}
