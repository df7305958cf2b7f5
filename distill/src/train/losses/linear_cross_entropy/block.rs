//! One block of rows: its softmax over the tiles of candidates, and what it adds to the gradients.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result};
use rayon::prelude::*;

use super::rows::{LANES, absorb, add, dot, exponentials};
use super::{CandidateGradients, Matrix, Offsets, Targets};
use crate::model::ops::exp::exp;
use crate::model::ops::simd::vectorized;

/// Candidates of a tile: 256 rows of them are 1 MiB, the cache of one core.
const TILE: usize = 1024;
/// Rows of one task of a thread.
const TASK_ROWS: usize = 16;

/// One block of rows against all candidates.
pub(super) struct Problem<'a> {
    pub(super) users: Matrix<'a>,
    pub(super) candidates: Matrix<'a>,
    pub(super) targets: &'a Targets<'a>,
    pub(super) offsets: Option<&'a Offsets>,
    pub(super) first: usize,
    pub(super) rows: usize,
    /// Of the gradients: 1 / R.
    pub(super) scale: f32,
}

/// The softmax of each row, as far as it has been seen.
pub(super) struct Softmax {
    /// Of the targets.
    target_logits: Vec<f32>,
    /// Highest logit.
    highest: Vec<f32>,
    /// Sum of the exponentials relative to `highest`.
    sums: Vec<f64>,
}

/// Exponentials of a tile, and what logits they are relative to.
pub(super) struct Tile {
    first: usize,
    len: usize,
    exponentials: CpuStorage,
    relative_to: Vec<f32>,
}

impl Problem<'_> {
    /// Sum of the losses of the rows; `mixed` becomes the gradient of the users.
    pub(super) fn solve(
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
    pub(super) fn tiles(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
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

    /// What is added to the score of a row's target.
    fn target_offset(&self, row: usize) -> f32 {
        let row = self.first + row;
        let item = match self.targets {
            Targets::Among(numbers) => numbers[row] as u32 + 1,
            Targets::Beside { items, .. } => items[row],
        };
        self.offsets.map_or(0.0, |offsets| offsets.get(row, item))
    }

    /// Nothing has been seen yet, or only the targets that are not among the candidates.
    fn begin(&self, mixed: &mut [f32]) -> Softmax {
        let target_logits: Vec<f32> = (0..self.rows)
            .map(|row| {
                let score = dot(self.users.row(self.first + row), self.target(row));
                score + self.target_offset(row)
            })
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
    pub(super) fn tile_again(&self, first: usize, len: usize, softmax: &Softmax) -> Result<Tile> {
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

    /// What offsets and drawing the candidates do to their logits.
    fn correct(&self, row: usize, first: usize, logits: &mut [f32]) {
        if let Some(offsets) = self.offsets {
            self.offset(row, first, logits, offsets);
        }
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

    fn offset(&self, row: usize, first: usize, logits: &mut [f32], offsets: &Offsets) {
        let row = self.first + row;
        match self.targets {
            Targets::Among(_) => {
                let from = first as u32 + 1;
                for (item, value) in offsets.within(row, from..from + logits.len() as u32) {
                    logits[(item - from) as usize] += value;
                }
            }
            Targets::Beside { candidates, .. } => {
                for (logit, item) in logits.iter_mut().zip(&candidates[first..]) {
                    *logit += offsets.get(row, *item);
                }
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
    pub(super) fn add_candidates(
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
    pub(super) fn add_targets(&self, softmax: &Softmax, gradients: &mut CandidateGradients<'_>) {
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
