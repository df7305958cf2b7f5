//! Checkpoint directories (`slmrec_export::checkpoint`) of a language-model recommender.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::Serialize;
use slmrec_core::atomic;
use slmrec_export::checkpoint::{
    CONFIG_FILE, FORMAT_VERSION, LlamaConfig, MODEL_FILE, RECOMMENDER_FILE,
    RECOMMENDER_WEIGHTS_FILE, RecommenderConfig,
};

use super::SequentialModel;
use super::base::{LayerSelection, PretrainedBase, PromptText};
use super::file_error::{ModelFileError, read_json};
use super::llama::Tensors;
use super::lora::BodyTraining;
use super::recommender::{
    BodyDtype, ITEM_EMBEDDINGS, ITEM_PROJECTION, ITEM_PROJECTION_BIAS, LlmRecommender, LlmSettings,
    USER_PROJECTION,
};
use super::weights_file::{WeightsFile, check_finite};

const EMBEDDINGS: &str = "model.embed_tokens.weight";

/// What a checkpoint says about the run that made it.
#[derive(Clone, Debug)]
pub struct CheckpointInfo {
    /// `teacher` or `student`, for people.
    pub role: String,
    /// SHA-256 of the dataset's `vocabulary.json`.
    pub vocabulary_sha256: String,
    /// Settings, seed, input hashes and figures.
    pub provenance: serde_json::Value,
}

/// Writes a model, adapters merged, into `dir`, which is made when it is not there. Each file
/// appears whole; `recommender.json` comes last, so a directory that has one is complete.
///
/// # Errors
/// Weights that are not finite, or files that cannot be written.
pub fn write_checkpoint(
    model: &LlmRecommender,
    dir: &Path,
    info: &CheckpointInfo,
) -> Result<(), ModelFileError> {
    std::fs::create_dir_all(dir).map_err(ModelFileError::io(dir))?;
    let recommender = dir.join(RECOMMENDER_FILE);
    match std::fs::remove_file(&recommender) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(ModelFileError::Io {
                path: recommender,
                source,
            });
        }
        Ok(()) | Err(_) => {}
    }
    let mut body = model
        .body()
        .merged_tensors()
        .map_err(ModelFileError::tensor(dir))?;
    let embeddings = prompt_table(model).map_err(ModelFileError::tensor(dir))?;
    body.insert(EMBEDDINGS.to_owned(), embeddings);
    write_tensors(&dir.join(MODEL_FILE), &body)?;
    let own = model.own_tensors().map_err(ModelFileError::tensor(dir))?;
    write_tensors(&dir.join(RECOMMENDER_WEIGHTS_FILE), &own)?;
    write_json(&dir.join(CONFIG_FILE), &body_config(model))?;
    write_json(&recommender, &recommender_config(model, info))
}

/// `[P + R, H]`, or one row of zeros without a prompt.
fn prompt_table(model: &LlmRecommender) -> candle_core::Result<Tensor> {
    match model.prompt_embeddings() {
        Some(table) => Ok(table.clone()),
        None => Tensor::zeros((1, model.config().hidden_size), DType::F32, &Device::Cpu),
    }
}

fn body_config(model: &LlmRecommender) -> LlamaConfig {
    let prompt = model.prompt();
    let rows = prompt.prefix_tokens.len() + prompt.suffix_tokens.len();
    LlamaConfig {
        architectures: vec!["LlamaForCausalLM".to_owned()],
        vocab_size: rows.max(1),
        num_key_value_heads: Some(model.config().kv_heads()),
        head_dim: Some(model.config().head_size()),
        tie_word_embeddings: true,
        ..model.config().clone()
    }
}

fn recommender_config(model: &LlmRecommender, info: &CheckpointInfo) -> RecommenderConfig {
    let dims = model.item_table().weight.dims();
    RecommenderConfig {
        format_version: FORMAT_VERSION,
        role: info.role.clone(),
        readout: model.settings().readout,
        max_history: model.max_history(),
        items: dims[0] - 1,
        item_dim: dims[1],
        prompt: model.prompt().clone(),
        base: model.base().clone(),
        vocabulary_sha256: info.vocabulary_sha256.clone(),
        provenance: info.provenance.clone(),
    }
}

/// Writes f32 tensors as one safetensors file, atomically.
fn write_tensors(path: &Path, tensors: &Tensors) -> Result<(), ModelFileError> {
    let mut ready = Tensors::new();
    for (name, tensor) in tensors {
        let tensor = (tensor.to_device(&Device::Cpu))
            .and_then(|t| t.to_dtype(DType::F32)?.contiguous())
            .map_err(ModelFileError::tensor(path))?;
        check_finite(path, name, &tensor)?;
        ready.insert(name.clone(), tensor);
    }
    // `transformers` refuses files that do not say whose layout they have.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(&ready, Some(metadata))
        .map_err(|e| ModelFileError::malformed(path, "tensors that can be written", e))?;
    atomic::write(path, &bytes).map_err(ModelFileError::io(path))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ModelFileError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(ModelFileError::json(path))?;
    bytes.push(b'\n');
    atomic::write(path, &bytes).map_err(ModelFileError::io(path))
}

/// Reads `recommender.json`.
///
/// # Errors
/// A file that is missing, malformed, or of another format version.
pub fn read_recommender_config(dir: &Path) -> Result<RecommenderConfig, ModelFileError> {
    let path = dir.join(RECOMMENDER_FILE);
    let config: RecommenderConfig = read_json(&path)?;
    if config.format_version != FORMAT_VERSION {
        let expected = format!("format version {FORMAT_VERSION}");
        return Err(ModelFileError::malformed(
            &path,
            expected,
            config.format_version,
        ));
    }
    Ok(config)
}

impl LlmRecommender {
    /// Reads a checkpoint directory. The model is frozen but for its projections; to train on,
    /// make a new one with [`LlmRecommender::from_parts`].
    ///
    /// # Errors
    /// Files that are missing, malformed, or do not fit together.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, ModelFileError> {
        let config = read_recommender_config(dir)?;
        let settings = LlmSettings {
            readout: config.readout,
            max_history: config.max_history,
            training: BodyTraining::Frozen,
            train_item_embeddings: false,
            dropout: 0.0,
            activation_checkpointing: false,
            body_dtype: BodyDtype::F32,
        };
        let (base, own) = load_parts(dir, &LayerSelection::All, &config, device)?;
        Self::from_parts(&base, &own, &settings, 0).map_err(ModelFileError::tensor(dir))
    }

    /// A model to be trained further that begins with some layers of a checkpoint, its prompt and
    /// its projections, for example a student that begins as its teacher's first layers.
    ///
    /// # Errors
    /// As [`Self::load`], and layers that the checkpoint does not have.
    pub fn start_from(
        dir: &Path,
        layers: &LayerSelection,
        settings: &LlmSettings,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelFileError> {
        let (base, own) = Self::parts(dir, layers, device)?;
        Self::from_parts(&base, &own, settings, seed).map_err(ModelFileError::tensor(dir))
    }

    /// Some layers of a checkpoint and the tensors around them, as [`LlmRecommender::from_parts`]
    /// takes them.
    ///
    /// # Errors
    /// As [`Self::start_from`].
    pub fn parts(
        dir: &Path,
        layers: &LayerSelection,
        device: &Device,
    ) -> Result<(PretrainedBase, Tensors), ModelFileError> {
        let config = read_recommender_config(dir)?;
        load_parts(dir, layers, &config, device)
    }
}

fn load_parts(
    dir: &Path,
    layers: &LayerSelection,
    config: &RecommenderConfig,
    device: &Device,
) -> Result<(PretrainedBase, Tensors), ModelFileError> {
    let text = PromptText {
        prefix: config.prompt.prefix.clone(),
        suffix: config.prompt.suffix.clone(),
    };
    let mut base = PretrainedBase::load(dir, layers, &text, device)?;
    if matches!(layers, LayerSelection::All) {
        // The model itself, not one that begins with it.
        base.sha256.clone_from(&config.base.sha256);
    }
    let (hidden, dim) = (base.config.hidden_size, config.item_dim);
    let mut file = WeightsFile::open(&dir.join(RECOMMENDER_WEIGHTS_FILE))?;
    let shapes: [(&str, &[usize]); 4] = [
        (ITEM_EMBEDDINGS, &[config.items.saturating_add(1), dim]),
        (ITEM_PROJECTION, &[hidden, dim]),
        (ITEM_PROJECTION_BIAS, &[hidden]),
        (USER_PROJECTION, &[dim, hidden]),
    ];
    let own = (shapes.into_iter())
        .map(|(name, shape)| Ok((name.to_owned(), file.tensor(name, shape, device)?)))
        .collect::<Result<Tensors, ModelFileError>>()?;
    Ok((base, own))
}
