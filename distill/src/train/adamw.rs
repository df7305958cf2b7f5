//! AdamW (Loshchilov & Hutter, arXiv 1711.05101) with moments that can be saved, and clipping by
//! the global norm. Parameters in CPU memory change in one sweep ([`sweep`]), others by tensor
//! operations.
//!
//! An item table of which a step read some rows only ([`ItemLookups`]) changes in these rows only, as
//! in PyTorch's `SparseAdam`: the moments of the others neither decay nor move anything.

mod sweep;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

use super::TrainError;
use super::settings::TrainSettings;
use crate::model::ops::fused;
use crate::model::{ItemLookups, Parameters, RowGradient};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;
/// torch's `clip_grad_norm_` adds this to the norm that it divides by; kept so that runs compare.
const CLIP_EPSILON: f64 = 1e-6;

/// One parameter and what the optimizer remembers of it.
#[derive(Debug)]
pub struct Slot {
    /// Name of the parameter.
    pub name: String,
    /// The parameter.
    pub var: Var,
    /// Running mean of its gradient.
    pub first_moment: Var,
    /// Running mean of its squared gradient.
    pub second_moment: Var,
    learning_rate_scale: f64,
    weight_decay: f64,
}

/// The optimizer.
#[derive(Debug)]
pub struct AdamW {
    slots: Vec<Slot>,
    clip_norm: f64,
    /// Steps done.
    pub step: u64,
}

impl AdamW {
    /// An optimizer of all `parameters`, its moments zero.
    ///
    /// # Errors
    /// Only what candle reports for making tensors.
    pub fn new(parameters: &Parameters, settings: &TrainSettings) -> candle_core::Result<Self> {
        let slots = parameters
            .iter()
            .filter_map(|(name, var)| {
                let learning_rate_scale = learning_rate_scale(name, settings);
                (learning_rate_scale > 0.0).then(|| {
                    Ok(Slot {
                        name: name.to_owned(),
                        var: var.clone(),
                        first_moment: Var::zeros(var.shape(), DType::F32, var.device())?,
                        second_moment: Var::zeros(var.shape(), DType::F32, var.device())?,
                        learning_rate_scale,
                        weight_decay: weight_decay(name, var, settings),
                    })
                })
            })
            .collect::<candle_core::Result<_>>()?;
        Ok(Self {
            slots,
            clip_norm: settings.clip_norm,
            step: 0,
        })
    }

    /// Every parameter that is trained, with its moments, in name order.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// One step down `gradients`, clipped to the global norm. Gives the norm before clipping. The
    /// result does not depend on the number of threads.
    ///
    /// # Errors
    /// [`TrainError::NoGradient`] for a parameter that the loss does not reach and
    /// [`TrainError::NonFinite`]; nothing has changed then.
    pub fn update(
        &mut self,
        gradients: &GradStore,
        lookups: Option<&ItemLookups>,
        learning_rate: f64,
    ) -> Result<f64, TrainError> {
        let gradients = self.collect(gradients, lookups, self.step + 1)?;
        self.apply(&gradients, learning_rate)
    }

    /// [`Self::update`] by gradients in the order of the slots.
    ///
    /// # Errors
    /// [`TrainError::NonFinite`]; nothing has changed then.
    pub fn apply(&mut self, gradients: &[Gradient], learning_rate: f64) -> Result<f64, TrainError> {
        let step = self.step + 1;
        let norm = self.global_norm(gradients, step)?;
        let clip = (self.clip_norm / (norm + CLIP_EPSILON)).min(1.0);
        let mut in_place = Vec::with_capacity(self.slots.len());
        for (slot, gradient) in self.slots.iter().zip(gradients) {
            let change = slot.change(learning_rate, clip, step);
            match gradient {
                Gradient::Dense(gradient) if slot.is_fused() => {
                    in_place.push((slot, gradient, change));
                }
                Gradient::Dense(gradient) => slot.update_slow(gradient, &change)?,
                Gradient::Rows(gradient) if slot.is_fused() => {
                    sweep::update_rows(slot, gradient, &change)?;
                }
                Gradient::Rows(gradient) => slot.update_rows_slow(gradient, &change)?,
            }
        }
        sweep::update(&in_place)?;
        self.step = step;
        Ok(norm)
    }

    /// The gradients of the slots, in their order.
    pub(super) fn collect(
        &self,
        gradients: &GradStore,
        lookups: Option<&ItemLookups>,
        step: u64,
    ) -> Result<Vec<Gradient>, TrainError> {
        self.slots
            .iter()
            .map(|slot| {
                let rows = match lookups {
                    Some(lookups) => lookups.gradient(&slot.var, gradients)?,
                    None => None,
                };
                match (gradients.get(&slot.var), rows) {
                    // Contiguous is what the sweep reads; nearly all gradients are.
                    (Some(dense), None) => {
                        Ok(Gradient::Dense(dense.to_dtype(DType::F32)?.contiguous()?))
                    }
                    (None, Some(rows)) => Ok(Gradient::Rows(rows)),
                    // A term over the whole catalog beside one over drawn items.
                    (Some(dense), Some(rows)) => {
                        let sum = (dense.to_dtype(DType::F32)? + rows.dense(&slot.var)?)?;
                        Ok(Gradient::Dense(sum))
                    }
                    (None, None) => Err(TrainError::NoGradient {
                        step,
                        name: slot.name.clone(),
                    }),
                }
            })
            .collect()
    }

    fn global_norm(&self, gradients: &[Gradient], step: u64) -> Result<f64, TrainError> {
        let squares = squares(gradients)?;
        for (slot, square) in self.slots.iter().zip(&squares) {
            if !square.is_finite() {
                return Err(TrainError::NonFinite {
                    step,
                    what: format!("the gradient of {}", slot.name),
                });
            }
        }
        Ok(squares.iter().sum::<f64>().sqrt())
    }
}

/// The gradient of one parameter, f32 and contiguous.
#[derive(Clone, Debug)]
pub enum Gradient {
    /// Of all of its values.
    Dense(Tensor),
    /// Of some of its rows.
    Rows(RowGradient),
}

impl Gradient {
    /// Every value that may not be zero.
    #[must_use]
    pub fn values(&self) -> &Tensor {
        match self {
            Self::Dense(gradient) => gradient,
            Self::Rows(gradient) => &gradient.values,
        }
    }

    /// As a tensor of the parameter's shape.
    pub(super) fn dense(self, slot: &Slot) -> candle_core::Result<Tensor> {
        match self {
            Self::Dense(gradient) => Ok(gradient),
            Self::Rows(gradient) => gradient.dense(&slot.var),
        }
    }
}

/// The numbers of one step of one parameter.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// Factor on the gradient.
    clip: f64,
    /// Factor on the parameter: what the weight decay leaves.
    keep: f64,
    /// Learning rate over the first moment's bias correction.
    rate: f64,
    /// Root of the second moment's bias correction.
    root: f64,
}

impl Slot {
    fn change(&self, learning_rate: f64, clip: f64, step: u64) -> Change {
        let rate = learning_rate * self.learning_rate_scale;
        Change {
            clip,
            keep: 1.0 - rate * self.weight_decay,
            rate: rate / (1.0 - BETA1.powf(step as f64)),
            root: (1.0 - BETA2.powf(step as f64)).sqrt(),
        }
    }

    /// Whether the sweep in place can take this parameter.
    fn is_fused(&self) -> bool {
        fused(&self.var) && self.var.is_contiguous()
    }

    /// The same in tensor operations, for other devices and element types.
    fn update_slow(&self, gradient: &Tensor, change: &Change) -> candle_core::Result<()> {
        let [value, first, second] = change.apply(self.vars().map(Var::as_tensor), gradient)?;
        self.var.set(&value)?;
        self.first_moment.set(&first)?;
        self.second_moment.set(&second)
    }

    fn update_rows_slow(&self, gradient: &RowGradient, change: &Change) -> candle_core::Result<()> {
        let rows = Tensor::new(gradient.rows.as_slice(), self.var.device())?;
        let [value, first, second] =
            (self.vars()).map(|var| var.as_detached_tensor().index_select(&rows, 0));
        let (value, first, second) = (value?, first?, second?);
        let new = change.apply([&value, &first, &second], &gradient.values)?;
        let at = rows
            .unsqueeze(1)?
            .broadcast_as(new[0].shape())?
            .contiguous()?;
        for (var, new) in self.vars().into_iter().zip(&new) {
            var.set(
                &var.as_detached_tensor()
                    .scatter(&at, &new.contiguous()?, 0)?,
            )?;
        }
        Ok(())
    }

    /// The parameter and its moments.
    fn vars(&self) -> [&Var; 3] {
        [&self.var, &self.first_moment, &self.second_moment]
    }
}

impl Change {
    /// Parameter and moments after the step, in tensor operations.
    fn apply(
        &self,
        [value, first, second]: [&Tensor; 3],
        gradient: &Tensor,
    ) -> candle_core::Result<[Tensor; 3]> {
        let gradient = (gradient * self.clip)?;
        let first = ((first * BETA1)? + (&gradient * (1.0 - BETA1))?)?;
        let square = (gradient.sqr()? * (1.0 - BETA2))?;
        let second = ((second * BETA2)? + square)?;
        let denominator = ((second.sqrt()? / self.root)? + EPSILON)?;
        let moved = ((&first / denominator)? * self.rate)?;
        let kept = (value * self.keep)?;
        let value = (kept - moved.to_dtype(value.dtype())?)?;
        Ok([value, first, second])
    }
}

/// Sum of squares of each gradient. Those on a GPU come over together, since each wait for it costs.
fn squares(gradients: &[Gradient]) -> candle_core::Result<Vec<f64>> {
    let values = gradients.iter().map(Gradient::values);
    if values.clone().all(fused) {
        return values.map(sweep::sum_of_squares).collect();
    }
    let sums = values
        .map(|gradient| gradient.sqr()?.sum_all())
        .collect::<candle_core::Result<Vec<_>>>()?;
    let sums = Tensor::stack(&sums, 0)?.to_vec1::<f32>()?;
    Ok(sums.into_iter().map(f64::from).collect())
}

/// The longest matching prefix wins.
fn learning_rate_scale(name: &str, settings: &TrainSettings) -> f64 {
    (settings.learning_rate_scales.iter())
        .filter(|(prefix, _)| name.starts_with(prefix.as_str()))
        .max_by_key(|(prefix, _)| prefix.len())
        .map_or(1.0, |(_, scale)| *scale)
}

/// Vectors are norms and biases, which do not decay.
fn weight_decay(name: &str, var: &Var, settings: &TrainSettings) -> f64 {
    let embedding = name.contains("embed");
    if var.rank() < 2 || (embedding && !settings.decay_embeddings) {
        0.0
    } else {
        settings.weight_decay
    }
}

#[cfg(test)]
mod tests;
