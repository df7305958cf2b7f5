//! Our side of a subject: makes a model, then does a piece of work for each line on stdin.

use std::error::Error;
use std::io::BufRead;
use std::process::Command;
use std::time::Instant;

use candle_core::Device;
use slmrec_distill::model::{SasRec, SasRecSettings, SequentialModel};
use slmrec_distill::train::{CrossEntropy, Targets, TrainingData};

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

/// Does the work of each line and answers with wall and CPU milliseconds, the peak memory in KiB and
/// the loss that the work gave.
pub(super) fn serve(
    mut work: impl FnMut(&str) -> Result<f64, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (wall, cpu) = (Instant::now(), cpu_ms()?);
        let loss = work(&line)?;
        let wall = wall.elapsed().as_secs_f64() * 1e3;
        println!("{wall} {} {} {loss}", cpu_ms()? - cpu, peak_kib()?);
    }
    Ok(())
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

/// CPU time of all threads of this process.
fn cpu_ms() -> Result<f64, Box<dyn Error>> {
    let mut nanoseconds = 0u64;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().ok_or("empty schedstat")?;
        nanoseconds += first.parse::<u64>()?;
    }
    Ok(nanoseconds as f64 / 1e6)
}

/// Largest resident size so far.
fn peak_kib() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
