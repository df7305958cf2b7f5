//! Every fused operation against the same in tensor operations, values and gradients.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

use super::attention::{Rope, Segments};
use super::linear::{frozen_linear, linear};
use super::norm::{layer_norm, layer_norm_slow, rms_norm, rms_norm_slow};
use crate::model::decoder_layer::{Builder, DecoderLayer, Pass};
use crate::model::llama::{Tensors, tensor_shapes};
use crate::model::parameters::{Parameters, normal};
use crate::model::tests::{largest_difference, tiny_config};
use crate::model::{BodyTraining, LoraSettings, MaskRng, Mode, TargetModule};

/// f32 sums in another order, on values of order 1.
const TOLERANCE: f32 = 1e-5;

pub(crate) fn random(shape: &[usize], seed: u64) -> Var {
    let values = normal(shape, 1.0, seed, DType::F32, &Device::Cpu).expect("values");
    Var::from_tensor(&values).expect("variable")
}

/// Compares outputs, and the gradients of `sum(output * probe)`.
pub(crate) fn assert_same(name: &str, inputs: &[Var], fused: &Tensor, slow: &Tensor) {
    // Sums of many terms are larger, and so are their roundings.
    let size = |x: &Tensor| largest_difference(x, &x.zeros_like().expect("zeros")).max(1.0);
    let difference = largest_difference(fused, slow) / size(slow);
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
        let difference = largest_difference(a, b) / size(b);
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
fn fused_layer_norm() {
    // Fewer values than a register holds, several registers, and more rows than one partial sum.
    for (rows, width) in [(1, 1), (5, 19), (3, 70), (300, 33)] {
        let (x, w) = (random(&[rows, width], 1), random(&[width], 2));
        let bias = random(&[width], 3);
        let fused = layer_norm(&x, &w, &bias, 1e-5).expect("fused");
        let slow = layer_norm_slow(&x, &w, &bias, 1e-5).expect("slow");
        // Keeps the sums over many rows of order 1.
        let [fused, slow] = [fused, slow].map(|y| (y * 0.1).expect("scaled"));
        let name = format!("layer_norm {rows} x {width}");
        assert_same(&name, &[x, w, bias], &fused, &slow);
    }
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

/// A layer of odd sizes with random weights and, where there are adapters, random adapters.
fn layer(training: &BodyTraining, positions: usize) -> (DecoderLayer, Parameters) {
    let config = slmrec_export::checkpoint::LlamaConfig {
        hidden_size: 37,
        intermediate_size: 45,
        num_hidden_layers: 1,
        num_attention_heads: 6,
        num_key_value_heads: Some(2),
        head_dim: Some(10),
        ..tiny_config()
    };
    let tensors: Tensors = (tensor_shapes(&config).into_iter().enumerate())
        .map(|(at, (name, shape))| (name, random(&shape, at as u64).as_detached_tensor()))
        .map(|(name, value)| (name, (value * 0.3).expect("scaled")))
        .collect();
    let mut builder = Builder {
        tensors: &tensors,
        training,
        seed: 3,
        parameters: Parameters::default(),
    };
    let rope = Rope::new(positions, 10, 10_000.0);
    let layer = DecoderLayer::new(0, &config, &rope, &mut builder).expect("layer");
    for (at, (name, var)) in builder.parameters.iter().enumerate() {
        if name.contains("lora") {
            let value = random(var.dims(), 100 + at as u64).as_detached_tensor();
            var.set(&(value * 0.1).expect("scaled")).expect("set");
        }
    }
    (layer, builder.parameters)
}

/// One layer, fused and in candle's operations: outputs, and the gradients of the input and of every
/// trainable tensor.
fn assert_layer(
    training: &BodyTraining,
    segments: Segments,
    reads: Option<Vec<u32>>,
    recompute: bool,
) {
    let name = format!("{training:?} {segments:?} {reads:?} {recompute}");
    let segments = Arc::new(segments);
    let (mut layer, parameters) = layer(training, segments.longest() + 1);
    let x = random(&[segments.tokens(), 37], 50);
    let dropout = match training {
        BodyTraining::Lora(lora) => lora.dropout,
        BodyTraining::Full | BodyTraining::Frozen => 0.0,
    };
    let reads = reads.map(Arc::new);
    let run = |layer: &DecoderLayer| {
        let mut rng = MaskRng::new(1, 1);
        let mut pass = Pass {
            segments: segments.clone(),
            mode: &mut Mode::Train(&mut rng),
            dropout,
            recompute,
        };
        layer.forward(&x, reads.clone(), &mut pass).expect(&name)
    };
    let fused = run(&layer);
    assert!(layer.fused.take().is_some(), "it was fused");
    let slow = run(&layer);
    let mut inputs = vec![x.clone()];
    inputs.extend(parameters.iter().map(|(_, var)| var.clone()));
    assert_same(&name, &inputs, &fused, &slow);
}

fn lora(dropout: f64, target_modules: Vec<TargetModule>) -> BodyTraining {
    BodyTraining::Lora(LoraSettings {
        r: 3,
        alpha: 5.0,
        dropout,
        target_modules,
    })
}

#[test]
fn a_fused_layer_is_the_layer() {
    for (prefix, lengths) in [
        (0, vec![4, 1, 7]),
        (5, vec![3, 6, 1]),
        (1, vec![40]),
        (0, vec![1]),
    ] {
        for training in [
            BodyTraining::Frozen,
            BodyTraining::Full,
            lora(0.0, TargetModule::ALL.to_vec()),
            lora(0.2, TargetModule::ALL.to_vec()),
            lora(0.2, vec![TargetModule::VProj, TargetModule::UpProj]),
        ] {
            let lengths = lengths.clone();
            assert_layer(&training, Segments { prefix, lengths }, None, false);
        }
    }
}

#[test]
fn a_layer_that_is_read_here_and_there() {
    let segments = |prefix: usize| Segments {
        prefix,
        lengths: vec![4, 1, 7],
    };
    for training in [BodyTraining::Full, lora(0.2, TargetModule::ALL.to_vec())] {
        assert_layer(&training, segments(0), Some(vec![3, 4, 11]), false);
        assert_layer(&training, segments(2), Some((2..14).collect()), false);
        assert_layer(&training, segments(2), Some(vec![0, 5, 13]), false);
        assert_layer(&training, segments(2), Some(vec![7]), false);
    }
}

#[test]
fn a_layer_that_keeps_its_input_only() {
    for training in [BodyTraining::Full, lora(0.2, TargetModule::ALL.to_vec())] {
        let segments = |prefix| Segments {
            prefix,
            lengths: vec![4, 1, 7],
        };
        assert_layer(&training, segments(0), None, true);
        assert_layer(&training, segments(2), Some(vec![5, 6, 13]), true);
    }
}

#[test]
fn in_evaluation_no_graph_is_kept() {
    let (layer, _) = layer(&BodyTraining::Full, 8);
    let mut pass = Pass {
        segments: Arc::new(Segments {
            prefix: 0,
            lengths: vec![5],
        }),
        mode: &mut Mode::Eval,
        dropout: 0.0,
        recompute: false,
    };
    let y = layer
        .forward(&random(&[5, 37], 1), None, &mut pass)
        .expect("forward");
    assert!(!y.track_op());
}
