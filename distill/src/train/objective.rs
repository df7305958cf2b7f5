//! What training minimises: named terms, their weighted sum, and the parameters of their own.

use candle_core::Tensor;
use slmrec_core::prior::PriorWeights;

use super::losses::catalog;
use super::losses::offsets::Offsets;
use super::losses::sampled::Candidates;
use super::losses::smoothing;
use super::{TrainError, TrainingBatch};
use crate::model::{ItemTable, MaskRng, Mode, ModelOutput, Parameters, SequentialModel};

/// The loss of one batch.
#[derive(Debug)]
pub struct Losses {
    /// Weighted sum, a scalar with a gradient.
    pub total: Tensor,
    /// Each term's name and unweighted value.
    pub terms: Vec<(&'static str, f64)>,
}

impl Losses {
    /// The weighted sum of `(name, weight, value)`.
    ///
    /// # Errors
    /// No terms at all, or values that are not scalars.
    pub fn weighted(terms: &[(&'static str, f64, Tensor)]) -> Result<Self, TrainError> {
        let mut total: Option<Tensor> = None;
        let mut values = Vec::with_capacity(terms.len());
        for (name, weight, value) in terms {
            values.push((*name, catalog::scalar(value)?));
            let weighted = (value * *weight)?;
            total = Some(match total {
                Some(sum) => (sum + weighted)?,
                None => weighted,
            });
        }
        match total {
            Some(total) => Ok(Self {
                total,
                terms: values,
            }),
            None => Err(candle_core::Error::Msg("a loss without terms".to_owned()).into()),
        }
    }

    /// Stops a run whose loss is no number.
    ///
    /// # Errors
    /// [`TrainError::NonFinite`] for the first term that is not a finite number.
    pub(super) fn refuse_non_finite(&self, step: u64) -> Result<(), TrainError> {
        match self.terms.iter().find(|(_, value)| !value.is_finite()) {
            Some((name, value)) => Err(TrainError::NonFinite {
                step,
                what: format!("the loss term {name} ({value})"),
            }),
            None => Ok(()),
        }
    }
}

/// Something to minimise.
pub trait Objective: Sync {
    /// Runs the model on a batch, with dropout from `rng`, and gives the loss.
    ///
    /// # Errors
    /// Whatever the model and the terms report.
    fn loss(
        &self,
        model: &dyn SequentialModel,
        batch: &TrainingBatch,
        rng: &mut MaskRng,
    ) -> Result<Losses, TrainError>;

    /// What the objective trains beside the model; dropped afterwards.
    fn parameters(&self) -> &Parameters;

    /// Everything that changes what is minimised, for the hash that a resumed run is checked by.
    fn describe(&self) -> serde_json::Value;
}

/// Cross-entropy over the catalog, or over items drawn from it, at every target: SASRec, the teacher, the baselines.
#[derive(Debug, Default)]
pub struct CrossEntropy {
    none: Parameters,
    prior: Option<PriorWeights>,
}

impl CrossEntropy {
    /// With the transition prior added to the scores, so that the model learns what counting cannot.
    /// The data has to have a prior.
    #[must_use]
    pub fn beside_prior(weights: PriorWeights) -> Self {
        Self {
            prior: Some(weights),
            ..Self::default()
        }
    }
}

/// What is added to the scores at each target of the batch: `alpha ln(1 + p / beta)` of the prior, and
/// what masks the items that the user had before.
///
/// # Errors
/// Data without a prior.
pub(super) fn score_offsets(
    batch: &TrainingBatch,
    prior: Option<PriorWeights>,
) -> Result<Option<Offsets>, TrainError> {
    let Some(PriorWeights { alpha, beta }) = prior else {
        return Ok(batch.seen.clone());
    };
    let Some(sums) = &batch.prior else {
        let text = "an objective with a prior, and training data without one";
        return Err(candle_core::Error::Msg(text.to_owned()).into());
    };
    let added = sums.map(|p| alpha * (p / beta).ln_1p());
    Ok(Some(match &batch.seen {
        Some(seen) => added.overlaid(seen),
        None => added,
    }))
}

/// Runs a model on the histories of a training step, some of their items hidden where the settings say
/// so.
///
/// # Errors
/// What the model gives.
pub(super) fn run_histories(
    model: &dyn SequentialModel,
    batch: &TrainingBatch,
    state_layers: &[usize],
    rng: &mut MaskRng,
) -> Result<ModelOutput, TrainError> {
    if batch.item_dropout == 0.0 {
        return Ok(model.forward(&batch.histories, Mode::Train(rng), state_layers)?);
    }
    let histories = batch.histories.hiding(batch.item_dropout, rng)?;
    Ok(model.forward(&histories, Mode::Train(rng), state_layers)?)
}

/// A model's cross-entropy at every target of the batch, from user vectors `[R, D]` there, with the
/// `prior` beside its scores, smoothed where the settings say so. The part of a step that the batch is.
///
/// # Errors
/// Data without a prior, or what the terms report.
pub(super) fn target_loss(
    batch: &TrainingBatch,
    candidates: &Candidates,
    users: &Tensor,
    items: ItemTable<'_>,
    prior: Option<PriorWeights>,
) -> Result<Tensor, TrainError> {
    let offsets = score_offsets(batch, prior)?;
    let mut loss = candidates.cross_entropy(users, items, &batch.targets, offsets.as_ref())?;
    if batch.label_smoothing > 0.0 {
        // The prior's part in the scores is constant, and left out.
        let (targets, seen) = (&batch.targets, batch.seen.as_ref());
        let share = batch.label_smoothing;
        loss = (loss + smoothing::excess(users, &items.all()?, targets, seen, share)?)?;
    }
    Ok(batch.share.of_targets(loss)?)
}

impl Objective for CrossEntropy {
    fn loss(
        &self,
        model: &dyn SequentialModel,
        batch: &TrainingBatch,
        rng: &mut MaskRng,
    ) -> Result<Losses, TrainError> {
        let output = run_histories(model, batch, &[], rng)?;
        let users = rows_at(&output.user_vectors, batch, &batch.target_positions)?;
        let candidates = Candidates::of_step(batch, rng);
        let items = model.item_table().with(batch.lookups());
        let loss = target_loss(batch, &candidates, &users, items, self.prior)?;
        Losses::weighted(&[("ce", 1.0, loss)])
    }

    fn parameters(&self) -> &Parameters {
        &self.none
    }

    fn describe(&self) -> serde_json::Value {
        let mut all = serde_json::json!({ "objective": "cross-entropy" });
        if let Some(PriorWeights { alpha, beta }) = self.prior {
            all["prior"] = serde_json::json!([alpha, beta]);
        }
        all
    }
}

/// The rows `[R, W]` of `values` (`[B, S, W]`, or `[B, 1, W]` at the last position) that stand at
/// the flat `positions`, which may repeat where histories are shared.
///
/// # Errors
/// [`TrainError::Readout`] for one value a history where a position is not the last of its history.
pub fn rows_at(
    values: &Tensor,
    batch: &TrainingBatch,
    positions: &[u32],
) -> Result<Tensor, TrainError> {
    let (histories, found, width) = values.dims3()?;
    let (_, expected) = batch.histories.items.dims2()?;
    if found == expected {
        let flat = values.reshape((histories * found, width))?;
        if positions.iter().copied().eq(0..(histories * found) as u32) {
            return Ok(flat);
        }
        let positions = Tensor::new(positions, values.device())?;
        return Ok(flat.index_select(&positions, 0)?);
    }
    let last = batch.last_positions();
    let of_history = |position: &u32| (*position as usize / expected) as u32;
    let is_last = |position: &u32| last.get(of_history(position) as usize) == Some(position);
    if found == 1 && positions.iter().all(is_last) {
        let flat = values.reshape((histories, width))?;
        if positions == last {
            return Ok(flat);
        }
        let rows: Vec<u32> = positions.iter().map(of_history).collect();
        return Ok(flat.index_select(&Tensor::new(rows, values.device())?, 0)?);
    }
    Err(TrainError::Readout {
        positions: expected,
        found,
    })
}
