//! SASRec with titles: golden numbers, gradients of every part whatever the loss, and files.

use candle_core::{Device, Tensor};
use slmrec_core::ItemIndex;

use super::*;
use crate::evaluate::{ModelScorer, Scorer as _};
use crate::model::MaskRng;
use crate::model::parameters::normal;
use crate::model::testing::assert_same_everywhere;
use crate::train::testing::terms_and_gradients;
use crate::train::{CatalogLoss, CrossEntropy, SampledSoftmax, TrainSettings, TrainingData};

const ITEMS: usize = 11;
const TITLE_SIZE: usize = 5;
/// Two ways in f32 that add in another order.
const TOLERANCE: f32 = 2e-5;

fn settings() -> SasRecSettings {
    SasRecSettings {
        hidden_size: 8,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 12,
        max_history: 6,
        dropout: 0.0,
        ..SasRecSettings::default()
    }
}

/// Vectors of which item 4 has none.
fn vectors() -> Tensor {
    let device = &Device::Cpu;
    let rows = normal((ITEMS + 1, TITLE_SIZE), 1.0, 3, DType::F32, device).expect("vectors");
    let keep: Vec<f32> = (0..=ITEMS).map(|i| f32::from(u8::from(i != 4))).collect();
    let keep = Tensor::new(keep, device).and_then(|keep| keep.unsqueeze(1));
    rows.broadcast_mul(&keep.expect("column")).expect("vectors")
}

fn model() -> SasRec {
    model_on(&Device::Cpu)
}

fn model_on(device: &Device) -> SasRec {
    let model = SasRec::with_titles(settings(), &vectors(), 5, device).expect("model");
    // Entries as large as those of a trained table.
    for name in [ITEM_EMBEDDINGS, TITLE_PROJECTION] {
        let var = model.parameters.get(name).expect("parameter");
        let value = (var.as_detached_tensor() * 20.0).expect("values");
        var.set(&value).expect("set");
    }
    model
}

/// The model without titles whose table is the sum.
fn summed(model: &SasRec) -> SasRec {
    let mut parameters = Parameters::default();
    for (name, var) in model
        .parameters
        .iter()
        .filter(|(n, _)| *n != TITLE_PROJECTION)
    {
        let value = match name {
            ITEM_EMBEDDINGS => model.item_embeddings().expect("sum").detach(),
            _ => var.as_detached_tensor(),
        };
        parameters.insert(name, &value).expect("parameter");
    }
    SasRec::from_parameters(settings(), ITEMS, parameters, None).expect("model")
}

fn items(rows: &[u32]) -> Vec<ItemIndex> {
    rows.iter().copied().map(ItemIndex).collect()
}

fn data(catalog_loss: CatalogLoss) -> TrainingData {
    let sequences = vec![
        items(&[3, 1, 4, 1, 5, 9]),
        items(&[9, 2, 6]),
        items(&[6, 5, 3, 11, 8]),
    ];
    let settings = TrainSettings {
        catalog_loss,
        ..TrainSettings::default()
    };
    let data = TrainingData::from_sequences(sequences, ITEMS, 6, crate::train::Targets::All);
    (data.and_then(|data| data.with_settings(&settings))).expect("data")
}

fn sampled() -> CatalogLoss {
    CatalogLoss::Sampled(SampledSoftmax {
        negatives: 7,
        ..SampledSoftmax::default()
    })
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.flatten_all().expect("flat");
    flat.to_vec1().expect("values")
}

fn assert_close(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    for (f, e) in values(found).iter().zip(values(expected)) {
        let near = (f - e).abs() <= TOLERANCE * (1.0 + e.abs());
        assert!(near, "{what}: {f}, expected {e}");
    }
}

/// Terms and gradients by name. With drawn items `whole` leaves the lookups out.
fn step(model: &SasRec, catalog_loss: CatalogLoss, whole: bool) -> Vec<(String, Tensor)> {
    let device = model.item_table().device();
    let mut batch = (data(catalog_loss).batch(&[0, 1, 2], device)).expect("batch");
    if whole {
        batch.histories.lookups = None;
    }
    terms_and_gradients(&CrossEntropy::default(), model, &batch)
}

fn named<'a>(found: &'a [(String, Tensor)], name: &str) -> &'a Tensor {
    let found = found.iter().find(|(of, _)| of == name);
    &found.unwrap_or_else(|| panic!("{name} is missing")).1
}

#[test]
fn every_parameter_gets_a_finite_gradient_that_is_not_zero() {
    for catalog_loss in [CatalogLoss::Full, sampled()] {
        let found = step(&model(), catalog_loss, false);
        let expected = model().parameters.iter().count() + 1;
        assert_eq!(found.len(), expected, "the loss and all gradients");
        for (name, gradient) in &found {
            let gradient = values(gradient);
            assert!(gradient.iter().all(|g| g.is_finite()), "{name}");
            assert!(gradient.iter().any(|g| *g != 0.0), "{name}");
        }
        let table = named(&found, "gradient of item_embeddings.weight");
        assert!(values(table)[..8].iter().all(|g| *g == 0.0), "padding row");
    }
}

/// Through E every row of the sum gets its gradient as it is, through W what the chain rule says.
#[test]
fn gradients_are_those_of_the_summed_table() {
    let model = model();
    let plain = summed(&model);
    for (catalog_loss, whole) in [
        (CatalogLoss::Full, true),
        (sampled(), true),
        (sampled(), false),
    ] {
        let found = step(&model, catalog_loss.clone(), whole);
        let expected = step(&plain, catalog_loss, true);
        for (name, expected) in &expected {
            assert_close(name, named(&found, name), expected);
        }
        let of_table = named(&expected, "gradient of item_embeddings.weight");
        let of_projection = of_table.t().and_then(|g| g.matmul(&vectors()));
        let found = named(&found, "gradient of title_projection.weight");
        assert_close("projection", found, &of_projection.expect("product"));
    }
}

#[test]
fn learns_the_same_everywhere() {
    for catalog_loss in [CatalogLoss::Full, sampled()] {
        assert_same_everywhere("SASRec with titles", TOLERANCE, |device| {
            step(&model_on(device), catalog_loss.clone(), false)
        });
    }
}

#[test]
fn reads_the_sum_in_histories_and_in_the_catalog() {
    let model = model();
    let plain = summed(&model);
    let history = items(&[3, 1, 4, 9]);
    let scores = |model: &SasRec| {
        let mut scorer = ModelScorer::new("model", model).expect("fits");
        scorer.scores(&[&history]).expect("runs").swap_remove(0)
    };
    for (found, expected) in scores(&model).iter().zip(scores(&plain)) {
        assert!((found - expected).abs() < 1e-4, "{found}, {expected}");
    }
    let batch = HistoryBatch::new(&[&history], &Device::Cpu).expect("batch");
    let users = model.forward(&batch, Mode::Eval, &[]).expect("runs");
    assert!(!users.user_vectors.track_op(), "no graph is kept");
    let sum = values(&model.item_embeddings().expect("sum"));
    let table = values(model.item_table().weight);
    assert!(sum[..8].iter().all(|v| *v == 0.0), "the padding stays zero");
    assert_eq!(sum[32..40], table[32..40], "item 4 has no title");
    assert_ne!(sum[40..48], table[40..48]);
}

#[test]
fn begins_as_the_model_without_titles() {
    let with = SasRec::with_titles(settings(), &vectors(), 5, &Device::Cpu).expect("model");
    let without = SasRec::new(settings(), ITEMS, 5, &Device::Cpu).expect("model");
    for (name, var) in without.parameters.iter() {
        let of_both = with.parameters.get(name).expect("parameter");
        assert_eq!(values(of_both), values(var), "{name}");
    }
}

#[test]
fn comes_back_from_disk_as_it_was_and_damage_is_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let model = model();
    let save = |model: &SasRec| {
        let saved = model.save(dir.path(), "abc", serde_json::Value::Null);
        saved.expect("save")
    };
    let saved = save(&model);
    assert_eq!(saved.title_size, Some(TITLE_SIZE));
    let (loaded, config) = SasRec::load(dir.path(), &Device::Cpu).expect("load");
    assert_eq!(config, saved);
    let table = |model: &SasRec| values(&model.item_embeddings().expect("sum"));
    assert_eq!(table(&loaded), table(&model));
    let found = step(&loaded, CatalogLoss::Full, false);
    named(&found, "gradient of title_projection.weight");
    for wrong in [None, Some(4), Some(0), Some(usize::MAX)] {
        let other = SasRecConfig {
            title_size: wrong,
            ..saved.clone()
        };
        let json = serde_json::to_vec(&other).expect("json");
        std::fs::write(dir.path().join(CONFIG_FILE), json).expect("write");
        let refused = SasRec::load(dir.path(), &Device::Cpu).err();
        assert!(
            matches!(refused, Some(SasRecError::Content { .. })),
            "{wrong:?}"
        );
    }
    let mut rng = MaskRng::new(1, 1);
    let batch = data(CatalogLoss::Full).batch(&[0], &Device::Cpu);
    let histories = batch.expect("batch").histories;
    assert!(
        model
            .forward(&histories, Mode::Train(&mut rng), &[2])
            .is_ok()
    );
}
