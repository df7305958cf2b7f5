//! RMSNorm and LayerNorm with gradients.

use candle_core::{CpuStorage, CustomOp2, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::simd::{LANES, dot, sum, vectorized};
use super::sums::in_order;
use super::{cpu_slice, fused, with_slice};

/// Rows per task.
const ROWS: usize = 32;
/// Rows per partial sum of a gradient.
const SUMMED_ROWS: usize = 256;

/// `weight * x / sqrt(mean(x²) + eps)` over the last dimension of `x [tokens, H]`, `weight [H]`.
/// The weight's gradient is computed only when `trained`.
///
/// # Errors
/// Shapes that do not fit.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64, trained: bool) -> Result<Tensor> {
    if fused(x) {
        let norm = Norm {
            eps,
            centred: false,
        };
        x.contiguous()?.apply_op2(weight, NormOp { norm, trained })
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

/// `weight * (x - mean(x)) / sqrt(var(x) + eps) + bias` over the last dimension of `x [tokens, H]`,
/// `weight [H]`, `bias [H]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    if fused(x) {
        let norm = Norm { eps, centred: true };
        let weights = Tensor::cat(&[weight, bias], 0)?;
        let trained = weights.track_op();
        x.contiguous()?
            .apply_op2(&weights, NormOp { norm, trained })
    } else {
        layer_norm_slow(x, weight, bias, eps)
    }
}

/// The same in tensor operations that all have a gradient.
///
/// # Errors
/// Shapes that do not fit.
pub fn layer_norm_slow(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normed.broadcast_mul(weight)?.broadcast_add(bias)
}

/// How a row is brought to unit size: `(x - m) r`, with `r = 1 / sqrt(mean((x - m)²) + eps)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    pub(crate) eps: f64,
    /// Whether m is the mean of the row (LayerNorm) or 0 (RMSNorm).
    pub(crate) centred: bool,
}

impl Norm {
    /// m and r.
    #[inline(always)]
    fn of(self, row: &[f32]) -> (f32, f32) {
        let size = row.len() as f32;
        let mean = if self.centred { sum(row) / size } else { 0.0 };
        let square = if self.centred {
            squared_distance(row, mean)
        } else {
            dot(row, row)
        };
        (mean, (square / size + self.eps as f32).sqrt().recip())
    }

    /// The norm of each row of `x [tokens, H]`, times `w` and, if there is one, plus the bias.
    pub(super) fn rows(self, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let width = w.len();
        let mut y = vec![0f32; x.len()];
        let tasks = y.par_chunks_mut(ROWS * width);
        tasks.zip(x.par_chunks(ROWS * width)).for_each(|(y, x)| {
            vectorized(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_mut(width).zip(x.chunks(width)) {
                        let (mean, r) = self.of(x);
                        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                            *y = (x - mean) * r * w;
                        }
                        for (y, bias) in y.iter_mut().zip(bias.unwrap_or_default()) {
                            *y += bias;
                        }
                    }
                },
            );
        });
        y
    }

    /// Adds the gradient of [`Self::rows`] with respect to `x` onto `dx`. With `n = (x - m) r`:
    /// `dx = r (g w - n mean(g w n))`, less `r mean(g w)` where m is the mean.
    pub(super) fn add_gradient(self, dx: &mut [f32], x: &[f32], w: &[f32], g: &[f32]) {
        let width = w.len();
        let tasks = dx.par_chunks_mut(ROWS * width);
        tasks
            .zip(x.par_chunks(ROWS * width))
            .zip(g.par_chunks(ROWS * width))
            .for_each(|((dx, x), g)| {
                let (mut gw, mut n) = (vec![0f32; width], vec![0f32; width]);
                vectorized(
                    #[inline(always)]
                    || {
                        let rows = dx.chunks_mut(width).zip(x.chunks(width));
                        for ((dx, x), g) in rows.zip(g.chunks(width)) {
                            let (mean, r) = self.of(x);
                            for ((gw, g), w) in gw.iter_mut().zip(g).zip(w) {
                                *gw = g * w;
                            }
                            for (n, x) in n.iter_mut().zip(x) {
                                *n = (x - mean) * r;
                            }
                            let back = dot(&gw, &n) / width as f32;
                            let shift = if self.centred {
                                sum(&gw) / width as f32
                            } else {
                                0.0
                            };
                            for ((dx, gw), n) in dx.iter_mut().zip(&gw).zip(&n) {
                                *dx += r * (gw - shift - n * back);
                            }
                        }
                    },
                );
            });
    }

    /// The gradient of [`Self::rows`] with respect to `w`, `sum over tokens of g n`, and behind it,
    /// where m is the mean, that with respect to the bias, `sum over tokens of g`.
    pub(super) fn weight_gradient(self, x: &[f32], g: &[f32], width: usize) -> Vec<f32> {
        let size = if self.centred { 2 * width } else { width };
        let pieces = x.par_chunks(SUMMED_ROWS * width);
        let partial = pieces.zip(g.par_chunks(SUMMED_ROWS * width)).map(|(x, g)| {
            let mut sums = vec![0f32; size];
            let (dw, db) = sums.split_at_mut(width);
            vectorized(
                #[inline(always)]
                || {
                    for (x, g) in x.chunks(width).zip(g.chunks(width)) {
                        let (mean, r) = self.of(x);
                        for ((dw, x), g) in dw.iter_mut().zip(x).zip(g) {
                            *dw += g * (x - mean) * r;
                        }
                        for (db, g) in db.iter_mut().zip(g) {
                            *db += g;
                        }
                    }
                },
            );
            sums
        });
        in_order(partial, size)
    }
}

#[inline(always)]
fn squared_distance(row: &[f32], from: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest: f32 = (chunks.remainder().iter())
        .map(|x| (x - from) * (x - from))
        .sum();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += (x - from) * (x - from);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// A norm as an operation of `x [tokens, H]` and its weights: `w [H]`, and behind it the bias, if it
/// has one.
struct NormOp {
    norm: Norm,
    trained: bool,
}

impl CustomOp2 for NormOp {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weights) = (cpu_slice(x, x_layout)?, cpu_slice(w, w_layout)?);
        let width = x_layout.shape().dims2()?.1;
        let parts = if self.norm.centred { 2 } else { 1 };
        if parts * width != weights.len() {
            candle_core::bail!(
                "norm: input {:?}, weights [{}]",
                x_layout.shape(),
                weights.len()
            );
        }
        let (w, bias) = weights.split_at(width);
        let y = self.norm.rows(x, w, self.norm.centred.then_some(bias));
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let width = x.dim(1)?;
        let (dx, dw) = with_slice(x, |x| {
            with_slice(w, |w| {
                with_slice(grad, |g| {
                    let mut dx = vec![0f32; x.len()];
                    self.norm.add_gradient(&mut dx, x, &w[..width], g);
                    let dw = (self.trained).then(|| self.norm.weight_gradient(x, g, width));
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
