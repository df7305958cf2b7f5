//! The state of a run in one file, `train-state.safetensors`: parameters, the best parameters so
//! far and both moments as tensors, and the progress as JSON in the metadata, so that a single
//! rename replaces all of it and no two files can disagree. A digest over everything refuses a
//! changed bit.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use candle_core::safetensors::Load as _;
use candle_core::{Device, Tensor};
use safetensors::tensor::{SafeTensors, TensorView, View as _};
use serde::{Deserialize, Serialize};
use slmrec_core::{atomic, hash};

use super::adamw::Slot;
use super::{EpochReport, TrainError};

/// Name of the state file within the state directory.
pub const STATE_FILE: &str = "train-state.safetensors";
/// Version of the file's layout.
pub const FORMAT_VERSION: u32 = 1;
const PROGRESS_KEY: &str = "progress";
const DIGEST_KEY: &str = "digest";

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Layout version, [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Hash of all that the result depends on.
    pub settings_hash: String,
    /// Whole epochs done.
    pub epochs_done: usize,
    /// Steps done of the current epoch.
    pub step_in_epoch: usize,
    /// Steps done in all.
    pub step: u64,
    /// Best metric so far.
    #[serde(with = "exact")]
    pub best_metric: Option<f64>,
    /// Epoch of the best metric, from 1; 0 before the first.
    pub best_epoch: usize,
    /// Sums of the loss terms over the steps of the current epoch.
    pub loss_sums: Vec<(String, f64)>,
    /// Reports of the epochs that are done.
    pub history: Vec<EpochReport>,
    /// Whether there is nothing left to do.
    pub finished: bool,
}

/// Floats as text: reading JSON numbers may lose the last bit, and the best metric decides which
/// weights are kept.
mod exact {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(
        value: &Option<f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(|v| v.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<f64>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}

/// Saves and loads the state of one run.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The state file of a directory.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            path: dir.join(STATE_FILE),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the state atomically. `best` holds a tensor for each slot.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn save(
        &self,
        progress: &Progress,
        slots: &[Slot],
        best: &[Tensor],
    ) -> Result<(), TrainError> {
        let failed = |source: io::Error| TrainError::Io {
            path: self.path.clone(),
            source,
        };
        let mut tensors = Vec::with_capacity(4 * slots.len());
        for (slot, best) in slots.iter().zip(best) {
            for (role, tensor) in roles(slot, best) {
                let bytes = tensor.data().into_owned();
                tensors.push((format!("{role}.{}", slot.name), tensor, bytes));
            }
        }
        let views: Vec<(&str, TensorView<'_>)> = (tensors.iter())
            .map(|(name, tensor, bytes)| {
                let view =
                    TensorView::new(tensor.dtype(), tensor.dims().to_vec(), bytes.as_slice());
                view.map(|view| (name.as_str(), view))
            })
            .collect::<Result<_, _>>()
            .map_err(|e| failed(io::Error::other(e)))?;
        let progress = serde_json::to_string(progress).map_err(|e| failed(e.into()))?;
        let metadata = HashMap::from([
            (DIGEST_KEY.to_owned(), digest(&progress, views.clone())),
            (PROGRESS_KEY.to_owned(), progress),
        ]);
        let bytes = safetensors::serialize(views, Some(metadata))
            .map_err(|e| failed(io::Error::other(e)))?;
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        atomic::write(&self.path, &bytes).map_err(failed)
    }

    /// Reads the state into the slots and gives progress and best parameters; `None` without a file.
    /// Nothing is changed when it fails.
    ///
    /// # Errors
    /// [`TrainError::OtherSettings`], [`TrainError::CorruptState`], [`TrainError::Io`].
    pub fn load(
        &self,
        settings_hash: &str,
        slots: &[Slot],
    ) -> Result<Option<(Progress, Vec<Tensor>)>, TrainError> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(TrainError::Io {
                    path: self.path.clone(),
                    source,
                });
            }
        };
        let (progress, stored) = self.parse(&bytes, settings_hash)?;
        let mut tensors = Vec::with_capacity(slots.len());
        for slot in slots {
            tensors.push(self.tensors_of(slot, &stored)?);
        }
        let mut best = Vec::with_capacity(slots.len());
        for (slot, [parameter, best_parameter, first, second]) in slots.iter().zip(tensors) {
            slot.var.set(&parameter)?;
            slot.first_moment.set(&first)?;
            slot.second_moment.set(&second)?;
            best.push(best_parameter);
        }
        Ok(Some((progress, best)))
    }

    fn parse<'data>(
        &self,
        bytes: &'data [u8],
        settings_hash: &str,
    ) -> Result<(Progress, SafeTensors<'data>), TrainError> {
        let corrupt = |expected: &str, found: String| self.corrupt(expected, found);
        let (_, header) = SafeTensors::read_metadata(bytes)
            .map_err(|e| corrupt("a safetensors file", e.to_string()))?;
        let stored = SafeTensors::deserialize(bytes)
            .map_err(|e| corrupt("a safetensors file", e.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let entry = |key: &str| {
            let missing = || corrupt(&format!("metadata {key:?}"), "none".to_owned());
            metadata.get(key).ok_or_else(missing)
        };
        let text = entry(PROGRESS_KEY)?;
        let found = digest(text, stored.iter().collect());
        if *entry(DIGEST_KEY)? != found {
            return Err(corrupt("the digest in the file", found));
        }
        let progress: Progress =
            serde_json::from_str(text).map_err(|e| corrupt("a progress record", e.to_string()))?;
        if progress.format_version != FORMAT_VERSION {
            let found = format!("version {}", progress.format_version);
            return Err(corrupt(&format!("version {FORMAT_VERSION}"), found));
        }
        if progress.settings_hash != settings_hash {
            return Err(TrainError::OtherSettings {
                path: self.path.clone(),
                expected: settings_hash.to_owned(),
                found: progress.settings_hash,
            });
        }
        Ok((progress, stored))
    }

    fn tensors_of(&self, slot: &Slot, stored: &SafeTensors<'_>) -> Result<[Tensor; 4], TrainError> {
        let read = |role: &str, like: &Tensor| {
            let name = format!("{role}.{}", slot.name);
            let view = stored
                .tensor(&name)
                .map_err(|e| self.corrupt(&format!("a tensor {name}"), e.to_string()))?;
            let tensor = view.load(&Device::Cpu)?;
            if tensor.dims() != like.dims() || tensor.dtype() != like.dtype() {
                let expected = format!("{name} as {:?} {:?}", like.dtype(), like.dims());
                let found = format!("{:?} {:?}", tensor.dtype(), tensor.dims());
                return Err(self.corrupt(&expected, found));
            }
            Ok(tensor.to_device(like.device())?)
        };
        let [parameter, best, first, second] = roles(slot, slot.var.as_tensor());
        Ok([
            read(parameter.0, parameter.1)?,
            read(best.0, best.1)?,
            read(first.0, first.1)?,
            read(second.0, second.1)?,
        ])
    }

    fn corrupt(&self, expected: &str, found: String) -> TrainError {
        TrainError::CorruptState {
            path: self.path.clone(),
            expected: expected.to_owned(),
            found,
        }
    }
}

/// The four tensors that are kept of a slot.
fn roles<'a>(slot: &'a Slot, best: &'a Tensor) -> [(&'static str, &'a Tensor); 4] {
    [
        ("parameter", slot.var.as_tensor()),
        ("best", best),
        ("first_moment", slot.first_moment.as_tensor()),
        ("second_moment", slot.second_moment.as_tensor()),
    ]
}

/// SHA-256 over the progress record and every tensor, in name order.
fn digest(progress: &str, mut views: Vec<(&str, TensorView<'_>)>) -> String {
    views.sort_by(|left, right| left.0.cmp(right.0));
    let mut text = progress.to_owned();
    for (name, view) in views {
        let (dtype, shape) = (view.dtype(), view.shape());
        let hash = hash::sha256_hex(view.data());
        text.push_str(&format!("\n{name} {dtype:?} {shape:?} {hash}"));
    }
    hash::sha256_hex(text.as_bytes())
}
