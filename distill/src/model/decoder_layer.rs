//! A decoder layer: RMSNorm → Attention → RMSNorm → Mlp, each beside the residual stream.
//!
//! On the CPU in f32 a layer runs as one fused operation ([`super::ops::layer`]); elsewhere, and in
//! the tests that compare the two, in candle's own tensor operations.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use slmrec_export::checkpoint::LlamaConfig;

use super::Mode;
use super::dropout::Mask;
use super::llama::Tensors;
use super::lora::{BodyTraining, Linear, TargetModule};
use super::ops::attention::{AttentionSettings, Heads, Rope, Segments, causal_attention_slow};
use super::ops::fused;
use super::ops::layer::{Activation, Dropout, Gain, LayerNorm, LayerRun, LayerWeights};
use super::ops::norm::{Norm, rms_norm};
use super::ops::product::{Adapter, Product, Weight};
use super::ops::swiglu::swiglu_slow;
use super::ops::theta::{Flat, Span};
use super::parameters::Parameters;

/// Where a layer takes its tensors, and where it registers what is trained of them.
pub(super) struct Builder<'a> {
    pub(super) tensors: &'a Tensors,
    pub(super) training: &'a BodyTraining,
    pub(super) seed: u64,
    pub(super) parameters: Parameters,
}

impl Builder<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        match self.tensors.get(name) {
            Some(tensor) if tensor.dims() == shape => Ok(tensor.clone()),
            Some(tensor) => {
                candle_core::bail!("{name}: expected {shape:?}, found {:?}", tensor.dims())
            }
            None => candle_core::bail!("{name}: missing"),
        }
    }

    fn linear(&mut self, layer: &str, module: TargetModule, shape: [usize; 2]) -> Result<Linear> {
        let name = format!("{layer}.{}", module.path());
        let weight = self.tensor(&format!("{name}.weight"), &shape)?;
        Linear::new(
            &weight,
            &name,
            module,
            self.training,
            self.seed,
            &mut self.parameters,
        )
    }

    pub(super) fn norm(&mut self, name: &str, config: &LlamaConfig) -> Result<RmsNorm> {
        let name = format!("{name}.weight");
        let weight = self.tensor(&name, &[config.hidden_size])?;
        let trained = *self.training == BodyTraining::Full;
        let weight = if trained {
            self.parameters.insert(name, &weight)?.as_tensor().clone()
        } else {
            weight.detach()
        };
        Ok(RmsNorm {
            weight,
            eps: config.rms_norm_eps,
            trained,
        })
    }
}

/// RMSNorm with its gain.
#[derive(Debug)]
pub(super) struct RmsNorm {
    pub(super) weight: Tensor,
    eps: f64,
    trained: bool,
}

impl RmsNorm {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        rms_norm(x, &self.weight, self.eps, self.trained)
    }

    fn fuse(&self, flat: &mut Flat) -> LayerNorm {
        LayerNorm {
            norm: Norm {
                eps: self.eps,
                centred: false,
            },
            gain: if self.trained {
                Gain::Trained(flat.push_vector(&self.weight))
            } else {
                Gain::Frozen(self.weight.clone())
            },
            bias: None,
        }
    }
}

/// What all layers of one forward pass share.
pub(super) struct Pass<'a, 'b> {
    pub(super) segments: Arc<Segments>,
    pub(super) mode: &'a mut Mode<'b>,
    pub(super) dropout: f64,
    pub(super) recompute: bool,
}

impl Pass<'_, '_> {
    fn trains(&self) -> bool {
        matches!(self.mode, Mode::Train(_))
    }

    /// New masks of a layer's adapters: of query, key and value; output; gate and up; down.
    fn masks(&mut self) -> Option<[Mask; 4]> {
        let dropout = self.dropout;
        match self.mode {
            Mode::Train(rng) if dropout > 0.0 => Some(std::array::from_fn(|_| rng.mask(dropout))),
            Mode::Train(_) | Mode::Eval => None,
        }
    }
}

/// One layer.
#[derive(Debug)]
pub(super) struct DecoderLayer {
    input_layernorm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    post_attention_layernorm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    heads: Heads,
    rope: Rope,
    /// The same as one operation, where it runs.
    pub(super) fused: Option<Arc<LayerWeights>>,
}

impl DecoderLayer {
    pub(super) fn new(
        index: usize,
        config: &LlamaConfig,
        rope: &Rope,
        builder: &mut Builder<'_>,
    ) -> Result<Self> {
        let layer = format!("model.layers.{index}");
        let heads = Heads {
            query: config.num_attention_heads,
            key_value: config.kv_heads(),
            dim: config.head_size(),
        };
        let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (heads.query * heads.dim, heads.key_value * heads.dim);
        let mut linear = |module, shape| builder.linear(&layer, module, shape);
        let q_proj = linear(TargetModule::QProj, [q, hidden])?;
        let mut k_proj = linear(TargetModule::KProj, [kv, hidden])?;
        let mut v_proj = linear(TargetModule::VProj, [kv, hidden])?;
        let o_proj = linear(TargetModule::OProj, [hidden, q])?;
        let mut gate_proj = linear(TargetModule::GateProj, [mlp, hidden])?;
        let mut up_proj = linear(TargetModule::UpProj, [mlp, hidden])?;
        let down_proj = linear(TargetModule::DownProj, [hidden, mlp])?;
        Linear::stack(&mut k_proj, &mut v_proj)?;
        Linear::stack(&mut gate_proj, &mut up_proj)?;
        let mut layer = Self {
            input_layernorm: builder.norm(&format!("{layer}.input_layernorm"), config)?,
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            post_attention_layernorm: builder
                .norm(&format!("{layer}.post_attention_layernorm"), config)?,
            gate_proj,
            up_proj,
            down_proj,
            heads,
            rope: rope.clone(),
            fused: None,
        };
        if fused(layer.q_proj.weight()) {
            layer.fused = Some(Arc::new(layer.fuse()));
        }
        Ok(layer)
    }

    /// `x [tokens, H]` to a row for each token that is read (`None` for all).
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
                    dropout: masks.map_or(Dropout::None, Dropout::Adapters),
                    recompute: pass.recompute,
                };
                layer.run(x, run, pass.trains())
            }
            None => {
                let y = self.forward_slow(x, pass, masks)?;
                let y = match reads {
                    Some(reads) => {
                        y.index_select(&Tensor::new(reads.as_slice(), y.device())?, 0)?
                    }
                    None => y,
                };
                // Detached, it lets go of what a backward pass would need.
                Ok(if pass.trains() { y } else { y.detach() })
            }
        }
    }

    /// The layer in candle's own operations, on all tokens.
    fn forward_slow(
        &self,
        x: &Tensor,
        pass: &Pass<'_, '_>,
        masks: Option<[Mask; 4]>,
    ) -> Result<Tensor> {
        let drop = |x: &Tensor, product: usize| {
            let mask = masks.map(|masks| masks[product]);
            mask.map(|mask| mask.apply(x)).transpose()
        };
        let n1 = self.input_layernorm.forward(x)?;
        let dropped = drop(&n1, 0)?;
        let q = self.q_proj.forward(&n1, dropped.as_ref())?;
        let k = self.k_proj.forward(&n1, dropped.as_ref())?;
        let v = self.v_proj.forward(&n1, dropped.as_ref())?;
        let settings = AttentionSettings {
            heads: self.heads,
            segments: &pass.segments,
            rope: Some(&self.rope),
            dropout: None,
        };
        let attended = causal_attention_slow((&q, &k, &v), settings)?;
        let dropped = drop(&attended, 1)?;
        let h = (x + self.o_proj.forward(&attended, dropped.as_ref())?)?;
        let n2 = self.post_attention_layernorm.forward(&h)?;
        let dropped = drop(&n2, 2)?;
        let gate = self.gate_proj.forward(&n2, dropped.as_ref())?;
        let up = self.up_proj.forward(&n2, dropped.as_ref())?;
        let active = swiglu_slow(&gate, &up)?;
        let dropped = drop(&active, 3)?;
        h + self.down_proj.forward(&active, dropped.as_ref())?
    }

    fn fuse(&self) -> LayerWeights {
        let mut flat = Flat::default();
        let query = product(&mut flat, &[&self.q_proj]);
        let key_value = product(&mut flat, &[&self.k_proj, &self.v_proj]);
        let output = product(&mut flat, &[&self.o_proj]);
        let up = product(&mut flat, &[&self.gate_proj, &self.up_proj]);
        let down = product(&mut flat, &[&self.down_proj]);
        let norms = [&self.input_layernorm, &self.post_attention_layernorm];
        LayerWeights {
            norms: norms.map(|norm| norm.fuse(&mut flat)),
            heads: self.heads,
            rope: Some(self.rope.clone()),
            query,
            key_value,
            output,
            up,
            activation: Activation::SwiGlu,
            down,
            trained: flat.tensors,
        }
    }

    pub(super) fn is_fused(&self) -> bool {
        self.fused.is_some()
    }

    pub(super) fn norms(&self) -> [(&'static str, &RmsNorm); 2] {
        [
            ("input_layernorm", &self.input_layernorm),
            ("post_attention_layernorm", &self.post_attention_layernorm),
        ]
    }

    pub(super) fn linears(&self) -> [(TargetModule, &Linear); 7] {
        [
            (TargetModule::QProj, &self.q_proj),
            (TargetModule::KProj, &self.k_proj),
            (TargetModule::VProj, &self.v_proj),
            (TargetModule::OProj, &self.o_proj),
            (TargetModule::GateProj, &self.gate_proj),
            (TargetModule::UpProj, &self.up_proj),
            (TargetModule::DownProj, &self.down_proj),
        ]
    }
}

/// Modules whose weights are stacked: side by side in memory when frozen, in the vector when trained.
fn product(flat: &mut Flat, modules: &[&Linear]) -> Product {
    let (mut weight, mut adapters) = (None, Vec::new());
    let mut first = 0;
    for module in modules {
        let (out, features) = module.shape();
        if let Some((a, b, scale)) = module.adapter() {
            let rank = b.elem_count() / out.max(1);
            adapters.push(Adapter {
                a: flat.push(a, rank, features),
                b: flat.push(b, out, rank),
                first,
                scale: scale as f32,
            });
        }
        first += out;
        weight = Some(match (weight, module.trained()) {
            (None, true) => Weight::Trained(flat.push(module.weight(), out, features)),
            (Some(Weight::Trained(span)), true) => {
                let own = flat.push(module.weight(), out, features);
                let rows = span.rows + own.rows;
                Weight::Trained(Span { rows, ..span })
            }
            _ => Weight::Frozen(module.stacked().clone()),
        });
    }
    Product {
        weight: weight.unwrap_or_else(|| Weight::Frozen(modules[0].weight().clone())),
        bias: None,
        adapters,
    }
}
