//! The checkpoint directory: all that export needs to know about a trained recommender.
//!
//! ```text
//! config.json               Hugging Face Llama configuration of the body
//! model.safetensors         the body with adapters merged, Hugging Face names; `transformers` loads it
//! recommender.json          readout, prompt, item counts, origin
//! recommender.safetensors   item_embeddings.weight [N + 1, D] (row 0 zero), item_projection.weight [H, D],
//!                           item_projection.bias [H], user_projection.weight [D, H]
//! ```
//! The body's `model.embed_tokens.weight` holds only the prompt's rows, prefix tokens first, then
//! suffix tokens, so `vocab_size` is P + R (or 1, a row of zeros, without a prompt).

use std::path::Path;

use serde::{Deserialize, Serialize};
use slmrec_core::hash;
use slmrec_core::manifest::Readout;

use crate::error::{ExportError, io_error};

/// Name of the body's configuration.
pub const CONFIG_FILE: &str = "config.json";
/// Name of the body's weights.
pub const MODEL_FILE: &str = "model.safetensors";
/// Name of the recommender's configuration.
pub const RECOMMENDER_FILE: &str = "recommender.json";
/// Name of the recommender's own weights.
pub const RECOMMENDER_WEIGHTS_FILE: &str = "recommender.safetensors";
/// Version of the directory's layout.
pub const FORMAT_VERSION: u32 = 1;

/// The files that a checkpoint is known by, in this order.
pub(crate) const FILES: [&str; 4] = [
    CONFIG_FILE,
    RECOMMENDER_FILE,
    MODEL_FILE,
    RECOMMENDER_WEIGHTS_FILE,
];

/// SHA-256 over a checkpoint's files, as bundles carry it.
///
/// # Errors
/// A file that cannot be read.
pub fn sha256(dir: &Path) -> Result<String, ExportError> {
    let mut lines = String::new();
    for name in FILES {
        let path = dir.join(name);
        let digest = hash::sha256_file(&path).map_err(|e| io_error(&path, e))?;
        lines.push_str(&digest_line(&digest, name));
    }
    Ok(hash::sha256_hex(lines.as_bytes()))
}

/// What a file adds to the hash.
pub(crate) fn digest_line(sha256: &str, name: &str) -> String {
    format!("{sha256} {name}\n")
}

/// `config.json`: the fields of a Hugging Face Llama configuration that the model reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    /// Always `["LlamaForCausalLM"]` in what we write.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// `llama`.
    pub model_type: String,
    /// Hidden size H.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key/value heads; queries share them in groups.
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    /// Size of one head; `hidden_size / num_attention_heads` when absent.
    #[serde(default)]
    pub head_dim: Option<usize>,
    /// Epsilon of RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f64,
    /// Rows of `embed_tokens`.
    pub vocab_size: usize,
    /// Longest sequence of the pretrained model.
    #[serde(default = "default_max_position_embeddings")]
    pub max_position_embeddings: usize,
    /// Always true in what we write: there is no `lm_head`.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Activation of the MLP; only `silu` is supported.
    #[serde(default = "default_hidden_act")]
    pub hidden_act: String,
}

fn default_rope_theta() -> f64 {
    10_000.0
}

fn default_max_position_embeddings() -> usize {
    2048
}

fn default_hidden_act() -> String {
    "silu".to_owned()
}

impl LlamaConfig {
    /// Key/value heads, with the default of multi-head attention.
    #[must_use]
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Size of one head.
    #[must_use]
    pub fn head_size(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }
}

/// `recommender.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecommenderConfig {
    /// Layout version, [`FORMAT_VERSION`].
    pub format_version: u32,
    /// `teacher` or `student`, for people.
    pub role: String,
    /// Where the user vector is read.
    pub readout: Readout,
    /// Longest history S.
    pub max_history: usize,
    /// Number of items N.
    pub items: usize,
    /// Item embedding size D.
    pub item_dim: usize,
    /// The prompt around the items.
    pub prompt: Prompt,
    /// The pretrained model behind the body.
    pub base: Base,
    /// SHA-256 of the dataset's `vocabulary.json`, so that rows cannot be mixed up.
    pub vocabulary_sha256: String,
    /// Settings, seed, input hashes and figures of the run that made it.
    pub provenance: serde_json::Value,
}

/// A constant prompt, as text and as the tokenizer's ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// Text before the items.
    pub prefix: String,
    /// Text after the items.
    pub suffix: String,
    /// Token ids of the prefix, P of them.
    pub prefix_tokens: Vec<u32>,
    /// Token ids of the suffix, R of them; empty for the `item` readout.
    pub suffix_tokens: Vec<u32>,
}

/// Which pretrained layers the body began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// A name for people, for example `SmolLM2-135M-Instruct`.
    pub name: String,
    /// SHA-256 of the weights file.
    pub sha256: String,
    /// Indices of the pretrained layers that were kept, in order.
    pub layers: Vec<usize>,
}
