//! How long a step takes, from a few steps at the real widths.
//!
//! Layers are alike, so one and two of them tell what a layer costs and what the rest does. Weights
//! are constants: the time of a matrix product does not depend on its values.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use slmrec_export::checkpoint::{LlamaConfig, Prompt};

use super::{Time, Work};
use crate::model::llama::tensor_shapes;
use crate::model::{
    LlmRecommender, LlmSettings, Mode, Parameters, PretrainedBase, SasRec, SasRecSettings,
    SequentialModel,
};
use crate::train::adamw::AdamW;
use crate::train::parts::{self, Parts};
use crate::train::replicas::Replica;
use crate::train::{
    CrossEntropy, DistillSettings, Distillation, Objective, TrainError, TrainSettings,
    TrainingBatch, TrainingData,
};

/// A measurement that took longer is not repeated.
const LONG: f64 = 0.5;
/// Runs of a short measurement; the fastest counts.
const REPEATS: usize = 3;
/// Value of all weights: small enough for nothing to overflow.
const WEIGHT: f64 = 0.01;

/// What is timed.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// The loop's settings.
    pub train: &'a TrainSettings,
    /// The data.
    pub data: &'a TrainingData,
    /// Items of all histories that the validation runs.
    pub validated_items: u64,
    /// The work of the run.
    pub work: Work,
    /// Where tensors live.
    pub device: &'a Device,
}

/// Time of a SASRec; `title_size` is that of the vectors of titles, where it has them.
///
/// # Errors
/// Whatever model and training report.
pub fn sasrec(
    subject: &Subject<'_>,
    settings: &SasRecSettings,
    title_size: Option<usize>,
) -> Result<Time, TrainError> {
    let (items, device) = (subject.data.num_items(), subject.device);
    let model = match title_size {
        Some(size) => {
            let vectors = Tensor::zeros((items + 1, size), DType::F32, device)?;
            SasRec::with_titles(settings.clone(), &vectors, 0, device)
        }
        None => SasRec::new(settings.clone(), items, 0, device),
    }
    .map_err(|e| candle_core::Error::Msg(e.to_string()))?;
    let windows = subject.typical_windows()?;
    let batch = subject.data.batch(&windows, device)?;
    let step = subject.step(&model, &CrossEntropy::default(), &windows)?;
    let forward = forward(&model, &batch)?;
    Ok(subject.time(step, forward, &batch))
}

/// A language-model recommender at the widths of `config`.
#[derive(Clone, Debug)]
pub struct Llm<'a> {
    /// Widths.
    pub config: &'a LlamaConfig,
    /// Layers.
    pub layers: usize,
    /// What stands around the body, and what is trained.
    pub settings: &'a LlmSettings,
    /// The prompt.
    pub prompt: &'a Prompt,
    /// Size D of the item embeddings.
    pub item_dim: usize,
    /// By whom it is taught, for a student.
    pub distillation: Option<Taught<'a>>,
}

/// What a step of a student takes beside itself.
#[derive(Clone, Debug)]
pub struct Taught<'a> {
    /// The teacher's layers.
    pub layers: usize,
    /// Weights of a layer of the teacher for each of the student's: their times are taken to be as
    /// their sizes.
    pub size: f64,
    /// Whether the teacher learns, too.
    pub learns: bool,
    /// What the student minimises.
    pub objective: &'a DistillSettings,
}

/// Time of a language-model recommender.
///
/// # Errors
/// Whatever model and training report.
pub fn decoder(subject: &Subject<'_>, llm: &Llm<'_>) -> Result<Time, TrainError> {
    let windows = subject.typical_windows()?;
    let batch = subject.data.batch(&windows, subject.device)?;
    let one = llm.model(1, subject)?;
    let plain = CrossEntropy::default();
    let steps = Line::new(
        subject.step(&one, &plain, &windows)?,
        subject.step(&llm.model(2, subject)?, &plain, &windows)?,
    );
    let two = llm.model(2, subject)?;
    let forwards = Line::new(forward(&one, &batch)?, forward(&two, &batch)?);
    let mut step = steps.at(llm.layers);
    if let Some(taught) = &llm.distillation {
        let objective = taught.objective;
        let teacher = if taught.learns { &steps } else { &forwards };
        step += taught.size * teacher.at(taught.layers);
        let inner = objective.num_blocks().saturating_sub(1);
        if objective.reads_inner_blocks() && inner > 0 {
            let head = (subject.step_with_head(&two, &windows)? - steps.at(2)).max(0.0);
            let terms = [objective.lambda_ms, objective.lambda_block_kl];
            let terms = terms.iter().filter(|weight| **weight > 0.0).count();
            step += head * (inner * terms) as f64;
        }
    }
    Ok(subject.time(step, forwards.at(llm.layers), &batch))
}

/// A time that grows by the same with every layer.
struct Line {
    one: f64,
    more: f64,
}

impl Line {
    fn new(one: f64, two: f64) -> Self {
        Self {
            one,
            more: (two - one).max(0.0),
        }
    }

    fn at(&self, layers: usize) -> f64 {
        self.one + self.more * (layers.max(1) - 1) as f64
    }
}

impl Llm<'_> {
    fn model(&self, layers: usize, subject: &Subject<'_>) -> Result<LlmRecommender, TrainError> {
        let device = subject.device;
        let config = LlamaConfig {
            num_hidden_layers: layers,
            ..self.config.clone()
        };
        let constant =
            |shape: Vec<usize>| (Tensor::ones(shape, DType::F32, device)? * WEIGHT)?.contiguous();
        let tensors = tensor_shapes(&config)
            .into_iter()
            .map(|(name, shape)| Ok((name, constant(shape)?)))
            .collect::<candle_core::Result<_>>()?;
        let prompt = self.prompt.prefix_tokens.len() + self.prompt.suffix_tokens.len();
        let base = PretrainedBase {
            name: "calibration".to_owned(),
            sha256: String::new(),
            layers: (0..layers).collect(),
            tensors,
            prompt: self.prompt.clone(),
            prompt_embeddings: match prompt {
                0 => None,
                rows => Some(constant(vec![rows, config.hidden_size])?),
            },
            config,
        };
        let table = constant(vec![subject.data.num_items() + 1, self.item_dim])?;
        Ok(LlmRecommender::new(
            &base,
            &table,
            self.settings,
            0,
            device,
        )?)
    }
}

impl Subject<'_> {
    /// The batch of the first epoch whose number of items is nearest to the average.
    fn typical_windows(&self) -> Result<Vec<usize>, TrainError> {
        let len = |&window: &usize| self.data.window(window).len - 1;
        let items = |batch: &[usize]| batch.iter().map(len).sum::<usize>();
        let batches = self.data.epoch(self.train.batch_size, self.train.seed, 0);
        let nearest = batches.iter().min_by(|a, b| {
            let off = |batch: &[usize]| (items(batch) as f64 - self.work.mean_items).abs();
            off(a).total_cmp(&off(b))
        });
        nearest.ok_or(TrainError::NoData)
    }

    /// Seconds of a step.
    fn step(
        &self,
        model: &dyn SequentialModel,
        objective: &dyn Objective,
        windows: &[usize],
    ) -> Result<f64, TrainError> {
        let mut parameters = Parameters::default();
        parameters.extend("model.", model.parameters())?;
        parameters.extend("objective.", objective.parameters())?;
        let mut optimizer = AdamW::new(&parameters, self.train)?;
        let replica = Replica { model, objective };
        let count = parts::count(self.train.parts, self.device, self.data);
        let parts = Parts::new(count)?;
        fastest(|| {
            let (_, gradients) =
                parts.gradients(&replica, &optimizer, self.data, windows, (0, 1))?;
            // A rate of zero: the weights stay what they are.
            optimizer.apply(&gradients, 0.0)?;
            Ok(())
        })
    }

    /// Seconds of a step with one head of the multiple supervision.
    fn step_with_head(
        &self,
        model: &dyn SequentialModel,
        windows: &[usize],
    ) -> Result<f64, TrainError> {
        let settings = DistillSettings {
            lambda_cos: 0.0,
            lambda_norm: 0.0,
            lambda_kd: 0.0,
            lambda_ms: 1.0,
            blocks: 2,
            ..DistillSettings::default()
        };
        let objective = Distillation::new(settings, model, None, 0)?;
        self.step(model, &objective, windows)
    }

    /// Scales an evaluating forward pass of the batch to the whole validation.
    fn time(&self, step: f64, forward: f64, batch: &TrainingBatch) -> Time {
        let items: usize = batch.histories.lengths.iter().sum();
        let validation = forward * self.validated_items as f64 / items.max(1) as f64;
        Time::of(&self.work, step, validation)
    }
}

/// Seconds of a forward pass without dropout.
fn forward(model: &dyn SequentialModel, batch: &TrainingBatch) -> Result<f64, TrainError> {
    fastest(|| {
        model.forward(&batch.histories, Mode::Eval, &[])?;
        Ok(())
    })
}

/// The fastest of a few runs, or the first if it was long.
fn fastest(mut work: impl FnMut() -> Result<(), TrainError>) -> Result<f64, TrainError> {
    let mut best = f64::INFINITY;
    for _ in 0..REPEATS {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64());
        if best > LONG {
            break;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_through_one_and_two_layers() {
        let line = Line::new(3.0, 5.0);
        assert_eq!((line.at(1), line.at(2), line.at(24)), (3.0, 5.0, 49.0));
        assert_eq!(
            Line::new(3.0, 2.0).at(9),
            3.0,
            "noise never shrinks a model"
        );
    }
}
