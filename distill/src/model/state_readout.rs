//! User vectors read from the states after inner layers: the final norm and the user projection, as
//! if the decoder ended there.

use std::path::Path;

use candle_core::{Device, Result, Tensor};
use slmrec_export::checkpoint::{CONFIG_FILE, LlamaConfig, MODEL_FILE, RECOMMENDER_WEIGHTS_FILE};

use super::checkpoint::read_recommender_config;
use super::file_error::{ModelFileError, read_json};
use super::ops::linear::linear;
use super::ops::norm::rms_norm;
use super::recommender::USER_PROJECTION;
use super::weights_file::WeightsFile;

/// The part of a language-model recommender that follows its layers; frozen.
#[derive(Clone, Debug)]
pub struct StateReadout {
    /// `[H]`
    gain: Tensor,
    eps: f64,
    /// `[D, H]`
    projection: Tensor,
}

impl StateReadout {
    /// Reads it from a checkpoint directory; no layer is loaded.
    ///
    /// # Errors
    /// Files that are missing, malformed, or do not fit together.
    pub fn load(dir: &Path, device: &Device) -> std::result::Result<Self, ModelFileError> {
        let recommender = read_recommender_config(dir)?;
        let config: LlamaConfig = read_json(&dir.join(CONFIG_FILE))?;
        let hidden = config.hidden_size;
        let mut body = WeightsFile::open(&dir.join(MODEL_FILE))?;
        let mut own = WeightsFile::open(&dir.join(RECOMMENDER_WEIGHTS_FILE))?;
        Ok(Self {
            gain: body.tensor("model.norm.weight", &[hidden], device)?,
            eps: config.rms_norm_eps,
            projection: own.tensor(USER_PROJECTION, &[recommender.item_dim, hidden], device)?,
        })
    }

    /// User vectors `[R, D]` of states `[R, H]`, which may lie on another device.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn user_vectors(&self, state: &Tensor) -> Result<Tensor> {
        let device = state.device();
        let normed = rms_norm(state, &self.gain.to_device(device)?, self.eps, false)?;
        Ok(linear(&normed, &self.projection.to_device(device)?)?.detach())
    }
}
