//! Who answers: a recommender with a history that grows, and its reasons.

use std::time::{Duration, Instant};

use slmrec_core::{History, ItemIndex, ItemVocabulary};
use slmrec_runtime::{
    ExplainOptions, FilterOptions, HistoryState, Recommendation, Recommender, RuntimeError,
};

use super::search::Search;

/// What came of the picks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Advice {
    pub(crate) items: Vec<Advised>,
    /// Running the encoder.
    pub(crate) encode: Duration,
    /// Scoring and ranking the catalog.
    pub(crate) catalog: Duration,
    /// Finding the reasons.
    pub(crate) reasons: Duration,
}

/// A recommended item.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Advised {
    pub(crate) rank: usize,
    pub(crate) name: String,
    pub(crate) score: f32,
    /// Names of picks, and by how much the score is lower without them.
    pub(crate) because: Vec<(String, f32)>,
}

/// An item as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// Finds items and answers after picks.
pub(crate) trait Adviser {
    /// Items whose names fit a query, best first.
    fn find(&mut self, query: &str) -> Vec<Choice>;

    /// The best items after `picks` (ids, oldest first, at least one).
    ///
    /// # Errors
    /// A sentence for a person.
    fn advise(&mut self, picks: &[String]) -> Result<Advice, String>;
}

/// A recommender as an [`Adviser`].
pub(crate) struct ByRecommender {
    recommender: Recommender,
    search: Search,
    k: usize,
    filter: FilterOptions,
    /// The picks of the last answer and what is kept of them.
    state: Option<(Vec<String>, HistoryState)>,
}

impl ByRecommender {
    pub(crate) fn new(recommender: Recommender, k: usize, filter: FilterOptions) -> Self {
        Self {
            recommender,
            search: Search::new(),
            k,
            filter,
            state: None,
        }
    }

    /// The state after `picks`: the last one with a new pick appended, or a new one.
    fn state_after(&mut self, picks: &[String]) -> Result<HistoryState, RuntimeError> {
        if let Some((before, mut state)) = self.state.take()
            && let Some(new) = picks.strip_prefix(before.as_slice())
        {
            for id in new {
                state.append(&self.recommender, id)?;
            }
            return Ok(state);
        }
        let history = History::from_items(picks.iter().cloned());
        Ok(self.recommender.history_state(&history)?.0)
    }

    fn answer(&mut self, picks: &[String]) -> Result<Advice, RuntimeError> {
        let mut state = self.state_after(picks)?;
        let found = state.recommend(&mut self.recommender, self.k, &self.filter)?;
        self.state = Some((picks.to_vec(), state));
        let started = Instant::now();
        let ids: Vec<&str> = found.items.iter().map(|item| item.id.as_str()).collect();
        let history = History::from_items(picks.iter().cloned());
        let options = ExplainOptions::default();
        let why = self.recommender.explain(&history, &ids, &options)?;
        let reasons = started.elapsed();
        let items = found.items.into_iter().zip(why.reasons);
        let advised = |(item, reasons): (Recommendation, Vec<slmrec_runtime::Reason>)| Advised {
            rank: item.rank,
            name: item.title.unwrap_or(item.id),
            score: item.score,
            because: (reasons.into_iter())
                .map(|reason| (reason.title.unwrap_or(reason.id), reason.drop))
                .collect(),
        };
        Ok(Advice {
            items: items.map(advised).collect(),
            encode: found.timing.encode,
            catalog: found.timing.score + found.timing.rank,
            reasons,
        })
    }
}

impl Adviser for ByRecommender {
    fn find(&mut self, query: &str) -> Vec<Choice> {
        let catalog = self.recommender.vocabulary();
        let found = self.search.find(catalog, query);
        found
            .into_iter()
            .filter_map(|item| choice(catalog, item))
            .collect()
    }

    fn advise(&mut self, picks: &[String]) -> Result<Advice, String> {
        self.answer(picks).map_err(|error| error.to_string())
    }
}

fn choice(catalog: &ItemVocabulary, item: ItemIndex) -> Option<Choice> {
    let item = catalog.get(item)?;
    Some(Choice {
        id: item.id.clone(),
        name: item.title.clone().unwrap_or_else(|| item.id.clone()),
    })
}
