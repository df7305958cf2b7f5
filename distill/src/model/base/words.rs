//! Vectors of texts from the pretrained model's token embeddings alone.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use tokenizers::Tokenizer;

use super::{gguf, huggingface};
use crate::model::file_error::ModelFileError;

/// Tokens of a text that count, as many as the text encoder reads of one: a title from a hostile file
/// may have any length.
const MAX_TOKENS: usize = 256;

/// The mean of the embeddings of the first 256 tokens of each text, `[texts, H]`; zeros for an empty
/// one.
///
/// # Errors
/// As [`super::PretrainedBase::load`]; no tokenizer beside the weights.
pub fn token_means(path: &Path, texts: &[&str], device: &Device) -> Result<Tensor, ModelFileError> {
    let tokenizer = match path.is_dir() {
        true => huggingface::tokenizer(path)?,
        false => gguf::tokenizer(path)?,
    };
    let texts = texts.iter().map(|text| tokens(&tokenizer, text, path));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    // Each row of the table is read once.
    let mut place = BTreeMap::new();
    for token in texts.iter().flatten() {
        place.entry(*token).or_insert(0);
    }
    let read: Vec<u32> = place.keys().copied().collect();
    (place.values_mut().enumerate()).for_each(|(at, place)| *place = at as u32);
    let rows = match path.is_dir() {
        true => huggingface::embeddings(path, &read, device)?,
        false => gguf::embeddings(path, &read, device)?,
    };
    let mean = |tokens: &Vec<u32>| match tokens.as_slice() {
        [] => Tensor::zeros(rows.dim(1)?, rows.dtype(), device),
        tokens => {
            let places: Vec<u32> = tokens.iter().map(|token| place[token]).collect();
            let places = Tensor::new(places, device)?;
            rows.index_select(&places, 0)?.mean(0)
        }
    };
    let means: candle_core::Result<Vec<Tensor>> = texts.iter().map(mean).collect();
    means
        .and_then(|means| Tensor::stack(&means, 0))
        .map_err(ModelFileError::tensor(path))
}

/// Token ids of a text, without special tokens.
fn tokens(tokenizer: &Tokenizer, text: &str, path: &Path) -> Result<Vec<u32>, ModelFileError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let encoding = tokenizer.encode(text, false);
    encoding
        .map(|encoding| {
            encoding
                .get_ids()
                .iter()
                .take(MAX_TOKENS)
                .copied()
                .collect()
        })
        .map_err(|e| ModelFileError::Tokenizer {
            path: path.to_owned(),
            reason: e.to_string(),
        })
}
