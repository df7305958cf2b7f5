//! `distill`: the student, with the teacher's help and without it.

use std::path::PathBuf;

use slmrec_core::Dataset;
use slmrec_core::prior::PriorWeights;

use super::super::settings::{Online, PriorUse, StudentStart, TeacherChoice};
use super::super::stage::{Stage, StageRecord};
use super::super::{Outcome, PipelineError, WorkDir};
use super::cache::{States, Teacher, teacher_dir};
use super::plan::{self, TrainingRun};
use super::prior::{self, Beside};
use super::student::student;
use super::teach::{ModelRun, base_path, model_inputs, say_size};
use super::{Context, blend, input_hash, item_embeddings, online, refit, to_json};
use crate::train::distillation::Norm;
use crate::train::{CrossEntropy, Distillation, FitReport, Objective, Priors};

/// Distils the teacher into the student.
///
/// # Errors
/// Missing earlier stages, layers that do not divide into blocks, or training that fails.
pub fn run(context: &Context<'_>) -> Result<Outcome, PipelineError> {
    let section = &context.settings.distill;
    if section.online != Online::Off {
        return online::run(context);
    }
    let teacher_hash = input_hash(&teacher_dir(context)?)?;
    let mut stage = student_stage(context, "distill", context.work.student())?;
    stage.settings["teacher"] = to_json(&section.teacher)?;
    stage.settings["objective"] = to_json(&section.objective)?;
    stage.inputs.insert("teacher".to_owned(), teacher_hash);
    let taught_by_prior = prior_of_teacher(context)?;
    if taught_by_prior.is_some() {
        insert_prior(context, &mut stage)?;
    }
    refit::check(context, &stage)?;
    stage.run(context.force, context.reporter, |dir| {
        online::forget(dir)?;
        let (dataset, _) = context.dataset()?;
        plan::announce(context, &dataset, TrainingRun::Distill, stage.name)?;
        let teacher = Teacher::choose(context, &dataset)?;
        let students = context.on_each_device(student)?;
        say_size(context, "student", &students[0]);
        let states = (0..students.len())
            .map(|number| {
                teacher
                    .as_ref()
                    .map(|teacher| teacher.states(number))
                    .transpose()
            })
            .collect::<Result<Vec<_>, _>>()?;
        let priors = Priors {
            student: prior_of_student(context, &dataset)?,
            teacher: taught_by_prior,
        };
        let beside = (priors != Priors::default())
            .then(|| Beside::new(context, &dataset, priors.student))
            .transpose()?;
        let objectives = (students.iter().zip(&states))
            .map(|(student, states)| {
                Distillation::new(
                    section.objective.clone(),
                    student,
                    states.as_ref().map(States::as_dyn),
                    context.settings.seed,
                )?
                .beside(priors)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let run = ModelRun {
            role: "student",
            stage: &stage,
            train: &section.train,
            dir,
            dataset: &dataset,
            user_share: section.user_share,
            beside,
        };
        let objectives: Vec<&dyn Objective> = objectives.iter().map(|o| o as _).collect();
        let report = run.fit(context, &students, &objectives)?;
        run.write(context, (run.role, dir), &students[0], &report)?;
        say_what_swamps(context, &report);
        to_json(&report)
    })
}

/// How many times the cross-entropy a term may count before that is said.
const SWAMPS: f64 = 10.0;

/// The weights are the paper's, for states of the size that they had there; those of other models
/// are longer.
fn say_what_swamps(context: &Context<'_>, report: &FitReport) {
    let Some(first) = report.epochs.first() else {
        return;
    };
    let objective = &context.settings.distill.objective;
    for (name, value) in objective.swamping(&first.losses, SWAMPS) {
        let ce = first.losses.get("ce").copied().unwrap_or_default();
        context.reporter.say(&format!(
            "distill: in the first epoch {name}, by its weight, was {value:.1} beside a cross-entropy \
             of {ce:.2}, so little was learned of anything else\n\
             hint: a smaller distill.objective.lambda_{name}{}",
            match (name, objective.norm) {
                ("norm", Norm::Squared) => ", or --set distill.objective.norm=unsquared",
                _ => "",
            }
        ));
    }
}

/// The same student, the same steps, cross-entropy only; `None` when the settings do not ask for it.
///
/// # Errors
/// As [`run`].
pub fn run_ce_only(context: &Context<'_>) -> Result<Option<Outcome>, PipelineError> {
    let section = &context.settings.distill;
    if !section.ce_only {
        return Ok(None);
    }
    let mut stage = student_stage(context, "ce-only", context.work.ce_only())?;
    if section.start == StudentStart::Teacher {
        let teacher = WorkDir::finished(context.work.teacher(), "teach")?;
        stage
            .inputs
            .insert("teacher".to_owned(), input_hash(&teacher)?);
    }
    let outcome = stage.run(context.force, context.reporter, |dir| {
        let (dataset, _) = context.dataset()?;
        plan::announce(context, &dataset, TrainingRun::CeOnly, stage.name)?;
        let students = context.on_each_device(student)?;
        say_size(context, "ce-only", &students[0]);
        let weights = prior_of_student(context, &dataset)?;
        let run = ModelRun {
            role: "student without teacher",
            stage: &stage,
            train: &section.train,
            dir,
            dataset: &dataset,
            user_share: section.user_share,
            beside: (weights.is_some())
                .then(|| Beside::new(context, &dataset, weights))
                .transpose()?,
        };
        let objective = weights.map_or_else(CrossEntropy::default, CrossEntropy::beside_prior);
        run.fit_and_write(context, &students, &vec![&objective as _; students.len()])
    })?;
    Ok(Some(outcome))
}

pub(super) fn student_stage(
    context: &Context<'_>,
    name: &'static str,
    dir: PathBuf,
) -> Result<Stage, PipelineError> {
    let section = &context.settings.distill;
    section.check()?;
    let items = item_embeddings::of_student(context);
    let mut stage = Stage {
        name: context.stage_name(name),
        dir,
        settings: serde_json::json!({
            "layers": section.layers,
            "layer_choice": to_json(&section.layer_choice)?,
            "start": to_json(&section.start)?,
            "tuning": to_json(&section.tuning)?,
            "item_embeddings": to_json(&items)?,
            "hidden_size": section.hidden_size,
            "intermediate_size": section.intermediate_size,
            "key_value_heads": section.key_value_heads,
            "user_share": section.user_share,
            "prior": to_json(&section.prior)?,
            "train": to_json(&section.train)?,
            "model": to_json(&context.settings.model)?,
            "prompt": to_json(&context.settings.prompt_text())?,
            "seed": context.settings.seed,
        }),
        inputs: model_inputs(context, &base_path(context)?, items)?,
    };
    if section.prior == PriorUse::Inside {
        insert_prior(context, &mut stage)?;
    }
    context.insert_refit_of(&mut stage.inputs);
    Ok(stage)
}

fn insert_prior(context: &Context<'_>, stage: &mut Stage) -> Result<(), PipelineError> {
    let dir = WorkDir::finished(context.work.prior(), "prior fit")?;
    stage.inputs.insert("prior".to_owned(), input_hash(&dir)?);
    Ok(())
}

/// How the prior stands inside the student's scores.
pub(super) fn prior_of_student(
    context: &Context<'_>,
    dataset: &Dataset,
) -> Result<Option<PriorWeights>, PipelineError> {
    match context.settings.distill.prior {
        PriorUse::Outside => Ok(None),
        PriorUse::Inside => prior::weights_to_learn_beside(context, dataset),
    }
}

/// How the prior stands inside the teacher's scores.
fn prior_of_teacher(context: &Context<'_>) -> Result<Option<PriorWeights>, PipelineError> {
    let section = &context.settings.distill;
    if section.teacher == TeacherChoice::Blend && section.objective.lambda_kd > 0.0 {
        blend::prior_weights(context)
    } else {
        Ok(None)
    }
}

/// Settings of the teacher that a later command has to share, from its record: the model's shape,
/// the prompt, the base, which positions are targets, and the seed.
///
/// # Errors
/// A record that cannot be read.
pub fn shared_with_teacher(
    work: &WorkDir,
) -> Result<Vec<(&'static str, serde_json::Value)>, PipelineError> {
    let Some(record) = StageRecord::read(&work.teacher())? else {
        return Ok(Vec::new());
    };
    let part = |pointer: &str| record.settings.pointer(pointer).cloned();
    Ok([
        ("model", part("/model")),
        ("prompt", part("/prompt")),
        ("teach.base", part("/teach/base")),
        ("teach.item_embeddings", part("/teach/item_embeddings")),
        ("distill.train.targets", part("/teach/train/targets")),
        ("seed", part("/seed")),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .filter(|(_, value)| !value.is_null())
    .collect())
}
