//! Terms over the scores of the whole catalog, without ever holding all the logits.
//!
//! Rows go through in blocks. The forward pass of a block already computes its gradients with
//! respect to user vectors and item embeddings, so that the logits can be dropped at once: memory is
//! that of one block, whatever the batch. Row 0 of the embeddings is padding and never a candidate.
//!
//! The cross-entropy in f32 on the CPU is [`linear_cross_entropy`]; what
//! is written in tensor operations here serves the other devices and types.

use candle_core::{CpuStorage, D, DType, Device, Result, Storage, Tensor};
use candle_nn::ops::softmax_last_dim;

use super::known::Known;
use super::linear_cross_entropy::{self, CandidateGradients, Matrix, Targets};
use super::offsets::Offsets;
use crate::model::ops::fused;

/// Most logits of one block: 16 MiB in f32.
pub(super) const BLOCK_LOGITS: usize = 1 << 22;

/// Mean cross-entropy of `targets` under the softmax of `user_vectors . item_embeddings` over items
/// `1..=N`, with the `offsets` `[R, N]` added to the scores. User vectors `[R, D]`, item embeddings
/// `[N + 1, D]`, R targets; the result is a scalar.
///
/// # Errors
/// A target outside `1..=N`, or shapes that do not fit.
pub fn cross_entropy(
    user_vectors: &Tensor,
    item_embeddings: &Tensor,
    targets: &[u32],
    offsets: Option<&Offsets>,
) -> Result<Tensor> {
    check_targets(user_vectors, item_embeddings, targets)?;
    check_offsets(user_vectors, offsets)?;
    if fused(user_vectors) && fused(item_embeddings) {
        return fused_cross_entropy(user_vectors, item_embeddings, targets, offsets);
    }
    cross_entropy_slow(user_vectors, item_embeddings, targets, offsets)
}

/// The same in tensor operations, for every device and type.
///
/// # Errors
/// A target outside `1..=N`, or shapes that do not fit.
pub fn cross_entropy_slow(
    user_vectors: &Tensor,
    item_embeddings: &Tensor,
    targets: &[u32],
    offsets: Option<&Offsets>,
) -> Result<Tensor> {
    check_targets(user_vectors, item_embeddings, targets)?;
    check_offsets(user_vectors, offsets)?;
    let mut scores = Catalog::new(user_vectors, item_embeddings, BLOCK_LOGITS)?;
    scores.cross_entropy(targets, offsets)?;
    scores.finish()
}

fn fused_cross_entropy(
    user_vectors: &Tensor,
    item_embeddings: &Tensor,
    targets: &[u32],
    offsets: Option<&Offsets>,
) -> Result<Tensor> {
    let (rows, width) = user_vectors.dims2()?;
    let (table_rows, _) = item_embeddings.dims2()?;
    let (users, items) = (user_vectors.contiguous()?, item_embeddings.contiguous()?);
    // The one dense buffer of the item gradient, the padding's row of zeros included.
    let mut gradient = (item_embeddings.track_op()).then(|| vec![0f32; table_rows * width]);
    let (loss, user_gradient) = {
        let (user_storage, user_layout) = users.storage_and_layout();
        let (storage, layout) = items.storage_and_layout();
        let numbers: Vec<usize> = targets.iter().map(|target| *target as usize - 1).collect();
        let gradients = gradient.as_mut().map(|gradient| CandidateGradients {
            candidates: &mut gradient[width..],
            targets: &mut [],
        });
        linear_cross_entropy::cross_entropy(
            Matrix::new(in_memory(&user_storage)?, user_layout, 0, rows)?,
            Matrix::new(in_memory(&storage)?, layout, 1, table_rows - 1)?,
            &Targets::Among(&numbers),
            offsets,
            gradients,
        )?
    };
    let known = Known {
        loss,
        gradients: (
            Tensor::from_vec(user_gradient, (rows, width), users.device())?,
            gradient
                .map(|g| Tensor::from_vec(g, (table_rows, width), items.device()))
                .transpose()?,
        ),
    };
    known.of(&users, &items)
}

pub(super) fn in_memory(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => candle_core::bail!("a fused loss got a tensor that is not in CPU memory"),
    }
}

/// One row of offsets for each row.
pub(super) fn check_offsets(user_vectors: &Tensor, offsets: Option<&Offsets>) -> Result<()> {
    let rows = user_vectors.dims2()?.0;
    match offsets.map(Offsets::num_rows) {
        Some(found) if found != rows => {
            candle_core::bail!("{found} rows of offsets for {rows} rows")
        }
        _ => Ok(()),
    }
}

/// One target a row, each an item of the table.
pub(super) fn check_targets(
    user_vectors: &Tensor,
    item_embeddings: &Tensor,
    targets: &[u32],
) -> Result<()> {
    let (rows, width) = user_vectors.dims2()?;
    let (table_rows, table_width) = item_embeddings.dims2()?;
    if rows == 0 || table_rows < 2 || width == 0 || width != table_width {
        candle_core::bail!(
            "a loss over {rows} rows of width {width} and {table_rows} item embeddings of width {table_width}"
        );
    }
    if targets.len() != rows {
        candle_core::bail!("{} targets for {rows} rows", targets.len());
    }
    let items = 1..table_rows as u32;
    match targets.iter().find(|target| !items.contains(target)) {
        Some(target) => candle_core::bail!(
            "target {target} is not one of the items 1..={}",
            table_rows - 1
        ),
        None => Ok(()),
    }
}

/// Mean Kullback-Leibler divergence `T^2 KL(softmax(teacher / T) || softmax(student / T))` over items
/// `1..=N`. The factor `T^2` keeps the size of the gradient independent of the temperature T.
/// The teacher gets no gradient. User vectors `[R, D]` and item embeddings `[N + 1, D]`; the two D
/// may differ. `offsets` are added to the scores of student and teacher before they are divided by T.
///
/// # Errors
/// Shapes that do not fit.
pub fn divergence(
    student: (&Tensor, &Tensor),
    teacher: (&Tensor, &Tensor),
    temperature: f64,
    offsets: (Option<&Offsets>, Option<&Offsets>),
) -> Result<Tensor> {
    check_offsets(student.0, offsets.0)?;
    check_offsets(teacher.0, offsets.1)?;
    let mut scores = Catalog::new(student.0, student.1, BLOCK_LOGITS)?;
    scores.divergence(teacher, temperature, offsets)?;
    scores.finish()
}

/// The running sums over the blocks.
struct Catalog<'a> {
    user_vectors: &'a Tensor,
    item_embeddings: &'a Tensor,
    /// Detached `[R, D]` and `[N, D]`.
    users: Tensor,
    items: Tensor,
    block_rows: usize,
    loss: f64,
    user_gradients: Vec<Tensor>,
    item_gradient: Option<Tensor>,
}

impl<'a> Catalog<'a> {
    fn new(
        user_vectors: &'a Tensor,
        item_embeddings: &'a Tensor,
        block_logits: usize,
    ) -> Result<Self> {
        let (rows, _) = user_vectors.dims2()?;
        let (table_rows, _) = item_embeddings.dims2()?;
        if rows == 0 || table_rows < 2 {
            candle_core::bail!("a loss over {rows} rows and {table_rows} item embeddings");
        }
        let items = item_embeddings.detach().narrow(0, 1, table_rows - 1)?;
        let item_gradient = if item_embeddings.track_op() {
            Some(items.zeros_like()?)
        } else {
            None
        };
        Ok(Self {
            user_vectors,
            item_embeddings,
            users: user_vectors.detach().contiguous()?,
            items,
            block_rows: (block_logits / (table_rows - 1)).max(1),
            loss: 0.0,
            user_gradients: Vec::new(),
            item_gradient,
        })
    }

    fn rows(&self) -> usize {
        self.users.dims()[0]
    }

    /// First row and number of rows of each block.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rows, block) = (self.rows(), self.block_rows);
        (0..rows)
            .step_by(block)
            .map(move |start| (start, block.min(rows - start)))
    }

    fn cross_entropy(&mut self, targets: &[u32], offsets: Option<&Offsets>) -> Result<()> {
        let targets: Vec<u32> = targets.iter().map(|target| target - 1).collect();
        let targets = Tensor::new(targets.as_slice(), self.users.device())?;
        let scale = 1.0 / self.rows() as f64;
        for (start, len) in self.blocks() {
            let users = self.users.narrow(0, start, len)?;
            let targets = targets.narrow(0, start, len)?;
            let logits = self.with_offsets(users.matmul(&self.items.t()?)?, offsets, start)?;
            let (probabilities, log_sum) = softmax(&logits)?;
            let hit = logits.gather(&targets.unsqueeze(1)?, 1)?;
            self.loss += sum(&(log_sum - hit)?)? * scale;
            // d loss / d logits is the probabilities less one at the target.
            let gradient = probabilities.matmul(&self.items)?;
            let gradient = (gradient - self.items.index_select(&targets, 0)?)?;
            self.user_gradients.push((gradient * scale)?);
            if let Some(items) = self.item_gradient.take() {
                let pushed = probabilities.t()?.matmul(&users)?;
                let pushed = pushed.index_add(&targets, &users.neg()?, 0)?;
                self.item_gradient = Some((items + (pushed * scale)?)?);
            }
        }
        Ok(())
    }

    /// Scores of a block of rows that begins at `start`, with its offsets.
    fn with_offsets(
        &self,
        scores: Tensor,
        offsets: Option<&Offsets>,
        start: usize,
    ) -> Result<Tensor> {
        let Some(offsets) = offsets else {
            return Ok(scores);
        };
        let (len, num_items) = scores.dims2()?;
        let rows = start..start + len;
        scores + offsets.dense(rows, num_items, self.users.dtype(), self.users.device())?
    }

    fn divergence(
        &mut self,
        teacher: (&Tensor, &Tensor),
        temperature: f64,
        offsets: (Option<&Offsets>, Option<&Offsets>),
    ) -> Result<()> {
        let num_items = self.items.dim(0)?;
        let teacher_users = teacher.0.detach().contiguous()?;
        let teacher_items = teacher.1.detach().narrow(0, 1, num_items)?;
        let loss_scale = temperature * temperature / self.rows() as f64;
        let gradient_scale = temperature / self.rows() as f64;
        for (start, len) in self.blocks() {
            let users = self.users.narrow(0, start, len)?;
            let logits = self.with_offsets(users.matmul(&self.items.t()?)?, offsets.0, start)?;
            let logits = (logits / temperature)?;
            let wanted = teacher_users.narrow(0, start, len)?;
            let wanted = wanted.matmul(&teacher_items.t()?)?;
            let wanted = (self.with_offsets(wanted, offsets.1, start)? / temperature)?;
            let (probabilities, log_sum) = softmax(&logits)?;
            let (wanted_probabilities, wanted_log_sum) = softmax(&wanted)?;
            let difference =
                (wanted.broadcast_sub(&wanted_log_sum)? - logits.broadcast_sub(&log_sum)?)?;
            self.loss += sum(&(&wanted_probabilities * difference)?)? * loss_scale;
            let logit_gradient = (probabilities - wanted_probabilities)?;
            let gradient = logit_gradient.matmul(&self.items)?;
            self.user_gradients.push((gradient * gradient_scale)?);
            if let Some(items) = self.item_gradient.take() {
                let pushed = logit_gradient.t()?.matmul(&users)?;
                self.item_gradient = Some((items + (pushed * gradient_scale)?)?);
            }
        }
        Ok(())
    }

    /// The loss as a scalar whose backward pass hands out the gradients that are already known:
    /// the value of `x . g - detach(x . g)` is 0 and its gradient with respect to x is g.
    fn finish(self) -> Result<Tensor> {
        // Rounded on the CPU: Metal has no f64.
        let loss = Tensor::new(self.loss, &Device::Cpu)?.to_dtype(self.users.dtype())?;
        let loss = loss.to_device(self.users.device())?;
        let gradient = Tensor::cat(&self.user_gradients, 0)?;
        let mut loss = carry(&loss, self.user_vectors, &gradient)?;
        if let Some(gradient) = self.item_gradient {
            let gradient = gradient.pad_with_zeros(0, 1, 0)?;
            loss = carry(&loss, self.item_embeddings, &gradient)?;
        }
        Ok(loss)
    }
}

pub(super) fn carry(loss: &Tensor, x: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let product = (x * gradient.detach())?.sum_all()?;
    let zero = (&product - product.detach())?;
    loss + zero
}

/// Probabilities and the logarithm of the sum of exponentials `[R, 1]` of logits `[R, N]`.
pub(super) fn softmax(logits: &Tensor) -> Result<(Tensor, Tensor)> {
    let probabilities = softmax_last_dim(logits)?;
    // The largest probability is 1 / sum(exp(logits - max)), which is never below 1 / N.
    let highest = logits.max_keepdim(D::Minus1)?;
    let log_sum = (highest - probabilities.max_keepdim(D::Minus1)?.log()?)?;
    Ok((probabilities, log_sum))
}

fn sum(values: &Tensor) -> Result<f64> {
    scalar(&values.sum_all()?)
}

/// The value of a scalar tensor, widened on the CPU: Metal has no f64.
pub(crate) fn scalar(value: &Tensor) -> Result<f64> {
    value
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F64)?
        .to_scalar()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parameters::normal;
    use candle_core::{DType, Device, Var};

    fn matrix(rows: usize, columns: usize, seed: u64) -> Tensor {
        normal((rows, columns), 0.7, seed, DType::F32, &Device::Cpu).expect("matrix")
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        let flat = tensor.flatten_all().expect("flat");
        flat.to_vec1().expect("values")
    }

    fn close(left: &Tensor, right: &Tensor) {
        assert_eq!(left.dims(), right.dims());
        for (l, r) in values(left).iter().zip(values(right)) {
            assert!((l - r).abs() <= 1e-6 + 1e-5 * r.abs(), "{l} and {r}");
        }
    }

    /// The block size must not show, whether or not it divides the rows.
    #[test]
    fn blocks_do_not_change_loss_or_gradients() {
        let users = Var::from_tensor(&matrix(7, 5, 1)).expect("users");
        let items = Var::from_tensor(&matrix(12, 5, 2)).expect("items");
        let teacher = (matrix(7, 3, 3), matrix(12, 3, 4));
        let rows = (0..7).map(|row| vec![(1 + row, 0.5), (9, -1.0 - row as f32)]);
        let offsets = Offsets::from_rows(rows);
        let run = |block_logits| {
            let mut scores =
                Catalog::new(users.as_tensor(), items.as_tensor(), block_logits).expect("catalog");
            scores
                .cross_entropy(&[1, 11, 3, 3, 2, 5, 7], Some(&offsets))
                .expect("cross-entropy");
            let first = scores.finish().expect("loss");
            let mut scores =
                Catalog::new(users.as_tensor(), items.as_tensor(), block_logits).expect("catalog");
            scores
                .divergence((&teacher.0, &teacher.1), 2.0, (Some(&offsets), None))
                .expect("divergence");
            let loss = (first + scores.finish().expect("loss")).expect("sum");
            let gradients = loss.backward().expect("backward");
            let of = |var: &Var| gradients.get(var).expect("gradient").clone();
            (loss, of(&users), of(&items))
        };
        let whole = run(1000);
        for block_logits in [1, 22, 33] {
            let parts = run(block_logits);
            close(&parts.0, &whole.0);
            close(&parts.1, &whole.1);
            close(&parts.2, &whole.2);
        }
    }

    #[test]
    fn padding_is_no_candidate_and_gets_no_gradient() {
        let users = matrix(3, 4, 5);
        let items = Var::from_tensor(&matrix(6, 4, 6)).expect("items");
        let loss = cross_entropy(&users, items.as_tensor(), &[1, 2, 5], None).expect("loss");
        let gradients = loss.backward().expect("backward");
        let gradient = gradients.get(&items).expect("gradient");
        assert_eq!(
            values(&gradient.narrow(0, 0, 1).expect("row 0")),
            vec![0.0; 4]
        );
        for target in [0, 6] {
            assert!(cross_entropy(&users, items.as_tensor(), &[1, 2, target], None).is_err());
        }
    }

    /// Probabilities that underflow to zero must not make the loss infinite.
    #[test]
    fn extreme_logits_stay_finite() {
        let users = Tensor::new(&[[200f32, 0.0]], &Device::Cpu).expect("users");
        let items =
            Tensor::new(&[[0f32, 0.0], [1.0, 0.0], [-1.0, 0.0]], &Device::Cpu).expect("items");
        let loss = cross_entropy(&users, &items, &[2], None).expect("loss");
        assert_eq!(loss.to_scalar::<f32>().expect("scalar"), 400.0);
    }
}
