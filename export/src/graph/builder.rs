//! Nodes and constants of an ONNX graph, one call each.

use prost::Message as _;

use crate::error::ExportError;
use crate::onnx::tensor_proto::DataType;
use crate::onnx::tensor_shape_proto::{Dimension, dimension};
use crate::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto, type_proto,
};

/// ONNX operator set of every graph.
pub(crate) const OPSET: u32 = 17;
/// The file format version that came with [`OPSET`].
const IR_VERSION: i64 = 8;
/// Where ONNX Runtime's own operators are, and their version.
const ONNX_RUNTIME: (&str, i64) = ("com.microsoft", 1);
/// Protocol buffers hold no larger message.
const MAX_BYTES: usize = i32::MAX as usize;

/// A graph that grows by one node or constant a call. Values are known by name, and a node's
/// output has the node's name.
#[derive(Debug, Default)]
pub(crate) struct GraphBuilder {
    graph: GraphProto,
}

/// An axis of a value.
#[derive(Clone, Copy)]
pub(crate) enum Axis<'a> {
    Fixed(usize),
    Free(&'a str),
}

impl GraphBuilder {
    pub(crate) fn new(name: &str) -> Self {
        let mut builder = Self::default();
        builder.graph.name = Some(name.to_owned());
        builder
    }

    /// Adds a node with one output.
    pub(crate) fn node(&mut self, op: &str, name: &str, inputs: &[&str]) -> String {
        self.node_with(op, name, inputs, vec![])
    }

    /// Adds a node with attributes and one output.
    pub(crate) fn node_with(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        self.node_outputs(op, name, inputs, attributes, &[name]);
        name.to_owned()
    }

    /// Adds a node of ONNX Runtime's own operators with one output.
    pub(crate) fn onnx_runtime_node(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        let name = self.node_with(op, name, inputs, attributes);
        if let Some(node) = self.graph.node.last_mut() {
            node.domain = Some(ONNX_RUNTIME.0.to_owned());
        }
        name
    }

    /// Adds a node with the given outputs.
    pub(crate) fn node_outputs(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
        outputs: &[&str],
    ) {
        self.graph.node.push(NodeProto {
            op_type: Some(op.to_owned()),
            name: Some(name.to_owned()),
            input: inputs.iter().map(|&v| v.to_owned()).collect(),
            output: outputs.iter().map(|&v| v.to_owned()).collect(),
            attribute,
            ..NodeProto::default()
        });
    }

    /// Adds an f32 constant.
    pub(crate) fn floats<'a>(
        &mut self,
        name: &str,
        shape: &[usize],
        values: impl IntoIterator<Item = &'a f32>,
    ) -> String {
        let raw = values.into_iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, shape, DataType::Float, raw)
    }

    /// Adds a vector of i64, for shapes and axes.
    pub(crate) fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, &[values.len()], DataType::Int64, raw)
    }

    /// Adds a constant from its little-endian bytes.
    pub(crate) fn constant(
        &mut self,
        name: &str,
        shape: &[usize],
        data_type: DataType,
        raw: Vec<u8>,
    ) -> String {
        self.graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            dims: shape.iter().map(|&d| d as i64).collect(),
            data_type: Some(data_type as i32),
            raw_data: Some(raw),
            ..TensorProto::default()
        });
        name.to_owned()
    }

    /// Declares an f32 input of the graph.
    pub(crate) fn input(&mut self, name: &str, axes: &[Axis<'_>]) {
        self.graph.input.push(float_value(name, axes));
    }

    /// Declares an f32 input that need not be given: a constant of its name is its default.
    pub(crate) fn input_with_default<'a>(
        &mut self,
        name: &str,
        axes: &[Axis<'_>],
        shape: &[usize],
        values: impl IntoIterator<Item = &'a f32>,
    ) -> String {
        self.input(name, axes);
        self.floats(name, shape, values)
    }

    /// Declares an f32 output of the graph.
    pub(crate) fn output(&mut self, name: &str, axes: &[Axis<'_>]) {
        self.graph.output.push(float_value(name, axes));
    }

    /// States the shape of an f32 value between nodes, for engines to plan memory by.
    pub(crate) fn shape(&mut self, name: &str, axes: &[Axis<'_>]) {
        self.graph.value_info.push(float_value(name, axes));
    }

    /// The finished file.
    pub(crate) fn finish(self) -> Result<Vec<u8>, ExportError> {
        let mut opset_import = vec![operator_set("", i64::from(OPSET))];
        if (self.graph.node.iter()).any(|node| node.domain() == ONNX_RUNTIME.0) {
            opset_import.push(operator_set(ONNX_RUNTIME.0, ONNX_RUNTIME.1));
        }
        let model = ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: Some(env!("CARGO_PKG_NAME").to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            opset_import,
            graph: Some(self.graph),
            ..ModelProto::default()
        };
        match model.encoded_len() {
            found @ 0..=MAX_BYTES => {
                let mut bytes = Vec::with_capacity(found);
                model.encode_raw(&mut bytes);
                Ok(bytes)
            }
            found => Err(ExportError::TooLarge {
                found,
                limit: MAX_BYTES,
            }),
        }
    }
}

fn operator_set(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    }
}

fn float_value(name: &str, axes: &[Axis<'_>]) -> ValueInfoProto {
    let dim = axes
        .iter()
        .map(|axis| Dimension {
            denotation: None,
            value: Some(match axis {
                Axis::Fixed(size) => dimension::Value::DimValue(*size as i64),
                Axis::Free(name) => dimension::Value::DimParam((*name).to_owned()),
            }),
        })
        .collect();
    let tensor = type_proto::Tensor {
        elem_type: Some(DataType::Float as i32),
        shape: Some(TensorShapeProto { dim }),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            denotation: None,
            value: Some(type_proto::Value::TensorType(tensor)),
        }),
        ..ValueInfoProto::default()
    }
}

/// An integer attribute.
pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(attribute_proto::AttributeType::Int as i32),
        i: Some(value),
        ..AttributeProto::default()
    }
}

/// An attribute that is a list of integers.
pub(crate) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(attribute_proto::AttributeType::Ints as i32),
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}
