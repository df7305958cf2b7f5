//! Hugging Face directories: `config.json`, `model.safetensors` (or shards), `tokenizer.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::Value;
use slmrec_core::hash::{sha256_file, sha256_hex};
use slmrec_export::checkpoint::{
    Base, CONFIG_FILE, LlamaConfig, MODEL_FILE, Prompt, RECOMMENDER_FILE, RecommenderConfig,
};
use tokenizers::Tokenizer;

use super::{BaseHeader, LayerSelection, PretrainedBase, PromptText, encode_prompt, prompt_rows};
use crate::model::file_error::{ModelFileError, read_json};
use crate::model::llama::{Tensors, layer_shapes};
use crate::model::weights_file::WeightsFile;

const INDEX_FILE: &str = "model.safetensors.index.json";
const TOKENIZER_FILE: &str = "tokenizer.json";
const EMBEDDINGS: &str = "model.embed_tokens.weight";

pub(super) fn load(
    dir: &Path,
    selection: &LayerSelection,
    text: &PromptText,
    device: &Device,
) -> Result<PretrainedBase, ModelFileError> {
    let mut config = read_config(&dir.join(CONFIG_FILE))?;
    let layers = selection.resolve(config.num_hidden_layers, &dir.join(CONFIG_FILE))?;
    config.num_hidden_layers = layers.len();
    let mut weights = Weights::open(dir)?;
    let mut tensors = Tensors::new();
    for (kept, layer) in layers.iter().enumerate() {
        for (name, shape) in layer_shapes(&config) {
            let tensor = weights.tensor(
                &format!("model.layers.{layer}.{name}.weight"),
                &shape,
                device,
            )?;
            tensors.insert(format!("model.layers.{kept}.{name}.weight"), tensor);
        }
    }
    let norm = "model.norm.weight";
    tensors.insert(
        norm.to_owned(),
        weights.tensor(norm, &[config.hidden_size], device)?,
    );
    let origin = Origin::find(dir, text)?;
    let prompt_embeddings = match origin.rows.as_slice() {
        [] => None,
        rows => Some(weights.file_of(EMBEDDINGS)?.rows(
            EMBEDDINGS,
            rows,
            config.hidden_size,
            device,
        )?),
    };
    let layers = match origin.base {
        // A checkpoint's layers are numbered as its own base had them.
        Some(base) => layers
            .iter()
            .map(|&l| base.layers.get(l).copied().unwrap_or(l))
            .collect(),
        None => layers,
    };
    let sha256 = weights.sha256()?;
    Ok(PretrainedBase {
        name: origin.name,
        sha256,
        config,
        layers,
        tensors,
        prompt: origin.prompt,
        prompt_embeddings,
    })
}

pub(super) fn header(dir: &Path, text: &PromptText) -> Result<BaseHeader, ModelFileError> {
    Ok(BaseHeader {
        config: read_config(&dir.join(CONFIG_FILE))?,
        prompt: Origin::find(dir, text)?.prompt,
    })
}

/// `tokenizer.json` beside the weights.
pub(super) fn tokenizer(dir: &Path) -> Result<Tokenizer, ModelFileError> {
    let path = dir.join(TOKENIZER_FILE);
    Tokenizer::from_file(&path).map_err(|e| ModelFileError::Tokenizer {
        path,
        reason: e.to_string(),
    })
}

/// Embeddings of some tokens, `[rows, H]`.
pub(super) fn embeddings(
    dir: &Path,
    rows: &[u32],
    device: &Device,
) -> Result<Tensor, ModelFileError> {
    let width = read_config(&dir.join(CONFIG_FILE))?.hidden_size;
    let mut weights = Weights::open(dir)?;
    (weights.file_of(EMBEDDINGS)?).rows(EMBEDDINGS, rows, width, device)
}

/// Reads `config.json` and refuses what the decoder does not do.
pub(crate) fn read_config(path: &Path) -> Result<LlamaConfig, ModelFileError> {
    let mut json: Value = read_json(path)?;
    let unsupported = |what: &str| ModelFileError::Unsupported {
        path: path.to_owned(),
        what: what.to_owned(),
        hint: "choose a Llama model without it",
    };
    for flag in ["attention_bias", "mlp_bias"] {
        if json.get(flag).and_then(Value::as_bool) == Some(true) {
            return Err(unsupported(flag));
        }
    }
    // Newer files keep the rotary base in `rope_parameters`, older ones scaling in `rope_scaling`.
    for section in ["rope_scaling", "rope_parameters"] {
        let Some(Value::Object(rope)) = json.get(section) else {
            continue;
        };
        let kind = rope
            .get("rope_type")
            .or_else(|| rope.get("type"))
            .and_then(Value::as_str);
        if kind.is_some_and(|kind| kind != "default") {
            return Err(unsupported(&format!(
                "{section} {}",
                kind.unwrap_or_default()
            )));
        }
        if let Some(theta) = rope.get("rope_theta").cloned() {
            json["rope_theta"] = theta;
        }
    }
    let config: LlamaConfig = serde_json::from_value(json).map_err(ModelFileError::json(path))?;
    if config.model_type != "llama" {
        return Err(unsupported(&format!("model_type {}", config.model_type)));
    }
    check_numbers(&config, path)?;
    Ok(config)
}

/// Bounds within which sizes can be multiplied without care.
pub(super) fn check_numbers(config: &LlamaConfig, path: &Path) -> Result<(), ModelFileError> {
    const LARGEST: usize = 1 << 20;
    let sizes = [
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("num_hidden_layers", config.num_hidden_layers),
        ("num_attention_heads", config.num_attention_heads),
        ("num_key_value_heads", config.kv_heads()),
        ("head_dim", config.head_size()),
    ];
    for (name, size) in sizes {
        if size == 0 || size > LARGEST {
            return Err(ModelFileError::malformed(
                path,
                format!("{name} in 1..={LARGEST}"),
                size,
            ));
        }
    }
    let numbers = [
        ("rms_norm_eps", config.rms_norm_eps),
        ("rope_theta", config.rope_theta),
    ];
    for (name, number) in numbers {
        if !number.is_finite() || number <= 0.0 {
            return Err(ModelFileError::malformed(
                path,
                format!("a positive {name}"),
                number,
            ));
        }
    }
    Ok(())
}

/// One or several weight files of a directory.
struct Weights {
    dir: PathBuf,
    /// File name by tensor name, for several files.
    index: Option<BTreeMap<String, String>>,
    open: BTreeMap<String, WeightsFile>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    fn open(dir: &Path) -> Result<Self, ModelFileError> {
        let path = dir.join(INDEX_FILE);
        let index = if path.exists() && !dir.join(MODEL_FILE).exists() {
            let index: Index = read_json(&path)?;
            // A shard is a file of this folder, never a path out of it.
            if let Some(name) = index
                .weight_map
                .values()
                .find(|name| name.contains(['/', '\\']) || name.starts_with('.'))
            {
                return Err(ModelFileError::malformed(&path, "file names", name));
            }
            Some(index.weight_map)
        } else {
            None
        };
        Ok(Self {
            dir: dir.to_owned(),
            index,
            open: BTreeMap::new(),
        })
    }

    fn file_of(&mut self, tensor: &str) -> Result<&mut WeightsFile, ModelFileError> {
        let name = match &self.index {
            None => MODEL_FILE.to_owned(),
            Some(index) => {
                index
                    .get(tensor)
                    .cloned()
                    .ok_or_else(|| ModelFileError::MissingTensor {
                        path: self.dir.join(INDEX_FILE),
                        tensor: tensor.to_owned(),
                        hint: "the names must be those of Hugging Face's Llama",
                    })?
            }
        };
        match self.open.entry(name) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let file = WeightsFile::open(&self.dir.join(entry.key()))?;
                Ok(entry.insert(file))
            }
        }
    }

    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        device: &Device,
    ) -> Result<Tensor, ModelFileError> {
        self.file_of(name)?.tensor(name, shape, device)
    }

    fn sha256(&self) -> Result<String, ModelFileError> {
        let hash = |name: &str| {
            let path = self.dir.join(name);
            sha256_file(&path).map_err(ModelFileError::io(&path))
        };
        let Some(index) = &self.index else {
            return hash(MODEL_FILE);
        };
        let names: std::collections::BTreeSet<&String> = index.values().collect();
        let lines = (names.into_iter())
            .map(|name| Ok(format!("{name}:{}\n", hash(name)?)))
            .collect::<Result<String, ModelFileError>>()?;
        Ok(sha256_hex(lines.as_bytes()))
    }
}

/// Where a directory comes from: Hugging Face, or one of our own checkpoints.
struct Origin {
    name: String,
    prompt: Prompt,
    /// Rows of the embedding table that the prompt uses.
    rows: Vec<u32>,
    base: Option<Base>,
}

impl Origin {
    fn find(dir: &Path, text: &PromptText) -> Result<Self, ModelFileError> {
        let recommender = dir.join(RECOMMENDER_FILE);
        if recommender.exists() {
            return Self::of_checkpoint(read_json(&recommender)?, text, &recommender);
        }
        let name = dir
            .file_name()
            .map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned());
        if *text == PromptText::default() {
            return Ok(Self {
                name,
                prompt: Prompt::default(),
                rows: Vec::new(),
                base: None,
            });
        }
        let path = dir.join(TOKENIZER_FILE);
        let tokenizer = tokenizer(dir)?;
        let prompt = encode_prompt(&tokenizer, text, &path)?;
        Ok(Self {
            name,
            rows: prompt_rows(&prompt),
            prompt,
            base: None,
        })
    }

    /// A checkpoint keeps only its own prompt's rows, prefix first.
    fn of_checkpoint(
        config: RecommenderConfig,
        text: &PromptText,
        path: &Path,
    ) -> Result<Self, ModelFileError> {
        let RecommenderConfig { prompt, base, .. } = config;
        let p = prompt.prefix_tokens.len() as u32;
        let r = prompt.suffix_tokens.len() as u32;
        let take = |ours: &str, theirs: &str, rows: std::ops::Range<u32>| match ours {
            "" => Ok(0..0),
            ours if ours == theirs => Ok(rows),
            ours => Err(ModelFileError::Prompt {
                path: path.to_owned(),
                reason: format!(
                    "the checkpoint was trained with {theirs:?}, {ours:?} was asked for"
                ),
            }),
        };
        let prefix = take(&text.prefix, &prompt.prefix, 0..p)?;
        let suffix = take(&text.suffix, &prompt.suffix, p..p + r)?;
        let kept = |rows: &std::ops::Range<u32>, text: String, ids: Vec<u32>| match rows.is_empty()
        {
            true => (String::new(), Vec::new()),
            false => (text, ids),
        };
        let (prefix_text, prefix_tokens) = kept(&prefix, prompt.prefix, prompt.prefix_tokens);
        let (suffix_text, suffix_tokens) = kept(&suffix, prompt.suffix, prompt.suffix_tokens);
        Ok(Self {
            name: base.name.clone(),
            rows: prefix.chain(suffix).collect(),
            prompt: Prompt {
                prefix: prefix_text,
                suffix: suffix_text,
                prefix_tokens,
                suffix_tokens,
            },
            base: Some(base),
        })
    }
}

#[cfg(test)]
mod tests;
