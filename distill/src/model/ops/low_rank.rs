//! `y += x · m` where `x` is narrow: what a LoRA adapter adds to a product, forward and backward.

use rayon::prelude::*;

use super::matrix::{Matrix, View};
use super::rows::Rows;
use super::simd::{add_product, vectorized};
use crate::model::dropout::Mask;

/// Rows per task.
const ROWS: usize = 32;

/// `y [T, first..first + n] += x [T, k] · m [k, n]`.
pub(super) fn add_low_rank(y: &mut Matrix, first: usize, x: &Matrix, m: View<'_>) {
    let (stride, width) = (y.columns, x.columns);
    let tasks = y.values_mut().par_chunks_mut(ROWS * stride);
    tasks
        .zip(x.values().par_chunks(ROWS * width))
        .for_each(|(y, x)| {
            vectorized(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_mut(stride).zip(x.chunks(width)) {
                        let y = &mut y[first..first + m.columns];
                        add_product(y, x, m.values(), m.columns);
                    }
                },
            );
        });
}

/// `y [T, n] += mask · (x [T, k] · m [k, n])`; row t of `y` has the mask of row `rows[t]`.
pub(super) fn add_low_rank_masked(
    y: &mut Matrix,
    x: &Matrix,
    m: View<'_>,
    mask: Mask,
    rows: Rows<'_>,
) {
    let (stride, width) = (y.columns, x.columns);
    let tasks = y.values_mut().par_chunks_mut(ROWS * stride);
    tasks
        .zip(x.values().par_chunks(ROWS * width))
        .enumerate()
        .for_each(|(task, (y, x))| {
            let mut sums = vec![0f32; stride];
            vectorized(
                #[inline(always)]
                || {
                    for (t, (y, x)) in y.chunks_mut(stride).zip(x.chunks(width)).enumerate() {
                        sums.fill(0.0);
                        add_product(&mut sums, x, m.values(), m.columns);
                        let first = rows.row(task * ROWS + t) * stride;
                        for (at, (y, sum)) in y.iter_mut().zip(&sums).enumerate() {
                            *y += mask.factor(first + at) * sum;
                        }
                    }
                },
            );
        });
}
