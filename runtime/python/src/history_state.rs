//! A history that grows.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;

use crate::errors::Failure;
use crate::given::{self, Filter};
use crate::recommender::Answer;
use crate::shared::Shared;

/// One person's history, with what the encoder has made of it.
#[pyclass(frozen)]
pub(crate) struct HistoryState {
    shared: Arc<Shared>,
    state: Mutex<slmrec_runtime::HistoryState>,
}

impl HistoryState {
    pub(crate) fn new(shared: Arc<Shared>, state: slmrec_runtime::HistoryState) -> Self {
        Self {
            shared,
            state: Mutex::new(state),
        }
    }

    /// Does `work` with recommender and state. The recommender is always taken first, so that two
    /// threads cannot wait for each other.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(
            &mut slmrec_runtime::Recommender,
            &mut slmrec_runtime::HistoryState,
        ) -> Result<T, slmrec_runtime::RuntimeError>
        + Send,
    ) -> Result<T, Failure> {
        self.shared.with(py, |recommender| {
            // A state that a panic has left goes with its recommender, which is broken then.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(work(recommender, &mut state)?)
        })
    }
}

#[pymethods]
impl HistoryState {
    fn append(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<bool> {
        let id = given::id(id, || "id".to_owned())?;
        let known = self.with(py, |recommender, state| state.append(recommender, &id));
        Ok(known?)
    }

    fn recommend(&self, py: Python<'_>, k: usize, filter: Filter<'_>) -> PyResult<Answer> {
        let filter = filter.options()?;
        let found = self.with(py, |recommender, state| {
            state.recommend(recommender, k, &filter)
        });
        Ok(found?.into())
    }

    fn user_vector(&self, py: Python<'_>) -> PyResult<Vec<f32>> {
        Ok(self.with(py, |recommender, state| state.user_vector(recommender))?)
    }

    fn used_items(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.with(py, |_, state| Ok(state.used_items()))?)
    }

    fn to_bytes(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        Ok(self.with(py, |_, state| state.to_bytes())?)
    }
}
