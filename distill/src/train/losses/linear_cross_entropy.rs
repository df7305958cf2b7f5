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

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result};
use rayon::prelude::*;

use crate::model::ops::exp::exp;
use crate::model::ops::simd::vectorized;

/// Rows of a block: enough that packing a tile for the matrix product costs little beside it.
const BLOCK_ROWS: usize = 256;
/// Fewest rows whose exponentials are worth keeping.
const LEAST_ROWS: usize = 128;
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
    gradients: Option<CandidateGradients<'_>>,
) -> Result<(f64, Vec<f32>)> {
    cross_entropy_within(KEPT, users, candidates, targets, gradients)
}

/// The same with at most `kept` exponentials kept.
fn cross_entropy_within(
    kept: usize,
    users: Matrix<'_>,
    candidates: Matrix<'_>,
    targets: &Targets<'_>,
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
    /// Of the targets.
    target_logits: Vec<f32>,
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
    ) -> Result<(f64, Softmax)> {
        let mut softmax = self.begin(mixed);
        let mut kept = Vec::new();
        for (first, len) in self.tiles() {
            let tile = self.tile(first, len, &mut softmax, mixed)?;
            if gradients.is_some() {
                kept.push(tile);
            }
        }
        self.finish_users(&softmax, mixed);
        if let Some(gradients) = gradients {
            for tile in &kept {
                self.add_candidates(tile, &softmax, gradients)?;
            }
            self.add_targets(&softmax, gradients);
        }
        let rows = softmax.target_logits.iter().zip(&softmax.highest);
        let loss = rows
            .zip(&softmax.sums)
            .map(|((logit, highest), sum)| f64::from(*highest) + sum.ln() - f64::from(*logit))
            .sum();
        Ok((loss, softmax))
    }

    /// First candidate and number of candidates of each tile.
    fn tiles(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let count = self.candidates.rows();
        let len = count.div_ceil(count.div_ceil(TILE)).next_multiple_of(LANES);
        (0..count)
            .step_by(len)
            .map(move |first| (first, len.min(count - first)))
    }

    /// The vector of a row's target.
    fn target(&self, row: usize) -> &[f32] {
        match self.targets {
            Targets::Among(numbers) => self.candidates.row(numbers[self.first + row]),
            Targets::Beside { vectors, .. } => vectors.row(self.first + row),
        }
    }

    /// Nothing has been seen yet, or only the targets that are not among the candidates.
    fn begin(&self, mixed: &mut [f32]) -> Softmax {
        let target_logits: Vec<f32> = (0..self.rows)
            .map(|row| dot(self.users.row(self.first + row), self.target(row)))
            .collect();
        let (highest, sums) = match self.targets {
            Targets::Among(_) => (vec![f32::NEG_INFINITY; self.rows], vec![0.0; self.rows]),
            Targets::Beside { .. } => {
                for (row, mixed) in mixed.chunks_exact_mut(self.users.width).enumerate() {
                    mixed.copy_from_slice(self.target(row));
                }
                (target_logits.clone(), vec![1.0; self.rows])
            }
        };
        Softmax {
            target_logits,
            highest,
            sums,
        }
    }

    /// Scores of a tile `[rows, len]`.
    fn logits(&self, first: usize, len: usize) -> Result<Vec<f32>> {
        let logits = self.users.storage.matmul(
            self.candidates.storage,
            (1, self.rows, len, self.users.width),
            &self.users.layout(self.first, self.rows),
            &self.candidates.layout(first, len).transpose(0, 1)?,
        )?;
        match logits {
            CpuStorage::F32(logits) => Ok(logits),
            _ => candle_core::bail!("a fused loss takes f32 only"),
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
        let mut logits = self.logits(first, len)?;
        let rows = logits.par_chunks_mut(len).zip(&mut softmax.highest);
        rows.zip(&mut softmax.sums)
            .zip(mixed.par_chunks_mut(width))
            .enumerate()
            .with_min_len(TASK_ROWS)
            .for_each(|(row, (((logits, highest), sum), mixed))| {
                self.correct(row, first, logits);
                absorb(logits, highest, sum, mixed);
            });
        let exponentials = CpuStorage::F32(logits);
        let product = exponentials.matmul(
            self.candidates.storage,
            (1, self.rows, width, len),
            &Layout::contiguous((self.rows, len)),
            &self.candidates.layout(first, len),
        )?;
        add(mixed, product.as_slice()?);
        Ok(Tile {
            first,
            len,
            exponentials,
            relative_to: softmax.highest.clone(),
        })
    }

    /// The exponentials of a tile once more, now that the highest logits are known.
    fn tile_again(&self, first: usize, len: usize, softmax: &Softmax) -> Result<Tile> {
        let mut logits = self.logits(first, len)?;
        let rows = logits.par_chunks_mut(len).zip(&softmax.highest);
        rows.enumerate()
            .with_min_len(TASK_ROWS)
            .for_each(|(row, (logits, highest))| {
                self.correct(row, first, logits);
                vectorized(
                    #[inline(always)]
                    || exponentials(logits, *highest),
                );
            });
        Ok(Tile {
            first,
            len,
            exponentials: CpuStorage::F32(logits),
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
    fn add_targets(&self, softmax: &Softmax, gradients: &mut CandidateGradients<'_>) {
        let width = self.users.width;
        for (row, logit) in softmax.target_logits.iter().enumerate() {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss and gradients, `beside` with the first candidates as the targets' vectors.
    fn run(kept: usize, beside: bool) -> (f64, [Vec<f32>; 3]) {
        let (rows, count, width) = (300, 1100, 3);
        let wave = |len: usize, step: f32| {
            let values = (0..len).map(|at| (at as f32 * step).sin() * 2.0);
            CpuStorage::F32(values.collect())
        };
        let (users, candidates) = (wave(rows * width, 0.37), wave(count * width, 1.3));
        let matrix = |storage, rows| {
            Matrix::new(storage, &Layout::contiguous((rows, width)), 0, rows).expect("matrix")
        };
        let numbers: Vec<usize> = (0..rows).map(|row| row * 7 % count).collect();
        let items: Vec<u32> = (0..rows as u32).collect();
        let names: Vec<u32> = (0..count as u32).rev().collect();
        let corrections: Vec<f32> = (0..count).map(|at| (at % 5) as f32 * 0.1).collect();
        let targets = if beside {
            Targets::Beside {
                vectors: Matrix {
                    values: &matrix(&candidates, count).values[..rows * width],
                    ..matrix(&candidates, count)
                },
                items: &items,
                candidates: &names,
                corrections: &corrections,
            }
        } else {
            Targets::Among(&numbers)
        };
        let mut gradient = vec![0f32; count * width];
        let mut own = vec![0f32; if beside { rows * width } else { 0 }];
        let gradients = CandidateGradients {
            candidates: &mut gradient,
            targets: &mut own,
        };
        let (users, candidates) = (matrix(&users, rows), matrix(&candidates, count));
        let result = cross_entropy_within(kept, users, candidates, &targets, Some(gradients));
        let (loss, users) = result.expect("loss");
        (loss, [users, gradient, own])
    }

    /// Whether exponentials are kept or made again, and how many rows are kept, must not show.
    #[test]
    fn kept_and_repeated_exponentials_give_the_same() {
        for beside in [false, true] {
            let (loss, gradients) = run(KEPT, beside);
            for kept in [0, 150 * 1100] {
                let (again, others) = run(kept, beside);
                assert!((loss - again).abs() < 1e-5, "{loss} and {again}");
                for (gradient, other) in gradients.iter().zip(&others) {
                    let size = gradient.iter().fold(0f32, |a, b| a.max(b.abs()));
                    for (a, b) in gradient.iter().zip(other) {
                        assert!((a - b).abs() <= 1e-5 * size, "{a} and {b}");
                    }
                }
            }
        }
    }
}
