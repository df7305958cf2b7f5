//! The parts of a block, of operations that all have a gradient (candle's fused norms and softmax
//! have none).

use candle_core::{D, Result, Tensor};

use crate::model::Mode;

const NORM_EPSILON: f64 = 1e-5;

/// Dropout in training, nothing otherwise.
pub(super) fn drop(x: &Tensor, p: f64, mode: &mut Mode<'_>) -> Result<Tensor> {
    match mode {
        Mode::Train(rng) => rng.dropout(x, p),
        Mode::Eval => Ok(x.clone()),
    }
}

/// `weight * (x - mean) / std + bias` over the last dimension.
pub(super) struct LayerNorm {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

impl LayerNorm {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centered.broadcast_div(&(variance + NORM_EPSILON)?.sqrt()?)?;
        normed
            .broadcast_mul(&self.weight)?
            .broadcast_add(&self.bias)
    }
}

/// Multi-head causal self-attention. Weights are `[out, in]`.
pub(super) struct Attention {
    pub(super) query: Tensor,
    pub(super) key: Tensor,
    pub(super) value: Tensor,
    pub(super) output: Tensor,
    pub(super) heads: usize,
}

impl Attention {
    pub(super) fn forward(&self, x: &Tensor, dropout: f64, mode: &mut Mode<'_>) -> Result<Tensor> {
        let (batch, length, width) = x.dims3()?;
        let split = |weight: &Tensor| {
            linear(x, weight)?
                .reshape((batch, length, self.heads, width / self.heads))?
                .transpose(1, 2)? // [batch, heads, length, head_dim]
                .contiguous()
        };
        let (query, key, value) = (split(&self.query)?, split(&self.key)?, split(&self.value)?);
        let scale = 1.0 / ((width / self.heads) as f64).sqrt();
        let scores = (query.matmul(&key.t()?)? * scale)?; // [batch, heads, length, length]
        let scores = scores.broadcast_add(&causal_mask(length, x)?)?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let mixed = drop(&weights, dropout, mode)?.matmul(&value)?;
        let mixed = mixed.transpose(1, 2)?.reshape((batch, length, width))?;
        linear(&mixed, &self.output)
    }
}

/// 0 where a position may look, minus infinity after it; `[length, length]`.
fn causal_mask(length: usize, like: &Tensor) -> Result<Tensor> {
    let mask: Vec<f32> = (0..length)
        .flat_map(|row| {
            (0..length).map(move |column| {
                if column <= row {
                    0.0
                } else {
                    f32::NEG_INFINITY
                }
            })
        })
        .collect();
    Tensor::from_vec(mask, (length, length), like.device())?.to_dtype(like.dtype())
}

/// Two linear layers with a ReLU between; weights `[out, in]` and biases.
pub(super) struct Mlp {
    pub(super) up: (Tensor, Tensor),
    pub(super) down: (Tensor, Tensor),
}

impl Mlp {
    pub(super) fn forward(&self, x: &Tensor, dropout: f64, mode: &mut Mode<'_>) -> Result<Tensor> {
        let inner = linear(x, &self.up.0)?.broadcast_add(&self.up.1)?.relu()?;
        let inner = drop(&inner, dropout, mode)?;
        linear(&inner, &self.down.0)?.broadcast_add(&self.down.1)
    }
}

/// `[B, S, in]` times `[out, in]` transposed, as one product of matrices.
fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (batch, length, width) = x.dims3()?;
    let flat = x.reshape((batch * length, width))?;
    flat.matmul(&weight.t()?)?
        .reshape((batch, length, weight.dim(0)?))
}
