//! Label smoothing (Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7) over the
//! candidates of each target.
//!
//! With a share e of the target's probability given to all candidates alike,
//! ```text
//! - sum_j q_j ln p_j  =  -ln p_t  +  e (s_t - mean of s_j over the candidates)
//! ```
//! so it is the cross-entropy and a term that is linear in the scores. As these are products with the
//! user vector, their mean is the product with a mean embedding, and the catalog is not scored again.

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::catalog::{self, in_memory};
use super::known::Known;
use super::offsets::Offsets;
use crate::model::ops::fused;
use crate::model::ops::simd::{add_scaled, dot, vectorized};

/// `smoothing` times the mean over the rows of what is in brackets above. Candidates are all items but
/// those that `seen` has for a row, whatever the values. User vectors `[R, D]`, item embeddings
/// `[N + 1, D]`, R targets; the result is a scalar.
///
/// # Errors
/// A target outside `1..=N`, or shapes that do not fit.
pub fn excess(
    user_vectors: &Tensor,
    item_embeddings: &Tensor,
    targets: &[u32],
    seen: Option<&Offsets>,
    smoothing: f64,
) -> Result<Tensor> {
    catalog::check_targets(user_vectors, item_embeddings, targets)?;
    catalog::check_offsets(user_vectors, seen)?;
    if fused(user_vectors) && fused(item_embeddings) {
        return fused_excess(user_vectors, item_embeddings, targets, seen, smoothing);
    }
    excess_slow(user_vectors, item_embeddings, targets, seen, smoothing)
}

/// In f32 on the CPU, with its gradients.
fn fused_excess(
    user_vectors: &Tensor,
    item_embeddings: &Tensor,
    targets: &[u32],
    seen: Option<&Offsets>,
    smoothing: f64,
) -> Result<Tensor> {
    let (rows, width) = user_vectors.dims2()?;
    let (table_rows, _) = item_embeddings.dims2()?;
    let (users, items) = (user_vectors.contiguous()?, item_embeddings.contiguous()?);
    let ((loss, user_gradient), item_gradient) = {
        let (user_storage, user_layout) = users.storage_and_layout();
        let (storage, layout) = items.storage_and_layout();
        let problem = Problem {
            users: &in_memory(&user_storage)?.as_slice()?[user_layout.start_offset()..],
            items: &in_memory(&storage)?.as_slice()?[layout.start_offset()..],
            width,
            num_items: table_rows as u32 - 1,
            targets,
            seen,
            scale: (smoothing / rows as f64) as f32,
        };
        let of_items = items.track_op().then(|| problem.item_gradient());
        (problem.loss_and_user_gradient(), of_items)
    };
    let known = Known {
        loss,
        gradients: (
            Tensor::from_vec(user_gradient, (rows, width), users.device())?,
            item_gradient
                .map(|g| Tensor::from_vec(g, (table_rows, width), items.device()))
                .transpose()?,
        ),
    };
    known.of(&users, &items)
}

/// Pairs of a row and an item that is no candidate are many, so they are met one by one instead of as
/// rows of a tensor.
struct Problem<'a> {
    /// `[R, D]`
    users: &'a [f32],
    /// `[N + 1, D]`
    items: &'a [f32],
    width: usize,
    num_items: u32,
    targets: &'a [u32],
    seen: Option<&'a Offsets>,
    scale: f32,
}

impl Problem<'_> {
    #[inline(always)]
    fn user(&self, row: usize) -> &[f32] {
        &self.users[row * self.width..][..self.width]
    }

    #[inline(always)]
    fn item(&self, item: u32) -> &[f32] {
        &self.items[item as usize * self.width..][..self.width]
    }

    /// The items that are no candidates of a row.
    #[inline(always)]
    fn none(&self, row: usize) -> impl Iterator<Item = u32> {
        let all = 1..self.num_items + 1;
        let seen = self.seen.into_iter();
        let seen = seen.flat_map(move |seen| seen.within(row, all.clone()));
        seen.map(|(item, _)| item)
    }

    /// One over the number of candidates of a row.
    fn weight(&self, row: usize) -> f32 {
        1.0 / (self.num_items as usize - self.none(row).count()).max(1) as f32
    }

    fn loss_and_user_gradient(&self) -> (f64, Vec<f32>) {
        let mut all = vec![0f32; self.width];
        vectorized(
            #[inline(always)]
            || {
                for item in 1..=self.num_items {
                    add_scaled(&mut all, self.item(item), 1.0);
                }
            },
        );
        let mut gradient = vec![0f32; self.targets.len() * self.width];
        let of_row = |(row, gradient): (usize, &mut [f32])| {
            let weight = self.weight(row);
            vectorized(
                #[inline(always)]
                || {
                    // The target's embedding less the candidates' mean.
                    add_scaled(gradient, &all, -weight);
                    for item in self.none(row) {
                        add_scaled(gradient, self.item(item), weight);
                    }
                    add_scaled(gradient, self.item(self.targets[row]), 1.0);
                    let loss = dot(gradient, self.user(row)) * self.scale;
                    gradient.iter_mut().for_each(|g| *g *= self.scale);
                    f64::from(loss)
                },
            )
        };
        let rows = gradient.par_chunks_mut(self.width).enumerate();
        let losses: Vec<f64> = rows.map(of_row).collect();
        (losses.iter().sum(), gradient)
    }

    /// `[N + 1, D]`, the padding's row of zeros included.
    fn item_gradient(&self) -> Vec<f32> {
        let (width, scale) = (self.width, self.scale);
        let mut gradient = vec![0f32; (self.num_items as usize + 1) * width];
        let mut of_all = vec![0f32; width];
        vectorized(
            #[inline(always)]
            || {
                for (row, target) in self.targets.iter().enumerate() {
                    let weight = self.weight(row);
                    add_scaled(&mut of_all, self.user(row), -weight * scale);
                    for item in self.none(row) {
                        let to = &mut gradient[item as usize * width..][..width];
                        add_scaled(to, self.user(row), weight * scale);
                    }
                    let to = &mut gradient[*target as usize * width..][..width];
                    add_scaled(to, self.user(row), scale);
                }
                for to in gradient.chunks_exact_mut(width).skip(1) {
                    add_scaled(to, &of_all, 1.0);
                }
            },
        );
        gradient
    }
}

/// The same in tensor operations, for every device and type.
fn excess_slow(
    user_vectors: &Tensor,
    item_embeddings: &Tensor,
    targets: &[u32],
    seen: Option<&Offsets>,
    smoothing: f64,
) -> Result<Tensor> {
    let device = user_vectors.device();
    let (rows, dtype) = (targets.len(), user_vectors.dtype());
    let num_items = item_embeddings.dim(0)? - 1;
    let dots = |users: &Tensor, items: &Tensor| (users * items)?.sum(D::Minus1);
    let vector = |values: Vec<f32>| {
        let count = values.len();
        Tensor::from_vec(values, count, device)?.to_dtype(dtype)
    };
    let hits = item_embeddings.index_select(&Tensor::new(targets, device)?, 0)?;
    let hits = dots(user_vectors, &hits)?.sum_all()?;

    let all = item_embeddings.narrow(0, 1, num_items)?.sum_keepdim(0)?; // [1, D]
    let (mut row_of, mut item_of) = (Vec::new(), Vec::new());
    let mut weights = Vec::with_capacity(rows); // one over the number of candidates
    for row in 0..rows {
        let before = item_of.len();
        if let Some(seen) = seen {
            item_of.extend(
                seen.within(row, 1..num_items as u32 + 1)
                    .map(|(item, _)| item),
            );
        }
        let none = item_of.len() - before;
        row_of.resize(item_of.len(), row as u32);
        weights.push(1.0 / (num_items - none).max(1) as f32);
    }
    let of_pairs = row_of.iter().map(|row| weights[*row as usize]).collect();
    let sums = user_vectors.matmul(&all.t()?)?.squeeze(1)?; // [R]
    let mut means = (sums * vector(weights)?)?.sum_all()?;
    if !item_of.is_empty() {
        let users = user_vectors.index_select(&Tensor::new(row_of, device)?, 0)?;
        let items = item_embeddings.index_select(&Tensor::new(item_of, device)?, 0)?;
        means = (means - (dots(&users, &items)? * vector(of_pairs)?)?.sum_all()?)?;
    }
    (hits - means)? * (smoothing / rows as f64)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::super::offsets::MASKED;
    use super::*;

    /// Sums of a few dozen f32 terms in another order.
    const TOLERANCE: f32 = 1e-5;

    #[test]
    fn loss_and_gradients_are_pytorchs() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/reference/golden/smoothing.safetensors"
        );
        let golden = candle_core::safetensors::load(path, &Device::Cpu).expect("golden numbers");
        let leaf = |name: &str| Var::from_tensor(&golden[name]).expect("variable");
        let (users, items) = (leaf("users"), leaf("items"));
        let targets: Vec<u32> = golden["targets"].to_vec1().expect("targets");
        let seen: Vec<Vec<u8>> = golden["seen"].to_vec2().expect("seen");
        let seen = Offsets::from_rows(seen.iter().map(|row| {
            let items = (1..).zip(row).filter(|(_, seen)| **seen == 1);
            items.map(|(item, _)| (item, MASKED)).collect()
        }));
        let smoothing: f32 = golden["smoothing"].to_scalar().expect("a share");
        let plain =
            catalog::cross_entropy(users.as_tensor(), items.as_tensor(), &targets, Some(&seen));
        let more = excess(
            users.as_tensor(),
            items.as_tensor(),
            &targets,
            Some(&seen),
            f64::from(smoothing),
        );
        let loss = (plain.expect("cross-entropy") + more.expect("excess")).expect("sum");
        let gradients = loss.backward().expect("backward");
        for (name, found) in [
            ("loss", &loss),
            ("users.gradient", gradients.get(&users).expect("users")),
            ("items.gradient", gradients.get(&items).expect("items")),
        ] {
            let away = (found - &golden[name]).expect("shape");
            let away = away.abs().expect("size").max_all().expect("largest");
            let away: f32 = away.to_scalar().expect("scalar");
            assert!(away <= TOLERANCE, "{name}: {away} away");
        }
    }

    #[test]
    fn every_item_is_a_candidate_where_none_is_masked() {
        let users = Tensor::new(&[[1f32, 0.0]], &Device::Cpu).expect("users");
        let items = Tensor::new(&[[9f32, 9.0], [4.0, 0.0], [1.0, 5.0]], &Device::Cpu);
        let found = excess(&users, &items.expect("items"), &[1], None, 0.5).expect("excess");
        // Half of 4 - (4 + 1) / 2.
        assert_eq!(found.to_scalar::<f32>().expect("scalar"), 0.75);
    }
}
