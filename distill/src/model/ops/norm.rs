//! RMSNorm with a gradient.

use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{cpu_slice, fused, with_slice};

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

/// The same in tensor operations.
///
/// # Errors
/// Shapes that do not fit.
pub fn rms_norm_slow(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    x.broadcast_div(&scale)?.broadcast_mul(weight)
}

struct RmsNorm {
    eps: f64,
    trained: bool,
}

impl RmsNorm {
    fn inverse_rms(&self, row: &[f32]) -> f32 {
        let mean = super::dot(row, row) / row.len() as f32;
        (mean + self.eps as f32).sqrt().recip()
    }
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
        let mut y = vec![0f32; x.len()];
        (y.par_chunks_mut(w.len()).zip(x.par_chunks(w.len())))
            .with_min_len(16)
            .for_each(|(y, x)| {
                let inverse = self.inverse_rms(x);
                for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                    *y = x * inverse * w;
                }
            });
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = with_slice(x, |xs| {
            with_slice(w, |ws| with_slice(grad, |g| Ok(self.gradients(xs, ws, g))))
        })?;
        let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
        let dw = match dw {
            Some(dw) => Some(Tensor::from_vec(dw, w.shape(), w.device())?),
            None => None,
        };
        Ok((Some(dx), dw))
    }
}

impl RmsNorm {
    /// With r = 1 / rms: `dx = r (g w) - x r³ / H * sum(g w x)` and `dw = sum over tokens of g x r`.
    fn gradients(&self, x: &[f32], w: &[f32], g: &[f32]) -> (Vec<f32>, Option<Vec<f32>>) {
        let width = w.len();
        let mut dx = vec![0f32; x.len()];
        (dx.par_chunks_mut(width)
            .zip(x.par_chunks(width))
            .zip(g.par_chunks(width)))
        .with_min_len(16)
        .for_each(|((dx, x), g)| {
            let r = self.inverse_rms(x);
            for ((d, g), w) in dx.iter_mut().zip(g).zip(w) {
                *d = g * w;
            }
            let back = super::dot(dx, x) * r * r * r / width as f32;
            for (d, x) in dx.iter_mut().zip(x) {
                *d = *d * r - x * back;
            }
        });
        let dw = self.trained.then(|| {
            let mut dw = vec![0f32; width];
            for (x, g) in x.chunks(width).zip(g.chunks(width)) {
                let r = self.inverse_rms(x);
                for ((d, x), g) in dw.iter_mut().zip(x).zip(g) {
                    *d += g * x * r;
                }
            }
            dw
        });
        (dx, dw)
    }
}
