//! The decoder of the Llama family: RMSNorm, rotary positions, grouped-query attention, SwiGLU.
//!
//! Config → Attention → Mlp → DecoderLayer → LlamaBody, with Hugging Face's tensor names. The body
//! takes embeddings, not token ids, packed as [`Segments`] says.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use slmrec_export::checkpoint::LlamaConfig;

use super::Mode;
use super::lora::{BodyTraining, Linear, TargetModule};
use super::ops::attention::{Heads, Rope, Segments, causal_attention};
use super::ops::norm::rms_norm;
use super::ops::swiglu::swiglu;
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

/// Where a layer takes its tensors, and where it registers what is trained of them.
struct Builder<'a> {
    tensors: &'a Tensors,
    training: &'a BodyTraining,
    seed: u64,
    parameters: Parameters,
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

    fn norm(&mut self, name: &str, config: &LlamaConfig) -> Result<RmsNorm> {
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

#[derive(Debug)]
struct RmsNorm {
    weight: Tensor,
    eps: f64,
    trained: bool,
}

impl RmsNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        rms_norm(x, &self.weight, self.eps, self.trained)
    }
}

/// What all layers of one forward pass share.
struct Pass<'a, 'b> {
    segments: Arc<Segments>,
    mode: &'a mut Mode<'b>,
    dropout: f64,
}

impl Pass<'_, '_> {
    /// The adapters' input: `x` with some values dropped while training.
    fn drop(&mut self, x: &Tensor, readers: &[&Linear]) -> Result<Option<Tensor>> {
        match self.mode {
            Mode::Train(rng) if self.dropout > 0.0 && readers.iter().any(|l| l.has_adapter()) => {
                rng.dropout(x, self.dropout).map(Some)
            }
            Mode::Train(_) | Mode::Eval => Ok(None),
        }
    }
}

#[derive(Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    heads: Heads,
    rope: Rope,
}

impl Attention {
    fn new(
        layer: &str,
        config: &LlamaConfig,
        rope: &Rope,
        builder: &mut Builder<'_>,
    ) -> Result<Self> {
        let heads = Heads {
            query: config.num_attention_heads,
            key_value: config.kv_heads(),
            dim: config.head_size(),
        };
        let (hidden, q, kv) = (
            config.hidden_size,
            heads.query * heads.dim,
            heads.key_value * heads.dim,
        );
        Ok(Self {
            q_proj: builder.linear(layer, TargetModule::QProj, [q, hidden])?,
            k_proj: builder.linear(layer, TargetModule::KProj, [kv, hidden])?,
            v_proj: builder.linear(layer, TargetModule::VProj, [kv, hidden])?,
            o_proj: builder.linear(layer, TargetModule::OProj, [hidden, q])?,
            heads,
            rope: rope.clone(),
        })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass<'_, '_>) -> Result<Tensor> {
        let dropped = pass.drop(x, &[&self.q_proj, &self.k_proj, &self.v_proj])?;
        let q = self.q_proj.forward(x, dropped.as_ref())?;
        let k = self.k_proj.forward(x, dropped.as_ref())?;
        let v = self.v_proj.forward(x, dropped.as_ref())?;
        let x = causal_attention((&q, &k, &v), self.heads, &pass.segments, &self.rope)?;
        let dropped = pass.drop(&x, &[&self.o_proj])?;
        self.o_proj.forward(&x, dropped.as_ref())
    }
}

#[derive(Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn new(layer: &str, config: &LlamaConfig, builder: &mut Builder<'_>) -> Result<Self> {
        let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            gate_proj: builder.linear(layer, TargetModule::GateProj, [mlp, hidden])?,
            up_proj: builder.linear(layer, TargetModule::UpProj, [mlp, hidden])?,
            down_proj: builder.linear(layer, TargetModule::DownProj, [hidden, mlp])?,
        })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass<'_, '_>) -> Result<Tensor> {
        let dropped = pass.drop(x, &[&self.gate_proj, &self.up_proj])?;
        let gate = self.gate_proj.forward(x, dropped.as_ref())?;
        let up = self.up_proj.forward(x, dropped.as_ref())?;
        let x = swiglu(&gate, &up)?;
        let dropped = pass.drop(&x, &[&self.down_proj])?;
        self.down_proj.forward(&x, dropped.as_ref())
    }
}

#[derive(Debug)]
struct DecoderLayer {
    input_layernorm: RmsNorm,
    attention: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl DecoderLayer {
    fn new(
        index: usize,
        config: &LlamaConfig,
        rope: &Rope,
        builder: &mut Builder<'_>,
    ) -> Result<Self> {
        let name = format!("model.layers.{index}");
        Ok(Self {
            input_layernorm: builder.norm(&format!("{name}.input_layernorm"), config)?,
            attention: Attention::new(&name, config, rope, builder)?,
            post_attention_layernorm: builder
                .norm(&format!("{name}.post_attention_layernorm"), config)?,
            mlp: Mlp::new(&name, config, builder)?,
        })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass<'_, '_>) -> Result<Tensor> {
        let x = (x + self
            .attention
            .forward(&self.input_layernorm.forward(x)?, pass)?)?;
        let mlp = self
            .mlp
            .forward(&self.post_attention_layernorm.forward(&x)?, pass)?;
        x + mlp
    }

    fn norms(&self) -> [(&'static str, &RmsNorm); 2] {
        [
            ("input_layernorm", &self.input_layernorm),
            ("post_attention_layernorm", &self.post_attention_layernorm),
        ]
    }

    fn linears(&self) -> [(TargetModule, &Linear); 7] {
        [
            (TargetModule::QProj, &self.attention.q_proj),
            (TargetModule::KProj, &self.attention.k_proj),
            (TargetModule::VProj, &self.attention.v_proj),
            (TargetModule::OProj, &self.attention.o_proj),
            (TargetModule::GateProj, &self.mlp.gate_proj),
            (TargetModule::UpProj, &self.mlp.up_proj),
            (TargetModule::DownProj, &self.mlp.down_proj),
        ]
    }
}

/// Decoder layers and the final norm.
#[derive(Debug)]
pub struct LlamaBody {
    config: LlamaConfig,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    dropout: f64,
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
            parameters: builder.parameters,
        })
    }

    /// Runs packed embeddings `[tokens, H]`. Returns the states `[tokens, H]` after the final norm,
    /// and one state per entry of `state_layers`, as [`super::SequentialModel::forward`] says.
    ///
    /// # Errors
    /// Shapes that do not fit, or a layer number outside `1..=L`.
    pub fn forward(
        &self,
        embeddings: &Tensor,
        segments: Segments,
        mode: &mut Mode<'_>,
        state_layers: &[usize],
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let last = self.layers.len();
        if let Some(layer) = state_layers.iter().find(|l| !(1..=last).contains(*l)) {
            candle_core::bail!(
                "state of layer {layer} asked for, the model has layers 1 to {last}"
            );
        }
        let mut pass = Pass {
            segments: Arc::new(segments),
            mode,
            dropout: self.dropout,
        };
        let mut x = embeddings.clone();
        let mut after = Vec::with_capacity(last);
        for layer in &self.layers {
            x = layer.forward(&x, &mut pass)?;
            after.push(x.clone());
        }
        let x = self.norm.forward(&x)?;
        let state = |&layer: &usize| {
            if layer == last {
                x.clone()
            } else {
                after[layer - 1].clone()
            }
        };
        let states = state_layers.iter().map(state).collect();
        Ok((x, states))
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
        let mut tensors =
            Tensors::from([("model.norm.weight".to_owned(), self.norm.weight.detach())]);
        for (index, layer) in self.layers.iter().enumerate() {
            for (name, norm) in layer.norms() {
                tensors.insert(
                    format!("model.layers.{index}.{name}.weight"),
                    norm.weight.detach(),
                );
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
