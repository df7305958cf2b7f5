//! The baselines against PyTorch (`tests/reference/baselines.py`), and the rules that every model keeps.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use slmrec_core::ItemIndex;

use super::*;
use crate::model::testing::assert_same_everywhere;
use crate::model::{HistoryBatch, MaskRng, Mode, ReadAt, SequentialModel};

/// f32 sums of a few layers in another order, relative to a tensor's largest value.
const TOLERANCE: f32 = 2e-5;
const ITEMS: usize = 7;

fn golden() -> HashMap<String, Tensor> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/reference/golden/baselines.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).expect("golden numbers")
}

fn gru4rec(dropout: f64, device: &Device) -> Gru4Rec {
    let settings = Gru4RecSettings {
        hidden_size: 6,
        num_hidden_layers: 2,
        max_history: 4,
        dropout,
    };
    Gru4Rec::new(settings, ITEMS, 5, device).expect("model")
}

fn bert4rec(dropout: f64, device: &Device) -> Bert4Rec {
    let settings = Bert4RecSettings {
        hidden_size: 6,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 8,
        max_history: 4,
        dropout,
    };
    Bert4Rec::new(settings, ITEMS, 5, device).expect("model")
}

fn batch(histories: &[&[u32]], device: &Device) -> HistoryBatch {
    let rows: Vec<Vec<ItemIndex>> = (histories.iter())
        .map(|h| h.iter().copied().map(ItemIndex).collect())
        .collect();
    let rows: Vec<&[ItemIndex]> = rows.iter().map(Vec::as_slice).collect();
    HistoryBatch::new(&rows, device).expect("batch")
}

/// User vectors and gradients of all parameters, by their names in the golden file.
fn figures(model: &dyn SequentialModel, batch: &HistoryBatch, kind: &str) -> Vec<(String, Tensor)> {
    let device = batch.items.device();
    let golden = golden();
    for (name, var) in model.parameters().iter() {
        let value = &golden[&format!("{kind}.parameter.{name}")];
        var.set(&value.to_device(device).expect("device"))
            .expect("set");
    }
    let upstream = golden[&format!("{kind}.upstream")]
        .to_device(device)
        .expect("device");
    let mut rng = MaskRng::new(1, 1);
    let output = model
        .forward(batch, Mode::Train(&mut rng), &[])
        .expect("forward");
    let users = output.user_vectors;
    let read = upstream
        .ne(0f64)
        .and_then(|read| read.to_dtype(users.dtype()));
    let visible = (&users * read.expect("read")).expect("visible");
    let loss = (&users * &upstream)
        .and_then(|x| x.sum_all())
        .expect("loss");
    let gradients = loss.backward().expect("backward");
    let mut found = vec![(format!("{kind}.users"), visible)];
    for (name, var) in model.parameters().iter() {
        let gradient = gradients.get(var).expect(name).clone();
        found.push((format!("{kind}.gradient.{name}"), gradient));
    }
    found
}

fn assert_golden(found: &[(String, Tensor)]) {
    let golden = golden();
    for (name, found) in found {
        let expected = &golden[name];
        assert_eq!(found.dims(), expected.dims(), "{name}");
        let values = |x: &Tensor| {
            x.flatten_all()
                .and_then(|x| x.to_vec1::<f32>())
                .expect("values")
        };
        let (found, expected) = (values(found), values(expected));
        let size = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
        // A bias of the keys moves all scores of a query alike, which the softmax does not see.
        let unseen = name.ends_with("k_proj.bias");
        assert!(unseen || size > 1e-3, "{name}: nothing to compare");
        let size = if unseen { 1.0 } else { size };
        for (f, e) in found.iter().zip(&expected) {
            assert!(
                (f - e).abs() <= TOLERANCE * size,
                "{name}: {f}, expected {e}"
            );
        }
    }
}

#[test]
fn gru4rec_agrees_with_pytorch_everywhere() {
    let figures = |device: &Device| {
        let histories: [&[u32]; 2] = [&[3, 1, 4], &[2, 6]];
        figures(&gru4rec(0.0, device), &batch(&histories, device), "gru4rec")
    };
    assert_golden(&figures(&Device::Cpu));
    assert_same_everywhere("GRU4Rec", TOLERANCE, figures);
}

#[test]
fn bert4rec_agrees_with_pytorch_everywhere() {
    let figures = |device: &Device| {
        let model = bert4rec(0.0, device);
        let mask = model.mask_row();
        let histories: [&[u32]; 2] = [&[3, mask, 4], &[mask, 6]];
        figures(&model, &batch(&histories, device), "bert4rec")
    };
    assert_golden(&figures(&Device::Cpu));
    assert_same_everywhere("BERT4Rec", TOLERANCE, |device| {
        let mut figures = figures(device);
        // Zero but for rounding.
        figures.retain(|(name, _)| !name.ends_with("k_proj.bias"));
        figures
    });
}

fn last(model: &dyn SequentialModel, histories: &[&[u32]]) -> Vec<Vec<f32>> {
    let batch = batch(histories, &Device::Cpu).reading(ReadAt::LastItem);
    let output = model.forward(&batch, Mode::Eval, &[]).expect("forward");
    let users = output.user_vectors.squeeze(1).expect("one a history");
    users.to_vec2().expect("users")
}

#[test]
fn batch_single_and_padded_are_the_same() {
    let (gru, bert) = (gru4rec(0.3, &Device::Cpu), bert4rec(0.3, &Device::Cpu));
    let models: [&dyn SequentialModel; 2] = [&gru, &bert];
    let histories: [&[u32]; 3] = [&[3, 1, 4, 2], &[5], &[2, 6]];
    for model in models {
        let together = last(model, &histories);
        for (history, together) in histories.iter().zip(&together) {
            let alone = &last(model, &[history])[0];
            for (t, a) in together.iter().zip(alone) {
                assert!((t - a).abs() < 1e-5, "{t} and {a}");
            }
        }
        assert!(together[0] != together[1], "a vector that says nothing");
    }
}

#[test]
fn what_is_saved_is_what_is_loaded_and_damage_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let (gru, bert) = (gru4rec(0.3, &Device::Cpu), bert4rec(0.3, &Device::Cpu));
    let (at_gru, at_bert) = (dir.path().join("gru"), dir.path().join("bert"));
    let provenance = serde_json::json!({ "seed": 5 });
    gru.save(&at_gru, "v", provenance.clone()).expect("saved");
    bert.save(&at_bert, "v", provenance).expect("saved");
    let histories: [&[u32]; 2] = [&[3, 1], &[2, 6, 7]];
    let loaded = Gru4Rec::load(&at_gru, &Device::Cpu).expect("loaded");
    assert_eq!(last(&gru, &histories), last(&loaded, &histories));
    let loaded = Bert4Rec::load(&at_bert, &Device::Cpu).expect("loaded");
    assert_eq!(last(&bert, &histories), last(&loaded, &histories));
    let other = Gru4Rec::load(&at_bert, &Device::Cpu)
        .err()
        .expect("another kind");
    assert!(other.to_string().contains("config.json"), "{other}");
    // Heads are in no tensor's shape, so only the settings can tell.
    let config = at_bert.join("config.json");
    let text = std::fs::read_to_string(&config).expect("config");
    let text = text.replace("\"num_attention_heads\": 2", "\"num_attention_heads\": 0");
    std::fs::write(&config, text).expect("damaged");
    let none = Bert4Rec::load(&at_bert, &Device::Cpu)
        .err()
        .expect("no heads");
    assert!(
        none.to_string().contains("num_attention_heads: 0"),
        "{none}"
    );
    let weights = at_gru.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).expect("weights");
    *bytes.last_mut().expect("bytes") ^= 1;
    std::fs::write(&weights, bytes).expect("damaged");
    let damaged = Gru4Rec::load(&at_gru, &Device::Cpu).err().expect("damage");
    assert!(damaged.to_string().contains("SHA-256"), "{damaged}");
}

#[test]
fn shapes_that_do_not_work_are_refused() {
    let device = &Device::Cpu;
    let none = Gru4RecSettings {
        hidden_size: 0,
        ..Gru4RecSettings::default()
    };
    assert!(Gru4Rec::new(none, ITEMS, 1, device).is_err());
    let heads = Bert4RecSettings {
        num_attention_heads: 3,
        ..Bert4RecSettings::default()
    };
    assert!(Bert4Rec::new(heads, ITEMS, 1, device).is_err());
    let long: [&[u32]; 1] = [&[1, 2, 3, 4, 5]];
    let long = batch(&long, device);
    assert!(
        gru4rec(0.0, device)
            .forward(&long, Mode::Eval, &[])
            .is_err()
    );
    assert!(
        bert4rec(0.0, device)
            .forward(&long, Mode::Eval, &[])
            .is_err()
    );
}
