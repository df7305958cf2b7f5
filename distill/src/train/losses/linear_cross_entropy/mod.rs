//! Cross-entropy of `users . candidates` and both of its gradients, for f32 in CPU memory.
//!
//! Blocks of rows meet tiles of candidates that fit the cache. A tile's logits are made by a matrix
//! product, turned into exponentials in place, and used at once for the gradient of the users: the
//! sum of the candidates weighted by them. The exponentials of a tile are relative to the highest
//! logit that its row had shown so far; where a later tile shows a higher one, what was summed is
//! scaled down. No pass over the logits divides by their sum: that is done on the much smaller
//! gradients. Where the candidates get a gradient too, the exponentials of one block of rows are
//! kept for it, otherwise only those of a tile. In a catalog so large that only few rows could be
//! kept, they are made a second time instead, tile by tile: adding a few rows at a time to a gradient
//! that does not fit the cache would cost more.

mod block;
mod rows;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, Layout, Result};

use super::offsets::Offsets;
use block::{Problem, Softmax};

/// Rows of a block: enough that packing a tile for the matrix product costs little beside it.
const BLOCK_ROWS: usize = 256;
/// Fewest rows whose exponentials are worth keeping.
const LEAST_ROWS: usize = 128;
/// Most exponentials that are kept for the gradient of the candidates: 64 MiB.
const KEPT: usize = 1 << 24;

/// A matrix `[rows, width]` in CPU memory.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    storage: &'a CpuStorage,
    values: &'a [f32],
    offset: usize,
    width: usize,
}

impl<'a> Matrix<'a> {
    /// `rows` rows that begin at `first_row` of the matrix that is laid out at `layout`.
    pub(super) fn new(
        storage: &'a CpuStorage,
        layout: &Layout,
        first_row: usize,
        rows: usize,
    ) -> Result<Self> {
        let width = layout.shape().dims2()?.1;
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("a fused loss got a matrix that is not contiguous")
        };
        let offset = start + first_row * width;
        let values = storage.as_slice::<f32>()?;
        if offset + rows * width > end {
            candle_core::bail!("{rows} rows from {first_row}, the matrix ends before");
        }
        Ok(Self {
            storage,
            values: &values[offset..offset + rows * width],
            offset,
            width,
        })
    }

    fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.width..(row + 1) * self.width]
    }

    fn layout(&self, first: usize, rows: usize) -> Layout {
        Layout::contiguous_with_offset((rows, self.width), self.offset + first * self.width)
    }
}

/// What each row should score highest.
pub(super) enum Targets<'a> {
    /// The candidate of this number.
    Among(&'a [usize]),
    /// A vector of its own `[R, D]`, beside candidates that were drawn.
    Beside {
        vectors: Matrix<'a>,
        /// The item of each row's target: a candidate that is the same item does not count.
        items: &'a [u32],
        candidates: &'a [u32],
        /// Added to the logits of each candidate.
        corrections: &'a [f32],
    },
}

/// Where gradients are added up, beside that of the users.
pub(super) struct CandidateGradients<'a> {
    /// `[N, D]`, of the candidates.
    pub(super) candidates: &'a mut [f32],
    /// `[R, D]`, of targets that stand beside the candidates; empty for the others.
    pub(super) targets: &'a mut [f32],
}

/// Mean cross-entropy over the rows, and its gradient with respect to the users `[R, D]`. `offsets`
/// `[R, N]` are by item: where no candidates were drawn, candidate `i` is item `i + 1`.
pub(super) fn cross_entropy(
    users: Matrix<'_>,
    candidates: Matrix<'_>,
    targets: &Targets<'_>,
    offsets: Option<&Offsets>,
    gradients: Option<CandidateGradients<'_>>,
) -> Result<(f64, Vec<f32>)> {
    cross_entropy_within(KEPT, users, candidates, (targets, offsets), gradients)
}

/// The same with at most `kept` exponentials kept.
fn cross_entropy_within(
    kept: usize,
    users: Matrix<'_>,
    candidates: Matrix<'_>,
    (targets, offsets): (&Targets<'_>, Option<&Offsets>),
    mut gradients: Option<CandidateGradients<'_>>,
) -> Result<(f64, Vec<f32>)> {
    let rows = users.rows();
    let fitting = kept / candidates.rows();
    let keep = fitting >= rows.min(LEAST_ROWS);
    let most = match gradients {
        Some(_) if keep => fitting.min(BLOCK_ROWS),
        _ => BLOCK_ROWS,
    };
    let block_rows = rows.div_ceil(rows.div_ceil(most)); // about equal blocks
    let mut user_gradient = vec![0f32; rows * users.width];
    let mut loss = 0.0;
    let mut done = Vec::new();
    for (block, gradient) in (user_gradient.chunks_mut(block_rows * users.width)).enumerate() {
        let problem = Problem {
            users,
            candidates,
            targets,
            offsets,
            first: block * block_rows,
            rows: gradient.len() / users.width,
            scale: 1.0 / rows as f32,
        };
        let keeping = gradients.as_mut().filter(|_| keep);
        let (block_loss, softmax) = problem.solve(gradient, keeping)?;
        loss += block_loss;
        done.push((problem, softmax));
    }
    if let Some(gradients) = gradients.as_mut().filter(|_| !keep) {
        add_again(&done, gradients)?;
    }
    Ok((loss / rows as f64, user_gradient))
}

/// The gradient of the candidates from exponentials that are made again, tile by tile.
fn add_again(
    blocks: &[(Problem<'_>, Softmax)],
    gradients: &mut CandidateGradients<'_>,
) -> Result<()> {
    let Some((any, _)) = blocks.first() else {
        return Ok(());
    };
    for (first, len) in any.tiles() {
        for (problem, softmax) in blocks {
            let tile = problem.tile_again(first, len, softmax)?;
            problem.add_candidates(&tile, softmax, gradients)?;
        }
    }
    for (problem, softmax) in blocks {
        problem.add_targets(softmax, gradients);
    }
    Ok(())
}
