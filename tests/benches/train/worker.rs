//! Our side of a subject: makes a model, then does a piece of work for each line on stdin.

use std::error::Error;
use std::process::Command;

use candle_core::Device;
use slmrec_distill::model::{SasRec, SasRecSettings, SequentialModel};
use slmrec_distill::train::{CrossEntropy, Targets, TrainingData};
use slmrec_tests::bench::process::serve;

use super::models::{HISTORY, ITEMS, Stepper, item, language_model, lora};
use super::{distiller, products};

/// Makes this program a worker; what it works on follows.
pub(super) const ARGUMENT: &str = "worker";

/// This program as a worker.
pub(super) fn command() -> Result<Command, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(ARGUMENT);
    Ok(command)
}

pub(super) fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["products"] => products::work(),
        ["fill"] => distiller::fill(),
        ["distill", variant, cache] => distiller::distil(variant, cache.as_ref()),
        [case] => steps(case),
        _ => Err(format!("no work named {arguments:?}").into()),
    }
}

/// Steps with a target at every position of a batch that is always the same.
fn steps(case: &str) -> Result<(), Box<dyn Error>> {
    let (model, batch, items): (Box<dyn SequentialModel>, usize, usize) = match case {
        "student" => (Box::new(language_model(4, lora(), HISTORY)?), 16, ITEMS),
        "teacher" => (Box::new(language_model(24, lora(), HISTORY)?), 16, ITEMS),
        "sasrec" => {
            let settings = SasRecSettings {
                dropout: 0.0,
                ..SasRecSettings::default()
            };
            let model = SasRec::new(settings, 3400, 1, &Device::Cpu)?;
            (Box::new(model), 128, 3400)
        }
        other => return Err(format!("no case named {other}").into()),
    };
    let data = full_histories(batch, items)?;
    let windows: Vec<usize> = (0..batch).collect();
    let objective = CrossEntropy::default();
    let mut stepper = Stepper::new(model.as_ref(), &objective)?;
    serve(|_| stepper.step(&data.batch(&windows, &Device::Cpu)?))
}

/// Histories as long as they may be, each with a target at every position.
pub(super) fn full_histories(count: usize, items: usize) -> Result<TrainingData, Box<dyn Error>> {
    let sequences = (0..count)
        .map(|row| (0..=HISTORY).map(|t| item(row, t, items)).collect())
        .collect();
    let data = TrainingData::from_sequences(sequences, items, HISTORY, Targets::All)?;
    Ok(data)
}
