//! `refit`: SASRec and student once more, with the validation items.
//!
//! By then validation has chosen epochs, weights and settings; and when the test targets are asked
//! for, or a device asks for anything, those items are known. A model that never saw them is one item
//! behind the user, and behind the counts, which are recounted. So each is trained again, with the
//! same settings and the epochs that its best weights took, on all that is known, and nothing is left
//! to validate it on. The teacher stays as it is: it knows every item but the newest.

use std::path::{Path, PathBuf};

use super::super::stage::StageRecord;
use super::super::{Outcome, PipelineError, PipelineSettings, WorkDir};
use super::{Context, distill, input_hash, pretrain};

/// Name of the input that a refitted model's record has: the validated model.
pub(super) const VALIDATED: &str = "validated";

/// The SASRec with titles, again.
pub(super) const REFIT_WITH_TITLES: &str = "refit-pretrain-titles";

/// What a stage is called where it trains again; `None` for one that does not.
pub(super) fn refit_name(stage: &str) -> Option<&'static str> {
    match stage {
        "pretrain" => Some("refit-pretrain"),
        pretrain::WITH_TITLES => Some(REFIT_WITH_TITLES),
        "distill" => Some("refit-distill"),
        _ => None,
    }
}

/// Refits the SASRecs and the student. Empty where the settings do not ask for it.
///
/// # Errors
/// No validated models, or training that fails.
pub fn run(context: &Context<'_>) -> Result<Vec<Outcome>, PipelineError> {
    if context.settings.refit.models != Some(true) {
        return Ok(Vec::new());
    }
    let work = context.work();
    let sasrec = WorkDir::finished(work.sasrec(), "pretrain")?;
    let sasrec_epochs = |settings: &mut PipelineSettings, epochs| {
        settings.pretrain.train.epochs = epochs;
    };
    let mut outcomes = vec![pretrain::run(&again(context, &sasrec, sasrec_epochs)?)?];
    if let Some(dir) = pretrain::with_titles(context)? {
        let again = again(context, &dir, sasrec_epochs)?;
        let with_titles = pretrain::run_with_titles(&again)?.into_iter().flatten();
        // The titles' vectors are there already.
        outcomes.extend(with_titles.skip(1));
    }
    let student = WorkDir::finished(work.student(), "distill")?;
    let again = again(context, &student, |settings, epochs| {
        settings.distill.train.epochs = epochs;
    })?;
    outcomes.push(distill::run(&again)?);
    Ok(outcomes)
}

/// The context in which a validated model is trained again, for as long as its best weights took.
fn again<'a>(
    context: &Context<'a>,
    validated: &Path,
    set_epochs: impl FnOnce(&mut PipelineSettings, usize),
) -> Result<Context<'a>, PipelineError> {
    let mut settings = context.settings.clone();
    let record = StageRecord::read(validated)?;
    let best = record.and_then(|record| record.figures["best_epoch"].as_u64());
    set_epochs(&mut settings, best.unwrap_or(1).max(1) as usize);
    let mut again = context.with(settings, context.work().refit());
    again.refit_of = Some(input_hash(validated)?);
    Ok(again)
}

/// The refitted model of a validated one, where it was made and the settings do not leave it out.
///
/// # Errors
/// A record that cannot be read.
pub(super) fn of(
    context: &Context<'_>,
    validated: &Path,
    place: impl Fn(&WorkDir) -> PathBuf,
) -> Result<Option<PathBuf>, PipelineError> {
    let wanted = context.settings.refit.models;
    if wanted == Some(false) {
        return Ok(None);
    }
    let dir = place(&context.work().refit());
    let record = StageRecord::read(&dir)?;
    let of = record.and_then(|record| record.inputs.get(VALIDATED).cloned());
    let there = of == Some(input_hash(validated)?);
    if !there && wanted == Some(true) {
        context.reporter.say(&format!(
            "{}: no output of `slmrec-distill refit` for it, so nothing has learned the validation items in its place",
            validated.display()
        ));
    }
    Ok(there.then_some(dir))
}

/// The student that is shipped: the refitted one where there is one, which is said.
///
/// # Errors
/// No student, or a record that cannot be read.
pub(super) fn shipped_student(context: &Context<'_>) -> Result<PathBuf, PipelineError> {
    let student = WorkDir::finished(context.work().student(), "distill")?;
    let refit = of(context, &student, WorkDir::student)?;
    if let Some(dir) = &refit {
        let line = format!("the student with the validation items: {}", dir.display());
        context.reporter.say(&line);
    }
    Ok(refit.unwrap_or(student))
}
