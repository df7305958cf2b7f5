//! Our side of the distillation epoch: a student of 4 layers, a teacher of 24 that runs or is
//! remembered, a prompt of 40 tokens, histories as long as those of MovieLens-100K.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Tensor};
use slmrec_core::ItemIndex;
use slmrec_core::manifest::Readout;
use slmrec_distill::model::{BodyTraining, HistoryBatch, LlmRecommender, ReadAt};
use slmrec_distill::train::distillation::{DistillSettings, Distillation, Positions};
use slmrec_distill::train::teacher::{LiveTeacher, TeacherOutput, TeacherStates};
use slmrec_distill::train::teacher_cache::{
    BATCH_ITEMS, CacheLayout, CacheSpec, CachedTeacher, Filler, TeacherCache,
};
use slmrec_distill::train::{Targets, TrainError, TrainingBatch, TrainingData};
use slmrec_tests::bench::process::serve;

use super::models::{
    HIDDEN, HISTORY, ITEM_DIM, ITEMS, PROMPT, Stepper, item, language_model, lora, prompted_model,
};

const TEACHER_LAYERS: usize = 24;
const STUDENT_LAYERS: usize = 4;
const BATCH: usize = 16;
/// Users whose windows make the epoch.
const USERS: usize = 38;

/// The windows of an epoch. The training sequences are as long as those of MovieLens-100K: at least
/// 18 items, 104 on average, here by an exponential distribution.
pub(super) fn data() -> Result<TrainingData, Box<dyn Error>> {
    let length = |user: usize| {
        let quantile = (user as f64 + 0.5) / USERS as f64;
        18 + (-86.0 * (1.0 - quantile).ln()).round() as usize
    };
    let sequence = |user| (0..length(user)).map(|t| item(user, t, ITEMS)).collect();
    let sequences = (0..USERS).map(sequence).collect();
    let data = TrainingData::from_sequences(sequences, ITEMS, HISTORY, Targets::All)?;
    Ok(data)
}

/// The epoch's batches as the trainer makes them: windows of like length together.
pub(super) fn batches(data: &TrainingData) -> Vec<Vec<usize>> {
    data.epoch(BATCH, 1, 0).iter().collect()
}

/// As many batches of the same windows in random order.
fn unsorted_batches(data: &TrainingData) -> Vec<Vec<usize>> {
    let windows: Vec<usize> = data.epoch(1, 1, 0).iter().flatten().collect();
    windows.chunks(BATCH).map(<[usize]>::to_vec).collect()
}

/// Where the teacher's states are.
fn cache(dir: &Path, data: &TrainingData) -> Result<TeacherCache, Box<dyn Error>> {
    let spec = CacheSpec {
        teacher: "random".to_owned(),
        data: data.fingerprint(),
        num_layers: TEACHER_LAYERS,
        layers: DistillSettings::default().teacher_layers(TEACHER_LAYERS)?,
        positions: Positions::All,
        readout: Readout::Item,
        max_history: HISTORY,
        hidden_size: HIDDEN,
        items: ITEMS,
        item_dim: ITEM_DIM,
        top_k: 0,
        shard_bytes: 64 << 20,
    };
    Ok(TeacherCache::new(dir, CacheLayout::new(spec, data)))
}

/// Fills the directory that each line names.
pub(super) fn fill() -> Result<(), Box<dyn Error>> {
    let data = data()?;
    let teacher = prompted_model(TEACHER_LAYERS, BodyTraining::Frozen)?;
    let stop = AtomicBool::new(false);
    serve(|dir| {
        let cache = cache(dir.as_ref(), &data)?;
        let filler = Filler {
            cache: &cache,
            data: &data,
            teacher: &teacher,
            stop: &stop,
            batch_items: BATCH_ITEMS,
        };
        for shard in 0..cache.layout().shards().len() {
            filler.fill(shard, &mut |_| {})?;
        }
        Ok(f64::NAN)
    })
}

/// Does the step of the batch that each line numbers, in one of the ways of [`super::epoch`].
pub(super) fn distil(variant: &str, dir: &Path) -> Result<(), Box<dyn Error>> {
    let data = data()?;
    let batches = match variant {
        "padded-unsorted" => unsorted_batches(&data),
        _ => batches(&data),
    };
    let student = student(variant)?;
    let model;
    let (live, remembered);
    let teacher: &dyn TeacherStates = if variant == "live" {
        model = prompted_model(TEACHER_LAYERS, BodyTraining::Frozen)?;
        live = LiveTeacher::new(&model, "random")?;
        &live
    } else {
        remembered = Remembered::open(dir, &data)?;
        &remembered
    };
    let settings = DistillSettings::default();
    let objective = Distillation::new(settings, &student, Some(teacher), 1)?;
    let mut stepper = Stepper::new(&student, &objective)?;
    serve(|line| {
        let number: usize = line.parse()?;
        let windows = batches.get(number).ok_or("no such batch")?;
        let batch = data.batch(windows, &Device::Cpu)?;
        stepper.step(&as_in(variant, batch)?)
    })
}

fn student(variant: &str) -> Result<LlmRecommender, Box<dyn Error>> {
    match variant {
        "unshared" => language_model(STUDENT_LAYERS, lora(), PROMPT + HISTORY),
        "unfused" => Ok(prompted_model(STUDENT_LAYERS, lora())?.without_fused_layers()),
        _ => prompted_model(STUDENT_LAYERS, lora()),
    }
}

/// The batch as a variant has it: the same targets of the same histories.
fn as_in(variant: &str, mut batch: TrainingBatch) -> candle_core::Result<TrainingBatch> {
    match variant {
        "unshared" => prompt_in_rows(&batch),
        "padded" | "padded-unsorted" => {
            let longest = batch.histories.items.dim(1)?;
            batch.histories.lengths.fill(longest);
            Ok(batch)
        }
        "last" => Ok(last_targets(batch, ReadAt::LastItem)),
        "last-everywhere" => Ok(last_targets(batch, ReadAt::EveryItem)),
        _ => Ok(batch),
    }
}

/// The prompt as the first items of every row.
fn prompt_in_rows(batch: &TrainingBatch) -> candle_core::Result<TrainingBatch> {
    let longest = batch.histories.items.dim(1)?;
    let items: Vec<Vec<u32>> = batch.histories.items.to_vec2()?;
    let rows: Vec<Vec<ItemIndex>> = (items.iter().zip(&batch.histories.lengths))
        .map(|(row, len)| {
            let prompt = 1..=PROMPT as u32;
            let all = prompt.chain(row[..*len].iter().copied());
            all.map(ItemIndex).collect()
        })
        .collect();
    let rows: Vec<&[ItemIndex]> = rows.iter().map(Vec::as_slice).collect();
    let moved = |position: &u32| {
        let (row, t) = (*position as usize / longest, *position as usize % longest);
        (row * (PROMPT + longest) + PROMPT + t) as u32
    };
    Ok(TrainingBatch {
        histories: HistoryBatch::new(&rows, &Device::Cpu)?,
        target_positions: batch.target_positions.iter().map(moved).collect(),
        ..batch.clone()
    })
}

/// The last position of each history as its only target.
fn last_targets(mut batch: TrainingBatch, read: ReadAt) -> TrainingBatch {
    let (positions, targets) = batch.last_examples();
    batch.mode = Targets::Last;
    batch.histories.read = read;
    (batch.target_positions, batch.targets) = (positions, targets);
    batch
}

/// The cached teacher, also for rows that begin with the prompt.
struct Remembered<'a> {
    states: CachedTeacher,
    data: &'a TrainingData,
}

impl<'a> Remembered<'a> {
    fn open(dir: &Path, data: &'a TrainingData) -> Result<Self, Box<dyn Error>> {
        let cache = cache(dir, data)?;
        let states = (0..cache.layout().shards().len())
            .map(|shard| cache.inspect(shard))
            .collect::<Result<Vec<_>, _>>()?;
        let states = CachedTeacher::open(cache, &states, None)?;
        Ok(Self { states, data })
    }
}

impl TeacherStates for Remembered<'_> {
    fn num_layers(&self) -> usize {
        self.states.num_layers()
    }

    fn hidden_size(&self) -> usize {
        self.states.hidden_size()
    }

    fn num_items(&self) -> usize {
        self.states.num_items()
    }

    fn item_embeddings(&self) -> Result<Tensor, TrainError> {
        self.states.item_embeddings()
    }

    fn fingerprint(&self) -> &str {
        self.states.fingerprint()
    }

    fn read_out(&self, state: &Tensor) -> Result<Tensor, TrainError> {
        self.states.read_out(state)
    }

    fn at(
        &self,
        batch: &TrainingBatch,
        positions: &[u32],
        layers: &[usize],
    ) -> Result<TeacherOutput, TrainError> {
        let original = self.data.batch(&batch.windows, &Device::Cpu)?;
        let (found, longest) = (
            batch.histories.items.dim(1)?,
            original.histories.items.dim(1)?,
        );
        let prompt = found - longest;
        let moved = |position: &u32| {
            let (row, t) = (*position as usize / found, *position as usize % found);
            (row * longest + t - prompt) as u32
        };
        let positions: Vec<u32> = positions.iter().map(moved).collect();
        self.states.at(&original, &positions, layers)
    }
}
