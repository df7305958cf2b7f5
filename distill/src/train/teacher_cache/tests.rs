//! Stored answers against live ones.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Tensor};
use slmrec_core::ItemIndex;
use slmrec_core::manifest::Readout;

use super::*;
use crate::model::{HistoryBatch, Mode, ModelOutput, Parameters, SasRec, SequentialModel};
use crate::train::distillation::Positions;
use crate::train::report::Silent;
use crate::train::teacher::TeacherOutput;
use crate::train::testing::{ITEMS, Response, sasrec};
use crate::train::{
    DistillSettings, Distillation, FitReport, LiveTeacher, Targets, TeacherStates, TrainError,
    TrainSettings, Trainer, TrainingBatch, TrainingData, Validator,
};

mod files;

/// What another grouping of rows changes in sums of f32, on top of the rounding to f16.
const SUM_TOLERANCE: f32 = 1e-5;
/// A rounding of 2^-11 in every target of the alignment, over a few dozen steps of training.
const RUN_TOLERANCE: f64 = 2e-3;

fn model(num_hidden_layers: usize, hidden_size: usize) -> SasRec {
    sasrec(num_hidden_layers, hidden_size, 0.2)
}

fn data(targets: Targets) -> TrainingData {
    let sequences = (0..12u32)
        .map(|user| {
            let len = 3 + user % 7;
            let item = |at| ItemIndex(1 + (user + at) % ITEMS as u32);
            (0..len).map(item).collect()
        })
        .collect();
    TrainingData::from_sequences(sequences, ITEMS, 5, targets).expect("data")
}

fn spec(data: &TrainingData, positions: Positions, top_k: usize) -> CacheSpec {
    CacheSpec {
        teacher: "teacher".to_owned(),
        data: data.fingerprint(),
        num_layers: 4,
        layers: vec![2, 4],
        positions,
        readout: Readout::Item,
        max_history: 5,
        hidden_size: 12,
        items: ITEMS,
        item_dim: 12,
        top_k,
        shard_bytes: 500,
    }
}

fn cache(dir: &Path, data: &TrainingData, positions: Positions, top_k: usize) -> TeacherCache {
    TeacherCache::new(dir, CacheLayout::new(spec(data, positions, top_k), data))
}

fn fill_with(
    cache: &TeacherCache,
    data: &TrainingData,
    teacher: &dyn SequentialModel,
    shards: impl IntoIterator<Item = usize>,
) -> Result<u64, TrainError> {
    let filler = Filler {
        cache,
        data,
        teacher,
        stop: &AtomicBool::new(false),
        batch_items: 12,
    };
    let mut rows = 0;
    for shard in shards {
        filler.fill(shard, &mut |done| rows += done)?;
    }
    Ok(rows)
}

fn all(cache: &TeacherCache) -> std::ops::Range<usize> {
    0..cache.layout().shards().len()
}

fn states(cache: &TeacherCache) -> Vec<ShardState> {
    all(cache)
        .map(|shard| cache.inspect(shard).expect("readable"))
        .collect()
}

/// A complete cache of the four-layer teacher.
fn filled(dir: &Path, data: &TrainingData, positions: Positions, top_k: usize) -> TeacherCache {
    let cache = cache(dir, data, positions, top_k);
    let rows = fill_with(&cache, data, &model(4, 12), all(&cache)).expect("filled");
    assert_eq!(rows, cache.layout().total_rows());
    assert!(all(&cache).len() >= 2, "{} shards", all(&cache).len());
    cache
}

fn open(cache: &TeacherCache, items: Option<Tensor>) -> CachedTeacher {
    CachedTeacher::open(cache.clone(), &states(cache), items).expect("complete")
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.flatten_all().expect("flat");
    flat.to_vec1().expect("values")
}

fn assert_close(stored: &Tensor, live: &Tensor) {
    assert_eq!(stored.dims(), live.dims());
    assert!(!stored.track_op(), "no graph behind what is stored");
    for (s, l) in values(stored).iter().zip(values(live)) {
        let near = (s - l).abs() <= STATE_TOLERANCE * l.abs() + SUM_TOLERANCE;
        assert!(near, "stored {s}, live {l}");
    }
}

fn batches(data: &TrainingData) -> Vec<TrainingBatch> {
    (data.epoch(5, 1, 0).iter())
        .map(|windows| data.batch(&windows, &Device::Cpu).expect("batch"))
        .collect()
}

fn agree(stored: &TeacherOutput, live: &TeacherOutput) {
    assert_eq!(stored.states.len(), live.states.len());
    for (stored, live) in stored.states.iter().zip(&live.states) {
        assert_close(stored, live);
    }
    assert_close(&stored.user_vectors, &live.user_vectors);
}

#[test]
fn stored_answers_are_the_live_ones() {
    let teacher = model(4, 12);
    let live = LiveTeacher::new(&teacher, "teacher").expect("teacher");
    for (targets, positions) in [
        (Targets::All, Positions::All),
        (Targets::All, Positions::Last),
        (Targets::Last, Positions::Last),
    ] {
        let data = data(targets);
        let dir = tempfile::tempdir().expect("temporary folder");
        let stored = open(&filled(dir.path(), &data, positions, 0), None);
        assert_eq!(stored.num_layers(), live.num_layers());
        assert_eq!(stored.hidden_size(), live.hidden_size());
        assert_eq!(stored.num_items(), live.num_items());
        for batch in batches(&data) {
            let places = match positions {
                Positions::All => batch.target_positions.clone(),
                Positions::Last => batch.last_positions(),
            };
            for layers in [&[2, 4][..], &[4, 2], &[4], &[]] {
                let stored = stored.at(&batch, &places, layers).expect("stored");
                agree(&stored, &live.at(&batch, &places, layers).expect("live"));
            }
            // Any order, and a position twice: histories may be shared by several targets.
            let mut mixed: Vec<u32> = places.iter().rev().copied().collect();
            mixed.push(places[0]);
            if positions == Positions::All {
                let stored = stored.at(&batch, &mixed, &[2]).expect("stored");
                agree(&stored, &live.at(&batch, &mixed, &[2]).expect("live"));
            }
        }
    }
}

#[test]
fn one_vector_a_history_is_stored_at_the_last_position() {
    let teacher = model(4, 12);
    let teacher = Response(&teacher);
    let data = data(Targets::Last);
    let dir = tempfile::tempdir().expect("temporary folder");
    let one = cache(dir.path(), &data, Positions::Last, 0);
    fill_with(&one, &data, &teacher, all(&one)).expect("filled");
    let (stored, live) = (
        open(&one, None),
        LiveTeacher::new(&teacher, "teacher").expect("live"),
    );
    for batch in batches(&data) {
        let places = batch.last_positions();
        let stored = stored.at(&batch, &places, &[2, 4]).expect("stored");
        agree(&stored, &live.at(&batch, &places, &[2, 4]).expect("live"));
    }
    let every = cache(dir.path(), &data, Positions::All, 0);
    let refused = fill_with(&every, &data, &teacher, all(&every));
    assert!(matches!(refused, Err(TrainError::Readout { .. })));
}

/// Any deterministic function of the weights will do as a metric.
struct Wobble;

impl Validator for Wobble {
    fn validate(
        &mut self,
        model: &dyn SequentialModel,
    ) -> Result<Option<f64>, Box<dyn std::error::Error + Send + Sync>> {
        let sum = model.item_embeddings()?.sum_all()?.to_scalar::<f32>()?;
        Ok(Some(f64::from(sum).sin()))
    }
}

fn train(teacher: &dyn TeacherStates, top_k: usize) -> FitReport {
    let student = model(2, 8);
    let settings = DistillSettings {
        blocks: 2,
        lambda_kd: 0.5,
        top_k,
        ..DistillSettings::default()
    };
    let objective = Distillation::new(settings, &student, Some(teacher), 9).expect("objective");
    let settings = TrainSettings {
        epochs: 3,
        patience: 3,
        batch_size: 4,
        learning_rate: 0.02,
        warmup_steps: 2,
        ..TrainSettings::default()
    };
    Trainer {
        settings: &settings,
        identity: "test",
        validator: &mut Wobble,
        observer: &mut Silent,
        stop: &AtomicBool::new(false),
        state_dir: None,
    }
    .fit(&student, &objective, &data(Targets::All))
    .expect("run")
}

#[test]
fn a_whole_run_with_stored_states_is_the_run_with_a_teacher() {
    let teacher = model(4, 12);
    let live = LiveTeacher::new(&teacher, "teacher").expect("live");
    let data = data(Targets::All);
    for top_k in [0, 3] {
        let dir = tempfile::tempdir().expect("temporary folder");
        let items = (top_k == 0).then(|| teacher.item_embeddings().expect("items").detach());
        let stored = open(&filled(dir.path(), &data, Positions::All, top_k), items);
        let (stored, live) = (train(&stored, top_k), train(&live, top_k));
        assert_eq!(stored.steps, live.steps);
        for (stored, live) in stored.epochs.iter().zip(&live.epochs) {
            assert_eq!(stored.losses.len(), 5);
            for (name, value) in &stored.losses {
                let expected = live.losses[name];
                let near = (value - expected).abs() <= RUN_TOLERANCE * expected.abs().max(0.1);
                assert!(near, "{name}: stored {value}, live {expected}");
            }
        }
    }
}

#[test]
fn the_best_items_are_stored_with_their_scores() {
    let teacher = model(4, 12);
    let data = data(Targets::All);
    let dir = tempfile::tempdir().expect("temporary folder");
    // More than there are: all of them.
    for (asked, kept) in [(3, 3), (100, ITEMS)] {
        let settings = DistillSettings {
            lambda_kd: 1.0,
            top_k: asked,
            ..DistillSettings::default()
        };
        assert_eq!(settings.top_items(ITEMS), kept);
        let stored = open(&filled(dir.path(), &data, Positions::All, kept), None);
        assert!(stored.item_embeddings().is_err(), "not needed, not there");
        let live = LiveTeacher::new(&teacher, "teacher").expect("live");
        for batch in batches(&data) {
            let places = &batch.target_positions;
            let top = stored.at(&batch, places, &[]).expect("stored").top;
            let top = top.expect("the best items");
            let users = live.at(&batch, places, &[]).expect("live").user_vectors;
            let table = teacher.item_embeddings().expect("items");
            let expected = crate::train::TopScores::of(&users, &table, kept).expect("top");
            let found = top.items.to_vec2::<u32>().expect("items");
            assert_eq!(found, expected.items.to_vec2::<u32>().expect("items"));
            assert_close(&top.scores, &expected.scores);
        }
    }
}
