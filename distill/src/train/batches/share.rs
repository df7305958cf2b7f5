//! Parts of a batch that several devices share.

use candle_core::Tensor;

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
