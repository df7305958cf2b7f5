//! The layer's forward and backward pass.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Tensor};

use super::{Activation, Gain, LayerRun, LayerWeights, ValueMasks};
use crate::model::dropout::Mask;
use crate::model::ops::attention::WeightMask;
use crate::model::ops::attention::kernel::Attention;
use crate::model::ops::cpu_slice;
use crate::model::ops::matrix::{Matrix, View, with_buffer};
use crate::model::ops::product::{Input, Product};
use crate::model::ops::relu::{relu, relu_gradient};
use crate::model::ops::rows::{Rows, add_residual, add_to_rows, masked};
use crate::model::ops::swiglu::{swiglu, swiglu_gradient};
use crate::model::ops::theta::Theta;

pub(super) struct LayerOp {
    weights: Arc<LayerWeights>,
    run: LayerRun,
    keep: bool,
    kept: Mutex<Option<Inner>>,
}

/// What the backward pass needs beside the input.
struct Inner {
    /// Queries `[reads, query * dim]`, rotated.
    q: Matrix,
    /// Keys, rotated, and values `[tokens, 2 * key_value * dim]`.
    kv: Matrix,
    /// Attention's result `[reads, query * dim]`.
    attended: Matrix,
    /// The residual stream after attention `[reads, H]`.
    h: Matrix,
    /// What the first product of the MLP gave, `[reads, M]`, or `[reads, 2 * M]` with a gate.
    up: Matrix,
    /// What the adapters' first matrices gave, by product.
    lows: [Vec<Matrix>; 5],
}

impl LayerOp {
    pub(super) fn new(weights: Arc<LayerWeights>, run: LayerRun, train: bool) -> Self {
        Self {
            weights,
            keep: train && !run.recompute,
            run,
            kept: Mutex::new(None),
        }
    }

    fn rows(&self) -> Rows<'_> {
        match &self.run.reads {
            Some(rows) => Rows::Some(rows),
            None => Rows::All,
        }
    }

    fn attention(&self) -> Attention<'_> {
        let (heads, segments) = (self.weights.heads, &self.run.segments);
        Attention {
            heads,
            segments,
            rope: self.weights.rope.as_ref(),
            dropout: (self.run.dropout.of_values())
                .map(|masks| WeightMask::new(masks.weights, heads.query, segments)),
            queries: self.rows(),
        }
    }

    /// A mask of the values that are read.
    fn mask(&self, which: impl Fn(ValueMasks) -> Mask) -> Option<Mask> {
        self.run.dropout.of_values().map(which)
    }

    /// An input of a product as its adapters see it.
    fn input<'a>(&self, x: &'a Matrix, product: usize, rows: Rows<'a>) -> Input<'a> {
        let mask = self.run.dropout.of_adapters(product);
        Input {
            x,
            dropped: mask.map(|mask| (masked(x, mask, rows), mask, rows)),
        }
    }

    fn norm(&self, which: usize, x: &[f32], theta: Theta<'_>) -> Result<Matrix> {
        let weights = &self.weights.norms[which];
        let bias = match weights.bias {
            Some(span) => Some(theta.view(span)?.values()),
            None => None,
        };
        self.with_gain(which, theta, |w| {
            Ok(Matrix::new(weights.norm.rows(x, w, bias), w.len()))
        })
    }

    fn with_gain<T>(
        &self,
        which: usize,
        theta: Theta<'_>,
        f: impl FnOnce(&[f32]) -> Result<T>,
    ) -> Result<T> {
        match &self.weights.norms[which].gain {
            Gain::Frozen(w) => with_buffer(w, |storage, start| {
                f(View::new(storage, start, 1, w.elem_count())?.values())
            }),
            Gain::Trained(span) => f(theta.view(*span)?.values()),
        }
    }

    /// What the MLP has between its products.
    fn activate(&self, up: &Matrix) -> Matrix {
        match self.weights.activation {
            Activation::SwiGlu => swiglu(up),
            Activation::Relu => relu(up, self.mask(|masks| masks.inner), self.rows()),
        }
    }

    fn activation_gradient(&self, up: &Matrix, mut grad: Matrix) -> Matrix {
        match self.weights.activation {
            Activation::SwiGlu => swiglu_gradient(up, &grad),
            Activation::Relu => {
                let mask = self.mask(|masks| masks.inner);
                relu_gradient(&mut grad, up, mask, self.rows());
                grad
            }
        }
    }

    /// Everything up to the MLP's last product, which only the output needs.
    fn inner(&self, x: &[f32], theta: Theta<'_>) -> Result<(Inner, Matrix)> {
        let weights = &self.weights;
        let n1 = self.norm(0, x, theta)?;
        let (mut q, q_lows) = match &self.run.reads {
            Some(rows) => {
                let n1 = n1.gather(rows);
                (weights.query).forward(&self.input(&n1, 0, self.rows()), theta)?
            }
            None => (weights.query).forward(&self.input(&n1, 0, Rows::All), theta)?,
        };
        let input = self.input(&n1, 0, Rows::All);
        let (mut kv, kv_lows) = weights.key_value.forward(&input, theta)?;
        drop(input);
        let attention = self.attention();
        attention.rotate_queries(&mut q, 1.0);
        attention.rotate_keys(&mut kv, 1.0);
        let attended = attention.forward(&q, &kv);
        let input = self.input(&attended, 1, self.rows());
        let (mut h, o_lows) = weights.output.forward(&input, theta)?;
        drop(input);
        let mask = self.mask(|masks| masks.attention);
        add_residual(&mut h, (x, self.rows()), mask.map(|m| (m, self.rows())));
        let n2 = self.norm(1, h.values(), theta)?;
        let (up, up_lows) = (weights.up).forward(&self.input(&n2, 2, self.rows()), theta)?;
        let active = self.activate(&up);
        let down_lows = (weights.down).lows(&self.input(&active, 3, self.rows()), theta)?;
        let inner = Inner {
            q,
            kv,
            attended,
            h,
            up,
            lows: [q_lows, kv_lows, o_lows, up_lows, down_lows],
        };
        Ok((inner, active))
    }

    fn forward(&self, x: &[f32], theta: Theta<'_>) -> Result<Matrix> {
        let (inner, active) = self.inner(x, theta)?;
        let mut y = self.weights.down.apply(&active, &inner.lows[4], theta)?;
        let mask = self.mask(|masks| masks.mlp);
        let h = (inner.h.values(), Rows::All);
        add_residual(&mut y, h, mask.map(|mask| (mask, self.rows())));
        if self.keep {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(inner);
        }
        Ok(y)
    }

    /// Gradients with respect to `x` and to the trainable values.
    fn backward(
        &self,
        x: &[f32],
        theta: Theta<'_>,
        grad: Matrix,
        theta_len: usize,
    ) -> Result<(Matrix, Vec<f32>)> {
        let kept = (self.kept.lock().unwrap_or_else(PoisonError::into_inner)).take();
        let inner = match kept {
            Some(inner) => inner,
            None => self.inner(x, theta)?.0,
        };
        let mut d_theta = vec![0f32; theta_len];
        let dh = self.mlp_backward(&inner, theta, grad, &mut d_theta)?;
        let dx = self.attention_backward(&inner, x, theta, dh, &mut d_theta)?;
        Ok((dx, d_theta))
    }

    /// Backward through the product at the end of a branch, whose result is dropped out by `mask`.
    fn branch_backward(
        &self,
        product: (&Product, &Input<'_>, &[Matrix]),
        mask: Option<Mask>,
        grad: &Matrix,
        theta: Theta<'_>,
        d_theta: &mut [f32],
    ) -> Result<Matrix> {
        let (product, input, lows) = product;
        match mask {
            Some(mask) => {
                let grad = masked(grad, mask, self.rows());
                product.backward(&grad, input, lows, theta, d_theta)
            }
            None => product.backward(grad, input, lows, theta, d_theta),
        }
    }

    /// From the gradient of the layer's output to that of the residual stream after attention.
    fn mlp_backward(
        &self,
        inner: &Inner,
        theta: Theta<'_>,
        mut grad: Matrix,
        d_theta: &mut [f32],
    ) -> Result<Matrix> {
        let weights = &self.weights;
        let active = self.activate(&inner.up);
        let input = self.input(&active, 3, self.rows());
        let down = (&weights.down, &input, inner.lows[4].as_slice());
        let mask = self.mask(|masks| masks.mlp);
        let d_active = self.branch_backward(down, mask, &grad, theta, d_theta)?;
        drop(input);
        let d_up = self.activation_gradient(&inner.up, d_active);
        drop(active);
        let n2 = self.norm(1, inner.h.values(), theta)?;
        let input = self.input(&n2, 2, self.rows());
        let dn2 = (weights.up).backward(&d_up, &input, &inner.lows[3], theta, d_theta)?;
        self.norm_backward(1, inner.h.values(), theta, &dn2, grad.values_mut(), d_theta)?;
        Ok(grad)
    }

    fn attention_backward(
        &self,
        inner: &Inner,
        x: &[f32],
        theta: Theta<'_>,
        dh: Matrix,
        d_theta: &mut [f32],
    ) -> Result<Matrix> {
        let weights = &self.weights;
        let input = self.input(&inner.attended, 1, self.rows());
        let output = (&weights.output, &input, inner.lows[2].as_slice());
        let mask = self.mask(|masks| masks.attention);
        let d_attended = self.branch_backward(output, mask, &dh, theta, d_theta)?;
        drop(input);
        let attention = self.attention();
        let (mut dq, mut dkv) = attention.backward(&inner.q, &inner.kv, &d_attended);
        drop(d_attended);
        attention.rotate_queries(&mut dq, -1.0);
        attention.rotate_keys(&mut dkv, -1.0);
        let n1 = self.norm(0, x, theta)?;
        let input = self.input(&n1, 0, Rows::All);
        let mut dn1 = (weights.key_value).backward(&dkv, &input, &inner.lows[1], theta, d_theta)?;
        drop((input, dkv));
        let read = self.run.reads.as_ref().map(|rows| n1.gather(rows));
        let input = self.input(read.as_ref().unwrap_or(&n1), 0, self.rows());
        let d = (weights.query).backward(&dq, &input, &inner.lows[0], theta, d_theta)?;
        add_to_rows(dn1.values_mut(), &d, self.rows());
        drop(d);
        let mut dx = match &self.run.reads {
            Some(_) => {
                let mut dx = vec![0f32; x.len()];
                add_to_rows(&mut dx, &dh, self.rows());
                Matrix::new(dx, n1.columns)
            }
            None => dh,
        };
        self.norm_backward(0, x, theta, &dn1, dx.values_mut(), d_theta)?;
        Ok(dx)
    }

    /// Adds the gradient through a norm onto `dx`.
    fn norm_backward(
        &self,
        which: usize,
        x: &[f32],
        theta: Theta<'_>,
        grad: &Matrix,
        dx: &mut [f32],
        d_theta: &mut [f32],
    ) -> Result<()> {
        let weights = &self.weights.norms[which];
        self.with_gain(which, theta, |w| {
            weights.norm.add_gradient(dx, x, w, grad.values());
            Ok(())
        })?;
        if let Gain::Trained(span) = &weights.gain {
            let width = grad.columns;
            let dw = weights.norm.weight_gradient(x, grad.values(), width);
            d_theta[span.range()].copy_from_slice(&dw[..width]);
            if let Some(bias) = weights.bias {
                d_theta[bias.range()].copy_from_slice(&dw[width..]);
            }
        }
        Ok(())
    }
}

impl CustomOp2 for LayerOp {
    fn name(&self) -> &'static str {
        "layer"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        theta: &CpuStorage,
        theta_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let theta = Theta::new(theta, theta_layout.start_offset());
        let y = self.forward(cpu_slice(x, x_layout)?, theta)?;
        let shape = (y.rows, y.columns).into();
        Ok((CpuStorage::F32(y.into_values()), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        theta: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, width) = grad.dims2()?;
        let grad = Matrix::new(grad.flatten_all()?.to_vec1()?, width);
        let theta_len = theta.elem_count();
        let (dx, d_theta) = with_buffer(x, |xs, start| {
            let x = View::new(xs, start, x.dim(0)?, width)?.values();
            with_buffer(theta, |theta, start| {
                self.backward(x, Theta::new(theta, start), grad, theta_len)
            })
        })?;
        let dx = dx.tensor(&Device::Cpu)?;
        let d_theta = match self.weights.trained.as_slice() {
            [] => None,
            _ => Some(Tensor::from_vec(d_theta, theta_len, &Device::Cpu)?),
        };
        Ok((Some(dx), d_theta))
    }
}
