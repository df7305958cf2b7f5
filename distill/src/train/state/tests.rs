//! States that are written, damaged, cut and refused.

use std::fs;
use std::io::{Cursor, Write};

use candle_core::{DType, Device};

use super::*;
use crate::model::Parameters;
use crate::model::parameters::normal;
use crate::train::TrainSettings;
use crate::train::adamw::AdamW;

fn optimizer(seed: u64) -> AdamW {
    let mut parameters = Parameters::default();
    for (name, shape) in [("a.weight", vec![3, 5]), ("b \"odd\" name", vec![1])] {
        let value = normal(shape, 1.0, seed, DType::F32, &Device::Cpu).expect("value");
        parameters.insert(name, &value).expect("parameter");
    }
    let half = normal((2, 2), 1.0, seed, DType::BF16, &Device::Cpu).expect("value");
    parameters.insert("half", &half).expect("parameter");
    AdamW::new(&parameters, &TrainSettings::default()).expect("optimizer")
}

fn best(optimizer: &AdamW) -> Vec<Tensor> {
    let copy = |slot: &Slot| (slot.var.as_tensor() * 2.0).expect("best");
    optimizer.slots().iter().map(copy).collect()
}

/// Numbers that a careless reader of decimals gets wrong.
fn progress(step: u64) -> Progress {
    Progress {
        step,
        best_metric: Some(0.1 + 0.2),
        loss_sums: vec![("ce".to_owned(), 2.0f64.sqrt() * 1e5)],
        history: vec![EpochReport {
            epoch: 1,
            step,
            losses: [("ce".to_owned(), 1.0 / 3.0 + 1e-16)].into(),
            metric: Some(f64::from_bits(0x3fb9_9999_9999_999b)),
            best: true,
            train_seconds: 1e-7,
            validation_seconds: 123.456_789_012_345_68,
        }],
        ..Progress::beginning("settings".to_owned())
    }
}

fn values(optimizer: &AdamW) -> String {
    let tensors = |slot: &Slot| format!("{} {}", slot.var, slot.second_moment.as_tensor());
    optimizer.slots().iter().map(tensors).collect()
}

/// A directory with the states of two steps.
fn two_generations() -> (tempfile::TempDir, StateFile) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let file = StateFile::in_dir(dir.path());
    for step in [1, 2] {
        let optimizer = optimizer(step);
        let saved = file.save(&progress(step), optimizer.slots(), &best(&optimizer));
        saved.expect("saved");
    }
    (dir, file)
}

fn load(file: &StateFile, into: &AdamW) -> Result<Option<Saved>, TrainError> {
    file.load("settings", into.slots())
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).expect("state");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(path, bytes).expect("damage");
}

#[test]
fn what_was_saved_comes_back_to_the_bit() {
    let (_dir, file) = two_generations();
    let other = optimizer(9);
    let saved = load(&file, &other).expect("loads").expect("there");
    assert_eq!(saved.progress, progress(2));
    assert!(saved.fallback.is_none());
    assert_eq!(values(&other), values(&optimizer(2)));
    for (found, expected) in saved.best.iter().zip(best(&optimizer(2))) {
        assert_eq!(found.to_string(), expected.to_string());
    }
    let bytes = fs::read(file.path()).expect("state");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    assert_eq!(tensors.len() as u64, 3 * TENSORS_PER_PARAMETER);
}

#[test]
fn a_damaged_newest_state_gives_way_to_the_one_before() {
    let (dir, file) = two_generations();
    damage(file.path());
    fs::write(dir.path().join(".partial-x"), b"cut").expect("leftover");
    let other = optimizer(9);
    let saved = load(&file, &other).expect("loads").expect("there");
    assert_eq!(saved.progress.step, 1);
    let why = saved.fallback.expect("said").to_string();
    assert!(why.contains("digest") && why.contains(STATE_FILE), "{why}");
    assert_eq!(values(&other), values(&optimizer(1)));
    assert!(!dir.path().join(".partial-x").exists());
    fs::remove_file(file.path()).expect("as a kill between two renames leaves it");
    let saved = load(&file, &other).expect("loads").expect("there");
    assert_eq!(saved.progress.step, 1);
    assert!(saved.fallback.is_some());
}

#[test]
fn two_damaged_states_are_an_error_with_a_hint() {
    let (dir, file) = two_generations();
    damage(file.path());
    damage(&dir.path().join(PREVIOUS_STATE_FILE));
    let other = optimizer(9);
    let error = load(&file, &other).expect_err("damaged");
    assert!(matches!(error, TrainError::BothCorrupt { .. }), "{error}");
    let text = error.to_string();
    for part in [STATE_FILE, PREVIOUS_STATE_FILE, "hint: remove both"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert_eq!(values(&other), values(&optimizer(9)), "nothing has changed");
}

/// Takes so many bytes and then has no room.
struct Small {
    inner: Cursor<Vec<u8>>,
    room: usize,
}

impl Write for Small {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.inner.get_ref().len() + bytes.len() > self.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Seek for Small {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[test]
fn a_disk_that_fills_up_at_any_byte_is_an_error() {
    let optimizer = optimizer(1);
    let best = best(&optimizer);
    let write = |room| {
        let inner = Cursor::default();
        let mut small = Small { inner, room };
        let entries = file::entries(optimizer.slots(), &best);
        let written = file::write(&mut small, &progress(1), &entries);
        written.map(|()| small.inner.into_inner())
    };
    let whole = write(1 << 20).expect("room enough").len();
    for room in (0..whole).step_by(50).chain([whole - 1]) {
        let error = write(room).expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "at {room}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_an_error() {
    let optimizer = optimizer(1);
    let best = best(&optimizer);
    let full = fs::File::options().write(true).open("/dev/full");
    let mut full = io::BufWriter::new(full.expect("Linux has it"));
    let entries = file::entries(optimizer.slots(), &best);
    let error = file::write(&mut full, &progress(1), &entries).expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn a_failed_save_names_the_file_and_keeps_what_was_there() {
    let (dir, file) = two_generations();
    let elsewhere = dir.path().join("state");
    fs::write(&elsewhere, b"a file where a folder should be").expect("file");
    let optimizer = optimizer(1);
    let blocked = StateFile::in_dir(&elsewhere);
    let error = blocked.save(&progress(1), optimizer.slots(), &best(&optimizer));
    let text = error.expect_err("no folder").to_string();
    assert!(
        text.contains(STATE_FILE) && text.contains("hint:"),
        "{text}"
    );
    let saved = load(&file, &optimizer).expect("loads").expect("there");
    assert_eq!(saved.progress.step, 2);
}

/// A file with a right digest whose header lies.
#[test]
fn forged_headers_are_refused() {
    let (_dir, file) = two_generations();
    let good = fs::read(file.path()).expect("state");
    let len = u64::from_le_bytes(good[..8].try_into().expect("eight bytes")) as usize;
    let header = String::from_utf8(good[8..8 + len].to_vec()).expect("JSON");
    let digest = header.find("\"digest\":\"").expect("a digest") + 10;
    fs::remove_file(file.path().with_file_name(PREVIOUS_STATE_FILE)).expect("only one");
    for (from, to) in [
        ("[3,5]", "[5,3]"),
        ("[1]", "[999999999999]"),
        ("BF16", "F64"),
        ("data_offsets\":[0,", "data_offsets\":[9,"),
        ("parameter.half", "parameter.hulf"),
        ("\\\"format_version\\\":2", "\\\"format_version\\\":3"),
        ("\\\"step\\\":2", "\\\"stip\\\":2"),
    ] {
        assert!(header.contains(from), "{from} in {header}");
        let mut forged = header.clone();
        forged.replace_range(digest..digest + 64, &"0".repeat(64));
        let mut bytes = forged.replace(from, to).into_bytes();
        let place = bytes
            .windows(10)
            .position(|w| w == b"\"digest\":\"")
            .expect("digest")
            + 10;
        let mut whole = (bytes.len() as u64).to_le_bytes().to_vec();
        whole.append(&mut bytes);
        whole.extend_from_slice(&good[8 + len..]);
        let digest = slmrec_core::hash::sha256_hex(&whole);
        whole[8 + place..8 + place + 64].copy_from_slice(digest.as_bytes());
        fs::write(file.path(), &whole).expect("write");
        let other = optimizer(9);
        let error = load(&file, &other).expect_err(from);
        assert!(
            matches!(error, TrainError::CorruptState { .. }),
            "{from}: {error}"
        );
        assert!(!error.to_string().contains("the digest"), "{from}: {error}");
        assert_eq!(values(&other), values(&optimizer(9)), "{from}");
    }
}
