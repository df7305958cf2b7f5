//! The state of a run: parameters, the best parameters so far, both moments and the progress.
//!
//! Two generations are kept, `train-state.safetensors` and the one before it. Each is one file, so
//! that no two files can disagree, replaced by a rename, and carries a digest over every byte: a
//! damaged newest state is noticed and the one before it used instead.

mod exact;
mod file;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use slmrec_core::atomic;

use super::adamw::Slot;
use super::{EpochReport, TrainError};

/// Name of the newest state within the state directory.
pub const STATE_FILE: &str = "train-state.safetensors";
/// Name of the state before it.
pub const PREVIOUS_STATE_FILE: &str = "train-state.previous.safetensors";
/// Version of the file's layout.
pub const FORMAT_VERSION: u32 = 2;
/// Tensors that are kept of each parameter: itself, its best value, two moments.
pub const TENSORS_PER_PARAMETER: u64 = 4;

/// How far a run is. Learning rate, dropout masks and the order of the windows follow from the seed
/// and the steps done, so no generator's state is kept.
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
    #[serde(with = "exact::optional")]
    pub best_metric: Option<f64>,
    /// Epoch of the best metric, from 1; 0 before the first.
    pub best_epoch: usize,
    /// Sums of the loss terms over the steps of the current epoch.
    #[serde(with = "exact::named")]
    pub loss_sums: Vec<(String, f64)>,
    /// Reports of the epochs that are done.
    #[serde(with = "exact::history")]
    pub history: Vec<EpochReport>,
    /// Whether there is nothing left to do.
    pub finished: bool,
}

impl Progress {
    /// Nothing done yet.
    pub(super) fn beginning(settings_hash: String) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            settings_hash,
            epochs_done: 0,
            step_in_epoch: 0,
            step: 0,
            best_metric: None,
            best_epoch: 0,
            loss_sums: Vec::new(),
            history: Vec::new(),
            finished: false,
        }
    }
}

/// A state that was read.
#[derive(Debug)]
pub struct Saved {
    /// How far the run was.
    pub progress: Progress,
    /// Best parameters so far, one for each slot.
    pub best: Vec<Tensor>,
    /// Why the newest state was not the one; `None` when it was.
    pub fallback: Option<TrainError>,
}

/// Saves and loads the state of one run.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
    previous: PathBuf,
}

impl StateFile {
    /// The states of a directory, in which nothing else writes.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            path: dir.join(STATE_FILE),
            previous: dir.join(PREVIOUS_STATE_FILE),
        }
    }

    /// Where the newest state is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the state atomically, tensor by tensor; the newest so far becomes the previous one.
    /// `best` holds a tensor for each slot. Takes a buffer of a few kilobytes for f32 in CPU memory,
    /// else one tensor.
    ///
    /// # Errors
    /// [`TrainError::SaveState`]; the states of before are still there.
    pub fn save(
        &self,
        progress: &Progress,
        slots: &[Slot],
        best: &[Tensor],
    ) -> Result<(), TrainError> {
        self.try_save(progress, slots, best)
            .map_err(|source| TrainError::SaveState {
                path: self.path.clone(),
                source,
            })
    }

    fn try_save(&self, progress: &Progress, slots: &[Slot], best: &[Tensor]) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        atomic::write_keeping(&self.path, &self.previous, |writer| {
            file::write(writer, progress, &file::entries(slots, best))
        })
    }

    /// Reads the newest sound state into the slots; `None` where there is none. Temporary files of a
    /// killed run are removed. The slots are changed only after the whole file was found sound.
    ///
    /// # Errors
    /// [`TrainError::OtherSettings`]; [`TrainError::CorruptState`] or [`TrainError::BothCorrupt`]
    /// when no sound state is left; [`TrainError::Io`].
    pub fn load(&self, settings_hash: &str, slots: &[Slot]) -> Result<Option<Saved>, TrainError> {
        if let Some(dir) = self.path.parent() {
            atomic::remove_leftovers(dir).map_err(|source| TrainError::Io {
                path: dir.to_owned(),
                source,
            })?;
        }
        let newest = match file::read(&self.path, settings_hash, slots) {
            Ok(Some((progress, best))) => {
                return Ok(Some(Saved {
                    progress,
                    best,
                    fallback: None,
                }));
            }
            Ok(None) => None,
            Err(error @ TrainError::CorruptState { .. }) => Some(error),
            Err(other) => return Err(other),
        };
        match (file::read(&self.previous, settings_hash, slots), newest) {
            (Ok(Some((progress, best))), newest) => Ok(Some(Saved {
                progress,
                best,
                // Killed between two renames: what was the newest is the previous one now.
                fallback: Some(newest.unwrap_or_else(|| self.gone())),
            })),
            (Ok(None), None) => Ok(None),
            (Ok(None), Some(newest)) => Err(newest),
            (Err(previous @ TrainError::CorruptState { .. }), Some(newest)) => {
                Err(TrainError::BothCorrupt {
                    newest: first_line(&newest),
                    previous: first_line(&previous),
                })
            }
            (Err(other), _) => Err(other),
        }
    }

    fn gone(&self) -> TrainError {
        TrainError::CorruptState {
            path: self.path.clone(),
            expected: "the newest state".to_owned(),
            found: "no file (the run was killed while it replaced it)".to_owned(),
        }
    }
}

/// The message without its hint.
fn first_line(error: &TrainError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
