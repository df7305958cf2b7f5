//! The recommender: history → item rows → engine → user vector → scores → the best k.

use std::path::Path;
use std::time::{Duration, Instant};

use ndarray::ArrayView3;
use slmrec_core::history::encode_history;
use slmrec_core::prior::{PriorWeights, SparseSums, TransitionPrior};
use slmrec_core::{
    Bundle, EncodedHistory, History, HistoryError, Item, ItemIndex, ItemMask, ItemTable,
    ItemVocabulary, Manifest, Pack, bundle, ranking,
};

use crate::engine::{self, Encoder, EngineInfo};
use crate::error::RuntimeError;
use crate::options::{FilterOptions, OpenOptions};

/// An opened bundle with an engine: histories in, recommendations out.
///
/// One recommender serves one thread at a time; open one per thread for more.
pub struct Recommender {
    bundle: Bundle,
    vocabulary: ItemVocabulary,
    table: ItemTable,
    encoder: Box<dyn Encoder>,
    prior: Option<Prior>,
}

/// Counts that are added to the model's scores.
struct Prior {
    counts: TransitionPrior,
    weights: PriorWeights,
    /// Used again for each history.
    sums: SparseSums,
}

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
    /// Number of items that the encoder read: the newest known ones.
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

impl Recommender {
    /// Opens a bundle and makes an engine ready.
    ///
    /// # Errors
    /// A bundle that cannot be read, an engine or provider that was asked for and is not there.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, RuntimeError> {
        let mut bundle = Bundle::open(path)?;
        let encoder = engine::open(&mut bundle, options)?;
        let mut recommender = Self::with_encoder(bundle, encoder)?;
        if !options.prior {
            recommender.prior = None;
        }
        Ok(recommender)
    }

    /// A recommender over an encoder of one's own, with the bundle's prior where it has one.
    ///
    /// # Errors
    /// A bundle whose vocabulary or item table cannot be read, or whose manifest allows no history.
    pub fn with_encoder(
        mut bundle: Bundle,
        encoder: Box<dyn Encoder>,
    ) -> Result<Self, RuntimeError> {
        if bundle.manifest().model.max_history == 0 {
            return Err(RuntimeError::GraphShape {
                member: bundle::MANIFEST_MEMBER.into(),
                expected: "max_history of at least 1".into(),
                found: "0".into(),
            });
        }
        let prior = bundle.prior()?;
        let weights = bundle.manifest().prior.as_ref().map(|entry| entry.weights);
        Ok(Self {
            vocabulary: bundle.vocabulary()?,
            table: bundle.item_table()?,
            bundle,
            encoder,
            prior: Prior::new(prior, weights),
        })
    }

    /// Lets a pack change the answers: its prior takes the place of the bundle's.
    ///
    /// # Errors
    /// A file that is not a pack of this bundle; the recommender is then as it was.
    pub fn apply_pack(&mut self, path: &Path) -> Result<(), RuntimeError> {
        let mut pack = Pack::open(path, &self.bundle)?;
        let prior = pack.prior()?;
        let weights = pack.manifest().prior.as_ref().map(|entry| entry.weights);
        if let Some(prior) = Prior::new(prior, weights) {
            self.prior = Some(prior);
        }
        Ok(())
    }

    /// Whether a prior is added to the model's scores.
    #[must_use]
    pub fn has_prior(&self) -> bool {
        self.prior.is_some()
    }

    /// The `k` best items for a history. Items of the history are left out unless `filter` says
    /// otherwise.
    ///
    /// # Errors
    /// An empty history or one with no known item; what the engine reports.
    pub fn recommend(
        &mut self,
        history: &History,
        k: usize,
        filter: &FilterOptions,
    ) -> Result<Recommendations, RuntimeError> {
        let scores = self.scores(history)?;
        self.rank(&scores, k, filter)
    }

    /// The user vector of a history, D values.
    ///
    /// # Errors
    /// As [`Self::recommend`].
    pub fn user_vector(&mut self, history: &History) -> Result<Vec<f32>, RuntimeError> {
        let encoded = self.encode_history(history)?;
        self.run_encoder(&encoded, &mut Timing::default())
    }

    /// The score of every item for a history.
    ///
    /// # Errors
    /// As [`Self::recommend`].
    pub fn scores(&mut self, history: &History) -> Result<Scores, RuntimeError> {
        let mut timing = Timing::default();
        let encoded = timed(&mut timing.lookup, || self.encode_history(history))?;
        let user_vector = self.run_encoder(&encoded, &mut timing)?;
        let mut values = timed(&mut timing.score, || self.table.scores(&user_vector));
        if let Some(prior) = &mut self.prior {
            timed(&mut timing.score, || {
                prior.add_to(&encoded.seen, &mut values)
            });
        }
        Ok(Scores {
            values,
            history: encoded,
            timing,
        })
    }

    /// The `k` best items by scores already computed.
    ///
    /// # Errors
    /// Scores that are no numbers.
    pub fn rank(
        &self,
        scores: &Scores,
        k: usize,
        filter: &FilterOptions,
    ) -> Result<Recommendations, RuntimeError> {
        let started = Instant::now();
        let (mask, unknown_filter_items) = self.mask(filter, &scores.history.seen);
        let best = ranking::top_k(&scores.values, k.min(self.vocabulary.len()), &mask)?;
        let shortfall = k - best.len();
        let items = (1..)
            .zip(best)
            .filter_map(|(rank, scored)| {
                let item = self.vocabulary.get(scored.item)?;
                Some(Recommendation {
                    rank,
                    id: item.id.clone(),
                    title: item.title.clone(),
                    score: scored.score,
                })
            })
            .collect();
        let mut timing = scores.timing;
        timing.rank += started.elapsed();
        Ok(Recommendations {
            items,
            shortfall,
            unknown_items: scores.history.unknown.clone(),
            unknown_filter_items,
            used_items: scores.history.items.len(),
            timing,
        })
    }

    /// The `k` most popular items that `filter` allows: an answer for a person without a usable
    /// history, for callers that ask for it.
    ///
    /// # Errors
    /// A damaged member.
    pub fn popular(
        &mut self,
        k: usize,
        filter: &FilterOptions,
    ) -> Result<PopularItems, RuntimeError> {
        let (mask, unknown_filter_items) = self.mask(filter, &[]);
        let ids = self.bundle.popularity()?;
        let allowed = ids.iter().filter_map(|id| {
            let index = self.vocabulary.index_of(id)?;
            let item = self.vocabulary.get(index)?;
            (!mask.is_excluded(index)).then(|| item.clone())
        });
        let items: Vec<PopularItem> = (1..)
            .zip(allowed)
            .take(k)
            .map(|(rank, Item { id, title })| PopularItem { rank, id, title })
            .collect();
        Ok(PopularItems {
            shortfall: k - items.len(),
            items,
            unknown_filter_items,
        })
    }

    /// Which engine and provider really run.
    #[must_use]
    pub fn engine(&self) -> &EngineInfo {
        self.encoder.info()
    }

    /// The bundle's manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.bundle.manifest()
    }

    /// The bundle, for members that this type has no method for.
    pub fn bundle_mut(&mut self) -> &mut Bundle {
        &mut self.bundle
    }

    /// The catalog.
    #[must_use]
    pub fn vocabulary(&self) -> &ItemVocabulary {
        &self.vocabulary
    }

    fn encode_history(&self, history: &History) -> Result<EncodedHistory, HistoryError> {
        let max_history = self.manifest().model.max_history;
        encode_history(history, &self.vocabulary, max_history)
    }

    fn run_encoder(
        &mut self,
        history: &EncodedHistory,
        timing: &mut Timing,
    ) -> Result<Vec<f32>, RuntimeError> {
        let dim = self.table.dim();
        let rows = timed(&mut timing.lookup, || self.embeddings(&history.items));
        let view = ArrayView3::from_shape((1, history.items.len(), dim), &rows)
            .map_err(|_| self.no_user_vector("an embedding for every item", "fewer".into()))?;
        let user_vector = timed(&mut timing.encode, || self.encoder.encode(view))?;
        if user_vector.len() != dim {
            let expected = format!("{dim} values");
            return Err(self.no_user_vector(&expected, user_vector.len().to_string()));
        }
        match user_vector.iter().position(|v| !v.is_finite()) {
            Some(at) => {
                let found = format!("{} at {at}", user_vector[at]);
                Err(self.no_user_vector("finite values", found))
            }
            None => Ok(user_vector),
        }
    }

    /// Rows of the item table, `[S, D]` row-major.
    fn embeddings(&self, items: &[ItemIndex]) -> Vec<f32> {
        let mut rows = Vec::with_capacity(items.len() * self.table.dim());
        for &item in items {
            self.table.append_row(item, &mut rows);
        }
        rows
    }

    fn no_user_vector(&self, expected: &str, found: String) -> RuntimeError {
        let info = self.encoder.info();
        RuntimeError::UserVector {
            engine: format!("{} ({})", info.name, info.provider),
            expected: expected.into(),
            found,
        }
    }

    /// The excluded items, and the ids of the filter that the catalog does not have.
    fn mask(&self, filter: &FilterOptions, seen: &[ItemIndex]) -> (ItemMask, Vec<String>) {
        let mut unknown = Vec::new();
        let mut index_of = |id: &String| {
            let index = self.vocabulary.index_of(id);
            if index.is_none() && !unknown.contains(id) {
                unknown.push(id.clone());
            }
            index
        };
        let mut mask = ItemMask::none(self.vocabulary.len());
        for item in filter.block.iter().filter_map(&mut index_of) {
            mask.exclude(item);
        }
        if let Some(allow) = &filter.allow {
            let allowed: Vec<ItemIndex> = allow.iter().filter_map(&mut index_of).collect();
            mask.allow_only(allowed);
        }
        if !filter.include_seen {
            seen.iter().for_each(|&item| mask.exclude(item));
        }
        (mask, unknown)
    }
}

impl Prior {
    fn new(counts: Option<TransitionPrior>, weights: Option<PriorWeights>) -> Option<Self> {
        Some(Self {
            counts: counts?,
            weights: weights?,
            sums: SparseSums::default(),
        })
    }

    fn add_to(&mut self, history: &[ItemIndex], scores: &mut [f32]) {
        self.counts
            .add_to(history, self.weights, &mut self.sums, scores);
    }
}

impl std::fmt::Debug for Recommender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recommender")
            .field("bundle", &self.bundle.sha256())
            .field("items", &self.vocabulary.len())
            .field("engine", self.engine())
            .finish_non_exhaustive()
    }
}

fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *total += started.elapsed();
    result
}
