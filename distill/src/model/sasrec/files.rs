//! SASRec on disk: `model.safetensors` with the parameters' names (and the vectors of the titles, where
//! it has them), and `config.json`, written last, with the settings and the hash of the weights.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use candle_core::safetensors::Load as _;
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::SafeTensors;
use serde::{Deserialize, Serialize};
use slmrec_core::{atomic, hash};

use super::{MAX_SIZE, SasRec, SasRecSettings, shapes};
use crate::model::Parameters;

/// Name of the description.
pub const CONFIG_FILE: &str = "config.json";
/// Name of the weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Name of the titles' vectors among the weights.
const TITLE_VECTORS: &str = "title_vectors";
/// Version of the directory's layout.
const FORMAT_VERSION: u32 = 1;

/// Why a SASRec could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum SasRecError {
    /// A setting outside its range.
    #[error("setting {name}: expected {expected}, found {found}")]
    Setting {
        /// Field of the settings.
        name: &'static str,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file with the wrong content.
    #[error("{path}: expected {expected}, found {found}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SasRecConfig {
    /// Layout version, 1.
    pub format_version: u32,
    /// Shape of the model.
    pub settings: SasRecSettings,
    /// Number of items N.
    pub items: usize,
    /// Size of the vectors of the titles, where items have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title_size: Option<usize>,
    /// SHA-256 of `model.safetensors`.
    pub weights_sha256: String,
    /// SHA-256 of the dataset's `vocabulary.json`, so that rows cannot be mixed up.
    pub vocabulary_sha256: String,
    /// Settings, seed, input hashes and figures of the run that made it.
    pub provenance: serde_json::Value,
}

impl SasRecConfig {
    /// Reads a directory's description alone and checks it: version, settings.
    ///
    /// # Errors
    /// [`SasRecError`] for whatever is not as [`SasRec::save`] left it.
    pub fn read(dir: &Path) -> Result<Self, SasRecError> {
        let path = dir.join(CONFIG_FILE);
        let json = fs::read(&path).map_err(|e| io_error(&path, e))?;
        let config: Self = serde_json::from_slice(&json)
            .map_err(|e| content(&path, "a SASRec description", e.to_string()))?;
        if config.format_version != FORMAT_VERSION {
            let expected = format!("format version {FORMAT_VERSION}");
            let found = config.format_version.to_string();
            return Err(content(&path, &expected, found));
        }
        config.settings.check()?;
        if let Some(size) = config.title_size.filter(|s| !(1..=MAX_SIZE).contains(s)) {
            let expected = format!("a title_size of 1..={MAX_SIZE}");
            return Err(content(&path, &expected, size.to_string()));
        }
        Ok(config)
    }
}

impl SasRec {
    /// Writes the directory: weights first, `config.json` last, each atomically.
    ///
    /// # Errors
    /// [`SasRecError::Io`].
    pub fn save(
        &self,
        dir: &Path,
        vocabulary_sha256: &str,
        provenance: serde_json::Value,
    ) -> Result<SasRecConfig, SasRecError> {
        fs::create_dir_all(dir).map_err(|e| io_error(dir, e))?;
        let config_path = dir.join(CONFIG_FILE);
        // An old description must never stand beside new weights.
        match fs::remove_file(&config_path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error(&config_path, e)),
            _ => {}
        }
        let weights_path = dir.join(WEIGHTS_FILE);
        let titles = self.titles.as_ref().map(|titles| titles.vectors());
        let tensors = self.parameters.iter().map(|(n, v)| (n, v.as_tensor()));
        let tensors = tensors.chain(titles.map(|vectors| (TITLE_VECTORS, vectors)));
        let weights = safetensors::serialize(tensors, None)
            .map_err(|e| io_error(&weights_path, io::Error::other(e)))?;
        atomic::write(&weights_path, &weights).map_err(|e| io_error(&weights_path, e))?;
        let config = SasRecConfig {
            format_version: FORMAT_VERSION,
            settings: self.settings.clone(),
            items: self.num_items,
            title_size: titles.map(|vectors| vectors.dims()[1]),
            weights_sha256: hash::sha256_hex(&weights),
            vocabulary_sha256: vocabulary_sha256.to_owned(),
            provenance,
        };
        let json =
            serde_json::to_vec_pretty(&config).map_err(|e| io_error(&config_path, e.into()))?;
        atomic::write(&config_path, &json).map_err(|e| io_error(&config_path, e))?;
        Ok(config)
    }

    /// Reads a directory and checks it: version, settings, hash, names, shapes.
    ///
    /// # Errors
    /// [`SasRecError`] for whatever is not as [`SasRec::save`] left it.
    pub fn load(dir: &Path, device: &Device) -> Result<(Self, SasRecConfig), SasRecError> {
        let config = SasRecConfig::read(dir)?;
        let weights_path = dir.join(WEIGHTS_FILE);
        let weights = fs::read(&weights_path).map_err(|e| io_error(&weights_path, e))?;
        let found = hash::sha256_hex(&weights);
        if found != config.weights_sha256 {
            let expected = format!("SHA-256 {}", config.weights_sha256);
            return Err(content(&weights_path, &expected, found));
        }
        let (parameters, titles) = read_weights(&weights_path, &weights, &config, device)?;
        let settings = config.settings.clone();
        let model = Self::from_parameters(settings, config.items, parameters, titles)?;
        Ok((model, config))
    }
}

/// The parameters, and the vectors of the titles where there are any.
fn read_weights(
    path: &Path,
    bytes: &[u8],
    config: &SasRecConfig,
    device: &Device,
) -> Result<(Parameters, Option<Tensor>), SasRecError> {
    let stored = SafeTensors::deserialize(bytes)
        .map_err(|e| content(path, "a safetensors file", e.to_string()))?;
    let mut expected = shapes(&config.settings, config.items, config.title_size);
    let titles = (config.title_size).map(|size| vec![config.items.saturating_add(1), size]);
    expected.extend(titles.map(|shape| (TITLE_VECTORS.to_owned(), shape)));
    if stored.len() != expected.len() {
        let expected = format!("{} tensors", expected.len());
        return Err(content(path, &expected, stored.len().to_string()));
    }
    let (mut parameters, mut titles) = (Parameters::default(), None);
    for (name, shape) in expected {
        let view = stored
            .tensor(&name)
            .map_err(|e| content(path, &format!("a tensor {name}"), e.to_string()))?;
        if view.shape() != shape || view.dtype() != DType::F32.into() {
            let expected = format!("{name} as F32 {shape:?}");
            let found = format!("{:?} {:?}", view.dtype(), view.shape());
            return Err(content(path, &expected, found));
        }
        let value = view.load(device)?;
        if name == TITLE_VECTORS {
            titles = Some(value);
        } else {
            parameters.insert(name, &value)?;
        }
    }
    Ok((parameters, titles))
}

fn io_error(path: &Path, source: io::Error) -> SasRecError {
    SasRecError::Io {
        path: path.to_owned(),
        source,
    }
}

fn content(path: &Path, expected: &str, found: String) -> SasRecError {
    SasRecError::Content {
        path: path.to_owned(),
        expected: expected.to_owned(),
        found,
    }
}
