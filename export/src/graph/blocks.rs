//! Four bits for blocks of a matrix, in the layout of ONNX Runtime's `MatMulNBits`.

use ndarray::{Array2, ArrayView1};

/// Weights of a column that share a scale and a zero point.
pub(super) const BLOCK: usize = 32;
const STEPS: f32 = 15.0;

/// A matrix `[in, out]` in four bits, column after column, each in blocks of [`BLOCK`] inputs, the
/// last one filled with zeros: `w = scale[block] * (value - zero_point[block])`.
pub(super) struct QuantizedBlocks {
    /// Two values a byte, the first in the low half.
    pub(super) values: Vec<u8>,
    pub(super) scales: Vec<f32>,
    /// Two a byte likewise; each column begins a byte.
    pub(super) zero_points: Vec<u8>,
}

pub(super) fn quantize_blocks(matrix: &Array2<f32>) -> QuantizedBlocks {
    let mut blocks = QuantizedBlocks {
        values: Vec::with_capacity(matrix.len().div_ceil(2)),
        scales: Vec::new(),
        zero_points: Vec::new(),
    };
    for column in matrix.columns() {
        let mut zeros = Vec::new();
        for block in column.axis_chunks_iter(ndarray::Axis(0), BLOCK) {
            let (scale, zero) = range(block);
            let quantized = |at: usize| {
                let steps = block.get(at).map_or(0.0, |v| v / scale).round() + zero;
                steps.clamp(0.0, STEPS) as u8
            };
            let pairs = (0..BLOCK).step_by(2);
            (blocks.values).extend(pairs.map(|at| quantized(at) | quantized(at + 1) << 4));
            blocks.scales.push(scale);
            zeros.push(zero as u8);
        }
        let pairs = zeros.chunks(2);
        (blocks.zero_points).extend(pairs.map(|p| p[0] | p.get(1).copied().unwrap_or(0) << 4));
    }
    blocks
}

/// Scale and zero point of a block. Of ranges around zero from the whole of its values to three
/// quarters of them that which leaves the smallest sum of squared errors: a few values cut off cost
/// less than wide steps for all.
fn range(block: ArrayView1<'_, f32>) -> (f32, f32) {
    // The range includes zero, so that zero is exact.
    let low = block.fold(0.0f32, |m, v| m.min(*v));
    let high = block.fold(0.0f32, |m, v| m.max(*v));
    let candidates = (0..=10).map(|cut| {
        let kept = 1.0 - 0.025 * cut as f32;
        let scale = kept * (high - low) / STEPS;
        let scale = if scale > 0.0 { scale } else { 1.0 };
        let zero = (-kept * low / scale).round().clamp(0.0, STEPS);
        let error: f32 = block
            .iter()
            .map(|v| (back(*v, scale, zero) - v).powi(2))
            .sum();
        (error, scale, zero)
    });
    let best = candidates.min_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or((1.0, 0.0), |(_, scale, zero)| (scale, zero))
}

/// A value as it comes back from four bits.
fn back(value: f32, scale: f32, zero: f32) -> f32 {
    let steps = ((value / scale).round() + zero).clamp(0.0, STEPS);
    scale * (steps - zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_from_their_halves_of_a_byte() {
        let (inputs, outputs) = (BLOCK + 7, 3);
        let matrix = Array2::from_shape_fn((inputs, outputs), |(i, j)| match j {
            0 => (i as f32 * 1.3).sin(), // both signs
            1 => 2.0 + (i as f32).cos(), // positive only
            _ => 0.0,                    // empty
        });
        let q = quantize_blocks(&matrix);
        let of_column = 2;
        assert_eq!(q.values.len(), outputs * of_column * BLOCK / 2);
        assert_eq!(q.scales.len(), outputs * of_column);
        assert_eq!(q.zero_points.len(), outputs * of_column.div_ceil(2));
        let half = |bytes: &[u8], at: usize| f32::from(bytes[at / 2] >> (4 * (at % 2)) & 15);
        for ((i, j), v) in matrix.indexed_iter() {
            let block = j * of_column + i / BLOCK;
            let zero = half(&q.zero_points[j..], i / BLOCK);
            let steps = half(&q.values[block * BLOCK / 2..], i % BLOCK) - zero;
            let scale = q.scales[block];
            // What is cut off is at most a quarter of the range.
            assert!((steps * scale - v).abs() <= 5.0 * scale, "{i} {j}");
        }
        let errors = matrix.indexed_iter().map(|((i, j), v)| {
            let block = j * of_column + i / BLOCK;
            let zero = half(&q.zero_points[j..], i / BLOCK);
            let steps = half(&q.values[block * BLOCK / 2..], i % BLOCK) - zero;
            (steps * q.scales[block] - v).powi(2)
        });
        let mean = errors.sum::<f32>() / matrix.len() as f32;
        // A step is about .13 wide for the first column, .2 for the second.
        assert!(mean < 0.004, "{mean}");
    }
}
