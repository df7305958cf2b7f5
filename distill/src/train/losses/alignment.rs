//! Terms that pull a student's hidden states towards the teacher's.
//! States are `[R, H]`. A teacher that must not move gives states without a gradient.

use candle_core::{D, Result, Tensor};

/// Lengths below this count as this, so that a zero vector has a cosine of 0 instead of a NaN.
const SMALLEST_LENGTH: f64 = 1e-8;
/// Added under the square root of the unsquared distance, whose slope at 0 is infinite.
const SMALLEST_SQUARE: f64 = 1e-12;

/// Mean over rows of `1 - cos(teacher, student)`: 0 for equal directions, 2 for opposite ones.
///
/// # Errors
/// Shapes that do not fit.
pub fn cosine(teacher: &Tensor, student: &Tensor) -> Result<Tensor> {
    let product = (teacher * student)?.sum(D::Minus1)?;
    let lengths = (length(teacher)? * length(student)?)?;
    product.div(&lengths)?.mean_all()?.affine(-1.0, 1.0)
}

/// Mean over rows of the squared distance `||teacher - student||^2` (not divided by H).
///
/// # Errors
/// Shapes that do not fit.
pub fn squared_distance(teacher: &Tensor, student: &Tensor) -> Result<Tensor> {
    (teacher - student)?.sqr()?.sum(D::Minus1)?.mean_all()
}

/// Mean over rows of the distance `||teacher - student||`.
///
/// # Errors
/// Shapes that do not fit.
pub fn distance(teacher: &Tensor, student: &Tensor) -> Result<Tensor> {
    let squares = (teacher - student)?.sqr()?.sum(D::Minus1)?;
    (squares + SMALLEST_SQUARE)?.sqrt()?.mean_all()
}

/// Length of each row, at least [`SMALLEST_LENGTH`]. The bound is put under the root, since the
/// slope of a root at 0 is infinite.
fn length(rows: &Tensor) -> Result<Tensor> {
    let squares = rows.sqr()?.sum(D::Minus1)?;
    squares.maximum(SMALLEST_LENGTH * SMALLEST_LENGTH)?.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn scalar(tensor: &Tensor) -> f32 {
        tensor.to_scalar().expect("scalar")
    }

    /// The sign matters: minimising the similarity itself would drive the states apart.
    #[test]
    fn cosine_is_zero_for_the_same_direction_and_two_for_the_opposite() {
        let teacher = Tensor::new(&[[1f32, 2.0, -3.0]], &Device::Cpu).expect("teacher");
        let same = (&teacher * 2.0).expect("same");
        let opposite = teacher.neg().expect("opposite");
        assert!(scalar(&cosine(&teacher, &same).expect("loss")).abs() < 1e-6);
        let loss = scalar(&cosine(&teacher, &opposite).expect("loss"));
        assert!((loss - 2.0).abs() < 1e-6);
    }

    #[test]
    fn a_step_down_the_gradient_brings_the_states_together() {
        let teacher = Tensor::new(&[[1f32, 2.0], [0.5, -1.0]], &Device::Cpu).expect("teacher");
        let start = Tensor::new(&[[-1f32, 1.0], [0.3, 0.3]], &Device::Cpu).expect("student");
        for term in [cosine, squared_distance, distance] {
            let student = Var::from_tensor(&start).expect("student");
            let before = term(&teacher, student.as_tensor()).expect("loss");
            let gradients = before.backward().expect("backward");
            let gradient = gradients.get(&student).expect("gradient");
            let moved = (student.as_tensor() - (gradient * 0.05).expect("step")).expect("moved");
            let after = term(&teacher, &moved).expect("loss");
            assert!(scalar(&after) < scalar(&before));
        }
    }

    #[test]
    fn equal_and_zero_states_have_finite_gradients() {
        let teacher = Tensor::new(&[[1f32, 2.0], [0.0, 0.0]], &Device::Cpu).expect("teacher");
        for term in [cosine, squared_distance, distance] {
            let student = Var::from_tensor(&teacher).expect("student");
            let loss = term(&teacher, student.as_tensor()).expect("loss");
            let gradients = loss.backward().expect("backward");
            let gradient = gradients.get(&student).expect("gradient");
            let values = gradient.flatten_all().expect("flat").to_vec1::<f32>();
            assert!(values.expect("values").iter().all(|g| g.is_finite()));
        }
    }
}
