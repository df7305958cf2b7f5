//! The loop as a whole: resuming, early stopping, refusals.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use slmrec_core::ItemIndex;

use super::report::Silent;
use super::state::STATE_FILE;
use super::testing::{ITEMS, Response, sasrec};
use super::*;
use crate::model::{MaskRng, Parameters, SasRec, SequentialModel};

pub(super) fn model(num_hidden_layers: usize, hidden_size: usize) -> SasRec {
    sasrec(num_hidden_layers, hidden_size, 0.2)
}

/// Users who count upwards from different starts.
pub(super) fn data() -> TrainingData {
    let sequences = (0..12u32)
        .map(|user| {
            let len = 3 + user % 7;
            let item = |at| ItemIndex(1 + (user + at) % ITEMS as u32);
            (0..len).map(item).collect()
        })
        .collect();
    TrainingData::from_sequences(sequences, ITEMS, 5, Targets::All).expect("data")
}

pub(super) fn settings() -> TrainSettings {
    TrainSettings {
        epochs: 3,
        batch_size: 4,
        learning_rate: 0.02,
        warmup_steps: 2,
        ..TrainSettings::default()
    }
}

/// Any deterministic function of the weights will do as a metric.
pub(super) struct Wobble;

impl Validator for Wobble {
    fn validate(
        &mut self,
        model: &dyn SequentialModel,
    ) -> Result<Option<f64>, Box<dyn std::error::Error + Send + Sync>> {
        let sum = model.item_embeddings()?.sum_all()?.to_scalar::<f32>()?;
        Ok(Some(f64::from(sum * 1000.0).sin()))
    }
}

/// Metrics as written down.
struct Scripted(std::vec::IntoIter<Option<f64>>);

impl Validator for Scripted {
    fn validate(
        &mut self,
        _model: &dyn SequentialModel,
    ) -> Result<Option<f64>, Box<dyn std::error::Error + Send + Sync>> {
        self.0.next().ok_or_else(|| "no more metrics".into())
    }
}

/// Raises the stop flag at a step and keeps what it saw.
struct StopAt<'a> {
    step: u64,
    stop: &'a AtomicBool,
    losses: Vec<f64>,
}

impl TrainObserver for StopAt<'_> {
    fn on_step(&mut self, report: &StepReport<'_>) {
        self.losses.push(report.losses[0].1);
        if report.step == self.step {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

fn fit(
    model: &dyn SequentialModel,
    objective: &dyn Objective,
    stop_at: u64,
    state_dir: Option<&Path>,
) -> Result<FitReport, TrainError> {
    fit_with(&settings(), model, objective, stop_at, state_dir)
}

fn fit_with(
    settings: &TrainSettings,
    model: &dyn SequentialModel,
    objective: &dyn Objective,
    stop_at: u64,
    state_dir: Option<&Path>,
) -> Result<FitReport, TrainError> {
    let stop = AtomicBool::new(false);
    Trainer {
        settings,
        identity: "test",
        validator: &mut Wobble,
        observer: &mut StopAt {
            step: stop_at,
            stop: &stop,
            losses: Vec::new(),
        },
        stop: &stop,
        state_dir,
    }
    .fit(model, objective, &data().with_settings(settings)?)
}

pub(super) fn bits(parameters: &Parameters) -> Vec<(String, Vec<u32>)> {
    parameters
        .iter()
        .map(|(name, var)| {
            let values = var.flatten_all().expect("flat").to_vec1::<f32>();
            let bits = values
                .expect("values")
                .iter()
                .map(|v| v.to_bits())
                .collect();
            (name.to_owned(), bits)
        })
        .collect()
}

#[test]
fn a_run_cut_anywhere_ends_with_the_same_bits() {
    let whole = model(2, 8);
    let report = fit(&whole, &CrossEntropy::default(), 0, None).expect("whole run");
    let steps = report.steps;
    assert!(steps >= 9, "{steps} steps");
    for cut in 1..steps {
        let dir = tempfile::tempdir().expect("temporary folder");
        let first = model(2, 8);
        match fit(&first, &CrossEntropy::default(), cut, Some(dir.path())) {
            Err(TrainError::Interrupted { step }) => assert_eq!(step, cut),
            other => panic!("{other:?}"),
        }
        // Another process begins with a new model.
        let second = model(2, 8);
        let resumed = fit(&second, &CrossEntropy::default(), 0, Some(dir.path())).expect("resumed");
        assert_eq!(resumed.resumed_from, Some(cut));
        assert_eq!(resumed.best_epoch, report.best_epoch);
        assert_eq!(
            resumed.best_metric.map(f64::to_bits),
            report.best_metric.map(f64::to_bits)
        );
        assert_eq!(
            bits(second.parameters()),
            bits(whole.parameters()),
            "cut at {cut}"
        );
    }
}

#[test]
fn a_finished_run_is_not_run_again() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let first = model(1, 8);
    let report = fit(&first, &CrossEntropy::default(), 0, Some(dir.path())).expect("run");
    let second = model(1, 8);
    // The flag would stop it at its first step.
    let again = fit(&second, &CrossEntropy::default(), 1, Some(dir.path())).expect("again");
    assert_eq!(again.steps, report.steps);
    assert_eq!(bits(second.parameters()), bits(first.parameters()));
}

#[test]
fn the_student_with_all_terms_resumes_too() {
    let teacher_model = model(4, 12);
    let teacher = LiveTeacher::new(&teacher_model, "teacher").expect("teacher");
    let run = |cut: u64, dir: Option<&Path>| {
        let student = model(2, 8);
        let settings = DistillSettings {
            blocks: 2,
            lambda_kd: 0.5,
            ..DistillSettings::default()
        };
        let objective =
            Distillation::new(settings, &student, Some(&teacher), 9).expect("objective");
        let result = fit(&student, &objective, cut, dir);
        (
            result,
            bits(student.parameters()),
            bits(objective.parameters()),
        )
    };
    let (whole, student, heads) = run(0, None);
    assert_eq!(whole.expect("whole run").epochs[0].losses.len(), 5);
    let dir = tempfile::tempdir().expect("temporary folder");
    let (cut, _, _) = run(4, Some(dir.path()));
    assert!(matches!(cut, Err(TrainError::Interrupted { step: 4 })));
    let (resumed, resumed_student, resumed_heads) = run(0, Some(dir.path()));
    assert_eq!(resumed.expect("resumed").resumed_from, Some(4));
    assert_eq!(resumed_student, student);
    assert_eq!(resumed_heads, heads);
}

#[test]
fn what_is_drawn_or_smoothed_changes_a_run_and_resumes_with_the_same_bits() {
    resumes_with_the_same_bits(&TrainSettings {
        catalog_loss: CatalogLoss::Sampled(SampledSoftmax {
            negatives: 4,
            ..SampledSoftmax::default()
        }),
        ..settings()
    });
    resumes_with_the_same_bits(&TrainSettings {
        label_smoothing: 0.1,
        ..settings()
    });
    resumes_with_the_same_bits(&TrainSettings {
        item_dropout: 0.3,
        ..settings()
    });
}

fn resumes_with_the_same_bits(settings: &TrainSettings) {
    let run = |cut: u64, dir: Option<&Path>| {
        let model = model(1, 8);
        let result = fit_with(settings, &model, &CrossEntropy::default(), cut, dir);
        (result, bits(model.parameters()))
    };
    let (_, whole) = run(0, None);
    let full = model(1, 8);
    fit(&full, &CrossEntropy::default(), 0, None).expect("run");
    assert_ne!(
        bits(full.parameters()),
        whole,
        "they differ from a plain run"
    );
    let dir = tempfile::tempdir().expect("temporary folder");
    let (cut, _) = run(4, Some(dir.path()));
    assert!(matches!(cut, Err(TrainError::Interrupted { step: 4 })));
    let (resumed, weights) = run(0, Some(dir.path()));
    assert_eq!(resumed.expect("resumed").resumed_from, Some(4));
    assert_eq!(weights, whole);
}

#[test]
fn states_of_other_settings_and_damaged_states_are_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join(STATE_FILE);
    let cut = fit(&model(1, 8), &CrossEntropy::default(), 2, Some(dir.path()));
    assert!(matches!(cut, Err(TrainError::Interrupted { .. })));
    let other = fit(&model(2, 8), &CrossEntropy::default(), 0, Some(dir.path()));
    assert!(matches!(other, Err(TrainError::OtherSettings { .. })));
    let good = std::fs::read(&path).expect("state");
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("write");
        let untouched = model(1, 8);
        let before = bits(untouched.parameters());
        let result = fit(&untouched, &CrossEntropy::default(), 0, Some(dir.path()));
        assert!(
            matches!(result, Err(TrainError::CorruptState { .. })),
            "{result:?}"
        );
        assert_eq!(bits(untouched.parameters()), before);
    };
    for len in [0, 1, 7, 8, 100, good.len() / 2, good.len() - 1] {
        refused(&good[..len]);
    }
    for at in (9..good.len()).step_by(good.len() / 40) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        refused(&bad);
    }
}

#[test]
fn stops_when_the_metric_stops_rising_and_keeps_the_best() {
    let run = |epochs, metrics: Vec<Option<f64>>| {
        let settings = TrainSettings {
            epochs,
            patience: 2,
            // A constant rate, so that runs of other lengths begin alike.
            warmup_steps: 0,
            min_learning_rate_fraction: 1.0,
            ..settings()
        };
        let model = model(1, 8);
        let report = Trainer {
            settings: &settings,
            identity: "",
            validator: &mut Scripted(metrics.into_iter()),
            observer: &mut Silent,
            stop: &AtomicBool::new(false),
            state_dir: None,
        }
        .fit(&model, &CrossEntropy::default(), &data())
        .expect("run");
        (report, bits(model.parameters()))
    };
    let metrics = [0.1, 0.3, 0.2, 0.3].map(Some);
    let (report, kept) = run(9, metrics.to_vec());
    assert_eq!((report.best_epoch, report.epochs.len()), (2, 4));
    assert!(report.stopped_early);
    let (_, after_two) = run(2, metrics[..2].to_vec());
    assert_eq!(kept, after_two);
    let (unmeasured, last) = run(2, vec![None; 2]);
    assert_eq!((unmeasured.best_epoch, unmeasured.best_metric), (2, None));
    assert_eq!(
        last, after_two,
        "without a metric the last weights are kept"
    );
}

#[test]
fn learns_to_count() {
    let settings = TrainSettings {
        epochs: 30,
        patience: 30,
        ..settings()
    };
    let stop = AtomicBool::new(false);
    let mut observer = StopAt {
        step: 0,
        stop: &stop,
        losses: Vec::new(),
    };
    Trainer {
        settings: &settings,
        identity: "",
        validator: &mut Wobble,
        observer: &mut observer,
        stop: &stop,
        state_dir: None,
    }
    .fit(&model(1, 8), &CrossEntropy::default(), &data())
    .expect("run");
    let losses = observer.losses;
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    // The next item is certain; guessing costs ln 9 = 2.2.
    assert!(first > 1.5 && last < 0.7, "from {first} to {last}");
}

/// Calls the model and then spoils the loss or forgets a parameter.
struct Broken {
    parameters: Parameters,
    factor: f64,
}

impl Objective for Broken {
    fn loss(
        &self,
        model: &dyn SequentialModel,
        batch: &TrainingBatch,
        rng: &mut MaskRng,
    ) -> Result<Losses, TrainError> {
        let losses = CrossEntropy::default().loss(model, batch, rng)?;
        Losses::weighted(&[("broken", 1.0, (losses.total * self.factor)?)])
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

#[test]
fn what_is_not_finite_is_named() {
    let infinite = Broken {
        parameters: Parameters::default(),
        factor: f64::INFINITY,
    };
    match fit(&model(1, 8), &infinite, 0, None) {
        Err(TrainError::NonFinite { step: 1, what }) => assert!(what.contains("broken"), "{what}"),
        other => panic!("{other:?}"),
    }
    let broken = model(1, 8);
    let var = broken.parameters().get("final_norm.bias").expect("bias");
    let nan = (var.as_tensor() * f64::NAN).expect("nan");
    var.set(&nan).expect("set");
    let result = fit(&broken, &CrossEntropy::default(), 0, None);
    assert!(matches!(result, Err(TrainError::NonFinite { step: 1, .. })));
    let settings = settings();
    let result = Trainer {
        settings: &settings,
        identity: "",
        validator: &mut Scripted(vec![Some(f64::NAN)].into_iter()),
        observer: &mut Silent,
        stop: &AtomicBool::new(false),
        state_dir: None,
    }
    .fit(&model(1, 8), &CrossEntropy::default(), &data());
    match result {
        Err(TrainError::NonFinite { what, .. }) => assert!(what.contains("metric"), "{what}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_parameter_without_a_gradient_is_named() {
    let mut parameters = Parameters::default();
    let value = candle_core::Tensor::new(&[[1f32]], &Device::Cpu).expect("value");
    parameters.insert("forgotten", &value).expect("parameter");
    let objective = Broken {
        parameters,
        factor: 1.0,
    };
    match fit(&model(1, 8), &objective, 0, None) {
        Err(TrainError::NoGradient { name, .. }) => assert_eq!(name, "objective.forgotten"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_vector_a_history_learns_last_targets_only() {
    let model = model(1, 8);
    let model = Response(&model);
    let refused = fit(&model, &CrossEntropy::default(), 0, None);
    assert!(matches!(refused, Err(TrainError::Readout { .. })));
    let sequence = (1..8).map(ItemIndex).collect();
    let last = TrainingData::from_sequences(vec![sequence], ITEMS, 5, Targets::Last).expect("data");
    let batch = last.batch(&[0], &Device::Cpu).expect("batch");
    let mut rng = MaskRng::new(1, 1);
    let loss = CrossEntropy::default().loss(&model, &batch, &mut rng);
    assert!(loss.is_ok());
}
