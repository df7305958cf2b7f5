//! The plain forward pass against PyTorch: `tests/reference/llama.py` and `recommender.py` made the
//! weights and the results.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ndarray::{Array2, Axis};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::json;
use slmrec_export::{Model, reference};

/// f32 sums in another order; values are of size 1 to 10.
const TOLERANCE: f32 = 1e-4;
/// The histories and sizes of `recommender.py`.
const HISTORIES: [&[usize]; 3] = [&[3], &[1, 2, 11, 4, 5], &[7, 7, 9]];
const PREFIX: usize = 3;
const SUFFIX: usize = 2;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn golden(name: &str) -> Tensors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/reference/golden")
        .join(name);
    let bytes = fs::read(&path).expect("golden numbers");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    file.iter()
        .map(|(name, view)| {
            let values = view
                .data()
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b));
            (name.to_owned(), (view.shape().to_vec(), values.collect()))
        })
        .collect()
}

fn write(path: PathBuf, tensors: &Tensors) {
    let bytes: Vec<Vec<u8>> = tensors
        .values()
        .map(|(_, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, (shape, _)), bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("sizes agree");
            (name, view)
        });
    fs::write(
        path,
        safetensors::serialize(views, None).expect("serializes"),
    )
    .expect("writes");
}

/// The golden model as a checkpoint, with as many prompt tokens as the readout uses.
fn checkpoint(dir: &Path, readout: &str) -> Model {
    let (prefix, suffix) = match readout {
        "bare" => (0, 0),
        "item" => (PREFIX, 0),
        _ => (PREFIX, SUFFIX),
    };
    let mut body = golden("llama.safetensors");
    body.retain(|name, _| name.starts_with("model.") && !name.ends_with(".grad"));
    let mut own = golden("recommender.safetensors");
    let (shape, prompt) = own.remove("prompt").expect("prompt embeddings");
    own.retain(|name, _| name.ends_with(".weight") || name.ends_with(".bias"));
    let (rows, hidden) = (prefix + suffix, shape[1]);
    let mut embeddings = prompt[..rows * hidden].to_vec();
    embeddings.resize(rows.max(1) * hidden, 0.0);
    let embeddings = (vec![rows.max(1), hidden], embeddings);
    body.insert("model.embed_tokens.weight".into(), embeddings);
    write(dir.join("model.safetensors"), &body);
    write(dir.join("recommender.safetensors"), &own);
    let config = json!({
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 8, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "vocab_size": rows.max(1),
    });
    fs::write(dir.join("config.json"), config.to_string()).expect("writes");
    let tokens = |count: usize| (0..count).collect::<Vec<_>>();
    let recommender = json!({
        "format_version": 1, "role": "student", "max_history": 5, "items": 11, "item_dim": 6,
        "readout": if readout == "response" { "response" } else { "item" },
        "prompt": {"prefix": "", "suffix": "",
            "prefix_tokens": tokens(prefix), "suffix_tokens": tokens(suffix)},
        "base": {"name": "random", "sha256": "", "layers": [0, 1, 2]},
        "vocabulary_sha256": "", "provenance": {},
    });
    fs::write(dir.join("recommender.json"), recommender.to_string()).expect("writes");
    Model::read(dir).expect("a checkpoint")
}

fn assert_close(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (a, b) in got.iter().zip(expected) {
        assert!((a - b).abs() <= TOLERANCE, "{what}: {a} is not {b}");
    }
}

#[test]
fn hidden_states_of_a_llama_are_those_of_transformers() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let model = checkpoint(dir.path(), "bare");
    let golden = golden("llama.safetensors");
    let (shape, x) = &golden["x"]; // [2, 7, H]
    let per_sequence = shape[1] * shape[2];
    for (row, x) in x.chunks(per_sequence).enumerate() {
        let x = Array2::from_shape_vec((shape[1], shape[2]), x.to_vec()).expect("a sequence");
        let pass = reference::forward(&model, x);
        for (layer, state) in (1..).zip(&pass.states) {
            let expected = &golden[&format!("state.{layer}")].1;
            let expected = &expected[row * per_sequence..(row + 1) * per_sequence];
            let got: Vec<f32> = state.iter().copied().collect();
            assert_close(&got, expected, &format!("state {layer} of sequence {row}"));
        }
    }
}

#[test]
fn user_vectors_are_those_of_pytorch() {
    let golden = golden("recommender.safetensors");
    for readout in ["item", "response", "bare"] {
        let dir = tempfile::tempdir().expect("temporary folder");
        let model = checkpoint(dir.path(), readout);
        for (row, history) in HISTORIES.iter().enumerate() {
            let rows: Vec<usize> = history.iter().map(|item| item - 1).collect();
            let embeddings = model.item_embeddings.select(Axis(0), &rows);
            let got = reference::user_vector(&model, embeddings.view()).to_vec();
            // The item readout has a vector per position; a device reads the newest.
            let (shape, all) = &golden[&format!("{readout}.{row}.user")];
            let expected = &all[all.len() - shape[shape.len() - 1]..];
            assert_close(&got, expected, &format!("{readout} {row}"));
        }
    }
}
