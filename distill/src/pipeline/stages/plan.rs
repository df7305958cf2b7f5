//! The plan of each training stage: gathered from settings, dataset and the base model's header,
//! said before the stage runs, and refused where the machine cannot hold it.

use slmrec_core::Dataset;
use slmrec_core::history::newest;
use slmrec_export::checkpoint::LlamaConfig;

use super::super::PipelineError;
use super::super::settings::{
    ItemSource, LayerChoice, Online, StudentStart, TeacherChoice, TeacherStatesChoice,
};
use super::cache::stored_positions;
use super::pretrain::WITH_TITLES;
use super::refit::refit_name;
use super::teach::base_path;
use super::{Context, blend, item_embeddings, seeded, titles, training_data};
use crate::model::base::BaseHeader;
use crate::model::{LlmSettings, Widths};
use crate::plan::calibration::{self, Llm, Subject, Taught};
use crate::plan::decoder::{DecoderRun, DecoderShape};
use crate::plan::machine::Free;
use crate::plan::sasrec::SasRecRun;
use crate::plan::{StagePlan, Time, Work};
use crate::train::teacher_cache::{RowShape, cache_bytes, stored_rows};
use crate::train::{DistillSettings, TrainError, TrainSettings, TrainingData};

/// The stages that train, by the name in their record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainingRun {
    /// SASRec.
    Pretrain,
    /// SASRec with titles, whose vectors have so many values.
    PretrainWithTitles(usize),
    /// The teacher.
    Teach,
    /// The student's shape without the teacher.
    CeOnly,
    /// The student.
    Distill,
}

/// Plans of all training stages that the settings ask for. Those of language models are left out
/// (and that is said) while no pretrained model is named.
///
/// # Errors
/// No dataset, a base that cannot be read, or a calibration that fails.
pub fn all(context: &Context<'_>) -> Result<Vec<StagePlan>, PipelineError> {
    let (dataset, _) = context.dataset()?;
    let mut plans = vec![plan(context, &dataset, TrainingRun::Pretrain)?];
    if let Some(encoder) = &context.settings.pretrain.titles {
        let run = TrainingRun::PretrainWithTitles(titles::size(context, encoder)?);
        plans.push(plan(context, &dataset, run)?);
    }
    if context.settings.teach.base.is_none() {
        context.reporter.say(
            "plan: no pretrained model is named (--base), so teacher and student are left out",
        );
        return Ok(plans);
    }
    let sasrecs = plans.clone();
    plans.push(plan(context, &dataset, TrainingRun::Teach)?);
    if context.settings.distill.teacher == TeacherChoice::Blend {
        plans.extend(sasrecs.iter().flat_map(|plan| of_blend(context, plan)));
        let decoder = StagePlan {
            stage: blend::BLEND_DECODER,
            ..plans[sasrecs.len()].clone()
        };
        plans.extend(vec![decoder; context.settings.blend.more_decoders]);
    }
    if context.settings.distill.ce_only {
        plans.push(plan(context, &dataset, TrainingRun::CeOnly)?);
    }
    plans.push(plan(context, &dataset, TrainingRun::Distill)?);
    if context.settings.refit.models == Some(true) {
        let again = plans.iter().filter_map(|plan| {
            let stage = refit_name(plan.stage)?;
            Some(StagePlan {
                stage,
                ..plan.clone()
            })
        });
        plans.extend(again.collect::<Vec<_>>());
    }
    Ok(plans)
}

/// The SASRecs that only the blend has, each as the one of `pretrain`.
fn of_blend(context: &Context<'_>, plan: &StagePlan) -> Vec<StagePlan> {
    let section = &context.settings.blend;
    let (stage, members) = match plan.stage {
        WITH_TITLES => (blend::BLEND_SASREC_TITLES, section.more_sasrecs_with_titles),
        _ => (blend::BLEND_SASREC, section.more_sasrecs),
    };
    let member = StagePlan {
        stage,
        ..plan.clone()
    };
    vec![member; members]
}

/// What the machine lacks for these plans.
#[must_use]
pub fn misfits(context: &Context<'_>, plans: &[StagePlan]) -> Vec<String> {
    let mut free = Free::now(context.work.root());
    if !context.device.is_cpu() {
        // The formulas are those of the CPU's kernels, and no one tells what a GPU has free.
        free.memory = None;
    }
    let settings = &context.settings;
    let of_plan = |plan: &StagePlan| {
        let batch_size = match plan.stage {
            "teach" | blend::BLEND_DECODER => settings.teach.train.batch_size,
            "ce-only" | "distill" | "refit-distill" => settings.distill.train.batch_size,
            // The SASRecs, which are of one shape.
            _ => settings.pretrain.train.batch_size,
        };
        plan.misfits(&free, batch_size as u64)
    };
    plans.iter().flat_map(of_plan).collect()
}

/// The misfits as an error, unless it was forced.
///
/// # Errors
/// [`PipelineError::DoesNotFit`].
pub fn refuse(context: &Context<'_>, misfits: Vec<String>) -> Result<(), PipelineError> {
    if misfits.is_empty() {
        return Ok(());
    }
    let text = misfits.join("\n");
    if context.force {
        context.reporter.say(&format!("plan: --force: {text}"));
        return Ok(());
    }
    Err(PipelineError::DoesNotFit(text))
}

/// Says the plan of a `stage` that is about to train, and refuses what does not fit.
///
/// # Errors
/// As [`all`] and [`refuse`].
pub(super) fn announce(
    context: &Context<'_>,
    dataset: &Dataset,
    run: TrainingRun,
    stage: &'static str,
) -> Result<(), PipelineError> {
    let plan = StagePlan {
        stage,
        ..plan(context, dataset, run)?
    };
    context.reporter.say(&plan.line());
    if !context.device.is_cpu() {
        let notice = "the plan counts memory as the CPU needs it; the GPU's is not checked";
        context.reporter.say(&format!("{}: {notice}", plan.stage));
    }
    let misfits = misfits(context, &[plan]);
    refuse(context, misfits)
}

fn plan(
    context: &Context<'_>,
    dataset: &Dataset,
    run: TrainingRun,
) -> Result<StagePlan, PipelineError> {
    let settings = &context.settings;
    match run {
        TrainingRun::Pretrain => sasrec(context, dataset, None),
        TrainingRun::PretrainWithTitles(size) => sasrec(context, dataset, Some(size)),
        TrainingRun::Teach => {
            let section = &settings.teach;
            let body = Body {
                layers: section.layers,
                choice: section.layer_choice,
                settings: settings.model.clone(),
                widths: Widths::default(),
                items: item_embeddings::of_teacher(context),
                user_share: 1.0,
            };
            decoder(context, dataset, "teach", &body, &section.train, None)
        }
        TrainingRun::CeOnly | TrainingRun::Distill => {
            let section = &settings.distill;
            let (name, objective) = match run {
                TrainingRun::Distill => ("distill", Some(&section.objective)),
                _ => ("ce-only", None),
            };
            // Layers of the teacher are layers of the base, too, in the number that it has of them.
            let choice = match section.start {
                StudentStart::Base | StudentStart::Random => section.layer_choice,
                StudentStart::Teacher => LayerChoice::First,
            };
            let body = Body {
                layers: section.layers,
                choice,
                settings: section.student_model(&settings.model),
                widths: section.widths(),
                items: item_embeddings::of_student(context),
                user_share: section.user_share,
            };
            decoder(context, dataset, name, &body, &section.train, objective)
        }
    }
}

fn sasrec(
    context: &Context<'_>,
    dataset: &Dataset,
    title_size: Option<usize>,
) -> Result<StagePlan, PipelineError> {
    let section = &context.settings.pretrain;
    section.model.check()?;
    let train = seeded(&section.train, context);
    let data = training_data(context, dataset, 1.0, section.model.max_history, &train)?;
    let work = Work::of(&data, &train, &context.device);
    let run = SasRecRun {
        settings: &section.model,
        items: dataset.num_items() as u64,
        title_size: title_size.map(|size| size as u64),
        batch_size: train.batch_size as u64,
        targets: train.targets,
        work,
    };
    let subject = subject(
        context,
        dataset,
        section.model.max_history,
        &train,
        &data,
        work,
    );
    let plan = StagePlan {
        stage: title_size.map_or("pretrain", |_| WITH_TITLES),
        parameters: run.parameters(),
        work,
        memory: run.memory(),
        disk: run.disk(),
        time: None,
    };
    timed(context, plan, || {
        calibration::sasrec(&subject, &section.model, title_size)
    })
}

/// What is trained of which layers of the base.
struct Body {
    layers: usize,
    choice: LayerChoice,
    settings: LlmSettings,
    widths: Widths,
    items: ItemSource,
    user_share: f64,
}

fn decoder(
    context: &Context<'_>,
    dataset: &Dataset,
    stage: &'static str,
    body: &Body,
    train: &TrainSettings,
    objective: Option<&DistillSettings>,
) -> Result<StagePlan, PipelineError> {
    let settings = &context.settings;
    let base = base_path(context)?;
    let header = BaseHeader::read(&base, &settings.prompt_text())?;
    let available = header.config.num_hidden_layers;
    let layers = body.layers;
    body.choice.select(layers).resolve(available, &base)?;
    let config = body.widths.of(&header.config)?;
    let item_dim = item_embeddings::size(context, body.items)?;
    let max_history = settings.model.max_history;
    let train = seeded(train, context);
    let data = training_data(context, dataset, body.user_share, max_history, &train)?;
    let work = Work::of(&data, &train, &context.device);
    let taught = DecoderShape::new(&header.config, settings.teach.layers);
    let learns = objective.is_some() && settings.distill.online != Online::Off;
    let run = DecoderRun {
        stage,
        shape: DecoderShape::new(&config, layers),
        settings: &body.settings,
        checkpointing: body.settings.activation_checkpointing,
        items: (dataset.num_items() as u64, item_dim as u64),
        prompt: (
            header.prompt.prefix_tokens.len() as u64,
            header.prompt.suffix_tokens.len() as u64,
        ),
        batch_size: train.batch_size as u64,
        targets: train.targets,
        work,
        distillation: objective.map(|objective| (taught, objective)),
        teachers: decoders(context).max(1) as u64,
        online: learns.then_some(&settings.model),
    };
    let llm = Llm {
        config: &config,
        layers,
        settings: &body.settings,
        prompt: &header.prompt,
        item_dim,
        distillation: objective.map(|objective| Taught {
            layers: settings.teach.layers * decoders(context).max(1),
            size: layer_size(&header.config) / layer_size(&config),
            learns,
            objective,
        }),
    };
    let teacher_cache = match objective {
        Some(objective) => cache_size(context, objective, &run, &data)?,
        None => None,
    };
    let subject = subject(context, dataset, max_history, &train, &data, work);
    let plan = StagePlan {
        stage,
        parameters: run.parameters(),
        work,
        memory: run.memory(),
        disk: run.disk(teacher_cache),
        time: None,
    };
    timed(context, plan, || calibration::decoder(&subject, &llm))
}

/// Weights of one layer.
fn layer_size(config: &LlamaConfig) -> f64 {
    let shape = |layers| DecoderShape::new(config, layers).parameters();
    (shape(1) - shape(0)) as f64
}

/// Bytes of the teacher's states, unless the settings want the teacher itself.
fn cache_size(
    context: &Context<'_>,
    objective: &DistillSettings,
    run: &DecoderRun<'_>,
    data: &TrainingData,
) -> Result<Option<u64>, PipelineError> {
    let section = &context.settings.distill;
    let live = section.teacher_states == TeacherStatesChoice::Live || run.online.is_some();
    let Some((teacher, _)) = run
        .distillation
        .filter(|_| objective.needs_teacher() && !live)
    else {
        return Ok(None);
    };
    let shape = RowShape {
        layers: objective.teacher_layers(teacher.layers as usize)?.len(),
        hidden_size: teacher.hidden as usize,
        // A blend's user vector is those of its members side by side.
        item_dim: run.items.1 as usize * members(context),
        top_k: objective.top_items(run.items.0 as usize),
    };
    let positions = stored_positions(objective.positions, section.train.targets);
    let rows = stored_rows(data, positions);
    Ok(Some(cache_bytes(rows, &shape, section.cache_shard_bytes())))
}

/// Number of models that teach.
fn members(context: &Context<'_>) -> usize {
    let blend = &context.settings.blend;
    match context.settings.distill.teacher {
        TeacherChoice::Decoder => 1,
        TeacherChoice::Blend => {
            let sasrecs = 1 + usize::from(context.settings.pretrain.titles.is_some());
            let more = blend.more_sasrecs + blend.more_sasrecs_with_titles;
            sasrecs + decoders(context) + more
        }
    }
}

/// Number of decoders among the models that teach.
fn decoders(context: &Context<'_>) -> usize {
    let blend = &context.settings.blend;
    match context.settings.distill.teacher {
        TeacherChoice::Decoder => 1,
        TeacherChoice::Blend => usize::from(blend.decoder) + blend.more_decoders,
    }
}

fn subject<'a>(
    context: &'a Context<'_>,
    dataset: &Dataset,
    max_history: usize,
    train: &'a TrainSettings,
    data: &'a TrainingData,
    work: Work,
) -> Subject<'a> {
    let validated = (0..dataset.num_users())
        .map(|user| newest(dataset.training_sequence(user), max_history).len() as u64);
    Subject {
        train,
        data,
        validated_items: validated.sum(),
        work,
        device: &context.device,
    }
}

/// Adds the time, where it is wanted and where the few steps would have room.
fn timed(
    context: &Context<'_>,
    mut plan: StagePlan,
    measure: impl FnOnce() -> Result<Time, TrainError>,
) -> Result<StagePlan, PipelineError> {
    if context.settings.plan.calibrate && misfits(context, std::slice::from_ref(&plan)).is_empty() {
        plan.time = Some(measure()?);
    }
    Ok(plan)
}
