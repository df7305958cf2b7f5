//! A student narrower than its teacher, all of it trained: what is exported computes what was trained.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Tensor};
use slmrec_core::ItemIndex;
use slmrec_core::manifest::Readout;
use slmrec_export::checkpoint::{LlamaConfig, MODEL_FILE, RECOMMENDER_WEIGHTS_FILE};
use slmrec_export::{Model, reference};

use super::parameters::normal;
use super::{
    BodyTraining, CheckpointInfo, HistoryBatch, LlmRecommender, LlmSettings, MaskRng, Mode,
    PretrainedBase, SequentialModel, Widths, write_checkpoint,
};
use crate::train::testing::language_model;
use crate::train::{DistillSettings, Distillation, LiveTeacher, Objective, Targets, TrainingData};

/// Two f32 forward passes in another order of summation.
const TOLERANCE: f32 = 1e-4;

/// Half as wide as its base, with random layers if `random`.
fn narrow(random: bool) -> LlmRecommender {
    let config: LlamaConfig = serde_json::from_value(serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 12,
        "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 4, "rms_norm_eps": 1e-5, "vocab_size": 1,
    }))
    .expect("configuration");
    let base = PretrainedBase::random(&config, 3, &Device::Cpu).expect("base");
    let widths = Widths {
        hidden_size: Some(6),
        intermediate_size: Some(9),
        key_value_heads: Some(1),
    };
    let (mut base, _) = widths.cut(base, None).expect("cut");
    if random {
        base = base.randomized(5, &Device::Cpu).expect("random");
    }
    let items = normal((10, 6), 1.0, 3, DType::F32, &Device::Cpu).expect("items");
    let settings = LlmSettings {
        max_history: 5,
        training: BodyTraining::Full,
        ..LlmSettings::default()
    };
    LlmRecommender::new(&base, &items, &settings, 4, &Device::Cpu).expect("model")
}

/// Steps down the gradient of the whole objective; every tensor has one.
fn distil(student: &LlmRecommender) {
    let teacher = language_model(4, 12, 0.0, Readout::Item, &Device::Cpu);
    let teacher = LiveTeacher::new(&teacher, "teacher").expect("teacher");
    let settings = DistillSettings {
        lambda_kd: 1.0,
        lambda_block_kl: 1.0,
        blocks: 2,
        ..DistillSettings::default()
    };
    let objective = Distillation::new(settings, student, Some(&teacher), 1).expect("objective");
    let names: Vec<&str> = objective
        .parameters()
        .iter()
        .map(|(name, _)| name)
        .collect();
    let expected = [
        "blocks.0.head.weight",
        "blocks.0.projector.weight",
        "blocks.1.projector.weight",
    ];
    assert_eq!(names, expected);
    let sequence = [1, 5, 2, 9, 3, 7].map(ItemIndex).to_vec();
    let data = TrainingData::from_sequences(vec![sequence], 9, 5, Targets::All).expect("data");
    let batch = data.batch(&[0], &Device::Cpu).expect("batch");
    let losses = (objective.loss(student, &batch, &mut MaskRng::new(1, 1))).expect("loss");
    let gradients = losses.total.backward().expect("backward");
    for (name, var) in student
        .parameters()
        .iter()
        .chain(objective.parameters().iter())
    {
        let gradient = gradients.get(var).expect(name);
        let size = gradient
            .abs()
            .and_then(|g| g.sum_all()?.to_scalar::<f32>())
            .expect("size");
        assert!(size.is_finite() && size > 0.0, "{name}: {size}");
        let moved = (var.as_tensor() - (gradient * 0.05).expect("step")).expect("moved");
        var.set(&moved).expect("set");
    }
}

fn tensors_of(path: &std::path::Path) -> BTreeSet<String> {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).expect("weights");
    tensors.into_keys().collect()
}

#[test]
fn the_exporter_reads_the_student_that_was_trained() {
    for random in [false, true] {
        let student = narrow(random);
        distil(&student);
        let dir = tempfile::tempdir().expect("folder");
        let info = CheckpointInfo {
            role: "student".to_owned(),
            vocabulary_sha256: "v".to_owned(),
            provenance: serde_json::Value::Null,
        };
        write_checkpoint(&student, dir.path(), &info).expect("written");
        // Heads and projectors are the objective's, and stay behind.
        let body = tensors_of(&dir.path().join(MODEL_FILE));
        assert_eq!(body.len(), 2 * 9 + 2);
        assert!(body.iter().all(|name| name.starts_with("model.")));
        assert_eq!(
            tensors_of(&dir.path().join(RECOMMENDER_WEIGHTS_FILE)).len(),
            4
        );

        let exported = Model::read(dir.path()).expect("a checkpoint for export");
        let config = &exported.config;
        let widths = (
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
        );
        assert_eq!(widths, (6, 9, 2));
        assert_eq!((config.kv_heads(), config.head_size()), (1, 4));
        let history = [3, 1, 4, 1, 5].map(ItemIndex);
        let batch = HistoryBatch::new(&[&history], &Device::Cpu).expect("batch");
        let output = student.forward(&batch, Mode::Eval, &[]).expect("forward");
        let last: Vec<f32> = (output.user_vectors.narrow(1, 4, 1))
            .and_then(|user: Tensor| user.flatten_all()?.to_vec1())
            .expect("a user vector");
        let rows: Vec<usize> = history.iter().map(|item| item.row() - 1).collect();
        let items = exported.item_embeddings.select(ndarray::Axis(0), &rows);
        let expected = reference::user_vector(&exported, items.view());
        for (found, expected) in last.iter().zip(&expected) {
            assert!((found - expected).abs() < TOLERANCE, "{found}, {expected}");
        }
    }
}
