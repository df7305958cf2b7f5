//! Weights of several models in a blend, by the validation targets.

use std::collections::BTreeSet;

use rayon::prelude::*;
use slmrec_core::metrics::Metric;
use slmrec_core::ranking::{ItemMask, RankingError, rank_of};
use slmrec_core::{Dataset, Split};

use super::{Case, EvaluateError, ModelScorer, for_each_batch, held_out_cases, sample_users};
use crate::model::SequentialModel;

/// Most scores of one model that are held at once (128 MiB); fewer users are asked where the catalog
/// is large.
const SCORES_OF_MODEL: usize = 1 << 25;
/// What each weight is multiplied with in turn.
const FACTORS: [f64; 7] = [0.0, 0.25, 0.5, 0.75, 1.5, 2.0, 3.0];
/// Rounds over all weights.
const ROUNDS: usize = 2;

/// What a search for weights found.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// The weight of each model; they sum to one.
    pub weights: Vec<f64>,
    /// NDCG@10 of the blend on the validation targets, seen items removed.
    pub ndcg_10: f64,
    /// The same of each model alone.
    pub alone: Vec<f64>,
    /// How many users were asked.
    pub users: usize,
}

/// Searches the weights of models over one catalog, group by group, from equal ones. Models of one
/// group (`groups` has the number of each model's) share a weight: those that differ by their seed
/// alone are apart by nothing but noise, which a search would take for merit.
///
/// # Errors
/// A model that cannot be run, or a dataset without validation targets.
pub fn weigh(
    models: &[&dyn SequentialModel],
    groups: &[usize],
    dataset: &Dataset,
    seed: u64,
) -> Result<Weights, EvaluateError> {
    let most = (SCORES_OF_MODEL / dataset.num_items().max(1)).max(1);
    let users = sample_users(dataset, Split::Validation, most, seed);
    let cases = held_out_cases(dataset, Split::Validation, users.as_deref())?;
    let scores: Vec<Vec<Vec<f32>>> = (models.iter())
        .map(|model| {
            let mut scorer = ModelScorer::new("member", *model)?;
            for_each_batch(&mut scorer, dataset, &cases, &mut |_, _| (), |_, scores| {
                Ok(scores.to_vec())
            })
        })
        .collect::<Result<_, _>>()?;
    let ndcg = |weights: &[f64]| ndcg_10(&scores, &cases, weights);
    let only = |at: usize| (0..models.len()).map(move |m| f64::from(u8::from(m == at)));
    let alone = (0..models.len()).map(|at| ndcg(&only(at).collect::<Vec<_>>()));
    let alone = alone.collect::<Result<Vec<_>, _>>()?;
    let mut weights = vec![1.0 / models.len() as f64; models.len()];
    let mut best = ndcg(&weights)?;
    for _ in 0..ROUNDS {
        for group in groups.iter().collect::<BTreeSet<_>>() {
            for factor in FACTORS {
                let mut candidate = weights.clone();
                let of_group = candidate
                    .iter_mut()
                    .zip(groups)
                    .filter(|(_, g)| *g == group);
                of_group.for_each(|(weight, _)| *weight *= factor);
                let sum: f64 = candidate.iter().sum();
                if sum <= 0.0 {
                    continue;
                }
                candidate.iter_mut().for_each(|weight| *weight /= sum);
                let found = ndcg(&candidate)?;
                if found > best {
                    (best, weights) = (found, candidate);
                }
            }
        }
    }
    Ok(Weights {
        weights,
        ndcg_10: best,
        alone,
        users: cases.len(),
    })
}

/// Of scores `[model][case][item]`.
fn ndcg_10(
    scores: &[Vec<Vec<f32>>],
    cases: &[Case<'_>],
    weights: &[f64],
) -> Result<f64, EvaluateError> {
    let rank = |(at, case): (usize, &Case<'_>)| {
        let mut sum = vec![0f32; scores.first().map_or(0, |model| model[at].len())];
        for (model, weight) in scores.iter().zip(weights) {
            for (sum, score) in sum.iter_mut().zip(&model[at]) {
                *sum += *weight as f32 * score;
            }
        }
        let mut seen = ItemMask::none(sum.len());
        case.history.iter().for_each(|&item| seen.exclude(item));
        Ok(rank_of(&sum, case.target, &seen)? as u32)
    };
    let ranks: Result<Vec<u32>, RankingError> = cases.par_iter().enumerate().map(rank).collect();
    let ranks = ranks.map_err(|source| EvaluateError::Ranking {
        system: "blend".to_owned(),
        user: "of the validation".to_owned(),
        source,
    })?;
    Ok(Metric::Ndcg(10).mean(&ranks))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::evaluate::testing::dataset;
    use crate::evaluate::validation_ndcg;
    use crate::model::{Blend, Member, SasRec, SasRecSettings};

    #[test]
    fn the_figures_are_those_of_the_blend() {
        let sequences: Vec<Vec<u32>> = (0..30u32)
            .map(|user| (0..7).map(|step| 1 + (user * 7 + step * 3) % 25).collect())
            .collect();
        let borrowed: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let data = dataset(25, &borrowed);
        let model = |seed| {
            let settings = SasRecSettings {
                hidden_size: 8,
                intermediate_size: 8,
                ..SasRecSettings::default()
            };
            SasRec::new(settings, 25, seed, &Device::Cpu).expect("a model")
        };
        let models = [model(1), model(2), model(3)];
        let borrowed: Vec<&dyn SequentialModel> =
            models.iter().map(|m| m as &dyn SequentialModel).collect();
        let found = weigh(&borrowed, &[0, 1, 1], &data, 1).expect("weighs");
        assert_eq!(found.weights[1].to_bits(), found.weights[2].to_bits());
        assert!((found.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        for (model, alone) in borrowed.iter().zip(&found.alone) {
            let expected = validation_ndcg(*model, &data, None).expect("evaluates");
            assert!((expected - alone).abs() < 1e-12);
        }
        let members = models.into_iter().zip(&found.weights);
        let members = members.map(|(model, weight)| Member {
            model: Box::new(model),
            weight: *weight,
        });
        let blend = Blend::new(members.collect()).expect("blends");
        let expected = validation_ndcg(&blend, &data, None).expect("evaluates");
        assert!(
            (expected - found.ndcg_10).abs() < 1e-3,
            "{expected}, {found:?}"
        );
    }
}
