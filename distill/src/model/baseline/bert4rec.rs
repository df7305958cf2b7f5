//! BERT4Rec (Sun et al., CIKM 2019): self-attention in both directions, trained to fill in masked
//! items ([`crate::train::Cloze`]). It ranks with a mask behind the history. Blocks norm before the
//! branch, as our SASRec's do, and scores are dot products without a bias of the item.

use std::path::Path;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::softmax;
use serde::{Deserialize, Serialize};

use super::directory::{self, Header, MAX_SIZE};
use crate::model::file_error::ModelFileError;
use crate::model::init::named_seed;
use crate::model::item_lookups::ItemTable;
use crate::model::ops::linear::linear;
use crate::model::ops::norm::layer_norm;
use crate::model::parameters::normal;
use crate::model::{HistoryBatch, Mode, ModelOutput, Parameters, ReadAt, SequentialModel};

const KIND: &str = "bert4rec";
const ITEM_EMBEDDINGS: &str = "item_embeddings.weight";
const INIT_STD: f64 = 0.02;
const NORM_EPSILON: f64 = 1e-5;
/// Added to the scores of padded places: nothing is left of them after the softmax.
const HIDDEN: f32 = -1e9;

/// Shape and regularisation of a BERT4Rec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bert4RecSettings {
    /// Size D of item embeddings and hidden states.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Heads of the attention; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Longest history.
    pub max_history: usize,
    /// Probability of dropout, on embeddings and both branches.
    pub dropout: f64,
}

impl Default for Bert4RecSettings {
    fn default() -> Self {
        Self {
            hidden_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 256,
            max_history: 50,
            dropout: 0.2,
        }
    }
}

/// The model.
pub struct Bert4Rec {
    settings: Bert4RecSettings,
    num_items: usize,
    parameters: Parameters,
    item_embeddings: Tensor,
}

impl Bert4Rec {
    /// A model over `num_items` items with weights drawn from `seed`.
    ///
    /// # Errors
    /// Sizes that do not work together; what candle reports.
    pub fn new(
        settings: Bert4RecSettings,
        num_items: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        check(&settings)?;
        let mut parameters = Parameters::default();
        for (name, shape) in shapes(&settings, num_items) {
            let value = if name.ends_with("norm.weight") {
                Tensor::ones(shape, DType::F32, device)?
            } else if name.ends_with(".bias") {
                Tensor::zeros(shape, DType::F32, device)?
            } else if name == ITEM_EMBEDDINGS {
                let rows = (shape[0] - 1, shape[1]);
                let seed = named_seed(seed, &name);
                normal(rows, INIT_STD, seed, DType::F32, device)?.pad_with_zeros(0, 1, 0)?
            } else {
                normal(shape, INIT_STD, named_seed(seed, &name), DType::F32, device)?
            };
            parameters.insert(name, &value)?;
        }
        Self::from_parameters(settings, num_items, parameters)
    }

    fn from_parameters(
        settings: Bert4RecSettings,
        num_items: usize,
        parameters: Parameters,
    ) -> Result<Self> {
        let Some(table) = parameters.get(ITEM_EMBEDDINGS) else {
            candle_core::bail!("the parameter {ITEM_EMBEDDINGS} is missing");
        };
        Ok(Self {
            item_embeddings: table.as_tensor().clone(),
            settings,
            num_items,
            parameters,
        })
    }

    /// The row that stands for a masked item: one behind the last item.
    #[must_use]
    pub fn mask_row(&self) -> u32 {
        Self::mask_row_of(self.num_items)
    }

    /// [`Self::mask_row`] of a model over so many items.
    #[must_use]
    pub fn mask_row_of(num_items: usize) -> u32 {
        num_items as u32 + 1
    }

    /// Writes the model's directory.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn save(
        &self,
        dir: &Path,
        vocabulary_sha256: &str,
        provenance: serde_json::Value,
    ) -> std::result::Result<(), ModelFileError> {
        let header = Header {
            kind: KIND,
            settings: &self.settings,
            items: self.num_items,
            vocabulary_sha256,
            provenance,
        };
        directory::save(dir, header, &self.parameters)
    }

    /// Reads a directory that [`Self::save`] wrote.
    ///
    /// # Errors
    /// [`ModelFileError`] for whatever is not as it was left.
    pub fn load(dir: &Path, device: &Device) -> std::result::Result<Self, ModelFileError> {
        let (settings, num_items, parameters) =
            directory::load(dir, KIND, (check, shapes), device)?;
        Self::from_parameters(settings, num_items, parameters).map_err(ModelFileError::tensor(dir))
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        match self.parameters.get(name) {
            Some(var) => Ok(var.as_tensor().clone()),
            None => candle_core::bail!("the parameter {name} is missing"),
        }
    }

    /// `x [.., in]` to `[.., out]`, with its bias.
    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let weight = self.get(&format!("{name}.weight"))?;
        linear(x, &weight)?.broadcast_add(&self.get(&format!("{name}.bias"))?)
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let weight = self.get(&format!("{name}.weight"))?;
        layer_norm(
            x,
            &weight,
            &self.get(&format!("{name}.bias"))?,
            NORM_EPSILON,
        )
    }

    /// Embeddings of items, masks and places, `[B * S, D]`.
    fn embed(&self, batch: &HistoryBatch) -> Result<Tensor> {
        let (rows, steps) = batch.items.dims2()?;
        let device = batch.items.device();
        let mut items: Vec<u32> = batch.items.flatten_all()?.to_vec1()?;
        let masked: Vec<f32> = (items.iter())
            .map(|item| f32::from(u8::from(*item == self.mask_row())))
            .collect();
        let masked = Tensor::from_vec(masked, (rows * steps, 1), device)?;
        for item in &mut items {
            if *item == self.mask_row() {
                *item = 0;
            }
        }
        let table = ItemTable::from(&self.item_embeddings).with(batch.lookups.as_deref());
        // The padding's row stands where a mask is, and must not learn.
        let known = (1.0 - &masked)?;
        let items = table.rows(&items)?.broadcast_mul(&known)?;
        let x = (items + masked.matmul(&self.get("mask_embedding.weight")?)?)?;
        let places: Vec<u32> = (0..rows).flat_map(|_| 0..steps as u32).collect();
        let places = Tensor::new(places, device)?;
        x + self
            .get("position_embeddings.weight")?
            .index_select(&places, 0)?
    }

    /// What every place sees of every place, `[B * S, D]`.
    fn attention(
        &self,
        x: &Tensor,
        name: &str,
        (rows, steps): (usize, usize),
        hidden: &Tensor,
    ) -> Result<Tensor> {
        let (heads, width) = (self.settings.num_attention_heads, self.settings.hidden_size);
        let dim = width / heads;
        let split = |x: Tensor| {
            x.reshape((rows, steps, heads, dim))?
                .transpose(1, 2)?
                .contiguous()
        };
        let query = split(self.linear(x, &format!("{name}.q_proj"))?)?;
        let key = split(self.linear(x, &format!("{name}.k_proj"))?)?;
        let value = split(self.linear(x, &format!("{name}.v_proj"))?)?;
        let scores = (query.matmul(&key.t()?.contiguous()?)? * (dim as f64).powf(-0.5))?;
        let weights = softmax(&scores.broadcast_add(hidden)?, D::Minus1)?;
        let seen = weights.matmul(&value)?.transpose(1, 2)?.contiguous()?;
        self.linear(
            &seen.reshape((rows * steps, width))?,
            &format!("{name}.o_proj"),
        )
    }

    /// The user vectors of every place, and the states after the blocks, each `[B * S, D]`.
    fn run(&self, batch: &HistoryBatch, mode: &mut Mode<'_>) -> Result<(Tensor, Vec<Tensor>)> {
        let (rows, steps) = batch.items.dims2()?;
        let mut drop = |x: Tensor| match mode {
            Mode::Train(rng) => rng.dropout(&x, self.settings.dropout),
            Mode::Eval => Ok(x),
        };
        let hidden: Vec<f32> = (batch.lengths.iter())
            .flat_map(|len| (0..steps).map(move |at| if at < *len { 0.0 } else { HIDDEN }))
            .collect();
        let hidden = Tensor::from_vec(hidden, (rows, 1, 1, steps), batch.items.device())?;
        let mut x = drop(self.embed(batch)?)?;
        let mut states = Vec::with_capacity(self.settings.num_hidden_layers);
        for layer in 0..self.settings.num_hidden_layers {
            let name = |part: &str| format!("layers.{layer}.{part}");
            let normed = self.norm(&x, &name("attention_norm"))?;
            let seen = self.attention(&normed, &name("attention"), (rows, steps), &hidden)?;
            x = (x + drop(seen)?)?;
            let normed = self.norm(&x, &name("mlp_norm"))?;
            let inner = self.linear(&normed, &name("mlp.up_proj"))?.gelu_erf()?;
            x = (x + drop(self.linear(&inner, &name("mlp.down_proj"))?)?)?;
            states.push(x.clone());
        }
        let x = self
            .linear(&self.norm(&x, "final_norm")?, "output")?
            .gelu_erf()?;
        Ok((self.norm(&x, "output_norm")?, states))
    }

    /// The histories with a mask behind each.
    fn with_masks(&self, batch: &HistoryBatch) -> Result<HistoryBatch> {
        let (_, steps) = batch.items.dims2()?;
        let items: Vec<Vec<u32>> = batch.items.to_vec2()?;
        let rows: Vec<u32> = (items.iter().zip(&batch.lengths))
            .flat_map(|(row, len)| {
                let mut row = row.clone();
                row.push(0);
                row[*len] = self.mask_row();
                row
            })
            .collect();
        let shape = (batch.size(), steps + 1);
        Ok(HistoryBatch {
            items: Tensor::from_vec(rows, shape, batch.items.device())?,
            lengths: batch.lengths.iter().map(|len| len + 1).collect(),
            read: ReadAt::LastItem,
            lookups: batch.lookups.clone(),
        })
    }
}

impl SequentialModel for Bert4Rec {
    /// In training the batch comes with masks among its items ([`Bert4Rec::mask_row`]) and is read
    /// everywhere. Otherwise a mask is put behind each history and read alone.
    fn forward(
        &self,
        batch: &HistoryBatch,
        mut mode: Mode<'_>,
        state_layers: &[usize],
    ) -> Result<ModelOutput> {
        let trains = matches!(mode, Mode::Train(_));
        let with_masks = if trains {
            None
        } else {
            Some(self.with_masks(batch)?)
        };
        let batch = with_masks.as_ref().unwrap_or(batch);
        let (rows, steps) = batch.items.dims2()?;
        if steps > self.settings.max_history + 1 {
            candle_core::bail!(
                "histories of {steps} items, a mask among them; the model takes {}",
                self.settings.max_history + 1
            );
        }
        let (users, states) = self.run(batch, &mut mode)?;
        let last = batch.last_positions()?;
        let read = |x: &Tensor| {
            if trains {
                x.reshape((rows, steps, self.settings.hidden_size))
            } else {
                x.index_select(&last, 0)?.unsqueeze(1)
            }
        };
        let state = |layer: &usize| match states.get(layer.wrapping_sub(1)) {
            Some(_) if *layer == states.len() => read(&users),
            Some(state) => read(state),
            None => candle_core::bail!("a state after layer {layer}, of {}", states.len()),
        };
        Ok(ModelOutput {
            user_vectors: read(&users)?,
            states: state_layers.iter().map(state).collect::<Result<_>>()?,
        })
    }

    fn item_table(&self) -> ItemTable<'_> {
        (&self.item_embeddings).into()
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn num_layers(&self) -> usize {
        self.settings.num_hidden_layers
    }

    fn max_history(&self) -> usize {
        self.settings.max_history
    }
}

fn check(s: &Bert4RecSettings) -> Result<()> {
    let sizes = [
        s.hidden_size,
        s.num_hidden_layers,
        s.num_attention_heads,
        s.intermediate_size,
        s.max_history,
    ];
    if sizes.iter().any(|size| !(1..=MAX_SIZE).contains(size))
        || !s.hidden_size.is_multiple_of(s.num_attention_heads)
        || !(0.0..1.0).contains(&s.dropout)
    {
        candle_core::bail!(
            "expected sizes of 1 to {MAX_SIZE}, heads that divide hidden_size, a dropout below 1; found {s:?}"
        );
    }
    Ok(())
}

/// Name and shape of every parameter.
fn shapes(settings: &Bert4RecSettings, num_items: usize) -> Vec<(String, Vec<usize>)> {
    let (d, inner) = (settings.hidden_size, settings.intermediate_size);
    let mut shapes = vec![
        (ITEM_EMBEDDINGS.to_owned(), vec![num_items + 1, d]),
        ("mask_embedding.weight".to_owned(), vec![1, d]),
        (
            "position_embeddings.weight".to_owned(),
            vec![settings.max_history + 1, d],
        ),
    ];
    let mut pair = |name: String, weight: Vec<usize>| {
        shapes.push((format!("{name}.bias"), vec![weight[0]]));
        shapes.push((format!("{name}.weight"), weight));
    };
    for layer in 0..settings.num_hidden_layers {
        for (part, weight) in [
            ("attention_norm", vec![d]),
            ("attention.q_proj", vec![d, d]),
            ("attention.k_proj", vec![d, d]),
            ("attention.v_proj", vec![d, d]),
            ("attention.o_proj", vec![d, d]),
            ("mlp_norm", vec![d]),
            ("mlp.up_proj", vec![inner, d]),
            ("mlp.down_proj", vec![d, inner]),
        ] {
            pair(format!("layers.{layer}.{part}"), weight);
        }
    }
    pair("final_norm".to_owned(), vec![d]);
    pair("output".to_owned(), vec![d, d]);
    pair("output_norm".to_owned(), vec![d]);
    shapes
}
