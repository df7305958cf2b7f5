//! SASRec (Kang & McAuley, ICDM 2018): causal self-attention over item embeddings, in the form that
//! later comparisons found strong: pre-norm blocks, a final norm, one table for input and output.
//!
//! Positions count from the start: the oldest item of the history is at position 0, as everywhere
//! in this product, so the single run, the batch and the padded batch are the same.
//!
//! Users and items are scored by their dot product, or by their cosine over a temperature
//! ([`Scores::Cosine`]): an item is then a direction, so that no item is recommended for its length.
//!
//! With titles an item is `E[i] + W t[i]` instead of `E[i]`, in the history and in the catalog: t is
//! a frozen vector of its title ([`TitleProjection`]).

mod block;
#[cfg(test)]
mod block_tests;
mod files;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod title_tests;

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

pub use files::{CONFIG_FILE, SasRecConfig, SasRecError, WEIGHTS_FILE};

use super::ops::attention::Segments;
use super::ops::embedding::Embedding;
use super::ops::fused;
use super::parameters::normal;
use super::{
    HistoryBatch, ItemTable, Mode, ModelOutput, Parameters, ReadAt, SequentialModel,
    TitleProjection, unit_rows,
};
use block::{Block, BlockTensors, NormWeights, Pass};

/// Shape and regularisation of a SASRec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SasRecSettings {
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
    /// Probability of dropout, on embeddings, attention weights and both branches.
    pub dropout: f64,
    /// How users and items are scored.
    pub scores: Scores,
    /// What cosine scores are divided by.
    pub temperature: f64,
}

/// How the user vector u and the item v are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scores {
    /// `u · v`
    #[default]
    Dot,
    /// `cos(u, v) / temperature`: the user vectors have the length `1 / temperature`, the items the
    /// length 1, in the history, too.
    Cosine,
}

impl Default for SasRecSettings {
    fn default() -> Self {
        Self {
            hidden_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 128,
            max_history: 50,
            dropout: 0.3,
            scores: Scores::Dot,
            temperature: 0.1,
        }
    }
}

impl SasRecSettings {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`SasRecError::Setting`] for the first field outside its range.
    pub fn check(&self) -> std::result::Result<(), SasRecError> {
        let setting = |name, right: bool, expected: String, found: String| {
            if right {
                return Ok(());
            }
            Err(SasRecError::Setting {
                name,
                expected,
                found,
            })
        };
        for (name, value) in [
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_history", self.max_history),
        ] {
            let right = (1..=MAX_SIZE).contains(&value);
            setting(name, right, format!("1..={MAX_SIZE}"), value.to_string())?;
        }
        setting(
            "num_attention_heads",
            self.hidden_size.is_multiple_of(self.num_attention_heads),
            format!("a divisor of hidden_size {}", self.hidden_size),
            self.num_attention_heads.to_string(),
        )?;
        setting(
            "dropout",
            (0.0..1.0).contains(&self.dropout),
            "at least 0 and below 1".to_owned(),
            self.dropout.to_string(),
        )?;
        setting(
            "temperature",
            (0.001..=100.0).contains(&self.temperature),
            "0.001 to 100".to_owned(),
            self.temperature.to_string(),
        )?;
        let default = Self::default().temperature;
        setting(
            "temperature",
            self.scores == Scores::Cosine || self.temperature == default,
            format!("{default}, since dot products have none (scores = \"cosine\" has)"),
            self.temperature.to_string(),
        )
    }
}

/// Largest value of any size in the settings: a guard against absurd files.
const MAX_SIZE: usize = 1 << 16;
/// Standard deviation of new weights.
const INIT_STD: f64 = 0.02;

/// The model.
pub struct SasRec {
    settings: SasRecSettings,
    num_items: usize,
    parameters: Parameters,
    item_embeddings: Tensor,
    titles: Option<TitleProjection>,
    position_embeddings: Tensor,
    blocks: Vec<Block>,
    final_norm: NormWeights,
}

impl SasRec {
    /// A model over `num_items` items with weights drawn from `seed`.
    ///
    /// # Errors
    /// [`SasRecError::Setting`]; what candle reports.
    pub fn new(
        settings: SasRecSettings,
        num_items: usize,
        seed: u64,
        device: &Device,
    ) -> std::result::Result<Self, SasRecError> {
        Self::from_seed(settings, num_items, None, seed, device)
    }

    /// The same over items with titles, whose vectors are `[N + 1, T]`; row 0 is not read.
    /// What both models have begins as the same.
    ///
    /// # Errors
    /// As [`SasRec::new`], and for vectors of no item.
    pub fn with_titles(
        settings: SasRecSettings,
        title_vectors: &Tensor,
        seed: u64,
        device: &Device,
    ) -> std::result::Result<Self, SasRecError> {
        let num_items = title_vectors.dims2()?.0.saturating_sub(1);
        let vectors = title_vectors.narrow(0, 1, num_items)?;
        let vectors = vectors.pad_with_zeros(0, 1, 0)?.to_device(device)?;
        Self::from_seed(settings, num_items, Some(vectors), seed, device)
    }

    fn from_seed(
        settings: SasRecSettings,
        num_items: usize,
        title_vectors: Option<Tensor>,
        seed: u64,
        device: &Device,
    ) -> std::result::Result<Self, SasRecError> {
        settings.check()?;
        let title_size = title_vectors.as_ref().map(Tensor::dims2).transpose()?;
        let title_size = title_size.map(|(_, size)| size);
        let mut parameters = Parameters::default();
        let shapes = shapes(&settings, num_items, title_size);
        for (at, (name, shape)) in shapes.into_iter().enumerate() {
            let value = initial(&name, &shape, seed.wrapping_add(at as u64), device)?;
            parameters.insert(name, &value)?;
        }
        Ok(Self::from_parameters(
            settings,
            num_items,
            parameters,
            title_vectors,
        )?)
    }

    /// Wires up parameters that are all there, in their shapes.
    fn from_parameters(
        settings: SasRecSettings,
        num_items: usize,
        parameters: Parameters,
        title_vectors: Option<Tensor>,
    ) -> Result<Self> {
        let get = |name: String| match parameters.get(&name) {
            Some(var) => Ok(var.as_tensor().clone()),
            None => candle_core::bail!("the parameter {name} is missing"),
        };
        let norm = |name: String| {
            Ok::<_, candle_core::Error>(NormWeights {
                weight: get(format!("{name}.weight"))?,
                bias: get(format!("{name}.bias"))?,
            })
        };
        let mut blocks = Vec::with_capacity(settings.num_hidden_layers);
        for layer in 0..settings.num_hidden_layers {
            let attention =
                |part: &str| get(format!("layers.{layer}.attention.{part}_proj.weight"));
            let mlp = |part: &str| get(format!("layers.{layer}.mlp.{part}"));
            let tensors = BlockTensors {
                attention_norm: norm(format!("layers.{layer}.attention_norm"))?,
                query: attention("q")?,
                key: attention("k")?,
                value: attention("v")?,
                output: attention("o")?,
                mlp_norm: norm(format!("layers.{layer}.mlp_norm"))?,
                up: (mlp("up_proj.weight")?, mlp("up_proj.bias")?),
                down: (mlp("down_proj.weight")?, mlp("down_proj.bias")?),
            };
            blocks.push(Block::new(tensors, settings.num_attention_heads)?);
        }
        let titles = title_vectors
            .map(|vectors| TitleProjection::new(&vectors, &get(TITLE_PROJECTION.to_owned())?))
            .transpose()?;
        Ok(Self {
            titles,
            item_embeddings: get(ITEM_EMBEDDINGS.to_owned())?,
            position_embeddings: get(POSITION_EMBEDDINGS.to_owned())?,
            final_norm: norm("final_norm".to_owned())?,
            blocks,
            settings,
            num_items,
            parameters,
        })
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &SasRecSettings {
        &self.settings
    }

    /// Number of items N.
    #[must_use]
    pub fn num_items(&self) -> usize {
        self.num_items
    }

    fn has_unit_items(&self) -> bool {
        self.settings.scores == Scores::Cosine
    }

    /// What an item of the history is multiplied by: the output reads the same table, where entries of
    /// size 1 would be far too long. Items of length 1 begin as those of the dot product do.
    fn input_scale(&self) -> f64 {
        let size = self.settings.hidden_size as f64;
        match self.settings.scores {
            Scores::Dot => size.sqrt(),
            Scores::Cosine => INIT_STD * size,
        }
    }

    /// Items and positions of the batch's real items, row after row, `[tokens, D]`.
    fn embed(&self, batch: &HistoryBatch, pass: &mut Pass<'_, '_>) -> Result<Tensor> {
        let (_, length) = batch.items.dims2()?;
        if length > self.settings.max_history {
            candle_core::bail!(
                "histories of {length} items, the model takes {}",
                self.settings.max_history
            );
        }
        let mask = pass.mask();
        let scale = self.input_scale();
        let mut rows: Vec<u32> = batch.packed_items()?.to_vec1()?;
        let lookups = batch.lookups.as_deref().filter(|_| pass.trains());
        let mut positions = self.position_embeddings.clone();
        let mut items = self.item_embeddings.clone();
        let computed = self.titles.is_some() || self.has_unit_items();
        if lookups.is_some() || computed {
            items = self.item_table().with(lookups).rows(&rows)?;
            rows = (0..).take(rows.len()).collect();
        }
        if !pass.trains() {
            (items, positions) = (items.detach(), positions.detach());
        }
        if fused(&items) {
            let embedding = Embedding {
                segments: pass.segments.clone(),
                items: rows,
                scale: scale as f32,
                mask,
            };
            return embedding.run(&items, &positions);
        }
        let rows = Tensor::new(rows, items.device())?;
        let items = (items.index_select(&rows, 0)? * scale)?;
        let places: Vec<u32> = (batch.lengths.iter())
            .flat_map(|len| 0..*len as u32)
            .collect();
        let places = Tensor::new(places, positions.device())?;
        let x = (items + positions.index_select(&places, 0)?)?;
        match mask {
            Some(mask) => mask.apply(&x),
            None => Ok(x),
        }
    }
}

impl SequentialModel for SasRec {
    fn forward(
        &self,
        batch: &HistoryBatch,
        mut mode: Mode<'_>,
        state_layers: &[usize],
    ) -> Result<ModelOutput> {
        let count = self.blocks.len();
        if let Some(layer) = state_layers.iter().find(|l| !(1..=count).contains(l)) {
            candle_core::bail!("a state after layer {layer}, the model has layers 1..={count}");
        }
        let mut pass = Pass {
            segments: Arc::new(Segments {
                prefix: 0,
                lengths: batch.lengths.clone(),
            }),
            mode: &mut mode,
            dropout: self.settings.dropout,
        };
        let last_items = (batch.read == ReadAt::LastItem).then(|| Arc::new(last_items(batch)));
        let mut x = self.embed(batch, &mut pass)?;
        let mut after = Vec::with_capacity(count);
        for (index, block) in self.blocks.iter().enumerate() {
            // Only the last block's output is not looked at by a later item.
            let reads = (last_items.clone()).filter(|_| index + 1 == count);
            x = block.forward(&x, reads, &mut pass)?;
            after.push(state_layers.contains(&(index + 1)).then(|| x.clone()));
        }
        let mut users = self.final_norm.forward(&x, &pass)?;
        if self.settings.scores == Scores::Cosine {
            users = (unit_rows(&users)? / self.settings.temperature)?;
        }
        let state = |layer: &usize| match (&after[layer - 1], &last_items) {
            (Some(state), None) if *layer < count => batch.unpack(state),
            (Some(state), Some(reads)) if *layer < count => {
                let reads = Tensor::new(reads.as_slice(), state.device())?;
                state.index_select(&reads, 0)?.unsqueeze(1)
            }
            (_, None) => batch.unpack(&users),
            (_, Some(_)) => users.unsqueeze(1),
        };
        Ok(ModelOutput {
            user_vectors: state(&count)?,
            states: state_layers.iter().map(state).collect::<Result<_>>()?,
        })
    }

    fn item_table(&self) -> ItemTable<'_> {
        ItemTable {
            titles: self.titles.as_ref(),
            unit_rows: self.has_unit_items(),
            ..(&self.item_embeddings).into()
        }
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn num_layers(&self) -> usize {
        self.blocks.len()
    }

    fn max_history(&self) -> usize {
        self.settings.max_history
    }
}

/// The packed token of each history's last item.
fn last_items(batch: &HistoryBatch) -> Vec<u32> {
    let mut end = 0;
    (batch.lengths.iter())
        .map(|len| {
            end += *len as u32;
            end - 1
        })
        .collect()
}

const ITEM_EMBEDDINGS: &str = "item_embeddings.weight";
const POSITION_EMBEDDINGS: &str = "position_embeddings.weight";
const TITLE_PROJECTION: &str = "title_projection.weight";

/// Name and shape of every parameter; `title_size` is that of the titles' vectors, if there are any.
fn shapes(
    settings: &SasRecSettings,
    num_items: usize,
    title_size: Option<usize>,
) -> Vec<(String, Vec<usize>)> {
    let (d, inner) = (settings.hidden_size, settings.intermediate_size);
    let mut shapes = vec![
        (ITEM_EMBEDDINGS.to_owned(), vec![num_items + 1, d]),
        (
            POSITION_EMBEDDINGS.to_owned(),
            vec![settings.max_history, d],
        ),
        ("final_norm.weight".to_owned(), vec![d]),
        ("final_norm.bias".to_owned(), vec![d]),
    ];
    for layer in 0..settings.num_hidden_layers {
        let parts: [(&str, Vec<usize>); 12] = [
            ("attention_norm.weight", vec![d]),
            ("attention_norm.bias", vec![d]),
            ("attention.q_proj.weight", vec![d, d]),
            ("attention.k_proj.weight", vec![d, d]),
            ("attention.v_proj.weight", vec![d, d]),
            ("attention.o_proj.weight", vec![d, d]),
            ("mlp_norm.weight", vec![d]),
            ("mlp_norm.bias", vec![d]),
            ("mlp.up_proj.weight", vec![inner, d]),
            ("mlp.up_proj.bias", vec![inner]),
            ("mlp.down_proj.weight", vec![d, inner]),
            ("mlp.down_proj.bias", vec![d]),
        ];
        shapes.extend(parts.map(|(part, shape)| (format!("layers.{layer}.{part}"), shape)));
    }
    shapes.extend(title_size.map(|size| (TITLE_PROJECTION.to_owned(), vec![d, size])));
    shapes
}

fn initial(name: &str, shape: &[usize], seed: u64, device: &Device) -> Result<Tensor> {
    if name.ends_with("norm.weight") {
        return Tensor::ones(shape, DType::F32, device);
    }
    if name.ends_with(".bias") {
        return Tensor::zeros(shape, DType::F32, device);
    }
    let value = normal(shape, INIT_STD, seed, DType::F32, device)?;
    if name != ITEM_EMBEDDINGS {
        return Ok(value);
    }
    // Row 0 is padding: zero from the start, and no gradient ever reaches it.
    value.narrow(0, 1, shape[0] - 1)?.pad_with_zeros(0, 1, 0)
}
