//! A block: LayerNorm → attention → LayerNorm → MLP, each beside the residual stream, with dropout on
//! attention weights, between the products of the MLP and on both branches.
//!
//! On the CPU in f32 a block runs as one fused operation ([`crate::model::ops::layer`]); elsewhere, and
//! in the tests that compare the two, in candle's own tensor operations.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use crate::model::Mode;
use crate::model::dropout::Mask;
use crate::model::ops::attention::{
    AttentionSettings, Heads, Segments, WeightMask, causal_attention_slow,
};
use crate::model::ops::fused;
use crate::model::ops::layer::{
    Activation, Dropout, Gain, LayerNorm, LayerRun, LayerWeights, ValueMasks,
};
use crate::model::ops::norm::{Norm, layer_norm, layer_norm_slow};
use crate::model::ops::product::Product;
use crate::model::ops::theta::Flat;

const NORM_EPSILON: f64 = 1e-5;

/// What all blocks of one forward pass share.
pub(super) struct Pass<'a, 'b> {
    pub(super) segments: Arc<Segments>,
    pub(super) mode: &'a mut Mode<'b>,
    pub(super) dropout: f64,
}

impl Pass<'_, '_> {
    pub(super) fn trains(&self) -> bool {
        matches!(self.mode, Mode::Train(_))
    }

    /// A new mask, where values are dropped at all.
    pub(super) fn mask(&mut self) -> Option<Mask> {
        let dropout = self.dropout;
        match self.mode {
            Mode::Train(rng) if dropout > 0.0 => Some(rng.mask(dropout)),
            Mode::Train(_) | Mode::Eval => None,
        }
    }

    fn masks(&mut self) -> Option<ValueMasks> {
        Some(ValueMasks {
            weights: self.mask()?,
            attention: self.mask()?,
            inner: self.mask()?,
            mlp: self.mask()?,
        })
    }
}

/// `weight * (x - mean) / std + bias` over the last dimension.
pub(super) struct NormWeights {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

impl NormWeights {
    /// `x [tokens, D]`; no graph is kept where nothing is trained.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass<'_, '_>) -> Result<Tensor> {
        if pass.trains() {
            layer_norm(x, &self.weight, &self.bias, NORM_EPSILON)
        } else {
            let (weight, bias) = (self.weight.detach(), self.bias.detach());
            layer_norm(x, &weight, &bias, NORM_EPSILON)
        }
    }

    fn forward_slow(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm_slow(x, &self.weight, &self.bias, NORM_EPSILON)
    }

    fn fuse(&self, flat: &mut Flat) -> LayerNorm {
        LayerNorm {
            norm: Norm {
                eps: NORM_EPSILON,
                centred: true,
            },
            gain: Gain::Trained(flat.push_vector(&self.weight)),
            bias: Some(flat.push_vector(&self.bias)),
        }
    }
}

/// The tensors of a block. Weights are `[out, in]`.
pub(super) struct BlockTensors {
    pub(super) attention_norm: NormWeights,
    pub(super) query: Tensor,
    pub(super) key: Tensor,
    pub(super) value: Tensor,
    pub(super) output: Tensor,
    pub(super) mlp_norm: NormWeights,
    /// Weight and bias.
    pub(super) up: (Tensor, Tensor),
    /// Weight and bias.
    pub(super) down: (Tensor, Tensor),
}

/// One block.
pub(super) struct Block {
    tensors: BlockTensors,
    heads: Heads,
    /// The same as one operation, where it runs.
    pub(super) fused: Option<Arc<LayerWeights>>,
}

impl Block {
    pub(super) fn new(tensors: BlockTensors, heads: usize) -> Result<Self> {
        let (width, _) = tensors.query.dims2()?;
        let heads = Heads {
            query: heads,
            key_value: heads,
            dim: width / heads,
        };
        let mut block = Self {
            tensors,
            heads,
            fused: None,
        };
        if fused(&block.tensors.query) {
            block.fused = Some(Arc::new(block.fuse()?));
        }
        Ok(block)
    }

    fn fuse(&self) -> Result<LayerWeights> {
        let (tensors, mut flat) = (&self.tensors, Flat::default());
        let (up, down) = (&tensors.up, &tensors.down);
        let key_value = [&tensors.key, &tensors.value];
        Ok(LayerWeights {
            norms: [&tensors.attention_norm, &tensors.mlp_norm].map(|norm| norm.fuse(&mut flat)),
            heads: self.heads,
            rope: None,
            query: Product::trained(&mut flat, &[&tensors.query], None)?,
            key_value: Product::trained(&mut flat, &key_value, None)?,
            output: Product::trained(&mut flat, &[&tensors.output], None)?,
            up: Product::trained(&mut flat, &[&up.0], Some(&up.1))?,
            activation: Activation::Relu,
            down: Product::trained(&mut flat, &[&down.0], Some(&down.1))?,
            trained: flat.tensors,
        })
    }

    /// `x [tokens, D]` to a row for each token that is read (`None` for all).
    pub(super) fn forward(
        &self,
        x: &Tensor,
        reads: Option<Arc<Vec<u32>>>,
        pass: &mut Pass<'_, '_>,
    ) -> Result<Tensor> {
        let masks = pass.masks();
        match &self.fused {
            Some(layer) => {
                let run = LayerRun {
                    segments: pass.segments.clone(),
                    reads,
                    dropout: masks.map_or(Dropout::None, Dropout::Values),
                    recompute: false,
                };
                layer.run(x, run, pass.trains())
            }
            None => {
                let y = self.forward_slow(x, &pass.segments, masks)?;
                match reads {
                    Some(reads) => y.index_select(&Tensor::new(reads.as_slice(), y.device())?, 0),
                    None => Ok(y),
                }
            }
        }
    }

    /// The block in candle's own operations, on all tokens.
    fn forward_slow(
        &self,
        x: &Tensor,
        segments: &Segments,
        masks: Option<ValueMasks>,
    ) -> Result<Tensor> {
        let drop = |x: Tensor, which: fn(ValueMasks) -> Mask| match masks {
            Some(masks) => which(masks).apply(&x),
            None => Ok(x),
        };
        let t = &self.tensors;
        let n1 = t.attention_norm.forward_slow(x)?;
        let settings = AttentionSettings {
            heads: self.heads,
            segments,
            rope: None,
            dropout: masks.map(|m| WeightMask::new(m.weights, self.heads.query, segments)),
        };
        let project = |weight: &Tensor| n1.matmul(&weight.t()?);
        let (q, k, v) = (project(&t.query)?, project(&t.key)?, project(&t.value)?);
        let attended = causal_attention_slow((&q, &k, &v), settings)?;
        let h = (x + drop(attended.matmul(&t.output.t()?)?, |m| m.attention)?)?;
        let n2 = t.mlp_norm.forward_slow(&h)?;
        let up = n2.matmul(&t.up.0.t()?)?.broadcast_add(&t.up.1)?;
        let inner = drop(up.relu()?, |m| m.inner)?;
        let down = inner.matmul(&t.down.0.t()?)?.broadcast_add(&t.down.1)?;
        h + drop(down, |m| m.mlp)?
    }
}
