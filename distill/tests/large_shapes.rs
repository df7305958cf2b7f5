//! The widths of SmolLM2-1.7B and Llama-2-7B with one layer and random weights: a sharded 16-bit
//! directory is written, loaded, planned and trained on. One test, since each of its parts takes a
//! gigabyte, and since it counts what is allocated.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use peak_alloc::PeakAlloc;
use slmrec_core::ItemIndex;
use slmrec_distill::model::{
    LayerSelection, LlmRecommender, LlmSettings, MaskRng, PretrainedBase, PromptText,
    SequentialModel,
};
use slmrec_distill::plan::Work;
use slmrec_distill::plan::decoder::{DecoderRun, DecoderShape};
use slmrec_distill::train::adamw::AdamW;
use slmrec_distill::train::{CrossEntropy, Objective, Targets, TrainSettings, TrainingData};
use slmrec_export::checkpoint::LlamaConfig;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const ITEMS: usize = 40;
const DIM: usize = 16;
const BATCH: usize = 2;
/// What one part may take: 1.5 GB.
const MOST_BYTES: usize = 1_500_000_000;
/// Between plan and count, as in the test `memory`.
const FACTOR: f64 = 1.4;

/// A published model: its `config.json`, the format of its weights, and the number of values of its
/// decoder, embedding tables left out.
struct Published {
    name: &'static str,
    config: serde_json::Value,
    dtype: DType,
    parameters: u64,
}

fn published() -> [Published; 2] {
    [
        Published {
            name: "SmolLM2-1.7B",
            config: serde_json::json!({
                "architectures": ["LlamaForCausalLM"], "attention_bias": false,
                "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 8192,
                "max_position_embeddings": 8192, "mlp_bias": false, "model_type": "llama",
                "num_attention_heads": 32, "num_hidden_layers": 24, "num_key_value_heads": 32,
                "rms_norm_eps": 1e-5, "rope_scaling": null, "rope_theta": 130_000,
                "tie_word_embeddings": true, "torch_dtype": "bfloat16", "vocab_size": 49_152,
            }),
            dtype: DType::BF16,
            // 1,711,376,384 with the table of 49,152 tokens, which is tied.
            parameters: 1_711_376_384 - 49_152 * 2048,
        },
        Published {
            name: "Llama-2-7B",
            config: serde_json::json!({
                "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
                "hidden_size": 4096, "intermediate_size": 11_008,
                "max_position_embeddings": 4096, "model_type": "llama",
                "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
                "rms_norm_eps": 1e-5, "rope_scaling": null, "tie_word_embeddings": false,
                "torch_dtype": "float16", "vocab_size": 32_000,
            }),
            dtype: DType::F16,
            // 6,738,415,616 with two tables of 32,000 tokens.
            parameters: 6_738_415_616 - 2 * 32_000 * 4096,
        },
    ]
}

fn data() -> TrainingData {
    let sequence = |user: u32| (0..7).map(move |at| ItemIndex(1 + (9 * user + at) % ITEMS as u32));
    let sequences = (0..BATCH as u32).map(|user| sequence(user).collect());
    TrainingData::from_sequences(sequences.collect(), ITEMS, 6, Targets::All).expect("data")
}

/// Evenly distributed values of standard deviation 0.02, in the format of the model.
fn random(shape: &[usize], state: &mut u32, dtype: DType) -> Tensor {
    let count = shape.iter().product();
    let mut next = || {
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        (*state as f32 / u32::MAX as f32 - 0.5) * (0.02 * 12f32.sqrt())
    };
    let values: Vec<f32> = (0..count).map(|_| next()).collect();
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu).expect("tensor");
    tensor.to_dtype(dtype).expect("format")
}

/// One layer of the model: attention in the one shard, the rest in the other.
fn write(dir: &Path, config: &LlamaConfig, published: &Published) {
    let mut json = published.config.clone();
    json["num_hidden_layers"] = 1.into();
    fs::write(dir.join("config.json"), json.to_string()).expect("config");
    let mut state = 0x9e37_79b9;
    let shapes = slmrec_distill::model::llama::tensor_shapes(config);
    let mut map = serde_json::Map::new();
    for (shard, attention) in [("a.safetensors", true), ("b.safetensors", false)] {
        let mut tensors = HashMap::new();
        for (name, shape) in &shapes {
            if name.contains("self_attn") == attention {
                let tensor = if shape.len() == 1 {
                    Tensor::ones(shape.as_slice(), published.dtype, &Device::Cpu).expect("norm")
                } else {
                    random(shape, &mut state, published.dtype)
                };
                tensors.insert(name.clone(), tensor);
                map.insert(name.clone(), shard.into());
            }
        }
        candle_core::safetensors::save(&tensors, dir.join(shard)).expect("shard");
    }
    let index = serde_json::json!({ "weight_map": map });
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).expect("index");
}

fn load(dir: &Path, settings: &LlmSettings) -> LlmRecommender {
    let none = PromptText::default();
    let base = PretrainedBase::load(dir, &LayerSelection::First(1), &none, &Device::Cpu);
    let table = random(&[ITEMS + 1, DIM], &mut 7, DType::F32);
    LlmRecommender::new(&base.expect("base"), &table, settings, 1, &Device::Cpu).expect("model")
}

/// Three steps on one batch: the loss of each, and the bytes taken beyond the model.
fn train(model: &LlmRecommender, data: &TrainingData) -> (Vec<f64>, usize) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let mut optimizer =
        AdamW::new(model.parameters(), &TrainSettings::default()).expect("optimizer");
    let copy = |var: &candle_core::Var| var.as_detached_tensor().copy().expect("copy");
    let _best: Vec<Tensor> = (model.parameters().iter())
        .map(|(_, var)| copy(var))
        .collect();
    let batch = data.batch(&[0, 1], &Device::Cpu).expect("batch");
    let step = |number| {
        let mut rng = MaskRng::new(1, number);
        let losses = (CrossEntropy::default().loss(model, &batch, &mut rng)).expect("loss");
        let gradients = losses.total.backward().expect("backward");
        optimizer.update(&gradients, None, 1e-3).expect("update");
        losses.terms[0].1
    };
    let losses = (1..4).map(step).collect();
    (losses, MEMORY.peak_usage().saturating_sub(before))
}

#[test]
fn one_layer_of_a_large_model_is_loaded_planned_and_trained() {
    let data = data();
    let settings = LlmSettings {
        max_history: 6,
        ..LlmSettings::default()
    };
    let whole_batches = TrainSettings {
        batch_size: BATCH,
        epochs: 1,
        parts: 1,
        ..TrainSettings::default()
    };
    for published in published() {
        let name = published.name;
        let whole: LlamaConfig =
            serde_json::from_value(published.config.clone()).expect("configuration");
        let shape = DecoderShape::new(&whole, whole.num_hidden_layers);
        assert_eq!(shape.parameters(), published.parameters, "{name}");

        let config = LlamaConfig {
            num_hidden_layers: 1,
            ..whole
        };
        let dir = tempfile::tempdir().expect("folder");
        write(dir.path(), &config, &published);
        MEMORY.reset_peak_usage();
        let model = load(dir.path(), &settings);
        let loading = MEMORY.peak_usage();
        let run = DecoderRun {
            stage: "teach",
            shape: DecoderShape::new(&config, 1),
            settings: &settings,
            checkpointing: false,
            items: (ITEMS as u64, DIM as u64),
            prompt: (0, 0),
            batch_size: BATCH as u64,
            targets: Targets::All,
            work: Work::of(&data, &whole_batches, &Device::Cpu),
            distillation: None,
            teachers: 1,
            online: None,
        };
        let count = run.parameters();
        assert_eq!(count.trainable, model.parameters().count() as u64, "{name}");
        let (losses, counted) = train(&model, &data);
        assert!(losses[2] < losses[0], "{name}: {losses:?}");
        let memory = run.memory();
        let planned = (memory.optimizer + memory.activations + memory.loss) as f64;
        let ratio = planned / counted as f64;
        let figures = format!("{name}: planned {planned}, counted {counted}, loading {loading}");
        println!("{figures}, losses {losses:?}");
        assert!((1.0 / FACTOR..FACTOR).contains(&ratio), "{figures}");
        assert!(loading < MOST_BYTES, "{figures}");
    }
}
