//! Files that are not as they should be, work that is shared or cut, values that do not fit.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::Ordering;

use safetensors::tensor::{Dtype, SafeTensors};

use super::super::directory::MANIFEST_FILE;
use super::super::shard_file::HEADER_END;
use super::*;
use crate::model::ItemTable;

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
    assert_eq!(cache.others().expect("folder"), 1);
    cache.finish(&states(&cache)).expect("complete");
    let manifest = fs::read(dir.path().join(MANIFEST_FILE)).expect("manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(manifest["key"], cache.layout().key());
    assert_eq!(manifest["shards"].as_array().map(Vec::len), Some(total));
    assert!(!left_over.exists());
    assert!(dir.path().join("notes.txt").exists());
    assert_eq!(cache.others().expect("folder"), 0);
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
    let large = CacheSpec {
        shard_bytes: 1500,
        ..spec(&data, Positions::All, 0)
    };
    let cache = TeacherCache::new(dir.path(), CacheLayout::new(large, &data));
    let stop = AtomicBool::new(false);
    let teacher = model(4, 12);
    let filler = Filler {
        cache: &cache,
        data: &data,
        teacher: &teacher,
        stop: &stop,
        // One window a forward pass.
        batch_items: 1,
    };
    let windows = cache.layout().shards()[1].len();
    assert!(windows > 1, "a shard that can be cut in the middle");
    filler.fill(0, &mut |_| {}).expect("filled");
    let mut passes = 0;
    let cut = filler.fill(1, &mut |_| {
        passes += 1;
        stop.store(true, Ordering::Relaxed);
    });
    assert!(matches!(
        cut,
        Err(TrainError::TeacherCache(CacheError::Interrupted))
    ));
    assert_eq!(passes, 1);
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

    fn item_table(&self) -> ItemTable<'_> {
        self.model.item_table()
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
