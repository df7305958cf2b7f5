//! Golden numbers from PyTorch (`tests/reference/sasrec.py`), and what every model promises.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use slmrec_core::ItemIndex;

use super::*;
use crate::train::{CrossEntropy, Objective as _, Targets, TrainingData};

/// Two f32 implementations of two layers of width 8 that add in another order.
const GOLDEN_TOLERANCE: f32 = 2e-5;
/// The same sums over other batch shapes: only the order inside a matrix product may differ.
const BATCH_TOLERANCE: f32 = 1e-5;

fn golden() -> HashMap<String, Tensor> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/reference/golden/sasrec.safetensors"
    );
    candle_core::safetensors::load(path, &Device::Cpu).expect("golden numbers")
}

fn settings() -> SasRecSettings {
    SasRecSettings {
        hidden_size: 8,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 12,
        max_history: 6,
        dropout: 0.25,
        ..SasRecSettings::default()
    }
}

fn golden_model(golden: &HashMap<String, Tensor>) -> SasRec {
    golden_model_of(settings(), golden)
}

fn golden_model_of(settings: SasRecSettings, golden: &HashMap<String, Tensor>) -> SasRec {
    let mut parameters = Parameters::default();
    for (name, _) in shapes(&settings, 11, None) {
        let value = &golden[&format!("parameter.{name}")];
        parameters.insert(name, value).expect("parameter");
    }
    SasRec::from_parameters(settings, 11, parameters, None).expect("model")
}

fn cosine() -> SasRecSettings {
    SasRecSettings {
        scores: Scores::Cosine,
        temperature: 0.5,
        ..settings()
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.flatten_all().expect("flat");
    flat.to_vec1().expect("values")
}

fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    for (f, e) in values(found).iter().zip(values(expected)) {
        assert!(
            (f - e).abs() <= tolerance * (1.0 + e.abs()),
            "{what}: {f}, expected {e}"
        );
    }
}

fn items(rows: &[u32]) -> Vec<ItemIndex> {
    rows.iter().copied().map(ItemIndex).collect()
}

/// The training sequences behind `HISTORIES` and `TARGETS` of the reference.
fn golden_data() -> TrainingData {
    let sequences = vec![
        items(&[3, 1, 4, 1, 5, 9]),
        items(&[9, 2, 6]),
        items(&[6, 5, 3, 11, 8]),
    ];
    TrainingData::from_sequences(sequences, 11, 6, Targets::All).expect("data")
}

#[test]
fn golden_states_loss_and_gradients() {
    is_golden(settings(), "");
}

/// Directions instead of vectors, in the history, too.
#[test]
fn golden_states_loss_and_gradients_by_cosine() {
    is_golden(cosine(), "cosine.");
}

fn is_golden(settings: SasRecSettings, prefix: &str) {
    let golden = golden();
    let model = golden_model_of(settings.clone(), &golden);
    let batch = golden_data()
        .batch(&[0, 1, 2], &Device::Cpu)
        .expect("batch");
    let output = model
        .forward(&batch.histories, Mode::Eval, &[1, 2])
        .expect("forward");
    let valid = Tensor::new(batch.target_positions.as_slice(), &Device::Cpu).expect("positions");
    let rows = |values: &Tensor| {
        let flat = values.reshape(((), 8)).expect("flat");
        flat.index_select(&valid, 0).expect("rows")
    };
    let check = |what: &str, found: &Tensor| {
        let expected = &golden[&format!("{prefix}{what}")];
        assert_close(what, found, expected, GOLDEN_TOLERANCE);
    };
    check("state.1", &rows(&output.states[0]));
    check("user_vectors", &rows(&output.user_vectors));
    assert_eq!(values(&output.states[1]), values(&output.user_vectors));
    // With the same table a dropout of 0 makes training mode exact.
    let mut still = golden_model_of(settings, &golden);
    still.settings.dropout = 0.0;
    let losses = CrossEntropy::default()
        .loss(&still, &batch, &mut crate::model::MaskRng::new(1, 1))
        .expect("loss");
    check("loss", &losses.total);
    let gradients = losses.total.backward().expect("backward");
    for (name, var) in still.parameters().iter() {
        let gradient = gradients.get(var).expect("gradient");
        check(&format!("gradient.{name}"), gradient);
    }
}

#[test]
fn every_parameter_gets_a_finite_gradient_that_is_not_zero() {
    each_parameter_has_a_gradient(settings());
    each_parameter_has_a_gradient(cosine());
}

fn each_parameter_has_a_gradient(settings: SasRecSettings) {
    let model = SasRec::new(settings, 11, 5, &Device::Cpu).expect("model");
    let batch = golden_data()
        .batch(&[0, 1, 2], &Device::Cpu)
        .expect("batch");
    let losses = CrossEntropy::default()
        .loss(&model, &batch, &mut crate::model::MaskRng::new(1, 1))
        .expect("loss");
    let gradients = losses.total.backward().expect("backward");
    for (name, var) in model.parameters().iter() {
        let gradient = values(gradients.get(var).expect("gradient"));
        assert!(gradient.iter().all(|g| g.is_finite()), "{name}");
        assert!(gradient.iter().any(|g| *g != 0.0), "{name}");
    }
    let table = gradients.get(model.item_table().weight).expect("gradient");
    assert!(values(table)[..8].iter().all(|g| *g == 0.0), "padding row");
}

#[test]
fn batch_and_single_and_padded_are_the_same() {
    batch_and_single_agree(&golden_model(&golden()));
    batch_and_single_agree(&golden_model_of(cosine(), &golden()));
}

fn batch_and_single_agree(model: &SasRec) {
    let histories = [items(&[3, 1, 4, 1, 5]), items(&[9]), items(&[6, 5, 3])];
    let slices: Vec<&[ItemIndex]> = histories.iter().map(Vec::as_slice).collect();
    let batch = HistoryBatch::new(&slices, &Device::Cpu).expect("batch");
    let together = model.forward(&batch, Mode::Eval, &[]).expect("forward");
    for (row, history) in slices.iter().enumerate() {
        let single = HistoryBatch::new(&[history], &Device::Cpu).expect("single");
        let alone = model.forward(&single, Mode::Eval, &[]).expect("forward");
        let of_row = together.user_vectors.narrow(0, row, 1).expect("row");
        let of_row = of_row.narrow(1, 0, history.len()).expect("length");
        assert_close("row", &of_row, &alone.user_vectors, BATCH_TOLERANCE);
    }
}

#[test]
fn refuses_long_histories_and_unknown_layers() {
    let model = golden_model(&golden());
    let long = HistoryBatch::new(&[&items(&[1; 7])], &Device::Cpu).expect("batch");
    assert!(model.forward(&long, Mode::Eval, &[]).is_err());
    let short = HistoryBatch::new(&[&items(&[1])], &Device::Cpu).expect("batch");
    for layer in [0, 3] {
        assert!(model.forward(&short, Mode::Eval, &[layer]).is_err());
    }
}

#[test]
fn refuses_settings_outside_their_range() {
    type Spoil = fn(&mut SasRecSettings);
    let spoiled: [(&str, Spoil); 6] = [
        ("hidden_size", |s| s.hidden_size = 0),
        ("num_attention_heads", |s| s.num_attention_heads = 3),
        ("max_history", |s| s.max_history = usize::MAX),
        ("dropout", |s| s.dropout = 1.0),
        ("temperature", |s| {
            (s.scores, s.temperature) = (Scores::Cosine, 0.0);
        }),
        // It would be read by nothing.
        ("temperature", |s| s.temperature = 0.5),
    ];
    for (field, spoil) in spoiled {
        let mut settings = settings();
        spoil(&mut settings);
        match SasRec::new(settings, 11, 1, &Device::Cpu) {
            Err(SasRecError::Setting { name, .. }) => assert_eq!(name, field),
            _ => panic!("{field} was not refused"),
        }
    }
}

#[test]
fn comes_back_from_disk_as_it_was() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let model = SasRec::new(settings(), 11, 5, &Device::Cpu).expect("model");
    let saved = model
        .save(dir.path(), "abc", serde_json::json!({"seed": 5}))
        .expect("save");
    let (loaded, config) = SasRec::load(dir.path(), &Device::Cpu).expect("load");
    assert_eq!(config, saved);
    for ((name, left), (_, right)) in model.parameters().iter().zip(loaded.parameters().iter()) {
        assert_eq!(values(left), values(right), "{name}");
    }
}

#[test]
fn damaged_files_are_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let model = SasRec::new(settings(), 11, 5, &Device::Cpu).expect("model");
    let save = || {
        let saved = model.save(dir.path(), "abc", serde_json::Value::Null);
        saved.expect("save")
    };
    let refused = |dir: &Path| SasRec::load(dir, &Device::Cpu).err();
    let weights = dir.path().join(WEIGHTS_FILE);
    let config = dir.path().join(CONFIG_FILE);
    save();
    let mut bytes = std::fs::read(&weights).expect("weights");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&weights, &bytes).expect("write");
    assert!(matches!(
        refused(dir.path()),
        Some(SasRecError::Content { .. })
    ));
    let mut other = save();
    other.settings.intermediate_size = 13;
    let json = serde_json::to_vec(&other).expect("json");
    std::fs::write(&config, json).expect("write");
    assert!(matches!(
        refused(dir.path()),
        Some(SasRecError::Content { .. })
    ));
    std::fs::write(&config, b"{\"format_version\": 1").expect("write");
    assert!(matches!(
        refused(dir.path()),
        Some(SasRecError::Content { .. })
    ));
    std::fs::remove_file(&config).expect("remove");
    assert!(matches!(refused(dir.path()), Some(SasRecError::Io { .. })));
}
