//! The recommender: history → item rows → engine → user vector → scores → the best k.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ndarray::ArrayView3;
use slmrec_core::history::encode_history;
use slmrec_core::{
    Bundle, CatalogQuery, EncodedHistory, History, HistoryError, Item, ItemIndex, ItemMask,
    ItemTable, ItemVocabulary, Manifest, ScoredItem, bundle, ranking, scan,
};

use crate::engine::{self, Encoder, EngineInfo};
use crate::error::RuntimeError;
use crate::options::{EngineChoice, FilterOptions, OpenOptions, Provider};
use crate::provider_choice::{self, ProviderChoice};

mod answers;
mod candidates;
mod explain;
mod filter;
mod history_state;
mod packs;
mod prior;
mod stop;

use filter::{Unknown, with_seen};
use prior::Prior;

pub use answers::{
    PopularItem, PopularItems, RankedCandidates, Recommendation, Recommendations, Scores, Timing,
};
pub use explain::{ExplainOptions, Explanations, Reason};
pub use history_state::HistoryState;

/// An opened bundle with an engine: histories in, recommendations out.
///
/// One recommender serves one thread at a time; open one per thread for more.
pub struct Recommender {
    bundle: Bundle,
    vocabulary: ItemVocabulary,
    table: ItemTable,
    encoder: Box<dyn Encoder>,
    prior: Option<Prior>,
    /// Whether the prior of a pack is taken.
    wants_prior: bool,
    /// How the provider was chosen, where there was a choice.
    provider_choice: Option<ProviderChoice>,
    /// What packs have retired: never recommended.
    retired: Vec<ItemIndex>,
    /// SHA-256 of the packs whose items stand behind the bundle's, in order.
    item_packs: Vec<String>,
    /// Threads that scan a large catalog.
    threads: NonZeroUsize,
    /// Set by whoever no longer wants an answer.
    stop: Option<Arc<AtomicBool>>,
}

/// A history as the catalog is asked about it.
struct Asked {
    history: EncodedHistory,
    /// D values.
    user_vector: Vec<f32>,
    /// What the prior adds, in ascending order of items.
    additions: Vec<(ItemIndex, f32)>,
    timing: Timing,
}

impl Recommender {
    /// Opens a bundle and makes an engine ready.
    ///
    /// # Errors
    /// A bundle that cannot be read, an engine or provider that was asked for and is not there.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, RuntimeError> {
        match &options.provider_cache {
            Some(cache)
                if options.provider == Provider::Auto && options.engine != EngineChoice::Tract =>
            {
                provider_choice::open(path, options, cache)
            }
            _ => Self::open_with_provider(path, options),
        }
    }

    /// [`Self::open`] without looking for the right provider.
    pub(crate) fn open_with_provider(
        path: &Path,
        options: &OpenOptions,
    ) -> Result<Self, RuntimeError> {
        let mut bundle = Bundle::open(path)?;
        let encoder = engine::open(&mut bundle, options)?;
        let mut recommender = Self::with_encoder(bundle, encoder)?;
        recommender.threads = options.threads;
        if !options.prior {
            recommender.prior = None;
            recommender.wants_prior = false;
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
            wants_prior: true,
            provider_choice: None,
            retired: Vec::new(),
            item_packs: Vec::new(),
            threads: NonZeroUsize::MIN,
            stop: None,
        })
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
        let asked = self.ask(history)?;
        self.check_stop()?;
        let mut answers = self.answer(vec![asked], k, filter);
        // One question, one answer.
        answers.swap_remove(0)
    }

    /// [`Self::recommend`] for several histories, whose scores are one pass over the catalog. Each
    /// has its own answer or error, in their order; the answers are those of [`Self::recommend`].
    pub fn recommend_batch(
        &mut self,
        histories: &[History],
        k: usize,
        filter: &FilterOptions,
    ) -> Vec<Result<Recommendations, RuntimeError>> {
        let mut places = Vec::with_capacity(histories.len());
        let mut asked = Vec::with_capacity(histories.len());
        for history in histories {
            match self.ask(history) {
                Ok(question) => {
                    places.push(Ok(()));
                    asked.push(question);
                }
                Err(error) => places.push(Err(error)),
            }
        }
        let mut answers = self.answer(asked, k, filter).into_iter();
        let whole = places.into_iter().filter_map(|place| match place {
            Ok(()) => answers.next(),
            Err(error) => Some(Err(error)),
        });
        whole.collect()
    }

    /// Everything about a history but the catalog's scores.
    fn ask(&mut self, history: &History) -> Result<Asked, RuntimeError> {
        let mut timing = Timing::default();
        let history = timed(&mut timing.lookup, || self.encode_history(history))?;
        let user_vector = self.run_encoder(&history.items, &mut timing)?;
        let additions = timed(&mut timing.score, || self.additions(&history.seen));
        Ok(Asked {
            history,
            user_vector,
            additions,
            timing,
        })
    }

    /// What the prior adds after a history, in ascending order of items.
    fn additions(&mut self, seen: &[ItemIndex]) -> Vec<(ItemIndex, f32)> {
        let prior = self.prior.as_mut();
        prior.map(|prior| prior.additions(seen)).unwrap_or_default()
    }

    /// The best items for every question, in one pass over the catalog.
    fn answer(
        &self,
        asked: Vec<Asked>,
        k: usize,
        filter: &FilterOptions,
    ) -> Vec<Result<Recommendations, RuntimeError>> {
        let started = Instant::now();
        let (lists, unknown) = self.resolve(filter);
        let masks: Vec<ItemMask> = (asked.iter())
            .map(|asked| with_seen(&lists, filter, &asked.history.seen))
            .collect();
        let rank = started.elapsed() / asked.len().max(1) as u32;
        let queries: Vec<CatalogQuery<'_>> = (asked.iter().zip(&masks))
            .map(|(asked, mask)| CatalogQuery {
                user_vector: &asked.user_vector,
                additions: &asked.additions,
                mask,
                k: k.min(self.vocabulary.len()),
            })
            .collect();
        let started = Instant::now();
        let found = scan::best(&self.table, &queries, self.threads);
        let score = started.elapsed() / asked.len().max(1) as u32;
        let answers = found.into_iter().zip(asked).map(|(found, mut asked)| {
            asked.timing.rank += rank;
            asked.timing.score += score;
            let Asked {
                history, timing, ..
            } = asked;
            Ok(self.recommendations(found?, k, &history, unknown.clone(), timing))
        });
        answers.collect()
    }

    fn recommendations(
        &self,
        best: Vec<ScoredItem>,
        k: usize,
        history: &EncodedHistory,
        unknown: Unknown,
        timing: Timing,
    ) -> Recommendations {
        Recommendations {
            shortfall: k - best.len(),
            items: self.named(best),
            unknown_items: history.unknown.clone(),
            unknown_filter_items: unknown.items,
            unknown_categories: unknown.categories,
            used_items: history.items.len(),
            timing,
        }
    }

    /// A ranked list with ids and titles.
    fn named(&self, best: Vec<ScoredItem>) -> Vec<Recommendation> {
        let named = |(rank, scored): (usize, ScoredItem)| {
            let item = self.vocabulary.get(scored.item)?;
            Some(Recommendation {
                rank,
                id: item.id.clone(),
                title: item.title.clone(),
                score: scored.score,
            })
        };
        (1..).zip(best).filter_map(named).collect()
    }

    /// The user vector of a history, D values.
    ///
    /// # Errors
    /// As [`Self::recommend`].
    pub fn user_vector(&mut self, history: &History) -> Result<Vec<f32>, RuntimeError> {
        let encoded = self.encode_history(history)?;
        self.run_encoder(&encoded.items, &mut Timing::default())
    }

    /// The score of every item for a history.
    ///
    /// # Errors
    /// As [`Self::recommend`].
    pub fn scores(&mut self, history: &History) -> Result<Scores, RuntimeError> {
        let mut timing = Timing::default();
        let encoded = timed(&mut timing.lookup, || self.encode_history(history))?;
        let user_vector = self.run_encoder(&encoded.items, &mut timing)?;
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
        let (lists, unknown) = self.resolve(filter);
        let mask = with_seen(&lists, filter, &scores.history.seen);
        let best = ranking::top_k(&scores.values, k.min(self.vocabulary.len()), &mask)?;
        let mut timing = scores.timing;
        timing.rank += started.elapsed();
        let history = &scores.history;
        Ok(self.recommendations(best, k, history, unknown, timing))
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
        let (mask, unknown) = self.resolve(filter);
        let ids = self.bundle.popularity()?;
        let allowed = ids.iter().filter_map(|id| {
            let index = self.vocabulary.index_of(id)?;
            let item = self.vocabulary.get(index)?;
            (!mask.is_excluded(index)).then_some(item)
        });
        let item = |(rank, item): (usize, &Item)| PopularItem {
            rank,
            id: item.id.clone(),
            title: item.title.clone(),
        };
        let items: Vec<PopularItem> = (1..).zip(allowed).take(k).map(item).collect();
        Ok(PopularItems {
            shortfall: k - items.len(),
            items,
            unknown_filter_items: unknown.items,
            unknown_categories: unknown.categories,
        })
    }

    /// Which engine and provider really run.
    #[must_use]
    pub fn engine(&self) -> &EngineInfo {
        self.encoder.info()
    }

    /// How the provider was chosen; `None` where it was named, or the only one.
    #[must_use]
    pub fn provider_choice(&self) -> Option<&ProviderChoice> {
        self.provider_choice.as_ref()
    }

    pub(crate) fn set_provider_choice(&mut self, choice: ProviderChoice) {
        self.provider_choice = Some(choice);
    }

    /// The bundle's manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.bundle.manifest()
    }

    /// SHA-256 of the bundle's manifest, which names its whole content.
    #[must_use]
    pub fn bundle_sha256(&self) -> &str {
        self.bundle.sha256()
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
        items: &[ItemIndex],
        timing: &mut Timing,
    ) -> Result<Vec<f32>, RuntimeError> {
        self.check_stop()?;
        let dim = self.table.dim();
        let rows = timed(&mut timing.lookup, || self.embeddings(items));
        let view = ArrayView3::from_shape((1, items.len(), dim), &rows)
            .map_err(|_| self.no_user_vector("an embedding for every item", "fewer".into()))?;
        let user_vector = timed(&mut timing.encode, || self.encoder.encode(view))?;
        self.checked(user_vector)
    }

    /// A user vector of D finite values.
    fn checked(&self, user_vector: Vec<f32>) -> Result<Vec<f32>, RuntimeError> {
        let dim = self.table.dim();
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
