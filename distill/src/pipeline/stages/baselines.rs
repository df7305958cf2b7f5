//! `baselines`: GRU4Rec, BERT4Rec and a SASRec with the prior inside its scores, trained on the same
//! windows by the same loop as everything else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::settings::Baseline;
use super::super::stage::Stage;
use super::super::{Outcome, PipelineError, WorkDir};
use super::pretrain::Sasrec;
use super::{Context, Training, input_hash, seeded, to_json, vocabulary_hash};
use crate::model::baseline::{Bert4Rec, Gru4Rec};
use crate::model::sasrec::SasRec;
use crate::model::{ModelFileError, SequentialModel};
use crate::train::replicas::Replica;
use crate::train::{Cloze, CrossEntropy, Objective, TrainSettings};

/// Runs the stage of each baseline that the settings name.
///
/// # Errors
/// No dataset, or training that fails.
pub fn run(context: &Context<'_>) -> Result<Vec<Outcome>, PipelineError> {
    let models = context.settings.baselines.models.iter();
    models.map(|model| run_one(context, *model)).collect()
}

/// Runs the stage of one baseline.
pub(super) fn run_one(context: &Context<'_>, baseline: Baseline) -> Result<Outcome, PipelineError> {
    match baseline {
        Baseline::Gru4Rec => gru4rec(context),
        Baseline::Bert4Rec => bert4rec(context),
        Baseline::SasRecPrior => sasrec_beside_prior(context),
    }
}

/// Reads what [`run`] left in `dir`.
///
/// # Errors
/// Files that are not as they were left.
pub(super) fn load(
    context: &Context<'_>,
    baseline: Baseline,
    dir: &Path,
) -> Result<Box<dyn SequentialModel>, PipelineError> {
    Ok(match baseline {
        Baseline::Gru4Rec => Box::new(Gru4Rec::load(dir, &context.device)?),
        Baseline::Bert4Rec => Box::new(Bert4Rec::load(dir, &context.device)?),
        Baseline::SasRecPrior => Box::new(SasRec::load(dir, &context.device)?.0),
    })
}

fn gru4rec(context: &Context<'_>) -> Result<Outcome, PipelineError> {
    let section = &context.settings.baselines.gru4rec;
    let (items, seed) = (items(context)?, context.settings.seed);
    let make = |context: &Context<'_>| {
        Gru4Rec::new(section.model.clone(), items, seed, &context.device).map_err(Into::into)
    };
    let objective = CrossEntropy::default();
    let job = Job {
        baseline: Baseline::Gru4Rec,
        section: to_json(section)?,
        train: &section.train,
        objective: &objective,
        dir: context.work.baseline(Baseline::Gru4Rec),
    };
    job.run(context, make, Gru4Rec::save)
}

fn bert4rec(context: &Context<'_>) -> Result<Outcome, PipelineError> {
    let section = &context.settings.baselines.bert4rec;
    if section.train.mask_seen {
        let text = "bert4rec: mask_seen is not used, its targets stand within the sequence";
        context.reporter.say(text);
    }
    for (name, found) in [
        ("label_smoothing", section.train.label_smoothing),
        ("item_dropout", section.train.item_dropout),
    ] {
        if found > 0.0 {
            return Err(PipelineError::Settings(format!(
                "setting baselines.bert4rec.train.{name}: expected 0, BERT4Rec has none, found {found}\n\
                 hint: how many items it hides is baselines.bert4rec.masked"
            )));
        }
    }
    let (items, seed) = (items(context)?, context.settings.seed);
    let make = |context: &Context<'_>| {
        Bert4Rec::new(section.model.clone(), items, seed, &context.device).map_err(Into::into)
    };
    let objective = Cloze::new(
        Bert4Rec::mask_row_of(items),
        section.masked,
        section.last_only,
    )?;
    let job = Job {
        baseline: Baseline::Bert4Rec,
        section: to_json(section)?,
        train: &section.train,
        objective: &objective,
        dir: context.work.baseline(Baseline::Bert4Rec),
    };
    job.run(context, make, Bert4Rec::save)
}

fn sasrec_beside_prior(context: &Context<'_>) -> Result<Outcome, PipelineError> {
    Sasrec {
        name: Baseline::SasRecPrior.folder(),
        dir: context.work.baseline(Baseline::SasRecPrior),
        seed: context.settings.seed,
        titles: None,
        beside_prior: true,
        held_out: None,
    }
    .train(context)
}

fn items(context: &Context<'_>) -> Result<usize, PipelineError> {
    Ok(context.dataset()?.0.num_items())
}

/// The training of one baseline.
struct Job<'a> {
    baseline: Baseline,
    section: Value,
    train: &'a TrainSettings,
    objective: &'a dyn Objective,
    dir: PathBuf,
}

impl Job<'_> {
    fn run<M: SequentialModel>(
        self,
        context: &Context<'_>,
        make: impl Fn(&Context<'_>) -> Result<M, PipelineError>,
        save: impl Fn(&M, &Path, &str, Value) -> Result<(), ModelFileError>,
    ) -> Result<Outcome, PipelineError> {
        let name = self.baseline.folder();
        let dataset_dir = WorkDir::finished(context.work.dataset(), "prepare")?;
        let seed = context.settings.seed;
        let stage = Stage {
            name,
            dir: self.dir,
            settings: serde_json::json!({ name: self.section, "seed": seed }),
            inputs: BTreeMap::from([("dataset".to_owned(), input_hash(&dataset_dir)?)]),
        };
        stage.run(context.force, context.reporter, |dir| {
            let (dataset, _) = context.dataset()?;
            let models = context.on_each_device(make)?;
            let train = seeded(self.train, context);
            let training = Training {
                label: name,
                settings: &train,
                identity: format!("{} {:?}", stage.settings, stage.inputs),
                dir,
                dataset: &dataset,
                user_share: 1.0,
                beside: None,
            };
            let objective = self.objective;
            let replicas: Vec<Replica<'_>> = (models.iter())
                .map(|model| Replica { model, objective })
                .collect();
            let figures = to_json(&training.fit(context, &replicas)?)?;
            let provenance = serde_json::json!({
                "settings": stage.settings, "inputs": stage.inputs, "figures": figures,
            });
            save(&models[0], dir, &vocabulary_hash(context)?, provenance)?;
            Ok(figures)
        })
    }
}
