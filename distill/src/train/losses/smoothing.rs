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

/// In f32 on the CPU, with its gradients: pairs of a row and an item that is no candidate are many, and
/// are met one by one instead of as rows of a tensor.
fn fused_excess(
    user_vectors: &Tensor,
    item_embeddings: &Tensor,
    targets: &[u32],
    seen: Option<&Offsets>,
    smoothing: f64,
) -> Result<Tensor> {
    let (rows, width) = user_vectors.dims2()?;
    let (table_rows, _) = item_embeddings.dims2()?;
    let num_items = table_rows - 1;
    let (users, items) = (user_vectors.contiguous()?, item_embeddings.contiguous()?);
    let scale = (smoothing / rows as f64) as f32;
    let mut item_gradient = items.track_op().then(|| vec![0f32; table_rows * width]);
    let mut user_gradient = vec![0f32; rows * width];
    let loss: f64 = {
        let (user_storage, user_layout) = users.storage_and_layout();
        let (storage, layout) = items.storage_and_layout();
        let user_values =
            &in_memory(&user_storage)?.as_slice::<f32>()?[user_layout.start_offset()..];
        let table = &in_memory(&storage)?.as_slice::<f32>()?[layout.start_offset()..];
        let user = |row: usize| &user_values[row * width..][..width];
        let item = |item: u32| &table[item as usize * width..][..width];
        let none = |row: usize| {
            let all = 1..num_items as u32 + 1;
            (seen
                .into_iter()
                .flat_map(move |seen| seen.within(row, all.clone())))
            .map(|(i, _)| i)
        };
        let weight = |row: usize| 1.0 / (num_items - none(row).count()).max(1) as f32;
        let mut all = vec![0f32; width];
        vectorized(
            #[inline(always)]
            || {
                for number in 1..=num_items as u32 {
                    add_scaled(&mut all, item(number), 1.0);
                }
            },
        );
        let losses = user_gradient.par_chunks_mut(width).enumerate();
        let losses = losses.map(|(row, gradient)| {
            let weight = weight(row);
            vectorized(
                #[inline(always)]
                || {
                    // The target's embedding less the candidates' mean.
                    add_scaled(gradient, &all, -weight);
                    for number in none(row) {
                        add_scaled(gradient, item(number), weight);
                    }
                    add_scaled(gradient, item(targets[row]), 1.0);
                    let loss = dot(gradient, user(row)) * scale;
                    gradient.iter_mut().for_each(|g| *g *= scale);
                    f64::from(loss)
                },
            )
        });
        let losses: Vec<f64> = losses.collect();
        if let Some(gradient) = &mut item_gradient {
            let mut of_all = vec![0f32; width];
            vectorized(
                #[inline(always)]
                || {
                    for (row, target) in targets.iter().enumerate() {
                        let weight = weight(row);
                        add_scaled(&mut of_all, user(row), -weight * scale);
                        for number in none(row) {
                            let to = &mut gradient[number as usize * width..][..width];
                            add_scaled(to, user(row), weight * scale);
                        }
                        let to = &mut gradient[*target as usize * width..][..width];
                        add_scaled(to, user(row), scale);
                    }
                    for to in gradient.chunks_exact_mut(width).skip(1) {
                        add_scaled(to, &of_all, 1.0);
                    }
                },
            );
        }
        losses.iter().sum()
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
