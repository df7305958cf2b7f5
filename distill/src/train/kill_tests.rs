//! Runs whose states cannot be saved, or are damaged when the run goes on.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::state::{PREVIOUS_STATE_FILE, STATE_FILE};
use super::tests::{Wobble, bits, data, model, settings};
use super::*;
use crate::model::{SasRec, SequentialModel as _};

/// At which steps something happens; 0 for never.
#[derive(Clone, Copy, Default)]
struct Plan {
    /// A file takes the place of the state directory.
    block: u64,
    /// The directory comes back.
    free: u64,
    /// The stop flag is raised.
    stop: u64,
}

/// Makes the trouble and keeps what it was told.
struct Watch<'a> {
    plan: Plan,
    dir: &'a Path,
    stop: &'a AtomicBool,
    failed: Vec<String>,
    fallbacks: Vec<(String, u64)>,
    saved: Vec<u64>,
}

impl TrainObserver for Watch<'_> {
    fn on_step(&mut self, report: &StepReport<'_>) {
        let aside = self.dir.with_extension("aside");
        if report.step == self.plan.block {
            fs::rename(self.dir, &aside).expect("aside");
            fs::write(self.dir, b"no folder").expect("block");
        }
        if report.step == self.plan.free {
            fs::remove_file(self.dir).expect("free");
            fs::rename(&aside, self.dir).expect("back");
        }
        if report.step == self.plan.stop {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn on_checkpoint(&mut self, _path: &Path, step: u64) {
        self.saved.push(step);
    }

    fn on_save_failed(&mut self, error: &TrainError, _step: u64) {
        self.failed.push(error.to_string());
    }

    fn on_fallback(&mut self, error: &TrainError, step: u64) {
        self.fallbacks.push((error.to_string(), step));
    }
}

struct Told {
    failed: Vec<String>,
    fallbacks: Vec<(String, u64)>,
    saved: Vec<u64>,
}

fn fit(model: &SasRec, plan: Plan, dir: &Path) -> (Result<FitReport, TrainError>, Told) {
    let settings = TrainSettings {
        save_every_steps: 1,
        ..settings()
    };
    let stop = AtomicBool::new(false);
    let mut watch = Watch {
        plan,
        dir,
        stop: &stop,
        failed: Vec::new(),
        fallbacks: Vec::new(),
        saved: Vec::new(),
    };
    let result = Trainer {
        settings: &settings,
        identity: "test",
        validator: &mut Wobble,
        observer: &mut watch,
        stop: &stop,
        state_dir: Some(dir),
    }
    .fit(model, &CrossEntropy::default(), &data());
    let told = Told {
        failed: watch.failed,
        fallbacks: watch.fallbacks,
        saved: watch.saved,
    };
    (result, told)
}

/// The report without what a clock says and without where the run began.
fn figures(report: &FitReport) -> String {
    let mut report = report.clone();
    report.resumed_from = None;
    for epoch in &mut report.epochs {
        (epoch.train_seconds, epoch.validation_seconds) = (0.0, 0.0);
    }
    format!("{report:?}")
}

fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let state = dir.path().join("state");
    (dir, state)
}

#[test]
fn a_save_that_fails_on_the_way_is_said_and_loses_nothing() {
    let (_keep, dir) = folder();
    let quiet = model(1, 8);
    let (whole, told) = fit(&quiet, Plan::default(), &dir);
    let whole = whole.expect("whole run");
    assert_eq!(told.saved.iter().max(), Some(&whole.steps));
    let (_keep, dir) = folder();
    let troubled = model(1, 8);
    let plan = Plan {
        block: 3,
        free: 5,
        stop: 0,
    };
    let (report, told) = fit(&troubled, plan, &dir);
    assert_eq!(figures(&report.expect("goes on")), figures(&whole));
    assert_eq!(bits(troubled.parameters()), bits(quiet.parameters()));
    assert!((2..=3).contains(&told.failed.len()), "{:?}", told.failed);
    assert!(told.failed[0].contains(STATE_FILE), "{:?}", told.failed);
    assert!(told.failed[0].contains("hint:"), "{:?}", told.failed);
    assert!(!told.saved.contains(&4) && told.saved.contains(&5));
}

#[test]
fn a_run_whose_last_states_failed_still_gives_its_weights() {
    let (_keep, dir) = folder();
    let quiet = model(1, 8);
    let (whole, _) = fit(&quiet, Plan::default(), &dir);
    let (_keep, dir) = folder();
    let troubled = model(1, 8);
    let plan = Plan {
        block: whole.expect("whole run").steps,
        ..Plan::default()
    };
    let (report, told) = fit(&troubled, plan, &dir);
    assert!(report.is_ok() && told.failed.len() >= 2);
    assert_eq!(bits(troubled.parameters()), bits(quiet.parameters()));
}

#[test]
fn a_state_that_cannot_be_saved_on_ctrl_c_is_an_error_and_the_one_before_stays() {
    let (_keep, dir) = folder();
    let quiet = model(1, 8);
    let (whole, _) = fit(&quiet, Plan::default(), &dir);
    let (_keep, dir) = folder();
    let plan = Plan {
        block: 4,
        free: 0,
        stop: 4,
    };
    let (result, told) = fit(&model(1, 8), plan, &dir);
    assert!(
        matches!(result, Err(TrainError::SaveState { .. })),
        "{result:?}"
    );
    assert_eq!(told.saved.last(), Some(&3));
    fs::remove_file(&dir).expect("free");
    fs::rename(dir.with_extension("aside"), &dir).expect("back");
    let resumed = model(1, 8);
    let (report, _) = fit(&resumed, Plan::default(), &dir);
    let report = report.expect("resumed");
    assert_eq!(report.resumed_from, Some(3));
    assert_eq!(figures(&report), figures(&whole.expect("whole run")));
    assert_eq!(bits(resumed.parameters()), bits(quiet.parameters()));
}

#[test]
fn a_damaged_newest_state_costs_one_save_and_no_bit() {
    let (_keep, dir) = folder();
    let quiet = model(1, 8);
    let (whole, _) = fit(&quiet, Plan::default(), &dir);
    let whole = figures(&whole.expect("whole run"));
    let (_keep, dir) = folder();
    let plan = Plan {
        stop: 5,
        ..Plan::default()
    };
    let (cut, told) = fit(&model(1, 8), plan, &dir);
    assert!(matches!(cut, Err(TrainError::Interrupted { step: 5 })));
    assert_eq!(told.saved.last(), Some(&5));
    assert_eq!(
        told.saved.iter().filter(|step| **step == 5).count(),
        1,
        "a state that is there already is not written again"
    );
    fs::write(dir.join(STATE_FILE), b"damaged").expect("damage");
    assert!(dir.join(PREVIOUS_STATE_FILE).exists());
    let resumed = model(1, 8);
    let (report, told) = fit(&resumed, Plan::default(), &dir);
    let report = report.expect("resumed");
    assert_eq!(report.resumed_from, Some(4));
    assert_eq!(told.fallbacks.len(), 1);
    assert!(told.fallbacks[0].0.contains(STATE_FILE) && told.fallbacks[0].1 == 4);
    assert_eq!(figures(&report), whole);
    assert_eq!(bits(resumed.parameters()), bits(quiet.parameters()));
}
