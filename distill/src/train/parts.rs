//! A batch on the processor, in parts that run side by side.
//!
//! Most operations of a step are too small to be shared by threads: to wake them takes as long as the
//! work. Parts of a batch wait for nobody until their gradients are added up, so each has threads of
//! its own. Their number is a setting and does not follow the machine, since the order of the sums
//! and the random streams do: the same settings give the same bits on any number of cores.

use candle_core::{Device, Tensor};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::adamw::{AdamW, Gradient, Slot};
use super::replicas::Replica;
use super::{TrainError, TrainingBatch, TrainingData};
use crate::model::MaskRng;

/// Names of the terms of a loss and their values.
pub type Terms = Vec<(&'static str, f64)>;

/// Keeps the random streams of parts apart.
const PART_SEED: u64 = 0x7265_706c_6963_6131;

/// The random stream of a part of a step's batch.
pub(super) fn stream(seed: u64, part: usize, step: u64) -> MaskRng {
    MaskRng::new(seed ^ PART_SEED.wrapping_mul(part as u64), step)
}

/// In how many parts a batch of `data` is computed where `asked` are wanted. It stays whole on a GPU,
/// which one operation fills, and where items are drawn: a step then changes a few rows of the item
/// table, and each part would draw its own.
#[must_use]
pub fn count(asked: usize, device: &Device, data: &TrainingData) -> usize {
    match device.is_cpu() && data.draws().is_none() {
        true => asked.max(1),
        false => 1,
    }
}

/// How the batches of a run are divided, and who computes the parts.
#[derive(Debug)]
pub struct Parts {
    count: usize,
    /// Threads of those that run at the same time; empty where batches stay whole.
    lanes: Vec<ThreadPool>,
}

impl Parts {
    /// For batches in `count` parts.
    ///
    /// # Errors
    /// Threads that the system does not give.
    pub fn new(count: usize) -> candle_core::Result<Self> {
        if count <= 1 {
            return Ok(Self {
                count: 1,
                lanes: Vec::new(),
            });
        }
        let threads = rayon::current_num_threads();
        let lanes = count.min(threads).max(1);
        let lane = || {
            ThreadPoolBuilder::new()
                .num_threads(threads / lanes)
                .build()
        };
        let lanes = (0..lanes)
            .map(|_| lane().map_err(candle_core::Error::wrap))
            .collect::<candle_core::Result<_>>()?;
        Ok(Self { count, lanes })
    }

    /// The terms of a batch and its gradients, in the order of the slots.
    ///
    /// # Errors
    /// Whatever a part fails with.
    pub fn gradients(
        &self,
        replica: &Replica<'_>,
        optimizer: &AdamW,
        data: &TrainingData,
        windows: &[usize],
        (seed, step): (u64, u64),
    ) -> Result<(Terms, Vec<Gradient>), TrainError> {
        let device = replica.device();
        if self.lanes.is_empty() {
            let batch = data.batch(windows, &device)?;
            return of_part(replica, optimizer, &batch, stream(seed, 0, step), step);
        }
        let parts = data.divided(windows, self.count);
        let found = self.side_by_side(parts.len(), |number| {
            let part = data.part(parts[number], &device)?;
            of_part(replica, optimizer, &part, stream(seed, number, step), step)
        });
        let found = found.into_iter().collect::<Result<Vec<_>, TrainError>>()?;
        let (terms, gradients): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        Ok((add_up(terms), sums(gradients, optimizer.slots())?))
    }

    /// `work` of each part, by number.
    fn side_by_side<T: Send>(&self, parts: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let (lanes, work) = (self.lanes.len(), &work);
        let mut done: Vec<Vec<T>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (self.lanes.iter().enumerate())
                .map(|(lane, pool)| {
                    let own = move || (lane..parts).step_by(lanes).map(work).collect();
                    scope.spawn(move || pool.install(own))
                })
                .collect();
            (threads.into_iter())
                .map(|thread| match thread.join() {
                    Ok(done) => done,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect()
        });
        done.iter_mut().for_each(|done| done.reverse());
        (0..parts)
            .filter_map(|number| done[number % lanes].pop())
            .collect()
    }
}

/// The terms of one part and its gradients, in the order of the slots.
///
/// # Errors
/// A loss or a gradient that is missing or not finite.
pub(super) fn of_part(
    replica: &Replica<'_>,
    optimizer: &AdamW,
    part: &TrainingBatch,
    mut rng: MaskRng,
    step: u64,
) -> Result<(Terms, Vec<Gradient>), TrainError> {
    let losses = replica.objective.loss(replica.model, part, &mut rng)?;
    losses.refuse_non_finite(step)?;
    let lookups = part.histories.lookups.as_deref();
    let gradients = optimizer.collect(&losses.total.backward()?, lookups, step)?;
    Ok((losses.terms, gradients))
}

/// Terms of the same name added; a replica without a part has none.
pub(super) fn add_up(parts: Vec<Terms>) -> Terms {
    let mut sums = Terms::new();
    for (name, value) in parts.into_iter().flatten() {
        match sums.iter_mut().find(|(of, _)| *of == name) {
            Some((_, sum)) => *sum += value,
            None => sums.push((name, value)),
        }
    }
    sums
}

/// The gradients of all parts added slot by slot, in the order of the parts.
fn sums(parts: Vec<Vec<Gradient>>, slots: &[Slot]) -> candle_core::Result<Vec<Gradient>> {
    let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
    let of_slot = |slot: &Slot| {
        let mut sum: Option<Tensor> = None;
        for gradient in parts.iter_mut().filter_map(Iterator::next) {
            let gradient = gradient.dense(slot)?;
            sum = Some(match sum {
                Some(sum) => (sum + gradient)?,
                None => gradient,
            });
        }
        let nothing = || candle_core::Error::msg("a batch without windows");
        sum.map(Gradient::Dense).ok_or_else(nothing)
    };
    slots.iter().map(of_slot).collect()
}

#[cfg(test)]
mod tests;
