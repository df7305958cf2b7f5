//! Every fused operation against the same in tensor operations, values and gradients.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

use super::attention::{Heads, Rope, Segments, causal_attention, causal_attention_slow};
use super::linear::{frozen_linear, linear};
use super::norm::{rms_norm, rms_norm_slow};
use super::swiglu::{swiglu, swiglu_slow};
use crate::model::parameters::normal;
use crate::model::tests::largest_difference;

/// f32 sums in another order, on values of order 1.
const TOLERANCE: f32 = 1e-5;

fn random(shape: &[usize], seed: u64) -> Var {
    let values = normal(shape, 1.0, seed, DType::F32, &Device::Cpu).expect("values");
    Var::from_tensor(&values).expect("variable")
}

/// Compares outputs, and the gradients of `sum(output * probe)`.
fn assert_same(name: &str, inputs: &[Var], fused: &Tensor, slow: &Tensor) {
    let difference = largest_difference(fused, slow);
    assert!(difference < TOLERANCE, "{name}: {difference}");
    let probe = random(fused.dims(), 99).as_detached_tensor();
    let gradients = |y: &Tensor| {
        (y * &probe)
            .and_then(|l| l.sum_all()?.backward())
            .expect("backward")
    };
    let (fused, slow) = (gradients(fused), gradients(slow));
    for (index, input) in inputs.iter().enumerate() {
        let (a, b) = (
            fused.get(input).expect("fused"),
            slow.get(input).expect("slow"),
        );
        let difference = largest_difference(a, b);
        assert!(
            difference < 10.0 * TOLERANCE,
            "{name}, gradient {index}: {difference}"
        );
    }
}

#[test]
fn fused_rms_norm() {
    let (x, w) = (random(&[5, 19], 1), random(&[19], 2));
    let fused = rms_norm(&x, &w, 1e-5, true).expect("fused");
    let slow = rms_norm_slow(&x, &w, 1e-5).expect("slow");
    assert_same("rms_norm", &[x, w], &fused, &slow);
}

#[test]
fn fused_swiglu() {
    let (gate, up) = (random(&[5, 19], 1), random(&[5, 19], 2));
    let (fused, slow) = (
        swiglu(&gate, &up).expect("fused"),
        swiglu_slow(&gate, &up).expect("slow"),
    );
    assert_same("swiglu", &[gate, up], &fused, &slow);
}

#[test]
fn fused_linear() {
    let (x, w) = (random(&[5, 7], 1), random(&[3, 7], 2));
    let slow = x.matmul(&w.t().expect("transpose")).expect("slow");
    assert_same(
        "linear",
        &[x.clone(), w.clone()],
        &linear(&x, &w).expect("fused"),
        &slow,
    );
    let frozen = frozen_linear(&x, &w).expect("frozen");
    assert_same("frozen_linear", &[x], &frozen, &slow);
    let gradients = frozen
        .sum_all()
        .and_then(|l| l.backward())
        .expect("backward");
    assert!(
        gradients.get(&w).is_none(),
        "a frozen weight's gradient is not computed"
    );
}

#[test]
fn fused_attention() {
    let heads = Heads {
        query: 6,
        key_value: 2,
        dim: 8,
    };
    for (prefix, lengths) in [
        (0, vec![4, 1, 7]),
        (5, vec![3, 6, 1]),
        (1, vec![9]),
        (0, vec![1]),
    ] {
        let segments = Arc::new(Segments { prefix, lengths });
        let rope = Rope::new(segments.longest() + 2, heads.dim, 10_000.0);
        let tokens = segments.tokens();
        let inputs = [
            random(&[tokens, 48], 1),
            random(&[tokens, 16], 2),
            random(&[tokens, 16], 3),
        ];
        let qkv = (
            inputs[0].as_tensor(),
            inputs[1].as_tensor(),
            inputs[2].as_tensor(),
        );
        let fused = causal_attention(qkv, heads, &segments, &rope).expect("fused");
        let slow = causal_attention_slow(qkv, heads, &segments, &rope).expect("slow");
        assert_same(&format!("attention {segments:?}"), &inputs, &fused, &slow);
    }
}
