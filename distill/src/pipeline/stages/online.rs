//! `distill` with a teacher that learns beside the student: one training, two checkpoints.

use std::path::Path;

use super::super::settings::{Online, OnlineStart, TeacherChoice};
use super::super::stage::io_error;
use super::super::work_dir::ONLINE_TEACHER;
use super::super::{Outcome, PipelineError, WorkDir};
use super::distill::{prior_of_student, student_stage};
use super::plan::{self, TrainingRun};
use super::prior::Beside;
use super::student::student;
use super::teach::{ModelRun, base_hash, base_path, from_base, say_size};
use super::{Context, input_hash, refit, to_json};
use crate::model::{LayerSelection, LlmRecommender};
use crate::train::{Distillation, Objective, OnlineTeacher, Priors};

/// Trains both.
pub(super) fn run(context: &Context<'_>) -> Result<Outcome, PipelineError> {
    let section = &context.settings.distill;
    if section.teacher == TeacherChoice::Blend {
        return Err(PipelineError::Settings(
            "setting distill.online: expected off for distill.teacher = \"blend\", whose models \
             cannot be trained\nhint: --teacher decoder"
                .to_owned(),
        ));
    }
    let mut stage = student_stage(context, "distill", context.work.student())?;
    stage.settings["objective"] = to_json(&section.objective)?;
    stage.settings["online"] = to_json(&section.online)?;
    stage.settings["online_start"] = to_json(&section.online_start)?;
    let begins_as = match section.online_start {
        OnlineStart::Teacher => {
            let hash = input_hash(&WorkDir::finished(context.work.teacher(), "teach")?)?;
            stage.inputs.insert("teacher".to_owned(), hash.clone());
            hash
        }
        OnlineStart::Base => {
            let teach = &context.settings.teach;
            stage.settings["teacher_layers"] = teach.layers.into();
            stage.settings["teacher_layer_choice"] = to_json(&teach.layer_choice)?;
            base_hash(&base_path(context)?)?
        }
    };
    refit::check(context, &stage)?;
    stage.run(context.force, context.reporter, |dir| {
        forget(dir)?;
        let (dataset, _) = context.dataset()?;
        plan::announce(context, &dataset, TrainingRun::Distill, stage.name)?;
        let teachers = context.on_each_device(teacher)?;
        let students = context.on_each_device(student)?;
        say_size(context, "teacher, online", &teachers[0]);
        say_size(context, "student", &students[0]);
        let joint = section.online == Online::Joint;
        let priors = Priors {
            student: prior_of_student(context, &dataset)?,
            teacher: None,
        };
        let beside = (priors.student.is_some())
            .then(|| Beside::new(context, &dataset, priors.student))
            .transpose()?;
        let objectives = (students.iter().zip(&teachers))
            .map(|(student, teacher)| {
                let teacher = OnlineTeacher::new(teacher, begins_as.clone(), joint)?;
                let seed = context.settings.seed;
                Distillation::online(section.objective.clone(), student, teacher, seed)?
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
        let role = ("teacher beside the student", dir.join(ONLINE_TEACHER));
        run.write(context, (role.0, &role.1), &teachers[0], &report)?;
        run.write(context, (run.role, dir), &students[0], &report)?;
        to_json(&report)
    })
}

/// Removes what an earlier run left of a teacher beside its student.
pub(super) fn forget(dir: &Path) -> Result<(), PipelineError> {
    let dir = dir.join(ONLINE_TEACHER);
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error(&dir, error)),
        _ => Ok(()),
    }
}

/// The teacher before it has learned with its student.
fn teacher(context: &Context<'_>) -> Result<LlmRecommender, PipelineError> {
    let settings = &context.settings;
    match settings.distill.online_start {
        OnlineStart::Teacher => Ok(LlmRecommender::start_from(
            &WorkDir::finished(context.work.teacher(), "teach")?,
            &LayerSelection::All,
            &settings.model,
            settings.seed,
            &context.device,
        )?),
        OnlineStart::Base => {
            let teach = &settings.teach;
            let base = base_path(context)?;
            from_base(context, &base, teach.layers, teach.layer_choice)
        }
    }
}
