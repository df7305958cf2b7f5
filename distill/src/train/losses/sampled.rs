//! Cross-entropy over items that were drawn, as an estimate of that over the whole catalog.
//!
//! ```text
//! -s_y + ln( e^{s_y} + sum_{drawn j != y} e^{s_j + ln(times drawn / expected times)} )
//! ```
//! The sum over the drawn items is, in expectation, the sum over all items but the target: the
//! more are drawn, the closer loss and gradient come to those of the full softmax. (The target's own
//! score has no correction: it is always there, not drawn.) All rows of a step share the draw.

use candle_core::{D, Result, Tensor};
use candle_nn::ops::log_softmax;

use super::catalog;
use super::known::Known;
use super::linear_cross_entropy::{self, CandidateGradients, Matrix, Targets};
use super::negatives::Negatives;
use super::offsets::Offsets;
use crate::model::{ItemTable, MaskRng, ops};
use crate::train::TrainingBatch;

/// What a target is compared with in one step.
#[derive(Clone, Debug, PartialEq)]
pub enum Candidates {
    /// Every item of the catalog.
    All,
    /// Items that were drawn for the step.
    Drawn(Negatives),
}

impl Candidates {
    /// The candidates of a step: one draw for all of its terms, if the batch says that items are
    /// drawn.
    #[must_use]
    pub fn of_step(batch: &TrainingBatch, rng: &mut MaskRng) -> Self {
        match &batch.negatives {
            Some(sampler) => Self::Drawn(sampler.draw(rng)),
            None => Self::All,
        }
    }

    /// Mean cross-entropy of `targets` among the candidates. User vectors `[R, D]`, item embeddings
    /// `[N + 1, D]`, R targets, `offsets` `[R, N]` beside the scores; the result is a scalar. Of embeddings that are trained only those
    /// that took part get a gradient where items were drawn, through the step's lookups if it has
    /// some.
    ///
    /// # Errors
    /// A target outside `1..=N`, or shapes that do not fit.
    pub fn cross_entropy(
        &self,
        user_vectors: &Tensor,
        items: ItemTable<'_>,
        targets: &[u32],
        offsets: Option<&Offsets>,
    ) -> Result<Tensor> {
        match self {
            Self::All => catalog::cross_entropy(user_vectors, &items.all()?, targets, offsets),
            Self::Drawn(negatives) => {
                let targets = (targets, offsets);
                sampled_cross_entropy(user_vectors, items, targets, negatives)
            }
        }
    }
}

fn sampled_cross_entropy(
    user_vectors: &Tensor,
    items: ItemTable<'_>,
    (targets, offsets): (&[u32], Option<&Offsets>),
    negatives: &Negatives,
) -> Result<Tensor> {
    catalog::check_targets(user_vectors, items.weight, targets)?;
    catalog::check_offsets(user_vectors, offsets)?;
    // One lookup, so that the backward pass touches the table once.
    let rows = [&negatives.items[..], targets].concat();
    let drawn = items.rows(&rows)?; // [K + R, D]
    if ops::fused(user_vectors) && ops::fused(&drawn) {
        fused(user_vectors, &drawn, (targets, offsets), negatives)
    } else {
        slow(user_vectors, &drawn, (targets, offsets), negatives)
    }
}

fn fused(
    user_vectors: &Tensor,
    drawn: &Tensor,
    (targets, offsets): (&[u32], Option<&Offsets>),
    negatives: &Negatives,
) -> Result<Tensor> {
    let (rows, width) = user_vectors.dims2()?;
    let count = negatives.items.len();
    let users = user_vectors.contiguous()?;
    let mut gradient = drawn.track_op().then(|| vec![0f32; (count + rows) * width]);
    let (loss, user_gradient) = {
        let (user_storage, user_layout) = users.storage_and_layout();
        let (storage, layout) = drawn.storage_and_layout();
        let (user_storage, storage) = (
            catalog::in_memory(&user_storage)?,
            catalog::in_memory(&storage)?,
        );
        let gradients = gradient.as_mut().map(|gradient| {
            let (candidates, targets) = gradient.split_at_mut(count * width);
            CandidateGradients {
                candidates,
                targets,
            }
        });
        let targets = Targets::Beside {
            vectors: Matrix::new(storage, layout, count, rows)?,
            items: targets,
            candidates: &negatives.items,
            corrections: &negatives.corrections,
        };
        linear_cross_entropy::cross_entropy(
            Matrix::new(user_storage, user_layout, 0, rows)?,
            Matrix::new(storage, layout, 0, count)?,
            &targets,
            offsets,
            gradients,
        )?
    };
    let known = Known {
        loss,
        gradients: (
            Tensor::from_vec(user_gradient, (rows, width), users.device())?,
            gradient
                .map(|g| Tensor::from_vec(g, (count + rows, width), users.device()))
                .transpose()?,
        ),
    };
    known.of(&users, drawn)
}

/// The same in tensor operations, for other devices and types.
fn slow(
    user_vectors: &Tensor,
    drawn: &Tensor,
    (targets, offsets): (&[u32], Option<&Offsets>),
    negatives: &Negatives,
) -> Result<Tensor> {
    let (rows, _) = user_vectors.dims2()?;
    let count = negatives.items.len();
    let added = |row, item| offsets.map_or(0.0, |offsets| offsets.get(row, item));
    let corrections: Vec<f32> = (targets.iter().enumerate())
        .flat_map(|(row, target)| {
            let pairs = negatives.items.iter().zip(&negatives.corrections);
            pairs.map(move |(item, correction)| {
                if item == target {
                    f32::NEG_INFINITY
                } else {
                    *correction + added(row, *item)
                }
            })
        })
        .collect();
    let own_offsets: Vec<f32> = (targets.iter().enumerate())
        .map(|(row, target)| added(row, *target))
        .collect();
    let own_offsets = Tensor::from_vec(own_offsets, (rows, 1), user_vectors.device())?
        .to_dtype(user_vectors.dtype())?;
    let corrections = Tensor::from_vec(corrections, (rows, count), user_vectors.device())?
        .to_dtype(user_vectors.dtype())?;
    let scores = user_vectors.matmul(&drawn.narrow(0, 0, count)?.t()?)?;
    let own = (user_vectors * drawn.narrow(0, count, rows)?)?.sum_keepdim(D::Minus1)?;
    let own = (own + own_offsets)?;
    let logits = Tensor::cat(&[&own, &(scores + corrections)?], 1)?; // [R, 1 + K]
    log_softmax(&logits, D::Minus1)?
        .narrow(1, 0, 1)?
        .mean_all()?
        .neg()
}
