//! The stages, one file each: settings and inputs in, a folder with its record out.

pub mod baselines;
pub mod blend;
pub mod cache;
mod certify;
pub mod cold;
pub mod distill;
pub mod evaluate;
pub mod export;
mod item_embeddings;
pub mod items;
mod online;
pub mod plan;
pub mod prepare;
pub mod pretrain;
pub mod prior;
pub mod refit;
mod runner;
mod student;
pub mod study;
pub mod teach;
mod titles;
pub mod tune;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::Device;
use slmrec_core::prior::{PriorWeights, TransitionPrior};
use slmrec_core::{Dataset, Split};

use super::recipe::Recipe;
use super::settings::TeacherChoice;
use super::stage::{STATE_DIR, StageRecord, hash_input};
use super::{PipelineError, PipelineSettings, Reporter, WorkDir};
use crate::evaluate::{Comparison, ModelScorer, sample_users, validation_ndcg, validation_ndcg_of};
use crate::fetch;
use crate::model::SequentialModel;
use crate::prior::WithPrior;
use crate::train::replicas::{Replica, connect};
use crate::train::{FitReport, TrainSettings, Trainer, TrainingData, Validator, share_of_users};

/// What every stage needs.
pub struct Context<'a> {
    /// All settings.
    pub settings: PipelineSettings,
    /// Run even what is up to date.
    pub force: bool,
    /// Who is told.
    pub reporter: &'a dyn Reporter,
    /// Raised by Ctrl-C.
    pub stop: &'a AtomicBool,
    /// Where fetched data and weights lie.
    pub cache_dir: PathBuf,
    /// Where this program lies, and `slmrec-run` beside it.
    pub program_dir: PathBuf,
    work: WorkDir,
    /// Where models are.
    device: Device,
    /// Further devices, which only training uses.
    others: Vec<Device>,
    /// The validated model that is trained again with the validation items; `None` while models are
    /// validated.
    refit_of: Option<refit::Validated>,
}

impl<'a> Context<'a> {
    /// Opens the devices that the settings name.
    ///
    /// # Errors
    /// As [`super::settings::DeviceChoice::open`].
    pub fn new(
        settings: PipelineSettings,
        force: bool,
        reporter: &'a dyn Reporter,
        stop: &'a AtomicBool,
        cache_dir: PathBuf,
        program_dir: PathBuf,
    ) -> Result<Self, PipelineError> {
        let mut others = settings.device.open(settings.devices)?;
        let device = others.remove(0);
        let work = WorkDir::new(settings.work_dir.clone());
        Ok(Self {
            settings,
            force,
            reporter,
            stop,
            cache_dir,
            program_dir,
            work,
            device,
            others,
            refit_of: None,
        })
    }

    /// What `make` gives for each device that shares the training, that of the context first.
    fn on_each_device<T>(
        &self,
        make: impl Fn(&Self) -> Result<T, PipelineError>,
    ) -> Result<Vec<T>, PipelineError> {
        let mut made = vec![make(self)?];
        for device in &self.others {
            let mut there = self.with(self.settings.clone(), self.work.clone());
            there.device = device.clone();
            there.others = Vec::new();
            made.push(make(&there)?);
        }
        Ok(made)
    }

    /// The same devices with other settings and another work directory.
    fn with(&self, settings: PipelineSettings, work: WorkDir) -> Self {
        Self {
            settings,
            work,
            cache_dir: self.cache_dir.clone(),
            program_dir: self.program_dir.clone(),
            device: self.device.clone(),
            others: self.others.clone(),
            refit_of: self.refit_of.clone(),
            ..*self
        }
    }

    /// Training learns from what is known before the targets of this split.
    fn known_before(&self) -> Split {
        match self.refit_of {
            Some(_) => Split::Test,
            None => Split::Validation,
        }
    }

    /// What a stage that trains is called here.
    fn stage_name(&self, name: &'static str) -> &'static str {
        match self.refit_of {
            Some(_) => refit::refit_name(name).unwrap_or(name),
            None => name,
        }
    }

    /// Says in the record of a refitted model which one it is in the place of.
    fn insert_refit_of(&self, inputs: &mut BTreeMap<String, String>) {
        if let Some(validated) = &self.refit_of {
            inputs.insert(refit::VALIDATED.to_owned(), validated.hash.clone());
        }
    }

    /// The work directory.
    #[must_use]
    pub fn work(&self) -> &WorkDir {
        &self.work
    }

    fn dataset(&self) -> Result<(Dataset, String), PipelineError> {
        let dir = WorkDir::finished(self.work.dataset(), "prepare")?;
        let hash = input_hash(&dir)?;
        Ok((Dataset::read(&dir)?, hash))
    }
}

/// Stages in order, each skipped when it is up to date. Export comes before evaluate, so that the
/// comparison can measure the bundle.
///
/// # Errors
/// The first stage that fails.
pub fn run_all(context: &Context<'_>) -> Result<(Comparison, Vec<StageRecord>), PipelineError> {
    let mut records = vec![
        prepare::run(context)?.record,
        prior::run(context)?.record,
        pretrain::run(context)?.record,
    ];
    let with_titles = pretrain::run_with_titles(context)?;
    records.extend(
        with_titles
            .into_iter()
            .flatten()
            .map(|outcome| outcome.record),
    );
    records.push(teach::run(context)?.record);
    let baselines = baselines::run(context)?;
    records.extend(baselines.into_iter().map(|outcome| outcome.record));
    if context.settings.distill.teacher == TeacherChoice::Blend {
        let (trainings, blend) = blend::run(context)?;
        let trainings = trainings.into_iter().map(|outcome| outcome.record);
        records.extend(trainings.chain([blend.record]));
    }
    records.extend(distill::run_ce_only(context)?.map(|outcome| outcome.record));
    records.push(distill::run(context)?.record);
    let refits = refit::run(context)?;
    records.extend(refits.into_iter().map(|outcome| outcome.record));
    if context.settings.pretrain.titles.is_some() && context.settings.cold.in_run {
        let (_, outcomes) = cold::run(context)?;
        // The titles' vectors are there already.
        records.extend(outcomes.into_iter().skip(1).map(|outcome| outcome.record));
    }
    records.push(export::run(context)?.record);
    let (comparison, outcome) = evaluate::run(context)?;
    records.push(outcome.record);
    Ok((comparison, records))
}

/// [`run_all`] with the settings that fit the data, which are looked at first and written into the
/// work directory. `changes` are what the person asked for, the data among them.
///
/// # Errors
/// No pretrained model, or the first stage that fails.
pub fn run_data(
    context: &Context<'_>,
    changes: &[(String, toml::Value)],
) -> Result<(Comparison, Vec<StageRecord>), PipelineError> {
    prepare::run(context)?;
    let (dataset, _) = context.dataset()?;
    let encoder = match fetch::cached_folder(fetch::Artifact::MiniLm, &context.cache_dir) {
        Ok(_) => true,
        Err(fetch::FetchError::NotFetched { .. }) => false,
        Err(damaged) => return Err(damaged.into()),
    };
    let recipe = Recipe::of(&dataset, encoder);
    let settings = recipe.settings(changes)?;
    context.reporter.say(&recipe.explain(&settings));
    let path = context.work.chosen_settings();
    let text = toml::to_string(&settings)
        .map_err(|e| PipelineError::Settings(format!("settings as TOML: {e}")))?;
    keep_edited(context, &path, &text)?;
    slmrec_core::atomic::write(&path, text.as_bytes())
        .map_err(|e| super::stage::io_error(&path, e))?;
    context.reporter.say(&format!(
        "all settings: {}, for `--config` of other commands and to change them",
        path.display()
    ));
    let own = context.with(settings, context.work.clone());
    // Before anything is trained.
    teach::base_path(&own)?;
    run_all(&own)
}

/// Moves settings aside that are not those about to be written: a person may have edited them.
fn keep_edited(context: &Context<'_>, path: &Path, text: &str) -> Result<(), PipelineError> {
    match std::fs::read(path) {
        Ok(there) if there != text.as_bytes() => {
            let kept = path.with_extension("toml.before");
            std::fs::rename(path, &kept).map_err(|e| super::stage::io_error(path, e))?;
            let line = format!("other settings were there, now {}", kept.display());
            context.reporter.say(&line);
            Ok(())
        }
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(super::stage::io_error(path, e)),
        _ => Ok(()),
    }
}

/// Hash of a finished stage's output.
fn input_hash(dir: &Path) -> Result<String, PipelineError> {
    match StageRecord::read(dir)? {
        Some(record) => Ok(record.output_hash()),
        None => hash_input(&dir.join(super::stage::RECORD_FILE)),
    }
}

/// SHA-256 of the dataset's vocabulary, which checkpoints carry.
fn vocabulary_hash(context: &Context<'_>) -> Result<String, PipelineError> {
    hash_input(
        &context
            .work
            .dataset()
            .join(slmrec_core::dataset::VOCABULARY_FILE),
    )
}

fn to_json(value: &impl serde::Serialize) -> Result<serde_json::Value, PipelineError> {
    serde_json::to_value(value)
        .map_err(|e| PipelineError::Settings(format!("settings as JSON: {e}")))
}

/// Validation NDCG@10, full ranking, seen items removed.
struct NdcgValidator<'a> {
    dataset: &'a Dataset,
    /// Places of the users that are asked; `None` for all.
    users: Option<Vec<usize>>,
    /// What is added to the model's scores.
    prior: Option<(Arc<TransitionPrior>, PriorWeights)>,
}

impl Validator for NdcgValidator<'_> {
    fn validate(
        &mut self,
        model: &dyn SequentialModel,
    ) -> Result<Option<f64>, Box<dyn std::error::Error + Send + Sync>> {
        let users = self.users.as_deref();
        let Some((prior, weights)) = &self.prior else {
            return Ok(Some(validation_ndcg(model, self.dataset, users)?));
        };
        let mut scorer = ModelScorer::new("model", model)?;
        let mut both = WithPrior::new("model + prior", &mut scorer, prior, *weights);
        Ok(Some(validation_ndcg_of(&mut both, self.dataset, users)?))
    }
}

/// Where the validation targets are trained on.
struct NothingHeldOut;

impl Validator for NothingHeldOut {
    fn validate(
        &mut self,
        _model: &dyn SequentialModel,
    ) -> Result<Option<f64>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(None)
    }
}

/// One training run of a stage.
struct Training<'a> {
    label: &'a str,
    settings: &'a TrainSettings,
    /// Everything that the result depends on besides: a resumed run must agree.
    identity: String,
    dir: &'a Path,
    dataset: &'a Dataset,
    /// Share of the users whose sequences are learned from.
    user_share: f64,
    beside: Option<prior::Beside>,
}

impl Training<'_> {
    fn fit(
        &self,
        context: &Context<'_>,
        replicas: &[Replica<'_>],
    ) -> Result<FitReport, PipelineError> {
        let max_history = replicas[0].model.max_history();
        let mut data = training_data(
            context,
            self.dataset,
            self.user_share,
            max_history,
            self.settings,
        )?;
        if let Some(beside) = &self.beside {
            data = data.with_prior(beside.prior.clone());
        }
        let devices: Vec<Device> = replicas.iter().map(Replica::device).collect();
        let exchange = connect(&devices)?;
        let state = self.dir.join(STATE_DIR);
        std::fs::create_dir_all(&state).map_err(|e| super::stage::io_error(&state, e))?;
        let mut validator: Box<dyn Validator> = match context.known_before() {
            Split::Validation => Box::new(self.validator(context)),
            Split::Test => Box::new(NothingHeldOut),
        };
        let mut observer = context.reporter.training(self.label);
        let report = Trainer {
            settings: self.settings,
            identity: &self.identity,
            validator: validator.as_mut(),
            observer: observer.as_mut(),
            stop: context.stop,
            state_dir: Some(&state),
        }
        .fit_replicas(replicas, exchange.as_ref(), &data)?;
        Ok(report)
    }

    fn validator(&self, context: &Context<'_>) -> NdcgValidator<'_> {
        let asked = self.settings.validation_users;
        let users = sample_users(self.dataset, Split::Validation, asked, self.settings.seed);
        if users.is_some() {
            let all = self.dataset.num_users();
            let line =
                format!("validation on a sample of {asked} of {all} users (validation_users)");
            context.reporter.say(&format!("{}: {line}", self.label));
        }
        NdcgValidator {
            dataset: self.dataset,
            users,
            prior: (self.beside.as_ref())
                .and_then(|beside| Some((beside.prior.clone(), beside.weights?))),
        }
    }
}

/// What a loop with these settings, the seed among them, learns from.
fn training_data(
    context: &Context<'_>,
    dataset: &Dataset,
    user_share: f64,
    max_history: usize,
    train: &TrainSettings,
) -> Result<TrainingData, PipelineError> {
    let users = share_of_users(dataset.num_users(), user_share, train.seed);
    let data = TrainingData::of_users(
        dataset,
        context.known_before(),
        &users,
        max_history,
        train.targets,
    )?;
    Ok(data.with_settings(train)?)
}

/// Settings of a loop with the pipeline's seed.
fn seeded(settings: &TrainSettings, context: &Context<'_>) -> TrainSettings {
    TrainSettings {
        seed: context.settings.seed,
        ..settings.clone()
    }
}
