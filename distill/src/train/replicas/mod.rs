//! Data parallelism: replicas of a model, each on a device of its own, share every batch.
//!
//! Each replica computes the loss and the gradients of its part in a thread of its own, a
//! [`GradientExchange`] adds the gradients up, and every replica makes the same step. The terms of a
//! part are scaled by its share of the batch, so the sum is the gradient of the whole. What is random
//! is drawn by each replica for itself: dropout masks and negatives are not those of one device.

mod host;
#[cfg(feature = "nccl")]
mod nccl;
#[cfg(test)]
mod tests;

use candle_core::{Device, Tensor};

use super::adamw::{AdamW, Gradient, Slot};
use super::parts::{self, Terms};
use super::{Objective, TrainError, TrainingBatch};
use crate::model::{MaskRng, SequentialModel};

pub use host::HostExchange;
#[cfg(feature = "nccl")]
pub use nccl::NcclExchange;

/// One copy of what is trained.
#[derive(Clone, Copy)]
pub struct Replica<'a> {
    /// The model.
    pub model: &'a dyn SequentialModel,
    /// What it minimises.
    pub objective: &'a dyn Objective,
}

impl Replica<'_> {
    /// Where it lives.
    #[must_use]
    pub fn device(&self) -> Device {
        self.model.item_table().device().clone()
    }
}

/// Adds up what the replicas found.
pub trait GradientExchange {
    /// The sum of `parts`, once for each replica and on its device. `parts[r]` is a vector `[n]` in
    /// f32 on the device of replica r, and may share its memory with other tensors.
    ///
    /// # Errors
    /// Vectors that do not fit each other, or devices that cannot reach each other.
    fn sum(&self, parts: Vec<Tensor>) -> candle_core::Result<Vec<Tensor>>;
}

/// What connects these devices: NCCL for GPUs, the host's memory for the CPU.
///
/// # Errors
/// Several GPUs in a build without `nccl`, or that cannot be connected.
pub fn connect(devices: &[Device]) -> candle_core::Result<Box<dyn GradientExchange>> {
    if devices.len() == 1 || devices.iter().all(Device::is_cpu) {
        return Ok(Box::new(HostExchange));
    }
    #[cfg(feature = "nccl")]
    return Ok(Box::new(NcclExchange::new(devices)?));
    #[cfg(not(feature = "nccl"))]
    candle_core::bail!("several GPUs need a build with `--features nccl`")
}

/// The terms of a batch, and the gradients of all slots for each replica.
pub(super) struct Shared {
    pub(super) terms: Terms,
    pub(super) gradients: Vec<Vec<Gradient>>,
}

/// Runs the parts of a batch, `None` for a replica that has nothing to do.
pub(super) fn gradients(
    replicas: &[Replica<'_>],
    optimizers: &[AdamW],
    parts: &[Option<TrainingBatch>],
    exchange: &dyn GradientExchange,
    (seed, step): (u64, u64),
) -> Result<Shared, TrainError> {
    let found = std::thread::scope(|scope| {
        let work = replicas.iter().zip(optimizers).zip(parts).enumerate();
        let threads: Vec<_> = work
            .map(|(number, ((replica, optimizer), part))| {
                let rng = parts::stream(seed, number, step);
                scope.spawn(move || of_part(replica, optimizer, part.as_ref(), rng, step))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    let (terms, flat): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let gradients = (exchange.sum(flat)?.iter().zip(optimizers))
        .map(|(sum, optimizer)| split(sum, optimizer.slots()))
        .collect::<candle_core::Result<_>>()?;
    Ok(Shared {
        terms: parts::add_up(terms),
        gradients,
    })
}

/// The terms of one part and its gradients as one vector.
fn of_part(
    replica: &Replica<'_>,
    optimizer: &AdamW,
    part: Option<&TrainingBatch>,
    rng: MaskRng,
    step: u64,
) -> Result<(Terms, Tensor), TrainError> {
    let Some(part) = part else {
        let values = optimizer.slots().iter().map(|slot| slot.var.elem_count());
        let none = Tensor::zeros(
            values.sum::<usize>(),
            candle_core::DType::F32,
            &replica.device(),
        )?;
        return Ok((Terms::new(), none));
    };
    let (terms, gradients) = parts::of_part(replica, optimizer, part, rng, step)?;
    let flat = (gradients.into_iter().zip(optimizer.slots()))
        .map(|(gradient, slot)| gradient.dense(slot)?.flatten_all())
        .collect::<candle_core::Result<Vec<_>>>()?;
    Ok((terms, Tensor::cat(&flat, 0)?))
}

/// One vector as the gradients of the slots, in their order.
fn split(flat: &Tensor, slots: &[Slot]) -> candle_core::Result<Vec<Gradient>> {
    let mut start = 0;
    slots
        .iter()
        .map(|slot| {
            let count = slot.var.elem_count();
            let part = flat.narrow(0, start, count)?.reshape(slot.var.shape())?;
            start += count;
            Ok(Gradient::Dense(part))
        })
        .collect()
}

/// Makes the parameters and moments of all replicas those of the first.
pub(super) fn equalize(optimizers: &mut [AdamW]) -> candle_core::Result<()> {
    let Some((first, others)) = optimizers.split_first_mut() else {
        return Ok(());
    };
    for other in others {
        other.step = first.step;
        for (from, to) in first.slots().iter().zip(other.slots()) {
            let pairs = [
                (&from.var, &to.var),
                (&from.first_moment, &to.first_moment),
                (&from.second_moment, &to.second_moment),
            ];
            for (from, to) in pairs {
                to.set(&from.as_detached_tensor().to_device(to.device())?)?;
            }
        }
    }
    Ok(())
}
