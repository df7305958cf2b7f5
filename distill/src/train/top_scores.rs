//! The teacher's best items at each position, and logit distillation over them alone.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::ops::log_softmax;
use rayon::prelude::*;
use slmrec_core::ranking::{ItemMask, top_k};

use crate::model::ItemTable;

/// Most scores at once while the best are looked for: 16 MiB in f32.
const BLOCK_SCORES: usize = 1 << 22;

/// The best K items of R positions, best first; among equal scores the smaller row comes first.
#[derive(Clone, Debug)]
pub struct TopScores {
    /// Item rows (`1..=N`), u32 `[R, K]`.
    pub items: Tensor,
    /// Their scores, f32 `[R, K]`.
    pub scores: Tensor,
}

impl TopScores {
    /// The best `min(k, N)` items under `user_vectors . item_embeddings`, user vectors `[R, D]`, item
    /// embeddings `[N + 1, D]` with row 0 for the padding. Memory is that of a block of scores.
    ///
    /// # Errors
    /// Shapes that do not fit, or a score that is not a number.
    pub fn of(user_vectors: &Tensor, item_embeddings: &Tensor, k: usize) -> Result<Self> {
        let (rows, _) = user_vectors.dims2()?;
        let num_items = item_embeddings.dims2()?.0.saturating_sub(1);
        let k = k.min(num_items);
        if rows == 0 || k == 0 {
            candle_core::bail!("the best {k} of {num_items} items at {rows} positions");
        }
        let table = item_embeddings.detach().narrow(0, 1, num_items)?;
        let nothing_hidden = ItemMask::none(num_items);
        let (mut items, mut scores) = (Vec::new(), Vec::new());
        let block = (BLOCK_SCORES / num_items).max(1);
        for start in (0..rows).step_by(block) {
            let users = user_vectors.narrow(0, start, block.min(rows - start))?;
            let all = users.detach().contiguous()?.matmul(&table.t()?)?;
            let all: Vec<f32> = all.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
            let best: Vec<_> = (all.par_chunks(num_items))
                .map(|scores| top_k(scores, k, &nothing_hidden))
                .collect::<std::result::Result<_, _>>()
                .map_err(candle_core::Error::wrap)?;
            items.extend(best.iter().flatten().map(|scored| scored.item.0));
            scores.extend(best.iter().flatten().map(|scored| scored.score));
        }
        let device = user_vectors.device();
        Ok(Self {
            items: Tensor::from_vec(items, (rows, k), device)?,
            scores: Tensor::from_vec(scores, (rows, k), device)?,
        })
    }

    /// The same items with scores through which gradients reach the teacher's user vectors and item
    /// embeddings.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn with_gradient(self, user_vectors: &Tensor, item_embeddings: &Tensor) -> Result<Self> {
        let (rows, k) = self.items.dims2()?;
        let (_, dim) = item_embeddings.dims2()?;
        let chosen = item_embeddings.index_select(&self.items.flatten_all()?, 0)?;
        let scores = (chosen.reshape((rows, k, dim))?)
            .matmul(&user_vectors.reshape((rows, dim, 1))?)?
            .reshape((rows, k))?;
        Ok(Self { scores, ..self })
    }

    /// Mean of `T^2 KL(softmax(teacher / T) || softmax(student / T))`, both over these K items only.
    /// The student's user vectors `[R, D]` and item embeddings `[N + 1, D]` get gradients; so does the
    /// teacher after [`Self::with_gradient`].
    ///
    /// # Errors
    /// Shapes that do not fit, or items that the student does not have.
    pub fn divergence(
        &self,
        user_vectors: &Tensor,
        table: ItemTable<'_>,
        temperature: f64,
    ) -> Result<Tensor> {
        let (rows, k) = self.items.dims2()?;
        let (_, dim) = table.dims()?;
        let items: Vec<u32> = self.items.flatten_all()?.to_vec1()?;
        let chosen = table.rows(&items)?.reshape((rows, k, dim))?;
        let student = chosen
            .matmul(&user_vectors.reshape((rows, dim, 1))?)?
            .reshape((rows, k))?;
        let student = log_softmax(&(student / temperature)?, D::Minus1)?;
        let teacher = log_softmax(&(&self.scores / temperature)?, D::Minus1)?;
        let terms = (teacher.exp()? * (teacher - student)?)?;
        terms.sum_all()? * (temperature * temperature / rows as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parameters::normal;
    use crate::train::losses::catalog;
    use candle_core::{Device, Var};

    fn matrix(rows: usize, columns: usize, seed: u64) -> Tensor {
        normal((rows, columns), 0.7, seed, DType::F32, &Device::Cpu).expect("matrix")
    }

    fn rows(tensor: &Tensor) -> Vec<Vec<f32>> {
        tensor.to_vec2().expect("rows")
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()
    }

    /// In plain f64: sort all scores, keep K, renormalise on both sides.
    fn reference(
        student: (&Tensor, &Tensor),
        teacher: (&Tensor, &Tensor),
        k: usize,
        t: f64,
    ) -> f64 {
        let (users, items) = (rows(student.0), rows(student.1));
        let (teacher_users, teacher_items) = (rows(teacher.0), rows(teacher.1));
        let mut sum = 0.0;
        for (user, teacher_user) in users.iter().zip(&teacher_users) {
            let mut order: Vec<usize> = (1..teacher_items.len()).collect();
            let score = |item: &usize| dot(teacher_user, &teacher_items[*item]);
            order.sort_by(|a, b| score(b).total_cmp(&score(a)));
            order.truncate(k);
            let p: Vec<f64> = order.iter().map(|i| (score(i) / t).exp()).collect();
            let q: Vec<f64> = (order.iter())
                .map(|&i| (dot(user, &items[i]) / t).exp())
                .collect();
            let (p_sum, q_sum) = (p.iter().sum::<f64>(), q.iter().sum::<f64>());
            for (p, q) in p.iter().zip(&q) {
                let (p, q) = (p / p_sum, q / q_sum);
                sum += p * (p / q).ln();
            }
        }
        t * t * sum / users.len() as f64
    }

    #[test]
    fn agrees_with_a_plain_reference_and_its_differences() {
        let (users, items) = (matrix(3, 4, 1), matrix(10, 4, 2));
        let teacher = (matrix(3, 5, 3), matrix(10, 5, 4));
        for (k, t) in [(1, 1.0), (4, 2.0), (9, 0.5)] {
            let (user_var, item_var) = (
                Var::from_tensor(&users).expect("users"),
                Var::from_tensor(&items).expect("items"),
            );
            let top = TopScores::of(&teacher.0, &teacher.1, k).expect("top");
            let loss = top
                .divergence(user_var.as_tensor(), item_var.as_tensor().into(), t)
                .expect("loss");
            let expected = reference((&users, &items), (&teacher.0, &teacher.1), k, t);
            let found = f64::from(loss.to_scalar::<f32>().expect("scalar"));
            assert!((found - expected).abs() < 1e-5, "{found}, {expected}");
            let gradients = loss.backward().expect("backward");
            for (var, other_is_items) in [(&user_var, false), (&item_var, true)] {
                let gradient = gradients.get(var).expect("gradient");
                let gradient = gradient.flatten_all().expect("flat").to_vec1::<f32>();
                let values = var.flatten_all().expect("flat").to_vec1::<f32>();
                let (gradient, values) = (gradient.expect("values"), values.expect("values"));
                for at in 0..values.len() {
                    let shifted = |by: f32| {
                        let mut values = values.clone();
                        values[at] += by;
                        let moved = Tensor::from_vec(values, var.dims(), &Device::Cpu);
                        let moved = moved.expect("moved");
                        let student = if other_is_items {
                            (&users, &moved)
                        } else {
                            (&moved, &items)
                        };
                        reference(student, (&teacher.0, &teacher.1), k, t)
                    };
                    let slope = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
                    let near = (f64::from(gradient[at]) - slope).abs() < 2e-3;
                    assert!(near, "k {k}, value {at}: {} and {slope}", gradient[at]);
                }
            }
        }
    }

    #[test]
    fn all_items_are_the_whole_catalog() {
        let (users, items) = (matrix(3, 4, 1), matrix(10, 4, 2));
        let teacher = (matrix(3, 5, 3), matrix(10, 5, 4));
        let top = TopScores::of(&teacher.0, &teacher.1, 100).expect("top");
        assert_eq!(top.items.dims(), [3, 9]);
        let some = top.divergence(&users, (&items).into(), 2.0).expect("loss");
        let whole = catalog::divergence(
            (&users, &items),
            (&teacher.0, &teacher.1),
            2.0,
            (None, None),
        );
        let value = |t: Tensor| t.to_scalar::<f32>().expect("scalar");
        let (some, whole) = (value(some), value(whole.expect("loss")));
        assert!((some - whole).abs() < 1e-5, "{some}, {whole}");
    }

    #[test]
    fn padding_is_never_among_the_best_and_ties_go_by_row() {
        let users = Tensor::new(&[[1f32], [-1.0]], &Device::Cpu).expect("users");
        let items =
            Tensor::new(&[[9f32], [1.0], [2.0], [2.0], [0.0]], &Device::Cpu).expect("items");
        let top = TopScores::of(&users, &items, 2).expect("top");
        let found = top.items.to_vec2::<u32>().expect("items");
        assert_eq!(found, [[2, 3], [4, 1]]);
        let nan = (users * f64::NAN).expect("nan");
        assert!(TopScores::of(&nan, &items, 2).is_err());
        assert!(TopScores::of(&nan, &items, 0).is_err());
    }
}
