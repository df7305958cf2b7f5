//! Why an item: the items of the history without which its score would be lower.
//!
//! Each of the newest items is left out in turn and the rest is scored again, with the prior. That
//! is exact, not an estimate, and bounded: leaving out an item changes nothing before it, so an
//! incremental encoder runs only what comes after. The newest 16 items of 50 cost some 120
//! positions, between two and three whole runs.

use std::num::NonZeroUsize;

use slmrec_core::{History, ItemIndex};

use super::{Recommender, Timing, timed};
use crate::engine::KeyValues;
use crate::error::RuntimeError;

/// How much is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExplainOptions {
    /// Newest items of the history that are left out in turn.
    pub max_items: NonZeroUsize,
    /// Longest list of reasons for an item.
    pub max_reasons: NonZeroUsize,
}

impl Default for ExplainOptions {
    fn default() -> Self {
        let of = |n: usize| NonZeroUsize::MIN.saturating_add(n - 1);
        Self {
            max_items: of(16),
            max_reasons: of(3),
        }
    }
}

/// An item of the history that speaks for a recommendation.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// Catalog key.
    pub id: String,
    /// What a person reads, where the catalog has it.
    pub title: Option<String>,
    /// Its place in what the encoder reads: 1 for the newest item.
    pub age: usize,
    /// By how much the score is lower without it; above 0.
    pub drop: f32,
}

/// The reasons for some items.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanations {
    /// For each item that was asked about, in that order, what speaks for it most, first; among
    /// equal drops the newer one. Empty for an id that the catalog does not have, and where nothing
    /// that was tried lowers the score.
    pub reasons: Vec<Vec<Reason>>,
    /// Number of history items that were left out in turn.
    pub examined: usize,
    /// Where the time went.
    pub timing: Timing,
}

impl Recommender {
    /// Why items are recommended: for each of `items` (ids, usually those of a list that was just
    /// made), the items of the history whose removal lowers its score most.
    ///
    /// A history of one item gives no reasons: without it there is no score to compare with.
    ///
    /// # Errors
    /// As [`Self::recommend`].
    pub fn explain<S: AsRef<str>>(
        &mut self,
        history: &History,
        items: &[S],
        options: &ExplainOptions,
    ) -> Result<Explanations, RuntimeError> {
        let mut timing = Timing::default();
        let encoded = timed(&mut timing.lookup, || self.encode_history(history))?;
        let index = |id: &S| self.vocabulary.index_of(id.as_ref());
        let asked: Vec<Option<ItemIndex>> = items.iter().map(index).collect();
        let picks: Vec<ItemIndex> = asked.iter().flatten().copied().collect();
        let (user_vector, kept) = self.extend(None, &encoded.items, &mut timing)?;
        let whole = self.scores_after(&user_vector, &encoded.seen, &picks, &mut timing)?;

        let length = encoded.items.len();
        let examined = match length {
            1 => 0,
            _ => length.min(options.max_items.get()),
        };
        let before = encoded.seen.len() - length;
        let mut reasons: Vec<Vec<Reason>> = vec![Vec::new(); picks.len()];
        for age in 1..=examined {
            let at = length - age;
            let user_vector = self.without(&encoded.items, at, kept.as_ref(), &mut timing)?;
            let mut seen = encoded.seen.clone();
            let left_out = seen.remove(before + at);
            let scores = self.scores_after(&user_vector, &seen, &picks, &mut timing)?;
            for ((reasons, whole), score) in reasons.iter_mut().zip(&whole).zip(scores) {
                let drop = whole - score;
                if drop > 0.0 && drop.is_finite() {
                    reasons.extend(self.reason(left_out, age, drop));
                }
            }
        }
        for reasons in &mut reasons {
            // Stable, so that the newer one stays first.
            reasons.sort_by(|a, b| b.drop.total_cmp(&a.drop));
            reasons.truncate(options.max_reasons.get());
        }
        let mut found = reasons.into_iter();
        let of = |pick: Option<ItemIndex>| pick.and_then(|_| found.next()).unwrap_or_default();
        Ok(Explanations {
            reasons: asked.into_iter().map(of).collect(),
            examined,
            timing,
        })
    }

    /// The user vector of `items` without the one at `at`. `kept` is what a run over all of them has
    /// left.
    fn without(
        &mut self,
        items: &[ItemIndex],
        at: usize,
        kept: Option<&KeyValues>,
        timing: &mut Timing,
    ) -> Result<Vec<f32>, RuntimeError> {
        let Some(kept) = kept else {
            let rest = [&items[..at], &items[at + 1..]].concat();
            return self.run_encoder(&rest, timing);
        };
        // The last of them runs again where nothing comes after: a run needs an item.
        let (from, rest) = match &items[at + 1..] {
            [] => (at - 1, &items[at - 1..at]),
            rest => (at, rest),
        };
        let past = kept.oldest(from);
        let (user_vector, _) = self.extend((from > 0).then_some(&past), rest, timing)?;
        Ok(user_vector)
    }

    /// Scores of `items` for a user vector and what the prior adds after `seen`.
    fn scores_after(
        &mut self,
        user_vector: &[f32],
        seen: &[ItemIndex],
        items: &[ItemIndex],
        timing: &mut Timing,
    ) -> Result<Vec<f32>, RuntimeError> {
        timed(&mut timing.score, || {
            let additions = self.additions(seen);
            self.scores_of(user_vector, &additions, items)
        })
    }

    fn reason(&self, item: ItemIndex, age: usize, drop: f32) -> Option<Reason> {
        let item = self.vocabulary.get(item)?;
        Some(Reason {
            id: item.id.clone(),
            title: item.title.clone(),
            age,
            drop,
        })
    }
}
