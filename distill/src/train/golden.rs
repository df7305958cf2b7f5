//! Golden numbers from PyTorch: `tests/reference/losses.py`, `adamw.py` and `sparse_adam.py` there.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use slmrec_core::ItemIndex;

use super::adamw::AdamW;
use super::distillation::{BlockMap, Norm, Positions};
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

/// A model whose outputs are the trainable tensors themselves.
struct Leaves {
    parameters: Parameters,
    states: HashMap<usize, Var>,
    users: Var,
    items: Var,
    /// Final norm and user projection of a teacher.
    readout: Option<(Var, Var)>,
    layers: usize,
}

impl Leaves {
    fn student(golden: &HashMap<String, Tensor>) -> Self {
        Self::of(golden, ("student", "users", "items"), [1, 2])
    }

    fn teacher(golden: &HashMap<String, Tensor>) -> Self {
        let names = ("teacher", "teacher_users", "teacher_items");
        let mut teacher = Self::of(golden, names, [2, 4]);
        let mut insert = |name: &str| {
            let leaf = teacher.parameters.insert(name, &golden[name]);
            leaf.expect("leaf")
        };
        teacher.readout = Some((insert("teacher_norm"), insert("teacher_projection")));
        teacher
    }

    fn of(
        golden: &HashMap<String, Tensor>,
        (states, users, items): (&str, &str, &str),
        layers: [usize; 2],
    ) -> Self {
        let mut parameters = Parameters::default();
        let mut insert = |name: &str| parameters.insert(name, &golden[name]).expect("leaf");
        let state = |at: usize| format!("{states}.{at}");
        let states = [
            (layers[0], insert(&state(0))),
            (layers[1], insert(&state(1))),
        ];
        let (users, items) = (insert(users), insert(items));
        Self {
            parameters,
            states: HashMap::from(states),
            users,
            items,
            readout: None,
            layers: layers[1],
        }
    }
}

/// As torch computes it, in plain operations.
fn read_out(state: &Tensor, norm: &Tensor, projection: &Tensor) -> candle_core::Result<Tensor> {
    candle_nn::ops::rms_norm_slow(state, norm, 1e-5)?.matmul(&projection.t()?)
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

    fn read_out(&self, state: &Tensor) -> candle_core::Result<Tensor> {
        let (norm, projection) = self.readout.as_ref().expect("a teacher");
        read_out(state, norm, projection)
    }

    fn item_table(&self) -> ItemTable<'_> {
        self.items.as_tensor().into()
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn num_layers(&self) -> usize {
        self.layers
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

    fn read_out(&self, state: &Tensor) -> Result<Tensor, TrainError> {
        Ok(read_out(
            state,
            &self.0["teacher_norm"],
            &self.0["teacher_projection"],
        )?)
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
        label_smoothing: 0.0,
        item_dropout: 0.0,
        share: Share::WHOLE,
    }
}

/// The settings of a case, by its name in the reference.
fn settings_of(case: &str) -> DistillSettings {
    let has = |part| case.split('.').any(|found| found == part);
    DistillSettings {
        lambda_cos: 0.7,
        lambda_norm: 0.3,
        lambda_ms: 0.5,
        lambda_kd: 0.9,
        lambda_block_kl: 0.6,
        temperature: 2.0,
        top_k: if has("top") { 3 } else { 0 },
        blocks: 2,
        block_map: BlockMap::default(),
        norm: if has("squared") {
            Norm::Squared
        } else {
            Norm::Unsquared
        },
        positions: if has("all") {
            Positions::All
        } else {
            Positions::Last
        },
    }
}

/// Runs a case and compares its terms and all gradients that torch found.
fn compare(
    case: &str,
    golden: &HashMap<String, Tensor>,
    student: &Leaves,
    teacher: &Leaves,
    objective: &Distillation<'_>,
) {
    for (name, var) in objective
        .parameters()
        .iter()
        .filter(|(name, _)| name.starts_with("blocks"))
    {
        var.set(&golden[&golden_name(name)]).expect("set");
    }
    let mut rng = MaskRng::new(1, 1);
    let losses = (objective.loss(student, &golden_batch(), &mut rng)).expect("loss");
    let check = |name: &str, found: &Tensor| {
        let name = format!("{case}.{name}");
        assert_close(&name, found, &golden[&name], LOSS_TOLERANCE);
    };
    let learns = case.ends_with("joint") || case.ends_with("detached");
    assert_eq!(losses.terms.len(), if learns { 7 } else { 6 });
    for (name, value) in &losses.terms {
        let value = Tensor::new(*value as f32, &Device::Cpu).expect("value");
        check(name, &value);
    }
    check("total", &losses.total);
    let gradients = losses.total.backward().expect("backward");
    let own = objective
        .parameters()
        .iter()
        .filter(|(name, _)| name.starts_with("blocks"));
    let own = own.map(|(name, var)| (golden_name(name), var));
    let of_models = student
        .parameters()
        .iter()
        .chain(teacher.parameters().iter());
    let leaves = of_models
        .map(|(name, var)| (name.to_owned(), var))
        .chain(own);
    let mut compared = 0;
    for (name, var) in leaves {
        match golden.get(&format!("{case}.gradient.{name}")) {
            Some(_) => {
                check(
                    &format!("gradient.{name}"),
                    gradients.get(var).expect(&name),
                );
                compared += 1;
            }
            None => assert!(gradients.get(var).is_none(), "{case}: {name} must not move"),
        }
    }
    let prefix = format!("{case}.gradient.");
    let expected = golden
        .keys()
        .filter(|name| name.starts_with(&prefix))
        .count();
    assert_eq!(compared, expected, "{case}");
}

/// `blocks.0.head.weight` is `head.0` in the reference.
fn golden_name(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    format!("{}.{}", parts[2], parts[1])
}

#[test]
fn every_term_and_its_gradients() {
    let golden = golden("losses");
    for case in [
        "all.squared",
        "all.unsquared",
        "last.squared",
        "last.unsquared",
        "all.squared.top",
        "last.squared.top",
    ] {
        let (student, teacher) = (Leaves::student(&golden), Leaves::teacher(&golden));
        let remembered = Remembered(golden.clone());
        let objective = Distillation::new(settings_of(case), &student, Some(&remembered), 1);
        let objective = objective.expect("objective");
        compare(case, &golden, &student, &teacher, &objective);
    }
}

#[test]
fn a_teacher_that_learns_gets_its_own_gradient_and_only_a_joint_one_the_students() {
    let golden = golden("losses");
    for (case, joint) in [
        ("all.squared.detached", false),
        ("all.squared.joint", true),
        ("last.unsquared.joint", true),
        ("all.squared.top.joint", true),
    ] {
        let (student, teacher) = (Leaves::student(&golden), Leaves::teacher(&golden));
        let online = OnlineTeacher::new(&teacher, "leaves", joint).expect("teacher");
        let objective = Distillation::online(settings_of(case), &student, online, 1);
        let objective = objective.expect("objective");
        assert_eq!(
            objective.describe()["online"],
            if joint { "joint" } else { "detached" }
        );
        compare(case, &golden, &student, &teacher, &objective);
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
    let student = Leaves::student(&golden);
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
