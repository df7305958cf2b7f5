//! The sweep in place against the tensor operations, and against itself on other thread counts.

use candle_core::Device;

use super::*;
use crate::model::parameters::normal;
use crate::model::testing::{assert_same_everywhere, kernels_off};

/// Odd sizes, one longer than a piece of work, and a scalar.
const SHAPES: [&[usize]; 5] = [&[130, 257], &[7], &[1], &[3, 5, 2], &[16384]];
/// A root and a quotient in f32, in another order of operations; relative to the largest value.
const TOLERANCE: f32 = 2e-6;

fn parameters(device: &Device) -> Parameters {
    let mut parameters = Parameters::default();
    for (at, shape) in SHAPES.iter().enumerate() {
        let value = normal(*shape, 1.0, at as u64, DType::F32, device).expect("value");
        let name = format!("p{at}");
        parameters.insert(name, &value).expect("parameter");
    }
    parameters
}

fn gradients(parameters: &Parameters, step: u64) -> GradStore {
    let products = parameters.iter().enumerate().map(|(at, (_, var))| {
        let seed = 100 * step + at as u64;
        let gradient = normal(var.shape(), 0.3, seed, DType::F32, var.device());
        let product = (var.as_tensor() * gradient.expect("gradient")).expect("product");
        product.sum_all().expect("sum")
    });
    let products: Vec<Tensor> = products.collect();
    let loss = Tensor::stack(&products, 0).and_then(|terms| terms.sum_all());
    loss.and_then(|loss| loss.backward()).expect("backward")
}

fn settings() -> TrainSettings {
    TrainSettings {
        weight_decay: 0.1,
        ..TrainSettings::default()
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.flatten_all().expect("flat");
    flat.to_vec1().expect("values")
}

/// Parameters and moments.
fn state(optimizer: &AdamW) -> Vec<(String, Tensor)> {
    let of_slot = |slot: &Slot| {
        let vars = [
            ("value", &slot.var),
            ("first", &slot.first_moment),
            ("second", &slot.second_moment),
        ];
        vars.map(|(role, var)| (format!("{role} of {}", slot.name), var.as_detached_tensor()))
    };
    optimizer.slots().iter().flat_map(of_slot).collect()
}

fn all_values(optimizer: &AdamW) -> Vec<Vec<f32>> {
    (state(optimizer).iter())
        .map(|(_, tensor)| values(tensor))
        .collect()
}

/// Three steps, clipped in each: the optimizer after them, and the norms of the gradients.
fn run(device: &Device) -> (AdamW, Vec<f64>) {
    let parameters = parameters(device);
    let mut optimizer = AdamW::new(&parameters, &settings()).expect("optimizer");
    let norms = (1..4).map(|step| {
        let gradients = gradients(&parameters, step);
        optimizer.update(&gradients, None, 0.01).expect("update")
    });
    let norms = norms.collect();
    (optimizer, norms)
}

#[test]
fn three_steps_are_the_same_everywhere() {
    assert_same_everywhere("AdamW", TOLERANCE, |device| {
        let (optimizer, norms) = run(device);
        for slot in optimizer.slots() {
            assert_eq!(slot.is_fused(), device.is_cpu() && !kernels_off());
        }
        assert!(norms.iter().all(|norm| *norm > 1.0), "clipping is on");
        let norms = Tensor::new(norms.iter().map(|n| *n as f32).collect::<Vec<_>>(), device);
        let mut figures = state(&optimizer);
        figures.push(("norms".to_owned(), norms.expect("norms")));
        figures
    });
}

#[test]
fn the_number_of_threads_does_not_show() {
    let bits = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let (optimizer, norms) = pool.expect("pool").install(|| run(&Device::Cpu));
        let values = all_values(&optimizer).concat();
        let values: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
        let norms: Vec<u64> = norms.iter().map(|n| n.to_bits()).collect();
        (values, norms)
    };
    let one = bits(1);
    for threads in [2, 3, 5] {
        assert!(bits(threads) == one, "{threads} threads");
    }
}

/// A table's rows without a gradient, and what the optimizer knows of them, stay as they are; the
/// others move as they would in a table of nothing else.
#[test]
fn rows_with_a_gradient_move_and_no_others() {
    const ROWS: [u32; 3] = [0, 3, 6];
    let device = &Device::Cpu;
    let table = normal((7, 5), 1.0, 1, DType::F32, device).expect("table");
    let places = Tensor::new(&ROWS, device).expect("rows");
    let part = table.index_select(&places, 0).expect("part");
    let dense = |value: &Tensor| {
        let mut parameters = Parameters::default();
        parameters.insert("table", value).expect("parameter");
        AdamW::new(&parameters, &settings()).expect("optimizer")
    };
    assert_same_everywhere("rows", TOLERANCE, |device| {
        let whole = dense(&table.to_device(device).expect("table"));
        let alone = dense(&part.to_device(device).expect("part"));
        let (mut whole, mut alone) = (whole, alone);
        for step in 1..4 {
            let values = normal((3, 5), 0.9, step, DType::F32, device).expect("gradient");
            let rows = RowGradient {
                rows: ROWS.to_vec(),
                values: values.clone(),
            };
            let norm = whole.apply(&[Gradient::Rows(rows)], 0.01).expect("rows");
            let same = alone
                .apply(&[Gradient::Dense(values)], 0.01)
                .expect("dense");
            assert!((norm - same).abs() < 1e-5, "{norm} and {same}");
        }
        let found = state(&whole);
        for ((name, found), (_, alone)) in found.iter().zip(state(&alone)) {
            let found: Vec<Vec<f32>> = found.to_vec2().expect(name);
            let expected: Vec<Vec<f32>> = alone.to_vec2().expect(name);
            for (row, expected) in ROWS.iter().zip(&expected) {
                assert_eq!(&found[*row as usize], expected, "{name}, row {row}");
            }
            for row in (0..7).filter(|row| !ROWS.contains(row)) {
                let row = row as usize;
                let before: Vec<Vec<f32>> = table.to_vec2().expect("table");
                let expected = if name.starts_with("value") {
                    before[row].clone()
                } else {
                    vec![0.0; 5]
                };
                assert_eq!(found[row], expected, "{name}, row {row}");
            }
        }
        found
    });
}

#[test]
fn other_element_types_go_by_tensor_operations() {
    let mut parameters = Parameters::default();
    let value = normal((4, 3), 1.0, 1, DType::F32, &Device::Cpu).expect("value");
    let half = value.to_dtype(DType::BF16).expect("bf16");
    let var = parameters.insert("half", &half).expect("parameter");
    let mut optimizer = AdamW::new(&parameters, &settings()).expect("optimizer");
    assert!(!optimizer.slots()[0].is_fused());
    let loss = var.as_tensor().sqr().and_then(|x| x.sum_all());
    let gradients = loss.and_then(|loss| loss.backward()).expect("backward");
    optimizer.update(&gradients, None, 0.1).expect("update");
    let after = var.as_tensor().to_dtype(DType::F32).expect("f32");
    // The first step of Adam moves every value by the learning rate, towards zero here.
    for (before, after) in values(&value).iter().zip(values(&after)) {
        let expected = before * 0.99 - 0.1 * before.signum();
        assert!((after - expected).abs() < 0.02, "{before} to {after}");
    }
}

#[test]
fn what_is_not_finite_is_named_and_changes_nothing() {
    let parameters = parameters(&Device::Cpu);
    let mut optimizer = AdamW::new(&parameters, &settings()).expect("optimizer");
    let before = all_values(&optimizer);
    let mut loss = Tensor::new(0f32, &Device::Cpu).expect("zero");
    for (name, var) in parameters.iter() {
        let factor = if name == "p3" { f64::NAN } else { 1.0 };
        let sum = (var.as_tensor() * factor).and_then(|x| x.sum_all());
        loss = (loss + sum.expect("sum")).expect("loss");
    }
    let gradients = loss.backward().expect("backward");
    match optimizer.update(&gradients, None, 0.1) {
        Err(TrainError::NonFinite { step: 1, what }) => assert!(what.contains("p3"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(all_values(&optimizer), before);
    assert_eq!(optimizer.step, 0);
}
