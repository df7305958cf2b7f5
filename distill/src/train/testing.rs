//! Small models that the tests of training share.

use candle_core::{DType, Device, Result, Tensor};
use slmrec_core::manifest::Readout;
use slmrec_export::checkpoint::{LlamaConfig, Prompt};

use super::{Objective, TrainingBatch};
use crate::model::parameters::normal;
use crate::model::{
    BodyTraining, HistoryBatch, ItemTable, LlmRecommender, LlmSettings, LoraSettings, MaskRng,
    Mode, ModelOutput, Parameters, PretrainedBase, ReadAt, SasRec, SasRecSettings, SequentialModel,
};

/// Items of the tests' catalog.
pub(crate) const ITEMS: usize = 9;

/// A SASRec over [`ITEMS`] items and histories of at most 5, always the same.
pub(crate) fn sasrec(num_hidden_layers: usize, hidden_size: usize, dropout: f64) -> SasRec {
    sasrec_on(num_hidden_layers, hidden_size, dropout, &Device::Cpu)
}

/// The same on a device.
pub(crate) fn sasrec_on(
    num_hidden_layers: usize,
    hidden_size: usize,
    dropout: f64,
    device: &Device,
) -> SasRec {
    let settings = SasRecSettings {
        hidden_size,
        num_hidden_layers,
        num_attention_heads: 2,
        intermediate_size: 8,
        max_history: 5,
        dropout,
        ..SasRecSettings::default()
    };
    SasRec::new(settings, ITEMS, 3, device).expect("model")
}

/// A decoder over [`ITEMS`] items and histories of at most 5 with adapters everywhere, behind a
/// prompt of two tokens (and one after the items for the `response` readout); always the same.
pub(crate) fn language_model(
    layers: usize,
    hidden_size: usize,
    dropout: f64,
    readout: Readout,
    device: &Device,
) -> LlmRecommender {
    let settings = LlmSettings {
        readout,
        max_history: 5,
        training: BodyTraining::Lora(LoraSettings {
            r: 2,
            dropout,
            ..LoraSettings::default()
        }),
        ..LlmSettings::default()
    };
    language_model_with(layers, hidden_size, &settings, device)
}

/// The same with settings of the caller.
pub(crate) fn language_model_with(
    layers: usize,
    hidden_size: usize,
    settings: &LlmSettings,
    device: &Device,
) -> LlmRecommender {
    let config = LlamaConfig {
        architectures: vec!["LlamaForCausalLM".to_owned()],
        model_type: "llama".to_owned(),
        hidden_size,
        intermediate_size: 2 * hidden_size,
        num_hidden_layers: layers,
        num_attention_heads: 2,
        num_key_value_heads: Some(1),
        head_dim: Some(4),
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        vocab_size: 1,
        max_position_embeddings: 64,
        tie_word_embeddings: true,
        hidden_act: "silu".to_owned(),
    };
    let random = |shape: (usize, usize), std, seed| normal(shape, std, seed, DType::F32, device);
    let mut base = PretrainedBase::random(&config, 1, device).expect("base");
    let suffix = usize::from(settings.readout == Readout::Response);
    base.prompt = Prompt {
        prefix: "before".to_owned(),
        suffix: "after".repeat(suffix),
        prefix_tokens: vec![0, 1],
        suffix_tokens: vec![2; suffix],
    };
    base.prompt_embeddings = Some(random((2 + suffix, hidden_size), 1.0, 2).expect("prompt"));
    let items = random((ITEMS + 1, 6), 1.0, 3).expect("items");
    let model = LlmRecommender::new(&base, &items, settings, 4, device).expect("model");
    // The adapters' second matrices begin as zeros, which would hide the first ones.
    for (at, (name, var)) in model.parameters().iter().enumerate() {
        if name.contains("lora_B") {
            let value = normal(var.shape(), 0.3, at as u64, DType::F32, device);
            var.set(&value.expect("values")).expect("set");
        }
    }
    model
}

/// The terms of a loss and the gradients of all parameters, by name.
pub(crate) fn terms_and_gradients(
    objective: &dyn Objective,
    model: &dyn SequentialModel,
    batch: &TrainingBatch,
) -> Vec<(String, Tensor)> {
    let losses = (objective.loss(model, batch, &mut MaskRng::new(1, 1))).expect("loss");
    let gradients = losses.total.backward().expect("backward");
    let term = |(name, value): &(&str, f64)| {
        let value = Tensor::new(*value as f32, &Device::Cpu).expect("value");
        ((*name).to_owned(), value)
    };
    let parameters = (model.parameters().iter()).chain(objective.parameters().iter());
    let gradient = |(name, var): (&str, &candle_core::Var)| {
        let of_rows = (batch.histories.lookups.as_ref())
            .and_then(|lookups| lookups.gradient(var, &gradients).expect("sum"));
        let gradient = match of_rows {
            Some(rows) => rows.dense(var).expect("dense"),
            None => gradients.get(var).expect(name).clone(),
        };
        (format!("gradient of {name}"), gradient)
    };
    (losses.terms.iter().map(term))
        .chain(parameters.map(gradient))
        .collect()
}

/// One vector a history whatever is asked for, as the `response` readout has it.
pub(crate) struct Response<'a>(pub(super) &'a SasRec);

impl SequentialModel for Response<'_> {
    fn forward(
        &self,
        batch: &HistoryBatch,
        mode: Mode<'_>,
        state_layers: &[usize],
    ) -> Result<ModelOutput> {
        let last = batch.clone().reading(ReadAt::LastItem);
        self.0.forward(&last, mode, state_layers)
    }

    fn item_table(&self) -> ItemTable<'_> {
        self.0.item_table()
    }

    fn parameters(&self) -> &Parameters {
        self.0.parameters()
    }

    fn num_layers(&self) -> usize {
        self.0.num_layers()
    }

    fn max_history(&self) -> usize {
        self.0.max_history()
    }
}
