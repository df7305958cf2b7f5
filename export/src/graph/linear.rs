//! Matrix products in the precision that was asked for.

use std::collections::HashMap;

use half::f16;
use ndarray::{Array1, Array2, Axis};

use super::builder::{GraphBuilder, int, ints};
use crate::error::ExportError;
use crate::onnx::tensor_proto::DataType;
use slmrec_core::certificate::Quantization;
use slmrec_core::manifest::Precision;

use super::blocks::{BLOCK, quantize_blocks};
use super::columns::{quantize_columns, quantize_columns_signed};

/// What `MatMulNBits` calls products in eight bits.
const EIGHT_BIT_ACTIVATIONS: i64 = 4;
/// Keeps a row of zeros from being divided by zero.
const TINY: f32 = 1e-30;

/// A weight ready for a graph: `[in, out]`, with everything constant multiplied in.
pub(crate) struct Weight {
    pub(crate) name: String,
    matrix: Array2<f32>,
}

impl Weight {
    /// Takes a checkpoint's `[out, in]` matrix.
    pub(crate) fn new(name: &str, matrix: &Array2<f32>) -> Self {
        Self {
            name: name.to_owned(),
            matrix: matrix.t().as_standard_layout().into_owned(),
        }
    }

    /// Multiplies each input row by a factor `[in]`, so that the input need not be.
    pub(crate) fn scale_inputs(mut self, factors: &Array1<f32>) -> Self {
        self.matrix *= &factors.view().insert_axis(Axis(1));
        self
    }

    /// Multiplies everything by a factor.
    pub(crate) fn scale(mut self, factor: f32) -> Self {
        self.matrix *= factor;
        self
    }
}

/// Adds matrix products to a graph and remembers which inputs it has quantized already.
#[derive(Debug)]
pub(crate) struct Linears {
    precision: Precision,
    quantization: Quantization,
    quantized: HashMap<String, [String; 3]>,
    evened: HashMap<String, [String; 2]>,
}

impl Linears {
    /// `quantization` says what `int8` means; the other precisions do not ask.
    pub(crate) fn new(precision: Precision, quantization: Quantization) -> Self {
        Self {
            precision,
            quantization,
            quantized: HashMap::new(),
            evened: HashMap::new(),
        }
    }

    /// `x [T, in]` times the weight, `[T, out]`.
    pub(crate) fn apply(
        &mut self,
        b: &mut GraphBuilder,
        x: &str,
        weight: &Weight,
    ) -> Result<String, ExportError> {
        match self.precision {
            Precision::Fp32 => Ok(self.float(b, x, weight)),
            Precision::Fp16 => half_storage(b, x, weight),
            Precision::Int8 => Ok(match self.quantization {
                Quantization::WeightsOnly => weights_only(b, x, weight),
                Quantization::Blocks4 => block_wise(b, x, weight),
                Quantization::DynamicRows => self.row_by_row(b, x, weight),
                _ => self.integer(b, x, weight),
            }),
        }
    }

    /// Whether weights are held in eight bits.
    pub(crate) fn holds_eight_bits(&self) -> bool {
        self.precision == Precision::Int8
    }

    /// Whether activations are quantized too, a whole tensor at a time unless its rows are evened.
    pub(crate) fn quantizes(&self) -> bool {
        let whole = !matches!(
            self.quantization,
            Quantization::WeightsOnly | Quantization::Blocks4
        );
        self.precision == Precision::Int8 && whole
    }

    /// As [`Self::apply_uneven`], for the matrix that suffers most from eight bits.
    pub(crate) fn apply_down(
        &mut self,
        b: &mut GraphBuilder,
        x: &str,
        weight: &Weight,
    ) -> Result<String, ExportError> {
        if self.quantizes() && self.quantization == Quantization::DynamicHalfDown {
            return half_storage(b, x, weight);
        }
        self.apply_uneven(b, x, weight)
    }

    /// As [`Self::apply`], for inputs whose rows differ in size by orders of magnitude: pretrained
    /// models have massive activations at single tokens, and one scale for the whole tensor would
    /// leave the other rows few of the 256 steps. Each row is brought to 1 before and back after.
    pub(crate) fn apply_uneven(
        &mut self,
        b: &mut GraphBuilder,
        x: &str,
        weight: &Weight,
    ) -> Result<String, ExportError> {
        if self.quantizes() {
            return Ok(self.row_by_row(b, x, weight));
        }
        self.apply(b, x, weight)
    }

    fn row_by_row(&mut self, b: &mut GraphBuilder, x: &str, weight: &Weight) -> String {
        let even = self.even_rows(b, x);
        let product = Weight {
            name: format!("{}.even", weight.name),
            matrix: weight.matrix.clone(),
        };
        let product = self.integer(b, &even[0], &product);
        b.node("Mul", &weight.name, &[&product, &even[1]])
    }

    /// The input with rows whose largest element is 1, and what they were divided by.
    fn even_rows(&mut self, b: &mut GraphBuilder, x: &str) -> [String; 2] {
        if let Some(names) = self.evened.get(x) {
            return names.clone();
        }
        let part = |part: &str| format!("{x}.{part}");
        let size = b.node("Abs", &part("abs"), &[x]);
        let along_row = vec![ints("axes", &[-1]), int("keepdims", 1)];
        let largest = b.node_with("ReduceMax", &part("largest"), &[&size], along_row);
        let tiny = b.floats(&part("tiny"), &[1], &[TINY]);
        let largest = b.node("Add", &part("row_scale"), &[&largest, &tiny]);
        let names = [b.node("Div", &part("even"), &[x, &largest]), largest];
        self.evened.insert(x.to_owned(), names.clone());
        names
    }

    /// As [`Self::apply`], but in half storage where int8 was asked for: for the two small
    /// projections between items and body, where eight bits would save little and cost most.
    pub(crate) fn apply_small(
        &mut self,
        b: &mut GraphBuilder,
        x: &str,
        weight: &Weight,
    ) -> Result<String, ExportError> {
        match self.precision {
            Precision::Fp32 => Ok(self.float(b, x, weight)),
            Precision::Fp16 | Precision::Int8 => half_storage(b, x, weight),
        }
    }

    fn float(&self, b: &mut GraphBuilder, x: &str, weight: &Weight) -> String {
        let constant = format!("{}.weight", weight.name);
        let w = b.floats(&constant, weight.matrix.shape(), &weight.matrix);
        b.node("MatMul", &weight.name, &[x, &w])
    }

    /// Activations are quantized while running, over the whole tensor; weights per output column.
    /// Both are unsigned unless asked for otherwise: with signed weights the AVX2 kernel of
    /// processors without VNNI saturates its 16-bit sums.
    fn integer(&mut self, b: &mut GraphBuilder, x: &str, weight: &Weight) -> String {
        let [xq, x_scale, x_zero] = self.quantized_input(b, x);
        let name = &weight.name;
        let product = format!("{name}.integer");
        let (product, w_scale) = if self.quantization == Quantization::DynamicSigned {
            let columns = quantize_columns_signed(&weight.matrix);
            let shape = weight.matrix.shape();
            let bytes = columns.values.iter().map(|v| v.to_ne_bytes()[0]).collect();
            let w = b.constant(&format!("{name}.weight"), shape, DataType::Int8, bytes);
            let product = b.node("MatMulInteger", &product, &[&xq, &w, &x_zero]);
            (product, scales(b, name, &columns.scales))
        } else {
            let (w, zero, w_scale) = unsigned_columns(b, weight);
            let product = b.node("MatMulInteger", &product, &[&xq, &w, &x_zero, &zero]);
            (product, w_scale)
        };
        let to = vec![int("to", DataType::Float as i64)];
        let product = b.node_with("Cast", &format!("{name}.cast"), &[&product], to);
        let scale = b.node("Mul", &format!("{name}.scale"), &[&x_scale, &w_scale]);
        b.node("Mul", name, &[&product, &scale])
    }

    fn quantized_input(&mut self, b: &mut GraphBuilder, x: &str) -> [String; 3] {
        if let Some(names) = self.quantized.get(x) {
            return names.clone();
        }
        let names = ["quantized", "scale", "zero_point"].map(|part| format!("{x}.{part}"));
        let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
        let node = format!("{x}.quantize");
        b.node_outputs("DynamicQuantizeLinear", &node, &[x], vec![], &outputs);
        self.quantized.insert(x.to_owned(), names.clone());
        names
    }
}

fn half_storage(b: &mut GraphBuilder, x: &str, weight: &Weight) -> Result<String, ExportError> {
    let name = &weight.name;
    if let Some(found) = weight
        .matrix
        .iter()
        .find(|v| !f16::from_f32(**v).is_finite())
    {
        return Err(ExportError::Range {
            name: name.clone(),
            precision: "fp16",
            found: *found,
        });
    }
    let halves = weight.matrix.iter().map(|v| f16::from_f32(*v));
    let raw = halves.flat_map(f16::to_le_bytes).collect();
    let stored = format!("{name}.weight");
    let stored = b.constant(&stored, weight.matrix.shape(), DataType::Float16, raw);
    let to = vec![int("to", DataType::Float as i64)];
    let wide = b.node_with("Cast", &format!("{name}.weight_f32"), &[&stored], to);
    Ok(b.node("MatMul", name, &[x, &wide]))
}

/// Weights of eight bits per output column, made floats again where they are used.
fn weights_only(b: &mut GraphBuilder, x: &str, weight: &Weight) -> String {
    let name = &weight.name;
    let (w, zero, scale) = unsigned_columns(b, weight);
    let mut float = |value: &str| {
        let to = vec![int("to", DataType::Float as i64)];
        b.node_with("Cast", &format!("{value}_f32"), &[value], to)
    };
    let (w, zero) = (float(&w), float(&zero));
    let steps = b.node("Sub", &format!("{name}.weight_steps"), &[&w, &zero]);
    let wide = b.node("Mul", &format!("{name}.weight_wide"), &[&steps, &scale]);
    b.node("MatMul", name, &[x, &wide])
}

/// Weights of four bits; the operator quantizes activations, too, every block of every row by itself.
fn block_wise(b: &mut GraphBuilder, x: &str, weight: &Weight) -> String {
    let name = &weight.name;
    let blocks = quantize_blocks(&weight.matrix);
    let (inputs, outputs) = weight.matrix.dim();
    let of_column = inputs.div_ceil(BLOCK);
    let part = |part: &str| format!("{name}.weight{part}");
    let shape = [outputs, of_column, BLOCK / 2];
    let w = b.constant(&part(""), &shape, DataType::Uint8, blocks.values);
    let count = [outputs * of_column];
    let scale = b.floats(&part("_scale"), &count, &blocks.scales);
    let count = [blocks.zero_points.len()];
    let zeros = part("_zero_point");
    let zero = b.constant(&zeros, &count, DataType::Uint8, blocks.zero_points);
    let attributes = vec![
        int("K", inputs as i64),
        int("N", outputs as i64),
        int("bits", 4),
        int("block_size", BLOCK as i64),
        int("accuracy_level", EIGHT_BIT_ACTIVATIONS),
    ];
    b.onnx_runtime_node("MatMulNBits", name, &[x, &w, &scale, &zero], attributes)
}

/// Weights `[in, out]`, zero points `[out]` and scales `[out]` as constants.
fn unsigned_columns(b: &mut GraphBuilder, weight: &Weight) -> (String, String, String) {
    let name = &weight.name;
    let columns = quantize_columns(&weight.matrix);
    let shape = weight.matrix.shape();
    let w = format!("{name}.weight");
    let w = b.constant(&w, shape, DataType::Uint8, columns.values);
    let zero = format!("{name}.weight_zero_point");
    let zero = b.constant(&zero, &shape[1..], DataType::Uint8, columns.zero_points);
    let scales = scales(b, name, &columns.scales);
    (w, zero, scales)
}

fn scales(b: &mut GraphBuilder, name: &str, scales: &[f32]) -> String {
    b.floats(&format!("{name}.weight_scale"), &[scales.len()], scales)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_outside_half_range_is_an_error() {
        let weight = Weight::new("w", &Array2::from_elem((1, 1), 1e6));
        let mut b = GraphBuilder::new("test");
        let mut linears = Linears::new(Precision::Fp16, Quantization::Dynamic);
        let got = linears.apply(&mut b, "x", &weight);
        assert!(matches!(got, Err(ExportError::Range { .. })));
    }
}
