//! The structure of the graphs; that they compute the right thing is tested by running them,
//! across crates.

use std::collections::HashSet;

use prost::Message as _;
use slmrec_core::certificate::Quantization;
use slmrec_core::manifest::{Precision, past_name, present_name};

use super::{Form, INPUT, OUTPUT, encoder_onnx};
use crate::model::Model;
use crate::onnx::{GraphProto, ModelProto};
use crate::testing::{TinyCheckpoint, tiny_dataset};

/// What every engine has had since opset 17 and before.
const FLOAT_OPERATORS: &[&str] = &[
    "Add",
    "Cast",
    "Concat",
    "Div",
    "Gather",
    "MatMul",
    "Mul",
    "ReduceMean",
    "Reshape",
    "Shape",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Transpose",
];
const INTEGER_OPERATORS: &[&str] = &["DynamicQuantizeLinear", "MatMulInteger", "Abs", "ReduceMax"];

/// Every precision, int8 in every form.
const PRECISIONS: [(Precision, Quantization); 8] = [
    (Precision::Fp32, Quantization::Dynamic),
    (Precision::Fp16, Quantization::Dynamic),
    (Precision::Int8, Quantization::Dynamic),
    (Precision::Int8, Quantization::DynamicSigned),
    (Precision::Int8, Quantization::DynamicHalfDown),
    (Precision::Int8, Quantization::DynamicRows),
    (Precision::Int8, Quantization::WeightsOnly),
    (Precision::Int8, Quantization::Blocks4),
];

fn graph(kind: &TinyCheckpoint, precision: Precision, form: Form) -> GraphProto {
    quantized(kind, (precision, Quantization::Dynamic), form)
}

fn quantized(
    kind: &TinyCheckpoint,
    (precision, quantization): (Precision, Quantization),
    form: Form,
) -> GraphProto {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (dataset, checkpoint) = (folder.path().join("d"), folder.path().join("c"));
    tiny_dataset().write(&dataset).expect("dataset");
    kind.write(&checkpoint, &dataset);
    let model = Model::read(&checkpoint).expect("checkpoint");
    let bytes = encoder_onnx(&model, precision, quantization, form).expect("graph");
    let file = ModelProto::decode(bytes.as_slice()).expect("ONNX");
    let own = precision == Precision::Int8 && quantization == Quantization::Blocks4;
    let sets: Vec<_> = (file.opset_import.iter())
        .map(|set| (set.domain(), set.version()))
        .collect();
    let expected = [("", 17), ("com.microsoft", 1)];
    assert_eq!(sets, expected[..1 + usize::from(own)]);
    file.graph.expect("a graph")
}

fn count(graph: &GraphProto, op: &str) -> usize {
    graph
        .node
        .iter()
        .filter(|node| node.op_type() == op)
        .count()
}

#[test]
fn every_value_is_made_once_before_it_is_used() {
    for precision in PRECISIONS {
        for kind in [TinyCheckpoint::item(), TinyCheckpoint::response()] {
            let graph = quantized(&kind, precision, Form::Folded);
            let mut known: HashSet<&str> = HashSet::from([INPUT]);
            for tensor in &graph.initializer {
                assert!(known.insert(tensor.name()), "{} twice", tensor.name());
            }
            for node in &graph.node {
                for input in &node.input {
                    assert!(known.contains(input.as_str()), "{input} of {}", node.name());
                }
                for output in &node.output {
                    assert!(known.insert(output), "{output} twice");
                }
            }
            assert!(known.contains(OUTPUT));
            let used: HashSet<&str> = graph
                .node
                .iter()
                .flat_map(|n| &n.input)
                .map(|s| &**s)
                .collect();
            let idle = graph.initializer.iter().find(|t| !used.contains(t.name()));
            assert!(idle.is_none(), "{:?} is not used", idle.map(|t| t.name()));
        }
    }
}

/// Whether they are true is what `tests/tests/stated_shapes.rs` asks an engine.
#[test]
fn shapes_are_stated_of_values_that_nodes_give() {
    for (precision, quantization) in PRECISIONS {
        for kind in [TinyCheckpoint::item(), TinyCheckpoint::response()] {
            for form in [Form::Folded, Form::Plain] {
                let graph = quantized(&kind, (precision, quantization), form);
                let given: HashSet<&String> = graph.node.iter().flat_map(|n| &n.output).collect();
                let mut stated = HashSet::new();
                for value in &graph.value_info {
                    let name = value.name();
                    assert!(given.contains(&name.to_owned()), "{name} is of no node");
                    assert!(stated.insert(name), "{name} twice");
                }
                // Per layer: queries, keys and values in heads, and the heads together again.
                assert!(stated.len() >= 4 * kind.num_hidden_layers);
            }
        }
    }
}

#[test]
fn only_basic_operators() {
    for (precision, quantization) in PRECISIONS {
        let kind = TinyCheckpoint::response();
        let graph = quantized(&kind, (precision, quantization), Form::Folded);
        for node in &graph.node {
            let op = node.op_type();
            let integer = precision == Precision::Int8
                && quantization.has_integer_products()
                && INTEGER_OPERATORS.contains(&op);
            let own = node.domain() == "com.microsoft"
                && quantization == Quantization::Blocks4
                && op == "MatMulNBits";
            assert!(
                FLOAT_OPERATORS.contains(&op) || integer || own,
                "{op} in {precision}, {quantization}"
            );
        }
    }
}

#[test]
fn int8_holds_every_layer_matrix_in_eight_bits() {
    let kind = TinyCheckpoint::item();
    let products = |quantization| {
        let graph = quantized(&kind, (Precision::Int8, quantization), Form::Folded);
        count(&graph, "MatMulInteger")
    };
    let layers = kind.num_hidden_layers;
    assert_eq!(products(Quantization::Dynamic), 7 * layers);
    assert_eq!(products(Quantization::DynamicSigned), 7 * layers);
    assert_eq!(products(Quantization::DynamicRows), 7 * layers);
    assert_eq!(products(Quantization::DynamicHalfDown), 6 * layers);
    assert_eq!(products(Quantization::WeightsOnly), 0);
    assert_eq!(products(Quantization::Blocks4), 0);
    let four = (Precision::Int8, Quantization::Blocks4);
    let graph = quantized(&kind, four, Form::Folded);
    assert_eq!(count(&graph, "MatMulNBits"), 7 * layers);
}

#[test]
fn the_folded_form_has_the_prefix_as_constants_and_the_plain_form_as_tokens() {
    let has = |graph: &GraphProto, name: &str| graph.initializer.iter().any(|t| t.name() == name);
    let kind = TinyCheckpoint::response();
    let folded = graph(&kind, Precision::Fp32, Form::Folded);
    let plain = graph(&kind, Precision::Fp32, Form::Plain);
    for layer in 0..kind.num_hidden_layers {
        for part in ["keys", "values"] {
            let past = past_name(layer, part);
            assert!(has(&folded, &past) && !has(&plain, &past));
            // An input with a default, so that nobody need know of it.
            assert!(folded.input.iter().any(|input| input.name() == past));
            let present = present_name(layer, part);
            assert!(folded.output.iter().any(|output| output.name() == present));
        }
    }
    assert_eq!((plain.input.len(), plain.output.len()), (1, 1));
    assert!(has(&plain, "embed.prefix") && !has(&folded, "embed.prefix"));
    assert!(has(&plain, "embed.suffix") && has(&folded, "embed.suffix"));
}
