//! Parts of a batch that run side by side or on several devices.

use candle_core::{Device, Tensor};

use super::{TrainingBatch, TrainingData};

/// How much of a step's batch one of its parts is. Means over a part, scaled by its share, add up to
/// the mean over the whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Of the positions with a target.
    pub targets: f64,
    /// Of the positions that are the last of their history.
    pub last: f64,
}

impl Share {
    /// The batch is not divided.
    pub const WHOLE: Self = Self {
        targets: 1.0,
        last: 1.0,
    };

    /// A mean over the positions with a target, scaled.
    pub(in crate::train) fn of_targets(self, mean: Tensor) -> candle_core::Result<Tensor> {
        scaled(mean, self.targets)
    }

    /// A mean over the last positions, scaled.
    pub(in crate::train) fn of_last(self, mean: Tensor) -> candle_core::Result<Tensor> {
        scaled(mean, self.last)
    }
}

fn scaled(mean: Tensor, share: f64) -> candle_core::Result<Tensor> {
    if share == 1.0 { Ok(mean) } else { mean * share }
}

impl TrainingData {
    /// The windows of a batch in at most `count` parts, about equal in number, and the share of each.
    #[must_use]
    pub fn divided<'w>(&self, windows: &'w [usize], count: usize) -> Vec<(&'w [usize], Share)> {
        let targets = |windows: &[usize]| -> usize {
            let lengths = windows.iter().map(|&window| self.items(window).len());
            lengths.map(|len| self.target_places(len).len()).sum()
        };
        let (all, of_all) = (targets(windows) as f64, windows.len() as f64);
        let parts = windows.chunks(windows.len().div_ceil(count.max(1)).max(1));
        let with_share = |part| {
            let share = Share {
                targets: targets(part) as f64 / all,
                last: part.len() as f64 / of_all,
            };
            (part, share)
        };
        parts.map(with_share).collect()
    }

    /// One part of a batch.
    ///
    /// # Errors
    /// Only what candle reports for making tensors.
    pub fn part(
        &self,
        (windows, share): (&[usize], Share),
        device: &Device,
    ) -> candle_core::Result<TrainingBatch> {
        let mut part = self.batch(windows, device)?;
        part.share = share;
        Ok(part)
    }

    /// The batch of `windows` in one part for each device, about equal in windows; `None` for a
    /// device that gets none.
    ///
    /// # Errors
    /// Only what candle reports for making tensors.
    pub fn parts(
        &self,
        windows: &[usize],
        devices: &[Device],
    ) -> candle_core::Result<Vec<Option<TrainingBatch>>> {
        let mut parts = self.divided(windows, devices.len()).into_iter();
        let of_device = |device| parts.next().map(|part| self.part(part, device)).transpose();
        devices.iter().map(of_device).collect()
    }
}
