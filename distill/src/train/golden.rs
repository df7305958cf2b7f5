//! Golden numbers from PyTorch: `tests/reference/losses.py`, `adamw.py` and `sparse_adam.py` there.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use slmrec_core::ItemIndex;

use super::adamw::AdamW;
use super::distillation::{Norm, Positions};
use super::teacher::TeacherOutput;
use super::*;
use crate::model::{
    HistoryBatch, ItemLookups, ItemTable, MaskRng, Mode, ModelOutput, Parameters, SequentialModel,
};

/// f32 sums of a few terms in another order than torch's.
const LOSS_TOLERANCE: f32 = 1e-5;
/// Five steps, each with a root and a quotient in f32.
const ADAMW_TOLERANCE: f32 = 1e-6;

fn golden(name: &str) -> HashMap<String, Tensor> {
    let path = format!(
        "{}/../tests/reference/golden/{name}.safetensors",
        env!("CARGO_MANIFEST_DIR")
    );
    candle_core::safetensors::load(path, &Device::Cpu).expect("golden numbers")
}

fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let values = |tensor: &Tensor| {
        let flat = tensor.flatten_all().expect("flat");
        flat.to_vec1::<f32>().expect("values")
    };
    for (f, e) in values(found).iter().zip(values(expected)) {
        let near = (f - e).abs() <= tolerance * (1.0 + e.abs());
        assert!(near, "{what}: {f}, expected {e}");
    }
}

/// A student whose outputs are the trainable tensors themselves.
struct Leaves {
    parameters: Parameters,
    states: HashMap<usize, Var>,
    users: Var,
    items: Var,
}

impl Leaves {
    fn new(golden: &HashMap<String, Tensor>) -> Self {
        let mut parameters = Parameters::default();
        let mut insert = |name: &str| parameters.insert(name, &golden[name]).expect("leaf");
        let states = HashMap::from([(1, insert("student.0")), (2, insert("student.1"))]);
        let (users, items) = (insert("users"), insert("items"));
        Self {
            parameters,
            states,
            users,
            items,
        }
    }
}

impl SequentialModel for Leaves {
    fn forward(
        &self,
        _batch: &HistoryBatch,
        _mode: Mode<'_>,
        state_layers: &[usize],
    ) -> candle_core::Result<ModelOutput> {
        let state = |layer| self.states[layer].as_tensor().clone();
        Ok(ModelOutput {
            user_vectors: self.users.as_tensor().clone(),
            states: state_layers.iter().map(state).collect(),
        })
    }

    fn item_table(&self) -> ItemTable<'_> {
        self.items.as_tensor().into()
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn num_layers(&self) -> usize {
        2
    }

    fn max_history(&self) -> usize {
        3
    }
}

/// A teacher of four layers that remembers what it would say.
struct Remembered(HashMap<String, Tensor>);

impl TeacherStates for Remembered {
    fn num_layers(&self) -> usize {
        4
    }

    fn hidden_size(&self) -> usize {
        6
    }

    fn num_items(&self) -> usize {
        self.0["teacher_items"].dims()[0] - 1
    }

    fn item_embeddings(&self) -> Result<Tensor, TrainError> {
        Ok(self.0["teacher_items"].clone())
    }

    fn fingerprint(&self) -> &str {
        "golden"
    }

    fn at(
        &self,
        batch: &TrainingBatch,
        positions: &[u32],
        layers: &[usize],
    ) -> Result<TeacherOutput, TrainError> {
        assert_eq!(layers, [2, 4]);
        let at = |name: &str| objective::rows_at(&self.0[name], batch, positions);
        Ok(TeacherOutput {
            states: vec![at("teacher.0")?, at("teacher.1")?],
            user_vectors: at("teacher_users")?,
            top: None,
        })
    }
}

fn golden_batch() -> TrainingBatch {
    let items = |rows: &[u32]| rows.iter().copied().map(ItemIndex).collect::<Vec<_>>();
    let (first, second) = (items(&[3, 1, 4]), items(&[2, 6]));
    TrainingBatch {
        histories: HistoryBatch::new(&[&first, &second], &Device::Cpu).expect("batch"),
        windows: vec![0, 1],
        mode: Targets::All,
        target_positions: vec![0, 1, 2, 3, 4],
        targets: vec![1, 4, 7, 6, 5],
        negatives: None,
        prior: None,
        seen: None,
        share: Share::WHOLE,
    }
}

fn distillation<'a>(
    golden: &HashMap<String, Tensor>,
    student: &Leaves,
    teacher: &'a Remembered,
    positions: Positions,
    norm: Norm,
) -> Distillation<'a> {
    let settings = DistillSettings {
        lambda_cos: 0.7,
        lambda_norm: 0.3,
        lambda_ms: 0.5,
        lambda_kd: 0.9,
        temperature: 2.0,
        top_k: 0,
        blocks: 2,
        norm,
        positions,
    };
    let objective = Distillation::new(settings, student, Some(teacher), 1).expect("objective");
    for (name, var) in objective.parameters().iter() {
        var.set(&golden[&golden_name(name)]).expect("set");
    }
    objective
}

/// `blocks.0.head.weight` is `head.0` in the reference.
fn golden_name(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    format!("{}.{}", parts[2], parts[1])
}

#[test]
fn every_term_and_its_gradients() {
    let golden = golden("losses");
    let teacher = Remembered(golden.clone());
    for (positions, where_) in [(Positions::All, "all"), (Positions::Last, "last")] {
        for (norm, form) in [(Norm::Squared, "squared"), (Norm::Unsquared, "unsquared")] {
            let student = Leaves::new(&golden);
            let objective = distillation(&golden, &student, &teacher, positions, norm);
            let mut rng = MaskRng::new(1, 1);
            let losses = objective
                .loss(&student, &golden_batch(), &mut rng)
                .expect("loss");
            let case = format!("{where_}.{form}");
            let check = |name: &str, found: &Tensor| {
                let name = format!("{case}.{name}");
                assert_close(&name, found, &golden[&name], LOSS_TOLERANCE);
            };
            assert_eq!(losses.terms.len(), 5);
            for (name, value) in &losses.terms {
                let value = Tensor::new(*value as f32, &Device::Cpu).expect("value");
                check(name, &value);
            }
            check("total", &losses.total);
            let gradients = losses.total.backward().expect("backward");
            let of = |var: &Var| gradients.get(var).expect("gradient").clone();
            for (name, var) in student.parameters().iter() {
                check(&format!("gradient.{name}"), &of(var));
            }
            for (name, var) in objective.parameters().iter() {
                check(&format!("gradient.{}", golden_name(name)), &of(var));
            }
        }
    }
}

#[test]
fn five_steps_of_adamw_with_clipping() {
    let golden = golden("adamw");
    let mut parameters = Parameters::default();
    for (name, value) in &golden {
        if let Some(name) = name.strip_prefix("start.") {
            parameters.insert(name, value).expect("parameter");
        }
    }
    let settings = TrainSettings {
        clip_norm: 1.0,
        weight_decay: 0.1,
        learning_rate_scales: [("objective.".to_owned(), 0.1)].into(),
        ..TrainSettings::default()
    };
    let mut optimizer = AdamW::new(&parameters, &settings).expect("optimizer");
    for (step, rate) in [0.01, 0.02, 0.03, 0.02, 0.01].into_iter().enumerate() {
        // The gradient of sum(parameter * g) is g.
        let mut loss = Tensor::new(0f32, &Device::Cpu).expect("zero");
        for (name, var) in parameters.iter() {
            let gradient = &golden[&format!("gradient.{step}.{name}")];
            let product = (var.as_tensor() * gradient).expect("product");
            loss = (loss + product.sum_all().expect("sum")).expect("loss");
        }
        let gradients = loss.backward().expect("backward");
        let norm = optimizer.update(&gradients, None, rate).expect("update");
        let norm = Tensor::new(norm as f32, &Device::Cpu).expect("norm");
        let what = format!("norm.{step}");
        assert_close(&what, &norm, &golden[&what], ADAMW_TOLERANCE);
    }
    for slot in optimizer.slots() {
        for (role, found) in [
            ("end", &slot.var),
            ("first_moment", &slot.first_moment),
            ("second_moment", &slot.second_moment),
        ] {
            let what = format!("{role}.{}", slot.name);
            assert_close(&what, found, &golden[&what], ADAMW_TOLERANCE);
        }
    }
}

/// A table of which every step reads some rows, through the lookups that training makes.
#[test]
fn five_steps_of_sparse_adam() {
    let golden = golden("sparse_adam");
    let mut parameters = Parameters::default();
    let table = parameters.insert("table", &golden["start"]).expect("table");
    let settings = TrainSettings {
        clip_norm: f64::MAX,
        weight_decay: 0.0,
        ..TrainSettings::default()
    };
    let mut optimizer = AdamW::new(&parameters, &settings).expect("optimizer");
    for (step, rate) in [0.01, 0.02, 0.03, 0.02, 0.01].into_iter().enumerate() {
        let rows = golden[&format!("rows.{step}")].to_dtype(DType::U32);
        let rows: Vec<u32> = rows.and_then(|rows| rows.to_vec1()).expect("rows");
        let lookups = ItemLookups::default();
        let read = lookups.lookup(&table, &rows).expect("read");
        let loss = (read * &golden[&format!("values.{step}")]).and_then(|x| x.sum_all());
        let gradients = loss.and_then(|loss| loss.backward()).expect("backward");
        (optimizer.update(&gradients, Some(&lookups), rate)).expect("update");
    }
    let slot = &optimizer.slots()[0];
    for (what, found) in [
        ("end", &slot.var),
        ("first_moment", &slot.first_moment),
        ("second_moment", &slot.second_moment),
    ] {
        assert_close(what, found, &golden[what], ADAMW_TOLERANCE);
    }
}

#[test]
fn teachers_that_do_not_fit_are_refused() {
    let golden = golden("losses");
    let student = Leaves::new(&golden);
    let teacher = Remembered(golden);
    let with = |blocks, teacher| {
        let settings = DistillSettings {
            blocks,
            ..DistillSettings::default()
        };
        Distillation::new(settings, &student, teacher, 1).err()
    };
    assert!(matches!(
        with(4, Some(&teacher as &dyn TeacherStates)),
        Some(TrainError::Blocks { who: "student", .. })
    ));
    assert!(matches!(with(2, None), Some(TrainError::Setting { .. })));
    let alone = DistillSettings {
        lambda_cos: 0.0,
        lambda_norm: 0.0,
        blocks: 2,
        ..DistillSettings::default()
    };
    let alone = Distillation::new(alone, &student, None, 1).expect("supervision without a teacher");
    assert_eq!(alone.parameters().iter().count(), 1);
}
