//! The recommender.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use slmrec_runtime::{
    EngineChoice, ExplainOptions, LibrarySearch, OpenOptions, PopularItems, Provider,
    RankedCandidates, Recommendation, Recommendations,
};

use crate::batch::{self, Answers};
use crate::errors::Failure;
use crate::given::{self, Filter};
use crate::history_state::HistoryState;
use crate::shared::Shared;

/// A recommended item: id, title, score, rank.
#[derive(IntoPyObject)]
pub(crate) struct Row(String, Option<String>, f32, usize);

impl From<Recommendation> for Row {
    fn from(item: Recommendation) -> Self {
        Self(item.id, item.title, item.score, item.rank)
    }
}

/// A reason: id, title, age, drop.
#[derive(IntoPyObject)]
struct ReasonRow(String, Option<String>, usize, f32);

/// A popular item: id, title, rank.
#[derive(IntoPyObject)]
struct PopularRow(String, Option<String>, usize);

/// A list of recommended items, and what a person should know about it.
#[derive(IntoPyObject)]
pub(crate) struct Answer {
    items: Vec<Row>,
    shortfall: usize,
    used_items: usize,
    unknown_items: Vec<String>,
    /// Of the block and allow lists, or of the candidates.
    unknown_asked: Vec<String>,
    /// Of the filter.
    unknown_categories: Vec<String>,
}

impl From<Recommendations> for Answer {
    fn from(found: Recommendations) -> Self {
        Self {
            items: found.items.into_iter().map(Row::from).collect(),
            shortfall: found.shortfall,
            used_items: found.used_items,
            unknown_items: found.unknown_items,
            unknown_asked: found.unknown_filter_items,
            unknown_categories: found.unknown_categories,
        }
    }
}

impl From<RankedCandidates> for Answer {
    fn from(found: RankedCandidates) -> Self {
        Self {
            items: found.items.into_iter().map(Row::from).collect(),
            shortfall: 0,
            used_items: found.used_items,
            unknown_items: found.unknown_items,
            unknown_asked: found.unknown_candidates,
            unknown_categories: Vec::new(),
        }
    }
}

/// What runs.
#[derive(IntoPyObject)]
struct Engine {
    name: String,
    version: String,
    provider: String,
    threads: usize,
    encoder: String,
    precision: String,
    incremental: bool,
}

/// How the bundle's samples came out; a sample is cosine and overlap.
#[derive(IntoPyObject)]
struct SelfTest {
    passed: bool,
    computed_by: String,
    min_cosine: f32,
    min_overlap: f32,
    samples: Vec<(f32, f32)>,
}

/// An opened bundle with an engine.
#[pyclass(frozen)]
pub(crate) struct Recommender(Arc<Shared>);

#[pymethods]
impl Recommender {
    #[new]
    #[pyo3(signature = (path, library, threads, provider, prior))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        library: PathBuf,
        threads: usize,
        provider: &str,
        prior: bool,
    ) -> PyResult<Self> {
        let options = OpenOptions {
            engine: EngineChoice::OnnxRuntime,
            provider: provider_named(provider)?,
            threads: NonZeroUsize::new(threads)
                .ok_or_else(|| PyValueError::new_err("threads: expected at least 1, found 0"))?,
            libraries: LibrarySearch {
                named: Some(library),
                ..LibrarySearch::default()
            },
            provider_cache: None,
            prior,
        };
        let shared = Shared::open(py, || {
            let opened = slmrec_runtime::Recommender::open(&path, &options);
            opened.map_err(Failure::from)
        })?;
        Ok(Self(Arc::new(shared)))
    }

    fn close(&self, py: Python<'_>) {
        self.0.close(py);
    }

    fn recommend(
        &self,
        py: Python<'_>,
        history: &Bound<'_, PyAny>,
        k: usize,
        filter: Filter<'_>,
    ) -> PyResult<Answer> {
        let history = given::history(history, "history")?;
        let filter = filter.options()?;
        let found = self.0.with(py, |recommender| {
            Ok(recommender.recommend(&history, k, &filter)?)
        });
        Ok(found?.into())
    }

    fn recommend_batch<'py>(
        &self,
        py: Python<'py>,
        histories: &Bound<'_, PyAny>,
        k: usize,
        filter: Filter<'_>,
    ) -> PyResult<Answers<'py>> {
        let histories = batch::from_lists(histories)?;
        let filter = filter.options()?;
        batch::recommend(py, &self.0, &histories, k, &filter)
    }

    /// The histories as Arrow has them: `lists` and `starts` are offsets of 64 bits (of each
    /// history among the ids, of each id among the bytes of `text`).
    fn recommend_column<'py>(
        &self,
        py: Python<'py>,
        lists: &[u8],
        starts: &[u8],
        text: &[u8],
        k: usize,
        filter: Filter<'_>,
    ) -> PyResult<Answers<'py>> {
        let histories = batch::from_column(lists, starts, text)?;
        let filter = filter.options()?;
        batch::recommend(py, &self.0, &histories, k, &filter)
    }

    fn score(
        &self,
        py: Python<'_>,
        history: &Bound<'_, PyAny>,
        ids: &Bound<'_, PyAny>,
    ) -> PyResult<Answer> {
        let history = given::history(history, "history")?;
        let ids = given::ids(ids, "ids")?;
        let found = (self.0).with(py, |recommender| Ok(recommender.score(&history, &ids)?));
        Ok(found?.into())
    }

    fn explain(
        &self,
        py: Python<'_>,
        history: &Bound<'_, PyAny>,
        ids: &Bound<'_, PyAny>,
        max_items: usize,
        max_reasons: usize,
    ) -> PyResult<Vec<Vec<ReasonRow>>> {
        let history = given::history(history, "history")?;
        let ids = given::ids(ids, "ids")?;
        let positive = |n, name| {
            let message = format!("{name}: expected at least 1, found 0");
            NonZeroUsize::new(n).ok_or_else(|| PyValueError::new_err(message))
        };
        let options = ExplainOptions {
            max_items: positive(max_items, "max_items")?,
            max_reasons: positive(max_reasons, "max_reasons")?,
        };
        let found = self.0.with(py, |recommender| {
            Ok(recommender.explain(&history, &ids, &options)?)
        })?;
        let row = |reason: slmrec_runtime::Reason| {
            ReasonRow(reason.id, reason.title, reason.age, reason.drop)
        };
        let lists = found.reasons.into_iter();
        Ok(lists
            .map(|list| list.into_iter().map(row).collect())
            .collect())
    }

    /// Popular items, by how many the list is short, and unknown ids of the filter.
    fn popular(&self, py: Python<'_>, k: usize, filter: Filter<'_>) -> PyResult<Vec<PopularRow>> {
        let filter = filter.options()?;
        let PopularItems { items, .. } =
            (self.0).with(py, |recommender| Ok(recommender.popular(k, &filter)?))?;
        let rows = items.into_iter();
        Ok(rows
            .map(|item| PopularRow(item.id, item.title, item.rank))
            .collect())
    }

    /// D values as the bytes of f32.
    fn user_vector(&self, py: Python<'_>, history: &Bound<'_, PyAny>) -> PyResult<Vec<f32>> {
        let history = given::history(history, "history")?;
        let found = (self.0).with(py, |recommender| Ok(recommender.user_vector(&history)?));
        Ok(found?)
    }

    /// A state, and the ids of the history that the catalog does not have.
    fn history_state(
        &self,
        py: Python<'_>,
        history: &Bound<'_, PyAny>,
    ) -> PyResult<(HistoryState, Vec<String>)> {
        let history = given::history(history, "history")?;
        let (state, unknown) =
            (self.0).with(py, |recommender| Ok(recommender.history_state(&history)?))?;
        Ok((HistoryState::new(self.0.clone(), state), unknown))
    }

    fn restore_history_state(&self, py: Python<'_>, bytes: &[u8]) -> PyResult<HistoryState> {
        let state = self.0.with(py, |recommender| {
            Ok(recommender.restore_history_state(bytes)?)
        })?;
        Ok(HistoryState::new(self.0.clone(), state))
    }

    fn apply_pack(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let applied = (self.0).with(py, |recommender| Ok(recommender.apply_pack(&path)?));
        Ok(applied?)
    }

    /// Id and title of every item, in the order of the catalog.
    fn items(&self, py: Python<'_>) -> PyResult<Vec<(String, Option<String>)>> {
        let items = self.0.with(py, |recommender| {
            let items = recommender.vocabulary().items().iter();
            Ok(items
                .map(|item| (item.id.clone(), item.title.clone()))
                .collect())
        });
        Ok(items?)
    }

    /// The manifest as JSON.
    fn manifest(&self, py: Python<'_>) -> PyResult<String> {
        let json = self.0.with(py, |recommender| {
            let json = serde_json::to_string(recommender.manifest());
            json.map_err(|e| PyRuntimeError::new_err(e.to_string()).into())
        });
        Ok(json?)
    }

    fn has_prior(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.0.with(py, |recommender| Ok(recommender.has_prior()))?)
    }

    fn engine(&self, py: Python<'_>) -> PyResult<Engine> {
        let info = self
            .0
            .with(py, |recommender| Ok(recommender.engine().clone()))?;
        Ok(Engine {
            name: info.name,
            version: info.version,
            provider: info.provider.to_string(),
            threads: info.threads,
            encoder: info.encoder,
            precision: info.precision.to_string(),
            incremental: info.incremental,
        })
    }

    fn self_test(&self, py: Python<'_>) -> PyResult<SelfTest> {
        let found = self
            .0
            .with(py, |recommender| Ok(recommender.self_test()?))?;
        let samples = found.samples.iter();
        Ok(SelfTest {
            passed: found.passed(),
            samples: samples
                .map(|sample| (sample.cosine, sample.overlap))
                .collect(),
            computed_by: found.computed_by,
            min_cosine: found.min_cosine,
            min_overlap: found.min_overlap,
        })
    }

    /// For the tests of the package: a call that panics.
    #[cfg(debug_assertions)]
    fn panic(&self, py: Python<'_>) -> PyResult<()> {
        Ok(self.0.with(py, |_| panic!("asked to"))?)
    }
}

fn provider_named(name: &str) -> PyResult<Provider> {
    const ALL: [Provider; 5] = [
        Provider::Auto,
        Provider::Cpu,
        Provider::Cuda,
        Provider::CoreMl,
        Provider::Xnnpack,
    ];
    let found = ALL
        .into_iter()
        .find(|provider| provider.to_string() == name);
    found.ok_or_else(|| {
        let names = ALL.map(|provider| provider.to_string()).join(", ");
        PyValueError::new_err(format!("provider: expected one of {names}, found {name:?}"))
    })
}
