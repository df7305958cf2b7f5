//! `silu(gate) * up`, where gate and up stand side by side as one product gave them.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::matrix::Matrix;
use super::simd::{sigmoid, vectorized};

/// Rows per task.
const ROWS: usize = 16;

/// `silu(gate) * up`, elementwise, in tensor operations.
///
/// # Errors
/// Shapes that differ.
pub fn swiglu_slow(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.silu()? * up
}

/// `silu(gate) * up [tokens, M]` of `gate | up [tokens, 2 M]`.
pub(super) fn swiglu(gate_up: &Matrix) -> Matrix {
    let width = gate_up.columns / 2;
    let mut y = Matrix::zeros(gate_up.rows, width);
    let tasks = y.values_mut().par_chunks_mut(ROWS * width);
    tasks
        .zip(gate_up.values().par_chunks(2 * ROWS * width))
        .for_each(|(y, gate_up)| {
            vectorized(
                #[inline(always)]
                || {
                    for (y, row) in y.chunks_mut(width).zip(gate_up.chunks(2 * width)) {
                        let (gate, up) = row.split_at(width);
                        for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
                            *y = gate * sigmoid(*gate) * up;
                        }
                    }
                },
            );
        });
    y
}

/// Gradient of [`swiglu`] with respect to `gate | up`.
pub(super) fn swiglu_gradient(gate_up: &Matrix, grad: &Matrix) -> Matrix {
    let width = grad.columns;
    let mut d = Matrix::zeros(grad.rows, 2 * width);
    let tasks = d.values_mut().par_chunks_mut(2 * ROWS * width);
    tasks
        .zip(gate_up.values().par_chunks(2 * ROWS * width))
        .zip(grad.values().par_chunks(ROWS * width))
        .for_each(|((d, gate_up), grad)| {
            vectorized(
                #[inline(always)]
                || {
                    let rows = d.chunks_mut(2 * width).zip(gate_up.chunks(2 * width));
                    for ((d, row), grad) in rows.zip(grad.chunks(width)) {
                        let (gate, up) = row.split_at(width);
                        let (d_gate, d_up) = d.split_at_mut(width);
                        let d = d_gate.iter_mut().zip(d_up.iter_mut());
                        for ((d_gate, d_up), ((gate, up), grad)) in
                            d.zip(gate.iter().zip(up).zip(grad))
                        {
                            let s = sigmoid(*gate);
                            *d_up = grad * gate * s;
                            *d_gate = grad * up * s * (1.0 + gate * (1.0 - s));
                        }
                    }
                },
            );
        });
    d
}
