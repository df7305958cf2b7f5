//! The loop: epochs, validation, early stopping, and states that a cut run goes on from with the
//! very bits it would have had.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Tensor;
use slmrec_core::hash;

use super::adamw::AdamW;
use super::schedule::Schedule;
use super::state::{Progress, StateFile};
use super::{
    EpochReport, FitReport, Losses, Objective, StepReport, TrainError, TrainObserver,
    TrainSettings, TrainingData, Validator,
};
use crate::model::{MaskRng, Parameters, SequentialModel};

/// Everything around a run that is neither model, objective nor data.
pub struct Trainer<'a> {
    /// How to train.
    pub settings: &'a TrainSettings,
    /// What the result depends on beside settings, objective and data: model settings, hashes of
    /// frozen weights. A saved state is refused where this differs.
    pub identity: &'a str,
    /// Measures the model after each epoch.
    pub validator: &'a mut dyn Validator,
    /// Is told how it goes.
    pub observer: &'a mut dyn TrainObserver,
    /// Stops the run before the next step when it becomes true.
    pub stop: &'a AtomicBool,
    /// Where the state is kept; `None` for a run that starts anew each time.
    pub state_dir: Option<&'a Path>,
}

/// What a run changes.
struct Run<'a> {
    model: &'a dyn SequentialModel,
    objective: &'a dyn Objective,
    data: &'a TrainingData,
    schedule: Schedule,
    state: Option<StateFile>,
    optimizer: AdamW,
    best: Vec<Tensor>,
    progress: Progress,
    /// Epochs and steps done in the newest state on disk.
    saved_at: Option<(usize, u64)>,
}

impl Run<'_> {
    fn at(&self) -> (usize, u64) {
        (self.progress.epochs_done, self.progress.step)
    }
}

impl Trainer<'_> {
    /// Trains until the epochs are done or the metric has stopped rising, then puts the best weights
    /// back into the model. Goes on from a saved state where there is one.
    ///
    /// # Errors
    /// Any [`TrainError`]; [`TrainError::Interrupted`] after the stop flag, with the state saved. A
    /// state that cannot be saved on the way is no error ([`TrainObserver::on_save_failed`]); one
    /// that cannot be saved after the stop flag is.
    pub fn fit(
        &mut self,
        model: &dyn SequentialModel,
        objective: &dyn Objective,
        data: &TrainingData,
    ) -> Result<FitReport, TrainError> {
        self.settings.check()?;
        let (mut run, resumed_from) = self.start(model, objective, data)?;
        while !run.progress.finished {
            self.epoch(&mut run)?;
        }
        for (slot, best) in run.optimizer.slots().iter().zip(&run.best) {
            slot.var.set(best)?;
        }
        let progress = run.progress;
        Ok(FitReport {
            best_epoch: progress.best_epoch,
            best_metric: progress.best_metric.unwrap_or_default(),
            steps: progress.step,
            stopped_early: progress.epochs_done < self.settings.epochs,
            epochs: progress.history,
            resumed_from,
        })
    }

    fn start<'r>(
        &mut self,
        model: &'r dyn SequentialModel,
        objective: &'r dyn Objective,
        data: &'r TrainingData,
    ) -> Result<(Run<'r>, Option<u64>), TrainError> {
        let mut parameters = Parameters::default();
        parameters.extend("model.", model.parameters())?;
        parameters.extend("objective.", objective.parameters())?;
        let settings_hash = self.settings_hash(&parameters, objective, data);
        let mut optimizer = AdamW::new(&parameters, self.settings)?;
        let state = self.state_dir.map(StateFile::in_dir);
        let saved = match &state {
            Some(file) => file.load(&settings_hash, optimizer.slots())?,
            None => None,
        };
        let resumed_from = saved.as_ref().map(|saved| saved.progress.step);
        let (progress, best) = match saved {
            Some(saved) => {
                if let Some(error) = &saved.fallback {
                    self.observer.on_fallback(error, saved.progress.step);
                }
                (saved.progress, saved.best)
            }
            None => (Progress::beginning(settings_hash), copies(&optimizer)?),
        };
        optimizer.step = progress.step;
        let run = Run {
            model,
            objective,
            data,
            schedule: self.schedule(data),
            state,
            optimizer,
            best,
            progress,
            saved_at: None,
        };
        Ok((run, resumed_from))
    }

    fn schedule(&self, data: &TrainingData) -> Schedule {
        let steps_per_epoch = data.len().div_ceil(self.settings.batch_size);
        Schedule {
            peak: self.settings.learning_rate,
            floor: self.settings.min_learning_rate_fraction,
            warmup_steps: self.settings.warmup_steps,
            total_steps: (steps_per_epoch as u64).saturating_mul(self.settings.epochs as u64),
        }
    }

    fn settings_hash(
        &self,
        parameters: &Parameters,
        objective: &dyn Objective,
        data: &TrainingData,
    ) -> String {
        let shapes: Vec<String> = (parameters.iter())
            .map(|(name, var)| format!("{name} {:?} {:?}", var.dtype(), var.dims()))
            .collect();
        // How often the state is saved does not change the result.
        let settings = TrainSettings {
            save_every_steps: 0,
            ..self.settings.clone()
        };
        let all = serde_json::json!({
            "identity": self.identity,
            "settings": settings,
            "seed": settings.seed,
            "objective": objective.describe(),
            "data": data.fingerprint(),
            "parameters": shapes,
        });
        hash::sha256_hex(all.to_string().as_bytes())
    }

    fn epoch(&mut self, run: &mut Run<'_>) -> Result<(), TrainError> {
        let started = Instant::now();
        let epoch = run.progress.epochs_done as u64;
        let batches = run
            .data
            .epoch(self.settings.batch_size, self.settings.seed, epoch);
        while let Some(windows) = batches.get(run.progress.step_in_epoch) {
            if self.stop.load(Ordering::Relaxed) {
                self.save(run)?;
                return Err(TrainError::Interrupted {
                    step: run.progress.step,
                });
            }
            self.step(run, &windows)?;
            let every = self.settings.save_every_steps;
            if every > 0 && run.progress.step.is_multiple_of(every) {
                self.try_to_save(run)?;
            }
        }
        self.finish_epoch(run, started.elapsed().as_secs_f64())
    }

    fn step(&mut self, run: &mut Run<'_>, windows: &[usize]) -> Result<(), TrainError> {
        let started = Instant::now();
        let step = run.progress.step + 1;
        let device = run.model.item_embeddings().device().clone();
        let batch = run.data.batch(windows, &device)?;
        let mut rng = MaskRng::new(self.settings.seed, step);
        let losses = run.objective.loss(run.model, &batch, &mut rng)?;
        refuse_non_finite(&losses, step)?;
        let gradients = losses.total.backward()?;
        let learning_rate = run.schedule.learning_rate(step);
        let gradient_norm = run.optimizer.update(&gradients, learning_rate)?;
        run.progress.step = step;
        run.progress.step_in_epoch += 1;
        run.progress.add(&losses);
        self.observer.on_step(&StepReport {
            epoch: run.progress.epochs_done + 1,
            step,
            steps_total: run.schedule.total_steps,
            losses: &losses.terms,
            learning_rate,
            gradient_norm,
            examples_per_second: windows.len() as f64 / started.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    fn finish_epoch(&mut self, run: &mut Run<'_>, train_seconds: f64) -> Result<(), TrainError> {
        let started = Instant::now();
        let metric = (self.validator.validate(run.model)).map_err(TrainError::Validation)?;
        if !metric.is_finite() {
            return Err(TrainError::NonFinite {
                step: run.progress.step,
                what: "the validation metric".to_owned(),
            });
        }
        let best = run.progress.best_metric.is_none_or(|best| metric > best);
        if best {
            run.best = copies(&run.optimizer)?;
        }
        let validation_seconds = started.elapsed().as_secs_f64();
        run.progress
            .close_epoch(metric, best, train_seconds, validation_seconds);
        let waited = run.progress.epochs_done - run.progress.best_epoch;
        run.progress.finished =
            run.progress.epochs_done >= self.settings.epochs || waited >= self.settings.patience;
        self.try_to_save(run)?;
        if let Some(report) = run.progress.history.last() {
            self.observer.on_epoch(report);
        }
        Ok(())
    }

    fn save(&mut self, run: &mut Run<'_>) -> Result<(), TrainError> {
        if let Some(state) = &run.state
            && run.saved_at != Some(run.at())
        {
            state.save(&run.progress, run.optimizer.slots(), &run.best)?;
            self.observer.on_checkpoint(state.path(), run.progress.step);
            run.saved_at = Some(run.at());
        }
        Ok(())
    }

    /// A save that the run can do without: the run is still in memory, the state of before on disk.
    /// That holds after the last step, too, whose weights the caller is about to write.
    fn try_to_save(&mut self, run: &mut Run<'_>) -> Result<(), TrainError> {
        match self.save(run) {
            Err(error @ TrainError::SaveState { .. }) => {
                self.observer.on_save_failed(&error, run.progress.step);
                Ok(())
            }
            other => other,
        }
    }
}

impl Progress {
    fn add(&mut self, losses: &Losses) {
        if self.loss_sums.is_empty() {
            self.loss_sums = (losses.terms.iter())
                .map(|(name, _)| ((*name).to_owned(), 0.0))
                .collect();
        }
        for ((_, sum), (_, value)) in self.loss_sums.iter_mut().zip(&losses.terms) {
            *sum += value;
        }
    }

    fn close_epoch(
        &mut self,
        metric: f64,
        best: bool,
        train_seconds: f64,
        validation_seconds: f64,
    ) {
        let steps = self.step_in_epoch.max(1) as f64;
        self.epochs_done += 1;
        self.step_in_epoch = 0;
        if best {
            self.best_metric = Some(metric);
            self.best_epoch = self.epochs_done;
        }
        self.history.push(EpochReport {
            epoch: self.epochs_done,
            step: self.step,
            losses: (self.loss_sums.drain(..))
                .map(|(name, sum)| (name, sum / steps))
                .collect(),
            metric,
            best,
            train_seconds,
            validation_seconds,
        });
    }
}

/// Deep copies: the parameters themselves change in place.
fn copies(optimizer: &AdamW) -> Result<Vec<Tensor>, TrainError> {
    let slots = optimizer.slots().iter();
    Ok(slots
        .map(|slot| slot.var.as_detached_tensor().copy())
        .collect::<Result<_, _>>()?)
}

fn refuse_non_finite(losses: &Losses, step: u64) -> Result<(), TrainError> {
    match losses.terms.iter().find(|(_, value)| !value.is_finite()) {
        Some((name, value)) => Err(TrainError::NonFinite {
            step,
            what: format!("the loss term {name} ({value})"),
        }),
        None => Ok(()),
    }
}
