//! The other half of a divergence between two models that both learn: what it asks of the teacher.

use candle_core::{D, Result, Tensor};

use super::catalog::{BLOCK_LOGITS, carry, check_offsets, softmax};
use super::offsets::Offsets;

/// A zero whose backward pass hands the teacher's user vectors and item embeddings the gradient of
/// `T^2 KL(softmax(teacher / T) || softmax(student / T))`; [`super::catalog::divergence`], which has
/// the value, hands the student its part. Arguments as there. Memory is that of a block of scores.
///
/// # Errors
/// Shapes that do not fit.
pub fn teacher_gradient(
    student: (&Tensor, &Tensor),
    teacher: (&Tensor, &Tensor),
    temperature: f64,
    offsets: (Option<&Offsets>, Option<&Offsets>),
) -> Result<Tensor> {
    check_offsets(student.0, offsets.0)?;
    check_offsets(teacher.0, offsets.1)?;
    let (rows, _) = student.0.dims2()?;
    let num_items = student.1.dims2()?.0.saturating_sub(1);
    if rows == 0 || num_items == 0 {
        candle_core::bail!("a loss over {rows} rows and {num_items} items");
    }
    let candidates = |table: &Tensor| table.detach().narrow(0, 1, num_items);
    let (items, teacher_items) = (candidates(student.1)?, candidates(teacher.1)?);
    let (users, teacher_users) = (
        student.0.detach().contiguous()?,
        teacher.0.detach().contiguous()?,
    );
    let block = (BLOCK_LOGITS / num_items).max(1);
    let (mut to_users, mut to_items) = (Vec::new(), None::<Tensor>);
    for start in (0..rows).step_by(block) {
        let len = block.min(rows - start);
        let told = teacher_users.narrow(0, start, len)?;
        let scores = |users: &Tensor, items: &Tensor, added: Option<&Offsets>| {
            let scores = users.matmul(&items.t()?)?;
            let scores = match added {
                Some(added) => {
                    let (dtype, device) = (scores.dtype(), scores.device());
                    (&scores + added.dense(start..start + len, num_items, dtype, device)?)?
                }
                None => scores,
            };
            scores / temperature
        };
        let wanted = scores(&told, &teacher_items, offsets.1)?;
        let found = scores(&users.narrow(0, start, len)?, &items, offsets.0)?;
        let (wanted_probabilities, wanted_sum) = softmax(&wanted)?;
        let (_, found_sum) = softmax(&found)?;
        let difference = (wanted.broadcast_sub(&wanted_sum)? - found.broadcast_sub(&found_sum)?)?;
        // d KL / d (teacher score / T) is p (log p - log q - KL).
        let divergence = (&wanted_probabilities * &difference)?.sum_keepdim(D::Minus1)?;
        let pushed = (wanted_probabilities * difference.broadcast_sub(&divergence)?)?;
        let pushed = (pushed * (temperature / rows as f64))?;
        to_users.push(pushed.matmul(&teacher_items)?);
        if teacher.1.track_op() {
            let part = pushed.t()?.matmul(&told)?;
            to_items = Some(match to_items {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
    }
    let zero = Tensor::zeros((), teacher.0.dtype(), teacher.0.device())?;
    let zero = carry(&zero, teacher.0, &Tensor::cat(&to_users, 0)?)?;
    match to_items {
        Some(gradient) => carry(&zero, teacher.1, &gradient.pad_with_zeros(0, 1, 0)?),
        None => Ok(zero),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use candle_nn::ops::log_softmax;

    use super::*;
    use crate::model::parameters::normal;

    fn matrix(rows: usize, columns: usize, seed: u64) -> Tensor {
        normal((rows, columns), 0.7, seed, DType::F32, &Device::Cpu).expect("matrix")
    }

    /// Against the gradient that candle finds by itself, with additions to the scores of both.
    #[test]
    fn the_gradient_is_that_of_the_divergence_written_out() {
        let student = (matrix(3, 4, 1), matrix(6, 4, 2));
        let users = Var::from_tensor(&matrix(3, 5, 3)).expect("users");
        let items = Var::from_tensor(&matrix(6, 5, 4)).expect("items");
        let added = [0.5f32, -1.5]
            .map(|by| Offsets::from_rows((0..3u32).map(|row| vec![(1 + row, by), (5, 2.0 * by)])));
        let temperature = 2.0;
        let log_shares = |users: &Tensor, items: &Tensor, added: &Offsets| {
            let scores = users.matmul(&items.narrow(0, 1, 5)?.t()?)?;
            let added = added.dense(0..3, 5, DType::F32, &Device::Cpu)?;
            log_softmax(&((scores + added)? / temperature)?, D::Minus1)
        };
        let (p, q) = (
            log_shares(users.as_tensor(), items.as_tensor(), &added[1]).expect("teacher"),
            log_shares(&student.0, &student.1, &added[0]).expect("student"),
        );
        let written = (p.exp().and_then(|share| share * (&p - &q)?))
            .and_then(|terms| terms.sum_all()? * (temperature * temperature / 3.0))
            .expect("divergence");
        let zero = teacher_gradient(
            (&student.0, &student.1),
            (users.as_tensor(), items.as_tensor()),
            temperature,
            (Some(&added[0]), Some(&added[1])),
        )
        .expect("zero");
        assert_eq!(zero.to_scalar::<f32>().expect("scalar"), 0.0);
        let (expected, found) = (written.backward(), zero.backward());
        let (expected, found) = (expected.expect("backward"), found.expect("backward"));
        for var in [&users, &items] {
            let values = |gradient: Option<&Tensor>| {
                let gradient = gradient.expect("gradient").flatten_all().expect("flat");
                gradient.to_vec1::<f32>().expect("values")
            };
            let (expected, found) = (values(expected.get(var)), values(found.get(var)));
            for (e, f) in expected.iter().zip(&found) {
                assert!((e - f).abs() < 1e-5, "{f}, expected {e}");
            }
        }
    }
}
