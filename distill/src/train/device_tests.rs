//! A whole training step with fused kernels and in tensor operations, on every device: models,
//! teacher, losses and all gradients.

use candle_core::{Device, Tensor};
use slmrec_core::ItemIndex;
use slmrec_core::manifest::Readout;

use super::distillation::{Norm, Positions};
use super::testing::{ITEMS, language_model, language_model_with, sasrec_on, terms_and_gradients};
use super::*;
use crate::model::testing::assert_same_everywhere;
use crate::model::{LlmSettings, MaskRng, SequentialModel};

/// f32 sums in another order through a few layers and back, relative to a tensor's largest value.
const TOLERANCE: f32 = 1e-4;

fn batch(targets: Targets, settings: &TrainSettings, device: &Device) -> TrainingBatch {
    let sequences = [&[1, 2, 3][..], &[1, 2, 4], &[3, 4, 5, 6, 9], &[8, 2]];
    let sequences = sequences.map(|s| s.iter().copied().map(ItemIndex).collect::<Vec<_>>());
    let data = TrainingData::from_sequences(sequences.to_vec(), ITEMS, 5, targets).expect("data");
    let data = data.with_settings(settings).expect("settings");
    data.batch(&[0, 1, 2, 3], device).expect("batch")
}

fn sampled() -> TrainSettings {
    TrainSettings {
        catalog_loss: CatalogLoss::Sampled(SampledSoftmax {
            negatives: 5,
            popularity_exponent: 0.5,
        }),
        ..TrainSettings::default()
    }
}

fn of_cross_entropy(
    model: &dyn SequentialModel,
    targets: Targets,
    settings: &TrainSettings,
    device: &Device,
) -> Vec<(String, Tensor)> {
    let batch = batch(targets, settings, device);
    terms_and_gradients(&CrossEntropy::default(), model, &batch)
}

#[test]
fn sasrec_learns_the_same_everywhere() {
    for settings in [TrainSettings::default(), sampled()] {
        assert_same_everywhere("SASRec", TOLERANCE, |device| {
            let model = sasrec_on(2, 8, 0.2, device);
            of_cross_entropy(&model, Targets::All, &settings, device)
        });
    }
}

/// What a step learns of the item table's rows is what one gradient of the whole table would say.
#[test]
fn drawn_items_get_the_gradient_of_the_whole_table() {
    let sasrec = sasrec_on(2, 8, 0.2, &Device::Cpu);
    let settings = LlmSettings {
        max_history: 5,
        train_item_embeddings: true,
        ..LlmSettings::default()
    };
    let decoder = language_model_with(2, 8, &settings, &Device::Cpu);
    let models: [&dyn SequentialModel; 2] = [&sasrec, &decoder];
    for model in models {
        let rows = batch(Targets::All, &sampled(), &Device::Cpu);
        assert!(rows.histories.lookups.is_some());
        let mut whole = rows.clone();
        whole.histories.lookups = None;
        let objective = CrossEntropy::default();
        let losses = objective.loss(model, &rows, &mut MaskRng::new(1, 1));
        let gradients = losses.expect("loss").total.backward().expect("backward");
        let var = model
            .parameters()
            .get("item_embeddings.weight")
            .expect("table");
        assert!(
            gradients.get(var).is_none(),
            "nothing as large as the table"
        );
        let found = terms_and_gradients(&objective, model, &rows);
        let expected = terms_and_gradients(&objective, model, &whole);
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            let difference = (found - expected).and_then(|d| d.abs()?.flatten_all()?.max(0));
            let difference = difference.and_then(|d| d.to_scalar::<f32>()).expect(name);
            assert!(difference < 1e-6, "{name}: {difference}");
        }
    }
}

#[test]
fn a_language_model_learns_the_same_everywhere() {
    for (readout, targets) in [
        (Readout::Item, Targets::All),
        (Readout::Item, Targets::Last),
        (Readout::Response, Targets::Last),
    ] {
        for settings in [TrainSettings::default(), sampled()] {
            assert_same_everywhere(&format!("{readout:?} {targets:?}"), TOLERANCE, |device| {
                let model = language_model(2, 8, 0.2, readout, device);
                of_cross_entropy(&model, targets, &settings, device)
            });
        }
    }
}

#[test]
fn a_student_is_taught_the_same_everywhere() {
    for (positions, norm, top_k) in [
        (Positions::All, Norm::Squared, 0),
        (Positions::Last, Norm::Unsquared, 3),
    ] {
        assert_same_everywhere(&format!("{positions:?}"), TOLERANCE, |device| {
            let student = language_model(2, 8, 0.2, Readout::Item, device);
            let teacher = language_model(4, 12, 0.0, Readout::Item, device);
            let teacher = LiveTeacher::new(&teacher, "teacher").expect("teacher");
            let settings = DistillSettings {
                blocks: 2,
                lambda_kd: 0.5,
                temperature: 2.0,
                top_k,
                norm,
                positions,
                ..DistillSettings::default()
            };
            let objective = Distillation::new(settings, &student, Some(&teacher), 9);
            let batch = batch(Targets::All, &TrainSettings::default(), device);
            terms_and_gradients(&objective.expect("objective"), &student, &batch)
        });
    }
}
