//! A baseline on disk: `model.safetensors` with the parameters' names, and `config.json`, written last,
//! with the settings and the hash of the weights.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use slmrec_core::{atomic, hash};

use crate::model::Parameters;
use crate::model::file_error::{ModelFileError, read_json};
use crate::model::weights_file::WeightsFile;

const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "model.safetensors";
const FORMAT_VERSION: u32 = 1;

/// Refuses settings that no model can have.
pub(super) type Check<S> = fn(&S) -> candle_core::Result<()>;

/// Names and shapes of the parameters of a model with these settings over so many items.
pub(super) type Shapes<S> = fn(&S, usize) -> Vec<(String, Vec<usize>)>;

/// Largest value of any size in the settings: a guard against absurd files.
pub(super) const MAX_SIZE: usize = 1 << 16;

/// `config.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description<S> {
    format_version: u32,
    kind: String,
    settings: S,
    items: usize,
    weights_sha256: String,
    vocabulary_sha256: String,
    provenance: serde_json::Value,
}

/// What is written of a model beside its parameters.
pub(super) struct Header<'a, S> {
    pub(super) kind: &'static str,
    pub(super) settings: &'a S,
    pub(super) items: usize,
    pub(super) vocabulary_sha256: &'a str,
    pub(super) provenance: serde_json::Value,
}

/// Writes the directory: weights first, `config.json` last, each atomically.
pub(super) fn save<S: Serialize + Clone>(
    dir: &Path,
    header: Header<'_, S>,
    parameters: &Parameters,
) -> Result<(), ModelFileError> {
    std::fs::create_dir_all(dir).map_err(ModelFileError::io(dir))?;
    let (config, weights) = paths(dir);
    // An old description must never stand beside new weights.
    match std::fs::remove_file(&config) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(ModelFileError::io(&config)(e));
        }
        _ => {}
    }
    let tensors = parameters.iter().map(|(n, v)| (n, v.as_tensor()));
    let bytes = safetensors::serialize(tensors, None)
        .map_err(|e| ModelFileError::malformed(&weights, "tensors that can be written", e))?;
    atomic::write(&weights, &bytes).map_err(ModelFileError::io(&weights))?;
    let description = Description {
        format_version: FORMAT_VERSION,
        kind: header.kind.to_owned(),
        settings: header.settings.clone(),
        items: header.items,
        weights_sha256: hash::sha256_hex(&bytes),
        vocabulary_sha256: header.vocabulary_sha256.to_owned(),
        provenance: header.provenance,
    };
    let json = serde_json::to_vec_pretty(&description).map_err(ModelFileError::json(&config))?;
    atomic::write(&config, &json).map_err(ModelFileError::io(&config))
}

/// Reads a directory and checks it: version, kind, hash, names, shapes. Gives settings, number of
/// items and parameters.
pub(super) fn load<S: DeserializeOwned>(
    dir: &Path,
    kind: &'static str,
    (check, shapes): (Check<S>, Shapes<S>),
    device: &Device,
) -> Result<(S, usize, Parameters), ModelFileError> {
    let (config, weights) = paths(dir);
    let found: Description<S> = read_json(&config)?;
    if (found.format_version, found.kind.as_str()) != (FORMAT_VERSION, kind) {
        let expected = format!("a {kind} of format version {FORMAT_VERSION}");
        let found = format!("a {} of {}", found.kind, found.format_version);
        return Err(ModelFileError::malformed(&config, expected, found));
    }
    check(&found.settings).map_err(ModelFileError::tensor(&config))?;
    if found.items == 0 || found.items >= u32::MAX as usize - 1 {
        let expected = "a number of items that rows can be counted by";
        return Err(ModelFileError::malformed(&config, expected, found.items));
    }
    let bytes = std::fs::read(&weights).map_err(ModelFileError::io(&weights))?;
    let sha256 = hash::sha256_hex(&bytes);
    if sha256 != found.weights_sha256 {
        let expected = format!("SHA-256 {}", found.weights_sha256);
        return Err(ModelFileError::malformed(&weights, expected, sha256));
    }
    let mut file = WeightsFile::open(&weights)?;
    let mut parameters = Parameters::default();
    for (name, shape) in shapes(&found.settings, found.items) {
        let value = file.tensor(&name, &shape, device)?;
        parameters
            .insert(name, &value)
            .map_err(ModelFileError::tensor(&weights))?;
    }
    Ok((found.settings, found.items, parameters))
}

fn paths(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join(CONFIG_FILE), dir.join(WEIGHTS_FILE))
}
