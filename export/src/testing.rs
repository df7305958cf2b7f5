//! Tiny checkpoints and datasets for tests, here and in the crates that read bundles.
//!
//! Weights are random, from a seed. Everything panics on failure, as tests do.

use std::fs;
use std::path::Path;

use prost::Message as _;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use slmrec_core::manifest::Readout;
use slmrec_core::{Dataset, Item, ItemIndex, ItemVocabulary, hash};

use crate::checkpoint::{
    Base, CONFIG_FILE, FORMAT_VERSION, LlamaConfig, MODEL_FILE, Prompt, RECOMMENDER_FILE,
    RECOMMENDER_WEIGHTS_FILE, RecommenderConfig,
};
use crate::onnx::tensor_proto::DataType;
use crate::onnx::tensor_shape_proto::dimension;
use crate::onnx::{ModelProto, TypeProto, ValueInfoProto, type_proto};

/// Sizes of a random checkpoint.
#[derive(Clone, Debug)]
pub struct TinyCheckpoint {
    /// Where the user vector is read.
    pub readout: Readout,
    /// Tokens before the history, P.
    pub prefix_tokens: usize,
    /// Tokens after the history, R; 0 for the `item` readout.
    pub suffix_tokens: usize,
    /// Longest history.
    pub max_history: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Hidden size H.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads.
    pub num_key_value_heads: usize,
    /// Item embedding size D.
    pub item_dim: usize,
    /// Seed of the weights.
    pub seed: u64,
}

impl TinyCheckpoint {
    /// A model without a prompt that reads at the newest item.
    #[must_use]
    pub fn item() -> Self {
        Self {
            readout: Readout::Item,
            prefix_tokens: 0,
            suffix_tokens: 0,
            max_history: 6,
            num_hidden_layers: 2,
            hidden_size: 48,
            intermediate_size: 96,
            num_attention_heads: 6,
            num_key_value_heads: 2,
            item_dim: 16,
            seed: 7,
        }
    }

    /// A model with tokens before and after the history that reads at the last of them.
    #[must_use]
    pub fn response() -> Self {
        Self {
            readout: Readout::Response,
            prefix_tokens: 5,
            suffix_tokens: 3,
            ..Self::item()
        }
    }

    /// Widths of SmolLM2-135M, four layers, fifty items.
    #[must_use]
    pub fn smollm2_widths(self) -> Self {
        Self {
            max_history: 50,
            num_hidden_layers: 4,
            hidden_size: 576,
            intermediate_size: 1536,
            num_attention_heads: 9,
            num_key_value_heads: 3,
            item_dim: 128,
            ..self
        }
    }

    /// Writes the checkpoint for a dataset directory, whose vocabulary it takes over.
    ///
    /// # Panics
    /// When reading or writing fails.
    pub fn write(&self, dir: &Path, dataset: &Path) {
        fs::create_dir_all(dir).expect("checkpoint folder");
        let data = Dataset::read(dataset).expect("dataset");
        let vocabulary = dataset.join(slmrec_core::dataset::VOCABULARY_FILE);
        let recommender = RecommenderConfig {
            format_version: FORMAT_VERSION,
            role: "student".into(),
            readout: self.readout,
            max_history: self.max_history,
            items: data.num_items(),
            item_dim: self.item_dim,
            prompt: Prompt {
                prefix: "x".repeat(self.prefix_tokens),
                suffix: "y".repeat(self.suffix_tokens),
                prefix_tokens: (0..self.prefix_tokens as u32).collect(),
                suffix_tokens: (0..self.suffix_tokens as u32).collect(),
            },
            base: Base {
                name: "random".into(),
                sha256: String::new(),
                layers: (0..self.num_hidden_layers).collect(),
            },
            vocabulary_sha256: hash::sha256_file(&vocabulary).expect("vocabulary"),
            provenance: json!({"seed": self.seed, "metrics": {"ndcg@10": 0.125}}),
        };
        let write_json = |name: &str, value: serde_json::Value| {
            fs::write(dir.join(name), value.to_string()).expect("configuration");
        };
        write_json(CONFIG_FILE, json!(self.config()));
        write_json(RECOMMENDER_FILE, json!(recommender));
        write_tensors(&dir.join(MODEL_FILE), self.seed, &self.body());
        let (d, h) = (self.item_dim, self.hidden_size);
        let own = [
            (
                "item_embeddings.weight".into(),
                vec![data.num_items() + 1, d],
            ),
            ("item_projection.weight".into(), vec![h, d]),
            ("item_projection.bias".into(), vec![h]),
            ("user_projection.weight".into(), vec![d, h]),
        ];
        write_tensors(&dir.join(RECOMMENDER_WEIGHTS_FILE), self.seed + 1, &own);
    }

    fn config(&self) -> LlamaConfig {
        LlamaConfig {
            architectures: vec!["LlamaForCausalLM".into()],
            model_type: "llama".into(),
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: Some(self.num_key_value_heads),
            head_dim: None,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            vocab_size: (self.prefix_tokens + self.suffix_tokens).max(1),
            max_position_embeddings: 2048,
            tie_word_embeddings: true,
            hidden_act: "silu".into(),
        }
    }

    fn body(&self) -> Vec<(String, Vec<usize>)> {
        let (h, mlp) = (self.hidden_size, self.intermediate_size);
        let kv = h / self.num_attention_heads * self.num_key_value_heads;
        let mut tensors = vec![
            (
                "model.embed_tokens.weight".to_owned(),
                vec![self.config().vocab_size, h],
            ),
            ("model.norm.weight".to_owned(), vec![h]),
        ];
        for layer in 0..self.num_hidden_layers {
            for (part, shape) in [
                ("input_layernorm", vec![h]),
                ("self_attn.q_proj", vec![h, h]),
                ("self_attn.k_proj", vec![kv, h]),
                ("self_attn.v_proj", vec![kv, h]),
                ("self_attn.o_proj", vec![h, h]),
                ("post_attention_layernorm", vec![h]),
                ("mlp.gate_proj", vec![mlp, h]),
                ("mlp.up_proj", vec![mlp, h]),
                ("mlp.down_proj", vec![h, mlp]),
            ] {
                tensors.push((format!("model.layers.{layer}.{part}.weight"), shape));
            }
        }
        tensors
    }
}

/// Thirty items and twelve users with three to fourteen interactions. Items in rows that two or
/// three divides have the category `even` or `third`.
#[must_use]
pub fn tiny_dataset() -> Dataset {
    const ITEMS: u32 = 30;
    let categories = |row: u32| {
        let named = [(2, "even"), (3, "third")].into_iter();
        let named = named.filter(move |(divisor, _)| row.is_multiple_of(*divisor));
        named.map(|(_, name)| name.to_owned()).collect()
    };
    let items = (1..=ITEMS).map(|row| Item {
        id: format!("item-{row}"),
        title: Some(format!("The item in row {row}")),
        categories: categories(row),
    });
    let mut sequences = Vec::new();
    let mut offsets = vec![0];
    for user in 0..12u32 {
        sequences.extend((0..3 + user).map(|i| ItemIndex(1 + (user * 11 + i * 7) % ITEMS)));
        offsets.push(sequences.len());
    }
    Dataset {
        name: "tiny".into(),
        vocabulary: ItemVocabulary::new(items.collect()).expect("distinct ids"),
        users: (0..12).map(|user| format!("user-{user}")).collect(),
        times: Some((0..sequences.len() as i64).collect()),
        items: sequences,
        offsets,
        provenance: json!({"source": "generated"}),
    }
}

/// Writes named tensors of the given shapes: gains near 1, a zero first row for item embeddings,
/// small values for the rest, scaled so that activations keep their size.
fn write_tensors(path: &Path, seed: u64, tensors: &[(String, Vec<usize>)]) {
    let mut random = SplitMix(seed);
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(name, shape)| {
            let columns = shape[shape.len() - 1];
            let scale = 1.7 / (columns as f32).sqrt();
            let count: usize = shape.iter().product();
            let value = |at: usize, random: &mut SplitMix| match name.as_str() {
                n if n.contains("norm") => 1.0 + 0.3 * random.signed(),
                n if n.starts_with("item_embeddings") && at < columns => 0.0,
                _ => scale * random.signed(),
            };
            (0..count)
                .flat_map(|at| value(at, &mut random).to_le_bytes())
                .collect()
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("sizes agree");
        (name.clone(), view)
    });
    let file = safetensors::serialize(views, None).expect("serializes");
    fs::write(path, file).expect("weights");
}

/// A small generator whose numbers never change.
struct SplitMix(u64);

impl SplitMix {
    /// Uniform in `-1..1`.
    fn signed(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 40) as f32) / (1u32 << 23) as f32 - 1.0
    }
}

/// A graph with the values whose shape it states as further outputs, for tests that they are true;
/// and those values: names, and for each axis its size or the name of it.
#[must_use]
pub fn with_stated_shapes_as_outputs(onnx: &[u8]) -> (Vec<u8>, Vec<(String, Vec<String>)>) {
    let mut model = ModelProto::decode(onnx).expect("an ONNX file");
    let graph = model.graph.as_mut().expect("a graph");
    let stated: Vec<ValueInfoProto> = std::mem::take(&mut graph.value_info);
    let axes = |value: &ValueInfoProto| -> Vec<String> {
        let Some(type_proto::Value::TensorType(tensor)) =
            value.r#type.as_ref().and_then(|t| t.value.as_ref())
        else {
            panic!("{} is no tensor", value.name());
        };
        let dims = tensor.shape.iter().flat_map(|shape| &shape.dim);
        dims.map(|dim| match &dim.value {
            Some(dimension::Value::DimValue(size)) => size.to_string(),
            Some(dimension::Value::DimParam(name)) => name.clone(),
            None => panic!("{} has an axis without a size", value.name()),
        })
        .collect()
    };
    let shapes = stated.iter().map(|v| (v.name().to_owned(), axes(v)));
    let shapes = shapes.collect();
    // Without the statement an engine finds out for itself.
    graph
        .output
        .extend(stated.into_iter().map(|value| ValueInfoProto {
            r#type: Some(TypeProto {
                denotation: None,
                value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                    elem_type: Some(DataType::Float as i32),
                    shape: None,
                })),
            }),
            ..value
        }));
    (model.encode_to_vec(), shapes)
}
