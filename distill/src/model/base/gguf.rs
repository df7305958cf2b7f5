//! GGUF files: quantized weights, configuration and tokenizer in one file.
//!
//! candle's reader checks its counts and lengths against the file; what it leaves open is checked
//! here before it runs: an alignment of zero (it would divide by it), and for every tensor its
//! shape, size and place before anything of that size is allocated.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};
use candle_core::quantized::tokenizer::TokenizerFromGguf;
use candle_core::{Device, Shape, Tensor};
use slmrec_core::hash::sha256_file;
use slmrec_export::checkpoint::{LlamaConfig, Prompt};
use tokenizers::Tokenizer;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

use super::huggingface::check_numbers;
use super::{BaseHeader, LayerSelection, PretrainedBase, PromptText, encode_prompt, prompt_rows};
use crate::model::file_error::ModelFileError;
use crate::model::llama::{Tensors, layer_shapes};
use crate::model::weights_file::check_finite;

const EMBEDDINGS: &str = "token_embd.weight";

pub(super) fn load(
    path: &Path,
    selection: &LayerSelection,
    text: &PromptText,
    device: &Device,
) -> Result<PretrainedBase, ModelFileError> {
    let mut gguf = Gguf::open(path)?;
    let mut config = gguf.config()?;
    let layers = selection.resolve(config.num_hidden_layers, path)?;
    config.num_hidden_layers = layers.len();
    let mut tensors = Tensors::new();
    for (kept, layer) in layers.iter().enumerate() {
        for (name, shape) in layer_shapes(&config) {
            let tensor = gguf.tensor(&format!("blk.{layer}.{}.weight", gguf_name(name)), &shape)?;
            let tensor = match name {
                "self_attn.q_proj" => unpermute(&tensor, config.num_attention_heads),
                "self_attn.k_proj" => unpermute(&tensor, config.kv_heads()),
                _ => Ok(tensor),
            };
            let tensor =
                (tensor.and_then(|t| t.to_device(device))).map_err(ModelFileError::tensor(path))?;
            tensors.insert(format!("model.layers.{kept}.{name}.weight"), tensor);
        }
    }
    let norm = gguf.tensor("output_norm.weight", &[config.hidden_size])?;
    tensors.insert(
        "model.norm.weight".to_owned(),
        norm.to_device(device)
            .map_err(ModelFileError::tensor(path))?,
    );
    let prompt = gguf.prompt(text)?;
    let prompt_embeddings = match prompt_rows(&prompt).as_slice() {
        [] => None,
        rows => Some(gguf.embeddings(rows, &config, device)?),
    };
    Ok(PretrainedBase {
        name: gguf.name(),
        sha256: sha256_file(path).map_err(ModelFileError::io(path))?,
        config,
        layers,
        tensors,
        prompt,
        prompt_embeddings,
    })
}

pub(super) fn header(path: &Path, text: &PromptText) -> Result<BaseHeader, ModelFileError> {
    let gguf = Gguf::open(path)?;
    Ok(BaseHeader {
        config: gguf.config()?,
        prompt: gguf.prompt(text)?,
    })
}

/// The tokenizer of the file.
pub(super) fn tokenizer(path: &Path) -> Result<Tokenizer, ModelFileError> {
    Gguf::open(path)?.tokenizer()
}

/// Embeddings of some tokens, `[rows, H]`.
pub(super) fn embeddings(
    path: &Path,
    rows: &[u32],
    device: &Device,
) -> Result<Tensor, ModelFileError> {
    let mut gguf = Gguf::open(path)?;
    let config = gguf.config()?;
    gguf.embeddings(rows, &config, device)
}

/// llama.cpp's name for a part of a decoder layer.
fn gguf_name(name: &str) -> &str {
    match name {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        other => other,
    }
}

/// llama.cpp stores the rows of each query and key head interleaved, pair by pair, for its own
/// rotary form; Hugging Face's rotates the first half of a head against the second.
fn unpermute(weight: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let (rows, features) = weight.dims2()?;
    weight
        .reshape((heads, rows / heads / 2, 2, features))?
        .transpose(1, 2)?
        .reshape((rows, features))
}

struct Gguf<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    size: u64,
    content: Content,
}

impl<'a> Gguf<'a> {
    fn open(path: &'a Path) -> Result<Self, ModelFileError> {
        let file = File::open(path).map_err(ModelFileError::io(path))?;
        let size = file.metadata().map_err(ModelFileError::io(path))?.len();
        let mut reader = BufReader::new(file);
        refuse_zero_alignment(path, &mut reader)?;
        let content = Content::read(&mut reader)
            .map_err(|e| ModelFileError::malformed(path, "a whole GGUF file", e))?;
        Ok(Self {
            path,
            reader,
            size,
            content,
        })
    }

    fn value(&self, key: &str) -> Result<&Value, ModelFileError> {
        (self.content.metadata.get(key)).ok_or_else(|| {
            ModelFileError::malformed(self.path, format!("the metadata key {key}"), "none")
        })
    }

    fn integer(&self, key: &str) -> Result<usize, ModelFileError> {
        let value = self.value(key)?;
        let number = match value {
            Value::I32(v) => u64::try_from(*v).ok(),
            Value::I64(v) => u64::try_from(*v).ok(),
            other => other.to_u64().ok(),
        };
        number.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| {
            ModelFileError::malformed(
                self.path,
                format!("a whole number as {key}"),
                format!("{value:?}"),
            )
        })
    }

    fn float(&self, key: &str) -> Result<f64, ModelFileError> {
        match self.value(key)? {
            Value::F32(v) => Ok(f64::from(*v)),
            Value::F64(v) => Ok(*v),
            other => Err(ModelFileError::malformed(
                self.path,
                format!("a number as {key}"),
                format!("{other:?}"),
            )),
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.content.metadata.get(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn name(&self) -> String {
        match self.text("general.name") {
            Some(name) => name.to_owned(),
            None => self
                .path
                .file_stem()
                .map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
        }
    }

    fn unsupported(&self, what: String, hint: &'static str) -> ModelFileError {
        ModelFileError::Unsupported {
            path: self.path.to_owned(),
            what,
            hint,
        }
    }

    fn config(&self) -> Result<LlamaConfig, ModelFileError> {
        let architecture = self.text("general.architecture").unwrap_or("none");
        if architecture != "llama" {
            return Err(self.unsupported(
                format!("architecture {architecture}"),
                "choose a model of the Llama family",
            ));
        }
        let scaling = self.text("llama.rope.scaling.type").unwrap_or("none");
        if scaling != "none" || self.content.tensor_infos.contains_key("rope_freqs.weight") {
            return Err(self.unsupported(
                format!("rotary scaling {scaling}"),
                "choose a model without it",
            ));
        }
        let heads = self.integer("llama.attention.head_count")?;
        let optional = |key: &str, default: usize| match self.content.metadata.contains_key(key) {
            true => self.integer(key),
            false => Ok(default),
        };
        let hidden_size = self.integer("llama.embedding_length")?;
        let head_dim = optional("llama.attention.key_length", hidden_size / heads.max(1))?;
        let config = LlamaConfig {
            architectures: vec!["LlamaForCausalLM".to_owned()],
            model_type: "llama".to_owned(),
            hidden_size,
            intermediate_size: self.integer("llama.feed_forward_length")?,
            num_hidden_layers: self.integer("llama.block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: Some(optional("llama.attention.head_count_kv", heads)?),
            head_dim: Some(head_dim),
            rms_norm_eps: self.float("llama.attention.layer_norm_rms_epsilon")?,
            rope_theta: match self.content.metadata.contains_key("llama.rope.freq_base") {
                true => self.float("llama.rope.freq_base")?,
                false => 10_000.0,
            },
            vocab_size: self
                .embedding_info()?
                .shape
                .dims()
                .first()
                .copied()
                .unwrap_or(0),
            max_position_embeddings: optional("llama.context_length", 2048)?,
            tie_word_embeddings: true,
            hidden_act: "silu".to_owned(),
        };
        check_numbers(&config, self.path)?;
        let rotated = optional("llama.rope.dimension_count", head_dim)?;
        if rotated != head_dim || head_dim % 2 != 0 {
            let what = format!("rotating {rotated} of {head_dim} values of a head");
            return Err(self.unsupported(what, "choose a model that rotates whole heads"));
        }
        Ok(config)
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, ModelFileError> {
        self.content
            .tensor_infos
            .get(name)
            .ok_or_else(|| ModelFileError::MissingTensor {
                path: self.path.to_owned(),
                tensor: name.to_owned(),
                hint: "the names must be those of llama.cpp's Llama",
            })
    }

    fn embedding_info(&self) -> Result<&TensorInfo, ModelFileError> {
        self.info(EMBEDDINGS)
    }

    /// Reads and dequantizes a tensor of the given shape.
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelFileError> {
        let info = self.info(name)?;
        if info.shape.dims() != shape {
            return Err(ModelFileError::Shape {
                path: self.path.to_owned(),
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: info.shape.dims().to_vec(),
            });
        }
        let info = TensorInfo {
            ggml_dtype: info.ggml_dtype,
            shape: info.shape.clone(),
            offset: info.offset,
        };
        self.dequantize(name, &info)
    }

    /// `info`'s shape is one that the configuration gave, so its size cannot overflow.
    fn dequantize(&mut self, name: &str, info: &TensorInfo) -> Result<Tensor, ModelFileError> {
        let place = self.content.tensor_data_offset.checked_add(info.offset);
        if place.is_none_or(|place| place > self.size) {
            return Err(ModelFileError::malformed(
                self.path,
                format!("{name} within the file"),
                format!("offset {}", info.offset),
            ));
        }
        let tensor = info
            .read(
                &mut self.reader,
                self.content.tensor_data_offset,
                &Device::Cpu,
            )
            .and_then(|quantized| quantized.dequantize(&Device::Cpu))
            .map_err(|e| ModelFileError::malformed(self.path, format!("the tensor {name}"), e))?;
        check_finite(self.path, name, &tensor)?;
        Ok(tensor)
    }

    /// Embeddings of some tokens, `[rows, H]`; each row is read by itself.
    fn embeddings(
        &mut self,
        rows: &[u32],
        config: &LlamaConfig,
        device: &Device,
    ) -> Result<Tensor, ModelFileError> {
        let width = config.hidden_size;
        let info = self.embedding_info()?;
        let (dtype, offset, dims) = (info.ggml_dtype, info.offset, info.shape.dims().to_vec());
        let highest = rows.iter().copied().max().map_or(0, |row| row as usize + 1);
        if dims.len() != 2
            || dims[1] != width
            || dims[0] < highest
            || !width.is_multiple_of(dtype.block_size())
        {
            return Err(ModelFileError::Shape {
                path: self.path.to_owned(),
                tensor: EMBEDDINGS.to_owned(),
                expected: vec![highest, width],
                found: dims,
            });
        }
        let row_bytes = (width / dtype.block_size() * dtype.type_size()) as u64;
        let mut read = BTreeMap::new();
        for &row in rows {
            let offset = offset.saturating_add(u64::from(row) * row_bytes);
            let info = TensorInfo {
                ggml_dtype: dtype,
                shape: Shape::from((1, width)),
                offset,
            };
            read.insert(row, self.dequantize(EMBEDDINGS, &info)?);
        }
        let parts: Vec<&Tensor> = rows.iter().map(|row| &read[row]).collect();
        (Tensor::cat(&parts, 0).and_then(|t| t.to_device(device)))
            .map_err(ModelFileError::tensor(self.path))
    }

    fn prompt(&self, text: &PromptText) -> Result<Prompt, ModelFileError> {
        if *text == PromptText::default() {
            return Ok(Prompt::default());
        }
        encode_prompt(&self.tokenizer()?, text, self.path)
    }

    /// candle makes the model and the special tokens; its fallback for the text before that puts a
    /// space in front of it and knows no digits, which is not what these models were trained on.
    fn tokenizer(&self) -> Result<Tokenizer, ModelFileError> {
        let kind = self.text("tokenizer.ggml.pre").unwrap_or("none");
        let bytes = ByteLevel::new(false, true, true);
        let before: PreTokenizerWrapper = match kind {
            "smollm" => Sequence::new(vec![Digits::new(true).into(), bytes.into()]).into(),
            "gpt-2" | "gpt2" => bytes.into(),
            other => {
                return Err(self.unsupported(
                    format!("pre-tokenizer {other}"),
                    "give the Hugging Face directory of the model, or an empty prompt",
                ));
            }
        };
        let mut tokenizer =
            Tokenizer::from_gguf(&self.content).map_err(|e| ModelFileError::Prompt {
                path: self.path.to_owned(),
                reason: e.to_string(),
            })?;
        tokenizer.with_pre_tokenizer(Some(before));
        Ok(tokenizer)
    }
}

/// Looks for the key `general.alignment` with a value of zero, anywhere in the file.
fn refuse_zero_alignment(
    path: &Path,
    reader: &mut (impl Read + Seek),
) -> Result<(), ModelFileError> {
    const KEY: &[u8] = b"general.alignment";
    // The key, four bytes of type, and the value's first four bytes.
    const LENGTH: usize = KEY.len() + 8;
    const BLOCK: usize = 1 << 20;
    let mut window = Vec::with_capacity(BLOCK + LENGTH);
    loop {
        let read = reader
            .by_ref()
            .take(BLOCK as u64)
            .read_to_end(&mut window)
            .map_err(ModelFileError::io(path))?;
        for found in window
            .windows(LENGTH)
            .filter(|w| w[0] == KEY[0] && w.starts_with(KEY))
        {
            let width = match found[KEY.len()] {
                0 | 1 => 1,
                2 | 3 => 2,
                _ => 4,
            };
            if found[KEY.len() + 4..][..width]
                .iter()
                .all(|byte| *byte == 0)
            {
                return Err(ModelFileError::malformed(
                    path,
                    "a positive general.alignment",
                    0,
                ));
            }
        }
        if read == 0 {
            return reader.rewind().map_err(ModelFileError::io(path));
        }
        let keep = window.len().saturating_sub(LENGTH - 1);
        window.drain(..keep);
    }
}
