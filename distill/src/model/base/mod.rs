//! The pretrained model that a body begins with: a GGUF file, a Hugging Face directory, or one of
//! our own checkpoint directories (a student that begins with its teacher's layers).
//!
//! Only the layers that are kept are read and dequantized, and of the token embeddings only the
//! prompt's rows.

pub mod cut;
mod gguf;
mod huggingface;
mod words;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use slmrec_export::checkpoint::{LlamaConfig, Prompt};

use super::file_error::ModelFileError;
use super::init::named_seed;
use super::llama::{Tensors, tensor_shapes};
use super::parameters::normal;

pub use words::token_means;

/// Which decoder layers of the base are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum LayerSelection {
    /// All of them.
    All,
    /// The first so many.
    First(usize),
    /// Every `step`-th, starting with layer 0, `count` of them.
    Interval {
        /// Distance between two kept layers.
        step: usize,
        /// How many are kept.
        count: usize,
    },
    /// So many, spaced as evenly as whole layers allow, the last one included.
    Spread(usize),
    /// These, in this order.
    Layers(Vec<usize>),
}

impl LayerSelection {
    /// Indices of the kept layers of a model with `available` layers.
    ///
    /// # Errors
    /// A layer that the model does not have, or none at all.
    pub fn resolve(&self, available: usize, path: &Path) -> Result<Vec<usize>, ModelFileError> {
        let missing = |wanted: usize| ModelFileError::NoSuchLayer {
            path: path.to_owned(),
            wanted,
            last: available.saturating_sub(1),
        };
        let (count, step) = match self {
            Self::All => (available, 1),
            Self::First(count) => (*count, 1),
            Self::Interval { step, count } => (*count, *step),
            Self::Spread(count) => (*count, 1),
            Self::Layers(layers) => (layers.len(), 1),
        };
        if count > available || available == 0 {
            return Err(missing(count.saturating_sub(1).saturating_mul(step)));
        }
        let layers: Vec<usize> = match self {
            Self::Layers(layers) => layers.clone(),
            // No more layers than there are, so the last of the k-th part is at least the k-th.
            Self::Spread(_) => (1..=count)
                .map(|k| k.saturating_mul(available) / count - 1)
                .collect(),
            _ => (0..count).map(|i| i.saturating_mul(step)).collect(),
        };
        if let Some(wanted) = layers.iter().find(|layer| **layer >= available) {
            return Err(missing(*wanted));
        }
        if layers.is_empty() || step == 0 {
            return Err(ModelFileError::malformed(
                path,
                "at least one layer, step at least 1",
                format!("{self:?}"),
            ));
        }
        Ok(layers)
    }
}

/// The constant text around the items; empty strings for none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptText {
    /// Text before the items.
    pub prefix: String,
    /// Text after the items; only the `response` readout has one.
    pub suffix: String,
}

impl PromptText {
    /// The alpaca template of the paper.
    #[must_use]
    pub fn paper() -> Self {
        Self {
            prefix: "Below is an instruction that describes a task, paired with an input that provides \
                     further context. Write a response that appropriately completes the request.\n\n\
                     ### Instruction:\nGiven the user's purchase history, predict next possible item to \
                     be purchased.\n\n### Input:\n"
                .to_owned(),
            suffix: "\n\n### Response:\n".to_owned(),
        }
    }
}

/// The kept layers of a pretrained model, in f32, and what it takes to use them.
#[derive(Debug)]
pub struct PretrainedBase {
    /// A name for people.
    pub name: String,
    /// SHA-256 of the weights file; of the lines `name:SHA-256` for several files; empty for none.
    pub sha256: String,
    /// Configuration with `num_hidden_layers` as kept.
    pub config: LlamaConfig,
    /// Indices of the kept layers in the pretrained model.
    pub layers: Vec<usize>,
    /// `model.layers.*` (numbered as kept) and `model.norm.weight`.
    pub tensors: Tensors,
    /// The prompt as text and token ids.
    pub prompt: Prompt,
    /// Embeddings of the prompt's tokens `[P + R, H]`, prefix first; `None` without a prompt.
    pub prompt_embeddings: Option<Tensor>,
}

/// What a pretrained model says about itself; no weights are read.
#[derive(Clone, Debug)]
pub struct BaseHeader {
    /// Configuration of the whole model.
    pub config: LlamaConfig,
    /// The prompt as text and token ids.
    pub prompt: Prompt,
}

impl BaseHeader {
    /// Reads the header of a GGUF file, or `config.json` of a directory, and encodes the prompt.
    ///
    /// # Errors
    /// As [`PretrainedBase::load`].
    pub fn read(path: &Path, prompt: &PromptText) -> Result<Self, ModelFileError> {
        if path.is_dir() {
            huggingface::header(path, prompt)
        } else {
            gguf::header(path, prompt)
        }
    }
}

impl PretrainedBase {
    /// Reads a GGUF file or a directory with `config.json` and safetensors.
    ///
    /// # Errors
    /// Files that cannot be read, are corrupt or of an unsupported kind; layers that do not exist;
    /// a prompt without a tokenizer.
    pub fn load(
        path: &Path,
        layers: &LayerSelection,
        prompt: &PromptText,
        device: &Device,
    ) -> Result<Self, ModelFileError> {
        if path.is_dir() {
            huggingface::load(path, layers, prompt, device)
        } else {
            gguf::load(path, layers, prompt, device)
        }
    }

    /// A body of the same shape with random weights: normal, standard deviation 0.02, norms 1.
    /// The prompt's embeddings stay.
    ///
    /// # Errors
    /// Only what candle reports for making tensors.
    pub fn randomized(mut self, seed: u64, device: &Device) -> candle_core::Result<Self> {
        self.tensors = random_tensors(&self.config, seed, device)?;
        self.name = format!("random body of the shape of {}", self.name);
        self.sha256 = String::new();
        Ok(self)
    }

    /// A random body of the given shape, without a prompt.
    ///
    /// # Errors
    /// Only what candle reports for making tensors.
    pub fn random(config: &LlamaConfig, seed: u64, device: &Device) -> candle_core::Result<Self> {
        Ok(Self {
            name: "random body".to_owned(),
            sha256: String::new(),
            config: config.clone(),
            layers: (0..config.num_hidden_layers).collect(),
            tensors: random_tensors(config, seed, device)?,
            prompt: Prompt::default(),
            prompt_embeddings: None,
        })
    }
}

fn random_tensors(
    config: &LlamaConfig,
    seed: u64,
    device: &Device,
) -> candle_core::Result<Tensors> {
    const STD: f64 = 0.02;
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let tensor = if shape.len() == 1 {
            Tensor::ones(shape, DType::F32, device)?
        } else {
            normal(shape, STD, named_seed(seed, &name), DType::F32, device)?
        };
        Ok((name, tensor))
    };
    tensor_shapes(config).into_iter().map(tensor).collect()
}

/// Token ids of a prompt. Special tokens (a beginning-of-text token, where the model wants one) go
/// before the prefix only.
fn encode_prompt(
    tokenizer: &tokenizers::Tokenizer,
    text: &PromptText,
    path: &Path,
) -> Result<Prompt, ModelFileError> {
    let encode = |text: &str, special: bool| {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let encoding = tokenizer.encode(text, special);
        encoding
            .map(|e| e.get_ids().to_vec())
            .map_err(|e| ModelFileError::Prompt {
                path: path.to_owned(),
                reason: e.to_string(),
            })
    };
    Ok(Prompt {
        prefix_tokens: encode(&text.prefix, true)?,
        suffix_tokens: encode(&text.suffix, false)?,
        prefix: text.prefix.clone(),
        suffix: text.suffix.clone(),
    })
}

/// Prefix tokens, then suffix tokens.
fn prompt_rows(prompt: &Prompt) -> Vec<u32> {
    prompt
        .prefix_tokens
        .iter()
        .chain(&prompt.suffix_tokens)
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_layers_end_with_the_last_and_need_not_divide() {
        let spread = |count, available| {
            let found = LayerSelection::Spread(count).resolve(available, Path::new("model"));
            found.ok()
        };
        assert_eq!(spread(2, 6), Some(vec![2, 5]));
        assert_eq!(spread(4, 30), Some(vec![6, 14, 21, 29]));
        assert_eq!(spread(5, 5), Some(vec![0, 1, 2, 3, 4]));
        assert_eq!(spread(6, 5), None);
        assert_eq!(spread(0, 5), None);
    }
}
