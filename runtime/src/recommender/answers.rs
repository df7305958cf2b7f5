//! What a recommender answers.

use std::time::Duration;

use slmrec_core::EncodedHistory;

/// One recommended item.
#[derive(Clone, Debug, PartialEq)]
pub struct Recommendation {
    /// 1-based place in the list.
    pub rank: usize,
    /// Catalog key.
    pub id: String,
    /// What a person reads, where the catalog has it.
    pub title: Option<String>,
    /// Dot product of user vector and item embedding, and what the bundle's prior adds to it;
    /// higher is better, comparable only within one list.
    pub score: f32,
}

/// The answer to one history.
#[derive(Clone, Debug, PartialEq)]
pub struct Recommendations {
    /// The best items, best first; among equal scores the one that comes first in the catalog.
    pub items: Vec<Recommendation>,
    /// By how many items the list is shorter than asked for, because the filters leave no more.
    pub shortfall: usize,
    /// Ids of the history that the catalog does not have, each once.
    pub unknown_items: Vec<String>,
    /// Ids of the block and allow lists that the catalog does not have.
    pub unknown_filter_items: Vec<String>,
    /// Categories of the filter that no item of the catalog has, each once.
    pub unknown_categories: Vec<String>,
    /// Number of items that the encoder read: the newest known ones.
    pub used_items: usize,
    /// Where the time went.
    pub timing: Timing,
}

/// Candidates in the order of a recommendation list.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedCandidates {
    /// Every candidate that the catalog has, once, best first; among equal scores the one that
    /// comes first in the catalog.
    pub items: Vec<Recommendation>,
    /// Candidates that the catalog does not have, each once.
    pub unknown_candidates: Vec<String>,
    /// Ids of the history that the catalog does not have, each once.
    pub unknown_items: Vec<String>,
    /// Number of items that the encoder read.
    pub used_items: usize,
    /// Where the time went.
    pub timing: Timing,
}

/// An item of the popularity list; it has a place but no score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PopularItem {
    /// 1-based place in the list.
    pub rank: usize,
    /// Catalog key.
    pub id: String,
    /// What a person reads, where the catalog has it.
    pub title: Option<String>,
}

/// The answer to a person without a usable history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PopularItems {
    /// The most popular items that the filter allows, most popular first.
    pub items: Vec<PopularItem>,
    /// By how many items the list is shorter than asked for.
    pub shortfall: usize,
    /// Ids of the block and allow lists that the catalog does not have.
    pub unknown_filter_items: Vec<String>,
    /// Categories of the filter that no item of the catalog has, each once.
    pub unknown_categories: Vec<String>,
}

/// Time spent on one history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Looking up ids and item rows.
    pub lookup: Duration,
    /// Running the encoder graph.
    pub encode: Duration,
    /// Scoring the catalog.
    pub score: Duration,
    /// Filters and the best k.
    pub rank: Duration,
}

impl Timing {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.lookup + self.encode + self.score + self.rank
    }
}

impl std::ops::AddAssign for Timing {
    fn add_assign(&mut self, other: Self) {
        self.lookup += other.lookup;
        self.encode += other.encode;
        self.score += other.score;
        self.rank += other.rank;
    }
}

/// A history's score for every item of the catalog.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// `values[i]` belongs to row `i + 1` of the vocabulary.
    pub values: Vec<f32>,
    /// What the encoder read, what was seen, what was unknown.
    pub history: EncodedHistory,
    /// Where the time went so far.
    pub timing: Timing,
}
