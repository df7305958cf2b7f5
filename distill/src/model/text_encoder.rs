//! Texts to vectors: a tokenizer and a small BERT from a Hugging Face directory, such as
//! all-MiniLM-L6-v2.

use std::path::Path;

use candle_core::{Device, Tensor};
use tokenizers::{Tokenizer, TruncationParams};

use super::bert::{Bert, BertConfig};
use super::file_error::{ModelFileError, read_json};
use super::weights_file::WeightsFile;

const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "model.safetensors";
const TOKENIZER_FILE: &str = "tokenizer.json";
/// Most tokens of a text that are read, as sentence-transformers has it for all-MiniLM-L6-v2; no more
/// than the model has positions.
const MAX_TOKENS: usize = 256;

/// A text encoder.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    bert: Bert,
}

impl TextEncoder {
    /// Reads `config.json`, `model.safetensors` and `tokenizer.json` of a directory.
    ///
    /// # Errors
    /// Files that are missing or damaged, or a model that is no BERT of the kind that is supported.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, ModelFileError> {
        let config = Self::config(dir)?;
        let path = dir.join(WEIGHTS_FILE);
        let mut weights = WeightsFile::open(&path)?;
        let tensor = |name: &str, shape: &[usize]| {
            (weights.tensor(name, shape, device)).map_err(BertFault::from)
        };
        let bert = Bert::new(&config, tensor).map_err(|fault| match fault {
            BertFault::File(error) => error,
            BertFault::Tensor(source) => ModelFileError::Tensor { path, source },
        })?;
        let most = config.max_position_embeddings.min(MAX_TOKENS);
        Ok(Self {
            tokenizer: tokenizer(&dir.join(TOKENIZER_FILE), most)?,
            bert,
        })
    }

    /// Reads `config.json` of a directory.
    ///
    /// # Errors
    /// As [`Self::load`], for this file.
    pub fn config(dir: &Path) -> Result<BertConfig, ModelFileError> {
        let path = dir.join(CONFIG_FILE);
        let json: serde_json::Value = read_json(&path)?;
        let unsupported = |what| ModelFileError::Unsupported {
            path: path.clone(),
            what,
            hint: "choose a BERT with exact GELU and absolute positions, such as all-MiniLM-L6-v2",
        };
        if json["model_type"] != "bert" {
            return Err(unsupported(format!("model_type {}", json["model_type"])));
        }
        let config: BertConfig =
            serde_json::from_value(json).map_err(ModelFileError::json(&path))?;
        match config.fault() {
            None => Ok(config),
            Some(fault) => Err(unsupported(fault)),
        }
    }

    /// Size of the vectors.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bert.config().hidden_size
    }

    /// Token ids of a text, with those that stand around every text, cut where it is too long.
    ///
    /// # Errors
    /// Whatever the tokenizer reports.
    pub fn tokens(&self, text: &str) -> candle_core::Result<Vec<u32>> {
        let encoding = (self.tokenizer.encode(text, true))
            .map_err(|e| candle_core::Error::Msg(format!("{text:?}: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// One vector of length 1 a text, `[texts, size]`.
    ///
    /// # Errors
    /// No texts, or what [`Self::tokens`] and [`Bert::encode`] report.
    pub fn encode(&self, texts: &[&str]) -> candle_core::Result<Tensor> {
        let tokens = (texts.iter())
            .map(|text| self.tokens(text))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let tokens: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        self.bert.encode(&tokens)
    }
}

/// Why an encoder could not be put together.
enum BertFault {
    File(ModelFileError),
    Tensor(candle_core::Error),
}

impl From<ModelFileError> for BertFault {
    fn from(error: ModelFileError) -> Self {
        Self::File(error)
    }
}

impl From<candle_core::Error> for BertFault {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(error)
    }
}

/// The tokenizer without padding: texts run packed.
fn tokenizer(path: &Path, most: usize) -> Result<Tokenizer, ModelFileError> {
    let malformed = |e: tokenizers::Error| ModelFileError::malformed(path, "a tokenizer", e);
    let mut tokenizer = Tokenizer::from_file(path).map_err(malformed)?;
    let truncation = TruncationParams {
        max_length: most,
        ..TruncationParams::default()
    };
    (tokenizer.with_padding(None))
        .with_truncation(Some(truncation))
        .map_err(malformed)?;
    Ok(tokenizer)
}
