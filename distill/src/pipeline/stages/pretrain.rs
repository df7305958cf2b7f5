//! `pretrain`: SASRec, whose item embeddings every later stage uses, and SASRec with titles beside it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use slmrec_core::{Dataset, ItemIndex};

use super::super::stage::Stage;
use super::super::{Outcome, PipelineError, WorkDir};
use super::cold::rows_hash;
use super::plan::{self, TrainingRun};
use super::prior::{self, Beside};
use super::titles::{self, TitleVectors};
use super::{Context, Training, input_hash, refit, to_json, vocabulary_hash};
use crate::cold::held_out;
use crate::model::sasrec::{SasRec, SasRecConfig};
use crate::train::replicas::Replica;
use crate::train::{CrossEntropy, TrainSettings};

/// Name of the stage of the SASRec with titles.
pub const WITH_TITLES: &str = "pretrain-titles";

/// Runs the stage.
///
/// # Errors
/// No dataset, or training that fails.
pub fn run(context: &Context<'_>) -> Result<Outcome, PipelineError> {
    Sasrec {
        name: "pretrain",
        dir: context.work.sasrec(),
        seed: context.settings.seed,
        titles: None,
        beside_prior: false,
        held_out: None,
    }
    .train(context)
}

/// Encodes the titles and trains the SASRec that has them, where the settings ask for it.
///
/// # Errors
/// As [`run`]; no encoder, or no titles.
pub fn run_with_titles(context: &Context<'_>) -> Result<Option<[Outcome; 2]>, PipelineError> {
    let Some(encoder) = &context.settings.pretrain.titles else {
        return Ok(None);
    };
    let (vectors, encoded) = titles::run(context, encoder)?;
    let trained = Sasrec {
        name: WITH_TITLES,
        dir: context.work.sasrec_titles(),
        seed: context.settings.seed,
        titles: Some(&vectors),
        beside_prior: false,
        held_out: None,
    }
    .train(context)?;
    Ok(Some([encoded, trained]))
}

/// The SASRec with titles, if it was trained and over this vocabulary.
pub(super) fn with_titles(context: &Context<'_>) -> Result<Option<PathBuf>, PipelineError> {
    let Ok(dir) = WorkDir::finished(context.work.sasrec_titles(), WITH_TITLES) else {
        return Ok(None);
    };
    let there = SasRecConfig::read(&dir)?.vocabulary_sha256 == vocabulary_hash(context)?;
    if !there {
        context
            .reporter
            .say(&format!("{}: of another dataset, not used", dir.display()));
    }
    Ok(there.then_some(dir))
}

/// A SASRec as `[pretrain]` says, with a seed and a place of its own.
pub(super) struct Sasrec<'a> {
    pub(super) name: &'static str,
    pub(super) dir: PathBuf,
    pub(super) seed: u64,
    pub(super) titles: Option<&'a TitleVectors>,
    /// Whether it is trained with the transition prior added to its scores.
    pub(super) beside_prior: bool,
    /// Items whose interactions are kept out of its data.
    pub(super) held_out: Option<&'a [ItemIndex]>,
}

impl Sasrec<'_> {
    fn stage(&self, context: &Context<'_>) -> Result<Stage, PipelineError> {
        let section = &context.settings.pretrain;
        let dataset_dir = WorkDir::finished(context.work.dataset(), "prepare")?;
        let mut inputs = BTreeMap::from([("dataset".to_owned(), input_hash(&dataset_dir)?)]);
        if let Some(titles) = self.titles {
            inputs.insert("titles".to_owned(), titles.sha256.clone());
        }
        if self.beside_prior {
            let prior = WorkDir::finished(context.work.prior(), "prior fit")?;
            inputs.insert("prior".to_owned(), input_hash(&prior)?);
        }
        if let Some(rows) = self.held_out {
            inputs.insert("held-out rows".to_owned(), rows_hash(rows));
        }
        context.insert_refit_of(&mut inputs);
        Ok(Stage {
            name: context.stage_name(self.name),
            dir: self.dir.clone(),
            // Without the encoder, so that a SASRec stays what it is when one with titles joins it.
            settings: serde_json::json!({
                "pretrain": { "model": to_json(&section.model)?, "train": to_json(&section.train)? },
                "seed": self.seed,
            }),
            inputs,
        })
    }

    fn model(&self, context: &Context<'_>, items: usize) -> Result<SasRec, PipelineError> {
        let (settings, device) = (context.settings.pretrain.model.clone(), &context.device);
        Ok(match self.titles {
            Some(titles) => {
                SasRec::with_titles(settings, &titles.load(device)?, self.seed, device)?
            }
            None => SasRec::new(settings, items, self.seed, device)?,
        })
    }

    /// What it is trained and validated on.
    fn dataset(&self, context: &Context<'_>) -> Result<Dataset, PipelineError> {
        let (dataset, _) = context.dataset()?;
        Ok(match self.held_out {
            Some(rows) => held_out::without(&dataset, rows),
            None => dataset,
        })
    }

    fn beside(
        &self,
        context: &Context<'_>,
        dataset: &Dataset,
    ) -> Result<Option<Beside>, PipelineError> {
        if !self.beside_prior {
            return Ok(None);
        }
        let weights = prior::weights_to_learn_beside(context, dataset)?;
        Ok(Some(Beside::new(context, dataset, weights)?))
    }

    /// Trains it, unless it is there.
    pub(super) fn train(&self, context: &Context<'_>) -> Result<Outcome, PipelineError> {
        let stage = self.stage(context)?;
        refit::check(context, &stage)?;
        stage.run(context.force, context.reporter, |dir| {
            let dataset = self.dataset(context)?;
            let run = match self.titles {
                Some(titles) => TrainingRun::PretrainWithTitles(titles.size()),
                None => TrainingRun::Pretrain,
            };
            plan::announce(context, &dataset, run, stage.name)?;
            let models =
                context.on_each_device(|context| self.model(context, dataset.num_items()))?;
            let train = TrainSettings {
                seed: self.seed,
                ..context.settings.pretrain.train.clone()
            };
            let beside = self.beside(context, &dataset)?;
            let objective = match beside.as_ref().and_then(|beside| beside.weights) {
                Some(weights) => CrossEntropy::beside_prior(weights),
                None => CrossEntropy::default(),
            };
            let training = Training {
                label: stage.name,
                settings: &train,
                identity: format!("{} {:?}", stage.settings, stage.inputs),
                dir,
                dataset: &dataset,
                user_share: 1.0,
                beside,
            };
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
}
