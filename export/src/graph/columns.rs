//! Eight bits for the columns of a matrix.

use ndarray::Array2;

/// A matrix in unsigned eight bits: `w = scale[column] * (value - zero_point[column])`.
pub(super) struct QuantizedColumns {
    pub(super) values: Vec<u8>,
    pub(super) scales: Vec<f32>,
    pub(super) zero_points: Vec<u8>,
}

pub(super) fn quantize_columns(matrix: &Array2<f32>) -> QuantizedColumns {
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

/// A matrix in signed eight bits: `w = scale[column] * value`.
pub(super) struct SignedColumns {
    pub(super) values: Vec<i8>,
    pub(super) scales: Vec<f32>,
}

pub(super) fn quantize_columns_signed(matrix: &Array2<f32>) -> SignedColumns {
    const STEPS: f32 = 127.0;
    let scale = |largest: f32| if largest > 0.0 { largest / STEPS } else { 1.0 };
    let largest = |column: ndarray::ArrayView1<'_, f32>| column.fold(0.0f32, |m, v| m.max(v.abs()));
    let scales: Vec<f32> = (matrix.columns().into_iter())
        .map(|column| scale(largest(column)))
        .collect();
    let width = matrix.ncols();
    let values = (matrix.iter().enumerate())
        .map(|(at, v)| (v / scales[at % width]).round().clamp(-STEPS, STEPS) as i8)
        .collect();
    SignedColumns { values, scales }
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
    fn signed_columns_quantize_within_half_a_step() {
        let matrix = Array2::from_shape_fn((40, 2), |(i, j)| match j {
            0 => (i as f32 - 10.0) * 0.37,
            _ => 0.0,
        });
        let q = quantize_columns_signed(&matrix);
        for ((i, j), v) in matrix.indexed_iter() {
            let got = f32::from(q.values[i * 2 + j]) * q.scales[j];
            assert!((got - v).abs() <= q.scales[j] * 0.501, "{i} {j}");
        }
    }
}
