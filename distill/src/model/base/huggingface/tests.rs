//! Directories as Hugging Face writes them: shards with an index, 16-bit weights, a tokenizer.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::json;

use super::*;
use crate::model::base::token_means;
use crate::model::tests::{body_tensors, golden, largest_difference, tiny_config};

const SHARDS: [&str; 2] = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
];

/// The tiny Llama with its embedding table, each tensor in the format that `dtype_of` says.
fn weights(dtype_of: impl Fn(usize) -> DType) -> BTreeMap<String, Tensor> {
    let mut tensors = body_tensors(&golden("llama.safetensors"));
    let table: Vec<f32> = (0..3 * 32).map(|at| (at as f32 * 0.37).sin()).collect();
    let table = Tensor::from_vec(table, (3, 32), &Device::Cpu).expect("table");
    tensors.insert(EMBEDDINGS.to_owned(), table);
    let stored = tensors.into_iter().enumerate().map(|(at, (name, tensor))| {
        let tensor = tensor.to_dtype(dtype_of(at)).expect("format");
        (name, tensor)
    });
    stored.collect()
}

fn write(path: &Path, tensors: impl Iterator<Item = (String, Tensor)>) {
    let tensors: HashMap<String, Tensor> = tensors.collect();
    candle_core::safetensors::save(&tensors, path).expect("written");
}

fn write_config(dir: &Path) {
    let config = serde_json::to_vec(&tiny_config()).expect("JSON");
    fs::write(dir.join(CONFIG_FILE), config).expect("written");
}

/// Two files and the index, tensors by turns in the one and the other.
fn write_shards(dir: &Path, tensors: &BTreeMap<String, Tensor>) {
    write_config(dir);
    let shard_of = |at: usize| SHARDS[at % 2];
    let map: BTreeMap<&String, &str> = (tensors.keys().enumerate())
        .map(|(at, name)| (name, shard_of(at)))
        .collect();
    write_index(
        dir,
        &json!({"metadata": {"total_size": 1}, "weight_map": map}),
    );
    for (shard, file) in SHARDS.iter().enumerate() {
        let part = tensors.iter().skip(shard).step_by(2);
        let part = part.map(|(name, tensor)| (name.clone(), tensor.clone()));
        write(&dir.join(file), part);
    }
}

fn write_index(dir: &Path, index: &serde_json::Value) {
    fs::write(dir.join(INDEX_FILE), index.to_string()).expect("written");
}

fn load_all(dir: &Path) -> Result<PretrainedBase, ModelFileError> {
    load(
        dir,
        &LayerSelection::All,
        &PromptText::default(),
        &Device::Cpu,
    )
}

fn assert_holds(base: &PretrainedBase, stored: &BTreeMap<String, Tensor>) {
    assert_eq!(base.tensors.len(), 3 * 9 + 1);
    for (name, found) in &base.tensors {
        assert_eq!(found.dtype(), DType::F32);
        let expected = stored[name].to_dtype(DType::F32).expect("f32");
        assert_eq!(largest_difference(found, &expected), 0.0, "{name}");
    }
}

#[test]
fn shards_in_16_bits_are_read_as_they_are() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let dir = tempfile::tempdir().expect("folder");
        let stored = weights(|_| dtype);
        write_shards(dir.path(), &stored);
        assert_holds(&load_all(dir.path()).expect("base"), &stored);
    }
    let mixed = [DType::F16, DType::F32, DType::BF16];
    let stored = weights(|at| mixed[at % 3]);
    let dir = tempfile::tempdir().expect("folder");
    write_shards(dir.path(), &stored);
    let sharded = load_all(dir.path()).expect("base");
    assert_holds(&sharded, &stored);

    let dir = tempfile::tempdir().expect("folder");
    write_config(dir.path());
    write(&dir.path().join(MODEL_FILE), stored.clone().into_iter());
    let whole = load_all(dir.path()).expect("base");
    assert_holds(&whole, &stored);
    assert_ne!(whole.sha256, sharded.sha256, "the files differ");
}

#[test]
fn the_digest_covers_every_shard() {
    let dir = tempfile::tempdir().expect("folder");
    let mut stored = weights(|_| DType::F16);
    write_shards(dir.path(), &stored);
    let before = load_all(dir.path()).expect("base").sha256;
    assert_eq!(load_all(dir.path()).expect("base").sha256, before);
    for name in stored.keys().take(2).cloned().collect::<Vec<_>>() {
        let changed = (&stored[&name] + 1.0).expect("changed");
        let kept = stored.insert(name.clone(), changed).expect("it was there");
        write_shards(dir.path(), &stored);
        assert_ne!(load_all(dir.path()).expect("base").sha256, before, "{name}");
        stored.insert(name, kept);
    }
}

#[test]
fn layers_are_picked_across_shards_and_a_prompt_finds_its_rows() {
    let dir = tempfile::tempdir().expect("folder");
    let stored = weights(|_| DType::BF16);
    write_shards(dir.path(), &stored);
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"?": 0, "next": 1, "item": 2}, "unk_token": "?"},
    });
    fs::write(dir.path().join(TOKENIZER_FILE), tokenizer.to_string()).expect("written");
    let text = PromptText {
        prefix: "item next".to_owned(),
        suffix: "next".to_owned(),
    };
    let layers = LayerSelection::Interval { step: 2, count: 2 };
    let base = load(dir.path(), &layers, &text, &Device::Cpu).expect("base");
    assert_eq!(base.layers, [0, 2]);
    let second = &base.tensors["model.layers.1.mlp.up_proj.weight"];
    let expected = &stored["model.layers.2.mlp.up_proj.weight"];
    let expected = expected.to_dtype(DType::F32).expect("f32");
    assert_eq!(largest_difference(second, &expected), 0.0);
    assert_eq!(base.prompt.prefix_tokens, [2, 1]);
    let rows = Tensor::new(&[2u32, 1, 1], &Device::Cpu).expect("rows");
    let table = stored[EMBEDDINGS].to_dtype(DType::F32).expect("f32");
    let expected = table.index_select(&rows, 0).expect("rows");
    let found = base.prompt_embeddings.expect("embeddings");
    assert_eq!(largest_difference(&found, &expected), 0.0);
    let header = header(dir.path(), &text).expect("header");
    assert_eq!(header.prompt, base.prompt);
    let means = token_means(dir.path(), &["", "item next", "next"], &Device::Cpu).expect("means");
    let rows = table.index_select(&Tensor::new(&[1u32, 2], &Device::Cpu).expect("rows"), 0);
    let both = rows.and_then(|rows| rows.mean(0)).expect("mean");
    let one = |at: usize| means.get(at).expect("row");
    let nothing = both.zeros_like().expect("zeros");
    assert_eq!(largest_difference(&one(0), &nothing), 0.0);
    assert!(largest_difference(&one(1), &both) < 1e-6);
    let next = table.get(1).expect("row");
    assert_eq!(largest_difference(&one(2), &next), 0.0);
    let long = format!("{}{}", "item ".repeat(256), "next ".repeat(1000));
    let cut = token_means(dir.path(), &[&long], &Device::Cpu).expect("means");
    let item = table.get(2).expect("row");
    assert!(largest_difference(&cut.get(0).expect("row"), &item) < 1e-6);
}

#[test]
fn words_without_a_tokenizer_are_refused_with_its_place() {
    let dir = tempfile::tempdir().expect("folder");
    write_shards(dir.path(), &weights(|_| DType::F32));
    let error = token_means(dir.path(), &["item"], &Device::Cpu).expect_err("no tokenizer");
    let said = error.to_string();
    assert!(
        said.contains(TOKENIZER_FILE) && said.contains("hint:"),
        "{said}"
    );
}

#[test]
fn a_directory_that_is_not_whole_says_what_is_wrong() {
    let dir = tempfile::tempdir().expect("folder");
    let stored = weights(|_| DType::F16);
    let name = "model.norm.weight";
    let refused = || load_all(dir.path()).expect_err("refused");

    write_shards(dir.path(), &stored);
    fs::remove_file(dir.path().join(SHARDS[1])).expect("removed");
    let error = refused().to_string();
    assert!(error.contains(SHARDS[1]), "{error}");

    for (map, part) in [
        (json!({}), "model.layers.0.input_layernorm.weight"),
        (json!({name: "../outside.safetensors"}), "file names"),
    ] {
        write_index(dir.path(), &json!({"weight_map": map}));
        let error = refused().to_string();
        assert!(error.contains(part), "{error}");
    }

    let mut spoilt = stored.clone();
    spoilt.remove(name);
    write_shards(dir.path(), &spoilt);
    assert!(matches!(refused(), ModelFileError::MissingTensor { tensor, .. } if tensor == name));

    let mut spoilt = stored.clone();
    let f64 = stored[name].to_dtype(DType::F64).expect("f64");
    spoilt.insert(name.to_owned(), f64);
    write_shards(dir.path(), &spoilt);
    assert!(matches!(refused(), ModelFileError::Unsupported { .. }));

    let mut spoilt = stored.clone();
    let infinite = (stored[name].to_dtype(DType::F32).expect("f32") * 1e6).expect("large");
    let infinite = infinite.to_dtype(DType::F16).expect("infinite in 16 bits");
    spoilt.insert(name.to_owned(), infinite);
    write_shards(dir.path(), &spoilt);
    assert!(matches!(refused(), ModelFileError::NotFinite { .. }));
}
