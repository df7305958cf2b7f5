//! Checkpoints and pretrained files: round trips, and files that are cut or wrong.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use slmrec_core::manifest::Readout;

use super::base::{LayerSelection, PretrainedBase, PromptText};
use super::checkpoint::{CheckpointInfo, read_recommender_config, write_checkpoint};
use super::file_error::ModelFileError;
use super::lora::{BodyTraining, LoraSettings};
use super::recommender::{LlmRecommender, LlmSettings};
use super::tests::{
    batch, body_tensors, golden, largest_difference, tiny_config, tiny_recommender,
};
use super::{Mode, SequentialModel};

fn info() -> CheckpointInfo {
    CheckpointInfo {
        role: "teacher".to_owned(),
        vocabulary_sha256: "v".to_owned(),
        provenance: serde_json::json!({"seed": 1}),
    }
}

fn adapted(readout: Readout, prompt: (usize, usize)) -> LlmRecommender {
    let lora = LoraSettings {
        r: 2,
        dropout: 0.1,
        ..LoraSettings::default()
    };
    let model = tiny_recommender(readout, prompt, BodyTraining::Lora(lora));
    for (_, var) in model.parameters().iter() {
        var.set(&(var.as_tensor() + 0.05).expect("shifted"))
            .expect("set");
    }
    model
}

fn user_vectors(model: &LlmRecommender) -> Tensor {
    let out = model.forward(&batch(&[&[3], &[1, 2, 11, 4, 5]]), Mode::Eval, &[]);
    out.expect("forward").user_vectors
}

#[test]
fn a_checkpoint_holds_the_merged_model() {
    let dir = tempfile::tempdir().expect("folder");
    for (readout, prompt) in [
        (Readout::Item, (3, 0)),
        (Readout::Response, (3, 2)),
        (Readout::Item, (0, 0)),
    ] {
        let model = adapted(readout, prompt);
        write_checkpoint(&model, dir.path(), &info()).expect("write");
        let again = LlmRecommender::load(dir.path(), &Device::Cpu).expect("load");
        let difference = largest_difference(&user_vectors(&model), &user_vectors(&again));
        assert!(difference < 1e-4, "{difference}");
        assert_eq!(
            (again.prompt(), again.base()),
            (model.prompt(), model.base())
        );
    }
    assert_eq!(
        read_recommender_config(dir.path()).expect("config").items,
        11
    );
}

#[test]
fn a_student_begins_with_its_teachers_layers() {
    let dir = tempfile::tempdir().expect("folder");
    let teacher = adapted(Readout::Response, (3, 2));
    write_checkpoint(&teacher, dir.path(), &info()).expect("write");
    let settings = LlmSettings {
        readout: Readout::Response,
        max_history: 5,
        training: BodyTraining::Full,
        train_item_embeddings: false,
        dropout: 0.0,
        activation_checkpointing: false,
        body_dtype: super::recommender::BodyDtype::F32,
    };
    let start =
        |layers| LlmRecommender::start_from(dir.path(), &layers, &settings, 0, &Device::Cpu);
    let student = start(LayerSelection::Interval { step: 2, count: 2 }).expect("student");
    assert_eq!(
        (student.num_layers(), student.base().layers.as_slice()),
        (2, &[0, 2][..])
    );
    let (ours, theirs) = (
        student.body().merged_tensors(),
        teacher.body().merged_tensors(),
    );
    let (ours, theirs) = (ours.expect("student"), theirs.expect("teacher"));
    let name = |layer: usize| format!("model.layers.{layer}.mlp.up_proj.weight");
    assert_eq!(largest_difference(&ours[&name(1)], &theirs[&name(2)]), 0.0);
    let same = start(LayerSelection::All).expect("same");
    assert!(largest_difference(&user_vectors(&same), &user_vectors(&teacher)) < 1e-4);
    assert!(matches!(
        start(LayerSelection::First(4)),
        Err(ModelFileError::NoSuchLayer { .. })
    ));
    let other = PromptText {
        prefix: "another".to_owned(),
        suffix: String::new(),
    };
    let error = PretrainedBase::load(dir.path(), &LayerSelection::All, &other, &Device::Cpu);
    assert!(matches!(error, Err(ModelFileError::Prompt { .. })));
}

#[test]
fn a_cut_or_spoilt_checkpoint_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    write_checkpoint(&adapted(Readout::Item, (3, 0)), dir.path(), &info()).expect("write");
    for name in [
        "model.safetensors",
        "recommender.safetensors",
        "config.json",
        "recommender.json",
    ] {
        let path = dir.path().join(name);
        let whole = fs::read(&path).expect("file");
        for step in 0..40 {
            let cut = whole.len() * step / 40;
            fs::write(&path, &whole[..cut]).expect("cut");
            assert!(
                LlmRecommender::load(dir.path(), &Device::Cpu).is_err(),
                "{name} at {cut}"
            );
        }
        fs::write(&path, &whole).expect("restore");
    }
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).expect("file");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, &bytes).expect("spoil");
    let error = LlmRecommender::load(dir.path(), &Device::Cpu);
    assert!(
        matches!(error, Err(ModelFileError::NotFinite { .. })),
        "{error:?}"
    );
}

/// A GGUF file of the tiny Llama, as llama.cpp would write it.
fn tiny_gguf(dir: &Path, extra: &[(&str, Value)]) -> PathBuf {
    let config = tiny_config();
    let number = |n: usize| Value::U32(n as u32);
    let mut metadata = vec![
        ("general.architecture", Value::String("llama".to_owned())),
        ("general.name", Value::String("tiny".to_owned())),
        ("llama.embedding_length", number(config.hidden_size)),
        (
            "llama.feed_forward_length",
            number(config.intermediate_size),
        ),
        ("llama.block_count", number(config.num_hidden_layers)),
        (
            "llama.attention.head_count",
            number(config.num_attention_heads),
        ),
        ("llama.attention.head_count_kv", number(config.kv_heads())),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.rope.freq_base", Value::F32(10_000.0)),
    ];
    metadata.extend(extra.iter().cloned());
    let mut tensors = vec![(
        "token_embd.weight".to_owned(),
        Tensor::ones((4, 32), candle_core::DType::F32, &Device::Cpu).expect("table"),
    )];
    for (name, tensor) in body_tensors(&golden("llama.safetensors")) {
        tensors.push((llama_cpp_name(&name), llama_cpp_rows(&name, &tensor)));
    }
    let tensors: Vec<(String, QTensor)> = (tensors.into_iter())
        .map(|(name, t)| (name, QTensor::quantize(&t, GgmlDType::F32).expect("stored")))
        .collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(n, v)| (*n, v)).collect();
    let path = dir.join("tiny.gguf");
    let mut file = fs::File::create(&path).expect("file");
    gguf_file::write(&mut file, &metadata, &tensors).expect("written");
    path
}

fn llama_cpp_name(name: &str) -> String {
    let pairs = [
        ("model.layers", "blk"),
        ("model.norm", "output_norm"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    pairs.iter().fold(name.to_owned(), |name, (ours, theirs)| {
        name.replace(ours, theirs)
    })
}

/// Row `(head, i, half)` of the file is row `(head, half, i)` of the model.
fn llama_cpp_rows(name: &str, tensor: &Tensor) -> Tensor {
    if !name.contains("q_proj") && !name.contains("k_proj") {
        return tensor.clone();
    }
    let rows: Vec<u32> = (0..tensor.dims()[0] as u32)
        .map(|row| (row / 8) * 8 + (row % 2) * 4 + (row % 8) / 2)
        .collect();
    let count = rows.len();
    let rows = Tensor::from_vec(rows, count, &Device::Cpu).expect("rows");
    tensor.index_select(&rows, 0).expect("permuted")
}

fn load_gguf(path: &Path, layers: &LayerSelection) -> Result<PretrainedBase, ModelFileError> {
    PretrainedBase::load(path, layers, &PromptText::default(), &Device::Cpu)
}

#[test]
fn gguf_rows_are_put_back_in_order() {
    let dir = tempfile::tempdir().expect("folder");
    let path = tiny_gguf(dir.path(), &[]);
    let base = load_gguf(&path, &LayerSelection::Interval { step: 2, count: 2 }).expect("base");
    assert_eq!(
        (base.layers.as_slice(), base.name.as_str()),
        (&[0, 2][..], "tiny")
    );
    let theirs = body_tensors(&golden("llama.safetensors"));
    assert_eq!(base.tensors.len(), 2 * 9 + 1);
    for (name, tensor) in &base.tensors {
        let theirs = &theirs[&name.replace("layers.1.", "layers.2.")];
        assert_eq!(largest_difference(tensor, theirs), 0.0, "{name}");
    }
    let paper = PretrainedBase::load(
        &path,
        &LayerSelection::All,
        &PromptText::paper(),
        &Device::Cpu,
    );
    assert!(paper.is_err(), "no tokenizer in it");
}

#[test]
fn a_cut_gguf_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let path = tiny_gguf(dir.path(), &[]);
    let whole = fs::read(&path).expect("file");
    let cuts = (0..2048.min(whole.len()))
        .step_by(7)
        .chain((2048..whole.len() - 32).step_by(997));
    for cut in cuts {
        fs::write(&path, &whole[..cut]).expect("cut");
        assert!(
            load_gguf(&path, &LayerSelection::All).is_err(),
            "cut at {cut}"
        );
    }
}

#[test]
fn a_gguf_with_flipped_bytes_never_panics() {
    let dir = tempfile::tempdir().expect("folder");
    let path = tiny_gguf(dir.path(), &[]);
    let whole = fs::read(&path).expect("file");
    for place in (0..1800).step_by(3) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0xff;
        fs::write(&path, &bytes).expect("flip");
        let _read_or_refused = load_gguf(&path, &LayerSelection::First(1));
    }
}

#[test]
fn an_unusable_gguf_says_why() {
    let dir = tempfile::tempdir().expect("folder");
    let load = |key: &str, value: Value| {
        let path = tiny_gguf(dir.path(), &[(key, value)]);
        load_gguf(&path, &LayerSelection::All)
            .expect_err("unusable")
            .to_string()
    };
    let zero = load("general.alignment", Value::U32(0));
    assert!(zero.contains("positive general.alignment"), "{zero}");
    let scaled = load("llama.rope.scaling.type", Value::String("yarn".to_owned()));
    assert!(scaled.contains("rotary scaling yarn"), "{scaled}");
    let partial = load("llama.rope.dimension_count", Value::U32(4));
    assert!(partial.contains("4 of 8"), "{partial}");
    let path = tiny_gguf(dir.path(), &[]);
    let absent = load_gguf(&path, &LayerSelection::Layers(vec![0, 3])).expect_err("no layer 3");
    assert!(absent.to_string().contains("layers 0 to 2"), "{absent}");
}
