//! `refit`: SASRecs and student once more, with the validation items.
//!
//! By then validation has chosen epochs, weights and settings; and when the test targets are asked
//! for, or a device asks for anything, those items are known. A model that never saw them is one item
//! behind the user, and behind the counts, which are recounted. So each is trained again, with the
//! same settings and the epochs that its best weights took, on all that is known, and nothing is left
//! to validate it on. The student learns from a blend of SASRecs that are trained again, too; the
//! language model among its members stays as it is: it knows every item but the newest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::super::settings::{Online, TeacherChoice};
use super::super::stage::{Stage, StageRecord};
use super::super::{Outcome, PipelineError, PipelineSettings, WorkDir};
use super::{Context, blend, distill, input_hash, pretrain};

/// A model that is trained again.
#[derive(Clone, Debug)]
pub(super) struct Validated {
    /// Hash of its output.
    pub(super) hash: String,
    dir: PathBuf,
    settings: serde_json::Value,
}

impl Validated {
    /// Refuses to train another model in its place: but for the epochs, settings have to be its own.
    ///
    /// # Errors
    /// [`PipelineError::Settings`] with the names of those that are not.
    fn check(&self, stage: &Stage) -> Result<(), PipelineError> {
        let mut own = self.settings.clone();
        for epochs in ["/train/epochs", "/pretrain/train/epochs"] {
            if let (Some(old), Some(new)) =
                (own.pointer_mut(epochs), stage.settings.pointer(epochs))
            {
                *old = new.clone();
            }
        }
        let (Some(own), Some(now)) = (own.as_object(), stage.settings.as_object()) else {
            return Ok(());
        };
        let names: BTreeSet<&String> = own.keys().chain(now.keys()).collect();
        let other: Vec<&str> = (names.into_iter())
            .filter(|name| own.get(*name) != now.get(*name))
            .map(String::as_str)
            .collect();
        if other.is_empty() {
            return Ok(());
        }
        Err(PipelineError::Settings(format!(
            "{}: expected the settings that it was trained with, found others of {}\n\
             hint: give `refit` the settings file of the run (--config), or what was typed then as --set NAME=VALUE",
            self.dir.display(),
            other.join(", ")
        )))
    }
}

/// Checks a stage that trains again against the model in whose place it does.
///
/// # Errors
/// As [`Validated::check`].
pub(super) fn check(context: &Context<'_>, stage: &Stage) -> Result<(), PipelineError> {
    context.refit_of.iter().try_for_each(|of| of.check(stage))
}

/// Name of the input that a refitted model's record has: the validated model.
pub(super) const VALIDATED: &str = "validated";

/// What a stage is called where it trains again; `None` for one that does not.
pub(super) fn refit_name(stage: &str) -> Option<&'static str> {
    match stage {
        "pretrain" => Some("refit-pretrain"),
        pretrain::WITH_TITLES => Some("refit-pretrain-titles"),
        blend::BLEND_SASREC => Some("refit-blend-sasrec"),
        blend::BLEND_SASREC_TITLES => Some("refit-blend-sasrec-titles"),
        "blend" => Some("refit-blend"),
        "distill" => Some("refit-distill"),
        _ => None,
    }
}

/// Refits the SASRecs, the blend where the student learns from one, and the student. Empty where the
/// settings do not ask for it.
///
/// # Errors
/// No validated models, or training that fails.
pub fn run(context: &Context<'_>) -> Result<Vec<Outcome>, PipelineError> {
    if context.settings.refit.models != Some(true) {
        return Ok(Vec::new());
    }
    let work = context.work();
    let sasrec = WorkDir::finished(work.sasrec(), "pretrain")?;
    let mut outcomes = vec![pretrain::run(&again(context, &sasrec, sasrec_epochs)?)?];
    if let Some(dir) = pretrain::with_titles(context)? {
        if context.settings.pretrain.titles.is_none() {
            return Err(PipelineError::Settings(format!(
                "setting pretrain.titles: expected the text encoder of {}, found none\n\
                 hint: --set pretrain.titles=minilm, or the settings file of the run (--config)",
                dir.display()
            )));
        }
        let again = again(context, &dir, sasrec_epochs)?;
        let with_titles = pretrain::run_with_titles(&again)?.into_iter().flatten();
        // The titles' vectors are there already.
        outcomes.extend(with_titles.skip(1));
    }
    let section = &context.settings.distill;
    if section.teacher == TeacherChoice::Blend && section.online == Online::Off {
        outcomes.extend(blend::refit(context)?);
    }
    let student = WorkDir::finished(work.student(), "distill")?;
    let again = again(context, &student, |settings, epochs| {
        settings.distill.train.epochs = epochs;
    })?;
    outcomes.push(distill::run(&again)?);
    Ok(outcomes)
}

/// Has SASRecs train for so many epochs.
pub(super) fn sasrec_epochs(settings: &mut PipelineSettings, epochs: usize) {
    settings.pretrain.train.epochs = epochs;
}

/// The context in which a validated model is trained again, for as long as its best weights took.
///
/// # Errors
/// No validated model, or a record that cannot be read.
pub(super) fn again<'a>(
    context: &Context<'a>,
    validated: &Path,
    set_epochs: impl FnOnce(&mut PipelineSettings, usize),
) -> Result<Context<'a>, PipelineError> {
    let mut settings = context.settings.clone();
    let Some(record) = StageRecord::read(validated)? else {
        let path = validated.to_owned();
        return Err(PipelineError::MissingStage {
            path,
            stage: "distill",
        });
    };
    let best = record.figures["best_epoch"].as_u64();
    set_epochs(&mut settings, best.unwrap_or(1).max(1) as usize);
    let mut again = context.with(settings, context.work().refit());
    again.refit_of = Some(Validated {
        hash: input_hash(validated)?,
        dir: validated.to_owned(),
        settings: record.settings,
    });
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
    let of = (record.as_ref()).and_then(|record| record.inputs.get(VALIDATED).cloned());
    let there = of == Some(input_hash(validated)?);
    // One of another model is not used in silence.
    if !there && (wanted == Some(true) || record.is_some()) {
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
