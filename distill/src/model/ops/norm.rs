//! RMSNorm with a gradient.

use candle_core::{CpuStorage, CustomOp2, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::simd::{dot, vectorized};
use super::{cpu_slice, fused, with_slice};

/// Rows per task.
const ROWS: usize = 32;

/// `weight * x / sqrt(mean(x²) + eps)` over the last dimension of `x [tokens, H]`, `weight [H]`.
/// The weight's gradient is computed only when `trained`.
///
/// # Errors
/// Shapes that do not fit.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64, trained: bool) -> Result<Tensor> {
    if fused(x) {
        x.contiguous()?.apply_op2(weight, RmsNorm { eps, trained })
    } else {
        rms_norm_slow(x, weight, eps)
    }
}

/// The same in tensor operations, computed in f32 whatever the number format of `x`.
///
/// # Errors
/// Shapes that do not fit.
pub fn rms_norm_slow(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let dtype = x.dtype();
    let (x, weight) = (x.to_dtype(DType::F32)?, weight.to_dtype(DType::F32)?);
    let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    let y = x.broadcast_div(&scale)?.broadcast_mul(&weight)?;
    y.to_dtype(dtype)
}

#[inline(always)]
fn inverse_rms(row: &[f32], eps: f64) -> f32 {
    let mean = dot(row, row) / row.len() as f32;
    (mean + eps as f32).sqrt().recip()
}

/// The norm of each row of `x [tokens, H]`.
pub(super) fn norm_rows(x: &[f32], w: &[f32], eps: f64) -> Vec<f32> {
    let width = w.len();
    let mut y = vec![0f32; x.len()];
    let tasks = y.par_chunks_mut(ROWS * width);
    tasks.zip(x.par_chunks(ROWS * width)).for_each(|(y, x)| {
        vectorized(
            #[inline(always)]
            || {
                for (y, x) in y.chunks_mut(width).zip(x.chunks(width)) {
                    let inverse = inverse_rms(x, eps);
                    for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                        *y = x * inverse * w;
                    }
                }
            },
        );
    });
    y
}

/// Adds the gradient of [`norm_rows`] with respect to `x` onto `dx`. With r = 1 / rms:
/// `dx = r (g w) - x r³ / H * sum(g w x)`.
pub(super) fn add_norm_gradient(dx: &mut [f32], x: &[f32], w: &[f32], g: &[f32], eps: f64) {
    let width = w.len();
    let tasks = dx.par_chunks_mut(ROWS * width);
    tasks
        .zip(x.par_chunks(ROWS * width))
        .zip(g.par_chunks(ROWS * width))
        .for_each(|((dx, x), g)| {
            let mut gw = vec![0f32; width];
            vectorized(
                #[inline(always)]
                || {
                    let rows = dx.chunks_mut(width).zip(x.chunks(width));
                    for ((dx, x), g) in rows.zip(g.chunks(width)) {
                        let r = inverse_rms(x, eps);
                        for ((gw, g), w) in gw.iter_mut().zip(g).zip(w) {
                            *gw = g * w;
                        }
                        let back = dot(&gw, x) * r * r * r / width as f32;
                        for ((dx, gw), x) in dx.iter_mut().zip(&gw).zip(x) {
                            *dx += gw * r - x * back;
                        }
                    }
                },
            );
        });
}

/// The gradient of [`norm_rows`] with respect to the weight: `sum over tokens of g x r`.
pub(super) fn norm_weight_gradient(x: &[f32], g: &[f32], width: usize, eps: f64) -> Vec<f32> {
    let mut dw = vec![0f32; width];
    vectorized(
        #[inline(always)]
        || {
            for (x, g) in x.chunks(width).zip(g.chunks(width)) {
                let r = inverse_rms(x, eps);
                for ((d, x), g) in dw.iter_mut().zip(x).zip(g) {
                    *d += g * x * r;
                }
            }
        },
    );
    dw
}

struct RmsNorm {
    eps: f64,
    trained: bool,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (cpu_slice(x, x_layout)?, cpu_slice(w, w_layout)?);
        if x_layout.shape().dims2()?.1 != w.len() {
            candle_core::bail!(
                "rms-norm: input {:?}, weight [{}]",
                x_layout.shape(),
                w.len()
            );
        }
        let y = norm_rows(x, w, self.eps);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = with_slice(x, |x| {
            with_slice(w, |w| {
                with_slice(grad, |g| {
                    let mut dx = vec![0f32; x.len()];
                    add_norm_gradient(&mut dx, x, w, g, self.eps);
                    let dw = (self.trained).then(|| norm_weight_gradient(x, g, w.len(), self.eps));
                    Ok((dx, dw))
                })
            })
        })?;
        let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
        let dw = match dw {
            Some(dw) => Some(Tensor::from_vec(dw, w.shape(), w.device())?),
            None => None,
        };
        Ok((Some(dx), dw))
    }
}
