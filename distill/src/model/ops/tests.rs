//! Every fused operation against the same in tensor operations, values and gradients.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

use super::attention::{Rope, Segments};
use super::linear::{frozen_linear, linear};
use super::norm::{layer_norm, rms_norm};
use crate::model::decoder_layer::{Builder, DecoderLayer, Pass};
use crate::model::llama::{Tensors, tensor_shapes};
use crate::model::parameters::{Parameters, normal};
use crate::model::testing::{assert_same_everywhere, gpus, in_tensor_operations, kernels_off};
use crate::model::tests::{largest_difference, tiny_config};
use crate::model::{BodyTraining, LoraSettings, MaskRng, Mode, TargetModule};

/// f32 sums in another order, relative to the largest value.
const TOLERANCE: f32 = 2e-5;

pub(crate) fn random(shape: &[usize], seed: u64, device: &Device) -> Var {
    let values = normal(shape, 1.0, seed, DType::F32, device).expect("values");
    Var::from_tensor(&values).expect("variable")
}

/// The output, and the gradients of `sum(output * probe)`.
fn figures(inputs: &[Var], output: &Tensor) -> Vec<(String, Tensor)> {
    let probe = random(output.dims(), 99, output.device()).as_detached_tensor();
    let gradients = (output * &probe)
        .and_then(|l| l.sum_all()?.backward())
        .expect("backward");
    let gradient = |(at, input): (usize, &Var)| {
        let gradient = gradients.get(input).expect("gradient").clone();
        (format!("gradient {at}"), gradient)
    };
    let mut figures = vec![("output".to_owned(), output.clone())];
    figures.extend(inputs.iter().enumerate().map(gradient));
    figures
}

/// Compares two outputs, and the gradients of `sum(output * probe)`, relative to the largest value
/// where that is above 1.
pub(crate) fn assert_same(name: &str, inputs: &[Var], fused: &Tensor, slow: &Tensor) {
    let pairs = figures(inputs, fused)
        .into_iter()
        .zip(figures(inputs, slow));
    for (at, ((what, fused), (_, slow))) in pairs.enumerate() {
        let size = largest_difference(&slow, &slow.zeros_like().expect("zeros")).max(1.0);
        let difference = largest_difference(&fused, &slow) / size;
        // A gradient is a sum of more terms than the output.
        let tolerance = if at == 0 { TOLERANCE } else { 5.0 * TOLERANCE };
        assert!(difference < tolerance, "{name}, {what}: {difference}");
    }
}

#[test]
fn where_comparisons_run() {
    in_tensor_operations(|device| eprintln!("tensor operations on {:?}", device.location()));
    for (name, device) in gpus() {
        match device {
            Ok(_) => eprintln!("{name}: compared there, too"),
            Err(error) => eprintln!("{name}: NOT compared there: {error}"),
        }
    }
}

#[test]
fn fused_rms_norm() {
    assert_same_everywhere("rms_norm", TOLERANCE, |device| {
        let (x, w) = (random(&[5, 19], 1, device), random(&[19], 2, device));
        let y = rms_norm(&x, &w, 1e-5, true).expect("norm");
        figures(&[x, w], &y)
    });
}

#[test]
fn fused_layer_norm() {
    // Fewer values than a register holds, several registers, and more rows than one partial sum.
    for (rows, width) in [(1, 1), (5, 19), (3, 70), (300, 33)] {
        let name = format!("layer_norm {rows} x {width}");
        assert_same_everywhere(&name, TOLERANCE, |device| {
            let x = random(&[rows, width], 1, device);
            let [w, bias] = [2, 3].map(|seed| random(&[width], seed, device));
            let y = layer_norm(&x, &w, &bias, 1e-5).expect("norm");
            figures(&[x, w, bias], &y)
        });
    }
}

#[test]
fn linear_is_a_product() {
    in_tensor_operations(|device| {
        let (x, w) = (random(&[5, 7], 1, device), random(&[3, 7], 2, device));
        let slow = x.matmul(&w.t().expect("transpose")).expect("slow");
        let inputs = [x.clone(), w.clone()];
        let expected = figures(&inputs, &slow);
        let found = figures(&inputs, &linear(&x, &w).expect("linear"));
        let frozen = frozen_linear(&x, &w).expect("frozen");
        let of_frozen = figures(&inputs[..1], &frozen);
        for ((name, expected), (_, found)) in
            (expected.iter().zip(&found)).chain(expected.iter().zip(&of_frozen))
        {
            let difference = largest_difference(found, expected);
            assert!(difference < TOLERANCE, "{name}: {difference}");
        }
        let gradients = frozen.sum_all().and_then(|l| l.backward());
        assert!(
            gradients.expect("backward").get(&w).is_none(),
            "a frozen weight's gradient is not computed"
        );
    });
}

/// A layer of odd sizes with random weights and, where there are adapters, random adapters.
fn layer(training: &BodyTraining, positions: usize, device: &Device) -> (DecoderLayer, Parameters) {
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
        .map(|(at, (name, shape))| (name, random(&shape, at as u64, device).as_detached_tensor()))
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
            let value = random(var.dims(), 100 + at as u64, device).as_detached_tensor();
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
    let (segments, reads) = (Arc::new(segments), reads.map(Arc::new));
    let dropout = match training {
        BodyTraining::Lora(lora) => lora.dropout,
        BodyTraining::Full | BodyTraining::Frozen => 0.0,
    };
    assert_same_everywhere(&name, TOLERANCE, |device| {
        let (layer, parameters) = layer(training, segments.longest() + 1, device);
        assert_eq!(layer.is_fused(), device.is_cpu() && !kernels_off());
        let x = random(&[segments.tokens(), 37], 50, device);
        let mut rng = MaskRng::new(1, 1);
        let mut pass = Pass {
            segments: segments.clone(),
            mode: &mut Mode::Train(&mut rng),
            dropout,
            recompute,
        };
        let y = layer.forward(&x, reads.clone(), &mut pass).expect(&name);
        let mut inputs = vec![x];
        inputs.extend(parameters.iter().map(|(_, var)| var.clone()));
        figures(&inputs, &y)
    });
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
    let run = |device: &Device| {
        let (layer, _) = layer(&BodyTraining::Full, 8, device);
        let mut pass = Pass {
            segments: Arc::new(Segments {
                prefix: 0,
                lengths: vec![5],
            }),
            mode: &mut Mode::Eval,
            dropout: 0.0,
            recompute: false,
        };
        let x = random(&[5, 37], 1, device);
        let y = layer.forward(&x, None, &mut pass).expect("forward");
        assert!(!y.track_op());
        vec![("output".to_owned(), y)]
    };
    assert_same_everywhere("evaluation", TOLERANCE, run);
}
