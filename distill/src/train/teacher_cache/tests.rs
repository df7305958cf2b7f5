//! Stored against live, and what happens to files that are not as they should be.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors};
use slmrec_core::ItemIndex;
use slmrec_core::manifest::Readout;

use super::directory::MANIFEST_FILE;
use super::shard_file::HEADER_END;
use super::*;
use crate::model::{
    HistoryBatch, Mode, ModelOutput, Parameters, SasRec, SasRecSettings, SequentialModel,
};
use crate::train::distillation::Positions;
use crate::train::report::Silent;
use crate::train::teacher::TeacherOutput;
use crate::train::{
    DistillSettings, Distillation, FitReport, LiveTeacher, Targets, TeacherStates, TrainError,
    TrainSettings, Trainer, TrainingBatch, TrainingData, Validator,
};

const ITEMS: usize = 9;
/// What another grouping of rows changes in sums of f32, on top of the rounding to f16.
const SUM_TOLERANCE: f32 = 1e-5;
/// A rounding of 2^-11 in every target of the alignment, over a few dozen steps of training.
const RUN_TOLERANCE: f64 = 2e-3;

fn model(num_hidden_layers: usize, hidden_size: usize) -> SasRec {
    let settings = SasRecSettings {
        hidden_size,
        num_hidden_layers,
        num_attention_heads: 2,
        intermediate_size: 8,
        max_history: 5,
        dropout: 0.2,
    };
    SasRec::new(settings, ITEMS, 3, &Device::Cpu).expect("model")
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
        shard_bytes: 1000,
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
    assert!(all(&cache).len() >= 3, "{} shards", all(&cache).len());
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
        .map(|windows| data.batch(windows, &Device::Cpu).expect("batch"))
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

/// One vector a history, as the `response` readout has it.
struct LastOnly(SasRec);

impl SequentialModel for LastOnly {
    fn forward(
        &self,
        batch: &HistoryBatch,
        mode: Mode<'_>,
        state_layers: &[usize],
    ) -> candle_core::Result<ModelOutput> {
        let output = self.0.forward(batch, mode, state_layers)?;
        let last = |values: &Tensor| {
            let (histories, length, width) = values.dims3()?;
            let flat = values.reshape((histories * length, width))?;
            let rows = flat.index_select(&batch.last_positions()?, 0)?;
            rows.reshape((histories, 1, width))
        };
        Ok(ModelOutput {
            user_vectors: last(&output.user_vectors)?,
            states: output.states.iter().map(last).collect::<Result<_, _>>()?,
        })
    }

    fn item_embeddings(&self) -> Tensor {
        self.0.item_embeddings()
    }

    fn parameters(&self) -> &Parameters {
        self.0.parameters()
    }

    fn num_layers(&self) -> usize {
        self.0.num_layers()
    }

    fn max_history(&self) -> usize {
        self.0.max_history()
    }
}

#[test]
fn one_vector_a_history_is_stored_at_the_last_position() {
    let teacher = LastOnly(model(4, 12));
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
    ) -> Result<f64, Box<dyn std::error::Error + Send + Sync>> {
        let sum = model.item_embeddings().sum_all()?.to_scalar::<f32>()?;
        Ok(f64::from(sum).sin())
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
        let items = (top_k == 0).then(|| teacher.item_embeddings().detach());
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
            let table = teacher.item_embeddings();
            let expected = crate::train::TopScores::of(&users, &table, kept).expect("top");
            let found = top.items.to_vec2::<u32>().expect("items");
            assert_eq!(found, expected.items.to_vec2::<u32>().expect("items"));
            assert_close(&top.scores, &expected.scores);
        }
    }
}

#[test]
fn shards_are_safetensors_files_of_the_promised_size() {
    let data = data(Targets::All);
    let dir = tempfile::tempdir().expect("temporary folder");
    let cache = filled(dir.path(), &data, Positions::All, 3);
    let layout = cache.layout();
    let mut total = 0;
    for shard in all(&cache) {
        let bytes = fs::read(cache.path(shard)).expect("shard");
        assert_eq!(bytes.len() as u64, layout.file_bytes(shard));
        assert!(bytes.len() as u64 - HEADER_END <= layout.spec().shard_bytes);
        total += bytes.len() as u64;
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let rows = layout.rows(shard) as usize;
        for (name, dtype, shape) in [
            ("states", Dtype::F16, vec![rows, 2, 12]),
            ("user_vectors", Dtype::F16, vec![rows, 12]),
            ("top_items", Dtype::U32, vec![rows, 3]),
            ("top_scores", Dtype::F16, vec![rows, 3]),
        ] {
            let tensor = tensors.tensor(name).expect(name);
            assert_eq!((tensor.dtype(), tensor.shape()), (dtype, &shape[..]));
        }
    }
    assert_eq!(layout.bytes(), total);
    let spec = layout.spec();
    let rows = stored_rows(&data, spec.positions);
    assert_eq!(cache_bytes(rows, &spec.shape(), spec.shard_bytes), total);
}

#[test]
fn two_halves_make_a_whole_and_the_manifest_comes_last() {
    let data = data(Targets::All);
    let dir = tempfile::tempdir().expect("temporary folder");
    let cache = cache(dir.path(), &data, Positions::All, 0);
    let part = |text: &str| {
        let part: FillPart = text.parse().expect("part");
        all(&cache)
            .filter(|shard| part.has(*shard))
            .collect::<Vec<_>>()
    };
    let (first, second) = (part("1/2"), part("2/2"));
    let together: BTreeSet<usize> = first.iter().chain(&second).copied().collect();
    assert_eq!(together.len(), first.len() + second.len(), "no shard twice");
    fill_with(&cache, &data, &model(4, 12), first.clone()).expect("first half");
    let half = states(&cache);
    assert_eq!(half.iter().filter(|s| s.is_good()).count(), first.len());
    assert_eq!(half[1], ShardState::Missing);
    let total = half.len();
    match cache.finish(&half) {
        Err(CacheError::Incomplete { bad, total: of, .. }) => {
            assert_eq!((bad, of), (second.len(), total));
        }
        other => panic!("{other:?}"),
    }
    assert!(CachedTeacher::open(cache.clone(), &half, None).is_err());
    assert!(CachedTeacher::open(cache.clone(), &half[..1], None).is_err());
    fill_with(&cache, &data, &model(4, 12), second).expect("second half");
    // Of another layout, and somebody else's.
    let left_over = dir.path().join("states-00001-of-00099.safetensors");
    fs::write(&left_over, b"old").expect("left over");
    fs::write(dir.path().join("notes.txt"), b"mine").expect("notes");
    fs::write(dir.path().join(".partial-young"), b"being written").expect("partial");
    cache.finish(&states(&cache)).expect("complete");
    let manifest = fs::read(dir.path().join(MANIFEST_FILE)).expect("manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(manifest["key"], cache.layout().key());
    assert_eq!(manifest["shards"].as_array().map(Vec::len), Some(total));
    assert!(!left_over.exists());
    assert!(dir.path().join("notes.txt").exists());
    assert!(dir.path().join(".partial-young").exists());
}

#[test]
fn every_flipped_bit_and_every_cut_is_seen() {
    let data = data(Targets::All);
    let dir = tempfile::tempdir().expect("temporary folder");
    let cache = filled(dir.path(), &data, Positions::All, 2);
    let path = cache.path(1);
    let good = fs::read(&path).expect("shard");
    let seen = |what: &str, bytes: &[u8]| {
        fs::write(&path, bytes).expect("write");
        let state = cache.inspect(1).expect("readable");
        assert!(
            matches!(state, ShardState::Damaged { .. } | ShardState::Stale { .. }),
            "{what}: {state:?}"
        );
    };
    for at in (0..good.len()).step_by(7).chain([0, 7, 8, good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        seen(&format!("bit of byte {at}"), &bad);
    }
    for len in [0, 1, 8, 100, HEADER_END as usize, good.len() - 1] {
        seen(&format!("cut at {len}"), &good[..len]);
    }
    seen("longer", &[&good[..], b"x"].concat());
    let other = fs::read(cache.path(2)).expect("another shard");
    seen("the shard beside it", &other);
    // Computed again, it is what it was, and the others are as they were.
    let others = |shard: &usize| *shard != 1;
    let before: Vec<_> = all(&cache)
        .filter(others)
        .map(|s| stamp(&cache, s))
        .collect();
    fill_with(&cache, &data, &model(4, 12), [1]).expect("again");
    assert_eq!(fs::read(&path).expect("shard"), good);
    let after: Vec<_> = all(&cache)
        .filter(others)
        .map(|s| stamp(&cache, s))
        .collect();
    assert_eq!(before, after);
}

fn stamp(cache: &TeacherCache, shard: usize) -> std::time::SystemTime {
    let file = fs::metadata(cache.path(shard)).expect("shard");
    file.modified().expect("a time")
}

#[test]
fn headers_that_lie_cost_nothing() {
    let data = data(Targets::All);
    let dir = tempfile::tempdir().expect("temporary folder");
    let cache = filled(dir.path(), &data, Positions::All, 0);
    let path = cache.path(0);
    let good = fs::read(&path).expect("shard");
    let with_json = |length: u64, json: &str| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.resize(good.len(), b' ');
        bytes
    };
    let key = cache.layout().key();
    let quoted = |key: &str, sha256: &str| {
        format!(r#"{{"__metadata__":{{"key":"{key}","sha256":"{sha256}"}}}}"#)
    };
    for (length, json) in [
        (u64::MAX, "{}".to_owned()),
        (2040, "[".repeat(2040)),
        (2040, r#"{"__metadata__":7}"#.to_owned()),
        (2040, quoted(key, &"\\\"".repeat(32))),
        (2040, quoted(key, &"f".repeat(1500))),
        (2040, quoted("", "")),
        (2040, quoted(&"k".repeat(64), "")),
    ] {
        fs::write(&path, with_json(length, &json)).expect("write");
        let state = cache.inspect(0).expect("readable");
        assert!(
            matches!(state, ShardState::Damaged { .. }),
            "{json}: {state:?}"
        );
    }
    // A directory in the place of a file is no damage that computing again would mend.
    fs::remove_file(&path).expect("remove");
    fs::create_dir(&path).expect("folder");
    let found = cache.inspect(0);
    assert!(!matches!(found, Ok(ShardState::Good { .. })), "{found:?}");
}

#[test]
fn shards_of_other_teachers_data_or_settings_are_stale() {
    let data = data(Targets::All);
    let dir = tempfile::tempdir().expect("temporary folder");
    let cache = filled(dir.path(), &data, Positions::All, 0);
    type Change = fn(&mut CacheSpec);
    let changes: [Change; 7] = [
        |s| s.teacher = "another".to_owned(),
        |s| s.data = "another".to_owned(),
        |s| s.layers = vec![1, 4],
        |s| s.positions = Positions::Last,
        |s| s.readout = Readout::Response,
        |s| s.max_history = 6,
        |s| s.top_k = 1,
    ];
    for change in changes {
        let mut spec = cache.layout().spec().clone();
        change(&mut spec);
        let other = TeacherCache::new(dir.path(), CacheLayout::new(spec, &data));
        assert_ne!(other.layout().key(), cache.layout().key());
        // Another number of shards has other names, too.
        fs::copy(cache.path(0), dir.path().join("copy")).expect("copy");
        let there = other.path(0).exists();
        if !there {
            fs::copy(cache.path(0), other.path(0)).expect("copy");
        }
        match other.inspect(0).expect("readable") {
            ShardState::Stale { found } => assert_eq!(found, cache.layout().key()),
            state => panic!("{state:?}"),
        }
    }
}

#[test]
fn an_interruption_leaves_a_directory_that_can_be_filled() {
    let data = data(Targets::All);
    let dir = tempfile::tempdir().expect("temporary folder");
    let cache = cache(dir.path(), &data, Positions::All, 0);
    let stop = AtomicBool::new(false);
    let teacher = model(4, 12);
    let filler = Filler {
        cache: &cache,
        data: &data,
        teacher: &teacher,
        stop: &stop,
    };
    filler
        .fill(0, &mut |_| stop.store(true, Ordering::Relaxed))
        .expect("one forward pass");
    let cut = filler.fill(1, &mut |_| {});
    assert!(matches!(
        cut,
        Err(TrainError::TeacherCache(CacheError::Interrupted))
    ));
    let found = states(&cache);
    assert!(found[0].is_good());
    assert!(found[1..].iter().all(|state| *state == ShardState::Missing));
    assert_eq!(fs::read_dir(dir.path()).expect("folder").count(), 1);
    stop.store(false, Ordering::Relaxed);
    for shard in 1..found.len() {
        filler.fill(shard, &mut |_| {}).expect("filled");
    }
    cache.finish(&states(&cache)).expect("complete");
}

/// A teacher with large or undefined answers.
struct Scaled {
    model: SasRec,
    states: f64,
    users: f64,
}

impl SequentialModel for Scaled {
    fn forward(
        &self,
        batch: &HistoryBatch,
        mode: Mode<'_>,
        state_layers: &[usize],
    ) -> candle_core::Result<ModelOutput> {
        let output = self.model.forward(batch, mode, state_layers)?;
        let states = output.states.iter().map(|state| state * self.states);
        Ok(ModelOutput {
            user_vectors: (output.user_vectors * self.users)?,
            states: states.collect::<Result<_, _>>()?,
        })
    }

    fn item_embeddings(&self) -> Tensor {
        self.model.item_embeddings()
    }

    fn parameters(&self) -> &Parameters {
        self.model.parameters()
    }

    fn num_layers(&self) -> usize {
        self.model.num_layers()
    }

    fn max_history(&self) -> usize {
        self.model.max_history()
    }
}

#[test]
fn values_that_sixteen_bits_cannot_hold_are_named() {
    let data = data(Targets::All);
    let dir = tempfile::tempdir().expect("temporary folder");
    let cache = cache(dir.path(), &data, Positions::All, 0);
    for (states, users, expected) in [
        (1e7, 1.0, "the state after layer 2"),
        (1.0, 1e7, "the user vector"),
        (f64::NAN, 1.0, "the state after layer 2"),
    ] {
        let teacher = Scaled {
            model: model(4, 12),
            states,
            users,
        };
        let refused = fill_with(&cache, &data, &teacher, [0]).expect_err("overflow");
        assert!(refused.to_string().contains("hint:"), "{refused}");
        match refused {
            TrainError::TeacherCache(CacheError::Overflow { what, value, .. }) => {
                assert_eq!(what, expected);
                assert!(value.is_nan() || value.abs() > 65504.0, "{value}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(cache.inspect(0).expect("readable"), ShardState::Missing);
    }
    // A teacher of another shape than the spec says.
    let refused = fill_with(&cache, &data, &model(4, 8), [0]);
    assert!(matches!(
        refused,
        Err(TrainError::TeacherCache(CacheError::NotStored { .. }))
    ));
}

#[test]
fn what_is_not_stored_or_was_changed_since_is_an_error() {
    let data = data(Targets::All);
    let dir = tempfile::tempdir().expect("temporary folder");
    let cache = filled(dir.path(), &data, Positions::Last, 0);
    let stored = open(&cache, None);
    let batch = data.batch(&[0, 1, 2], &Device::Cpu).expect("batch");
    let last = batch.last_positions();
    assert!(stored.at(&batch, &last, &[2]).is_ok());
    let not_stored = |result: Result<TeacherOutput, TrainError>| {
        let error = result.expect_err("refused");
        assert!(
            matches!(
                error,
                TrainError::TeacherCache(CacheError::NotStored { .. })
            ),
            "{error:?}"
        );
    };
    not_stored(stored.at(&batch, &last, &[3]));
    not_stored(stored.at(&batch, &batch.target_positions, &[2]));
    not_stored(stored.at(&batch, &[10_000], &[2]));
    let mut other = batch.clone();
    other.windows[0] = usize::MAX;
    not_stored(stored.at(&other, &last, &[2]));

    // Opened, but not read yet; another run replaces the file.
    let stored = open(&cache, None);
    let mut bytes = fs::read(cache.path(0)).expect("shard");
    bytes[1000] ^= 1;
    fs::write(cache.path(0), bytes).expect("write");
    let changed = stored.at(&batch, &last, &[2]);
    assert!(matches!(
        changed,
        Err(TrainError::TeacherCache(CacheError::Damaged { .. }))
    ));
}

#[test]
fn parts_are_numbered_from_one() {
    for text in ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", ""] {
        let refused = text.parse::<FillPart>();
        assert!(matches!(refused, Err(CacheError::Part { .. })), "{text}");
    }
    let part: FillPart = "2/3".parse().expect("part");
    let shards: Vec<usize> = (0..8).filter(|shard| part.has(*shard)).collect();
    assert_eq!(shards, [1, 4, 7]);
}
