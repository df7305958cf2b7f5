//! A teacher and its student in one training: cut and resumed, and what moves the teacher.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use slmrec_core::manifest::Readout;

use super::testing::language_model;
use super::tests::{Wobble, bits, data, settings};
use super::*;
use crate::model::{LlmRecommender, SequentialModel as _};

/// Raises the stop flag at a step.
struct StopAt<'a>(u64, &'a AtomicBool);

impl TrainObserver for StopAt<'_> {
    fn on_step(&mut self, report: &StepReport<'_>) {
        if report.step == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

type Bits = Vec<(String, Vec<u32>)>;

/// Trains both with dropout; `cut` is a step after which the run stops, 0 for never.
fn run(
    joint: bool,
    lambda: f64,
    cut: u64,
    dir: Option<&Path>,
) -> (Result<FitReport, TrainError>, [Bits; 3]) {
    let model = |layers, width| -> LlmRecommender {
        language_model(layers, width, 0.2, Readout::Item, &Device::Cpu)
    };
    let (teacher, student) = (model(4, 12), model(2, 8));
    let settings_of_terms = DistillSettings {
        lambda_cos: lambda,
        lambda_kd: 0.5,
        lambda_block_kl: 0.5,
        blocks: 2,
        ..DistillSettings::default()
    };
    let online = OnlineTeacher::new(&teacher, "teacher", joint).expect("teacher");
    let objective = Distillation::online(settings_of_terms, &student, online, 9);
    let objective = objective.expect("objective");
    let stop = AtomicBool::new(false);
    let report = Trainer {
        settings: &settings(),
        identity: "test",
        validator: &mut Wobble,
        observer: &mut StopAt(cut, &stop),
        stop: &stop,
        state_dir: dir,
    }
    .fit(&student, &objective, &data());
    let heads = bits(objective.parameters());
    (
        report,
        [
            bits(student.parameters()),
            bits(teacher.parameters()),
            heads,
        ],
    )
}

#[test]
fn both_resume_with_the_same_bits() {
    for joint in [false, true] {
        let (whole, expected) = run(joint, 1.0, 0, None);
        let whole = whole.expect("whole run");
        assert_eq!(whole.epochs[0].losses.len(), 7);
        assert!(whole.epochs[0].losses.contains_key("teacher_ce"));
        for cut in [1, 4, 7] {
            let dir = tempfile::tempdir().expect("temporary folder");
            let (stopped, _) = run(joint, 1.0, cut, Some(dir.path()));
            assert!(matches!(stopped, Err(TrainError::Interrupted { step }) if step == cut));
            let (resumed, found) = run(joint, 1.0, 0, Some(dir.path()));
            assert_eq!(resumed.expect("resumed").resumed_from, Some(cut));
            assert_eq!(found, expected, "joint {joint}, cut at {cut}");
        }
        // A state of the other mode is no state of this run.
        let dir = tempfile::tempdir().expect("temporary folder");
        let (stopped, _) = run(joint, 1.0, 2, Some(dir.path()));
        assert!(stopped.is_err());
        let (other, _) = run(!joint, 1.0, 0, Some(dir.path()));
        assert!(matches!(other, Err(TrainError::OtherSettings { .. })));
    }
}

#[test]
fn both_learn_and_the_teacher_is_trained_to_the_last_tensor() {
    for joint in [false, true] {
        let start = language_model(4, 12, 0.2, Readout::Item, &Device::Cpu);
        let (_, [_, teacher, _]) = run(joint, 1.0, 0, None);
        for ((name, before), (_, after)) in bits(start.parameters()).iter().zip(&teacher) {
            assert_ne!(before, after, "{name} of the teacher");
        }
    }
}

#[test]
fn a_teacher_that_no_term_asks_is_refused() {
    let student = language_model(2, 8, 0.0, Readout::Item, &Device::Cpu);
    let teacher = language_model(4, 12, 0.0, Readout::Item, &Device::Cpu);
    let nothing = DistillSettings {
        lambda_cos: 0.0,
        lambda_norm: 0.0,
        blocks: 2,
        ..DistillSettings::default()
    };
    let online = OnlineTeacher::new(&teacher, "teacher", true).expect("teacher");
    let refused = Distillation::online(nothing, &student, online, 1).err();
    assert!(matches!(
        refused,
        Some(TrainError::Setting { name: "online", .. })
    ));
}
