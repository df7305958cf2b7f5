//! A transformer layer as one differentiable operation, for f32 in CPU memory.
//!
//! ```text
//! h = x + o(attention(q(n1), k(n1), v(n1)))      n1 = norm(x)
//! y = h + down(active(up(n2)))                   n2 = norm(h)
//! ```
//! Norms are RMSNorms or LayerNorms; queries and keys are rotated or not; the MLP is a SwiGLU or has
//! a ReLU; dropout is that of adapters or of the values themselves. So it is a Llama's layer and a
//! SASRec's.
//!
//! One operation instead of some forty keeps no more than the backward pass needs, adds gradients in
//! place, and can leave out what nobody reads: queries, attention and MLP run for the tokens whose
//! output is read, keys and values for all. Trainable values of a layer come as one flat vector, so
//! that candle sees two arguments and hands the parameters their gradients by itself.

mod op;

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::attention::{Heads, Rope, Segments};
use super::norm::Norm;
use super::product::Product;
use super::theta::Span;
use crate::model::dropout::Mask;
use op::LayerOp;

/// The gain of a norm `[H]`.
#[derive(Clone, Debug)]
pub(crate) enum Gain {
    /// Not trained.
    Frozen(Tensor),
    /// Among the layer's trainable values.
    Trained(Span),
}

/// One of a layer's norms.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    pub(crate) norm: Norm,
    pub(crate) gain: Gain,
    /// `[H]`; a norm that has one is trained.
    pub(crate) bias: Option<Span>,
}

/// What stands between the products of the MLP.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Activation {
    /// `silu(gate) * up` of `gate | up`.
    SwiGlu,
    /// `max(up, 0)`.
    Relu,
}

/// What a layer consists of, however often it runs.
#[derive(Debug)]
pub(crate) struct LayerWeights {
    /// Before attention and before the MLP.
    pub(crate) norms: [LayerNorm; 2],
    pub(crate) heads: Heads,
    pub(crate) rope: Option<Rope>,
    pub(crate) query: Product,
    /// Keys, then values.
    pub(crate) key_value: Product,
    pub(crate) output: Product,
    /// Up, or gate, then up.
    pub(crate) up: Product,
    pub(crate) activation: Activation,
    pub(crate) down: Product,
    /// The trainable tensors, in the order of their spans.
    pub(crate) trained: Vec<Tensor>,
}

/// What is dropped in one run of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dropout {
    /// Nothing.
    None,
    /// Of what the adapters see: inputs of query, key and value; output; gate and up; down.
    Adapters([Mask; 4]),
    /// Of the values themselves.
    Values(ValueMasks),
}

/// Masks of a layer's values. Masks count packed tokens, whichever are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueMasks {
    /// Attention weights, counted as [`super::attention::WeightMask`] says.
    pub(crate) weights: Mask,
    /// What attention adds to the residual stream `[tokens, H]`.
    pub(crate) attention: Mask,
    /// What the MLP has between its products `[tokens, M]`.
    pub(crate) inner: Mask,
    /// What the MLP adds to the residual stream `[tokens, H]`.
    pub(crate) mlp: Mask,
}

/// What one run of a layer needs besides.
pub(crate) struct LayerRun {
    pub(crate) segments: Arc<Segments>,
    /// The tokens whose output is read, ascending; `None` for all.
    pub(crate) reads: Option<Arc<Vec<u32>>>,
    pub(crate) dropout: Dropout,
    /// Whether the backward pass computes the inner values again instead of keeping them.
    pub(crate) recompute: bool,
}

impl Dropout {
    /// The mask of the adapters of a product, by the order of [`Dropout::Adapters`].
    fn of_adapters(self, product: usize) -> Option<Mask> {
        match self {
            Self::Adapters(masks) => Some(masks[product]),
            Self::None | Self::Values(_) => None,
        }
    }

    fn of_values(self) -> Option<ValueMasks> {
        match self {
            Self::Values(masks) => Some(masks),
            Self::None | Self::Adapters(_) => None,
        }
    }
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
        let longest = run.segments.longest();
        if let Some(rope) = &self.rope
            && longest > rope.positions()
        {
            candle_core::bail!(
                "{longest} positions asked for, {} prepared",
                rope.positions()
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
        x.apply_op2(&theta, LayerOp::new(self.clone(), run, train))
    }
}
