//! The decoder of the Llama family: decoder layers and the final norm, with Hugging Face's tensor
//! names. The body takes embeddings, not token ids, packed as [`Segments`] says.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use slmrec_export::checkpoint::LlamaConfig;

use super::Mode;
use super::decoder_layer::{Builder, DecoderLayer, Pass, RmsNorm};
use super::lora::BodyTraining;
use super::ops::attention::{Rope, Segments};
use super::parameters::Parameters;

/// Tensors by Hugging Face name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Shapes of the body's tensors by name, the embedding table left out.
#[must_use]
pub fn tensor_shapes(config: &LlamaConfig) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = BTreeMap::from([("model.norm.weight".to_owned(), vec![config.hidden_size])]);
    for layer in 0..config.num_hidden_layers {
        for (name, shape) in layer_shapes(config) {
            shapes.insert(format!("model.layers.{layer}.{name}.weight"), shape);
        }
    }
    shapes
}

/// Names within a decoder layer (without `.weight`) and shapes.
#[must_use]
pub fn layer_shapes(config: &LlamaConfig) -> [(&'static str, Vec<usize>); 9] {
    let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
    let q = config
        .num_attention_heads
        .saturating_mul(config.head_size());
    let kv = config.kv_heads().saturating_mul(config.head_size());
    [
        ("input_layernorm", vec![hidden]),
        ("self_attn.q_proj", vec![q, hidden]),
        ("self_attn.k_proj", vec![kv, hidden]),
        ("self_attn.v_proj", vec![kv, hidden]),
        ("self_attn.o_proj", vec![hidden, q]),
        ("post_attention_layernorm", vec![hidden]),
        ("mlp.gate_proj", vec![mlp, hidden]),
        ("mlp.up_proj", vec![mlp, hidden]),
        ("mlp.down_proj", vec![hidden, mlp]),
    ]
}

/// Decoder layers and the final norm.
#[derive(Debug)]
pub struct LlamaBody {
    config: LlamaConfig,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    dropout: f64,
    recompute: bool,
    parameters: Parameters,
}

impl LlamaBody {
    /// Builds the body from `model.layers.*` and `model.norm.weight`, for sequences of at most
    /// `positions` tokens. Starting values of adapters depend on `seed` and their names.
    ///
    /// # Errors
    /// A configuration that the model cannot follow, or tensors that are missing or of other shapes.
    pub fn new(
        config: &LlamaConfig,
        tensors: &Tensors,
        training: &BodyTraining,
        positions: usize,
        seed: u64,
    ) -> Result<Self> {
        check_config(config)?;
        let mut builder = Builder {
            tensors,
            training,
            seed,
            parameters: Parameters::default(),
        };
        let rope = Rope::new(positions, config.head_size(), config.rope_theta);
        let layers = (0..config.num_hidden_layers)
            .map(|index| DecoderLayer::new(index, config, &rope, &mut builder))
            .collect::<Result<Vec<_>>>()?;
        let norm = builder.norm("model.norm", config)?;
        let dropout = match training {
            BodyTraining::Lora(lora) => lora.dropout,
            BodyTraining::Full | BodyTraining::Frozen => 0.0,
        };
        Ok(Self {
            config: config.clone(),
            layers,
            norm,
            dropout,
            recompute: false,
            parameters: builder.parameters,
        })
    }

    /// Keeps only the inputs of the layers while training and computes the rest again in the
    /// backward pass (activation checkpointing). The result is the same.
    ///
    /// # Errors
    /// Weights that the fused layer does not run on, since no other can do it.
    pub fn with_activation_checkpointing(mut self, on: bool) -> Result<Self> {
        if on && !self.layers.iter().all(DecoderLayer::is_fused) {
            let weight = &self.norm.weight;
            candle_core::bail!(
                "activation_checkpointing needs a body in f32 on the CPU, found {:?} on {:?}; \
                 set it to false",
                weight.dtype(),
                weight.device().location()
            );
        }
        self.recompute = on;
        Ok(self)
    }

    /// Leaves the fused layers out: the layers run in candle's own operations, as on other devices.
    pub(super) fn without_fused_layers(mut self) -> Self {
        for layer in &mut self.layers {
            layer.fused = None;
        }
        self
    }

    /// Runs packed embeddings `[tokens, H]` in the number format of its weights. Returns the states
    /// after the final norm of the tokens that are read (`reads`, ascending; `None` for all)
    /// `[reads, H]`, and one state per entry of `state_layers`, as
    /// [`super::SequentialModel::forward`] says: after the last layer at the tokens that are read,
    /// after inner layers at all; all in f32.
    ///
    /// # Errors
    /// Shapes that do not fit, or a layer number outside `1..=L`.
    pub fn forward(
        &self,
        embeddings: &Tensor,
        segments: Segments,
        reads: Option<Vec<u32>>,
        mode: &mut Mode<'_>,
        state_layers: &[usize],
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let last = self.layers.len();
        if let Some(layer) = state_layers.iter().find(|l| !(1..=last).contains(*l)) {
            candle_core::bail!(
                "state of layer {layer} asked for, the model has layers 1 to {last}"
            );
        }
        let mut reads = reads.map(Arc::new);
        let mut pass = Pass {
            segments: Arc::new(segments),
            mode,
            dropout: self.dropout,
            recompute: self.recompute,
        };
        let mut x = embeddings.to_dtype(self.norm.weight.dtype())?;
        let mut after = Vec::with_capacity(last);
        for (index, layer) in self.layers.iter().enumerate() {
            // Only the last layer's output is not looked at by a later token.
            let reads = if index + 1 == last {
                reads.take()
            } else {
                None
            };
            x = layer.forward(&x, reads, &mut pass)?;
            if state_layers.contains(&(index + 1)) {
                after.push((index + 1, x.to_dtype(DType::F32)?));
            }
        }
        let x = self.norm.forward(&x)?.to_dtype(DType::F32)?;
        let state = |&layer: &usize| {
            let inner = after
                .iter()
                .find(|(index, _)| *index == layer && layer < last);
            inner.map_or_else(|| x.clone(), |(_, state)| state.clone())
        };
        let states = state_layers.iter().map(state).collect();
        Ok((x, states))
    }

    /// The final norm of states `[R, H]`, in f32.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn final_norm(&self, state: &Tensor) -> Result<Tensor> {
        let state = state.to_dtype(self.norm.weight.dtype())?;
        self.norm.forward(&state)?.to_dtype(DType::F32)
    }

    /// The configuration, with `num_hidden_layers` as built.
    #[must_use]
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// What training changes, by name.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// All tensors by Hugging Face name, with adapters merged.
    ///
    /// # Errors
    /// Only what candle reports.
    pub fn merged_tensors(&self) -> Result<Tensors> {
        let mut tensors = Tensors::from([(
            "model.norm.weight".to_owned(),
            self.norm.weight.to_dtype(DType::F32)?.detach(),
        )]);
        for (index, layer) in self.layers.iter().enumerate() {
            for (name, norm) in layer.norms() {
                let name = format!("model.layers.{index}.{name}.weight");
                tensors.insert(name, norm.weight.detach().to_dtype(DType::F32)?);
            }
            for (module, linear) in layer.linears() {
                let name = format!("model.layers.{index}.{}.weight", module.path());
                tensors.insert(name, linear.merged()?);
            }
        }
        Ok(tensors)
    }
}

fn check_config(config: &LlamaConfig) -> Result<()> {
    let (heads, kv_heads, dim) = (
        config.num_attention_heads,
        config.kv_heads(),
        config.head_size(),
    );
    if heads == 0 || kv_heads == 0 || heads % kv_heads != 0 {
        candle_core::bail!("{heads} attention heads cannot share {kv_heads} key/value heads");
    }
    if dim == 0 || dim % 2 != 0 {
        candle_core::bail!("rotary positions need an even head size, found {dim}");
    }
    if config.num_hidden_layers == 0 || config.hidden_act != "silu" {
        candle_core::bail!(
            "expected at least one layer and silu, found {} and {}",
            config.num_hidden_layers,
            config.hidden_act
        );
    }
    Ok(())
}
