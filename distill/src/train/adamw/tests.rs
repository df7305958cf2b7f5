//! The sweep in place against the tensor operations, and against itself on other thread counts.

use candle_core::Device;

use super::*;
use crate::model::parameters::normal;

/// Odd sizes, one longer than a piece of work, and a scalar.
const SHAPES: [&[usize]; 5] = [&[130, 257], &[7], &[1], &[3, 5, 2], &[16384]];
/// A root and a quotient in f32, in another order of operations.
const TOLERANCE: f32 = 2e-6;

fn parameters() -> Parameters {
    let mut parameters = Parameters::default();
    for (at, shape) in SHAPES.iter().enumerate() {
        let value = normal(*shape, 1.0, at as u64, DType::F32, &Device::Cpu).expect("value");
        let name = format!("p{at}");
        parameters.insert(name, &value).expect("parameter");
    }
    parameters
}

fn gradients(parameters: &Parameters, step: u64) -> GradStore {
    let mut loss = Tensor::new(0f32, &Device::Cpu).expect("zero");
    for (at, (_, var)) in parameters.iter().enumerate() {
        let seed = 100 * step + at as u64;
        let gradient = normal(var.shape(), 0.3, seed, DType::F32, &Device::Cpu);
        let product = (var.as_tensor() * gradient.expect("gradient")).expect("product");
        loss = (loss + product.sum_all().expect("sum")).expect("loss");
    }
    loss.backward().expect("backward")
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

fn all_values(optimizer: &AdamW) -> Vec<Vec<f32>> {
    let tensors = |slot: &Slot| {
        [&slot.var, &slot.first_moment, &slot.second_moment].map(|var| values(var.as_tensor()))
    };
    optimizer.slots().iter().flat_map(tensors).collect()
}

/// Three steps by the sweep.
fn run() -> (Vec<Vec<f32>>, Vec<f64>) {
    let parameters = parameters();
    let mut optimizer = AdamW::new(&parameters, &settings()).expect("optimizer");
    let norms = (1..4).map(|step| {
        let gradients = gradients(&parameters, step);
        optimizer.update(&gradients, 0.01).expect("update")
    });
    let norms = norms.collect();
    (all_values(&optimizer), norms)
}

#[test]
fn the_sweep_equals_the_tensor_operations() {
    let (found, norms) = run();
    let parameters = parameters();
    let optimizer = AdamW::new(&parameters, &settings()).expect("optimizer");
    for step in 1..4 {
        let store = gradients(&parameters, step);
        let gradients = optimizer.collect(&store, step).expect("gradients");
        let squares = gradients.iter().map(|g| {
            let sum = g.sqr().and_then(|g| g.sum_all()).expect("sum");
            f64::from(sum.to_scalar::<f32>().expect("scalar"))
        });
        let norm = squares.sum::<f64>().sqrt();
        let near = norms[step as usize - 1];
        assert!((norm - near).abs() < 1e-4 * norm, "{norm} and {near}");
        let clip = (1.0 / (near + CLIP_EPSILON)).min(1.0);
        assert!(clip < 1.0, "clipping is on");
        for (slot, gradient) in optimizer.slots().iter().zip(&gradients) {
            assert!(slot.is_fused());
            let change = slot.change(0.01, clip, step);
            slot.update_slow(gradient, &change).expect("update");
        }
    }
    for (found, expected) in found.iter().zip(all_values(&optimizer)) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= TOLERANCE * (1.0 + e.abs()), "{f} and {e}");
        }
    }
}

#[test]
fn the_number_of_threads_does_not_show() {
    let bits = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let (values, norms) = pool.expect("pool").install(run);
        let values: Vec<u32> = values.concat().iter().map(|v| v.to_bits()).collect();
        let norms: Vec<u64> = norms.iter().map(|n| n.to_bits()).collect();
        (values, norms)
    };
    let one = bits(1);
    for threads in [2, 3, 5] {
        assert!(bits(threads) == one, "{threads} threads");
    }
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
    optimizer.update(&gradients, 0.1).expect("update");
    let after = var.as_tensor().to_dtype(DType::F32).expect("f32");
    // The first step of Adam moves every value by the learning rate, towards zero here.
    for (before, after) in values(&value).iter().zip(values(&after)) {
        let expected = before * 0.99 - 0.1 * before.signum();
        assert!((after - expected).abs() < 0.02, "{before} to {after}");
    }
}

#[test]
fn what_is_not_finite_is_named_and_changes_nothing() {
    let parameters = parameters();
    let mut optimizer = AdamW::new(&parameters, &settings()).expect("optimizer");
    let before = all_values(&optimizer);
    let mut loss = Tensor::new(0f32, &Device::Cpu).expect("zero");
    for (name, var) in parameters.iter() {
        let factor = if name == "p3" { f64::NAN } else { 1.0 };
        let sum = (var.as_tensor() * factor).and_then(|x| x.sum_all());
        loss = (loss + sum.expect("sum")).expect("loss");
    }
    let gradients = loss.backward().expect("backward");
    match optimizer.update(&gradients, 0.1) {
        Err(TrainError::NonFinite { step: 1, what }) => assert!(what.contains("p3"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(all_values(&optimizer), before);
    assert_eq!(optimizer.step, 0);
}
