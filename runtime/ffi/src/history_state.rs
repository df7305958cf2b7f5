//! A history that grows by single items.

use std::sync::{Arc, Mutex, MutexGuard};

use slmrec_runtime as runtime;

use crate::cancel::CancelToken;
use crate::convert::count;
use crate::error::SlmrecError;
use crate::limits;
use crate::recommender::{Recommender, after_a_fault};
use crate::records::{Filter, Recommendations};

/// One person's history with what the model has made of it, so that an appended item costs little.
///
/// Calls may come from any thread; they are answered one after the other. It keeps its recommender
/// alive.
#[derive(Debug, uniffi::Object)]
pub struct HistoryState {
    recommender: Arc<Recommender>,
    state: Mutex<runtime::HistoryState>,
    unknown: Vec<String>,
}

impl HistoryState {
    pub(crate) fn new(
        recommender: Arc<Recommender>,
        state: runtime::HistoryState,
        unknown: Vec<String>,
    ) -> Arc<Self> {
        Arc::new(Self {
            recommender,
            state: Mutex::new(state),
            unknown,
        })
    }

    fn lock(&self) -> Result<MutexGuard<'_, runtime::HistoryState>, SlmrecError> {
        self.state.lock().map_err(|_| after_a_fault())
    }
}

#[uniffi::export]
impl HistoryState {
    /// Appends an item that the person has just taken; `false`, and nothing is changed, for an id
    /// that the catalog does not have. Nothing runs before the next question.
    pub fn append(&self, id: String) -> Result<bool, SlmrecError> {
        limits::check_ids("the item", std::slice::from_ref(&id))?;
        let mut state = self.lock()?;
        self.recommender
            .ask(None, |runtime| state.append(runtime, &id))
    }

    /// The `k` best items after all that was appended.
    pub fn recommend(
        &self,
        k: u32,
        filter: Filter,
        cancel: Option<Arc<CancelToken>>,
    ) -> Result<Recommendations, SlmrecError> {
        let filter = filter.try_into()?;
        let mut state = self.lock()?;
        let answer = self.recommender.ask(cancel, |runtime| {
            state.recommend(runtime, k as usize, &filter)
        });
        answer.map(Into::into)
    }

    /// Number of items that the model reads: the newest known ones.
    pub fn used_items(&self) -> Result<u32, SlmrecError> {
        Ok(count(self.lock()?.used_items()))
    }

    /// Ids of the history that the state began with that the catalog does not have, each once.
    #[must_use]
    pub fn unknown_items(&self) -> Vec<String> {
        self.unknown.clone()
    }

    /// The state as bytes, for the recommender's `restore_history_state`: some bytes for each item,
    /// UTF-8 text. Equal states give equal bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SlmrecError> {
        Ok(self.lock()?.to_bytes()?)
    }
}
