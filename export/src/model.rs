//! A checkpoint directory in memory: configuration and weights as f32, checked against each other.

use std::path::Path;

use ndarray::{Array1, Array2, ArrayView2, s};
use serde_json::Value;
use slmrec_core::hash;
use slmrec_core::item_table::MAX_DIM;
use slmrec_core::manifest::Readout;

use crate::checkpoint::{
    CONFIG_FILE, FORMAT_VERSION, LlamaConfig, MODEL_FILE, RECOMMENDER_FILE,
    RECOMMENDER_WEIGHTS_FILE, RecommenderConfig, digest_line,
};
use crate::error::{ExportError, content};
use crate::tensors::{Tensors, read_file};

const MAX_JSON_BYTES: u64 = 16 << 20;
const MAX_WEIGHTS_BYTES: u64 = 16 << 30;
/// No hidden, MLP or projection width above this is believed.
const MAX_WIDTH: usize = 1 << 16;
const MAX_LAYERS: usize = 512;
/// Prefix, history and suffix together; the causal mask is a constant of this size squared.
const MAX_POSITIONS: usize = 4096;

/// One decoder layer; matrices are `[out, in]`, as in the checkpoint.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Gain of the norm before attention, `[H]`.
    pub input_layernorm: Array1<f32>,
    /// `[heads * head_dim, H]`.
    pub q_proj: Array2<f32>,
    /// `[kv_heads * head_dim, H]`.
    pub k_proj: Array2<f32>,
    /// `[kv_heads * head_dim, H]`.
    pub v_proj: Array2<f32>,
    /// `[H, heads * head_dim]`.
    pub o_proj: Array2<f32>,
    /// Gain of the norm before the MLP, `[H]`.
    pub post_attention_layernorm: Array1<f32>,
    /// `[intermediate_size, H]`.
    pub gate_proj: Array2<f32>,
    /// `[intermediate_size, H]`.
    pub up_proj: Array2<f32>,
    /// `[H, intermediate_size]`.
    pub down_proj: Array2<f32>,
}

/// A trained recommender.
#[derive(Clone, Debug)]
pub struct Model {
    /// Configuration of the body.
    pub config: LlamaConfig,
    /// Configuration of the recommender.
    pub recommender: RecommenderConfig,
    /// SHA-256 over names and hashes of the checkpoint's files.
    pub sha256: String,
    /// Embeddings of the prompt's tokens, prefix first, `[P + R, H]`.
    pub prompt_embeddings: Array2<f32>,
    /// The decoder layers.
    pub layers: Vec<Layer>,
    /// Gain of the final norm, `[H]`.
    pub norm: Array1<f32>,
    /// Item embeddings without the padding row, `[N, D]`.
    pub item_embeddings: Array2<f32>,
    /// `[H, D]`.
    pub item_projection: Array2<f32>,
    /// `[H]`.
    pub item_projection_bias: Array1<f32>,
    /// `[D, H]`.
    pub user_projection: Array2<f32>,
}

impl Model {
    /// Reads a checkpoint directory; nothing in it is trusted.
    ///
    /// # Errors
    /// Missing files or tensors, wrong shapes or types, values that are not finite, tensors that
    /// the configuration does not know, and configurations that contradict themselves.
    pub fn read(dir: &Path) -> Result<Self, ExportError> {
        let mut digests = String::new();
        let mut read = |name: &str, limit| {
            let bytes = read_file(&dir.join(name), limit)?;
            digests.push_str(&digest_line(&hash::sha256_hex(&bytes), name));
            Ok::<_, ExportError>(bytes)
        };
        let config = parse_config(&dir.join(CONFIG_FILE), &read(CONFIG_FILE, MAX_JSON_BYTES)?)?;
        let bytes = read(RECOMMENDER_FILE, MAX_JSON_BYTES)?;
        let recommender = parse_recommender(&dir.join(RECOMMENDER_FILE), &bytes)?;
        check_prompt(dir, &config, &recommender)?;

        let bytes = read(MODEL_FILE, MAX_WEIGHTS_BYTES)?;
        let mut body = Tensors::parse(&dir.join(MODEL_FILE), &bytes)?;
        let h = config.hidden_size;
        let tokens = body.matrix("model.embed_tokens.weight", config.vocab_size, h)?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| read_layer(&mut body, index, &config))
            .collect::<Result<_, _>>()?;
        let norm = body.vector("model.norm.weight", h)?;
        body.finish()?;

        let path = dir.join(RECOMMENDER_WEIGHTS_FILE);
        let bytes = read(RECOMMENDER_WEIGHTS_FILE, MAX_WEIGHTS_BYTES)?;
        let mut own = Tensors::parse(&path, &bytes)?;
        let (items, d) = (recommender.items, recommender.item_dim);
        let table = own.matrix("item_embeddings.weight", items + 1, d)?;
        if table.row(0).iter().any(|v| *v != 0.0) {
            let expected = "item_embeddings.weight: zeros in row 0, the padding";
            return Err(content(&path, expected, "other values"));
        }
        let item_projection = own.matrix("item_projection.weight", h, d)?;
        let item_projection_bias = own.vector("item_projection.bias", h)?;
        let user_projection = own.matrix("user_projection.weight", d, h)?;
        own.finish()?;

        let prompt =
            recommender.prompt.prefix_tokens.len() + recommender.prompt.suffix_tokens.len();
        Ok(Self {
            sha256: hash::sha256_hex(digests.as_bytes()),
            prompt_embeddings: tokens.slice_move(s![..prompt, ..]),
            layers,
            norm,
            item_embeddings: table.slice_move(s![1.., ..]),
            item_projection,
            item_projection_bias,
            user_projection,
            config,
            recommender,
        })
    }

    /// Tokens before the history, P.
    #[must_use]
    pub fn prefix_len(&self) -> usize {
        self.recommender.prompt.prefix_tokens.len()
    }

    /// Tokens after the history, R.
    #[must_use]
    pub fn suffix_len(&self) -> usize {
        self.recommender.prompt.suffix_tokens.len()
    }

    /// Embeddings of the prefix, `[P, H]`.
    #[must_use]
    pub fn prefix_embeddings(&self) -> ArrayView2<'_, f32> {
        self.prompt_embeddings.slice(s![..self.prefix_len(), ..])
    }

    /// Embeddings of the suffix, `[R, H]`.
    #[must_use]
    pub fn suffix_embeddings(&self) -> ArrayView2<'_, f32> {
        self.prompt_embeddings.slice(s![self.prefix_len().., ..])
    }

    /// Number of weights, without item and prompt embeddings.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let layers: usize = self.layers.iter().map(Layer::parameters).sum();
        layers
            + self.norm.len()
            + self.item_projection.len()
            + self.item_projection_bias.len()
            + self.user_projection.len()
    }
}

impl Layer {
    fn parameters(&self) -> usize {
        let matrices = [
            &self.q_proj,
            &self.k_proj,
            &self.v_proj,
            &self.o_proj,
            &self.gate_proj,
            &self.up_proj,
            &self.down_proj,
        ];
        let gains = self.input_layernorm.len() + self.post_attention_layernorm.len();
        gains + matrices.iter().map(|m| m.len()).sum::<usize>()
    }
}

fn read_layer(
    body: &mut Tensors<'_>,
    index: usize,
    config: &LlamaConfig,
) -> Result<Layer, ExportError> {
    let name = |part: &str| format!("model.layers.{index}.{part}.weight");
    let (h, mlp) = (config.hidden_size, config.intermediate_size);
    let q = config.num_attention_heads * config.head_size();
    let kv = config.kv_heads() * config.head_size();
    Ok(Layer {
        input_layernorm: body.vector(&name("input_layernorm"), h)?,
        q_proj: body.matrix(&name("self_attn.q_proj"), q, h)?,
        k_proj: body.matrix(&name("self_attn.k_proj"), kv, h)?,
        v_proj: body.matrix(&name("self_attn.v_proj"), kv, h)?,
        o_proj: body.matrix(&name("self_attn.o_proj"), h, q)?,
        post_attention_layernorm: body.vector(&name("post_attention_layernorm"), h)?,
        gate_proj: body.matrix(&name("mlp.gate_proj"), mlp, h)?,
        up_proj: body.matrix(&name("mlp.up_proj"), mlp, h)?,
        down_proj: body.matrix(&name("mlp.down_proj"), h, mlp)?,
    })
}

fn parse_config(path: &Path, bytes: &[u8]) -> Result<LlamaConfig, ExportError> {
    let wrong = |e: serde_json::Error| content(path, "a Llama configuration", e);
    let raw: Value = serde_json::from_slice(bytes).map_err(wrong)?;
    let config: LlamaConfig = serde_json::from_value(raw.clone()).map_err(wrong)?;
    check_config(path, &config)?;
    check_unsupported(path, &raw)?;
    Ok(config)
}

/// Fields of other Llama variants that would change the mathematics are refused, not ignored.
fn check_unsupported(path: &Path, raw: &Value) -> Result<(), ExportError> {
    for (field, plain) in [
        ("rope_scaling", Value::Null),
        ("attention_bias", Value::Bool(false)),
        ("mlp_bias", Value::Bool(false)),
    ] {
        match raw.get(field) {
            Some(value) if !value.is_null() && *value != plain => {
                return Err(content(path, format!("{field}: {plain}"), value));
            }
            _ => {}
        }
    }
    let Some(rope) = raw.get("rope_parameters").filter(|r| !r.is_null()) else {
        return Ok(());
    };
    let default = rope.get("rope_type").is_none_or(|t| t == "default");
    if default && rope.get("rope_theta") == raw.get("rope_theta") {
        return Ok(());
    }
    let expected = "rope_parameters of type default that agree with rope_theta";
    Err(content(path, expected, rope))
}

fn check_config(path: &Path, config: &LlamaConfig) -> Result<(), ExportError> {
    let (heads, kv) = (config.num_attention_heads, config.kv_heads());
    let size = |name: &str, value: usize, limit: usize| match value {
        1.. if value <= limit => Ok(()),
        _ => Err(content(path, format!("{name}: 1..={limit}"), value)),
    };
    size("hidden_size", config.hidden_size, MAX_WIDTH)?;
    size("intermediate_size", config.intermediate_size, MAX_WIDTH)?;
    size("num_hidden_layers", config.num_hidden_layers, MAX_LAYERS)?;
    size("num_attention_heads", heads, config.hidden_size)?;
    size("num_key_value_heads", kv, heads)?;
    size("vocab_size", config.vocab_size, MAX_POSITIONS)?;
    size("head_dim", config.head_size(), MAX_WIDTH / heads)?;
    let require = |right: bool, expected: &str, found: String| match right {
        true => Ok(()),
        false => Err(content(path, expected, found)),
    };
    let found = format!("{heads} and {kv}");
    let expected = "num_attention_heads: a multiple of num_key_value_heads";
    require(heads.is_multiple_of(kv), expected, found)?;
    let divides = config.head_dim.is_some() || config.hidden_size.is_multiple_of(heads);
    let found = format!("{} and {heads}", config.hidden_size);
    let expected = "hidden_size: a multiple of num_attention_heads";
    require(divides, expected, found)?;
    let even = config.head_size().is_multiple_of(2);
    require(
        even,
        "head_dim: an even number",
        config.head_size().to_string(),
    )?;
    let kind = format!("{} with {}", config.model_type, config.hidden_act);
    require(kind == "llama with silu", "llama with silu", kind.clone())?;
    let eps = config.rms_norm_eps;
    let small = eps > 0.0 && eps < 1.0;
    require(small, "rms_norm_eps: between 0 and 1", eps.to_string())?;
    let theta = config.rope_theta;
    let base = theta >= 1.0 && theta.is_finite();
    require(
        base,
        "rope_theta: a number of at least 1",
        theta.to_string(),
    )
}

fn parse_recommender(path: &Path, bytes: &[u8]) -> Result<RecommenderConfig, ExportError> {
    let config: RecommenderConfig = serde_json::from_slice(bytes)
        .map_err(|e| content(path, "a recommender configuration", e))?;
    let in_range = |name: &str, value: usize, limit: usize| match value {
        1.. if value <= limit => Ok(()),
        _ => Err(content(path, format!("{name}: 1..={limit}"), value)),
    };
    if config.format_version != FORMAT_VERSION {
        let expected = format!("format_version: {FORMAT_VERSION}");
        return Err(content(path, expected, config.format_version));
    }
    in_range("max_history", config.max_history, MAX_POSITIONS)?;
    in_range(
        "items",
        config.items,
        slmrec_core::ItemVocabulary::MAX_ITEMS,
    )?;
    in_range("item_dim", config.item_dim, MAX_DIM)?;
    Ok(config)
}

fn check_prompt(
    dir: &Path,
    config: &LlamaConfig,
    recommender: &RecommenderConfig,
) -> Result<(), ExportError> {
    let path = dir.join(RECOMMENDER_FILE);
    let prompt = &recommender.prompt;
    let (prefix, suffix) = (prompt.prefix_tokens.len(), prompt.suffix_tokens.len());
    let positions = prefix
        .saturating_add(suffix)
        .saturating_add(recommender.max_history);
    if positions > MAX_POSITIONS {
        let expected = format!("prompt and max_history of at most {MAX_POSITIONS} positions");
        return Err(content(&path, expected, positions));
    }
    match recommender.readout {
        Readout::Item if suffix > 0 => {
            let expected = "no suffix_tokens, since the item readout is at the newest item";
            return Err(content(&path, expected, suffix));
        }
        Readout::Response if suffix == 0 => {
            let expected = "suffix_tokens, since the response readout is at the last of them";
            return Err(content(&path, expected, "none"));
        }
        _ => {}
    }
    let rows = (prefix + suffix).max(1);
    if config.vocab_size != rows {
        let expected = format!("vocab_size: {rows}, one row per prompt token");
        return Err(content(&dir.join(CONFIG_FILE), expected, config.vocab_size));
    }
    Ok(())
}
