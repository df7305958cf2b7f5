//! GRU4Rec (Hidasi et al., ICLR 2016), trained as SASRec is: full cross-entropy at every position, one
//! table for input and output. In that form it is far above its published figures (Petrov &
//! Macdonald, RecSys 2023; Klenitskiy & Vasilev, RecSys 2023).

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::directory::{self, Header, MAX_SIZE};
use super::recurrence::recurrence;
use crate::model::file_error::ModelFileError;
use crate::model::init::{named_seed, uniform};
use crate::model::item_lookups::ItemTable;
use crate::model::ops::linear::linear;
use crate::model::parameters::normal;
use crate::model::{HistoryBatch, Mode, ModelOutput, Parameters, ReadAt, SequentialModel};

const KIND: &str = "gru4rec";
const ITEM_EMBEDDINGS: &str = "item_embeddings.weight";
/// Standard deviation of new item embeddings.
const INIT_STD: f64 = 0.02;

/// Shape and regularisation of a GRU4Rec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gru4RecSettings {
    /// Size D of item embeddings and states.
    pub hidden_size: usize,
    /// Number of recurrent layers.
    pub num_hidden_layers: usize,
    /// Longest history.
    pub max_history: usize,
    /// Probability of dropout on embeddings and between layers.
    pub dropout: f64,
}

impl Default for Gru4RecSettings {
    fn default() -> Self {
        Self {
            hidden_size: 128,
            num_hidden_layers: 1,
            max_history: 50,
            dropout: 0.3,
        }
    }
}

/// The model.
pub struct Gru4Rec {
    settings: Gru4RecSettings,
    num_items: usize,
    parameters: Parameters,
    item_embeddings: Tensor,
    layers: Vec<Layer>,
    /// `[D, D]` and `[D]`
    output: (Tensor, Tensor),
}

/// The tensors of a recurrent layer, as PyTorch has them.
struct Layer {
    /// `[3D, D]` and `[3D]`
    input: (Tensor, Tensor),
    /// `[3D, D]` and `[3D]`
    state: (Tensor, Tensor),
}

impl Gru4Rec {
    /// A model over `num_items` items with weights drawn from `seed`.
    ///
    /// # Errors
    /// Sizes of zero or a dropout outside `0..1`; what candle reports.
    pub fn new(
        settings: Gru4RecSettings,
        num_items: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        check(&settings)?;
        let mut parameters = Parameters::default();
        // PyTorch's start of recurrent and of linear layers.
        let bound = (settings.hidden_size as f64).powf(-0.5);
        for (name, shape) in shapes(&settings, num_items) {
            let seed = named_seed(seed, &name);
            let value = if name == ITEM_EMBEDDINGS {
                let rows = (shape[0] - 1, shape[1]);
                normal(rows, INIT_STD, seed, DType::F32, device)?.pad_with_zeros(0, 1, 0)?
            } else {
                uniform(shape, bound, seed, device)?
            };
            parameters.insert(name, &value)?;
        }
        Self::from_parameters(settings, num_items, parameters)
    }

    fn from_parameters(
        settings: Gru4RecSettings,
        num_items: usize,
        parameters: Parameters,
    ) -> Result<Self> {
        let get = |name: &str| match parameters.get(name) {
            Some(var) => Ok(var.as_tensor().clone()),
            None => candle_core::bail!("the parameter {name} is missing"),
        };
        let pair = |weight: String, bias: String| {
            Ok::<_, candle_core::Error>((get(&weight)?, get(&bias)?))
        };
        let layers = (0..settings.num_hidden_layers)
            .map(|l| {
                Ok(Layer {
                    input: pair(format!("gru.weight_ih_l{l}"), format!("gru.bias_ih_l{l}"))?,
                    state: pair(format!("gru.weight_hh_l{l}"), format!("gru.bias_hh_l{l}"))?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            item_embeddings: get(ITEM_EMBEDDINGS)?,
            output: pair("output.weight".to_owned(), "output.bias".to_owned())?,
            layers,
            settings,
            num_items,
            parameters,
        })
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
        let (settings, items, parameters) = directory::load(dir, KIND, (check, shapes), device)?;
        Self::from_parameters(settings, items, parameters).map_err(ModelFileError::tensor(dir))
    }
}

fn check(s: &Gru4RecSettings) -> Result<()> {
    let sizes = [s.hidden_size, s.num_hidden_layers, s.max_history];
    if sizes.iter().any(|size| !(1..=MAX_SIZE).contains(size)) || !(0.0..1.0).contains(&s.dropout) {
        candle_core::bail!("expected sizes of 1 to {MAX_SIZE} and a dropout below 1, found {s:?}");
    }
    Ok(())
}

/// Name and shape of every parameter.
fn shapes(settings: &Gru4RecSettings, num_items: usize) -> Vec<(String, Vec<usize>)> {
    let d = settings.hidden_size;
    let mut shapes = vec![
        (ITEM_EMBEDDINGS.to_owned(), vec![num_items + 1, d]),
        ("output.weight".to_owned(), vec![d, d]),
        ("output.bias".to_owned(), vec![d]),
    ];
    for layer in 0..settings.num_hidden_layers {
        for of in ["ih", "hh"] {
            shapes.push((format!("gru.weight_{of}_l{layer}"), vec![3 * d, d]));
            shapes.push((format!("gru.bias_{of}_l{layer}"), vec![3 * d]));
        }
    }
    shapes
}

impl SequentialModel for Gru4Rec {
    fn forward(
        &self,
        batch: &HistoryBatch,
        mut mode: Mode<'_>,
        state_layers: &[usize],
    ) -> Result<ModelOutput> {
        let (rows, steps) = batch.items.dims2()?;
        if steps > self.settings.max_history {
            candle_core::bail!(
                "histories of {steps} items, the model takes {}",
                self.settings.max_history
            );
        }
        let drop = |x: Tensor, mode: &mut Mode<'_>| match mode {
            Mode::Train(rng) => rng.dropout(&x, self.settings.dropout),
            Mode::Eval => Ok(x),
        };
        // In order of time; what comes after the end of a shorter history is read by nobody.
        let items: Vec<u32> = batch.items.t()?.contiguous()?.flatten_all()?.to_vec1()?;
        let table = ItemTable::from(&self.item_embeddings).with(batch.lookups.as_deref());
        let mut x = drop(table.rows(&items)?, &mut mode)?;
        let mut states = Vec::with_capacity(self.layers.len());
        for (number, layer) in self.layers.iter().enumerate() {
            if number > 0 {
                x = drop(x, &mut mode)?;
            }
            let gates = linear(&x, &layer.input.0)?.broadcast_add(&layer.input.1)?;
            x = recurrence(&gates, &layer.state.0, &layer.state.1, steps)?;
            states.push(x.clone());
        }
        let users = linear(&x, &self.output.0)?.broadcast_add(&self.output.1)?;
        let read = |x: &Tensor| {
            let width = x.dims2()?.1;
            let by_row = x
                .reshape((steps, rows, width))?
                .transpose(0, 1)?
                .contiguous()?;
            match batch.read {
                ReadAt::EveryItem => Ok(by_row),
                ReadAt::LastItem => (by_row.reshape((rows * steps, width))?)
                    .index_select(&batch.last_positions()?, 0)?
                    .unsqueeze(1),
            }
        };
        let state = |layer: &usize| match states.get(layer.wrapping_sub(1)) {
            Some(_) if *layer == self.layers.len() => read(&users),
            Some(state) => read(state),
            None => candle_core::bail!("a state after layer {layer}, of {}", self.layers.len()),
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
        self.layers.len()
    }

    fn max_history(&self) -> usize {
        self.settings.max_history
    }
}
