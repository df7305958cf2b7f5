//! Batches with shared histories against the same batches without: every term, every gradient.

use candle_core::{Device, Tensor};
use slmrec_core::ItemIndex;

use super::distillation::Positions;
use super::testing::{ITEMS, Response, sasrec, terms_and_gradients};
use super::*;
use crate::model::SequentialModel;

/// Gradients summed in another order.
const TOLERANCE: f32 = 1e-5;

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
    let flat = |(_, tensor): &(String, Tensor)| {
        let flat = tensor.flatten_all().expect("flat");
        flat.to_vec1::<f32>().expect("values")
    };
    let figures = terms_and_gradients(objective, model, &batch);
    figures.iter().flat_map(flat).collect()
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
    let model = sasrec(1, 8, 0.0);
    let objective = CrossEntropy::default();
    assert_shared_is_exact(&objective, &model, Targets::All);
    assert_shared_is_exact(&objective, &model, Targets::Last);
    assert_shared_is_exact(&objective, &Response(&model), Targets::Last);
}

#[test]
fn distillation_is_that_of_the_unshared_batch() {
    let (student, teacher) = (sasrec(2, 8, 0.0), sasrec(4, 12, 0.0));
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
