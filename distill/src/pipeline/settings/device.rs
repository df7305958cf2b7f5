//! Where tensors live, and opening it.

use candle_core::Device;
use serde::{Deserialize, Serialize};

use crate::pipeline::PipelineError;

/// Where tensors live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// The processor.
    #[default]
    Cpu,
    /// The first NVIDIA GPU; needs a build with `--features cuda`.
    Cuda,
    /// The Apple GPU; needs a build with `--features metal`.
    Metal,
}

impl DeviceChoice {
    /// Opens the first `count` devices.
    ///
    /// # Errors
    /// A count of 0, devices that this build or this machine does not have, or several that cannot
    /// share a training; nothing else is used instead.
    pub fn open(self, count: usize) -> Result<Vec<Device>, PipelineError> {
        let can_share = match self {
            Self::Cpu => true,
            Self::Cuda => cfg!(feature = "nccl"),
            Self::Metal => false,
        };
        if count == 0 || (count > 1 && !can_share) {
            return Err(PipelineError::Settings(format!(
                "setting devices: expected 1, found {count}\n\
                 hint: several GPUs share a training with --device cuda in a build with \
                 `--features nccl`"
            )));
        }
        (0..count).map(|number| self.open_one(number)).collect()
    }

    fn open_one(self, number: usize) -> Result<Device, PipelineError> {
        let missing = |name: &str, e: candle_core::Error| {
            PipelineError::Settings(format!(
                "--device {name} was asked for and cannot be used (number {number}): {e}\n\
                 hint: build with `--features {name}` on a machine that has one, or use --device cpu"
            ))
        };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => Device::new_cuda(number).map_err(|e| missing("cuda", e)),
            Self::Metal => Device::new_metal(number).map_err(|e| missing("metal", e)),
        }
    }
}
