//! The loop: epochs, validation, early stopping, and states that a cut run goes on from with the
//! very bits it would have had.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::{Device, Tensor};
use slmrec_core::hash;

use super::adamw::{AdamW, Slot};
use super::parts::{self, Parts, Terms};
use super::replicas::{self, GradientExchange, HostExchange, Replica};
use super::schedule::Schedule;
use super::settings::check;
use super::state::{Progress, StateFile};
use super::{
    EpochReport, FitReport, Objective, StepReport, TrainError, TrainObserver, TrainSettings,
    TrainingData, Validator,
};
use crate::model::{Parameters, SequentialModel};

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
    replicas: &'a [Replica<'a>],
    exchange: &'a dyn GradientExchange,
    data: &'a TrainingData,
    /// How a replica that is alone runs a batch.
    parts: Parts,
    schedule: Schedule,
    state: Option<StateFile>,
    /// One for each replica; the first is the one that is saved.
    optimizers: Vec<AdamW>,
    best: Vec<Tensor>,
    progress: Progress,
    /// Epochs and steps done in the newest state on disk.
    saved_at: Option<(usize, u64)>,
}

impl Run<'_> {
    fn at(&self) -> (usize, u64) {
        (self.progress.epochs_done, self.progress.step)
    }

    /// What is trained, with its moments.
    fn slots(&self) -> &[Slot] {
        self.optimizers[0].slots()
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
        let alone = [Replica { model, objective }];
        self.fit_replicas(&alone, &HostExchange, data)
    }

    /// The same on several replicas, equal but for their device, which share every batch and whose
    /// gradients `exchange` adds up. The first is validated, saved and given the best weights.
    ///
    /// # Errors
    /// As [`Self::fit`], [`TrainError::Setting`] without a replica, and whatever the exchange reports.
    pub fn fit_replicas(
        &mut self,
        replicas: &[Replica<'_>],
        exchange: &dyn GradientExchange,
        data: &TrainingData,
    ) -> Result<FitReport, TrainError> {
        self.settings.check()?;
        check("replicas", !replicas.is_empty(), "at least 1", 0)?;
        let (mut run, resumed_from) = self.start(replicas, exchange, data)?;
        while !run.progress.finished {
            self.epoch(&mut run)?;
        }
        for (slot, best) in run.slots().iter().zip(&run.best) {
            slot.var.set(best)?;
        }
        let progress = run.progress;
        Ok(FitReport {
            best_epoch: progress.best_epoch,
            best_metric: progress.best_metric,
            steps: progress.step,
            stopped_early: progress.epochs_done < self.settings.epochs,
            epochs: progress.history,
            resumed_from,
        })
    }

    fn start<'r>(
        &mut self,
        replicas: &'r [Replica<'r>],
        exchange: &'r dyn GradientExchange,
        data: &'r TrainingData,
    ) -> Result<(Run<'r>, Option<u64>), TrainError> {
        let parameters = (replicas.iter())
            .map(parameters_of)
            .collect::<candle_core::Result<Vec<_>>>()?;
        let mut optimizers = (parameters.iter())
            .map(|parameters| AdamW::new(parameters, self.settings))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let settings_hash = self.settings_hash(&parameters[0], replicas, data);
        let state = self.state_dir.map(StateFile::in_dir);
        let saved = match &state {
            Some(file) => file.load(&settings_hash, optimizers[0].slots())?,
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
            None => (
                Progress::beginning(settings_hash),
                copies(optimizers[0].slots())?,
            ),
        };
        optimizers[0].step = progress.step;
        replicas::equalize(&mut optimizers)?;
        let run = Run {
            replicas,
            exchange,
            data,
            parts: Parts::new(parts::count(
                self.settings.parts,
                &replicas[0].device(),
                data,
            ))?,
            schedule: self.schedule(data),
            state,
            optimizers,
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
        replicas: &[Replica<'_>],
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
        let mut all = serde_json::json!({
            "identity": self.identity,
            "settings": settings,
            "seed": settings.seed,
            "objective": replicas[0].objective.describe(),
            "data": data.fingerprint(),
            "parameters": shapes,
        });
        if replicas.len() > 1 {
            // Sums in another order and other random streams.
            all["replicas"] = replicas.len().into();
        }
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
        let learning_rate = run.schedule.learning_rate(step);
        let (terms, gradient_norm) = match run.replicas {
            [alone] => self.step_alone(alone, run, windows, (step, learning_rate))?,
            _ => self.step_together(run, windows, (step, learning_rate))?,
        };
        run.progress.step = step;
        run.progress.step_in_epoch += 1;
        run.progress.add(&terms);
        self.observer.on_step(&StepReport {
            epoch: run.progress.epochs_done + 1,
            step,
            steps_total: run.schedule.total_steps,
            losses: &terms,
            learning_rate,
            gradient_norm,
            examples_per_second: windows.len() as f64 / started.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    fn step_alone(
        &self,
        replica: &Replica<'_>,
        run: &mut Run<'_>,
        windows: &[usize],
        (step, learning_rate): (u64, f64),
    ) -> Result<(Terms, f64), TrainError> {
        let optimizer = &mut run.optimizers[0];
        let random = (self.settings.seed, step);
        let (terms, gradients) =
            (run.parts).gradients(replica, optimizer, run.data, windows, random)?;
        let norm = optimizer.apply(&gradients, learning_rate)?;
        Ok((terms, norm))
    }

    fn step_together(
        &self,
        run: &mut Run<'_>,
        windows: &[usize],
        (step, learning_rate): (u64, f64),
    ) -> Result<(Terms, f64), TrainError> {
        let devices: Vec<Device> = run.replicas.iter().map(Replica::device).collect();
        let shared = replicas::gradients(
            run.replicas,
            &run.optimizers,
            &run.data.parts(windows, &devices)?,
            run.exchange,
            (self.settings.seed, step),
        )?;
        let mut norm = 0.0;
        for (optimizer, gradients) in run.optimizers.iter_mut().zip(&shared.gradients) {
            norm = optimizer.apply(gradients, learning_rate)?;
        }
        Ok((shared.terms, norm))
    }

    fn finish_epoch(&mut self, run: &mut Run<'_>, train_seconds: f64) -> Result<(), TrainError> {
        let started = Instant::now();
        let metric =
            (self.validator.validate(run.replicas[0].model)).map_err(TrainError::Validation)?;
        if metric.is_some_and(|metric| !metric.is_finite()) {
            return Err(TrainError::NonFinite {
                step: run.progress.step,
                what: "the validation metric".to_owned(),
            });
        }
        let best = match (metric, run.progress.best_metric) {
            (Some(metric), Some(best)) => metric > best,
            _ => true,
        };
        if best {
            run.best = copies(run.slots())?;
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
            state.save(&run.progress, run.slots(), &run.best)?;
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
    fn add(&mut self, terms: &[(&'static str, f64)]) {
        if self.loss_sums.is_empty() {
            self.loss_sums = (terms.iter())
                .map(|(name, _)| ((*name).to_owned(), 0.0))
                .collect();
        }
        for ((_, sum), (_, value)) in self.loss_sums.iter_mut().zip(terms) {
            *sum += value;
        }
    }

    fn close_epoch(
        &mut self,
        metric: Option<f64>,
        best: bool,
        train_seconds: f64,
        validation_seconds: f64,
    ) {
        let steps = self.step_in_epoch.max(1) as f64;
        self.epochs_done += 1;
        self.step_in_epoch = 0;
        if best {
            self.best_metric = metric;
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

/// Everything that is trained of a replica, by name.
fn parameters_of(replica: &Replica<'_>) -> candle_core::Result<Parameters> {
    let mut parameters = Parameters::default();
    parameters.extend("model.", replica.model.parameters())?;
    parameters.extend("objective.", replica.objective.parameters())?;
    Ok(parameters)
}

/// Deep copies: the parameters themselves change in place.
fn copies(slots: &[Slot]) -> candle_core::Result<Vec<Tensor>> {
    slots
        .iter()
        .map(|slot| slot.var.as_detached_tensor().copy())
        .collect()
}
