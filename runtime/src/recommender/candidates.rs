//! Re-ranking: the scores of given items instead of the best of all.

use std::collections::HashSet;

use slmrec_core::ranking::{self, RankingError};
use slmrec_core::{History, ItemIndex, ScoredItem};

use super::{RankedCandidates, Recommender, timed};
use crate::error::RuntimeError;

impl Recommender {
    /// Ranks the given items for a history, with the scores that [`Self::recommend`] gives them.
    /// No filter takes part: seen items are ranked like others. An item that is named twice is
    /// ranked once.
    ///
    /// # Errors
    /// As [`Self::recommend`].
    pub fn score<S: AsRef<str>>(
        &mut self,
        history: &History,
        candidates: &[S],
    ) -> Result<RankedCandidates, RuntimeError> {
        let mut asked = self.ask(history)?;
        let mut timing = asked.timing;
        let (items, unknown_candidates) =
            timed(&mut timing.lookup, || self.candidate_items(candidates));
        let scores = timed(&mut timing.score, || {
            self.scores_of(&asked.user_vector, &asked.additions, &items)
        })?;
        let ranked = timed(&mut timing.rank, || {
            let scored = items.iter().zip(scores);
            let mut scored: Vec<ScoredItem> = scored
                .map(|(&item, score)| ScoredItem { item, score })
                .collect();
            ranking::sort(&mut scored);
            self.named(scored)
        });
        Ok(RankedCandidates {
            items: ranked,
            unknown_candidates,
            unknown_items: std::mem::take(&mut asked.history.unknown),
            used_items: asked.history.items.len(),
            timing,
        })
    }

    /// Scores of some items with what the prior adds to them; `additions` ascend by item.
    ///
    /// # Errors
    /// A score that is no number.
    pub(super) fn scores_of(
        &self,
        user_vector: &[f32],
        additions: &[(ItemIndex, f32)],
        items: &[ItemIndex],
    ) -> Result<Vec<f32>, RuntimeError> {
        let mut scores = self.table.scores_of(user_vector, items)?;
        for (score, item) in scores.iter_mut().zip(items) {
            if let Ok(at) = additions.binary_search_by_key(item, |(item, _)| *item) {
                *score += additions[at].1;
            }
            if score.is_nan() {
                return Err(RankingError::NotANumber { row: item.0 }.into());
            }
        }
        Ok(scores)
    }

    /// The candidates that the catalog has and the ids of the others, each once.
    fn candidate_items<S: AsRef<str>>(&self, candidates: &[S]) -> (Vec<ItemIndex>, Vec<String>) {
        let mut named = HashSet::new();
        let (mut items, mut unknown) = (Vec::new(), Vec::new());
        for id in candidates.iter().map(AsRef::as_ref) {
            if !named.insert(id) {
                continue;
            }
            match self.vocabulary.index_of(id) {
                Some(item) => items.push(item),
                None => unknown.push(id.to_owned()),
            }
        }
        (items, unknown)
    }
}
