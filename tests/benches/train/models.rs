//! The models that are measured, and one step of their training.

use std::error::Error;

use candle_core::{DType, Device, IndexOp as _};
use slmrec_core::ItemIndex;
use slmrec_distill::model::ops::linear::linear;
use slmrec_distill::model::parameters::normal;
use slmrec_distill::model::{
    BodyTraining, LlmRecommender, LlmSettings, LoraSettings, MaskRng, Parameters, PretrainedBase,
    SequentialModel, TargetModule,
};
use slmrec_distill::train::adamw::AdamW;
use slmrec_distill::train::{Objective, TrainSettings, TrainingBatch};
use slmrec_export::checkpoint::{LlamaConfig, Prompt};

pub(super) const ITEMS: usize = 12_000;
pub(super) const ITEM_DIM: usize = 128;
pub(super) const HISTORY: usize = 50;
pub(super) const PROMPT: usize = 40;
pub(super) const HIDDEN: usize = 576;
pub(super) const MLP: usize = 1536;
pub(super) const KEY_VALUE: usize = 192;
pub(super) const RANK: usize = 16;

/// LoRA on all seven projections, without dropout, as the peer has it.
pub(super) fn lora() -> BodyTraining {
    BodyTraining::Lora(LoraSettings {
        r: RANK,
        alpha: RANK as f64,
        dropout: 0.0,
        target_modules: vec![
            TargetModule::QProj,
            TargetModule::KProj,
            TargetModule::VProj,
            TargetModule::OProj,
            TargetModule::GateProj,
            TargetModule::UpProj,
            TargetModule::DownProj,
        ],
    })
}

/// A recommender without a prompt.
pub(super) fn language_model(
    layers: usize,
    training: BodyTraining,
    max_history: usize,
) -> Result<LlmRecommender, Box<dyn Error>> {
    let embeddings = normal((ITEMS + 1, ITEM_DIM), 0.1, 2, DType::F32, &Device::Cpu)?;
    let settings = settings(training, max_history);
    let base = base(layers)?;
    Ok(LlmRecommender::new(
        &base,
        &embeddings,
        &settings,
        1,
        &Device::Cpu,
    )?)
}

/// The same recommender with a prompt of [`PROMPT`] tokens, whose embeddings are what the first
/// [`PROMPT`] items look like to the body: histories that begin with those items give the same
/// without a prompt.
pub(super) fn prompted_model(
    layers: usize,
    training: BodyTraining,
) -> Result<LlmRecommender, Box<dyn Error>> {
    let own = language_model(layers, BodyTraining::Frozen, HISTORY)?.own_tensors()?;
    let tensor = |name: &str| own.get(name).ok_or_else(|| format!("{name}: missing"));
    let items = tensor("item_embeddings.weight")?.i(1..=PROMPT)?;
    let prompt = linear(&items, tensor("item_projection.weight")?)?
        .broadcast_add(tensor("item_projection.bias")?)?;
    let mut base = base(layers)?;
    base.prompt = Prompt {
        prefix_tokens: (0..PROMPT as u32).collect(),
        ..Prompt::default()
    };
    base.prompt_embeddings = Some(prompt);
    let settings = settings(training, HISTORY);
    Ok(LlmRecommender::from_parts(&base, &own, &settings, 1)?)
}

fn settings(training: BodyTraining, max_history: usize) -> LlmSettings {
    LlmSettings {
        max_history,
        training,
        ..LlmSettings::default()
    }
}

fn base(layers: usize) -> Result<PretrainedBase, Box<dyn Error>> {
    let config: LlamaConfig = serde_json::from_value(serde_json::json!({
        "model_type": "llama", "vocab_size": 49152, "hidden_size": HIDDEN,
        "intermediate_size": MLP, "num_hidden_layers": layers, "num_attention_heads": 9,
        "num_key_value_heads": 3, "rms_norm_eps": 1e-5, "rope_theta": 100000.0,
        "hidden_act": "silu", "max_position_embeddings": 8192
    }))?;
    Ok(PretrainedBase::random(&config, 1, &Device::Cpu)?)
}

/// Item t of history `row`: the same for everyone, and no two histories alike.
pub(super) fn item(row: usize, t: usize, items: usize) -> ItemIndex {
    ItemIndex((1 + (row * 97 + t * 13) % items) as u32)
}

/// A model in training.
pub(super) struct Stepper<'a> {
    model: &'a dyn SequentialModel,
    objective: &'a dyn Objective,
    optimizer: AdamW,
}

impl<'a> Stepper<'a> {
    pub(super) fn new(
        model: &'a dyn SequentialModel,
        objective: &'a dyn Objective,
    ) -> Result<Self, Box<dyn Error>> {
        let mut parameters = Parameters::default();
        parameters.extend("model.", model.parameters())?;
        parameters.extend("objective.", objective.parameters())?;
        let optimizer = AdamW::new(&parameters, &TrainSettings::default())?;
        Ok(Self {
            model,
            objective,
            optimizer,
        })
    }

    /// One optimizer step; gives the loss before it.
    pub(super) fn step(&mut self, batch: &TrainingBatch) -> Result<f64, Box<dyn Error>> {
        let mut rng = MaskRng::new(1, self.optimizer.step);
        let losses = self.objective.loss(self.model, batch, &mut rng)?;
        let gradients = losses.total.backward()?;
        let lookups = batch.histories.lookups.as_deref();
        self.optimizer.update(&gradients, lookups, 1e-4)?;
        Ok(f64::from(losses.total.to_scalar::<f32>()?))
    }
}
