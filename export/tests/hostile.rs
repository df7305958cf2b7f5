//! Damaged and contradictory checkpoints are refused with a message that names the file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use slmrec_export::testing::{TinyCheckpoint, tiny_dataset};
use slmrec_export::{ExportError, ExportOptions, Model, export};

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(kind: &TinyCheckpoint) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let files = Self { folder };
        tiny_dataset().write(&files.dataset()).expect("dataset");
        kind.write(&files.checkpoint(), &files.dataset());
        files
    }

    fn checkpoint(&self) -> PathBuf {
        self.folder.path().join("checkpoint")
    }

    fn dataset(&self) -> PathBuf {
        self.folder.path().join("dataset")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.checkpoint().join(name)
    }

    fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let path = self.file(name);
        let bytes = fs::read(&path).expect("configuration");
        let mut value = serde_json::from_slice(&bytes).expect("JSON");
        edit(&mut value);
        fs::write(path, value.to_string()).expect("configuration");
    }

    fn refused(&self, words: &[&str]) {
        let message = Model::read(&self.checkpoint())
            .expect_err("refused")
            .to_string();
        for word in words {
            assert!(
                message.contains(word),
                "{message:?} says nothing of {word:?}"
            );
        }
    }
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn edit_tensors(path: &Path, edit: impl FnOnce(&mut Tensors)) {
    let bytes = fs::read(path).expect("weights");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut tensors: Tensors = file
        .iter()
        .map(|(name, view)| {
            let parts = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            (name.to_owned(), parts)
        })
        .collect();
    edit(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).expect("sizes agree");
        (name, view)
    });
    fs::write(
        path,
        safetensors::serialize(views, None).expect("serializes"),
    )
    .expect("weights");
}

const NORM: &str = "model.norm.weight";

#[test]
fn missing_and_cut_files() {
    for name in [
        "config.json",
        "recommender.json",
        "model.safetensors",
        "recommender.safetensors",
    ] {
        let files = Files::new(&TinyCheckpoint::item());
        let good = fs::read(files.file(name)).expect("file");
        for cut in [0, 1, 7, 9, 100, good.len() / 2, good.len() - 1] {
            fs::write(files.file(name), &good[..cut]).expect("cut");
            files.refused(&[name]);
        }
        fs::remove_file(files.file(name)).expect("remove");
        files.refused(&[name]);
    }
}

#[test]
fn contradictory_configurations() {
    let edits: [(&str, Value, &str); 15] = [
        ("num_key_value_heads", json!(4), "num_key_value_heads"),
        ("num_key_value_heads", json!(0), "num_key_value_heads"),
        ("num_attention_heads", json!(5), "num_attention_heads"),
        ("num_attention_heads", json!(0), "num_attention_heads"),
        ("hidden_size", json!(1_000_000_000_u64), "hidden_size"),
        ("intermediate_size", json!(0), "intermediate_size"),
        ("num_hidden_layers", json!(1_u64 << 40), "num_hidden_layers"),
        ("num_hidden_layers", json!(3), "model.layers.2"),
        ("head_dim", json!(7), "head_dim"),
        ("vocab_size", json!(9), "vocab_size"),
        ("rms_norm_eps", json!(-1.0), "rms_norm_eps"),
        ("rope_theta", json!(0.0), "rope_theta"),
        ("hidden_act", json!("gelu"), "silu"),
        ("rope_scaling", json!({"factor": 2}), "rope_scaling"),
        (
            "rope_parameters",
            json!({"rope_type": "llama3"}),
            "rope_parameters",
        ),
    ];
    for (field, value, word) in edits {
        let files = Files::new(&TinyCheckpoint::item());
        files.edit_json("config.json", |config| config[field] = value);
        files.refused(&[word]);
    }
    let edits = [
        ("format_version", json!(2), "format_version"),
        ("max_history", json!(0), "max_history"),
        ("max_history", json!(1_u64 << 40), "max_history"),
        ("items", json!(31), "item_embeddings"),
        ("items", json!(u64::MAX), "items"),
        ("item_dim", json!(1 << 20), "item_dim"),
        ("surprise", json!(1), "surprise"),
    ];
    for (field, value, word) in edits {
        let files = Files::new(&TinyCheckpoint::item());
        files.edit_json("recommender.json", |config| config[field] = value);
        files.refused(&["recommender", word]);
    }
}

#[test]
fn prompts_that_do_not_fit_the_readout() {
    let files = Files::new(&TinyCheckpoint::response());
    files.edit_json("recommender.json", |config| {
        config["readout"] = json!("item")
    });
    files.refused(&["suffix_tokens"]);
    let files = Files::new(&TinyCheckpoint::item());
    files.edit_json("recommender.json", |config| {
        config["readout"] = json!("response")
    });
    files.refused(&["suffix_tokens"]);
}

#[test]
fn tensors_of_the_wrong_kind() {
    let edit = |edit: fn(&mut Tensors), words: &[&str]| {
        let files = Files::new(&TinyCheckpoint::item());
        edit_tensors(&files.file("model.safetensors"), edit);
        files.refused(words);
    };
    edit(|t| drop(t.remove(NORM)), &[NORM, "none"]);
    edit(
        |t| t.entry(NORM.into()).or_insert_with(|| unreachable!()).0 = Dtype::I32,
        &[NORM, "I32"],
    );
    edit(
        |t| t.entry(NORM.into()).or_insert_with(|| unreachable!()).1 = vec![6, 8],
        &[NORM, "[6, 8]"],
    );
    for bad in [f32::NAN, f32::INFINITY] {
        let files = Files::new(&TinyCheckpoint::item());
        edit_tensors(&files.file("model.safetensors"), |t| {
            let (_, _, bytes) = t.get_mut(NORM).expect("the norm");
            bytes[..4].copy_from_slice(&bad.to_le_bytes());
        });
        files.refused(&[NORM, "finite"]);
    }
    edit(
        |t| {
            let lora = (Dtype::F32, vec![1], vec![0; 4]);
            t.insert("model.layers.0.self_attn.q_proj.lora_A.weight".into(), lora);
        },
        &["lora_A"],
    );
    let files = Files::new(&TinyCheckpoint::item());
    edit_tensors(&files.file("recommender.safetensors"), |t| {
        let (_, _, bytes) = t.get_mut("item_embeddings.weight").expect("embeddings");
        bytes[..4].copy_from_slice(&1.0f32.to_le_bytes());
    });
    files.refused(&["item_embeddings", "padding"]);
}

#[test]
fn half_precision_weights_are_read() {
    let files = Files::new(&TinyCheckpoint::item());
    let wide = Model::read(&files.checkpoint()).expect("f32");
    for dtype in [Dtype::F16, Dtype::BF16] {
        let files = Files::new(&TinyCheckpoint::item());
        edit_tensors(&files.file("model.safetensors"), |tensors| {
            for (kind, _, bytes) in tensors.values_mut() {
                let values = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
                let narrow = |v: f32| match dtype {
                    Dtype::F16 => f16::from_f32(v).to_le_bytes(),
                    _ => bf16::from_f32(v).to_le_bytes(),
                };
                *bytes = values.flat_map(narrow).collect();
                *kind = dtype;
            }
        });
        let narrow = Model::read(&files.checkpoint()).expect("half");
        let pairs = narrow.layers[0].q_proj.iter().zip(&wide.layers[0].q_proj);
        // bf16 keeps eight bits.
        assert!(
            pairs
                .into_iter()
                .all(|(a, b)| (a - b).abs() <= b.abs() / 256.0)
        );
    }
}

#[test]
fn another_dataset_is_refused_and_nothing_is_written() {
    let files = Files::new(&TinyCheckpoint::item());
    files.edit_json("recommender.json", |config| {
        config["vocabulary_sha256"] = json!("00")
    });
    let output = files.folder.path().join("student.slmrec");
    let options = ExportOptions::default();
    let error = export(&files.checkpoint(), &files.dataset(), &options, &output);
    assert!(
        matches!(error, Err(ExportError::OtherDataset { .. })),
        "{error:?}"
    );
    assert!(!output.exists());
    let error = export(&files.checkpoint(), &files.checkpoint(), &options, &output);
    assert!(matches!(error, Err(ExportError::Dataset(_))), "{error:?}");
}
