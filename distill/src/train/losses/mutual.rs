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
