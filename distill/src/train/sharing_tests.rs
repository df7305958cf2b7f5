//! Batches with shared histories against the same batches without: every term, every gradient.

use candle_core::{Device, Tensor};
use slmrec_core::ItemIndex;

use super::distillation::Positions;
use super::*;
use crate::model::{
    HistoryBatch, MaskRng, Mode, ModelOutput, Parameters, SasRec, SasRecSettings, SequentialModel,
};

const ITEMS: usize = 9;
/// Gradients summed in another order.
const TOLERANCE: f32 = 1e-5;

fn model(num_hidden_layers: usize, hidden_size: usize) -> SasRec {
    let settings = SasRecSettings {
        hidden_size,
        num_hidden_layers,
        num_attention_heads: 2,
        intermediate_size: 8,
        max_history: 5,
        dropout: 0.0,
    };
    SasRec::new(settings, ITEMS, 3, &Device::Cpu).expect("model")
}

/// One vector a history, as the `response` readout gives.
struct Response<'a>(&'a SasRec);

impl Response<'_> {
    fn last(&self, batch: &HistoryBatch, values: &Tensor) -> candle_core::Result<Tensor> {
        let (histories, length, width) = values.dims3()?;
        let flat = values.reshape((histories * length, width))?;
        let last = flat.index_select(&batch.last_positions()?, 0)?;
        last.reshape((histories, 1, width))
    }
}

impl SequentialModel for Response<'_> {
    fn forward(
        &self,
        batch: &HistoryBatch,
        mode: Mode<'_>,
        state_layers: &[usize],
    ) -> candle_core::Result<ModelOutput> {
        let everywhere = batch.clone().reading(crate::model::ReadAt::EveryItem);
        let output = self.0.forward(&everywhere, mode, state_layers)?;
        let states = output.states.iter().map(|state| self.last(batch, state));
        Ok(ModelOutput {
            user_vectors: self.last(batch, &output.user_vectors)?,
            states: states.collect::<candle_core::Result<_>>()?,
        })
    }

    fn item_embeddings(&self) -> Tensor {
        self.0.item_embeddings()
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

/// Histories 1 2, 1 2, 3 4 5, 1 2, 1, with targets that differ.
fn data(targets: Targets, share_histories: bool) -> TrainingData {
    let sequences = [
        &[1, 2, 3][..],
        &[1, 2, 4],
        &[3, 4, 5, 6],
        &[1, 2, 3],
        &[1, 2],
    ];
    let sequences = sequences.map(|s| s.iter().copied().map(ItemIndex).collect::<Vec<_>>());
    let settings = TrainSettings {
        share_histories,
        ..TrainSettings::default()
    };
    let data = TrainingData::from_sequences(sequences.to_vec(), ITEMS, 5, targets).expect("data");
    data.with_settings(&settings).expect("settings")
}

/// Term values, then all gradients in name order.
fn figures(
    objective: &dyn Objective,
    model: &dyn SequentialModel,
    data: &TrainingData,
) -> Vec<f32> {
    let batch = data.batch(&[0, 1, 2, 3, 4], &Device::Cpu).expect("batch");
    let mut rng = MaskRng::new(1, 1);
    let losses = objective.loss(model, &batch, &mut rng).expect("loss");
    let gradients = losses.total.backward().expect("backward");
    let mut figures: Vec<f32> = losses
        .terms
        .iter()
        .map(|(_, value)| *value as f32)
        .collect();
    for (_, var) in model
        .parameters()
        .iter()
        .chain(objective.parameters().iter())
    {
        let gradient = gradients.get(var).expect("gradient");
        let flat = gradient.flatten_all().expect("flat");
        figures.extend(flat.to_vec1::<f32>().expect("values"));
    }
    figures
}

fn assert_shared_is_exact(
    objective: &dyn Objective,
    model: &dyn SequentialModel,
    targets: Targets,
) {
    let (shared, apart) = (data(targets, true), data(targets, false));
    let found = figures(objective, model, &shared);
    let expected = figures(objective, model, &apart);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let near = (found - expected).abs() <= TOLERANCE * (1.0 + expected.abs());
        assert!(near, "{found}, expected {expected}");
    }
}

#[test]
fn cross_entropy_is_that_of_the_unshared_batch() {
    let model = model(1, 8);
    let objective = CrossEntropy::default();
    assert_shared_is_exact(&objective, &model, Targets::All);
    assert_shared_is_exact(&objective, &model, Targets::Last);
    assert_shared_is_exact(&objective, &Response(&model), Targets::Last);
}

#[test]
fn distillation_is_that_of_the_unshared_batch() {
    let (student, teacher) = (model(2, 8), model(4, 12));
    for (targets, positions, response) in [
        (Targets::All, Positions::All, false),
        (Targets::All, Positions::Last, false),
        (Targets::Last, Positions::All, true),
        (Targets::Last, Positions::Last, true),
    ] {
        let (student_response, teacher_response) = (Response(&student), Response(&teacher));
        let (student, teacher): (&dyn SequentialModel, &dyn SequentialModel) = if response {
            (&student_response, &teacher_response)
        } else {
            (&student, &teacher)
        };
        let settings = DistillSettings {
            blocks: 2,
            lambda_kd: 0.5,
            positions,
            ..DistillSettings::default()
        };
        let teacher = LiveTeacher::new(teacher, "teacher").expect("teacher");
        let objective = Distillation::new(settings, student, Some(&teacher), 9);
        assert_shared_is_exact(&objective.expect("objective"), student, targets);
    }
}
