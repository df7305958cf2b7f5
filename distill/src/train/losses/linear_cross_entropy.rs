//! Cross-entropy of `users . candidates` and both of its gradients, for f32 in CPU memory.
//!
//! Blocks of rows meet tiles of candidates that fit the cache. A tile's logits are made by a matrix
//! product, turned into exponentials in place, and used at once for the gradient of the users: the
//! sum of the candidates weighted by them. The exponentials of a tile are relative to the highest
//! logit that its row had shown so far; where a later tile shows a higher one, what was summed is
//! scaled down. No pass over the logits divides by their sum: that is done on the much smaller
//! gradients. Where the candidates get a gradient too, the exponentials of one block of rows are
//! kept for it, otherwise only those of a tile.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result};
use rayon::prelude::*;

use crate::model::ops::exp::exp;
use crate::model::ops::simd::vectorized;

/// Rows of a block: enough that packing a tile for the matrix product costs little beside it.
const BLOCK_ROWS: usize = 256;
/// Fewest rows of a block, whatever is kept.
const LEAST_ROWS: usize = 32;
/// Candidates of a tile: 256 rows of them are 1 MiB, the cache of one core.
const TILE: usize = 1024;
/// Most exponentials that are kept for the gradient of the candidates: 64 MiB.
const KEPT: usize = 1 << 24;
/// Rows of one task of a thread.
const TASK_ROWS: usize = 16;
/// Values of one task of a thread.
const TASK_VALUES: usize = 1 << 14;

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

/// Mean cross-entropy over the rows, and its gradient with respect to the users `[R, D]`.
pub(super) fn cross_entropy(
    users: Matrix<'_>,
    candidates: Matrix<'_>,
    targets: &Targets<'_>,
    mut gradients: Option<CandidateGradients<'_>>,
) -> Result<(f64, Vec<f32>)> {
    let rows = users.rows();
    let most = match gradients {
        Some(_) => (KEPT / candidates.rows()).clamp(LEAST_ROWS, BLOCK_ROWS),
        None => BLOCK_ROWS,
    };
    let block_rows = rows.div_ceil(rows.div_ceil(most)); // about equal blocks
    let mut user_gradient = vec![0f32; rows * users.width];
    let mut loss = 0.0;
    for (block, gradient) in (user_gradient.chunks_mut(block_rows * users.width)).enumerate() {
        let first = block * block_rows;
        let problem = Problem {
            users,
            candidates,
            targets,
            first,
            rows: gradient.len() / users.width,
            scale: 1.0 / rows as f32,
        };
        loss += problem.solve(gradient, gradients.as_mut())?;
    }
    Ok((loss / rows as f64, user_gradient))
}

/// One block of rows against all candidates.
struct Problem<'a> {
    users: Matrix<'a>,
    candidates: Matrix<'a>,
    targets: &'a Targets<'a>,
    first: usize,
    rows: usize,
    /// Of the gradients: 1 / R.
    scale: f32,
}

/// The softmax of each row, as far as it has been seen.
struct Softmax {
    /// Highest logit.
    highest: Vec<f32>,
    /// Sum of the exponentials relative to `highest`.
    sums: Vec<f64>,
}

/// Exponentials of a tile, and what logits they are relative to.
struct Tile {
    first: usize,
    len: usize,
    exponentials: CpuStorage,
    relative_to: Vec<f32>,
}

impl Problem<'_> {
    /// Sum of the losses of the rows; `mixed` becomes the gradient of the users.
    fn solve(
        &self,
        mixed: &mut [f32],
        gradients: Option<&mut CandidateGradients<'_>>,
    ) -> Result<f64> {
        let target_logits: Vec<f32> = (0..self.rows)
            .map(|row| dot(self.users.row(self.first + row), self.target(row)))
            .collect();
        let mut softmax = self.begin(&target_logits, mixed);
        let mut kept = Vec::new();
        let count = self.candidates.rows();
        let len = count.div_ceil(count.div_ceil(TILE)).next_multiple_of(16);
        for first in (0..count).step_by(len) {
            let tile = self.tile(first, len.min(count - first), &mut softmax, mixed)?;
            if gradients.is_some() {
                kept.push(tile);
            }
        }
        self.finish_users(&softmax, mixed);
        if let Some(gradients) = gradients {
            for tile in &kept {
                self.add_candidates(tile, &softmax, gradients)?;
            }
            self.add_targets(&target_logits, &softmax, gradients);
        }
        let row_losses = target_logits.iter().zip(&softmax.highest);
        Ok(row_losses
            .zip(&softmax.sums)
            .map(|((logit, highest), sum)| f64::from(*highest) + sum.ln() - f64::from(*logit))
            .sum())
    }

    /// The vector of a row's target.
    fn target(&self, row: usize) -> &[f32] {
        match self.targets {
            Targets::Among(numbers) => self.candidates.row(numbers[self.first + row]),
            Targets::Beside { vectors, .. } => vectors.row(self.first + row),
        }
    }

    /// Nothing has been seen yet, or only the targets that are not among the candidates.
    fn begin(&self, target_logits: &[f32], mixed: &mut [f32]) -> Softmax {
        match self.targets {
            Targets::Among(_) => Softmax {
                highest: vec![f32::NEG_INFINITY; self.rows],
                sums: vec![0.0; self.rows],
            },
            Targets::Beside { .. } => {
                for (row, mixed) in mixed.chunks_exact_mut(self.users.width).enumerate() {
                    mixed.copy_from_slice(self.target(row));
                }
                Softmax {
                    highest: target_logits.to_vec(),
                    sums: vec![1.0; self.rows],
                }
            }
        }
    }

    /// Adds a tile of candidates to the softmax and to the mixture of candidates.
    fn tile(
        &self,
        first: usize,
        len: usize,
        softmax: &mut Softmax,
        mixed: &mut [f32],
    ) -> Result<Tile> {
        let width = self.users.width;
        let tile = self.candidates.layout(first, len);
        let mut exponentials = self.users.storage.matmul(
            self.candidates.storage,
            (1, self.rows, len, width),
            &self.users.layout(self.first, self.rows),
            &tile.transpose(0, 1)?,
        )?;
        let CpuStorage::F32(logits) = &mut exponentials else {
            candle_core::bail!("a fused loss takes f32 only")
        };
        let rows = logits.par_chunks_mut(len).zip(&mut softmax.highest);
        rows.zip(&mut softmax.sums)
            .zip(mixed.par_chunks_mut(width))
            .enumerate()
            .with_min_len(TASK_ROWS)
            .for_each(|(row, (((logits, highest), sum), mixed))| {
                self.correct(row, first, logits);
                absorb(logits, highest, sum, mixed);
            });
        let layout = Layout::contiguous((self.rows, len));
        let sizes = (1, self.rows, width, len);
        let product = exponentials.matmul(self.candidates.storage, sizes, &layout, &tile)?;
        add(mixed, product.as_slice()?);
        Ok(Tile {
            first,
            len,
            exponentials,
            relative_to: softmax.highest.clone(),
        })
    }

    /// What drawing the candidates does to their logits.
    fn correct(&self, row: usize, first: usize, logits: &mut [f32]) {
        if let Targets::Beside {
            items,
            candidates,
            corrections,
            ..
        } = self.targets
        {
            let target = items[self.first + row];
            let candidates = candidates[first..].iter().zip(&corrections[first..]);
            for (logit, (item, correction)) in logits.iter_mut().zip(candidates) {
                *logit = if *item == target {
                    f32::NEG_INFINITY
                } else {
                    *logit + correction
                };
            }
        }
    }

    /// The gradient of a row is the mean of the candidates under the softmax, less the target.
    fn finish_users(&self, softmax: &Softmax, mixed: &mut [f32]) {
        let rows = mixed.chunks_exact_mut(self.users.width).zip(&softmax.sums);
        for (row, (mixed, sum)) in rows.enumerate() {
            let share = (1.0 / sum) as f32;
            for (mixed, target) in mixed.iter_mut().zip(self.target(row)) {
                *mixed = (*mixed * share - target) * self.scale;
            }
        }
    }

    /// The gradient of a candidate is the sum of the users weighted by its probabilities.
    fn add_candidates(
        &self,
        tile: &Tile,
        softmax: &Softmax,
        gradients: &mut CandidateGradients<'_>,
    ) -> Result<()> {
        let width = self.users.width;
        let mut weighted = Vec::with_capacity(self.rows * width);
        for row in 0..self.rows {
            let share = exp(tile.relative_to[row] - softmax.highest[row]) * self.scale;
            let share = share * (1.0 / softmax.sums[row]) as f32;
            let user = self.users.row(self.first + row);
            weighted.extend(user.iter().map(|value| value * share));
        }
        let layout = Layout::contiguous((self.rows, tile.len)).transpose(0, 1)?;
        let pushed = tile.exponentials.matmul(
            &CpuStorage::F32(weighted),
            (1, tile.len, width, self.rows),
            &layout,
            &Layout::contiguous((self.rows, width)),
        )?;
        let range = tile.first * width..(tile.first + tile.len) * width;
        add(&mut gradients.candidates[range], pushed.as_slice()?);
        Ok(())
    }

    /// Targets are pulled towards their users.
    fn add_targets(
        &self,
        target_logits: &[f32],
        softmax: &Softmax,
        gradients: &mut CandidateGradients<'_>,
    ) {
        let width = self.users.width;
        for (row, logit) in target_logits.iter().enumerate() {
            let user = self.users.row(self.first + row);
            let (place, weight, gradients) = match self.targets {
                Targets::Among(numbers) => {
                    (numbers[self.first + row], -1.0, &mut *gradients.candidates)
                }
                Targets::Beside { .. } => {
                    let exponential = f64::from(exp(logit - softmax.highest[row]));
                    let probability = (exponential / softmax.sums[row]) as f32;
                    (self.first + row, probability - 1.0, &mut *gradients.targets)
                }
            };
            let gradient = &mut gradients[place * width..(place + 1) * width];
            for (gradient, user) in gradient.iter_mut().zip(user) {
                *gradient += weight * self.scale * user;
            }
        }
    }
}

/// Turns logits into exponentials and adds them to the softmax of their row; where they show a new
/// highest logit, what the row had so far is scaled down.
fn absorb(logits: &mut [f32], highest: &mut f32, sum: &mut f64, mixed: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            let peak = maximum(logits);
            if peak > *highest {
                let factor = exp(*highest - peak);
                mixed.iter_mut().for_each(|value| *value *= factor);
                *sum *= f64::from(factor);
                *highest = peak;
            }
            *sum += f64::from(exponentials(logits, *highest));
        },
    );
}

/// Lanes of a reduction, so that it can be vectorised.
const LANES: usize = 16;

#[inline(always)]
fn maximum(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a })
}

/// Replaces each value by its exponential relative to `highest`; gives their sum.
#[inline(always)]
fn exponentials(values: &mut [f32], highest: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *value = exp(*value - highest);
            *lane += *value;
        }
    }
    let mut sum = 0.0;
    for value in rest {
        *value = exp(*value - highest);
        sum += *value;
    }
    lanes.iter().sum::<f32>() + sum
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `to += from`.
fn add(to: &mut [f32], from: &[f32]) {
    let tasks = to
        .par_chunks_mut(TASK_VALUES)
        .zip(from.par_chunks(TASK_VALUES));
    tasks.for_each(|(to, from)| {
        for (to, from) in to.iter_mut().zip(from) {
            *to += from;
        }
    });
}
