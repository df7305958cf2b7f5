//! Many histories in one call. Answers come as the buffers of Arrow columns, so that neither a
//! Python object for each item nor a dependency on Arrow or NumPy is needed here.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use slmrec_core::History;
use slmrec_runtime::{FilterOptions, Recommendation, RuntimeError};

use crate::errors::Failure;
use crate::given;
use crate::shared::Shared;

/// Histories that share a pass over the catalog. Between two such passes a person may interrupt.
const CHUNK: usize = 128;

/// The answers: a list of items and one of scores for each history. Offsets are of 64 bits in the
/// machine's byte order, as Arrow's.
#[derive(IntoPyObject)]
pub(crate) struct Answers<'py> {
    /// Where each history's list begins, and where the last one ends.
    lists: Bound<'py, PyBytes>,
    /// Where each id begins in `text`.
    starts: Bound<'py, PyBytes>,
    /// Ids, one after the other.
    text: Bound<'py, PyBytes>,
    /// f32, one for each id.
    scores: Bound<'py, PyBytes>,
    /// Histories that have no answer, with the reason.
    failures: Vec<(usize, String)>,
}

/// The same while it grows.
struct Columns {
    lists: Vec<u8>,
    starts: Vec<u8>,
    text: Vec<u8>,
    scores: Vec<u8>,
    failures: Vec<(usize, String)>,
}

impl Columns {
    fn new() -> Self {
        let zero = 0i64.to_ne_bytes().to_vec();
        Self {
            lists: zero.clone(),
            starts: zero,
            text: Vec::new(),
            scores: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Adds one history's answer.
    ///
    /// # Errors
    /// What is not the fault of this history.
    fn add(
        &mut self,
        row: usize,
        answer: Result<Vec<Recommendation>, RuntimeError>,
    ) -> Result<(), RuntimeError> {
        let items = match answer {
            Ok(items) => items,
            Err(RuntimeError::History(error)) => {
                self.failures.push((row, error.to_string()));
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        for item in items {
            self.text.extend_from_slice(item.id.as_bytes());
            self.starts.extend((self.text.len() as i64).to_ne_bytes());
            self.scores.extend(item.score.to_ne_bytes());
        }
        let so_far = self.scores.len() / size_of::<f32>();
        self.lists.extend((so_far as i64).to_ne_bytes());
        Ok(())
    }

    fn into_answers(self, py: Python<'_>) -> Answers<'_> {
        Answers {
            lists: PyBytes::new(py, &self.lists),
            starts: PyBytes::new(py, &self.starts),
            text: PyBytes::new(py, &self.text),
            scores: PyBytes::new(py, &self.scores),
            failures: self.failures,
        }
    }
}

/// The best `k` items for each history. The whole batch is one turn with the recommender, so that
/// no pack can change it on the way.
pub(crate) fn recommend<'py>(
    py: Python<'py>,
    shared: &Shared,
    histories: &[History],
    k: usize,
    filter: &FilterOptions,
) -> PyResult<Answers<'py>> {
    let columns = shared.with(py, |recommender| {
        let mut columns = Columns::new();
        for (chunk, part) in histories.chunks(CHUNK).enumerate() {
            Python::attach(|py| py.check_signals())?;
            let found = recommender.recommend_batch(part, k, filter);
            for (row, answer) in (chunk * CHUNK..).zip(found) {
                columns.add(row, answer.map(|found| found.items))?;
            }
        }
        Ok::<_, Failure>(columns)
    })?;
    Ok(columns.into_answers(py))
}

/// Histories of an iterable of lists.
///
/// # Errors
/// `TypeError` for anything else.
pub(crate) fn from_lists(given: &Bound<'_, PyAny>) -> PyResult<Vec<History>> {
    if given.is_instance_of::<PyString>() {
        let message = "histories: expected a list of histories, found one string";
        return Err(PyTypeError::new_err(message));
    }
    let histories = given.try_iter()?.enumerate();
    histories
        .map(|(at, history)| given::history(&history?, &format!("histories[{at}]")))
        .collect()
}

/// Histories of an Arrow column, by its buffers.
///
/// # Errors
/// `ValueError` for buffers that do not fit each other.
pub(crate) fn from_column(lists: &[u8], starts: &[u8], text: &[u8]) -> PyResult<Vec<History>> {
    let starts = offsets(starts, text.len())?;
    let lists = offsets(lists, starts.len().saturating_sub(1))?;
    let id = |at: usize| {
        let bytes = &text[starts[at]..starts[at + 1]];
        str::from_utf8(bytes).map_err(|_| wrong(&format!("id {at} is not UTF-8")))
    };
    let history = |window: &[usize]| {
        let ids: PyResult<Vec<&str>> = (window[0]..window[1]).map(id).collect();
        ids.map(History::from_items)
    };
    lists.windows(2).map(history).collect()
}

/// Ascending offsets of at most `end`.
fn offsets(bytes: &[u8], end: usize) -> PyResult<Vec<usize>> {
    let (values, rest) = bytes.as_chunks::<8>();
    let values = values.iter().map(|value| i64::from_ne_bytes(*value));
    let offsets: Option<Vec<usize>> = values.map(|value| usize::try_from(value).ok()).collect();
    match offsets {
        Some(offsets)
            if rest.is_empty()
                && offsets.is_sorted()
                && offsets.last().is_some_and(|last| *last <= end) =>
        {
            Ok(offsets)
        }
        _ => Err(wrong("offsets are not those of a column")),
    }
}

fn wrong(found: &str) -> PyErr {
    PyValueError::new_err(format!(
        "histories: expected a column of lists of strings, but {found}"
    ))
}
