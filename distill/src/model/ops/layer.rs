//! A decoder layer as one differentiable operation, for f32 in CPU memory.
//!
//! ```text
//! h = x + o(attention(q(n1), k(n1), v(n1)))      n1 = norm(x)
//! y = h + down(silu(gate(n2)) * up(n2))          n2 = norm(h)
//! ```
//! One operation instead of some forty keeps no more than the backward pass needs, adds gradients in
//! place, and can leave out what nobody reads: queries, attention and MLP run for the tokens whose
//! output is read, keys and values for all. Trainable values of a layer come as one flat vector, so
//! that candle sees two arguments and hands the parameters their gradients by itself.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor};

use super::attention::kernel::Attention;
use super::attention::{Heads, Rope, Segments};
use super::cpu_slice;
use super::low_rank::{Rows, masked};
use super::matrix::{Matrix, View, gather, with_buffer};
use super::norm::{add_norm_gradient, norm_rows, norm_weight_gradient};
use super::product::{Input, Product, Span, Theta};
use super::simd::add_scaled;
use super::swiglu::{swiglu, swiglu_gradient};
use crate::model::dropout::Mask;

/// The gain of a norm `[H]`.
#[derive(Clone, Debug)]
pub(crate) enum Gain {
    /// Not trained.
    Frozen(Tensor),
    /// Among the layer's trainable values.
    Trained(Span),
}

/// What a layer consists of, however often it runs.
#[derive(Debug)]
pub(crate) struct LayerWeights {
    /// Input norm and norm before the MLP.
    pub(crate) gains: [Gain; 2],
    pub(crate) eps: f64,
    pub(crate) heads: Heads,
    pub(crate) rope: Rope,
    pub(crate) query: Product,
    /// Keys, then values.
    pub(crate) key_value: Product,
    pub(crate) output: Product,
    /// Gate, then up.
    pub(crate) gate_up: Product,
    pub(crate) down: Product,
    /// The trainable tensors, in the order of their spans.
    pub(crate) trained: Vec<Tensor>,
}

/// What one run of a layer needs besides.
pub(crate) struct LayerRun {
    pub(crate) segments: Arc<Segments>,
    /// The tokens whose output is read, ascending; `None` for all.
    pub(crate) reads: Option<Arc<Vec<u32>>>,
    /// Masks of the adapters' inputs: of query, key and value; output; gate and up; down.
    pub(crate) masks: Option<[Mask; 4]>,
    /// Whether the backward pass computes the inner values again instead of keeping them.
    pub(crate) recompute: bool,
}

impl LayerWeights {
    /// Runs the layer on `x [tokens, H]`. Gives a row for each token that is read.
    ///
    /// # Errors
    /// Shapes that do not fit, or more positions than are prepared.
    pub(crate) fn run(self: &Arc<Self>, x: &Tensor, run: LayerRun, train: bool) -> Result<Tensor> {
        let tokens = run.segments.tokens();
        let (rows, _) = x.dims2()?;
        if rows != tokens {
            candle_core::bail!("a layer got {rows} rows for {tokens} tokens");
        }
        if run.segments.longest() > self.rope.positions() {
            candle_core::bail!(
                "{} positions asked for, {} prepared",
                run.segments.longest(),
                self.rope.positions()
            );
        }
        let flat: Vec<Tensor> = (self.trained.iter())
            .map(Tensor::flatten_all)
            .collect::<Result<_>>()?;
        let theta = match flat.as_slice() {
            [] => Tensor::zeros(1, DType::F32, x.device())?,
            flat => Tensor::cat(flat, 0)?,
        };
        let (x, theta) = if train {
            (x.contiguous()?, theta)
        } else {
            (x.detach().contiguous()?, theta.detach())
        };
        let op = LayerOp {
            weights: self.clone(),
            keep: train && !run.recompute,
            run,
            kept: Mutex::new(None),
        };
        x.apply_op2(&theta, op)
    }
}

struct LayerOp {
    weights: Arc<LayerWeights>,
    run: LayerRun,
    keep: bool,
    kept: Mutex<Option<Inner>>,
}

/// What the backward pass needs beside the input.
struct Inner {
    /// Rotated queries `[reads, query * dim]`.
    q: Matrix,
    /// Rotated keys, and values, `[tokens, 2 * key_value * dim]`.
    kv: Matrix,
    /// Attention's result `[reads, query * dim]`.
    attended: Matrix,
    /// The residual stream after attention `[reads, H]`.
    h: Matrix,
    /// `[reads, 2 * M]`
    gate_up: Matrix,
    /// What the adapters' first matrices gave, by product.
    lows: [Vec<Matrix>; 5],
}

impl LayerOp {
    fn rows(&self) -> Rows<'_> {
        match &self.run.reads {
            Some(rows) => Rows::Some(rows),
            None => Rows::All,
        }
    }

    fn attention(&self) -> Attention<'_> {
        Attention {
            heads: self.weights.heads,
            segments: &self.run.segments,
            rope: &self.weights.rope,
            queries: self.rows(),
        }
    }

    fn mask(&self, product: usize) -> Option<Mask> {
        self.run.masks.map(|masks| masks[product])
    }

    /// An input of a product as its adapters see it.
    fn input<'a>(&self, x: &'a Matrix, product: usize, rows: Rows<'a>) -> Input<'a> {
        let mask = self.mask(product);
        Input {
            x,
            dropped: mask.map(|mask| (masked(x, mask, rows), mask, rows)),
        }
    }

    /// Rows that are read of `x`.
    fn read(&self, x: &[f32], columns: usize) -> Matrix {
        match &self.run.reads {
            Some(rows) => gather(x, columns, rows),
            None => Matrix::new(x.to_vec(), columns),
        }
    }

    fn norm(&self, which: usize, x: &[f32], theta: Theta<'_>) -> Result<Matrix> {
        let eps = self.weights.eps;
        self.with_gain(which, theta, |w| {
            Ok(Matrix::new(norm_rows(x, w, eps), w.len()))
        })
    }

    fn with_gain<T>(
        &self,
        which: usize,
        theta: Theta<'_>,
        f: impl FnOnce(&[f32]) -> Result<T>,
    ) -> Result<T> {
        match &self.weights.gains[which] {
            Gain::Frozen(w) => with_buffer(w, |storage, start| {
                f(View::new(storage, start, 1, w.elem_count())?.values())
            }),
            Gain::Trained(span) => f(theta.view(*span)?.values()),
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
            None => weights
                .query
                .forward(&self.input(&n1, 0, Rows::All), theta)?,
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
        match &self.run.reads {
            Some(rows) => {
                let columns = h.columns;
                for (h, row) in h.values_mut().chunks_mut(columns).zip(rows.iter()) {
                    add_scaled(h, &x[*row as usize * columns..][..columns], 1.0);
                }
            }
            None => add_scaled(h.values_mut(), x, 1.0),
        }
        let n2 = self.norm(1, h.values(), theta)?;
        let (gate_up, gate_up_lows) =
            (weights.gate_up).forward(&self.input(&n2, 2, self.rows()), theta)?;
        let active = swiglu(&gate_up);
        let down_lows = (weights.down).lows(&self.input(&active, 3, self.rows()), theta)?;
        let inner = Inner {
            q,
            kv,
            attended,
            h,
            gate_up,
            lows: [q_lows, kv_lows, o_lows, gate_up_lows, down_lows],
        };
        Ok((inner, active))
    }

    fn forward(&self, x: &[f32], theta: Theta<'_>) -> Result<Matrix> {
        let (inner, active) = self.inner(x, theta)?;
        let mut y = self.weights.down.apply(&active, &inner.lows[4], theta)?;
        add_scaled(y.values_mut(), inner.h.values(), 1.0);
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

    /// From the gradient of the layer's output to that of the residual stream after attention.
    fn mlp_backward(
        &self,
        inner: &Inner,
        theta: Theta<'_>,
        mut grad: Matrix,
        d_theta: &mut [f32],
    ) -> Result<Matrix> {
        let weights = &self.weights;
        let active = swiglu(&inner.gate_up);
        let input = self.input(&active, 3, self.rows());
        let d_active = (weights.down).backward(&grad, &input, &inner.lows[4], theta, d_theta)?;
        drop(input);
        let d_gate_up = swiglu_gradient(&inner.gate_up, &d_active);
        drop((active, d_active));
        let n2 = self.norm(1, inner.h.values(), theta)?;
        let input = self.input(&n2, 2, self.rows());
        let dn2 = (weights.gate_up).backward(&d_gate_up, &input, &inner.lows[3], theta, d_theta)?;
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
        let d_attended = (weights.output).backward(&dh, &input, &inner.lows[2], theta, d_theta)?;
        drop(input);
        let attention = self.attention();
        let (mut dq, mut dkv) = attention.backward(&inner.q, &inner.kv, &d_attended);
        drop(d_attended);
        attention.rotate_queries(&mut dq, -1.0);
        attention.rotate_keys(&mut dkv, -1.0);
        let n1 = self.norm(0, x, theta)?;
        let input = self.input(&n1, 0, Rows::All);
        let mut dn1 = (weights.key_value).backward(&dkv, &input, &inner.lows[1], theta, d_theta)?;
        let width = n1.columns;
        let mut dx = vec![0f32; x.len()];
        match &self.run.reads {
            Some(rows) => {
                let read = self.read(n1.values(), width);
                let input = self.input(&read, 0, self.rows());
                let d = (weights.query).backward(&dq, &input, &inner.lows[0], theta, d_theta)?;
                add_rows(dn1.values_mut(), d.values(), rows, width);
                add_rows(&mut dx, dh.values(), rows, width);
            }
            None => {
                let d = (weights.query).backward(&dq, &input, &inner.lows[0], theta, d_theta)?;
                add_scaled(dn1.values_mut(), d.values(), 1.0);
                dx.copy_from_slice(dh.values());
            }
        }
        self.norm_backward(0, x, theta, &dn1, &mut dx, d_theta)?;
        Ok(Matrix::new(dx, width))
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
        let eps = self.weights.eps;
        self.with_gain(which, theta, |w| {
            add_norm_gradient(dx, x, w, grad.values(), eps);
            Ok(())
        })?;
        if let Gain::Trained(span) = &self.weights.gains[which] {
            let dw = norm_weight_gradient(x, grad.values(), grad.columns, eps);
            d_theta[span.range()].copy_from_slice(&dw);
        }
        Ok(())
    }
}

/// `y[rows[i]] += x[i]`.
fn add_rows(y: &mut [f32], x: &[f32], rows: &[u32], width: usize) {
    for (x, row) in x.chunks(width).zip(rows) {
        add_scaled(&mut y[*row as usize * width..][..width], x, 1.0);
    }
}

impl CustomOp2 for LayerOp {
    fn name(&self) -> &'static str {
        "decoder-layer"
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
