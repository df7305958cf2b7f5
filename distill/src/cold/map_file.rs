//! A map on disk: `map.safetensors` with its tensors, and `map.json`, written last, with what it was
//! fitted on. Both are read as hostile: sizes are checked before anything is made of them.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use slmrec_core::{atomic, hash};

use super::title_map::Fitted;
use super::{MapChoice, MapKind, TitleMap};
use crate::model::ModelFileError;
use crate::model::file_error::read_json;
use crate::model::weights_file::WeightsFile;

/// Name of the description.
pub const MAP_FILE: &str = "map.json";
/// Name of the tensors' file.
pub const WEIGHTS_FILE: &str = "map.safetensors";
/// Version of both.
const FORMAT_VERSION: u32 = 1;
/// Largest size of a vector: a guard against absurd files.
const MAX_SIZE: usize = 1 << 16;
/// Most items that a map of neighbours may hold.
const MAX_ITEMS: usize = 1 << 28;

/// What a map was fitted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapSource {
    /// Hash of the output of the stage that made the titles' vectors.
    pub titles_sha256: String,
    /// Whose item table: `student` or `sasrec`.
    pub table: String,
    /// Hash of the output of the stage that made it.
    pub table_sha256: String,
    /// SHA-256 of the dataset's `vocabulary.json`, so that rows cannot be mixed up.
    pub vocabulary_sha256: String,
}

/// `map.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapDescription {
    /// Layout version, 1.
    pub format_version: u32,
    /// Kind, and its strength or number of neighbours.
    pub choice: MapChoice,
    /// Size T of the title vectors.
    pub title_size: usize,
    /// Size D of the embeddings.
    pub item_size: usize,
    /// Number of items that a map of neighbours holds; 0 for ridge.
    pub items: usize,
    /// Mean length of the embeddings.
    pub length: f64,
    /// What it was fitted on.
    pub source: MapSource,
    /// SHA-256 of `map.safetensors`.
    pub weights_sha256: String,
}

impl MapDescription {
    /// Reads the description alone and checks it: version, sizes, settings.
    ///
    /// # Errors
    /// [`ModelFileError`] for whatever is not as [`TitleMap::save`] left it.
    pub fn read(dir: &Path) -> Result<Self, ModelFileError> {
        let path = dir.join(MAP_FILE);
        let description: Self = read_json(&path)?;
        match description.fault() {
            None => Ok(description),
            Some((expected, found)) => Err(ModelFileError::malformed(&path, expected, found)),
        }
    }

    /// What was expected, and what stands there.
    fn fault(&self) -> Option<(String, String)> {
        let sizes = 1..=MAX_SIZE;
        let items = match self.choice.map {
            MapKind::Ridge { .. } => 0..=0,
            MapKind::Neighbours { .. } => 1..=MAX_ITEMS,
        };
        let checks = [
            (
                self.format_version == FORMAT_VERSION,
                format!("format version {FORMAT_VERSION}"),
                self.format_version.to_string(),
            ),
            (
                sizes.contains(&self.title_size),
                format!("a title_size of 1..={MAX_SIZE}"),
                self.title_size.to_string(),
            ),
            (
                sizes.contains(&self.item_size),
                format!("an item_size of 1..={MAX_SIZE}"),
                self.item_size.to_string(),
            ),
            (
                items.contains(&self.items),
                format!("items in {items:?}"),
                self.items.to_string(),
            ),
            (
                self.length.is_finite() && self.length >= 0.0,
                "a length of at least 0".to_owned(),
                self.length.to_string(),
            ),
        ];
        let wrong = checks.into_iter().find(|(right, ..)| !right);
        let choice = || self.choice.check(self.items).err();
        (wrong.map(|(_, expected, found)| (expected, found)))
            .or_else(|| Some(("a map that can be fitted".to_owned(), choice()?.to_string())))
    }
}

impl TitleMap {
    /// Writes the map: tensors first, `map.json` last, each atomically.
    ///
    /// # Errors
    /// [`ModelFileError::Io`].
    pub fn save(&self, dir: &Path, source: MapSource) -> Result<MapDescription, ModelFileError> {
        let (map_path, weights_path) = (dir.join(MAP_FILE), dir.join(WEIGHTS_FILE));
        // An old description must never stand beside new tensors.
        match std::fs::remove_file(&map_path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(ModelFileError::io(&map_path)(e));
            }
            _ => {}
        }
        let weights = safetensors::serialize(self.tensors(), None)
            .map_err(|e| ModelFileError::io(&weights_path)(std::io::Error::other(e)))?;
        atomic::write(&weights_path, &weights).map_err(ModelFileError::io(&weights_path))?;
        let (title_size, item_size) = self.sizes().map_err(ModelFileError::tensor(&map_path))?;
        let description = MapDescription {
            format_version: FORMAT_VERSION,
            choice: self.choice,
            title_size,
            item_size,
            items: match &self.fitted {
                Fitted::Ridge { .. } => 0,
                Fitted::Neighbours { titles, .. } => titles.dims()[0],
            },
            length: self.length,
            source,
            weights_sha256: hash::sha256_hex(&weights),
        };
        let json =
            serde_json::to_vec_pretty(&description).map_err(ModelFileError::json(&map_path))?;
        atomic::write(&map_path, &json).map_err(ModelFileError::io(&map_path))?;
        Ok(description)
    }

    fn tensors(&self) -> Vec<(&'static str, &Tensor)> {
        match &self.fitted {
            Fitted::Ridge {
                weight,
                title_mean,
                item_mean,
            } => vec![
                ("weight", weight),
                ("title_mean", title_mean),
                ("item_mean", item_mean),
            ],
            Fitted::Neighbours { titles, items, .. } => vec![("titles", titles), ("items", items)],
        }
    }

    /// Reads a map and checks it: version, sizes, hash, names, shapes, values.
    ///
    /// # Errors
    /// [`ModelFileError`] for whatever is not as [`TitleMap::save`] left it.
    pub fn load(dir: &Path) -> Result<(Self, MapDescription), ModelFileError> {
        let description = MapDescription::read(dir)?;
        let path: PathBuf = dir.join(WEIGHTS_FILE);
        let found = hash::sha256_file(&path).map_err(ModelFileError::io(&path))?;
        if found != description.weights_sha256 {
            let expected = format!("SHA-256 {}", description.weights_sha256);
            return Err(ModelFileError::malformed(&path, expected, found));
        }
        let mut file = WeightsFile::open(&path)?;
        let mut tensor = |name: &str, shape: &[usize]| file.tensor(name, shape, &Device::Cpu);
        let (t, d, n) = (
            description.title_size,
            description.item_size,
            description.items,
        );
        let fitted = match description.choice.map {
            MapKind::Ridge { .. } => Fitted::Ridge {
                weight: tensor("weight", &[t, d])?,
                title_mean: tensor("title_mean", &[t])?,
                item_mean: tensor("item_mean", &[d])?,
            },
            MapKind::Neighbours { k } => Fitted::Neighbours {
                titles: tensor("titles", &[n, t])?,
                items: tensor("items", &[n, d])?,
                k,
            },
        };
        let map = Self {
            choice: description.choice,
            length: description.length,
            fitted,
        };
        Ok((map, description))
    }
}
