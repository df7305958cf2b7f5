//! Ranking: top-k, the tie rule, filters, and the rank of a target.
//!
//! One tie rule everywhere: among equal scores the smaller row comes first in a list, and a
//! target's rank counts every tie against it (pessimistic). A score that is not a number is an
//! error, never a place in a list.

use std::cmp::Ordering;

use crate::vocabulary::ItemIndex;

/// Why scores could not be ranked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RankingError {
    /// A score is NaN.
    #[error("the score of item row {row} is not a number")]
    NotANumber {
        /// The row.
        row: u32,
    },
    /// A row outside the catalog.
    #[error("item row {row} is not in the catalog (1..={items})")]
    OutOfRange {
        /// The row asked for.
        row: u32,
        /// Number of items.
        items: usize,
    },
}

/// An item and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoredItem {
    /// Row of the item.
    pub item: ItemIndex,
    /// Its score; higher is better.
    pub score: f32,
}

/// The order of a recommendation list: higher scores first, then smaller rows.
fn better_first(a: &ScoredItem, b: &ScoredItem) -> Ordering {
    b.score
        .total_cmp(&a.score)
        .then_with(|| a.item.cmp(&b.item))
}

/// A set of items that may not be recommended, as a bitmap over rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemMask {
    words: Vec<u64>,
    items: usize,
}

impl ItemMask {
    /// Nothing excluded, for a catalog of `items` items (rows `1..=items`).
    #[must_use]
    pub fn none(items: usize) -> Self {
        Self {
            words: vec![0; (items + 64) / 64],
            items,
        }
    }

    /// Excludes one item; rows outside the catalog are ignored.
    pub fn exclude(&mut self, item: ItemIndex) {
        if item.row() <= self.items {
            self.words[item.row() / 64] |= 1 << (item.row() % 64);
        }
    }

    /// Excludes every item but the given ones.
    pub fn allow_only(&mut self, allowed: impl IntoIterator<Item = ItemIndex>) {
        let mut keep = Self::none(self.items);
        for item in allowed {
            keep.exclude(item);
        }
        for (word, keep) in self.words.iter_mut().zip(keep.words) {
            *word |= !keep;
        }
    }

    /// The items of a word that are allowed: bit `b` is row `64 * word + b`.
    pub(crate) fn allowed(&self, word: usize) -> u64 {
        let mut allowed = !self.words.get(word).copied().unwrap_or(u64::MAX);
        if word == 0 {
            // The padding.
            allowed &= !1;
        }
        let rows_in_word = (self.items + 1).saturating_sub(word * 64);
        if rows_in_word < 64 {
            allowed &= (1 << rows_in_word) - 1;
        }
        allowed
    }

    /// Number of items that are allowed.
    #[must_use]
    pub fn allowed_count(&self) -> usize {
        let words = 0..self.words.len();
        words.map(|w| self.allowed(w).count_ones() as usize).sum()
    }

    /// Whether the item is excluded; rows outside the catalog are.
    #[must_use]
    pub fn is_excluded(&self, item: ItemIndex) -> bool {
        item.row() > self.items || self.words[item.row() / 64] >> (item.row() % 64) & 1 == 1
    }
}

/// The `k` best items that `mask` allows; `scores[i]` belongs to row `i + 1`. Fewer than `k` come
/// back when the mask leaves fewer.
///
/// # Errors
/// [`RankingError::NotANumber`] for a NaN among the allowed items.
pub fn top_k(scores: &[f32], k: usize, mask: &ItemMask) -> Result<Vec<ScoredItem>, RankingError> {
    let mut best = Best::new(k, scores.len());
    for (row, &score) in (1u32..).zip(scores) {
        let item = ItemIndex(row);
        if !best.beats(score) && !mask.is_excluded(item) {
            best.offer(ScoredItem { item, score })?;
        }
    }
    Ok(best.finish())
}

/// The best k items so far. Items are offered in ascending order of their rows, so that a later
/// tie with the k-th best never enters.
#[derive(Debug)]
pub(crate) struct Best {
    k: usize,
    items: Vec<ScoredItem>,
    /// Score of the k-th best, once there are k; before, less than everything.
    threshold: Option<f32>,
}

impl Best {
    /// The best `k` of at most `of` items.
    pub(crate) fn new(k: usize, of: usize) -> Self {
        Self {
            k,
            items: Vec::with_capacity(k.saturating_mul(2).min(of)),
            threshold: None,
        }
    }

    /// Whether a score is too low to enter; a score that is no number is not.
    #[inline(always)]
    pub(crate) fn beats(&self, score: f32) -> bool {
        self.threshold.is_some_and(|threshold| score <= threshold) || self.k == 0
    }

    /// Takes an item in; one that the list beats does no harm.
    ///
    /// # Errors
    /// A score that is no number.
    pub(crate) fn offer(&mut self, scored: ScoredItem) -> Result<(), RankingError> {
        if self.k == 0 {
            return Ok(());
        }
        if scored.score.is_nan() {
            return Err(RankingError::NotANumber { row: scored.item.0 });
        }
        self.items.push(scored);
        let (k, found) = (self.k, self.items.len());
        if found == k || found >= k.saturating_mul(2) {
            self.items.sort_unstable_by(better_first);
            self.items.truncate(k);
            self.threshold = self.items.last().map(|last| last.score);
        }
        Ok(())
    }

    /// The list, best first.
    pub(crate) fn finish(mut self) -> Vec<ScoredItem> {
        self.items.sort_unstable_by(better_first);
        self.items.truncate(self.k);
        self.items
    }
}

/// Sorts as a recommendation list: best first, among equal scores the smaller row.
pub fn sort(items: &mut [ScoredItem]) {
    items.sort_unstable_by(better_first);
}

/// The 1-based rank of `target` among the allowed items, counting ties against it. The target
/// itself is ranked even when the mask excludes it (a repeated item can be a test target).
///
/// # Errors
/// NaN among the compared scores, or a target outside the catalog.
pub fn rank_of(scores: &[f32], target: ItemIndex, mask: &ItemMask) -> Result<usize, RankingError> {
    let Some(&own) = target.row().checked_sub(1).and_then(|i| scores.get(i)) else {
        return Err(RankingError::OutOfRange {
            row: target.0,
            items: scores.len(),
        });
    };
    if own.is_nan() {
        return Err(RankingError::NotANumber { row: target.0 });
    }
    let mut rank = 1;
    for (row, &score) in (1u32..).zip(scores) {
        if row == target.0 || score < own || mask.is_excluded(ItemIndex(row)) {
            continue;
        }
        if score.is_nan() {
            return Err(RankingError::NotANumber { row });
        }
        rank += 1;
    }
    Ok(rank)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_go_to_the_smaller_row_and_against_the_target() {
        let scores = [1.0, 2.0, 2.0, 0.5];
        let none = ItemMask::none(4);
        let rows: Vec<u32> = top_k(&scores, 3, &none)
            .expect("ranked")
            .iter()
            .map(|s| s.item.0)
            .collect();
        assert_eq!(rows, [2, 3, 1]);
        assert_eq!(rank_of(&scores, ItemIndex(2), &none), Ok(2));
        assert_eq!(rank_of(&scores, ItemIndex(4), &none), Ok(4));
    }

    #[test]
    fn nan_and_strangers_are_errors() {
        let none = ItemMask::none(2);
        assert_eq!(
            top_k(&[0.0, f32::NAN], 2, &none),
            Err(RankingError::NotANumber { row: 2 })
        );
        assert_eq!(
            top_k(&[0.0, f32::NAN], 1, &none),
            Err(RankingError::NotANumber { row: 2 })
        );
        assert_eq!(
            rank_of(&[0.0, f32::NAN], ItemIndex(1), &none),
            Err(RankingError::NotANumber { row: 2 })
        );
        for row in [0, 3] {
            assert!(rank_of(&[0.0, 1.0], ItemIndex(row), &none).is_err());
        }
    }

    #[test]
    fn masks() {
        let mut mask = ItemMask::none(130);
        mask.exclude(ItemIndex(64));
        mask.exclude(ItemIndex(1000));
        assert!(mask.is_excluded(ItemIndex(64)));
        assert!(!mask.is_excluded(ItemIndex(130)));
        assert!(mask.is_excluded(ItemIndex(131)));
        mask.allow_only([ItemIndex(64), ItemIndex(2)]);
        let left: Vec<u32> = (1..=130)
            .filter(|&r| !mask.is_excluded(ItemIndex(r)))
            .collect();
        assert_eq!(left, [2]);
    }

    proptest! {
        #[test]
        fn top_k_is_a_full_sort(
            scores in prop::collection::vec((-5i8..5).prop_map(f32::from), 0..60),
            k in 0usize..70,
            excluded in prop::collection::vec(1u32..70, 0..10),
        ) {
            let mut mask = ItemMask::none(scores.len());
            for &row in &excluded {
                mask.exclude(ItemIndex(row));
            }
            let mut all: Vec<ScoredItem> = (1u32..)
                .zip(&scores)
                .map(|(row, &score)| ScoredItem { item: ItemIndex(row), score })
                .filter(|s| !mask.is_excluded(s.item))
                .collect();
            all.sort_by(better_first);
            all.truncate(k);
            prop_assert_eq!(top_k(&scores, k, &mask).expect("no NaN"), all);
        }

        #[test]
        fn rank_is_the_place_of_the_last_tie(
            scores in prop::collection::vec((-5i8..5).prop_map(f32::from), 1..60),
            pick in any::<prop::sample::Index>(),
        ) {
            let target = pick.index(scores.len());
            let rank = rank_of(&scores, ItemIndex(target as u32 + 1), &ItemMask::none(scores.len()));
            let at_least = scores.iter().filter(|&&s| s >= scores[target]).count();
            prop_assert_eq!(rank, Ok(at_least));
        }
    }
}
