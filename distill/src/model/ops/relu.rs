//! `max(x, 0)` with dropout behind it.

use rayon::prelude::*;

use super::matrix::Matrix;
use super::rows::Rows;
use super::simd::vectorized;
use crate::model::dropout::Mask;

/// Rows per task.
const ROWS: usize = 32;

/// `mask * max(x, 0)`; row t has the mask of row `rows[t]`.
pub(super) fn relu(x: &Matrix, mask: Option<Mask>, rows: Rows<'_>) -> Matrix {
    let mut y = Matrix::zeros(x.rows, x.columns);
    each_row(&mut y, x, mask, rows, |_, x| if x > 0.0 { x } else { 0.0 });
    y
}

/// Gradient of [`relu`] with respect to `x`, in the place of that with respect to its result.
pub(super) fn relu_gradient(grad: &mut Matrix, x: &Matrix, mask: Option<Mask>, rows: Rows<'_>) {
    each_row(grad, x, mask, rows, |g, x| if x > 0.0 { g } else { 0.0 });
}

/// `y = mask * f(y, x)`.
#[inline(always)]
fn each_row(
    y: &mut Matrix,
    x: &Matrix,
    mask: Option<Mask>,
    rows: Rows<'_>,
    f: impl Fn(f32, f32) -> f32 + Sync,
) {
    let width = x.columns;
    let tasks = y.values_mut().par_chunks_mut(ROWS * width);
    tasks
        .zip(x.values().par_chunks(ROWS * width))
        .enumerate()
        .for_each(|(task, (y, x))| {
            vectorized(
                #[inline(always)]
                || {
                    for (t, (y, x)) in y.chunks_mut(width).zip(x.chunks(width)).enumerate() {
                        for (y, x) in y.iter_mut().zip(x) {
                            *y = f(*y, *x);
                        }
                        if let Some(mask) = mask {
                            let first = rows.row(task * ROWS + t) * width;
                            for (at, y) in y.iter_mut().enumerate() {
                                *y *= mask.factor(first + at);
                            }
                        }
                    }
                },
            );
        });
}
