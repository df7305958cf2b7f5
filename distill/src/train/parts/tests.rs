//! Parts of a batch against the whole of it.

use std::sync::Mutex;

use super::*;
use crate::model::{Parameters, SequentialModel};
use crate::train::adamw::Gradient;
use crate::train::testing::sasrec;
use crate::train::tests::{data, settings};
use crate::train::{CatalogLoss, CrossEntropy, SampledSoftmax, TrainSettings};

/// Sums in another order, relative to a gradient's largest value.
const TOLERANCE: f32 = 1e-5;
const WINDOWS: [usize; 7] = [0, 3, 5, 7, 8, 9, 11];

fn optimizer(model: &dyn SequentialModel) -> AdamW {
    let mut parameters = Parameters::default();
    parameters
        .extend("model.", model.parameters())
        .expect("names");
    AdamW::new(&parameters, &settings()).expect("optimizer")
}

/// Terms and gradients of a batch in `count` parts.
fn found(model: &dyn SequentialModel, count: usize) -> (Terms, Vec<Vec<f32>>) {
    let objective = CrossEntropy::default();
    let replica = Replica {
        model,
        objective: &objective,
    };
    let parts = Parts::new(count).expect("threads");
    let (terms, gradients) = parts
        .gradients(&replica, &optimizer(model), &data(), &WINDOWS, (1, 1))
        .expect("gradients");
    let values = |gradient: &Gradient| {
        let flat = gradient.values().flatten_all().expect("flat");
        flat.to_vec1().expect("values")
    };
    (terms, gradients.iter().map(values).collect())
}

#[test]
fn parts_have_the_gradient_of_the_whole() {
    let model = sasrec(2, 8, 0.0);
    let (whole_terms, whole) = found(&model, 1);
    for count in [2, 3, 5, 20] {
        let (terms, gradients) = found(&model, count);
        for ((name, found), (_, expected)) in terms.iter().zip(&whole_terms) {
            let near = (found - expected).abs() <= 1e-5 * (1.0 + expected.abs());
            assert!(near, "{count} parts, {name}: {found}, expected {expected}");
        }
        assert_eq!(gradients.len(), whole.len());
        for (found, expected) in gradients.iter().zip(&whole) {
            let size = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
            assert!(size > 0.0);
            for (found, expected) in found.iter().zip(expected) {
                let near = (found - expected).abs() <= TOLERANCE * size;
                assert!(near, "{count} parts: {found}, expected {expected}");
            }
        }
    }
}

/// With dropout, whose masks are of the part and not of the thread.
#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let model = sasrec(2, 8, 0.3);
    let of_threads = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads").install(|| found(&model, 3))
    };
    let alone = of_threads(1);
    for threads in [2, 3, 8] {
        assert!(of_threads(threads) == alone, "{threads} threads");
    }
    assert!(
        found(&model, 2) != alone,
        "the number of parts is a setting"
    );
}

#[test]
fn every_part_is_done_once_and_in_its_place() {
    let pool = ThreadPoolBuilder::new().num_threads(2).build();
    let parts = pool.expect("threads").install(|| Parts::new(5));
    let seen = Mutex::new(Vec::new());
    let doubled = parts.expect("threads").side_by_side(5, |number| {
        seen.lock().expect("no panic").push(number);
        2 * number
    });
    assert_eq!(doubled, [0, 2, 4, 6, 8]);
    let mut seen = seen.into_inner().expect("no panic");
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[test]
fn a_batch_of_drawn_items_stays_whole() {
    assert_eq!(count(4, &Device::Cpu, &data()), 4);
    let sampled = TrainSettings {
        catalog_loss: CatalogLoss::Sampled(SampledSoftmax {
            negatives: 2,
            ..SampledSoftmax::default()
        }),
        ..settings()
    };
    let drawn = data().with_settings(&sampled).expect("data");
    assert_eq!(count(4, &Device::Cpu, &drawn), 1);
}

#[test]
fn a_failure_of_a_part_is_the_failure_of_the_step() {
    let model = sasrec(1, 8, 0.0);
    for (_, var) in model.parameters().iter() {
        let spoilt = (var.as_tensor() * f64::NAN).expect("spoilt");
        var.set(&spoilt).expect("set");
    }
    let objective = CrossEntropy::default();
    let replica = Replica {
        model: &model,
        objective: &objective,
    };
    let parts = Parts::new(2).expect("threads");
    let found = parts.gradients(&replica, &optimizer(&model), &data(), &WINDOWS, (1, 7));
    assert!(matches!(found, Err(TrainError::NonFinite { step: 7, .. })));
}
