//! What training tells its caller. The library itself never prints.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::TrainError;
use crate::model::SequentialModel;

/// One optimizer step.
#[derive(Clone, Debug)]
pub struct StepReport<'a> {
    /// The epoch, from 1.
    pub epoch: usize,
    /// The step of the whole run, from 1.
    pub step: u64,
    /// Steps of the whole run if it does not stop early.
    pub steps_total: u64,
    /// Unweighted value of each loss term.
    pub losses: &'a [(&'static str, f64)],
    /// Learning rate of the step, before the factors of parameter groups.
    pub learning_rate: f64,
    /// Global norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Windows per second of this step.
    pub examples_per_second: f64,
}

/// One pass over the data and its validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Steps of the run so far.
    pub step: u64,
    /// Mean of each unweighted loss term over the steps of the epoch.
    pub losses: BTreeMap<String, f64>,
    /// The validation metric, where there is one.
    pub metric: Option<f64>,
    /// Whether the metric is the best so far; without one the newest weights are.
    pub best: bool,
    /// Seconds of training, those before an interruption not included.
    pub train_seconds: f64,
    /// Seconds of validation.
    pub validation_seconds: f64,
}

/// A finished run. The model holds the weights of the best epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitReport {
    /// All epochs, those before an interruption included.
    pub epochs: Vec<EpochReport>,
    /// The epoch whose weights were kept, from 1.
    pub best_epoch: usize,
    /// Its validation metric, where there is one.
    pub best_metric: Option<f64>,
    /// Steps of the whole run.
    pub steps: u64,
    /// Whether the metric stopped rising before the last epoch.
    pub stopped_early: bool,
    /// The step from which a saved state went on.
    pub resumed_from: Option<u64>,
}

/// Measures a model between epochs; the run keeps the weights with the highest value.
pub trait Validator {
    /// The metric of the model as it is now, usually NDCG@10 on the validation split; `None` where
    /// nothing is kept out of the training data to measure it on, and the last weights are kept.
    ///
    /// # Errors
    /// Whatever evaluation reports; training stops with it.
    fn validate(
        &mut self,
        model: &dyn SequentialModel,
    ) -> Result<Option<f64>, Box<dyn std::error::Error + Send + Sync>>;
}

/// Is told how the run goes. Every method may be left as it is.
pub trait TrainObserver {
    /// After each step.
    fn on_step(&mut self, _report: &StepReport<'_>) {}

    /// After each epoch's validation.
    fn on_epoch(&mut self, _report: &EpochReport) {}

    /// After a state was saved.
    fn on_checkpoint(&mut self, _path: &Path, _step: u64) {}

    /// After a state could not be saved ([`TrainError::SaveState`]): the run goes on, the state of
    /// before is still there, and the next save tries again.
    fn on_save_failed(&mut self, _error: &TrainError, _step: u64) {}

    /// The newest state is damaged or gone (`error` says how), so the run goes on from the one
    /// before it, with step `step` done.
    fn on_fallback(&mut self, _error: &TrainError, _step: u64) {}
}

/// An observer that looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl TrainObserver for Silent {}
