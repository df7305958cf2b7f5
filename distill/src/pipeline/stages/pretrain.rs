//! `pretrain`: SASRec, whose item embeddings every later stage uses.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::stage::Stage;
use super::super::{Outcome, PipelineError, WorkDir};
use super::plan::{self, TrainingRun};
use super::{Context, Training, input_hash, to_json, vocabulary_hash};
use crate::model::sasrec::SasRec;
use crate::train::replicas::Replica;
use crate::train::{CrossEntropy, TrainSettings};

/// Runs the stage.
///
/// # Errors
/// No dataset, or training that fails.
pub fn run(context: &Context<'_>) -> Result<Outcome, PipelineError> {
    let seed = context.settings.seed;
    train(context, "pretrain", context.work.sasrec(), seed)
}

/// Trains a SASRec as `[pretrain]` says, with a seed and a place of its own.
pub(super) fn train(
    context: &Context<'_>,
    name: &'static str,
    dir: PathBuf,
    seed: u64,
) -> Result<Outcome, PipelineError> {
    let section = &context.settings.pretrain;
    let dataset_dir = WorkDir::finished(context.work.dataset(), "prepare")?;
    let stage = Stage {
        name,
        dir,
        settings: serde_json::json!({ "pretrain": to_json(section)?, "seed": seed }),
        inputs: BTreeMap::from([("dataset".to_owned(), input_hash(&dataset_dir)?)]),
    };
    stage.run(context.force, context.reporter, |dir| {
        let (dataset, _) = context.dataset()?;
        plan::announce(context, &dataset, TrainingRun::Pretrain)?;
        let models = context.on_each_device(|context| {
            Ok(SasRec::new(
                section.model.clone(),
                dataset.num_items(),
                seed,
                &context.device,
            )?)
        })?;
        let train = TrainSettings {
            seed,
            ..section.train.clone()
        };
        let training = Training {
            label: name,
            settings: &train,
            identity: format!("{} {:?}", stage.settings, stage.inputs),
            dir,
            dataset: &dataset,
        };
        let objective = CrossEntropy::default();
        let replica = |model| Replica {
            model,
            objective: &objective,
        };
        let replicas: Vec<Replica<'_>> = models.iter().map(|model| replica(model)).collect();
        let report = training.fit(context, &replicas)?;
        let figures = to_json(&report)?;
        let provenance = serde_json::json!({
            "settings": stage.settings, "inputs": stage.inputs, "figures": figures,
        });
        models[0].save(dir, &vocabulary_hash(context)?, provenance)?;
        Ok(figures)
    })
}
