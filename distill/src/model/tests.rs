//! The decoder and the recommender against PyTorch's numbers and against themselves.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, IndexOp, Tensor, Var};
use slmrec_core::ItemIndex;
use slmrec_core::manifest::Readout;
use slmrec_export::checkpoint::{LlamaConfig, Prompt};

use super::base::PretrainedBase;
use super::llama::{LlamaBody, Tensors};
use super::lora::{BodyTraining, LoraSettings};
use super::ops::attention::Segments;
use super::recommender::{BodyDtype, LlmRecommender, LlmSettings};
use super::{HistoryBatch, MaskRng, Mode, ReadAt, SequentialModel};

/// f32 sums in another order, over three layers: absolute, on values of order 1 to 10.
pub(super) const FORWARD_TOLERANCE: f32 = 2e-5;
/// Gradients add up more terms: relative to the largest value of the tensor.
pub(super) const GRADIENT_TOLERANCE: f32 = 2e-5;

pub(super) fn golden(name: &str) -> HashMap<String, Tensor> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/reference/golden")
        .join(name);
    candle_core::safetensors::load(path, &Device::Cpu).expect("golden numbers")
}

pub(super) fn tiny_config() -> LlamaConfig {
    LlamaConfig {
        architectures: vec!["LlamaForCausalLM".to_owned()],
        model_type: "llama".to_owned(),
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: Some(2),
        head_dim: Some(8),
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        vocab_size: 1,
        max_position_embeddings: 64,
        tie_word_embeddings: true,
        hidden_act: "silu".to_owned(),
    }
}

pub(super) fn body_tensors(golden: &HashMap<String, Tensor>) -> Tensors {
    (golden.iter())
        .filter(|(name, _)| name.starts_with("model.") && name.ends_with(".weight"))
        .map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect()
}

pub(crate) fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let difference = (a - b).and_then(|d| d.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>());
    difference.expect("comparable tensors")
}

fn assert_close_gradient(name: &str, ours: &Tensor, theirs: &Tensor) {
    let scale = largest_difference(theirs, &theirs.zeros_like().expect("zeros"));
    let difference = largest_difference(ours, theirs) / scale;
    assert!(difference < GRADIENT_TOLERANCE, "{name}: {difference}");
}

/// The loss of `llama.py`, on packed tokens.
fn probe_loss(states: &[Tensor], probe: &Tensor) -> Tensor {
    let probe = probe.reshape(states[0].dims()).expect("packed probe");
    let first = ((&states[0] * &probe).expect("product") * 0.1)
        .expect("scale")
        .sum_all()
        .expect("sum");
    let last = (&states[2] * &probe)
        .expect("product")
        .sum_all()
        .expect("sum");
    (first + last).expect("loss")
}

fn run_tiny(body: &LlamaBody, x: &Tensor) -> Vec<Tensor> {
    let (rows, len, hidden) = x.dims3().expect("[B, T, H]");
    let segments = Segments {
        prefix: 0,
        lengths: vec![len; rows],
    };
    let packed = x.reshape((rows * len, hidden)).expect("packed");
    // Evaluation would keep no graph.
    let mut rng = MaskRng::new(0, 0);
    body.forward(
        &packed,
        segments,
        None,
        &mut Mode::Train(&mut rng),
        &[1, 2, 3],
    )
    .expect("forward")
    .1
}

fn assert_states(states: &[Tensor], golden: &HashMap<String, Tensor>) {
    for (index, state) in states.iter().enumerate() {
        let theirs = golden[&format!("state.{}", index + 1)]
            .reshape(state.dims())
            .expect("packed");
        let difference = largest_difference(state, &theirs);
        assert!(
            difference < FORWARD_TOLERANCE,
            "state {}: {difference}",
            index + 1
        );
    }
}

#[test]
fn all_states_and_gradients_are_those_of_transformers() {
    let golden = golden("llama.safetensors");
    let body = LlamaBody::new(
        &tiny_config(),
        &body_tensors(&golden),
        &BodyTraining::Full,
        7,
        0,
    )
    .expect("body");
    let x = Var::from_tensor(&golden["x"]).expect("variable");
    let states = run_tiny(&body, x.as_tensor());
    assert_states(&states, &golden);
    let gradients = probe_loss(&states, &golden["probe"])
        .backward()
        .expect("backward");
    assert_close_gradient(
        "x",
        gradients.get(&x).expect("gradient of x"),
        &golden["x.grad"],
    );
    assert_eq!(body.parameters().iter().count(), 28);
    for (name, var) in body.parameters().iter() {
        assert_close_gradient(
            name,
            gradients.get(var).expect(name),
            &golden[&format!("{name}.grad")],
        );
    }
}

#[test]
fn lora_is_that_of_peft() {
    let (plain, golden) = (golden("llama.safetensors"), golden("lora.safetensors"));
    let lora = LoraSettings {
        r: 4,
        alpha: 6.0,
        dropout: 0.0,
        ..LoraSettings::default()
    };
    let training = BodyTraining::Lora(lora);
    let body =
        LlamaBody::new(&tiny_config(), &body_tensors(&plain), &training, 7, 0).expect("body");
    assert_eq!(body.parameters().iter().count(), 3 * 7 * 2);
    for (name, var) in body.parameters().iter() {
        var.set(&golden[name]).expect("same shape");
    }
    let states = run_tiny(&body, &plain["x"]);
    assert_states(&states, &golden);
    let gradients = probe_loss(&states, &plain["probe"])
        .backward()
        .expect("backward");
    for (name, var) in body.parameters().iter() {
        assert_close_gradient(
            name,
            gradients.get(var).expect(name),
            &golden[&format!("{name}.grad")],
        );
    }
    let merged = body.merged_tensors().expect("merge");
    for name in [
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.2.mlp.down_proj.weight",
    ] {
        assert!(
            largest_difference(&merged[name], &golden[&format!("merged.{name}")]) < 1e-6,
            "{name}"
        );
    }
    let body =
        LlamaBody::new(&tiny_config(), &merged, &BodyTraining::Frozen, 7, 0).expect("merged body");
    assert_states(&run_tiny(&body, &plain["x"]), &golden);
}

const HISTORIES: [&[u32]; 3] = [&[3], &[1, 2, 11, 4, 5], &[7, 7, 9]];

pub(super) fn batch(histories: &[&[u32]]) -> HistoryBatch {
    let rows: Vec<Vec<ItemIndex>> = histories
        .iter()
        .map(|h| h.iter().map(|i| ItemIndex(*i)).collect())
        .collect();
    let rows: Vec<&[ItemIndex]> = rows.iter().map(Vec::as_slice).collect();
    HistoryBatch::new(&rows, &Device::Cpu).expect("batch")
}

/// The recommender of `recommender.py`; `prompt` is (prefix, suffix).
pub(super) fn tiny_recommender(
    readout: Readout,
    prompt: (usize, usize),
    training: BodyTraining,
) -> LlmRecommender {
    let golden_own = golden("recommender.safetensors");
    let mut base = PretrainedBase::random(&tiny_config(), 0, &Device::Cpu).expect("base");
    base.tensors = body_tensors(&golden("llama.safetensors"));
    let (prefix, suffix) = prompt;
    if prefix + suffix > 0 {
        base.prompt = Prompt {
            prefix: "p".repeat(prefix),
            suffix: "s".repeat(suffix),
            prefix_tokens: (0..prefix as u32).collect(),
            suffix_tokens: (0..suffix as u32).collect(),
        };
        base.prompt_embeddings = Some(golden_own["prompt"].i(0..prefix + suffix).expect("rows"));
    }
    let own: Tensors = golden_own.into_iter().collect();
    let settings = LlmSettings {
        readout,
        max_history: 5,
        training,
        train_item_embeddings: false,
        dropout: 0.0,
        activation_checkpointing: false,
        body_dtype: BodyDtype::F32,
    };
    LlmRecommender::from_parts(&base, &own, &settings, 0).expect("recommender")
}

const FORMS: [(&str, Readout, (usize, usize)); 3] = [
    ("item", Readout::Item, (3, 0)),
    ("response", Readout::Response, (3, 2)),
    ("bare", Readout::Item, (0, 0)),
];

#[test]
fn reading_the_last_item_only_changes_nothing_there() {
    for (name, readout, prompt) in FORMS {
        let model = tiny_recommender(readout, prompt, BodyTraining::Full);
        let histories = batch(&HISTORIES);
        let (rows, longest) = histories.items.dims2().expect("[B, S]");
        let run = |histories: &HistoryBatch| {
            let out = model
                .forward(histories, Mode::Eval, &[1, 3])
                .expect("forward");
            [
                out.user_vectors,
                out.states[0].clone(),
                out.states[1].clone(),
            ]
        };
        let everywhere = run(&histories);
        let last = run(&histories.clone().reading(ReadAt::LastItem));
        let at = histories.last_positions().expect("positions");
        for (all, last) in everywhere.iter().zip(&last) {
            let width = all.dims()[2];
            let all = match readout {
                Readout::Item => (all.reshape((rows * longest, width)))
                    .and_then(|flat| flat.index_select(&at, 0)?.unsqueeze(1))
                    .expect("last"),
                Readout::Response => all.clone(),
            };
            assert!(largest_difference(&all, last) < FORWARD_TOLERANCE, "{name}");
        }
    }
}

#[test]
fn a_body_in_16_bits_is_nearly_that_in_32() {
    let lora = BodyTraining::Lora(LoraSettings {
        dropout: 0.0,
        ..LoraSettings::default()
    });
    let with = |dtype: BodyDtype, device_checkpointing: bool| {
        let model = tiny_recommender(Readout::Item, (3, 0), lora.clone());
        let base = PretrainedBase::random(&tiny_config(), 0, &Device::Cpu).expect("base");
        let own = model.own_tensors().expect("own tensors");
        let settings = LlmSettings {
            training: lora.clone(),
            body_dtype: dtype,
            activation_checkpointing: device_checkpointing,
            ..LlmSettings::default()
        };
        LlmRecommender::from_parts(&base, &own, &settings, 0)
    };
    let figures = |model: &LlmRecommender| {
        let mut rng = MaskRng::new(1, 1);
        let out = (model.forward(&batch(&HISTORIES), Mode::Train(&mut rng), &[])).expect("forward");
        let loss = out
            .user_vectors
            .sqr()
            .and_then(|x| x.mean_all())
            .expect("loss");
        let gradients = loss.backward().expect("backward");
        let gradient = |name: &str| {
            let var = model.parameters().get(name).expect(name);
            gradients.get(var).expect(name).clone()
        };
        // The adapters' first matrices have none yet: the second ones are zero.
        (
            out.user_vectors,
            gradient("body.model.layers.1.mlp.up_proj.lora_B.weight"),
        )
    };
    let (exact, half) = (
        figures(&with(BodyDtype::F32, false).expect("f32")),
        figures(&with(BodyDtype::F16, false).expect("f16")),
    );
    assert_eq!(half.1.dtype(), DType::F32);
    for (exact, half) in [(&exact.0, &half.0), (&exact.1, &half.1)] {
        let scale = largest_difference(exact, &exact.zeros_like().expect("zeros"));
        let difference = largest_difference(exact, half) / scale;
        // Ten bits of mantissa through three layers; and it must not be f32 in disguise.
        assert!((1e-6..2e-2).contains(&difference), "{difference}");
    }
    for (dtype, checkpointing, expected) in [
        (BodyDtype::Bf16, false, "needs a GPU"),
        (
            BodyDtype::F16,
            true,
            "activation_checkpointing needs a body in f32",
        ),
    ] {
        let error = with(dtype, checkpointing).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn ragged_histories_are_those_of_plain_pytorch() {
    let golden = golden("recommender.safetensors");
    for (name, readout, prompt) in FORMS {
        let model = tiny_recommender(readout, prompt, BodyTraining::Frozen);
        let out = model
            .forward(&batch(&HISTORIES), Mode::Eval, &[2, 3])
            .expect("forward");
        for (row, history) in HISTORIES.iter().enumerate() {
            let len = if readout == Readout::Item {
                history.len()
            } else {
                1
            };
            let fields = [
                ("user", &out.user_vectors),
                ("state.2", &out.states[0]),
                ("state.3", &out.states[1]),
            ];
            for (field, ours) in fields {
                let ours = ours.i((row, 0..len)).expect("row");
                let difference =
                    largest_difference(&ours, &golden[&format!("{name}.{row}.{field}")]);
                assert!(
                    difference < FORWARD_TOLERANCE,
                    "{name} {row} {field}: {difference}"
                );
            }
        }
    }
}

#[test]
fn a_batch_equals_its_rows() {
    for (name, readout, prompt) in FORMS {
        let model = tiny_recommender(readout, prompt, BodyTraining::Frozen);
        let together = model
            .forward(&batch(&HISTORIES), Mode::Eval, &[1])
            .expect("batch");
        for (row, history) in HISTORIES.iter().enumerate() {
            let alone = model
                .forward(&batch(&[history]), Mode::Eval, &[1])
                .expect("single");
            let len = alone.user_vectors.dim(1).expect("places");
            for (a, b) in [
                (&together.user_vectors, &alone.user_vectors),
                (&together.states[0], &alone.states[0]),
            ] {
                let difference =
                    largest_difference(&a.i((row, 0..len)).expect("row"), &b.i(0).expect("row"));
                assert!(difference < 1e-5, "{name} {row}: {difference}");
            }
        }
    }
}

fn assert_trained(model: &LlmRecommender) {
    let mut rng = MaskRng::new(5, 0);
    let out = model
        .forward(&batch(&HISTORIES), Mode::Train(&mut rng), &[])
        .expect("forward");
    let catalog = model
        .item_embeddings()
        .and_then(|items| items.t())
        .expect("catalog");
    let users = out.user_vectors.flatten_to(1).expect("users");
    let loss = users
        .matmul(&catalog)
        .and_then(|s| s.sqr()?.mean_all())
        .expect("loss");
    let gradients = loss.backward().expect("backward");
    for (name, var) in model.parameters().iter() {
        let gradient = gradients.get(var).expect(name);
        let size = gradient
            .abs()
            .and_then(|g| g.sum_all()?.to_scalar::<f32>())
            .expect("sum");
        assert!(size.is_finite() && size > 0.0, "{name}: {size}");
    }
}

#[test]
fn every_trained_tensor_has_a_gradient() {
    let lora = || {
        BodyTraining::Lora(LoraSettings {
            r: 2,
            dropout: 0.1,
            ..LoraSettings::default()
        })
    };
    for (_, readout, prompt) in FORMS {
        let model = tiny_recommender(readout, prompt, lora());
        for (name, var) in model
            .parameters()
            .iter()
            .filter(|(name, _)| name.contains("lora_B"))
        {
            let seed = super::init::named_seed(1, name);
            let value = super::parameters::normal(var.shape(), 0.1, seed, DType::F32, &Device::Cpu);
            var.set(&value.expect("values")).expect("set");
        }
        assert_eq!(model.parameters().iter().count(), 3 * 14 + 3);
        assert_trained(&model);
        assert_trained(&tiny_recommender(readout, prompt, BodyTraining::Full));
        let frozen = tiny_recommender(readout, prompt, BodyTraining::Frozen);
        assert_eq!(frozen.parameters().iter().count(), 3);
        assert_trained(&frozen);
    }
}

#[test]
fn dropout_depends_on_seed_and_step_only() {
    let lora = LoraSettings {
        r: 2,
        dropout: 0.5,
        ..LoraSettings::default()
    };
    let model = tiny_recommender(Readout::Item, (3, 0), BodyTraining::Lora(lora));
    for (_, var) in model.parameters().iter() {
        var.set(&(var.as_tensor() + 0.1).expect("shifted"))
            .expect("set");
    }
    let run = |step| {
        let mut rng = MaskRng::new(9, step);
        let out = model.forward(&batch(&HISTORIES), Mode::Train(&mut rng), &[]);
        out.expect("forward").user_vectors
    };
    assert_eq!(largest_difference(&run(0), &run(0)), 0.0);
    assert!(largest_difference(&run(0), &run(1)) > 0.0);
}

#[test]
fn wrong_use_is_an_error() {
    let model = tiny_recommender(Readout::Item, (3, 0), BodyTraining::Frozen);
    assert!(
        model
            .forward(&batch(&[&[1, 2, 3, 4, 5, 6]]), Mode::Eval, &[])
            .is_err(),
        "history too long"
    );
    assert!(
        model.forward(&batch(&[&[1]]), Mode::Eval, &[4]).is_err(),
        "no fourth layer"
    );
    assert!(
        model.forward(&batch(&[&[1]]), Mode::Eval, &[0]).is_err(),
        "layers count from 1"
    );
    assert!(
        model.forward(&batch(&[&[12]]), Mode::Eval, &[]).is_err(),
        "no such item"
    );
}
