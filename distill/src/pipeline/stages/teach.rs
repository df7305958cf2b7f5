//! `teach`: a pretrained decoder learns to recommend.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use slmrec_core::{Dataset, hash};

use super::super::settings::{ItemSource, LayerChoice};
use super::super::stage::{Stage, hash_input, io_error};
use super::super::{Outcome, PipelineError, WorkDir};
use super::plan::{self, TrainingRun};
use super::prior::Beside;
use super::{Context, Training, input_hash, item_embeddings, seeded, to_json, vocabulary_hash};
use crate::fetch;
use crate::model::{
    CheckpointInfo, LlmRecommender, PretrainedBase, SequentialModel, write_checkpoint,
};
use crate::train::replicas::Replica;
use crate::train::{CrossEntropy, FitReport, Objective, TrainSettings};

/// Runs the stage.
///
/// # Errors
/// Missing earlier stages or base, or training that fails.
pub fn run(context: &Context<'_>) -> Result<Outcome, PipelineError> {
    train(context, "teach", context.work.teacher())
}

/// As [`run`], as the stage `name` in `dir`.
pub(super) fn train(
    context: &Context<'_>,
    name: &'static str,
    dir: PathBuf,
) -> Result<Outcome, PipelineError> {
    let section = &context.settings.teach;
    let base = base_path(context)?;
    let stage = Stage {
        name,
        dir,
        settings: serde_json::json!({
            "teach": to_json(section)?,
            "model": to_json(&context.settings.model)?,
            "prompt": to_json(&context.settings.prompt_text())?,
            "seed": context.settings.seed,
        }),
        inputs: model_inputs(context, &base, item_embeddings::of_teacher(context))?,
    };
    stage.run(context.force, context.reporter, |dir| {
        let (dataset, _) = context.dataset()?;
        plan::announce(context, &dataset, TrainingRun::Teach, stage.name)?;
        let models = context.on_each_device(|context| {
            from_base(context, &base, section.layers, section.layer_choice)
        })?;
        say_size(context, "teacher", &models[0]);
        let run = ModelRun {
            role: "teacher",
            stage: &stage,
            train: &section.train,
            dir,
            dataset: &dataset,
            user_share: 1.0,
            beside: None,
        };
        let objective = CrossEntropy::default();
        run.fit_and_write(context, &models, &vec![&objective as _; models.len()])
    })
}

/// The pretrained model that the settings name, or the one that the teacher was made from.
pub(super) fn base_path(context: &Context<'_>) -> Result<PathBuf, PipelineError> {
    let Some(asked) = &context.settings.teach.base else {
        return Err(PipelineError::Settings(
            "teach needs a pretrained model\n\
             hint: --base FILE.gguf, --base DIR (Hugging Face), or, after \
             `slmrec-distill fetch smollm2-135m`, --base smollm2-135m"
                .into(),
        ));
    };
    match asked
        .to_str()
        .and_then(|name| name.parse::<fetch::Artifact>().ok())
    {
        Some(artifact) if !asked.exists() => Ok(fetch::cached(artifact, &context.cache_dir)?),
        _ => Ok(asked.clone()),
    }
}

/// Hashes of dataset, item embeddings and pretrained weights.
pub(super) fn model_inputs(
    context: &Context<'_>,
    base: &Path,
    items: ItemSource,
) -> Result<BTreeMap<String, String>, PipelineError> {
    let dataset = WorkDir::finished(context.work.dataset(), "prepare")?;
    let mut inputs = item_embeddings::inputs(context, items)?;
    inputs.extend([
        ("dataset".to_owned(), input_hash(&dataset)?),
        ("base".to_owned(), base_hash(base)?),
    ]);
    Ok(inputs)
}

/// SHA-256 of a GGUF file, or over every file of a Hugging Face directory: other weights or another
/// tokenizer make another model.
pub(super) fn base_hash(base: &Path) -> Result<String, PipelineError> {
    if !base.is_dir() {
        return hash_input(base);
    }
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(base).map_err(|e| io_error(base, e))? {
        let path = entry.map_err(|e| io_error(base, e))?.path();
        if path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            lines.push(format!("{name}  {}\n", hash_input(&path)?));
        }
    }
    lines.sort_unstable();
    Ok(hash::sha256_hex(lines.concat().as_bytes()))
}

/// `layers` layers of the pretrained model between fresh projections.
pub(super) fn from_base(
    context: &Context<'_>,
    base: &Path,
    layers: usize,
    choice: LayerChoice,
) -> Result<LlmRecommender, PipelineError> {
    let prompt = context.settings.prompt_text();
    let base = PretrainedBase::load(base, &choice.select(layers), &prompt, &context.device)?;
    Ok(LlmRecommender::new(
        &base,
        &item_embeddings::load(context, item_embeddings::of_teacher(context))?,
        &context.settings.model,
        context.settings.seed,
        &context.device,
    )?)
}

pub(super) fn say_size(context: &Context<'_>, role: &str, model: &LlmRecommender) {
    context.reporter.say(&format!(
        "{role}: {} layers of {}, {} trainable values, readout {}, history {}",
        model.num_layers(),
        model.base().name,
        model.parameters().count(),
        model.settings().readout,
        model.max_history(),
    ));
}

/// Training of a language model that ends in a checkpoint.
pub(super) struct ModelRun<'a> {
    pub(super) role: &'a str,
    pub(super) stage: &'a Stage,
    pub(super) train: &'a TrainSettings,
    pub(super) dir: &'a Path,
    pub(super) dataset: &'a Dataset,
    /// Share of the users whose sequences are learned from.
    pub(super) user_share: f64,
    pub(super) beside: Option<Beside>,
}

impl ModelRun<'_> {
    /// Trains `models`, one for each device, each on its objective, and writes the first.
    pub(super) fn fit_and_write(
        &self,
        context: &Context<'_>,
        models: &[LlmRecommender],
        objectives: &[&dyn Objective],
    ) -> Result<serde_json::Value, PipelineError> {
        let report = self.fit(context, models, objectives)?;
        self.write(context, (self.role, self.dir), &models[0], &report)?;
        to_json(&report)
    }

    /// Trains `models`, one for each device, each on its objective.
    pub(super) fn fit(
        &self,
        context: &Context<'_>,
        models: &[LlmRecommender],
        objectives: &[&dyn Objective],
    ) -> Result<FitReport, PipelineError> {
        let train = seeded(self.train, context);
        let training = Training {
            label: self.stage.name,
            settings: &train,
            identity: format!("{} {:?}", self.stage.settings, self.stage.inputs),
            dir: self.dir,
            dataset: self.dataset,
            user_share: self.user_share,
            beside: self.beside.clone(),
        };
        let replicas: Vec<Replica<'_>> = (models.iter().zip(objectives))
            .map(|(model, &objective)| Replica { model, objective })
            .collect();
        training.fit(context, &replicas)
    }

    /// Writes the checkpoint of a model that the training changed.
    pub(super) fn write(
        &self,
        context: &Context<'_>,
        (role, dir): (&str, &Path),
        model: &LlmRecommender,
        report: &FitReport,
    ) -> Result<(), PipelineError> {
        let metrics: BTreeMap<&str, f64> = (report.best_metric.into_iter())
            .map(|metric| ("validation NDCG@10", metric))
            .collect();
        let info = CheckpointInfo {
            role: role.to_owned(),
            vocabulary_sha256: vocabulary_hash(context)?,
            provenance: serde_json::json!({
                "stage": self.stage.name,
                "settings": self.stage.settings,
                "inputs": self.stage.inputs,
                "metrics": metrics,
            }),
        };
        Ok(write_checkpoint(model, dir, &info)?)
    }
}
