//! The weights of a prior that are tried beside a model, and which of them are taken.

use rayon::prelude::*;
use slmrec_core::metrics::Metric;
use slmrec_core::prior::PriorWeights;

/// The grid. A model trained by cross-entropy gives logarithms of probabilities, which is what the
/// prior adds, so weights around 1 to 6 are what one expects.
const ALPHAS: [f32; 13] = [
    0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 9.0, 13.0,
];
const BETAS: [f32; 12] = [
    1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0,
];

/// All weights, `alpha` ascending; the first has an `alpha` of 0.
pub(super) fn grid() -> impl Iterator<Item = PriorWeights> {
    ALPHAS.into_iter().flat_map(|alpha| {
        let betas = if alpha == 0.0 { &BETAS[..1] } else { &BETAS };
        betas.iter().map(move |&beta| PriorWeights { alpha, beta })
    })
}

/// The place in the grid of the weights to take, from the ranks `[user][weights]` and their mean
/// NDCG@10. The best of so many weights is the luckiest on these users as much as the best, so those
/// that lose no more than a standard error against it, paired over users, count as equally good, and
/// the one in their middle (by steps of the grid) stands for them. With many users few are left.
pub(super) fn middle_of_the_best(ranks: &[Vec<u8>], ndcg: &[f64]) -> usize {
    let mut best = 0;
    for (at, value) in ndcg.iter().enumerate() {
        if *value > ndcg[best] {
            best = at;
        }
    }
    if best == 0 {
        return 0; // nothing is better than no prior
    }
    let gain = |rank: u8| Metric::Ndcg(10).of_rank(usize::from(rank));
    let users = ranks.len() as f64;
    let as_good = |at: &usize| {
        let loss = ndcg[best] - ndcg[*at];
        let squares = ranks.iter().map(|of_user| {
            let lost = gain(of_user[best]) - gain(of_user[*at]);
            (lost - loss).powi(2)
        });
        loss <= (squares.sum::<f64>() / users).sqrt() / users.sqrt()
    };
    let places: Vec<usize> = (1..ndcg.len()).into_par_iter().filter(as_good).collect();
    let steps = |at: usize| [(at - 1) / BETAS.len(), (at - 1) % BETAS.len()].map(|s| s as f64);
    let mean =
        |axis: usize| places.iter().map(|&at| steps(at)[axis]).sum::<f64>() / places.len() as f64;
    let middle = [mean(0), mean(1)];
    let distance = |at: usize| {
        let [alpha, beta] = steps(at);
        (alpha - middle[0]).powi(2) + (beta - middle[1]).powi(2)
    };
    let nearest = places
        .iter()
        .copied()
        .min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
    nearest.unwrap_or(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranks of 100 users: beside the best weights, those at `places` are better for one user and worse
    /// for another, a little more so; all others are clearly worse.
    fn ranks_with(best: usize, places: &[usize]) -> Vec<Vec<u8>> {
        let rank = |user: usize, at: usize| match user {
            _ if at != best && !places.contains(&at) => 5,
            0 if at != best => 4,
            1 if at == best => 3,
            _ => 2,
        };
        let of_user = |user| (0..grid().count()).map(|at| rank(user, at)).collect();
        (0..100).map(of_user).collect()
    }

    fn chosen(ranks: &[Vec<u8>]) -> usize {
        let of = |at: usize| ranks.iter().map(|r| u32::from(r[at])).collect::<Vec<_>>();
        let ndcg: Vec<f64> = (0..ranks[0].len())
            .map(|at| Metric::Ndcg(10).mean(&of(at)))
            .collect();
        middle_of_the_best(ranks, &ndcg)
    }

    #[test]
    fn the_middle_of_weights_that_are_as_good_is_taken() {
        let at = |alpha: usize, beta: usize| 1 + alpha * BETAS.len() + beta;
        let square: Vec<usize> = (2..=6)
            .flat_map(|alpha| (3..=7).map(move |beta| at(alpha, beta)))
            .collect();
        assert_eq!(chosen(&ranks_with(at(6, 7), &square)), at(4, 5));
        // Alone, or far from the others: what is taken is always one of those that are as good.
        assert_eq!(chosen(&ranks_with(at(9, 11), &[])), at(9, 11));
        let ends = [at(0, 0), at(0, 1), at(9, 11)];
        assert!(ends.contains(&chosen(&ranks_with(at(9, 11), &ends))));
        // No prior is the best.
        assert_eq!(chosen(&ranks_with(0, &square)), 0);
    }
}
