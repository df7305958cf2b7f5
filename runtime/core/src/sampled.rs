//! The sampled protocol: one target among negatives drawn with a fixed seed.
//!
//! The negatives of a user depend on the user's position in the dataset, the seed, and the items
//! that may not be drawn, and on nothing else: every system that is compared sees the same ones,
//! in whatever order or process the users are evaluated.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::bootstrap::below;
use crate::ranking::{ItemMask, RankingError};
use crate::vocabulary::ItemIndex;

/// Negatives beside each target in the "1 + 999" protocol.
pub const NEGATIVES: usize = 999;
/// The seed of every published figure.
pub const SEED: u64 = 2024;

/// Draws `count` different items uniformly from the rows `1..=num_items` that are neither in
/// `seen` nor the target; all of them, in row order, when there are not more than `count`.
#[must_use]
pub fn sampled_negatives(
    user_index: usize,
    target: ItemIndex,
    seen: &[ItemIndex],
    num_items: usize,
    count: usize,
    seed: u64,
) -> Vec<ItemIndex> {
    let mut taken = ItemMask::none(num_items);
    seen.iter().for_each(|&item| taken.exclude(item));
    taken.exclude(target);
    let mut candidates: Vec<ItemIndex> = (1u32..)
        .take(num_items)
        .map(ItemIndex)
        .filter(|&item| !taken.is_excluded(item))
        .collect();
    if candidates.len() <= count {
        return candidates;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // A stream of its own per user, so that no user's draw depends on another's.
    rng.set_stream(user_index as u64);
    for i in 0..count {
        let pick = i + below(&mut rng, candidates.len() - i);
        candidates.swap(i, pick);
    }
    candidates.truncate(count);
    candidates
}

/// The 1-based rank of `target` among `negatives`, counting ties against it; `scores[i]` belongs
/// to row `i + 1`.
///
/// # Errors
/// A NaN among the compared scores, or a row outside the catalog.
pub fn rank_among(
    scores: &[f32],
    target: ItemIndex,
    negatives: &[ItemIndex],
) -> Result<usize, RankingError> {
    let score_of = |item: ItemIndex| match item.row().checked_sub(1).and_then(|i| scores.get(i)) {
        Some(score) if score.is_nan() => Err(RankingError::NotANumber { row: item.0 }),
        Some(&score) => Ok(score),
        None => Err(RankingError::OutOfRange {
            row: item.0,
            items: scores.len(),
        }),
    };
    let own = score_of(target)?;
    negatives.iter().try_fold(1, |rank, &negative| {
        Ok(rank + usize::from(score_of(negative)? >= own))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn rows(range: std::ops::RangeInclusive<u32>) -> Vec<ItemIndex> {
        range.map(ItemIndex).collect()
    }

    #[test]
    fn draws_different_unseen_items_that_only_the_user_and_seed_decide() {
        let seen = rows(1..=50);
        let target = ItemIndex(60);
        let draw = |user, seed| sampled_negatives(user, target, &seen, 2000, NEGATIVES, seed);
        let first = draw(3, SEED);
        let distinct: HashSet<ItemIndex> = first.iter().copied().collect();
        assert_eq!((first.len(), distinct.len()), (NEGATIVES, NEGATIVES));
        assert!(
            first
                .iter()
                .all(|i| (51..=2000).contains(&i.0) && *i != target)
        );
        assert_eq!(first, draw(3, SEED));
        assert_ne!(first, draw(4, SEED));
        assert_ne!(first, draw(3, SEED + 1));
    }

    #[test]
    fn a_small_catalog_gives_all_it_has() {
        let got = sampled_negatives(0, ItemIndex(2), &rows(5..=6), 6, NEGATIVES, SEED);
        assert_eq!(got, [1, 3, 4].map(ItemIndex));
        assert!(sampled_negatives(0, ItemIndex(1), &[], 0, NEGATIVES, SEED).is_empty());
    }

    #[test]
    fn draws_are_uniform() {
        let mut counts = [0u32; 21];
        for user in 0..4000 {
            for item in sampled_negatives(user, ItemIndex(20), &[], 20, 5, SEED) {
                counts[item.row()] += 1;
            }
        }
        // 4000 users x 5 of 19: mean 1052.6, standard deviation below 28; five of them.
        for (row, &count) in counts.iter().enumerate().take(20).skip(1) {
            assert!(
                (f64::from(count) - 1052.6).abs() < 140.0,
                "row {row}: {count}"
            );
        }
    }

    #[test]
    fn ranks_are_pessimistic_and_refuse_nan() {
        let scores = [0.5, 1.0, 0.5, f32::NAN, 2.0];
        let rank = |target, negatives: &[u32]| {
            let negatives: Vec<ItemIndex> = negatives.iter().copied().map(ItemIndex).collect();
            rank_among(&scores, ItemIndex(target), &negatives)
        };
        assert_eq!(rank(1, &[2, 3]), Ok(3));
        assert_eq!(rank(2, &[1, 3]), Ok(1));
        assert_eq!(rank(5, &[]), Ok(1));
        assert_eq!(rank(1, &[4]), Err(RankingError::NotANumber { row: 4 }));
        assert_eq!(rank(4, &[1]), Err(RankingError::NotANumber { row: 4 }));
        assert_eq!(
            rank(6, &[]),
            Err(RankingError::OutOfRange { row: 6, items: 5 })
        );
        assert_eq!(
            rank(1, &[0]),
            Err(RankingError::OutOfRange { row: 0, items: 5 })
        );
    }
}
