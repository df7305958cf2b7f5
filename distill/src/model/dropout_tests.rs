//! What `model.dropout` of a language-model recommender drops, and when.

use candle_core::{DType, Device, IndexOp, Tensor};
use slmrec_core::ItemIndex;

use super::ops::attention::Segments;
use super::parameters::normal;
use super::recommender::{ITEM_PROJECTION, ITEM_PROJECTION_BIAS, USER_PROJECTION};
use super::tests::tiny_config;
use super::{
    BodyTraining, HistoryBatch, LlmRecommender, LlmSettings, MaskRng, Mode, PretrainedBase,
    SequentialModel,
};

/// The same products in another order of summation.
const TOLERANCE: f32 = 1e-5;
const HISTORY: [u32; 4] = [3, 1, 4, 1];

fn recommender(dropout: f64) -> candle_core::Result<LlmRecommender> {
    let base = PretrainedBase::random(&tiny_config(), 3, &Device::Cpu)?;
    let items = normal((10, 6), 1.0, 3, DType::F32, &Device::Cpu)?;
    let settings = LlmSettings {
        max_history: 5,
        training: BodyTraining::Frozen,
        dropout,
        ..LlmSettings::default()
    };
    LlmRecommender::new(&base, &items, &settings, 7, &Device::Cpu)
}

fn users(model: &LlmRecommender, mode: Mode<'_>) -> Tensor {
    let history = HISTORY.map(ItemIndex);
    let batch = HistoryBatch::new(&[&history], &Device::Cpu).expect("batch");
    let users = model.forward(&batch, mode, &[]).expect("runs").user_vectors;
    users.i(0).expect("one row")
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    let difference = (a - b).and_then(|d| d.abs()?.flatten_all()?.max(0)?.to_scalar());
    difference.expect("tensors of one shape")
}

#[test]
fn items_that_are_read_and_states_that_are_projected_lose_values() {
    let model = recommender(0.4).expect("a model");
    let own = model.own_tensors().expect("tensors");
    let mut rng = MaskRng::new(9, 2);
    let [of_items, of_states] = [(), ()].map(|()| rng.mask(0.4));
    let product = |x: &Tensor, weight: &str| x.matmul(&own[weight].t().expect("a matrix"));
    let rows = Tensor::new(&HISTORY, &Device::Cpu).expect("rows");
    let table = model.item_embeddings().expect("a table");
    let items = of_items.apply(&table.index_select(&rows, 0).expect("rows"));
    let inputs = product(&items.expect("dropped"), ITEM_PROJECTION)
        .and_then(|x| x.broadcast_add(&own[ITEM_PROJECTION_BIAS]))
        .expect("projected");
    let segments = Segments {
        prefix: 0,
        lengths: vec![HISTORY.len()],
    };
    let (states, _) = (model.body())
        .forward(&inputs, segments, None, &mut Mode::Eval, &[])
        .expect("runs");
    let states = of_states.apply(&states).expect("dropped");
    let expected = product(&states, USER_PROJECTION).expect("projected");
    let found = users(&model, Mode::Train(&mut MaskRng::new(9, 2)));
    assert!(largest_difference(&found, &expected) < TOLERANCE);
    let kept = users(&model, Mode::Eval);
    assert!(largest_difference(&found, &kept) > 0.1);
    // Whole where nobody trains, or nothing is to be dropped.
    let without = recommender(0.0).expect("a model");
    assert_eq!(largest_difference(&kept, &users(&without, Mode::Eval)), 0.0);
    let trained = users(&without, Mode::Train(&mut MaskRng::new(9, 2)));
    assert_eq!(largest_difference(&kept, &trained), 0.0);
}

#[test]
fn no_probability_is_refused() {
    for dropout in [-0.1, 1.0, f64::NAN] {
        let refused = recommender(dropout).expect_err("refused").to_string();
        assert!(refused.contains("model.dropout"), "{refused}");
    }
}
