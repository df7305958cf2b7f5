//! How much a prior should say beside a model: alpha and beta by validation.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use slmrec_core::metrics::Metric;
use slmrec_core::prior::{PriorWeights, SparseSums, TransitionPrior};
use slmrec_core::{Dataset, ItemIndex, Split};

use super::grid::{self, grid};
use super::leave_one_out::sum_without_last;
use crate::evaluate::{Case, EvaluateError, Scorer, for_each_batch, held_out_cases};

/// Ranks beyond this are all the same to NDCG@10.
const DEPTH: usize = 10;

/// What a prior is worth beside a model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mixture {
    /// The middle of the best weights; an `alpha` of 0 where the prior does not help.
    pub weights: PriorWeights,
    /// NDCG@10 of the model alone on the validation targets, seen items removed.
    pub ndcg_10_without: f64,
    /// The same with the prior at these weights.
    pub ndcg_10_with: f64,
    /// How many users were asked.
    pub users: usize,
}

/// What has been counted beside a model when the validation targets choose its weights.
#[derive(Clone, Debug)]
pub enum Counts {
    /// The training sequences, which the model was trained on, too: as the validation targets are
    /// ranked.
    OfTraining(TransitionPrior),
    /// The validation targets on top. For each user those of all others are asked, so that the counts
    /// know one more item of everybody than the model does, as on the test targets and on a device.
    OneNewer(TransitionPrior),
}

impl Counts {
    fn sum(&self, case: &Case<'_>, sums: &mut SparseSums) {
        match self {
            Self::OfTraining(prior) => prior.sum(case.history, sums),
            Self::OneNewer(prior) => {
                let known = [case.history, &[case.target]].concat();
                sum_without_last(prior, &known, sums);
            }
        }
    }
}

/// Tries all weights of a grid on the validation targets, and takes [the middle of the best
/// ones](grid::middle_of_the_best). None has an `alpha` above `largest_alpha`; `users` limits it to some
/// places of the dataset.
///
/// # Errors
/// A scorer that fails; a dataset without validation targets.
pub fn mix(
    scorer: &mut dyn Scorer,
    dataset: &Dataset,
    counts: &Counts,
    largest_alpha: f32,
    users: Option<&[usize]>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Mixture, EvaluateError> {
    let cases = held_out_cases(dataset, Split::Validation, users)?;
    let ranks = for_each_batch(scorer, dataset, &cases, progress, |case, scores| {
        let mut sums = SparseSums::default();
        counts.sum(case, &mut sums);
        Ok(ranks_of_grid(&sums, case, scores))
    })?;
    let grid: Vec<PriorWeights> = grid().collect();
    // `alpha` ascends, so those that are allowed come first, no prior at all among them.
    let allowed = grid.partition_point(|weights| weights.alpha <= largest_alpha.max(0.0));
    let ndcg: Vec<f64> = (0..allowed)
        .into_par_iter()
        .map(|at| {
            let of_weights: Vec<u32> = ranks.iter().map(|r| u32::from(r[at])).collect();
            Metric::Ndcg(10).mean(&of_weights)
        })
        .collect();
    let chosen = grid::middle_of_the_best(&ranks, &ndcg);
    Ok(Mixture {
        weights: grid[chosen],
        ndcg_10_without: ndcg[0],
        ndcg_10_with: ndcg[chosen],
        users: cases.len(),
    })
}

/// The weights of the grid under which the validation targets are the likeliest by the counts alone,
/// as a softmax over the catalog, and their mean cross-entropy. These are the ones to learn beside:
/// those that rank best beside a trained model can be so large that a loss would mostly undo them.
///
/// # Errors
/// A dataset without validation targets.
pub fn likeliest(
    dataset: &Dataset,
    prior: &TransitionPrior,
    users: Option<&[usize]>,
) -> Result<(PriorWeights, f64), EvaluateError> {
    let cases = held_out_cases(dataset, Split::Validation, users)?;
    let grid: Vec<PriorWeights> = grid().collect();
    let losses = cases
        .par_iter()
        .map_init(SparseSums::default, |sums, case| {
            prior.sum(case.history, sums);
            let loss = |weights: &PriorWeights| cross_entropy(sums, case.target, *weights);
            grid.iter().map(loss).collect::<Vec<f64>>()
        })
        .collect::<Vec<_>>();
    let mean = |at: usize| losses.iter().map(|l| l[at]).sum::<f64>() / losses.len() as f64;
    let mut best = (grid[0], mean(0));
    for (at, weights) in grid.iter().enumerate().skip(1) {
        let loss = mean(at);
        if loss < best.1 {
            best = (*weights, loss);
        }
    }
    Ok(best)
}

fn cross_entropy(sums: &SparseSums, target: ItemIndex, weights: PriorWeights) -> f64 {
    let added = |p: f32| f64::from(weights.alpha * (p / weights.beta).ln_1p());
    let counted: f64 = sums.iter().map(|(_, p)| added(p).exp() - 1.0).sum();
    let all = sums.num_items() as f64; // an item without a count weighs e^0
    (all + counted).ln() - added(sums.get(target))
}

/// The weights of the grid under which a model and the counts together make the validation targets
/// likeliest, as a softmax over the items that a user has not seen, and their mean cross-entropy.
/// These are the ones to teach by: those that rank best are often so large that the softmax sees
/// little but the counts.
///
/// # Errors
/// A scorer that fails; a dataset without validation targets.
pub fn likeliest_beside(
    scorer: &mut dyn Scorer,
    dataset: &Dataset,
    prior: &TransitionPrior,
    users: Option<&[usize]>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(PriorWeights, f64), EvaluateError> {
    let cases = held_out_cases(dataset, Split::Validation, users)?;
    let losses = for_each_batch(scorer, dataset, &cases, progress, |case, scores| {
        Ok(losses_of_grid(prior, case, scores))
    })?;
    let mean = |at: usize| losses.iter().map(|l| l[at]).sum::<f64>() / losses.len() as f64;
    let grid: Vec<PriorWeights> = grid().collect();
    let mut best = (grid[0], mean(0));
    for (at, &weights) in grid.iter().enumerate().skip(1) {
        let loss = mean(at);
        if loss < best.1 {
            best = (weights, loss);
        }
    }
    Ok(best)
}

/// The cross-entropy of a user's target under all weights.
fn losses_of_grid(prior: &TransitionPrior, case: &Case<'_>, scores: &[f32]) -> Vec<f64> {
    let mut sums = SparseSums::default();
    prior.sum(case.history, &mut sums);
    let largest = scores.iter().fold(f32::NEG_INFINITY, |m, s| m.max(*s));
    let likelihood = |item: ItemIndex| f64::from(scores[item.row() - 1] - largest).exp();
    let mut seen: Vec<ItemIndex> = case.history.to_vec();
    seen.sort_unstable();
    seen.dedup();
    // A target that was seen before counts all the same.
    let hidden = |item: ItemIndex| item != case.target && seen.binary_search(&item).is_ok();
    let all: f64 = (1u32..=scores.len() as u32)
        .map(|row| likelihood(ItemIndex(row)))
        .sum();
    let seen: f64 = seen
        .iter()
        .filter(|&&i| hidden(i))
        .map(|&i| likelihood(i))
        .sum();
    let counted: Vec<(f64, f32)> = (sums.iter())
        .filter(|&(item, _)| !hidden(item))
        .map(|(item, sum)| (likelihood(item), sum))
        .collect();
    let (own, own_sum) = (likelihood(case.target), sums.get(case.target));
    let loss = |PriorWeights { alpha, beta }: PriorWeights| {
        let added = |sum: f32| f64::from(alpha * (sum / beta).ln_1p());
        let more: f64 = counted
            .iter()
            .map(|(l, sum)| l * (added(*sum).exp() - 1.0))
            .sum();
        (all - seen + more).ln() - own.ln() - added(own_sum)
    };
    grid().map(loss).collect()
}

/// The rank of a user's target under all weights, at most `DEPTH + 1`.
fn ranks_of_grid(sums: &SparseSums, case: &Case<'_>, scores: &[f32]) -> Vec<u8> {
    let seen = |item: ItemIndex| case.history.contains(&item);
    let score = |item: ItemIndex| scores[item.row() - 1];
    let counted: Vec<(f32, f32)> = (sums.iter())
        .filter(|&(item, _)| item != case.target && !seen(item))
        .map(|(item, sum)| (score(item), sum))
        .collect();
    let others = best_without_count(case, scores, sums);
    let (own_score, own_sum) = (score(case.target), sums.get(case.target));
    let rank = |PriorWeights { alpha, beta }| {
        let with = |score: f32, sum: f32| score + alpha * (sum / beta).ln_1p();
        let own = with(own_score, own_sum);
        let others = others.iter().filter(|score| **score >= own).count();
        let counted = (counted.iter()).filter(|(score, sum)| with(*score, *sum) >= own);
        // A rank beyond the depth is as good as any other.
        (1 + others + counted.take(DEPTH).count()).min(DEPTH + 1) as u8
    };
    grid().map(rank).collect()
}

/// The best scores of the items that the prior leaves as they are.
fn best_without_count(case: &Case<'_>, scores: &[f32], sums: &SparseSums) -> Vec<f32> {
    let mut seen: Vec<u32> = case.history.iter().map(|item| item.0).collect();
    seen.sort_unstable();
    let mut best: Vec<f32> = Vec::with_capacity(DEPTH + 1);
    for (row, &score) in (1u32..).zip(scores) {
        let worth = best.len() < DEPTH || score > best[best.len() - 1];
        let item = ItemIndex(row);
        if !worth || item == case.target || sums.get(item) > 0.0 {
            continue;
        }
        if seen.binary_search(&row).is_err() {
            let at = best.partition_point(|known| *known >= score);
            best.insert(at, score);
            best.truncate(DEPTH);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testing::dataset;
    use crate::evaluate::{Popularity, validation_ndcg_of};
    use crate::prior::counting::{sequences_before, training_sequences};
    use crate::prior::{WithPrior, count};
    use slmrec_core::prior::PriorSettings;

    fn chains() -> Dataset {
        let sequences: Vec<Vec<u32>> = (0..60u32)
            .map(|user| (0..8).map(|step| 1 + (user * 5 + step * 3) % 50).collect())
            .collect();
        let borrowed: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        dataset(50, &borrowed)
    }

    #[test]
    fn figures_are_those_of_the_evaluation() {
        let data = chains();
        let prior = count(&training_sequences(&data), 50, PriorSettings::WINDOW_5, 99);
        let prior = prior.expect("counts");
        let mut floor = Popularity::fit(&data, Split::Validation);
        let mixture = mix(
            &mut floor,
            &data,
            &Counts::OfTraining(prior.clone()),
            13.0,
            None,
            &mut |_, _| (),
        )
        .expect("mixes");
        assert!(
            mixture.ndcg_10_with > mixture.ndcg_10_without + 0.1,
            "{mixture:?}"
        );
        let alone = validation_ndcg_of(&mut Popularity::fit(&data, Split::Validation), &data, None);
        assert_eq!(alone.expect("evaluates"), mixture.ndcg_10_without);
        let mut both = WithPrior::new("both", &mut floor, &prior, mixture.weights);
        let both = validation_ndcg_of(&mut both, &data, None);
        assert_eq!(both.expect("evaluates"), mixture.ndcg_10_with);

        let counts = Counts::OfTraining(prior);
        let mut limited = |largest| {
            let mixture = mix(&mut floor, &data, &counts, largest, None, &mut |_, _| ());
            mixture.expect("mixes").weights.alpha
        };
        assert_eq!(limited(0.0), 0.0);
        let most = mixture.weights.alpha - 0.1;
        assert!(limited(most) <= most);
    }

    /// Each user is asked beside the counts of all others' validation items.
    #[test]
    fn counts_that_are_one_item_newer_know_the_others_targets_and_not_the_own() {
        let data = chains();
        let newer = sequences_before(&data, Split::Test);
        let all = count(&newer, 50, PriorSettings::WINDOW_5, 99).expect("counts");
        let mut floor = Popularity::fit(&data, Split::Validation);
        let counts = Counts::OneNewer(all);
        let mixture = mix(&mut floor, &data, &counts, 13.0, None, &mut |_, _| ()).expect("mixes");
        assert!(mixture.weights.alpha > 0.0);
        let cases = held_out_cases(&data, Split::Validation, None).expect("targets");
        let ranks = cases.iter().map(|case| {
            let mut others = newer.clone();
            others[case.user].items = case.history;
            let others = count(&others, 50, PriorSettings::WINDOW_5, 99).expect("counts");
            let mut both = WithPrior::new("both", &mut floor, &others, mixture.weights);
            let scores = both.scores(&[case.history]).expect("scores").remove(0);
            let own = scores[case.target.row() - 1];
            let rivals = (1u32..=50).map(ItemIndex);
            let rivals = rivals.filter(|i| *i != case.target && !case.history.contains(i));
            // Sums in another order: equal scores may differ in the last bit.
            let above = rivals.filter(|i| scores[i.row() - 1] >= own - 1e-5 * own.abs());
            1 + above.count() as u32
        });
        let ranks: Vec<u32> = ranks.collect();
        let expected = Metric::Ndcg(10).mean(&ranks);
        let found = mixture.ndcg_10_with;
        assert!((found - expected).abs() < 5e-3, "{found} and {expected}");
    }

    #[test]
    fn the_likeliest_weights_are_those_of_the_dense_softmax() {
        let data = chains();
        let prior = count(&training_sequences(&data), 50, PriorSettings::WINDOW_5, 99);
        let prior = prior.expect("counts");
        let (weights, loss) = likeliest(&data, &prior, None).expect("targets");
        assert!(weights.alpha > 0.0 && loss < 50f64.ln());
        let cases = held_out_cases(&data, Split::Validation, None).expect("targets");
        let mut sum = 0.0;
        for case in &cases {
            let mut scores = vec![0f32; 50];
            prior.add_to(
                case.history,
                weights,
                &mut SparseSums::default(),
                &mut scores,
            );
            let all: f64 = scores.iter().map(|s| f64::from(*s).exp()).sum();
            sum += all.ln() - f64::from(scores[case.target.row() - 1]);
        }
        assert!((sum / cases.len() as f64 - loss).abs() < 1e-5);
    }

    #[test]
    fn beside_a_model_the_likeliest_weights_are_those_of_both_together() {
        let data = chains();
        let prior = count(&training_sequences(&data), 50, PriorSettings::WINDOW_5, 99);
        let prior = prior.expect("counts");
        struct ByRow;
        impl Scorer for ByRow {
            fn name(&self) -> &'static str {
                "by row"
            }
            fn scores(
                &mut self,
                histories: &[&[ItemIndex]],
            ) -> Result<Vec<Vec<f32>>, EvaluateError> {
                let scores: Vec<f32> = (0u8..50).map(|row| f32::from(row) * 0.03).collect();
                Ok(vec![scores; histories.len()])
            }
        }
        let (weights, loss) =
            likeliest_beside(&mut ByRow, &data, &prior, None, &mut |_, _| ()).expect("targets");
        assert!(weights.alpha > 0.0);
        let cases = held_out_cases(&data, Split::Validation, None).expect("targets");
        let mut model = ByRow;
        let mut both = WithPrior::new("both", &mut model, &prior, weights);
        let mut sum = 0.0;
        for case in &cases {
            let scores = both.scores(&[case.history]).expect("scores").remove(0);
            let unseen = (1u32..=50).map(ItemIndex);
            let unseen = unseen.filter(|i| *i == case.target || !case.history.contains(i));
            let all: f64 = unseen.map(|i| f64::from(scores[i.row() - 1]).exp()).sum();
            sum += all.ln() - f64::from(scores[case.target.row() - 1]);
        }
        assert!((sum / cases.len() as f64 - loss).abs() < 1e-5, "{loss}");
    }

    #[test]
    fn a_prior_that_does_not_help_gets_no_weight() {
        let data = chains();
        // The model knows the chain, the prior counts something else.
        struct Knows;
        impl Scorer for Knows {
            fn name(&self) -> &'static str {
                "knows"
            }
            fn scores(
                &mut self,
                histories: &[&[ItemIndex]],
            ) -> Result<Vec<Vec<f32>>, EvaluateError> {
                let score = |history: &&[ItemIndex]| {
                    let next = (history[history.len() - 1].0 - 1 + 3) % 50;
                    (0..50)
                        .map(|row| f32::from(u8::from(row == next)))
                        .collect()
                };
                Ok(histories.iter().map(score).collect())
            }
        }
        let other = dataset(50, &[&[9, 4, 9, 4, 1, 1], &[7, 30, 7, 1, 1]]);
        let prior = count(&training_sequences(&other), 50, PriorSettings::WINDOW_5, 99);
        let mixture = mix(
            &mut Knows,
            &data,
            &Counts::OfTraining(prior.expect("counts")),
            13.0,
            None,
            &mut |_, _| (),
        );
        let mixture = mixture.expect("mixes");
        assert_eq!(mixture.weights.alpha, 0.0);
        assert_eq!(mixture.ndcg_10_with, mixture.ndcg_10_without);
    }
}
