//! Sums over rows that do not depend on the number of threads: pieces of a fixed size, added in
//! order.

use rayon::prelude::*;

use super::matrix::Matrix;
use super::simd::vectorized;

/// Rows per partial sum.
const ROWS: usize = 256;

/// The sum of vectors `[width]`, added in order.
pub(super) fn in_order(
    parts: impl IndexedParallelIterator<Item = Vec<f32>>,
    width: usize,
) -> Vec<f32> {
    let parts: Vec<Vec<f32>> = parts.collect();
    let mut total = vec![0f32; width];
    for part in &parts {
        add(&mut total, part);
    }
    total
}

/// The sum of the rows.
pub(super) fn sum_of_rows(x: &Matrix) -> Vec<f32> {
    let width = x.columns;
    let parts = x.values().par_chunks(ROWS * width).map(|rows| {
        let mut sum = vec![0f32; width];
        vectorized(
            #[inline(always)]
            || {
                for row in rows.chunks(width) {
                    add(&mut sum, row);
                }
            },
        );
        sum
    });
    in_order(parts, width)
}

#[inline(always)]
fn add(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}
