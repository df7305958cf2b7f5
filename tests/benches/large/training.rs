//! Steps of SASRec over the large catalog, with either loss, and its validation.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Device;
use slmrec_core::{Dataset, Split};
use slmrec_distill::evaluate::{sample_users, validation_ndcg};
use slmrec_distill::model::{SasRec, SasRecSettings, SequentialModel};
use slmrec_distill::train::{
    CatalogLoss, CrossEntropy, SampledSoftmax, StepReport, TrainError, TrainObserver,
    TrainSettings, Trainer, TrainingData, Validator,
};
use slmrec_tests::bench::Samples;

use super::{Meter, cpu_seconds, figure, mean, peak_mb};

const WARM_UP: usize = 2;
const STEPS: usize = 10;
/// Users of a validation: as many as the default of `validation_users` would take a minute and more.
const VALIDATED: usize = 1000;

/// The settings of a run with one of the losses.
pub(crate) fn settings(loss: &str) -> Result<TrainSettings, Box<dyn Error>> {
    let catalog_loss = match loss {
        "full" => CatalogLoss::Full,
        "sampled" => CatalogLoss::Sampled(SampledSoftmax::default()),
        other => return Err(format!("no loss {other}").into()),
    };
    Ok(TrainSettings {
        catalog_loss,
        ..TrainSettings::default()
    })
}

/// The windows of a run.
pub(crate) fn data(
    dataset: &Dataset,
    settings: &TrainSettings,
) -> Result<TrainingData, TrainError> {
    let max_history = SasRecSettings::default().max_history;
    TrainingData::new(dataset, max_history, settings.targets)?.with_settings(settings)
}

fn model(dataset: &Dataset) -> Result<SasRec, Box<dyn Error>> {
    let settings = SasRecSettings::default();
    Ok(SasRec::new(settings, dataset.num_items(), 1, &Device::Cpu)?)
}

/// Cost of a step, and the peak memory of the process with dataset, model and optimizer.
pub(crate) fn steps(dataset: &Path, loss: &str) -> Result<(), Box<dyn Error>> {
    let dataset = Dataset::read(dataset)?;
    let settings = settings(loss)?;
    let data = data(&dataset, &settings)?;
    let model = model(&dataset)?;
    let stop = AtomicBool::new(false);
    let mut clock = Clock {
        stop: &stop,
        last: None,
        wall: Vec::new(),
        cpu: Vec::new(),
    };
    let stopped = Trainer {
        settings: &settings,
        identity: "bench",
        validator: &mut Never,
        observer: &mut clock,
        stop: &stop,
        state_dir: None,
    }
    .fit(&model, &CrossEntropy::default(), &data);
    match stopped {
        Err(TrainError::Interrupted { .. }) => {}
        Err(error) => return Err(error.into()),
        Ok(_) => return Err("the epoch is shorter than the bench".into()),
    }
    let case = format!(
        "SASRec step, {loss} softmax, {} items, batch {}",
        dataset.num_items(),
        settings.batch_size
    );
    figure(&case, "s, median", Samples::new(clock.wall).median())?;
    figure(&case, "s CPU, mean", mean(&clock.cpu))?;
    figure(&case, super::MEMORY, peak_mb()?)
}

/// Validation on a sample of the users.
pub(crate) fn validation(dataset: &Path) -> Result<(), Box<dyn Error>> {
    let dataset = Dataset::read(dataset)?;
    let model = model(&dataset)?;
    let users = sample_users(&dataset, Split::Validation, VALIDATED, 1);
    let meter = Meter::start()?;
    std::hint::black_box(validation_ndcg(&model, &dataset, users.as_deref())?);
    meter.print(&format!("validation, {VALIDATED} users"))
}

/// Times the steps and stops after the last.
struct Clock<'a> {
    stop: &'a AtomicBool,
    last: Option<(Instant, f64)>,
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl TrainObserver for Clock<'_> {
    fn on_step(&mut self, report: &StepReport<'_>) {
        let cpu = cpu_seconds().unwrap_or(f64::NAN);
        if let Some((wall, last_cpu)) = self.last
            && report.step > WARM_UP as u64
        {
            self.wall.push(wall.elapsed().as_secs_f64());
            self.cpu.push(cpu - last_cpu);
        }
        self.last = Some((Instant::now(), cpu));
        if self.wall.len() == STEPS {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// The bench ends before the epoch does.
struct Never;

impl Validator for Never {
    fn validate(
        &mut self,
        _model: &dyn SequentialModel,
    ) -> Result<Option<f64>, Box<dyn Error + Send + Sync>> {
        Err("the bench does not validate".into())
    }
}
