//! The curves of every training as TensorBoard event files, for those who have it open anyway.
//!
//! A file is a sequence of records: length (u64), masked CRC-32C of the length, a serialised `Event`,
//! masked CRC-32C of it, numbers in little-endian order. Field numbers are those of TensorFlow's
//! `event.proto` and `summary.proto`.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use slmrec_core::atomic;

use super::ReportError;
use super::gather::Training;

/// The folder in the work directory.
const TENSORBOARD_DIR: &str = "tensorboard";
/// TensorBoard looks for the middle part; the rest is ours, so that a new file replaces the old one.
const EVENTS_FILE: &str = "events.out.tfevents.0.slmrec";
/// What a file has to begin with.
const FILE_VERSION: &str = "brain.Event:2";

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

/// Writes a folder for each training under `root/tensorboard`, a run of TensorBoard each, and gives
/// that folder; `None` where nothing was trained.
///
/// # Errors
/// Files that cannot be written.
pub(super) fn write(root: &Path, trainings: &[Training]) -> Result<Option<PathBuf>, ReportError> {
    if trainings.is_empty() {
        return Ok(None);
    }
    let dir = root.join(TENSORBOARD_DIR);
    for training in trainings {
        let folder = dir.join(&training.folder);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ReportError::Io { path, source }
        };
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        let path = folder.join(EVENTS_FILE);
        atomic::write(&path, &events(training)).map_err(failed(&path))?;
    }
    Ok(Some(dir))
}

/// One event an epoch, at the step that it ended with. Times are seconds of the run.
fn events(training: &Training) -> Vec<u8> {
    let mut bytes = record(&Event {
        file_version: Some(FILE_VERSION.to_owned()),
        ..Event::default()
    });
    let mut seconds = 0.0;
    for epoch in &training.fit.epochs {
        seconds += epoch.train_seconds + epoch.validation_seconds;
        let value = |tag: String, value: f64| Value {
            tag,
            simple_value: value as f32,
        };
        let losses = epoch.losses.iter();
        let mut values: Vec<Value> = losses
            .map(|(term, loss)| value(format!("loss/{term}"), *loss))
            .collect();
        let metric = epoch
            .metric
            .map(|metric| value("validation/NDCG@10".to_owned(), metric));
        values.extend(metric);
        bytes.extend(record(&Event {
            wall_time: seconds,
            step: i64::try_from(epoch.step).unwrap_or(i64::MAX),
            summary: Some(Summary { values }),
            ..Event::default()
        }));
    }
    bytes
}

fn record(event: &Event) -> Vec<u8> {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    [
        &length[..],
        &masked_crc(&length).to_le_bytes(),
        &data,
        &masked_crc(&data).to_le_bytes(),
    ]
    .concat()
}

/// A checksum that stays useful for data that holds checksums itself.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{EpochReport, FitReport};

    fn training() -> Training {
        let epoch = |epoch: usize| EpochReport {
            epoch,
            step: 10 * epoch as u64,
            losses: [("ce".to_owned(), 4.0 / epoch as f64)].into(),
            metric: Some(0.125 * epoch as f64),
            best: true,
            train_seconds: 2.0,
            validation_seconds: 0.5,
        };
        let fit = FitReport {
            epochs: vec![epoch(1), epoch(2)],
            best_epoch: 2,
            best_metric: Some(0.25),
            steps: 20,
            stopped_early: false,
            resumed_from: None,
        };
        Training {
            folder: "student".to_owned(),
            fit,
        }
    }

    /// Reads a file as TensorBoard does, checksums included.
    fn read(mut bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_at(8);
            let len = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
            let crc = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("4 bytes"));
            assert_eq!(crc(0), masked_crc(length));
            let data = &rest[4..4 + len];
            assert_eq!(crc(4 + len), masked_crc(data));
            events.push(Event::decode(data).expect("an event"));
            bytes = &rest[len + 8..];
        }
        events
    }

    /// The checksum of RFC 3720's example, 32 zero bytes, masked as TensorFlow masks.
    #[test]
    fn checksums_are_those_of_the_format() {
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        let masked = 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(masked_crc(&[0; 32]), masked);
    }

    #[test]
    fn every_epoch_is_an_event() {
        let dir = tempfile::tempdir().expect("temporary folder");
        assert_eq!(write(dir.path(), &[]).expect("nothing"), None);
        let folder = write(dir.path(), &[training()]).expect("written");
        let path = folder.expect("a folder").join("student").join(EVENTS_FILE);
        let events = read(&fs::read(path).expect("the file"));
        assert_eq!(events[0].file_version.as_deref(), Some(FILE_VERSION));
        let scalars: Vec<_> = (events[1..].iter())
            .flat_map(|event| {
                let values = &event.summary.as_ref().expect("a summary").values;
                values
                    .iter()
                    .map(|v| (event.step, event.wall_time, v.tag.as_str(), v.simple_value))
            })
            .collect();
        let expected = [
            (10, 2.5, "loss/ce", 4.0),
            (10, 2.5, "validation/NDCG@10", 0.125),
            (20, 5.0, "loss/ce", 2.0),
            (20, 5.0, "validation/NDCG@10", 0.25),
        ];
        assert_eq!(scalars, expected);
    }
}
