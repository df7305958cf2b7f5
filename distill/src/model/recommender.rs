//! The language-model recommender: items projected into a decoder's input space, between the
//! constant tokens of a prompt; user vectors projected back out (E4SRec's and SLMRec's form).
//!
//! `item` readout: `prefix | items`, a user vector at every item. `response` readout:
//! `prefix | items | suffix`, one user vector at the last suffix token. Rows are packed without
//! padding and the prefix runs once for the whole batch, so that batch, single and padded agree.

use candle_core::{DType, Device, IndexOp, Result, Tensor};
use serde::{Deserialize, Serialize};
use slmrec_core::manifest::Readout;
use slmrec_export::checkpoint::{Base, LlamaConfig, Prompt};

use super::base::PretrainedBase;
use super::init::{named_seed, uniform};
use super::llama::{LlamaBody, Tensors};
use super::lora::{BodyTraining, LoraSettings};
use super::ops::attention::Segments;
use super::ops::linear::linear;
use super::parameters::Parameters;
use super::{HistoryBatch, ItemTable, Mode, ModelOutput, ReadAt, SequentialModel};

/// Number format of the body's frozen weights and of what flows through it. Adapters, projections
/// and the optimizer stay in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyDtype {
    /// 32 bits: exact, and the only one that the fused CPU kernels take.
    #[default]
    F32,
    /// 16 bits of the range of f32: for GPUs.
    Bf16,
    /// 16 bits of more precision and less range.
    F16,
}

impl BodyDtype {
    /// candle's name.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

/// What stands around the body, and what of it is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LlmSettings {
    /// Where the user vector is read.
    pub readout: Readout,
    /// Longest history S.
    pub max_history: usize,
    /// Which parts of the body are trained.
    pub training: BodyTraining,
    /// Whether the item embeddings are trained too.
    pub train_item_embeddings: bool,
    /// Probability of dropout on the item embeddings that are read, and on the states that user vectors
    /// are projected from.
    pub dropout: f64,
    /// Whether training keeps only the inputs of the decoder layers and computes the rest again in
    /// the backward pass: less memory, more time, the same result. For f32 on the CPU only.
    pub activation_checkpointing: bool,
    /// Number format of the frozen body.
    pub body_dtype: BodyDtype,
}

impl Default for LlmSettings {
    fn default() -> Self {
        Self {
            readout: Readout::Item,
            max_history: 50,
            training: BodyTraining::Lora(LoraSettings::default()),
            train_item_embeddings: false,
            dropout: 0.0,
            activation_checkpointing: false,
            body_dtype: BodyDtype::F32,
        }
    }
}

/// A decoder between two projections.
#[derive(Debug)]
pub struct LlmRecommender {
    settings: LlmSettings,
    base: Base,
    prompt: Prompt,
    /// `[P + R, H]`, prefix first; never trained.
    prompt_embeddings: Option<Tensor>,
    /// `[N + 1, D]`
    item_embeddings: Tensor,
    /// `[H, D]`
    item_projection: Tensor,
    /// `[H]`
    item_projection_bias: Tensor,
    /// `[D, H]`
    user_projection: Tensor,
    body: LlamaBody,
    parameters: Parameters,
}

/// Tensors of the recommender itself, by their names in the checkpoint.
pub(crate) const ITEM_EMBEDDINGS: &str = "item_embeddings.weight";
pub(crate) const ITEM_PROJECTION: &str = "item_projection.weight";
pub(crate) const ITEM_PROJECTION_BIAS: &str = "item_projection.bias";
pub(crate) const USER_PROJECTION: &str = "user_projection.weight";

impl LlmRecommender {
    /// Puts a pretrained body between fresh projections. `item_embeddings` is `[N + 1, D]`, row 0
    /// for the padding. Starting values depend on `seed` only.
    ///
    /// # Errors
    /// Shapes that do not fit, or a prompt that does not suit the readout.
    pub fn new(
        base: &PretrainedBase,
        item_embeddings: &Tensor,
        settings: &LlmSettings,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let hidden = base.config.hidden_size;
        let (_, dim) = item_embeddings.dims2()?;
        // The default start of PyTorch's linear layers.
        let start = |name: &str, shape: &[usize], features: usize| -> Result<(String, Tensor)> {
            let bound = (features as f64).powf(-0.5);
            Ok((
                name.to_owned(),
                uniform(shape, bound, named_seed(seed, name), device)?,
            ))
        };
        let own = Tensors::from([
            (
                ITEM_EMBEDDINGS.to_owned(),
                item_embeddings.to_device(device)?,
            ),
            start(ITEM_PROJECTION, &[hidden, dim], dim)?,
            start(ITEM_PROJECTION_BIAS, &[hidden], dim)?,
            start(USER_PROJECTION, &[dim, hidden], hidden)?,
        ]);
        Self::from_parts(base, &own, settings, seed)
    }

    /// Puts a body between given projections, named as in a checkpoint.
    ///
    /// # Errors
    /// Tensors that are missing or do not fit, or a prompt that does not suit the readout.
    pub fn from_parts(
        base: &PretrainedBase,
        own: &Tensors,
        settings: &LlmSettings,
        seed: u64,
    ) -> Result<Self> {
        let prompt = &base.prompt;
        check_prompt(settings.readout, prompt, base.prompt_embeddings.as_ref())?;
        let positions =
            prompt.prefix_tokens.len() + settings.max_history + prompt.suffix_tokens.len();
        let tensors = cast(&base.tensors, settings, item_table_device(own)?)?;
        let body = LlamaBody::new(&base.config, &tensors, &settings.training, positions, seed)?
            .with_activation_checkpointing(settings.activation_checkpointing)?;
        let mut parameters = Parameters::default();
        parameters.extend("body.", body.parameters())?;
        let mut take = |name: &str, trained: bool| match own.get(name) {
            Some(tensor) if trained => Ok(parameters.insert(name, tensor)?.as_tensor().clone()),
            Some(tensor) => Ok(tensor.detach()),
            None => candle_core::bail!("{name}: missing"),
        };
        let model = Self {
            settings: settings.clone(),
            base: Base {
                name: base.name.clone(),
                sha256: base.sha256.clone(),
                layers: base.layers.clone(),
            },
            prompt: prompt.clone(),
            prompt_embeddings: base.prompt_embeddings.as_ref().map(Tensor::detach),
            item_embeddings: take(ITEM_EMBEDDINGS, settings.train_item_embeddings)?,
            item_projection: take(ITEM_PROJECTION, true)?,
            item_projection_bias: take(ITEM_PROJECTION_BIAS, true)?,
            user_projection: take(USER_PROJECTION, true)?,
            body,
            parameters,
        };
        model.check_shapes()?;
        Ok(model)
    }

    fn check_shapes(&self) -> Result<()> {
        let hidden = self.config().hidden_size;
        let (rows, dim) = self.item_embeddings.dims2()?;
        let shapes = [
            (
                ITEM_PROJECTION,
                self.item_projection.dims(),
                &[hidden, dim][..],
            ),
            (
                ITEM_PROJECTION_BIAS,
                self.item_projection_bias.dims(),
                &[hidden],
            ),
            (USER_PROJECTION, self.user_projection.dims(), &[dim, hidden]),
        ];
        for (name, found, expected) in shapes {
            if found != expected {
                candle_core::bail!("{name}: expected {expected:?}, found {found:?}");
            }
        }
        let dropout = self.settings.dropout;
        if !(0.0..1.0).contains(&dropout) {
            candle_core::bail!("model.dropout: expected a probability below 1, found {dropout}");
        }
        if rows < 2 || self.settings.max_history == 0 {
            candle_core::bail!(
                "expected at least one item and a history of one, found {} and {}",
                rows.saturating_sub(1),
                self.settings.max_history
            );
        }
        Ok(())
    }

    /// The same model with its decoder layers in candle's own operations, as they run on other
    /// devices: what the fused layers are measured against.
    #[must_use]
    pub fn without_fused_layers(mut self) -> Self {
        self.body = self.body.without_fused_layers();
        self
    }

    /// Configuration of the body.
    #[must_use]
    pub fn config(&self) -> &LlamaConfig {
        self.body.config()
    }

    /// The settings it was made with.
    #[must_use]
    pub fn settings(&self) -> &LlmSettings {
        &self.settings
    }

    /// The prompt around the items.
    #[must_use]
    pub fn prompt(&self) -> &Prompt {
        &self.prompt
    }

    /// The pretrained layers it began with.
    #[must_use]
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &LlamaBody {
        &self.body
    }

    /// Embeddings of the prompt's tokens `[P + R, H]`, prefix first.
    #[must_use]
    pub fn prompt_embeddings(&self) -> Option<&Tensor> {
        self.prompt_embeddings.as_ref()
    }

    /// The recommender's own tensors, by their names in a checkpoint; row 0 of the items is zero.
    ///
    /// # Errors
    /// Only what candle reports.
    pub fn own_tensors(&self) -> Result<Tensors> {
        let items = self.item_embeddings.detach();
        let padding = items.i(0..1)?.zeros_like()?;
        let items = Tensor::cat(&[&padding, &items.i(1..)?], 0)?;
        Ok(Tensors::from([
            (ITEM_EMBEDDINGS.to_owned(), items),
            (ITEM_PROJECTION.to_owned(), self.item_projection.detach()),
            (
                ITEM_PROJECTION_BIAS.to_owned(),
                self.item_projection_bias.detach(),
            ),
            (USER_PROJECTION.to_owned(), self.user_projection.detach()),
        ]))
    }

    fn device(&self) -> &Device {
        self.item_embeddings.device()
    }

    /// Projected embeddings of the batch's real items, row after row, `[items, H]`.
    fn project_items(&self, batch: &HistoryBatch, mode: &mut Mode<'_>) -> Result<Tensor> {
        let items = batch.packed_items()?;
        let embeddings = match &batch.lookups {
            Some(lookups) => lookups.lookup(&self.item_embeddings, &items.to_vec1()?)?,
            None => self.item_embeddings.index_select(&items, 0)?,
        };
        let embeddings = self.drop(embeddings, mode)?;
        linear(&embeddings, &self.item_projection)?.broadcast_add(&self.item_projection_bias)
    }

    /// A new mask while training.
    fn drop(&self, x: Tensor, mode: &mut Mode<'_>) -> Result<Tensor> {
        match mode {
            Mode::Train(rng) => rng.dropout(&x, self.settings.dropout),
            Mode::Eval => Ok(x),
        }
    }

    /// Embeddings of all packed tokens.
    fn embed(&self, batch: &HistoryBatch, mode: &mut Mode<'_>) -> Result<Tensor> {
        let items = self.project_items(batch, mode)?;
        let Some(prompt) = &self.prompt_embeddings else {
            return Ok(items);
        };
        let (prefix, suffix) = (
            self.prompt.prefix_tokens.len(),
            self.prompt.suffix_tokens.len(),
        );
        let source = Tensor::cat(&[prompt, &items], 0)?;
        let mut order: Vec<u32> = (0..prefix as u32).collect();
        let mut item = prefix + suffix;
        for len in &batch.lengths {
            order.extend((item..item + len).map(|i| i as u32));
            order.extend((prefix..prefix + suffix).map(|i| i as u32));
            item += len;
        }
        source.index_select(&index(order, self.device())?, 0)
    }

    /// The packed tokens where user vectors are read, ascending, and for each place of the output
    /// `[B, width]` which of them stands there (at padded places, any).
    fn reads(&self, batch: &HistoryBatch, segments: &Segments) -> Result<Reads> {
        let rows = segments.starts().into_iter().zip(&segments.lengths);
        if self.settings.readout == Readout::Response || batch.read == ReadAt::LastItem {
            let tokens = rows.map(|(start, len)| (start + len - 1) as u32).collect();
            let places = (0..batch.size() as u32).collect();
            return Ok(Reads {
                tokens,
                places,
                width: 1,
            });
        }
        let (_, width) = batch.items.dims2()?;
        let first = segments.prefix;
        let place = |(start, len): (usize, &usize)| {
            let (start, len) = (start - first, *len);
            (0..width).map(move |t| (start + t.min(len - 1)) as u32)
        };
        Ok(Reads {
            tokens: (first as u32..segments.tokens() as u32).collect(),
            places: rows.flat_map(place).collect(),
            width,
        })
    }
}

/// Where user vectors are read.
struct Reads {
    tokens: Vec<u32>,
    places: Vec<u32>,
    width: usize,
}

impl SequentialModel for LlmRecommender {
    fn forward(
        &self,
        batch: &HistoryBatch,
        mut mode: Mode<'_>,
        state_layers: &[usize],
    ) -> Result<ModelOutput> {
        let (rows, longest) = batch.items.dims2()?;
        if longest > self.settings.max_history {
            candle_core::bail!(
                "a history of {longest} items, at most {} fit",
                self.settings.max_history
            );
        }
        let suffix = self.prompt.suffix_tokens.len();
        let segments = Segments {
            prefix: self.prompt.prefix_tokens.len(),
            lengths: batch.lengths.iter().map(|len| len + suffix).collect(),
        };
        let reads = self.reads(batch, &segments)?;
        let at_reads = index(reads.places.clone(), self.device())?;
        let everywhere: Vec<u32> = (reads.places.iter())
            .map(|place| reads.tokens[*place as usize])
            .collect();
        let everywhere = index(everywhere, self.device())?;
        let all = reads.tokens.len() == segments.tokens();
        let embeddings = self.embed(batch, &mut mode)?;
        let (last, states) = self.body.forward(
            &embeddings,
            segments,
            (!all).then_some(reads.tokens),
            &mut mode,
            state_layers,
        )?;
        let unpack = |x: Tensor| {
            let features = x.dims2()?.1;
            x.reshape((rows, reads.width, features))
        };
        let last = self.drop(last, &mut mode)?;
        let users = linear(&last, &self.user_projection)?;
        let user_vectors = unpack(users.index_select(&at_reads, 0)?)?;
        let states = (states.iter().zip(state_layers))
            .map(|(state, layer)| {
                let last = *layer == self.num_layers();
                unpack(state.index_select(if last { &at_reads } else { &everywhere }, 0)?)
            })
            .collect::<Result<_>>()?;
        Ok(ModelOutput {
            user_vectors,
            states,
        })
    }

    fn read_out(&self, state: &Tensor) -> Result<Tensor> {
        linear(&self.body.final_norm(state)?, &self.user_projection)
    }

    fn item_table(&self) -> ItemTable<'_> {
        (&self.item_embeddings).into()
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn num_layers(&self) -> usize {
        self.config().num_hidden_layers
    }

    fn max_history(&self) -> usize {
        self.settings.max_history
    }
}

fn item_table_device(own: &Tensors) -> Result<&Device> {
    match own.get(ITEM_EMBEDDINGS) {
        Some(items) => Ok(items.device()),
        None => candle_core::bail!("{ITEM_EMBEDDINGS}: missing"),
    }
}

/// The body's tensors in the number format that is asked for.
fn cast(tensors: &Tensors, settings: &LlmSettings, device: &Device) -> Result<Tensors> {
    let dtype = settings.body_dtype.dtype();
    if dtype != DType::F32 && settings.training == BodyTraining::Full {
        candle_core::bail!("all weights are trained, which takes body_dtype f32, found {dtype:?}");
    }
    if dtype == DType::BF16 && device.is_cpu() {
        candle_core::bail!("body_dtype bf16 needs a GPU; use f32 on the CPU");
    }
    let cast = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_dtype(dtype)?));
    tensors.iter().map(cast).collect()
}

fn index(values: Vec<u32>, device: &Device) -> Result<Tensor> {
    let count = values.len();
    Tensor::from_vec(values, count, device)?.to_dtype(DType::U32)
}

fn check_prompt(readout: Readout, prompt: &Prompt, embeddings: Option<&Tensor>) -> Result<()> {
    let (prefix, suffix) = (prompt.prefix_tokens.len(), prompt.suffix_tokens.len());
    let rows = match embeddings {
        Some(embeddings) => embeddings.dims2()?.0,
        None => 0,
    };
    if rows != prefix + suffix {
        candle_core::bail!("a prompt of {prefix} + {suffix} tokens came with {rows} embeddings");
    }
    match readout {
        Readout::Item if suffix > 0 => {
            candle_core::bail!("the item readout has no suffix, found one of {suffix} tokens")
        }
        Readout::Response if suffix == 0 => {
            candle_core::bail!("the response readout is read at the suffix, found none")
        }
        Readout::Item | Readout::Response => Ok(()),
    }
}
