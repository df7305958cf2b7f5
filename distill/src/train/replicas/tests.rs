//! Replicas on the CPU against one device with the whole batch.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Device, Var};
use slmrec_core::manifest::Readout;

use super::*;
use crate::model::Parameters;
use crate::train::distillation::Positions;
use crate::train::testing::{language_model, sasrec};
use crate::train::tests::{Wobble, bits, data, settings};
use crate::train::{
    CrossEntropy, DistillSettings, Distillation, FitReport, LiveTeacher, StepReport, TrainObserver,
    Trainer,
};

/// Sums in another order, relative to a tensor's largest value.
const TOLERANCE: f32 = 1e-5;

fn values(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.flatten_all().expect("flat");
    flat.to_vec1().expect("values")
}

fn optimizer(replica: &Replica<'_>) -> AdamW {
    let mut parameters = Parameters::default();
    parameters
        .extend("model.", replica.model.parameters())
        .expect("names");
    parameters
        .extend("objective.", replica.objective.parameters())
        .expect("names");
    AdamW::new(&parameters, &settings()).expect("optimizer")
}

/// Terms and gradients of a batch that `replicas` share; all replicas get the same.
fn shared(replicas: &[Replica<'_>], windows: &[usize]) -> (Terms, Vec<Vec<f32>>) {
    let optimizers: Vec<AdamW> = replicas.iter().map(optimizer).collect();
    let devices = vec![Device::Cpu; replicas.len()];
    let parts = data().parts(windows, &devices).expect("parts");
    let found = gradients(replicas, &optimizers, &parts, &HostExchange, (1, 1)).expect("gradients");
    let all: Vec<Vec<Vec<f32>>> = (found.gradients.iter())
        .map(|gradients| {
            gradients
                .iter()
                .map(|gradient| values(gradient.values()))
                .collect()
        })
        .collect();
    assert_eq!(all.len(), replicas.len());
    assert!(all.iter().all(|gradients| *gradients == all[0]));
    (found.terms, all[0].clone())
}

/// Two and more replicas, with parts of other sizes and without any, against one.
fn assert_the_sum_is_that_of_one(what: &str, replicas: &[Replica<'_>]) {
    for windows in [&[0, 3, 5, 7, 8, 9, 11][..], &[2, 4], &[6]] {
        let (terms, gradients) = shared(&replicas[..1], windows);
        for count in 2..=replicas.len() {
            let (found_terms, found) = shared(&replicas[..count], windows);
            let what = format!("{what}, {count} replicas, {} windows", windows.len());
            assert_eq!(found_terms.len(), terms.len(), "{what}");
            for ((name, found), (_, expected)) in found_terms.iter().zip(&terms) {
                let near = (found - expected).abs() <= 1e-5 * (1.0 + expected.abs());
                assert!(near, "{what}, {name}: {found}, expected {expected}");
            }
            for (found, expected) in found.iter().zip(&gradients) {
                let size = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
                for (found, expected) in found.iter().zip(expected) {
                    let near = (found - expected).abs() <= TOLERANCE * size;
                    assert!(near, "{what}: {found}, expected {expected}");
                }
            }
        }
    }
}

#[test]
fn parts_of_a_batch_have_the_gradient_of_the_whole() {
    let objective = CrossEntropy::default();
    let models: Vec<_> = (0..4).map(|_| sasrec(2, 8, 0.0)).collect();
    let replicas = models.iter().map(|model| Replica {
        model: model as &dyn SequentialModel,
        objective: &objective,
    });
    assert_the_sum_is_that_of_one("SASRec", &replicas.collect::<Vec<_>>());
}

#[test]
fn parts_of_a_batch_teach_what_the_whole_teaches() {
    let model = |layers, width| language_model(layers, width, 0.0, Readout::Item, &Device::Cpu);
    let students: Vec<_> = (0..3).map(|_| model(2, 8)).collect();
    let teacher = model(4, 12);
    let teacher = LiveTeacher::new(&teacher, "teacher").expect("teacher");
    for positions in [Positions::All, Positions::Last] {
        let objective = |student| {
            let settings = DistillSettings {
                blocks: 2,
                lambda_kd: 0.5,
                positions,
                ..DistillSettings::default()
            };
            Distillation::new(settings, student, Some(&teacher), 9).expect("objective")
        };
        let objectives: Vec<_> = students.iter().map(|student| objective(student)).collect();
        let replicas = students.iter().zip(&objectives);
        let replicas = replicas.map(|(model, objective)| Replica {
            model: model as &dyn SequentialModel,
            objective: objective as &dyn Objective,
        });
        let what = format!("{positions:?}");
        assert_the_sum_is_that_of_one(&what, &replicas.collect::<Vec<_>>());
    }
}

/// Raises the stop flag after a step.
struct StopAfter<'a>(u64, &'a AtomicBool);

impl TrainObserver for StopAfter<'_> {
    fn on_step(&mut self, report: &StepReport<'_>) {
        if report.step == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

fn fit(
    models: &[&dyn SequentialModel],
    stop_after: u64,
    dir: Option<&Path>,
) -> Result<FitReport, TrainError> {
    let objective = CrossEntropy::default();
    let replicas: Vec<Replica<'_>> = (models.iter())
        .map(|&model| Replica {
            model,
            objective: &objective,
        })
        .collect();
    let stop = AtomicBool::new(false);
    Trainer {
        settings: &settings(),
        identity: "test",
        validator: &mut Wobble,
        observer: &mut StopAfter(stop_after, &stop),
        stop: &stop,
        state_dir: dir,
    }
    .fit_replicas(&replicas, &HostExchange, &data())
}

/// Weights that differ at the start show that they are made equal; dropout is on.
#[test]
fn a_run_on_replicas_is_repeatable_and_goes_on_after_a_cut() {
    let fresh = || {
        let other = sasrec(2, 8, 0.2);
        for (_, var) in other.parameters().iter() {
            var.set(&(var.as_tensor() + 1.0).expect("shifted"))
                .expect("set");
        }
        (sasrec(2, 8, 0.2), other)
    };
    let (whole, other) = fresh();
    fit(&[&whole, &other], 0, None).expect("whole run");
    let last = |model: &dyn SequentialModel| bits(model.parameters());

    let dir = tempfile::tempdir().expect("folder");
    let (cut, other) = fresh();
    let stopped = fit(&[&cut, &other], 4, Some(dir.path()));
    assert!(matches!(stopped, Err(TrainError::Interrupted { step: 4 })));
    let (alone, _) = fresh();
    let other_count = fit(&[&alone], 0, Some(dir.path()));
    assert!(matches!(other_count, Err(TrainError::OtherSettings { .. })));
    let (again, other) = fresh();
    let report = fit(&[&again, &other], 0, Some(dir.path())).expect("resumed");
    assert_eq!(report.resumed_from, Some(4));
    assert!(last(&again) == last(&whole), "the same bits");
    assert!(fit(&[], 0, None).is_err(), "no replica");
}

#[test]
fn a_failure_of_one_replica_is_the_failure_of_the_step() {
    let (sound, broken) = (sasrec(1, 8, 0.0), sasrec(1, 8, 0.0));
    let objective = CrossEntropy::default();
    let replicas = [&sound, &broken].map(|model| Replica {
        model: model as &dyn SequentialModel,
        objective: &objective,
    });
    for (_, var) in broken.parameters().iter() {
        let var: &Var = var;
        var.set(&(var.as_tensor() * f64::NAN).expect("spoilt"))
            .expect("set");
    }
    let optimizers: Vec<AdamW> = replicas.iter().map(optimizer).collect();
    let parts = data()
        .parts(&[0, 1, 2, 3], &[Device::Cpu, Device::Cpu])
        .expect("parts");
    let found = gradients(&replicas, &optimizers, &parts, &HostExchange, (1, 7));
    assert!(matches!(found, Err(TrainError::NonFinite { step: 7, .. })));
}
