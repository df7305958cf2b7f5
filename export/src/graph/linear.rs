//! Matrix products in the precision that was asked for.

use std::collections::HashMap;

use half::f16;
use ndarray::{Array1, Array2, Axis};

use super::builder::{GraphBuilder, int, ints};
use crate::error::ExportError;
use crate::onnx::tensor_proto::DataType;
use slmrec_core::manifest::Precision;

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
    quantized: HashMap<String, [String; 3]>,
}

impl Linears {
    pub(crate) fn new(precision: Precision) -> Self {
        Self {
            precision,
            quantized: HashMap::new(),
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
            Precision::Int8 => Ok(self.integer(b, x, weight)),
        }
    }

    /// Whether activations are quantized too.
    pub(crate) fn quantizes(&self) -> bool {
        self.precision == Precision::Int8
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
        if !self.quantizes() {
            return self.apply(b, x, weight);
        }
        let part = |part: &str| format!("{x}.{part}");
        let size = b.node("Abs", &part("abs"), &[x]);
        let along_row = vec![ints("axes", &[-1]), int("keepdims", 1)];
        let largest = b.node_with("ReduceMax", &part("largest"), &[&size], along_row);
        let tiny = b.floats(&part("tiny"), &[1], &[TINY]);
        let largest = b.node("Add", &part("row_scale"), &[&largest, &tiny]);
        let even = b.node("Div", &part("even"), &[x, &largest]);
        let product = Weight {
            name: format!("{}.even", weight.name),
            matrix: weight.matrix.clone(),
        };
        let product = self.integer(b, &even, &product);
        Ok(b.node("Mul", &weight.name, &[&product, &largest]))
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
    /// Both are unsigned: with signed weights the AVX2 kernel of processors without VNNI
    /// saturates its 16-bit sums.
    fn integer(&mut self, b: &mut GraphBuilder, x: &str, weight: &Weight) -> String {
        let [xq, x_scale, x_zero] = self.quantized_input(b, x);
        let name = &weight.name;
        let columns = quantize_columns(&weight.matrix);
        let (rows, cols) = weight.matrix.dim();
        let w = b.constant(
            &format!("{name}.weight"),
            &[rows, cols],
            DataType::Uint8,
            columns.values,
        );
        let zero = format!("{name}.weight_zero_point");
        let zero = b.constant(&zero, &[cols], DataType::Uint8, columns.zero_points);
        let w_scale = b.floats(&format!("{name}.weight_scale"), &[cols], &columns.scales);
        let product = format!("{name}.integer");
        let product = b.node("MatMulInteger", &product, &[&xq, &w, &x_zero, &zero]);
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

/// A matrix in unsigned eight bits: `w = scale[column] * (value - zero_point[column])`.
struct QuantizedColumns {
    values: Vec<u8>,
    scales: Vec<f32>,
    zero_points: Vec<u8>,
}

fn quantize_columns(matrix: &Array2<f32>) -> QuantizedColumns {
    const STEPS: f32 = 255.0;
    let mut scales = Vec::with_capacity(matrix.ncols());
    let mut zero_points = Vec::with_capacity(matrix.ncols());
    for column in matrix.columns() {
        // The range includes zero, so that zero is exact.
        let low = column.fold(0.0f32, |m, v| m.min(*v));
        let high = column.fold(0.0f32, |m, v| m.max(*v));
        let scale = (high / STEPS) - (low / STEPS);
        let scale = if scale > 0.0 { scale } else { 1.0 };
        scales.push(scale);
        zero_points.push((-low / scale).round().clamp(0.0, STEPS) as u8);
    }
    let width = matrix.ncols();
    let values = (matrix.iter().enumerate())
        .map(|(at, v)| {
            let column = at % width;
            let steps = (v / scales[column]).round() + f32::from(zero_points[column]);
            steps.clamp(0.0, STEPS) as u8
        })
        .collect();
    QuantizedColumns {
        values,
        scales,
        zero_points,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_quantize_within_half_a_step_and_keep_zero() {
        let matrix = Array2::from_shape_fn((40, 3), |(i, j)| match j {
            0 => (i as f32 - 10.0) * 0.37, // both signs
            1 => 5.0 + i as f32,           // positive only
            _ => 0.0,                      // empty
        });
        let q = quantize_columns(&matrix);
        for ((i, j), v) in matrix.indexed_iter() {
            let steps = f32::from(q.values[i * 3 + j]) - f32::from(q.zero_points[j]);
            // Rounding of the value and of the zero point.
            assert!(
                (steps * q.scales[j] - v).abs() <= q.scales[j] * 1.001,
                "{i} {j}"
            );
            if *v == 0.0 {
                assert_eq!(steps, 0.0);
            }
        }
    }

    #[test]
    fn a_weight_outside_half_range_is_an_error() {
        let weight = Weight::new("w", &Array2::from_elem((1, 1), 1e6));
        let mut b = GraphBuilder::new("test");
        let got = Linears::new(Precision::Fp16).apply(&mut b, "x", &weight);
        assert!(matches!(got, Err(ExportError::Range { .. })));
    }
}
