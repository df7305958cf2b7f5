//! Dropout and sums of whole rows, where the rows at hand may be some of a larger matrix.

use rayon::prelude::*;

use super::matrix::Matrix;
use super::simd::vectorized;
use crate::model::dropout::Mask;

/// Rows per task.
const ROWS: usize = 32;

/// Which rows of a larger matrix the rows of a smaller one are.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    /// The same.
    All,
    /// These.
    Some(&'a [u32]),
}

impl Rows<'_> {
    #[inline(always)]
    pub(super) fn row(&self, at: usize) -> usize {
        match self {
            Self::All => at,
            Self::Some(rows) => rows[at] as usize,
        }
    }
}

/// `x` with the values dropped that the mask drops; row t has the mask of row `rows[t]`.
pub(super) fn masked(x: &Matrix, mask: Mask, rows: Rows<'_>) -> Matrix {
    let width = x.columns;
    let mut y = Matrix::zeros(x.rows, width);
    let tasks = y.values_mut().par_chunks_mut(ROWS * width);
    tasks
        .zip(x.values().par_chunks(ROWS * width))
        .enumerate()
        .for_each(|(task, (y, x))| {
            vectorized(
                #[inline(always)]
                || {
                    for (t, (y, x)) in y.chunks_mut(width).zip(x.chunks(width)).enumerate() {
                        let first = rows.row(task * ROWS + t) * width;
                        for (at, (y, x)) in y.iter_mut().zip(x).enumerate() {
                            *y = mask.factor(first + at) * x;
                        }
                    }
                },
            );
        });
    y
}

/// Adds `x` onto `y` row by row: row t of `y` takes row `from[t]` of `x`. With a mask, the values of
/// `y` are dropped before; row t has the mask of row `rows[t]`.
pub(super) fn add_residual(
    y: &mut Matrix,
    (x, from): (&[f32], Rows<'_>),
    mask: Option<(Mask, Rows<'_>)>,
) {
    let width = y.columns;
    let tasks = y.values_mut().par_chunks_mut(ROWS * width);
    tasks.enumerate().for_each(|(task, y)| {
        vectorized(
            #[inline(always)]
            || {
                for (t, y) in y.chunks_mut(width).enumerate() {
                    let t = task * ROWS + t;
                    let x = &x[from.row(t) * width..][..width];
                    match mask {
                        Some((mask, rows)) => {
                            let first = rows.row(t) * width;
                            for (at, (y, x)) in y.iter_mut().zip(x).enumerate() {
                                *y = mask.factor(first + at) * *y + x;
                            }
                        }
                        None => {
                            for (y, x) in y.iter_mut().zip(x) {
                                *y += x;
                            }
                        }
                    }
                }
            },
        );
    });
}

/// Adds `row` onto every row of `y`.
pub(super) fn add_row(y: &mut Matrix, row: &[f32]) {
    let width = y.columns;
    let tasks = y.values_mut().par_chunks_mut(ROWS * width);
    tasks.for_each(|y| {
        for y in y.chunks_mut(width) {
            add(y, row);
        }
    });
}

/// `y[rows[t]] += x[t]`.
pub(super) fn add_to_rows(y: &mut [f32], x: &Matrix, rows: Rows<'_>) {
    let width = x.columns;
    match rows {
        Rows::All => {
            let tasks = y.par_chunks_mut(ROWS * width);
            let tasks = tasks.zip(x.values().par_chunks(ROWS * width));
            tasks.for_each(|(y, x)| add(y, x));
        }
        Rows::Some(rows) => {
            for (x, row) in x.values().chunks(width).zip(rows) {
                add(&mut y[*row as usize * width..][..width], x);
            }
        }
    }
}

fn add(y: &mut [f32], x: &[f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (y, x) in y.iter_mut().zip(x) {
                *y += x;
            }
        },
    );
}
