//! `prior fit`: the counts that stand beside every model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use slmrec_core::prior::{PriorSettings, PriorWeights, TransitionPrior};
use slmrec_core::{Dataset, Split, atomic};

use super::super::settings::WeighWith;
use super::super::stage::{Stage, io_error};
use super::super::{Outcome, PipelineError, WorkDir};
use super::{Context, input_hash, to_json};
use crate::evaluate::{Scorer, sample_users};
use crate::prior::counting::{count, sequences_before, training_sequences};
use crate::prior::tuning::{TuneError, most_comparisons};
use crate::prior::{Counts, Mixture, likeliest, mix, tune};

/// How the counts are read.
const DESCRIPTION_FILE: &str = "prior.json";
/// The counts.
const COUNTS_FILE: &str = slmrec_core::pack::PRIOR_MEMBER;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    settings: PriorSettings,
    items: usize,
}

/// Runs the stage.
///
/// # Errors
/// No dataset, or one without validation targets.
pub fn run(context: &Context<'_>) -> Result<Outcome, PipelineError> {
    let section = &context.settings.prior;
    if let Some(settings) = &section.settings {
        settings.check()?;
    }
    let dataset_dir = WorkDir::finished(context.work.dataset(), "prepare")?;
    let stage = Stage {
        name: "prior",
        dir: context.work.prior(),
        settings: serde_json::json!({ "prior": to_json(section)?, "seed": context.settings.seed }),
        inputs: BTreeMap::from([("dataset".to_owned(), input_hash(&dataset_dir)?)]),
    };
    stage.run(context.force, context.reporter, |dir| {
        let (dataset, _) = context.dataset()?;
        let (prior, figures) = fit(context, &dataset)?;
        let prior = prior.rounded();
        write(dir, COUNTS_FILE, &prior.to_bytes()?)?;
        let description = Description {
            settings: *prior.settings(),
            items: prior.num_items(),
        };
        write(
            dir,
            DESCRIPTION_FILE,
            to_json(&description)?.to_string().as_bytes(),
        )?;
        Ok(figures)
    })
}

fn fit(
    context: &Context<'_>,
    dataset: &Dataset,
) -> Result<(TransitionPrior, serde_json::Value), PipelineError> {
    let section = &context.settings.prior;
    if let Some(settings) = section.settings {
        let sequences = training_sequences(dataset);
        let prior = count(
            &sequences,
            dataset.num_items(),
            settings,
            section.neighbours,
        )?;
        let figures = figures(&prior);
        return Ok((prior, figures));
    }
    let users = validation_users(context, dataset);
    let counter = (context.reporter).counter("settings", most_comparisons() as u64);
    let go_on = |done: usize| {
        counter.set(done as u64);
        !context.stop.load(Ordering::SeqCst)
    };
    let tuned =
        tune(dataset, users.as_deref(), section.neighbours, &go_on).map_err(|e| match e {
            TuneError::Interrupted => PipelineError::Interrupted,
            TuneError::Evaluate(e) => e.into(),
            TuneError::Prior(e) => PipelineError::Prior(e),
        })?;
    let mut figures = figures(&tuned.prior);
    figures["validation_ndcg_10"] = tuned.ndcg_10.into();
    figures["validation_users"] = tuned.users.into();
    figures["settings_compared"] = tuned.compared.into();
    figures["targets"] = tuned.targets.into();
    Ok((tuned.prior, figures))
}

fn figures(prior: &TransitionPrior) -> serde_json::Value {
    serde_json::json!({
        "settings": prior.settings(),
        "pairs": prior.num_pairs(),
        "interactions": prior.interactions(),
    })
}

/// The users whose validation targets choose settings and weights; `None` for all.
pub(super) fn validation_users(context: &Context<'_>, dataset: &Dataset) -> Option<Vec<usize>> {
    let most = context.settings.prior.validation_users;
    sample_users(dataset, Split::Validation, most, context.settings.seed)
}

/// The prior of the stage, if it has finished.
///
/// # Errors
/// Files that are not what the stage wrote.
pub(super) fn read(context: &Context<'_>) -> Result<Option<TransitionPrior>, PipelineError> {
    match WorkDir::finished(context.work.prior(), "prior fit") {
        Ok(dir) => read_from(&dir).map(Some),
        Err(_) => Ok(None),
    }
}

fn read_from(dir: &Path) -> Result<TransitionPrior, PipelineError> {
    let path = dir.join(DESCRIPTION_FILE);
    let wrong = |path: &Path, found: String| PipelineError::Content {
        path: path.to_owned(),
        expected: "what `slmrec-distill prior fit` wrote".into(),
        found,
        hint: "run `slmrec-distill prior fit --force`".into(),
    };
    let json = std::fs::read(&path).map_err(|e| io_error(&path, e))?;
    let description: Description =
        serde_json::from_slice(&json).map_err(|e| wrong(&path, e.to_string()))?;
    let path = dir.join(COUNTS_FILE);
    let bytes = std::fs::read(&path).map_err(|e| io_error(&path, e))?;
    TransitionPrior::from_bytes(&bytes, description.settings, description.items)
        .map_err(|e| wrong(&path, e.to_string()))
}

/// The prior beside a model that is being trained.
#[derive(Clone)]
pub(super) struct Beside {
    /// Counts of what is trained on as it is: every user's own pairs are taken out again.
    pub(super) prior: Arc<TransitionPrior>,
    /// How it stands beside the model, which is then validated with it; `None` where only the teacher
    /// has it.
    pub(super) weights: Option<PriorWeights>,
}

impl Beside {
    /// The counts of what training learns from, with the settings that `prior fit` left.
    ///
    /// # Errors
    /// No prior.
    pub(super) fn new(
        context: &Context<'_>,
        dataset: &Dataset,
        weights: Option<PriorWeights>,
    ) -> Result<Self, PipelineError> {
        let settings = *required(context)?.settings();
        let most = context.settings.prior.neighbours;
        let sequences = sequences_before(dataset, context.known_before());
        let prior = count(&sequences, dataset.num_items(), settings, most)?;
        Ok(Self {
            prior: Arc::new(prior),
            weights,
        })
    }
}

/// The prior of the stage.
///
/// # Errors
/// A stage that has not run, or files that are not what it wrote.
pub(super) fn required(context: &Context<'_>) -> Result<TransitionPrior, PipelineError> {
    read_from(&WorkDir::finished(context.work.prior(), "prior fit")?)
}

/// Weights for models that are trained beside the prior: those under which the counts alone make the
/// validation targets likeliest. `None`, and said, where they say nothing.
pub(super) fn weights_to_learn_beside(
    context: &Context<'_>,
    dataset: &Dataset,
) -> Result<Option<PriorWeights>, PipelineError> {
    let prior = required(context)?;
    let users = validation_users(context, dataset);
    let (weights, loss) = likeliest(dataset, &prior, users.as_deref())?;
    let PriorWeights { alpha, beta } = weights;
    context.reporter.say(&format!(
        "the prior inside the scores: alpha {alpha}, beta {beta}, cross-entropy {loss:.4} by the counts alone"
    ));
    if alpha == 0.0 {
        let text =
            "the counts say nothing about the validation targets: training goes on without them";
        context.reporter.say(text);
        return Ok(None);
    }
    Ok(Some(weights))
}

/// The counts of all that is known before the targets of a split, and those that weigh them.
pub(super) struct Known {
    /// They rank: for the test targets the validation items are counted, too.
    pub(super) counts: TransitionPrior,
    of_training: Counts,
    /// Weigh models that are one item older than the counts; `None` before the validation targets.
    one_newer: Option<Counts>,
}

impl Known {
    /// `training` are the counts of the training sequences.
    ///
    /// # Errors
    /// Counting that fails.
    pub(super) fn before(
        split: Split,
        context: &Context<'_>,
        dataset: &Dataset,
        training: &TransitionPrior,
    ) -> Result<Self, PipelineError> {
        let of_training = Counts::OfTraining(training.clone());
        if split == Split::Validation {
            return Ok(Self {
                counts: training.clone(),
                of_training,
                one_newer: None,
            });
        }
        let section = &context.settings.prior;
        let sequences = sequences_before(dataset, split);
        let (items, settings) = (dataset.num_items(), *training.settings());
        let recounted = count(&sequences, items, settings, section.neighbours)?;
        Ok(Self {
            counts: recounted.rounded(),
            of_training,
            one_newer: match section.weigh_with {
                WeighWith::Training => None,
                // Not rounded: a user's own pairs are taken out of them.
                WeighWith::OneNewer => Some(Counts::OneNewer(recounted)),
            },
        })
    }

    /// What they are worth beside a system, on the validation targets. `refit` says whether the system
    /// will know as much as they do when it ranks, so that it stands to them as it stands to the
    /// counts of the training sequences now.
    ///
    /// # Errors
    /// A system that fails.
    pub(super) fn mixture(
        &self,
        context: &Context<'_>,
        dataset: &Dataset,
        scorer: &mut dyn Scorer,
        refit: bool,
    ) -> Result<Mixture, PipelineError> {
        let counts = match &self.one_newer {
            Some(counts) if !refit => counts,
            _ => &self.of_training,
        };
        let users = validation_users(context, dataset);
        let largest = context.settings.prior.largest_alpha;
        let name = scorer.name().to_owned();
        let total = users.as_ref().map_or(dataset.num_users(), Vec::len);
        let counter = context.reporter.counter("prior", total as u64);
        let mut progress = |done: usize, _total: usize| counter.set(done as u64);
        let mixture = mix(
            scorer,
            dataset,
            counts,
            largest,
            users.as_deref(),
            &mut progress,
        )?;
        drop(counter);
        let Mixture {
            weights: PriorWeights { alpha, beta },
            ndcg_10_without: without,
            ndcg_10_with: with,
            ..
        } = mixture;
        let newer = match counts {
            Counts::OfTraining(_) => "",
            Counts::OneNewer(_) => " with counts that are one item newer",
        };
        context.reporter.say(&format!(
            "prior beside {name}: alpha {alpha}, beta {beta}, \
             validation NDCG@10 {without:.4} -> {with:.4}{newer}"
        ));
        Ok(mixture)
    }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), PipelineError> {
    let path = dir.join(name);
    atomic::write(&path, bytes).map_err(|e| io_error(&path, e))
}
