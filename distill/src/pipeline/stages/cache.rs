//! The teacher's states on disk: `teach --cache-states` fills and checks them, `distill` uses them.

use std::path::PathBuf;

use candle_core::Tensor;
use serde::Serialize;
use slmrec_core::Dataset;
use slmrec_core::manifest::Readout;
use slmrec_export::checkpoint::{CONFIG_FILE, LlamaConfig, RECOMMENDER_WEIGHTS_FILE};

use super::super::settings::{Online, TeacherChoice, TeacherStatesChoice};
use super::super::{PipelineError, WorkDir};
use super::{Context, blend, input_hash, seeded, training_data};
use crate::model::file_error::read_json;
use crate::model::recommender::ITEM_EMBEDDINGS;
use crate::model::weights_file::WeightsFile;
use crate::model::{LlmRecommender, SequentialModel, StateReadout, read_recommender_config};
use crate::train::distillation::Positions;
use crate::train::teacher_cache::{
    BATCH_ITEMS, CacheError, CacheLayout, CacheSpec, CachedTeacher, FillPart, Filler, ShardState,
    TeacherCache,
};
use crate::train::{LiveTeacher, Targets, TeacherStates, TrainError, TrainingData, hidden_size};

const GIB: f64 = (1u64 << 30) as f64;

/// What became of a cache directory.
#[derive(Clone, Debug, Serialize)]
pub struct CacheReport {
    /// The directory.
    pub dir: PathBuf,
    /// Key over teacher, data and settings.
    pub key: String,
    /// Size of all shards in bytes.
    pub bytes: u64,
    /// Number of all shards.
    pub shards_total: usize,
    /// Number of shards that were computed now.
    pub computed: usize,
    /// Whether all shards are known to be good; then the manifest is written.
    pub complete: bool,
    /// The shards that were looked at.
    pub shards: Vec<ShardReport>,
}

/// One shard.
#[derive(Clone, Debug, Serialize)]
pub struct ShardReport {
    /// Its number, from 1: `--shard NUMBER/TOTAL` fills it.
    pub number: usize,
    /// Its file.
    pub file: String,
    /// What it is.
    #[serde(flatten)]
    pub state: ShardState,
}

/// Fills the shards of a part, or with `--force` computes them again.
///
/// # Errors
/// An unfinished teacher, states that are larger than allowed or do not fit into f16, Ctrl-C.
pub fn fill(context: &Context<'_>, part: FillPart) -> Result<CacheReport, PipelineError> {
    let work = Work::new(context, &context.dataset()?.0)?;
    work.check_size(context)?;
    let section = &context.settings.distill;
    let why = match (section.online, section.teacher_states) {
        (Online::Off, TeacherStatesChoice::Live) => Some("distill.teacher_states = \"live\""),
        (Online::Off, _) => None,
        _ => Some("distill.online lets the teacher learn"),
    };
    if let Some(why) = why {
        let notice = format!("teacher-states: {why}, so distill will not read them");
        context.reporter.say(&notice);
    }
    work.fill(context, part, context.force)
}

/// Looks at every shard and computes none. Writes the manifest when all are good.
///
/// # Errors
/// An unfinished teacher or files that cannot be read. Shards that are not good are in the report.
pub fn check(context: &Context<'_>) -> Result<CacheReport, PipelineError> {
    let work = Work::new(context, &context.dataset()?.0)?;
    let states = work.inspect(context, FillPart::ALL)?;
    work.report(states, 0)
}

/// The teacher of a student.
pub(super) enum Teacher {
    /// One model for each device that shares the training.
    Live {
        models: Vec<Box<dyn SequentialModel>>,
        hash: String,
    },
    Cached(Box<CachedTeacher>),
}

impl Teacher {
    /// As `distill.teacher_states` says; `None` when no term of the objective asks a teacher.
    pub(super) fn choose(
        context: &Context<'_>,
        dataset: &Dataset,
    ) -> Result<Option<Self>, PipelineError> {
        let section = &context.settings.distill;
        if !section.objective.needs_teacher() {
            return Ok(None);
        }
        if section.teacher_states != TeacherStatesChoice::Live {
            let work = Work::new(context, dataset)?;
            match work.check_size(context) {
                Ok(()) => return Ok(Some(work.teacher(context)?)),
                Err(PipelineError::Train(TrainError::TeacherCache(
                    error @ CacheError::TooLarge { .. },
                ))) if section.teacher_states == TeacherStatesChoice::Auto => {
                    context
                        .reporter
                        .say(&format!("distill: the teacher runs at every step: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Self::Live {
            models: context.on_each_device(load_teacher)?,
            hash: input_hash(&teacher_dir(context)?)?,
        }))
    }

    /// The states, for the objective of the device of that number.
    pub(super) fn states(&self, number: usize) -> Result<States<'_>, PipelineError> {
        Ok(match self {
            Self::Live { models, hash } => {
                States::Live(LiveTeacher::new(models[number].as_ref(), hash.clone())?)
            }
            Self::Cached(teacher) => States::Cached(teacher),
        })
    }
}

/// A teacher that can be asked.
pub(super) enum States<'a> {
    Live(LiveTeacher<'a>),
    Cached(&'a CachedTeacher),
}

impl States<'_> {
    pub(super) fn as_dyn(&self) -> &dyn TeacherStates {
        match self {
            Self::Live(teacher) => teacher,
            Self::Cached(teacher) => *teacher,
        }
    }
}

/// The folder of who teaches.
pub(super) fn teacher_dir(context: &Context<'_>) -> Result<PathBuf, PipelineError> {
    match context.settings.distill.teacher {
        TeacherChoice::Decoder => WorkDir::finished(context.work.teacher(), "teach"),
        TeacherChoice::Blend => WorkDir::finished(context.work.blend(), "blend"),
    }
}

fn load_teacher(context: &Context<'_>) -> Result<Box<dyn SequentialModel>, PipelineError> {
    Ok(match context.settings.distill.teacher {
        TeacherChoice::Decoder => Box::new(LlmRecommender::load(
            &teacher_dir(context)?,
            &context.device,
        )?),
        TeacherChoice::Blend => Box::new(blend::load(context)?),
    })
}

/// How the teacher reads inner states out, only where a term asks for it; a blend does not.
fn readout(context: &Context<'_>) -> Result<Option<StateReadout>, PipelineError> {
    let section = &context.settings.distill;
    if section.objective.lambda_block_kl == 0.0 || section.teacher == TeacherChoice::Blend {
        return Ok(None);
    }
    Ok(Some(StateReadout::load(
        &teacher_dir(context)?,
        &context.device,
    )?))
}

/// What a cache has to know of the teacher.
struct Shape {
    num_layers: usize,
    hidden_size: usize,
    readout: Readout,
    max_history: usize,
    items: usize,
    item_dim: usize,
}

impl Shape {
    fn of(context: &Context<'_>) -> Result<Self, PipelineError> {
        if context.settings.distill.teacher == TeacherChoice::Blend {
            let blend = blend::load(context)?;
            let (rows, item_dim) = blend.item_table().dims()?;
            return Ok(Self {
                num_layers: blend.num_layers(),
                hidden_size: hidden_size(&blend)?,
                readout: context.settings.model.readout,
                max_history: blend.max_history(),
                items: rows.saturating_sub(1),
                item_dim,
            });
        }
        let dir = teacher_dir(context)?;
        let config = read_recommender_config(&dir)?;
        let body: LlamaConfig = read_json(&dir.join(CONFIG_FILE))?;
        Ok(Self {
            num_layers: body.num_hidden_layers,
            hidden_size: body.hidden_size,
            readout: config.readout,
            max_history: config.max_history,
            items: config.items,
            item_dim: config.item_dim,
        })
    }
}

/// A cache directory and what its values come from.
struct Work {
    cache: TeacherCache,
    data: TrainingData,
}

/// Where a student with these settings asks the teacher.
pub(super) fn stored_positions(positions: Positions, targets: Targets) -> Positions {
    match (positions, targets) {
        (Positions::All, Targets::All) => Positions::All,
        _ => Positions::Last,
    }
}

impl Work {
    fn new(context: &Context<'_>, dataset: &Dataset) -> Result<Self, PipelineError> {
        let section = &context.settings.distill;
        section.check()?;
        let teacher = Shape::of(context)?;
        let objective = &section.objective;
        objective.check()?;
        // The windows of the student, whose batches the states are read for.
        let targets = section.train.targets;
        let max_history = context.settings.model.max_history;
        let train = seeded(&section.train, context);
        let data = training_data(context, dataset, section.user_share, max_history, &train)?;
        let spec = CacheSpec {
            teacher: input_hash(&teacher_dir(context)?)?,
            data: data.fingerprint(),
            num_layers: teacher.num_layers,
            layers: objective.teacher_layers(teacher.num_layers)?,
            positions: stored_positions(objective.positions, targets),
            readout: teacher.readout,
            max_history: teacher.max_history,
            hidden_size: teacher.hidden_size,
            items: teacher.items,
            item_dim: teacher.item_dim,
            top_k: objective.top_items(teacher.items),
            shard_bytes: section.cache_shard_bytes(),
        };
        let dir = section.cache_dir.clone();
        let dir = dir.unwrap_or_else(|| context.work.teacher_states());
        Ok(Self {
            cache: TeacherCache::new(dir, CacheLayout::new(spec, &data)),
            data,
        })
    }

    fn check_size(&self, context: &Context<'_>) -> Result<(), PipelineError> {
        let needed = self.cache.layout().bytes() as f64 / GIB;
        let allowed = context.settings.distill.cache_max_gib;
        if needed <= allowed {
            return Ok(());
        }
        Err(TrainError::from(CacheError::TooLarge { needed, allowed }).into())
    }

    /// The states of a part's shards, with their numbers from 0.
    fn inspect(
        &self,
        context: &Context<'_>,
        part: FillPart,
    ) -> Result<Vec<(usize, ShardState)>, PipelineError> {
        let total = self.cache.layout().shards().len();
        let counter = context.reporter.counter("verify", total as u64);
        let mut states = Vec::new();
        for shard in (0..total).filter(|shard| part.has(*shard)) {
            stop_if_asked(context)?;
            states.push((shard, self.cache.inspect(shard).map_err(TrainError::from)?));
            counter.set(shard as u64 + 1);
        }
        Ok(states)
    }

    fn fill(
        &self,
        context: &Context<'_>,
        part: FillPart,
        again: bool,
    ) -> Result<CacheReport, PipelineError> {
        let mut states = self.inspect(context, part)?;
        let wanted: Vec<usize> = (states.iter().enumerate())
            .filter(|(_, (_, state))| again || !state.is_good())
            .map(|(at, _)| at)
            .collect();
        if !wanted.is_empty() {
            self.announce(context, &states, wanted.len())?;
            self.compute(context, &mut states, &wanted)?;
        }
        self.report(states, wanted.len())
    }

    fn announce(
        &self,
        context: &Context<'_>,
        states: &[(usize, ShardState)],
        wanted: usize,
    ) -> Result<(), PipelineError> {
        let others = self.cache.others().map_err(TrainError::from)?;
        if others > 0 {
            context.reporter.say(&format!(
                "teacher-states: {others} shards of another teacher, other data or other settings \
                 are stale and go when this cache is complete\n\
                 hint: states serve a student whose flags were given to `teach --cache-states`, \
                 too (--blocks, --block-map, --lambda-cos, --lambda-norm, --lambda-kd, --lambda-block-kl)"
            ));
        }
        for (shard, state) in states {
            let name = self.cache.layout().file_name(*shard);
            match state {
                ShardState::Good { .. } | ShardState::Missing => {}
                ShardState::Stale { found } => context.reporter.say(&format!(
                    "teacher-states: {name} is stale (key {found}, expected {}) and is computed again",
                    self.cache.layout().key()
                )),
                ShardState::Damaged { expected, found } => context.reporter.say(&format!(
                    "teacher-states: {name} is damaged (expected {expected}, found {found}) and is \
                     computed again"
                )),
            }
        }
        context.reporter.say(&format!(
            "teacher-states: the teacher computes {wanted} of {} shards ({:.1} MB in all, {})",
            self.cache.layout().shards().len(),
            self.cache.layout().bytes() as f64 / 1e6,
            self.cache.dir().display(),
        ));
        Ok(())
    }

    /// Computes some of `states` and reads back what was written.
    fn compute(
        &self,
        context: &Context<'_>,
        states: &mut [(usize, ShardState)],
        wanted: &[usize],
    ) -> Result<(), PipelineError> {
        let teacher = load_teacher(context)?;
        let filler = Filler {
            cache: &self.cache,
            data: &self.data,
            teacher: teacher.as_ref(),
            stop: context.stop,
            batch_items: BATCH_ITEMS,
        };
        let rows = |at: &usize| self.cache.layout().rows(states[*at].0);
        let counter = (context.reporter).counter("states", wanted.iter().map(rows).sum());
        let mut done = 0;
        for &at in wanted {
            let (shard, state) = &mut states[at];
            filler.fill(*shard, &mut |rows| {
                done += rows;
                counter.set(done);
            })?;
            *state = self.cache.inspect(*shard).map_err(TrainError::from)?;
        }
        Ok(())
    }

    fn report(
        &self,
        states: Vec<(usize, ShardState)>,
        computed: usize,
    ) -> Result<CacheReport, PipelineError> {
        let layout = self.cache.layout();
        let all: Vec<ShardState> = states.iter().map(|(_, state)| state.clone()).collect();
        let complete = self.cache.digests(&all).is_ok();
        if complete {
            self.cache.finish(&all).map_err(TrainError::from)?;
        }
        let shard = |(number, state): (usize, ShardState)| ShardReport {
            number: number + 1,
            file: layout.file_name(number),
            state,
        };
        Ok(CacheReport {
            dir: self.cache.dir().to_owned(),
            key: layout.key().to_owned(),
            bytes: layout.bytes(),
            shards_total: layout.shards().len(),
            computed,
            complete,
            shards: states.into_iter().map(shard).collect(),
        })
    }

    /// Fills what is missing and opens the cache; the model is gone from memory by then.
    fn teacher(self, context: &Context<'_>) -> Result<Teacher, PipelineError> {
        let report = self.fill(context, FillPart::ALL, false)?;
        let states: Vec<ShardState> = report.shards.into_iter().map(|s| s.state).collect();
        let items = self.item_embeddings(context)?;
        context.reporter.say(&format!(
            "distill: no teacher in memory, its states come from {} ({:.1} MB)",
            report.dir.display(),
            report.bytes as f64 / 1e6,
        ));
        let readout = readout(context)?;
        let teacher = CachedTeacher::open(self.cache, &states, items).map_err(TrainError::from)?;
        Ok(Teacher::Cached(Box::new(teacher.with_readout(readout))))
    }

    /// The teacher's item embeddings, only where all its scores are needed.
    fn item_embeddings(&self, context: &Context<'_>) -> Result<Option<Tensor>, PipelineError> {
        let spec = self.cache.layout().spec();
        if !context.settings.distill.objective.needs_teacher_items() {
            return Ok(None);
        }
        if context.settings.distill.teacher == TeacherChoice::Blend {
            return Ok(Some(blend::load(context)?.item_embeddings()?));
        }
        let dir = teacher_dir(context)?;
        let mut file = WeightsFile::open(&dir.join(RECOMMENDER_WEIGHTS_FILE))?;
        let shape = [spec.items.saturating_add(1), spec.item_dim];
        Ok(Some(file.tensor(
            ITEM_EMBEDDINGS,
            &shape,
            &context.device,
        )?))
    }
}

fn stop_if_asked(context: &Context<'_>) -> Result<(), PipelineError> {
    if context.stop.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(PipelineError::Interrupted);
    }
    Ok(())
}
